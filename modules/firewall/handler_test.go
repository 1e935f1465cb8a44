package firewall

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// TestFirewallFails: what the engine could not inspect is refused, unless the
// user has chosen otherwise.
func TestFirewallFails(t *testing.T) {
	for _, c := range []struct {
		onError gate.OnError
		verdict gate.Verdict
		passed  bool
	}{{gate.Closed, gate.Denied, false}, {gate.Open, gate.Undecided, true}} {
		h := &Handler{OnError: c.onError, logger: zap.NewNop()} // without an engine, it panics
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		w := httptest.NewRecorder()
		r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, nil)
		passed := false
		err := h.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
			passed = true
			return nil
		}))
		d := gate.Of(r).Decisions()
		if len(d) != 1 || d[0].Reason != gate.FirewallFailed || d[0].Verdict != c.verdict || passed != c.passed || (err == nil) != c.passed {
			t.Errorf("on_error %v: %+v, passed %v, %v", c.onError, d, passed, err)
		}
	}
}
