package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
)

// listener keeps the events that it is told of.
type listener struct{}

var heard = make(chan caddy.Event, 16)

func init() { caddy.RegisterModule(listener{}) }

func (listener) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "events.handlers.gatehouse_test_listener", New: func() caddy.Module { return new(listener) }}
}

func (listener) UnmarshalCaddyfile(d *caddyfile.Dispenser) error { d.Next(); return nil }

func (listener) Handle(_ context.Context, e caddy.Event) error {
	heard <- e
	return nil
}

var _ caddyevents.Handler = listener{}

const listening = behindProxy + `
	events {
		on gatehouse_canary_rolled_back gatehouse_test_listener
	}
`

// event waits for one and returns what it says.
func event(t *testing.T) map[string]any {
	t.Helper()
	select {
	case e := <-heard:
		return e.Data
	case <-time.After(5 * time.Second):
		t.Fatal("no event came")
		return nil
	}
}

// silence fails if there is an event nobody waited for.
func silence(t *testing.T) {
	t.Helper()
	time.Sleep(50 * time.Millisecond)
	select {
	case e := <-heard:
		t.Errorf("an event came: %v", e.Data)
	default:
	}
}

// rolledBack is the live object that a rollback leaves.
type rolledBack struct {
	By    string `json:"by"`
	Value struct {
		Weight     float64 `json:"weight"`
		RolledBack *struct {
			Why    string  `json:"why"`
			Weight float64 `json:"weight"`
			Canary struct {
				Results  int   `json:"results"`
				Failures int   `json:"failures"`
				P95      int64 `json:"p95_ms"`
			} `json:"canary"`
		} `json:"rolled_back"`
	} `json:"value"`
}

func (g *gateway) rolledBack(t *testing.T, id string) (o rolledBack) {
	t.Helper()
	eventually(t, "a rollback to be stored", func() bool {
		a := g.change(t, "GET", "/gatehouse/canaries/"+id, "", nil)
		return a.status == 200 && json.Unmarshal([]byte(a.body), &o) == nil && o.Value.RolledBack != nil
	})
	return o
}

const quick = "weight 50%\n rollback {\n samples 40\n window 10s\n}"

// TestCanaryFailing: a canary that answers 500 loses its callers, over reloads
// and restarts, until an operator gives it others.
func TestCanaryFailing(t *testing.T) {
	stable, next := newUpstream(t), newUpstream(t)
	next.status.Store(500)
	site := released("failing", quick, next.addr(), stable.addr())
	gw := start(t, listening, site)
	gw.callers(t, 0, 200)
	if n := next.hits.Load(); n < 40 || n > 70 {
		t.Errorf("a canary that fails every request got %d of 200", n)
	}
	if n := count(gw.callers(t, 200, 300), stable.addr()); n != 100 {
		t.Errorf("%d of 100 callers are served by the stable release", n)
	}
	if e := event(t); e["api"] != "failing" || e["release"] != "next" || e["why"] != "errors" || e["mode"] != "enforce" || e["weight"] != 50.0 || e["canary_failures"].(int) < 40 || e["stable_failures"] != 0 {
		t.Errorf("the event says %v", e)
	}
	o := gw.rolledBack(t, "failing.next")
	if o.By != "gatehouse canary" || o.Value.Weight != 0 || o.Value.RolledBack.Why != "errors" || o.Value.RolledBack.Weight != 50 || o.Value.RolledBack.Canary.Failures < 40 {
		t.Errorf("%+v", o)
	}
	if n := gw.metric(t, "gatehouse_canary_rolled_back_total", `api="failing"`, `why="errors"`, `mode="enforce"`); n != 1 {
		t.Errorf("%v rollbacks are counted", n)
	}
	if n := gw.metric(t, "gatehouse_canary_weight", `api="failing"`); n != 0 {
		t.Errorf("the weight is shown as %v", n)
	}
	if n := strings.Count(fmt.Sprint(gw.decisions(t)), "rule:next rolled back: errors"); n != 1 {
		t.Errorf("%d decisions name the rollback", n)
	}
	if !strings.Contains(gw.log(t), "its callers go back") || !strings.Contains(gw.log(t), `"by":"gatehouse canary"`) {
		t.Error("the log to tell of it")
	}

	hits := next.hits.Load()
	if err := gw.load(listening, site+"\n# again"); err != nil {
		t.Fatal(err)
	}
	gw.callers(t, 0, 50)
	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := gw.load(listening, site); err != nil {
		t.Fatal(err)
	}
	gw.callers(t, 0, 50)
	if n := next.hits.Load() - hits; n != 0 {
		t.Errorf("after a reload and a restart, %d requests reached the canary", n)
	}
	if !strings.Contains(gw.log(t), "a release is rolled back and gets no callers") {
		t.Error("loading does not warn")
	}
	silence(t)

	// It is put right, and an operator resumes it.
	next.status.Store(200)
	if a := gw.change(t, "PATCH", "/gatehouse/canaries/failing.next", `{"weight":50,"rolled_back":null}`, nil); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	gw.callers(t, 0, 200)
	if n := next.hits.Load() - hits; n < 70 || n > 130 {
		t.Errorf("resumed, the canary got %d of 200", n)
	}
	silence(t)
	// And it fails again.
	next.status.Store(503)
	gw.callers(t, 0, 300)
	if e := event(t); e["why"] != "errors" {
		t.Errorf("the second event says %v", e)
	}
	if o := gw.rolledBack(t, "failing.next"); o.Value.Weight != 0 {
		t.Errorf("%+v", o)
	}
}

// TestCanarySlow: so does one that takes much longer.
func TestCanarySlow(t *testing.T) {
	stable := newUpstream(t)
	next := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(200 * time.Millisecond)
		_, _ = io.WriteString(w, "slow")
	})
	gw := start(t, listening, released("slow", quick, next.addr(), stable.addr()))
	// With so few results the slowest one of the stable release is what counts,
	// and where a busy machine made that slow as well, only the next window tells.
	for end := time.Now().Add(time.Minute); len(heard) == 0 && time.Now().Before(end); {
		gw.callers(t, 0, 120)
	}
	if e := event(t); e["why"] != "latency" || e["canary_p95_ms"].(int64) < 200 {
		t.Errorf("the event says %v", e)
	}
	before := next.count()
	gw.callers(t, 0, 50)
	if next.count() != before {
		t.Error("it still gets requests")
	}
}

// TestCanaryEqual: releases that do alike, badly too, stay.
func TestCanaryEqual(t *testing.T) {
	for name, stable := range map[string]http.HandlerFunc{
		"sound": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200) },
		"flaky": func() http.HandlerFunc {
			var mu sync.Mutex
			n := 0
			return func(w http.ResponseWriter, _ *http.Request) {
				mu.Lock()
				defer mu.Unlock()
				if n++; n%5 == 0 {
					w.WriteHeader(500)
				}
			}
		}(),
		"asked for what is not there": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(404) },
	} {
		t.Run(name, func(t *testing.T) {
			a, b := newBackend(t, stable), newBackend(t, stable)
			if name == "asked for what is not there" {
				b = newBackend(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200) })
			}
			// The breaker of a flaky upstream is not what this is about.
			gw := start(t, listening, released("equal"+name[:2], quick, a.addr(), b.addr()))
			gw.callers(t, 0, 600)
			silence(t)
			if a.count() < 200 {
				t.Errorf("the canary got %d of 600", a.count())
			}
		})
	}
}

// TestCanaryDead: nobody listens where the canary should be.
func TestCanaryDead(t *testing.T) {
	stable := newUpstream(t)
	gw := start(t, listening, released("dead", quick, dead(t), stable.addr()))
	gw.callers(t, 0, 200)
	if e := event(t); e["why"] != "errors" {
		t.Errorf("the event says %v", e)
	}
	if n := count(gw.callers(t, 0, 100), stable.addr()); n != 100 {
		t.Errorf("%d of 100 are served", n)
	}
	d := fmt.Sprint(gw.decisions(t))
	if !strings.Contains(d, "reason:resilience.unreachable") {
		t.Error("the decisions do not say what failed")
	}
	// A denial is recorded once, by the stage that gave it.
	for _, e := range gw.decisions(t) {
		if s := fmt.Sprint(e["stages"]); strings.Count(s, "verdict:deny") > 1 {
			t.Errorf("%s", s)
		}
	}
}

// TestCanaryStorageAway: a rollback needs no storage.
func TestCanaryStorageAway(t *testing.T) {
	stable, next := newUpstream(t), newUpstream(t)
	next.status.Store(500)
	site := released("homeless", quick, next.addr(), stable.addr())
	gw := start(t, listening, site)
	dir := filepath.Join(gw.dir, "storage", "gatehouse", "registry")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "journal.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	gw.callers(t, 0, 200)
	event(t)
	hits := next.hits.Load()
	gw.callers(t, 0, 50)
	eventually(t, "the log to tell of it", func() bool { return strings.Contains(gw.log(t), "a rollback cannot be stored") })
	// Not even a reload, with other numbers, brings the callers back. The
	// registry itself is kept, so it can be loaded.
	if err := gw.load(listening, strings.Replace(site, "samples 40", "samples 41", 1)); err != nil {
		t.Fatal(err)
	}
	gw.callers(t, 0, 50)
	if n := next.hits.Load() - hits; n != 0 {
		t.Errorf("%d requests reached the canary", n)
	}
	if err := os.Remove(filepath.Join(dir, "journal.json")); err != nil {
		t.Fatal(err)
	}
}

// TestCanaryBrokenUploads: clients that break off what they send are no failures
// of the release that gets it, and cannot take it from others.
func TestCanaryBrokenUploads(t *testing.T) {
	stable, next := newUpstream(t), newUpstream(t)
	gw := start(t, listening, released("brokenoff", quick, next.addr(), stable.addr()))
	for i, by := range gw.callers(t, 0, 200) {
		if by != next.addr() || i%4 != 0 {
			continue
		}
		for range 4 {
			c, err := net.Dial("unix", gw.sock)
			if err != nil {
				t.Fatal(err)
			}
			_, _ = fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: %s\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\nno chunk\r\n", address(i))
			_, _ = io.CopyN(io.Discard, c, 1)
			_ = c.Close()
		}
	}
	silence(t)
}
