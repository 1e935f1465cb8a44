package integration

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.uber.org/goleak"

	"github.com/caddyserver/caddy/v2"
)

// TestReloadsUnderLoad reloads twenty times, good and refused in turn, while
// kept-alive clients send requests. Nothing may be refused or leak, and what a
// tenant has spent stays spent.
func TestReloadsUnderLoad(t *testing.T) {
	w := startWalk(t, "")
	tiny := bearer(w.token(t, map[string]any{"tenant": "small", "plan": "tiny"}))
	for i, want := range []int{200, 200, 429} {
		if a := w.get(t, "/orders", tiny); a.status != want {
			t.Fatalf("request %d of the small tenant: %d %s", i, a.status, a.body)
		}
	}

	// A first round of reloads, so that pools and caches are as they will be.
	for range 2 {
		if err := w.reload("owner warm"); err != nil {
			t.Fatal(err)
		}
	}
	w.client.CloseIdleConnections()
	before := goleak.IgnoreCurrent()

	ann := bearer(w.token(t, nil))
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				req, _ := http.NewRequest(http.MethodGet, "http://localhost/health", nil)
				req.Header = ann
				resp, err := w.client.Do(req)
				if err != nil {
					// A connection that Caddy closed between two requests is
					// HTTP's way to end it; the client library retries those.
					t.Errorf("during a reload: %v", err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusTooManyRequests {
					t.Errorf("during a reload: %s", resp.Status)
					return
				}
			}
		})
	}
	for i := range 20 {
		if i%2 == 0 {
			if err := w.reload(fmt.Sprintf("owner team-%d", i)); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if err := w.reload("contract " + w.dir + "/missing.yaml"); err == nil || !strings.Contains(err.Error(), "missing.yaml") {
			t.Fatalf("a contract that is not there: %v", err)
		}
	}
	stop.Store(true)
	wg.Wait()

	if a := w.get(t, "/orders", tiny); a.status != 429 {
		t.Errorf("after the reloads the small tenant gets %d: its counter is lost", a.status)
	}
	w.client.CloseIdleConnections()
	w.backend.Close()
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	goleak.VerifyNone(t, before, goleak.IgnoreAnyFunction("github.com/caddyserver/caddy/v2.replaceLocalAdminServer.func2")) // Caddy leaves its admin endpoint up
}
