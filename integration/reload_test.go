package integration

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/goleak"
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
	var served atomic.Int64
	kept := w.client.Transport.(*http.Transport).Clone()
	client := &http.Client{Transport: kept}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				fresh := false
				ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { fresh = !c.Reused }})
				req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://localhost/health", nil)
				req.Header = ann
				resp, err := client.Do(req)
				if err != nil && fresh {
					continue // lost in the queue of a socket that Caddy was closing
				}
				if err != nil {
					t.Errorf("during a reload, on a kept connection: %v", err)
					return
				}
				served.Add(1)
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
	kept.CloseIdleConnections()
	if served.Load() < 20 {
		t.Errorf("only %d requests were served: that was no load", served.Load())
	}

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
