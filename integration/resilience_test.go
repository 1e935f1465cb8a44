package integration

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// upstream is a backend whose behaviour the test changes while it runs.
type upstream struct {
	*httptest.Server
	hits   atomic.Int64
	status atomic.Int64
	hang   atomic.Bool
	mu     sync.Mutex
	bodies []string
}

func newUpstream(t *testing.T) *upstream {
	t.Helper()
	u := new(upstream)
	u.status.Store(200)
	u.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u.hits.Add(1)
		body, _ := io.ReadAll(r.Body)
		u.mu.Lock()
		u.bodies = append(u.bodies, string(body))
		u.mu.Unlock()
		if u.hang.Load() {
			<-r.Context().Done()
			return
		}
		w.WriteHeader(int(u.status.Load()))
		_, _ = fmt.Fprint(w, u.addr())
	}))
	t.Cleanup(u.CloseClientConnections) // a hanging handler would keep Close waiting
	t.Cleanup(u.Close)
	return u
}

func (u *upstream) addr() string { return u.Listener.Addr().String() }

// dead is an address where nothing listens.
func dead(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}

// proxied is an api before the given upstreams, with options for its reverse_proxy.
func proxied(options string, upstreams ...string) string {
	return fmt.Sprintf("api orders {\n reverse_proxy %s {\n%s\n}\n}", strings.Join(upstreams, " "), options)
}

func TestDeadUpstream(t *testing.T) {
	alive, gone := newUpstream(t), dead(t)
	gw := start(t, "", proxied("", alive.addr(), gone))
	for i := range 60 {
		method := []string{http.MethodGet, http.MethodPost}[i%2]
		if a := gw.do(t, method, "/", nil, "{}"); a.status != 200 || a.body != alive.addr() {
			t.Fatalf("request %d: %d %q", i, a.status, a.body)
		}
	}
	if gw.metric(t, "gatehouse_resilience_breaker_state", gone) != 2 {
		t.Errorf("the breaker of the dead upstream is not shown as open")
	}
	alive.mu.Lock()
	defer alive.mu.Unlock()
	for i, body := range alive.bodies {
		if i%2 == 1 && body != "{}" {
			t.Errorf("request %d arrived with body %q", i, body)
		}
	}
}

func TestAllDead(t *testing.T) {
	gw := start(t, "", proxied("", dead(t), dead(t)))
	reasons := map[string]int{}
	for range 20 {
		a := gw.do(t, http.MethodGet, "/", nil, "")
		reasons[a.reason()]++
		if a.reason() == "resilience.breaker_open" && (a.status != 503 || a.header.Get("Retry-After") == "") {
			t.Fatalf("%d, Retry-After %q", a.status, a.header.Get("Retry-After"))
		}
	}
	if reasons["resilience.unreachable"] == 0 || reasons["resilience.breaker_open"] == 0 || len(reasons) != 2 {
		t.Errorf("reasons %v", reasons)
	}
}

func TestHangingUpstream(t *testing.T) {
	good, bad := newUpstream(t), newUpstream(t)
	bad.hang.Store(true)
	gw := start(t, "", proxied("transport gatehouse {\n try_timeout 100ms\n timeout 1s\n}", good.addr(), bad.addr()))
	for i := range 30 {
		if a := gw.do(t, http.MethodGet, "/", nil, ""); a.status != 200 {
			t.Fatalf("request %d: %d %s", i, a.status, a.body)
		}
	}
	if n := bad.hits.Load(); n > 6 {
		t.Errorf("an upstream that hangs got %d requests", n)
	}
}

func TestTimeout(t *testing.T) {
	u := newUpstream(t)
	u.hang.Store(true)
	gw := start(t, "", proxied("transport gatehouse {\n try_timeout 50ms\n timeout 120ms\n}", u.addr()))
	began := time.Now()
	a := gw.do(t, http.MethodGet, "/", nil, "")
	if took := time.Since(began); a.status != 504 || a.reason() != "resilience.timeout" || took > 400*time.Millisecond {
		t.Errorf("%d %s after %v", a.status, a.reason(), took)
	}
	// A POST may have had its effect: one try.
	before := u.hits.Load()
	if a := gw.do(t, http.MethodPost, "/", nil, "{}"); a.status != 504 {
		t.Errorf("POST: %d", a.status)
	}
	if n := u.hits.Load() - before; n != 1 {
		t.Errorf("a POST that hung was sent %d times", n)
	}
}

// A failure whose body stalls is answered all the same: nobody gets that body.
func TestStallingFailure(t *testing.T) {
	bad := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, "part")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	defer bad.Close()
	gw := start(t, "", proxied("transport gatehouse {\n try_timeout 100ms\n}", bad.Listener.Addr().String()))
	began := time.Now()
	a := gw.do(t, http.MethodPost, "/", nil, "{}")
	if took := time.Since(began); a.status != 500 || a.reason() != "api.upstream_failed" || took > time.Second {
		t.Errorf("%d %s after %v", a.status, a.body, took)
	}
}

// A client that takes its time to send is not the upstream's failure, and an
// answer that takes its time to end is cut by nobody.
func TestSlowBodies(t *testing.T) {
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		rc := http.NewResponseController(w)
		for i := range 4 {
			_, _ = fmt.Fprintf(w, "part %d\n", i)
			_ = rc.Flush()
			time.Sleep(60 * time.Millisecond)
		}
	}))
	defer slow.Close()
	gw := start(t, "", proxied("transport gatehouse {\n try_timeout 100ms\n timeout 100ms\n}", slow.Listener.Addr().String()))
	body, w := io.Pipe()
	go func() {
		for range 4 {
			time.Sleep(60 * time.Millisecond)
			_, _ = io.WriteString(w, "x")
		}
		_ = w.Close()
	}()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost/", body)
	res, err := gw.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	got, err := io.ReadAll(res.Body)
	if err != nil || res.StatusCode != 200 || !strings.HasSuffix(string(got), "part 3\n") {
		t.Errorf("%d %q %v", res.StatusCode, got, err)
	}
}

func TestUpstreamAnswering500(t *testing.T) {
	good, bad := newUpstream(t), newUpstream(t)
	bad.status.Store(500)
	gw := start(t, "", proxied("", good.addr(), bad.addr()))
	for range 200 {
		gw.do(t, http.MethodGet, "/", nil, "")
	}
	if n := bad.hits.Load(); n < 10 || n > 60 {
		t.Errorf("an upstream that fails every request got %d of 200", n)
	}
	// Nobody who provokes errors can close the API: the last one goes on.
	good.status.Store(500)
	before := good.hits.Load() + bad.hits.Load()
	for range 100 {
		if a := gw.do(t, http.MethodGet, "/", nil, ""); a.status != 500 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	if n := good.hits.Load() + bad.hits.Load() - before; n != 100 {
		t.Errorf("%d of 100 requests were passed on", n)
	}
	good.status.Store(200)
	bad.status.Store(200)
	if a := gw.do(t, http.MethodGet, "/", nil, ""); a.status != 200 {
		t.Errorf("well again: %d", a.status)
	}
}

func TestAllOpenRefuse(t *testing.T) {
	u := newUpstream(t)
	u.status.Store(500)
	gw := start(t, "", proxied("transport gatehouse {\n breaker {\n all_open refuse\n open 300ms\n probes 1\n}\n}", u.addr()))
	for range 40 {
		gw.do(t, http.MethodGet, "/", nil, "")
	}
	if n := u.hits.Load(); n != 20 {
		t.Errorf("%d requests before it opened, want 20", n)
	}
	u.status.Store(200)
	time.Sleep(350 * time.Millisecond)
	if a := gw.do(t, http.MethodGet, "/", nil, ""); a.status != 200 {
		t.Errorf("after its time: %d %s", a.status, a.body)
	}
}

// TestTricklingProbe: who sends a body a byte at a time does not take the probe
// from others, with one upstream and with several, small bodies and large.
func TestTricklingProbe(t *testing.T) {
	for _, n := range []int{1, 2} {
		for _, length := range []int{1000, 10_000_000} {
			t.Run(fmt.Sprintf("%d upstreams, %d bytes", n, length), func(t *testing.T) {
				u := newUpstream(t)
				u.status.Store(500)
				others := []string{u.addr(), dead(t)}[:n]
				gw := start(t, "", proxied(fmt.Sprintf("transport gatehouse {\n breaker {\n all_open refuse\n samples %d\n open 300ms\n probes 1\n}\n}", 20+n), others...))
				eventually(t, "the breakers to open", func() bool { return gw.do(t, http.MethodGet, "/", nil, "").status == 503 })
				u.status.Store(200)
				time.Sleep(350 * time.Millisecond)
				for range 3 {
					slow, err := net.Dial("unix", gw.sock)
					if err != nil {
						t.Fatal(err)
					}
					defer slow.Close()
					if _, err := fmt.Fprintf(slow, "PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\nx", length); err != nil {
						t.Fatal(err)
					}
				}
				time.Sleep(100 * time.Millisecond)
				if a := gw.do(t, http.MethodGet, "/", nil, ""); a.status != 200 {
					t.Errorf("another client: %d %s", a.status, a.body)
				}
			})
		}
	}
}

func TestRetriedStatuses(t *testing.T) {
	good, bad := newUpstream(t), newUpstream(t)
	bad.status.Store(503)
	for _, c := range []struct {
		method, body, key string
		retried           bool
	}{
		{http.MethodGet, "", "", true},
		{http.MethodPut, `{"n":1}`, "", true},
		{http.MethodPut, strings.Repeat("x", 100_000), "", false}, // more than is kept
		{http.MethodPost, `{"n":1}`, "", false},
		{http.MethodPost, `{"n":1}`, "a1", true},
	} {
		name := fmt.Sprintf("%s %.8s %s", c.method, c.body, c.key)
		t.Run(name, func(t *testing.T) {
			// Every breaker its own, and never open.
			gw := start(t, "", proxied(fmt.Sprintf("transport gatehouse {\n breaker {\n samples %d\n}\n}", 10_000+len(name)), good.addr(), bad.addr()))
			failed := 0
			for range 40 {
				header := http.Header{}
				if c.key != "" {
					header.Set("Idempotency-Key", c.key)
				}
				if a := gw.do(t, c.method, "/", header, c.body); a.status != 200 {
					failed++
				}
			}
			if (failed == 0) != c.retried {
				t.Errorf("%d of 40 failed, retried should be %v", failed, c.retried)
			}
		})
	}
	good.mu.Lock()
	defer good.mu.Unlock()
	for _, b := range good.bodies {
		if b != "" && b != `{"n":1}` && len(b) != 100_000 {
			t.Fatalf("a body arrived as %q", b)
		}
	}
}

// Retries are at most a share of what is in flight.
func TestRetryBudget(t *testing.T) {
	bad := newUpstream(t)
	bad.status.Store(503)
	gw := start(t, "", proxied("lb_retries 5\ntransport gatehouse {\n breaker {\n samples 100000\n}\n}", bad.addr()))
	const clients = 40
	var wg sync.WaitGroup
	for range clients {
		wg.Go(func() {
			for range 5 {
				gw.do(t, http.MethodGet, "/", nil, "")
			}
		})
	}
	wg.Wait()
	// Without a budget there would be 5 retries a request.
	if n := bad.hits.Load(); n < 200 || n > 500 {
		t.Errorf("200 requests became %d", n)
	}
	if gw.metric(t, "gatehouse_resilience_retries_total", "no_budget") == 0 {
		t.Error("no retry was counted as over budget")
	}
}

func TestZones(t *testing.T) {
	near1, near2, far := newUpstream(t), newUpstream(t), newUpstream(t)
	options := fmt.Sprintf("lb_policy gatehouse {\n local_zone eu-1a\n zone eu-1a %s %s\n zone eu-1b %s\n}", near1.addr(), near2.addr(), far.addr())
	gw := start(t, "", proxied(options, near1.addr(), near2.addr(), far.addr()))
	for range 100 {
		gw.do(t, http.MethodGet, "/", nil, "")
	}
	if far.hits.Load() != 0 || near1.hits.Load() < 20 || near2.hits.Load() < 20 {
		t.Errorf("%d and %d near, %d far", near1.hits.Load(), near2.hits.Load(), far.hits.Load())
	}
	near1.Close()
	for range 200 {
		if a := gw.do(t, http.MethodGet, "/", nil, ""); a.status != 200 {
			t.Fatalf("%d", a.status)
		}
	}
	// One of two is worth 7 of 10 requests.
	if n := far.hits.Load(); n < 30 || n > 95 {
		t.Errorf("with half a zone gone, %d of 200 went to the other", n)
	}
	near2.Close()
	before := far.hits.Load()
	for range 50 {
		gw.do(t, http.MethodGet, "/", nil, "")
	}
	if n := far.hits.Load() - before; n != 50 {
		t.Errorf("with the zone gone, %d of 50 went to the other", n)
	}
}

// What is known of an upstream survives a reload, also a refused one.
func TestBreakerSurvivesReload(t *testing.T) {
	u := newUpstream(t)
	u.status.Store(500)
	site := proxied("transport gatehouse {\n breaker {\n all_open refuse\n}\n}", u.addr())
	gw := start(t, "", site)
	for range 20 {
		gw.do(t, http.MethodGet, "/", nil, "")
	}
	if err := gw.load("", site+"\nheader X-New yes"); err != nil {
		t.Fatal(err)
	}
	if a := gw.do(t, http.MethodGet, "/", nil, ""); a.status != 503 || a.header.Get("X-New") == "" {
		t.Errorf("after a reload: %d", a.status)
	}
	if err := gw.load("", site+"\nlb_policy nonsense"); err == nil {
		t.Fatal("nonsense was loaded")
	}
	if a := gw.do(t, http.MethodGet, "/", nil, ""); a.status != 503 {
		t.Errorf("after a refused reload: %d", a.status)
	}
	if n := u.hits.Load(); n != 20 {
		t.Errorf("%d requests went through", n)
	}
}

func TestResilienceShadow(t *testing.T) {
	u := newUpstream(t)
	u.status.Store(500)
	gw := start(t, "", proxied("transport gatehouse {\n mode shadow\n breaker {\n all_open refuse\n}\n}", u.addr()))
	before := gw.metric(t, "gatehouse_decisions_total", "resilience.breaker_open", "would_deny")
	for range 30 {
		if a := gw.do(t, http.MethodGet, "/", nil, ""); a.status != 500 {
			t.Fatalf("%d", a.status)
		}
	}
	if n := u.hits.Load(); n != 30 {
		t.Errorf("%d of 30 went through", n)
	}
	if gw.metric(t, "gatehouse_decisions_total", "resilience.breaker_open", "would_deny")-before != 10 {
		t.Error("shadow mode did not count what it would have refused")
	}
}

// Caddy's own policies, health checks and transports without a policy of ours
// go together with the breaker.
func TestResilienceBesideCaddys(t *testing.T) {
	good, gone := newUpstream(t), dead(t)
	gw := start(t, "", proxied("lb_policy round_robin\nhealth_uri /healthz\nhealth_interval 50ms", good.addr(), gone))
	for i := range 40 {
		if a := gw.do(t, http.MethodPost, "/", nil, "x"); a.status != 200 {
			t.Fatalf("request %d: %d %s", i, a.status, a.body)
		}
	}
}

// A plain site without an api gets the same answers through handle_errors.
func TestResilienceAlone(t *testing.T) {
	gw := start(t, "", fmt.Sprintf(`
		handle_errors {
			respond "{gatehouse.reason}" {err.status_code}
		}
		reverse_proxy %s {
			transport gatehouse
		}`, dead(t)))
	if a := gw.do(t, http.MethodGet, "/", nil, ""); a.status != 502 || a.body != "resilience.unreachable" {
		t.Errorf("%d %q", a.status, a.body)
	}
}

func TestResilienceBadConfig(t *testing.T) {
	for _, c := range []struct{ options, want string }{
		{"transport http\nlb_policy gatehouse", "lb_policy gatehouse needs transport gatehouse"},
		{"lb_policy gatehouse {\n local_zone a\n zone a 127.0.0.1:1\n}", "zone a names 127.0.0.1:1, which is no upstream"},
		{"lb_policy gatehouse {\n local_zone a\n}", "local_zone and zone go together"},
		{"lb_policy gatehouse {\n local_zone {env.NO_SUCH_ZONE}\n zone a 127.0.0.1:2\n}", "local_zone"},
		{"transport gatehouse {\n breaker {\n open 10m\n max_open 1m\n}\n}", "max_open must not be less than open"},
	} {
		gw := prepare(t)
		if err := gw.load("", proxied(c.options, "127.0.0.1:2")); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v", c.options, err)
		}
	}
}

// A broken upload is the client's doing and no mark against the upstream.
func TestBrokenUpload(t *testing.T) {
	u := newUpstream(t)
	gw := start(t, "", proxied("", u.addr()))
	for range 10 {
		c, err := net.Dial("unix", gw.sock)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte("PUT / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"))
		_, _ = c.Write(bytes.Repeat([]byte("x"), 1000))
		_ = c.Close()
	}
	time.Sleep(100 * time.Millisecond)
	if a := gw.do(t, http.MethodGet, "/", nil, ""); a.status != 200 {
		t.Errorf("after broken uploads: %d %s", a.status, a.body)
	}
}

// TestProxyLogsNoFields: the warning that Caddy's proxy writes about an answer
// that breaks off names the request, and shows nothing that was sent with it.
func TestProxyLogsNoFields(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "cut")
	})
	gw := start(t, "", proxied("", b.addr()))
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/cut?access_token=the-secret-key", nil)
	req.Header.Set("X-Api-Key", "the-secret-key")
	res, err := gw.client.Do(req)
	if err == nil {
		_, err = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
	}
	if err == nil {
		t.Fatal("a cut answer looks whole")
	}
	if got, _ := b.got(); got.Header.Get("X-Api-Key") != "the-secret-key" || got.RequestURI != "/cut?access_token=the-secret-key" {
		t.Errorf("the upstream got %v", got.Header)
	}
	log, err := os.ReadFile(gw.logFile())
	if err != nil {
		t.Fatal(err)
	}
	id := fmt.Sprint(gw.decisions(t)[0]["request_id"])
	found := false
	for line := range strings.Lines(string(log)) {
		found = found || strings.Contains(line, "aborting with incomplete response") && strings.Contains(line, id) && strings.Contains(line, "/cut")
	}
	if !found || strings.Contains(string(log), "the-secret-key") {
		t.Errorf("the log has\n%s", log)
	}
}

// A probe has as much time as any other request: an upstream is not gone
// because it takes longer than a moment.
func TestProbeHasItsTime(t *testing.T) {
	var sick atomic.Bool
	good := newUpstream(t)
	slow := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if sick.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		time.Sleep(40 * time.Millisecond)
	}))
	t.Cleanup(slow.Close)
	addr := slow.Listener.Addr().String()
	gw := start(t, "", proxied("transport gatehouse {\n breaker {\n samples 5\n open 200ms\n probes 1\n}\n}", good.addr(), addr))
	sick.Store(true)
	for range 40 {
		gw.do(t, http.MethodGet, "/", nil, "")
	}
	if gw.metric(t, "gatehouse_resilience_breaker_state", addr) != 2 {
		t.Fatal("the breaker did not open")
	}
	sick.Store(false)
	time.Sleep(250 * time.Millisecond)
	for range 10 {
		if a := gw.do(t, http.MethodGet, "/", nil, ""); a.status != 200 {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	if s := gw.metric(t, "gatehouse_resilience_breaker_state", addr); s != 0 {
		t.Errorf("the breaker of an upstream that is well again is in state %v", s)
	}
}

// A breaker is shown as it is, also while probes are on their way, and for as
// long as the configuration has its upstream.
func TestBreakerIsShown(t *testing.T) {
	var well atomic.Bool
	asked, answer := make(chan struct{}), make(chan struct{})
	u := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if !well.Load() {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		asked <- struct{}{}
		<-answer
	}))
	t.Cleanup(u.Close)
	addr := u.Listener.Addr().String()
	options := "transport gatehouse {\n breaker {\n samples 2\n open 50ms\n probes 1\n all_open refuse\n}\n}"
	gw := start(t, "", proxied(options, addr))
	shown := func() string {
		var o struct {
			Breakers []struct{ Upstream, State string }
		}
		if err := json.Unmarshal([]byte(gw.ask(t, "/gatehouse/overview")), &o); err != nil {
			t.Fatal(err)
		}
		for _, b := range o.Breakers {
			if b.Upstream == addr {
				return fmt.Sprint(gw.metric(t, "gatehouse_resilience_breaker_state", addr), " ", b.State)
			}
		}
		return "not at all"
	}
	if s := shown(); s != "0 closed" {
		t.Errorf("before any request it is shown as %s", s)
	}
	for range 2 {
		gw.get(t, "/", nil)
	}
	if s := shown(); s != "2 open" {
		t.Errorf("after failures it is shown as %s", s)
	}
	well.Store(true)
	time.Sleep(60 * time.Millisecond)
	var wg sync.WaitGroup
	wg.Go(func() { gw.get(t, "/", nil) })
	<-asked
	if s := shown(); s != "1 half-open" {
		t.Errorf("while a probe is on its way it is shown as %s", s)
	}
	close(answer)
	wg.Wait()
	if s := shown(); s != "0 closed" {
		t.Errorf("after the probe it is shown as %s", s)
	}
	if err := gw.load("", proxied(options, newUpstream(t).addr())); err != nil {
		t.Fatal(err)
	}
	if s := shown(); s != "not at all" || strings.Contains(gw.ask(t, "/metrics"), "breaker_state{upstream=\""+addr) {
		t.Errorf("after a reload without it, it is shown as %s", s)
	}
}

// Clients that send what is no body cannot open a breaker, whatever they say
// that it is.
func TestBrokenUploadIsTheClients(t *testing.T) {
	u := newUpstream(t)
	for _, mode := range []string{"enforce", "shadow"} {
		for _, ct := range []string{"application/json", "application/grpc"} {
			t.Run(mode+" "+ct, func(t *testing.T) {
				gw := start(t, "", proxied("transport gatehouse {\n mode "+mode+"\n breaker {\n consecutive 4\n}\n}", u.addr()))
				before := gw.metric(t, "gatehouse_resilience_breaker_opened_total", u.addr())
				for range 8 {
					gw.breakOff(t, ct)
				}
				if n := gw.metric(t, "gatehouse_resilience_breaker_opened_total", u.addr()) - before; n != 0 {
					t.Errorf("the breaker opened %v times", n)
				}
			})
		}
	}
}

// breakOff posts a body that ends in what is no chunk.
func (g *gateway) breakOff(t *testing.T, contentType string) {
	t.Helper()
	c, err := net.Dial("unix", g.sock)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	_, _ = fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\nno chunk\r\n", contentType)
	if res, err := http.ReadResponse(bufio.NewReader(c), nil); err == nil {
		_ = res.Body.Close()
	}
}

// Nor can those who make the gateway's own request impossible.
func TestImpossibleRequestIsTheClients(t *testing.T) {
	u := newUpstream(t)
	gw := start(t, "", proxied("header_up X-Asked {http.request.uri.path}", u.addr()))
	for range 8 {
		gw.do(t, http.MethodGet, "/a%0ab", nil, "")
	}
	if a := gw.do(t, http.MethodGet, "/", nil, ""); a.status != 200 {
		t.Errorf("%d %s", a.status, a.reason())
	}
}
