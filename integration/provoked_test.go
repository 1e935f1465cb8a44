package integration

import (
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// fragile has an operation at which its handler panics, and one that takes
// longer than anybody waits.
func fragile(t *testing.T) *backend {
	t.Helper()
	b := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/crash":
			panic(http.ErrAbortHandler)
		case "/slow":
			<-r.Context().Done()
		default:
			w.WriteHeader(http.StatusOK)
		}
	})
	t.Cleanup(b.CloseClientConnections)
	return b
}

// at asks for a path from an address.
func (g *gateway) at(t *testing.T, path, addr string) answer {
	t.Helper()
	return g.get(t, path, http.Header{"X-Forwarded-For": {addr}})
}

// together asks for the same n times at once, from one address.
func (g *gateway) together(t *testing.T, n int, path, addr string) {
	var all sync.WaitGroup
	for range n {
		all.Go(func() {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost"+path, nil)
			if err != nil {
				t.Error(err)
				return
			}
			req.Header.Set("X-Forwarded-For", addr)
			res, err := g.client.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			_ = res.Body.Close()
		})
	}
	all.Wait()
}

const hasty = "transport gatehouse {\n try_timeout 1s\n timeout 1s\n}"

// TestCrashingOperation: who asks for what makes the backend drop the connection
// closes nothing, for others or on another API with the same upstream.
func TestCrashingOperation(t *testing.T) {
	for _, upstreams := range []string{fragile(t).addr(), fragile(t).addr() + " " + fragile(t).addr()} {
		gw := start(t, behindProxy, fmt.Sprintf("handle /other/* {\n api other {\n reverse_proxy %s\n}\n}\nhandle {\n%s\n}", upstreams, proxied("", upstreams)))
		for i := range 10 {
			if a := gw.at(t, "/crash", "198.18.0.1"); a.reason() != "resilience.unreachable" {
				t.Fatalf("crash %d: %d %s", i, a.status, a.reason())
			}
		}
		gw.together(t, 40, "/crash", "198.18.0.1")
		for i := range 40 {
			for _, path := range []string{"/", "/other/one"} {
				if a := gw.at(t, path, address(i)); a.status != 200 {
					t.Fatalf("%s for caller %d: %d %s", path, i, a.status, a.reason())
				}
			}
		}
	}
}

// TestSlowOperation: nor does who asks for what takes too long, many times at
// once, while others are answered; and where nobody else asks, the first other
// who comes finds out that all is well.
func TestSlowOperation(t *testing.T) {
	t.Run("busy", func(t *testing.T) {
		gw := start(t, behindProxy, proxied(hasty, fragile(t).addr()))
		var over atomic.Bool
		var callers sync.WaitGroup
		for i := range 3 {
			callers.Go(func() {
				for n := 0; !over.Load(); n++ {
					if body, err := gw.caller(t, 10+i+n%30); err != nil || body != "" {
						t.Errorf("another caller: %s %v", body, err)
						return
					}
				}
			})
		}
		gw.together(t, 40, "/slow", "198.18.0.1")
		gw.together(t, 40, "/slow", "198.18.0.1")
		over.Store(true)
		callers.Wait()
	})
	t.Run("quiet", func(t *testing.T) {
		gw := start(t, behindProxy, proxied(hasty, fragile(t).addr()))
		gw.together(t, 40, "/slow", "198.18.0.1")
		refused := 0
		for i := 10; i < 50; i++ { // one in sixteen counts as the first caller
			if a := gw.at(t, "/", address(i)); a.reason() == "resilience.breaker_open" {
				refused++
			} else if a.status != 200 {
				t.Fatalf("caller %d: %d %s", i, a.status, a.reason())
			}
		}
		if refused > 4 {
			t.Errorf("%d of 40 others were refused", refused)
		}
		if a := gw.at(t, "/", "198.18.0.1"); a.status != 200 {
			t.Errorf("what is not slow, for the first caller: %d %s", a.status, a.reason())
		}
	})
}

// TestMuteUpstream: one that answers nobody gets no more than a few requests of
// each caller, and is used again once it answers.
func TestMuteUpstream(t *testing.T) {
	u := newUpstream(t)
	u.hang.Store(true)
	gw := start(t, behindProxy, proxied("transport gatehouse {\n try_timeout 50ms\n timeout 50ms\n breaker {\n open 500ms\n}\n}", u.addr()))
	reasons := map[string]int{}
	for i := range 100 {
		reasons[gw.from(t, address(i)).reason()]++
	}
	if reasons["resilience.breaker_open"] < 60 || reasons["resilience.timeout"] < 5 || len(reasons) != 2 {
		t.Errorf("reasons %v", reasons)
	}
	u.hang.Store(false)
	eventually(t, "it to be used again", func() bool { return gw.from(t, address(0)).status == 200 })
}

// TestCanaryProvoked: one who invents cookies until they lead to the release,
// and then asks for what fails on it, does not take it from others; what fails
// for others does.
func TestCanaryProvoked(t *testing.T) {
	var sick atomic.Bool
	stable := newUpstream(t)
	next := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if sick.Load() || r.URL.Path == "/boom" {
			w.WriteHeader(http.StatusInternalServerError)
		}
		_, _ = fmt.Fprint(w, "next")
	})
	for name, test := range map[string]struct {
		from func(i int) string
		lead int // how many others have come before
		last time.Duration
	}{
		"from one address": {func(int) string { return "198.18.9.1" }, 12, 6 * time.Second},
		"from a /56":       {func(i int) string { return fmt.Sprintf("2001:db8:0:%x::1", i%256) }, 30, 2 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			sick.Store(false)
			api := map[bool]string{true: "provoked", false: "invented"}[test.lead == 12]
			gw := start(t, listening, released(api, "sticky cookie\n weight 50%\n rollback {\n samples 40\n window 10s\n}", next.addr(), stable.addr()))
			cookies := map[string]string{} // by who answers
			for i := 0; len(cookies) < 2; i++ {
				id := fmt.Sprintf("%026d", i)
				a := gw.get(t, "/", http.Header{"X-Forwarded-For": {test.from(i)}, "Cookie": {"gatehouse_canary=" + id}})
				cookies[map[bool]string{true: "next", false: "stable"}[a.body == "next"]] = id
			}
			ask := func(who, path, addr string) {
				gw.get(t, path, http.Header{"X-Forwarded-For": {addr}, "Cookie": {"gatehouse_canary=" + cookies[who]}})
			}
			for i := range 100 {
				ask("stable", "/", address(i))
			}
			for i := range test.lead {
				ask("next", "/", address(i))
			}
			began := time.Now()
			for i := 0; time.Since(began) < test.last && len(heard) == 0; i++ {
				ask("next", "/", address(i))
				for k := range 10 {
					ask("next", "/boom", test.from(10*i+k))
				}
				time.Sleep(time.Second) // of one caller, only so many count in a tenth of the window
			}
			silence(t)

			sick.Store(true)
			for end := time.Now().Add(20 * time.Second); len(heard) == 0 && time.Now().Before(end); {
				for i := range 100 {
					ask("stable", "/", address(i))
					ask("next", "/", address(i))
				}
			}
			if e := event(t); e["why"] != "errors" {
				t.Errorf("the event says %v", e)
			}
		})
	}
}
