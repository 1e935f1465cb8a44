package resilience

import (
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/gatehouse-caddy/gatehouse/modules/resilience/internal/breaker"
)

// A request that outlives its configuration must not hold a breaker for good.
func TestReleasedTargets(t *testing.T) {
	ts := targets{settings: breaker.Settings{Open: time.Second}}
	ts.add("a:80", "a:80")
	ts.release()
	for _, dial := range []string{"a:80", "b:80"} {
		ts.of(reverseproxy.DialInfo{Address: dial, Upstream: &reverseproxy.Upstream{Dial: dial}})
		if n, there := pool.References(poolKey{dial, ts.settings, ts.failures}); there {
			t.Errorf("%s is still held %d times", dial, n)
		}
	}
}
