package firewall

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/firewall/internal/waf"
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

// TestFirewallBusy: there is room for so much of a caller and of all, what is
// small needs none, and who finds none is refused whatever on_error says.
func TestFirewallBusy(t *testing.T) {
	engine, err := waf.Compile(&waf.Settings{Threshold: 5, Arguments: 1000, MaxBody: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	room := 64 << 10 * runtime.GOMAXPROCS(0)
	hold := func(network string, size int) {
		who := caller{network: netip.MustParsePrefix(network)}
		if err := work.Enter(t.Context(), who, size, 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { work.Leave(who, size) })
	}
	hold("2001:db8::/48", room/2-1000)
	try := func(name, client string, size int, mode gate.Mode, want gate.Verdict) {
		t.Helper()
		h := &Handler{MaxBody: 1 << 20, Oversize: "refuse", Arguments: 1000, Mode: mode, OnError: gate.Open, waf: engine, logger: zap.NewNop()}
		// A client that is gone waits no longer.
		ctx, cancel := context.WithCancel(t.Context())
		if want == gate.Denied {
			cancel()
		}
		defer cancel()
		r := httptest.NewRequestWithContext(ctx, http.MethodPost, "/", strings.NewReader(strings.Repeat("a", size)))
		r.Header.Set("Content-Type", "text/plain")
		w := httptest.NewRecorder()
		r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, nil)
		caddyhttp.SetVar(r.Context(), caddyhttp.ClientIPVarKey, client)
		err := h.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil }))
		d := gate.Of(r).Decisions()
		if len(d) != 1 || d[0].Verdict != want || want != gate.Allowed && d[0].Reason != gate.FirewallBusy || (err != nil) != (want == gate.Denied) {
			t.Errorf("%s: %+v, %v", name, d, err)
		}
		if want == gate.Denied && w.Header().Get("Retry-After") != "5" {
			t.Errorf("%s: %v", name, w.Header())
		}
	}
	try("of its own there is enough", "2001:db8:0:1::1", 5000, gate.Enforce, gate.Denied)
	try("the same in shadow", "2001:db8:0:2::1", 5000, gate.Shadow, gate.WouldDeny)
	try("small", "2001:db8:0:3::1", 3000, gate.Enforce, gate.Allowed)
	try("somebody else", "2001:db8:1::1", 5000, gate.Enforce, gate.Allowed)
	hold("2001:db8:2::/48", room/2-1000)
	try("somebody else, with little room left", "2001:db8:1::1", 5000, gate.Enforce, gate.Denied)
	try("small, with little room left", "2001:db8:1::1", 3000, gate.Enforce, gate.Allowed)
}
