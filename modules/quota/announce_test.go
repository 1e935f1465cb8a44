package quota

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/quota/internal/bucket"
)

// TestAnnounce: several quotas, and the upstream, make one list of each field,
// and writing to one list does not reach into the other.
func TestAnnounce(t *testing.T) {
	h := http.Header{}
	a, b := &plan{policy: `"a";q=1;w=1`, member: `"a"`}, &plan{policy: `"b";q=2;w=2`, member: `"b"`}
	a.announce(h, bucket.Outcome{Remaining: 3, Reset: 1500 * time.Millisecond})
	b.announce(h, bucket.Outcome{})
	if got, want := fmt.Sprintf("%q", h["Ratelimit-Policy"]), `["\"a\";q=1;w=1" "\"b\";q=2;w=2"]`; got != want {
		t.Errorf("policy %s, want %s", got, want)
	}
	if got, want := fmt.Sprintf("%q", h["Ratelimit"]), `["\"a\";r=3;t=2" "\"b\";r=0;t=0"]`; got != want {
		t.Errorf("limit %s, want %s", got, want)
	}
}

// TestPlan: a plan that nobody defined is the default, never unlimited.
func TestPlan(t *testing.T) {
	free, pro := &plan{rule: "free"}, &plan{rule: "pro"}
	h := &Handler{app: &App{plans: map[string]*plan{"free": free, "pro": pro}, fallback: free}}
	for name, want := range map[string]*plan{"pro": pro, "free": free, "": free, "none-such": free} {
		if got, _ := h.plan(&gate.Exchange{Principal: &gate.Principal{Plan: name}}); got != want {
			t.Errorf("plan %q is %v", name, got)
		}
	}
	if p, _ := h.plan(&gate.Exchange{}); p != free {
		t.Error("nobody has a plan of its own")
	}
}
