package integration

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
)

// released is an api with a stable release and a canary, which has options.
func released(api, options, canary, stable string) string {
	return fmt.Sprintf("api %s {\n canary next {\n%s\n reverse_proxy %s\n}\n reverse_proxy %s\n}", api, options, canary, stable)
}

// address is that of a caller.
func address(i int) string { return fmt.Sprintf("198.18.%d.%d", i/250, i%250+1) }

// callers sends a request from each of some addresses, several at a time, and
// returns who answered it.
func (g *gateway) callers(t *testing.T, from, to int) []string {
	t.Helper()
	got := make([]string, to-from)
	var wg sync.WaitGroup
	for part := range 4 {
		wg.Go(func() {
			for i := from + part; i < to; i += 4 {
				body, err := g.caller(t, i)
				if err != nil {
					body, err = g.caller(t, i) // lost in the queue of a socket that a reload closed
				}
				if got[i-from] = body; err != nil {
					t.Errorf("caller %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	return got
}

func (g *gateway) caller(t *testing.T, i int) (string, error) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/", nil)
	if err != nil {
		return "", err
	}
	req.Header.Set("X-Forwarded-For", address(i))
	res, err := g.client.Do(req)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	return string(body), err
}

func count(all []string, what string) (n int) {
	for _, one := range all {
		if one == what {
			n++
		}
	}
	return n
}

// TestCanaryShare: callers are spread by weight and stay where they are; a
// weight is changed while requests come.
func TestCanaryShare(t *testing.T) {
	stable, next := newUpstream(t), newUpstream(t)
	gw := start(t, behindProxy, released("shares", "weight 10%", next.addr(), stable.addr()))
	first := gw.callers(t, 0, 2000)
	if n := count(first, next.addr()); n < 150 || n > 250 || n+count(first, stable.addr()) != 2000 {
		t.Errorf("%d of 2000 callers are on a canary of 10%%", n)
	}
	if again := gw.callers(t, 0, 500); !slices.Equal(again, first[:500]) {
		t.Error("callers went from one release to another")
	}
	put := func(body string) answer { return gw.change(t, "PUT", "/gatehouse/canaries/shares.next", body, nil) }
	for _, bad := range []struct{ body, says string }{
		{`{"weight":101}`, "from 0 to 100"},
		{`{"weight":"5%"}`, `cannot be a string`},
		{`{"wieght":5}`, `unrecognized member \"wieght\"; expected weight, rolled_back`},
		{`{}`, "weight is required"},
	} {
		if a := put(bad.body); a.status != 400 || !strings.Contains(a.body, bad.says) {
			t.Errorf("%s: %d %s", bad.body, a.status, a.body)
		}
	}
	if a := gw.change(t, "PUT", "/gatehouse/canaries/shares.nxet", `{"weight":5}`, nil); a.status != 400 || !strings.Contains(a.body, "no release") {
		t.Errorf("a release that is not there: %d %s", a.status, a.body)
	}
	if a := put(`{"weight":30}`); a.status != 201 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	more := gw.callers(t, 0, 2000)
	if n := count(more, next.addr()); n < 520 || n > 680 {
		t.Errorf("%d of 2000 callers are on a canary of 30%%", n)
	}
	for i := range first {
		if first[i] == next.addr() && more[i] != next.addr() {
			t.Fatalf("caller %d left the canary when its weight was raised", i)
		}
	}
	if n := gw.metric(t, "gatehouse_canary_weight", `api="shares"`); n != 30 {
		t.Errorf("the weight is shown as %v", n)
	}
	if a := gw.change(t, "DELETE", "/gatehouse/canaries/shares.next", "", nil); a.status != 204 {
		t.Fatal(a.status)
	}
	if again := gw.callers(t, 0, 500); !slices.Equal(again, first[:500]) {
		t.Error("with the configured weight again, callers are elsewhere")
	}
	onCanary := gw.metric(t, "gatehouse_canary_requests_total", `api="shares"`, `release="next"`, `outcome="ok"`)
	onStable := gw.metric(t, "gatehouse_canary_requests_total", `api="shares"`, `release="stable"`, `outcome="ok"`)
	if onCanary != float64(next.hits.Load()) || onStable != float64(stable.hits.Load()) || onCanary+onStable != 5000 {
		t.Errorf("%v and %v are counted, %d and %d came", onCanary, onStable, next.hits.Load(), stable.hits.Load())
	}
	named := map[string]int{}
	for _, e := range gw.decisions(t) {
		for _, s := range e["stages"].([]any) {
			if s := s.(map[string]any); s["stage"] == "canary" {
				named[fmt.Sprint(s["rule"])]++
			}
		}
	}
	if len(named) != 2 || named["next"] != int(onCanary) || named["stable"] != int(onStable) {
		t.Errorf("the decisions name %v", named)
	}
}

// keyed writes API keys of some subjects and returns the headers that prove them.
func (g *gateway) keyed(t *testing.T, n int) []http.Header {
	t.Helper()
	var keys []map[string]string
	var headers []http.Header
	for i := range n {
		key := fmt.Sprintf("key-%d", i)
		sum := sha256.Sum256([]byte(key))
		keys = append(keys, map[string]string{"id": fmt.Sprintf("k%d", i), "sha256": hex.EncodeToString(sum[:]), "subject": fmt.Sprintf("subject-%d", i)})
		headers = append(headers, http.Header{"X-Api-Key": {key}})
	}
	data, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	g.write(t, "keys.json", string(data))
	return headers
}

// TestCanaryPrincipal: who is proven stays on a release wherever they come
// from, and gets no cookie.
func TestCanaryPrincipal(t *testing.T) {
	stable, next := newUpstream(t), newUpstream(t)
	gw := prepare(t)
	principals := gw.keyed(t, 300)
	site := fmt.Sprintf("api people {\n identity {\n keys\n optional\n}\n canary next {\n weight 40%%\n sticky cookie\n reverse_proxy %s\n}\n reverse_proxy %s\n}", next.addr(), stable.addr())
	if err := gw.load(behindProxy+"identity {\n keys keys.json\n}", site); err != nil {
		t.Fatal(err)
	}
	on := 0
	for i, p := range principals {
		a := gw.get(t, "/", with(p, "X-Forwarded-For", address(i)))
		b := gw.get(t, "/", with(p, "X-Forwarded-For", address(i+1000)))
		if a.status != 200 || a.body != b.body || a.header["Set-Cookie"] != nil {
			t.Fatalf("principal %d: %d %q, then %q, cookie %v", i, a.status, a.body, b.body, a.header["Set-Cookie"])
		}
		if a.body == next.addr() {
			on++
		}
	}
	if on < 90 || on > 150 {
		t.Errorf("%d of 300 principals are on a canary of 40%%", on)
	}
}

// TestCanaryCookie: who is not proven is given a cookie, once, and stays.
func TestCanaryCookie(t *testing.T) {
	stable, next, beta := newUpstream(t), newUpstream(t), newUpstream(t)
	gw := start(t, behindProxy, fmt.Sprintf(`api cookies {
		canary next {
			weight 30%%
			sticky cookie
			reverse_proxy %s
		}
		canary beta {
			weight 30%%
			sticky cookie
			reverse_proxy %s
		}
		reverse_proxy %s
	}`, next.addr(), beta.addr(), stable.addr()))
	on := map[string]int{}
	for i := range 300 {
		a := gw.from(t, address(i))
		set := a.header["Set-Cookie"]
		if len(set) != 1 {
			t.Fatalf("%v was set", set)
		}
		c, err := http.ParseSetCookie(set[0])
		if err != nil || c.Name != "gatehouse_canary" || c.Path != "/" || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode || c.Secure || c.Domain != "" || len(c.Value) != 26 {
			t.Fatalf("%s: %v", set[0], err)
		}
		on[a.body]++
		b := gw.get(t, "/", http.Header{"Cookie": {"a=b; gatehouse_canary=" + c.Value + "; c=d"}, "X-Forwarded-For": {address(i + 1000)}})
		if b.body != a.body || b.header["Set-Cookie"] != nil {
			t.Fatalf("with the cookie: %q after %q, %v", b.body, a.body, b.header["Set-Cookie"])
		}
	}
	for _, u := range []*upstream{stable, next, beta} {
		if n := on[u.addr()]; n < 60 || n > 150 {
			t.Errorf("%v of 300 callers", on)
		}
	}
	for _, odd := range []string{"", "x", strings.Repeat("0", 27), strings.Repeat("!", 26), strings.Repeat("x", 4000)} {
		if a := gw.get(t, "/", http.Header{"Cookie": {"gatehouse_canary=" + odd}}); a.status != 200 || len(a.header["Set-Cookie"]) != 1 {
			t.Errorf("the cookie %.30q: %d %v", odd, a.status, a.header["Set-Cookie"])
		}
	}
	// Weights of one API are held to 100 together.
	if a := gw.change(t, "PUT", "/gatehouse/canaries/cookies.beta", `{"weight":80}`, nil); a.status != 400 || !strings.Contains(a.body, "have 30 of 100") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := gw.change(t, "PUT", "/gatehouse/canaries/cookies.beta", `{"weight":70}`, nil); a.status != 201 {
		t.Errorf("%d %s", a.status, a.body)
	}
	before := stable.hits.Load()
	for range 100 {
		gw.get(t, "/", nil)
	}
	if n := stable.hits.Load() - before; n != 0 {
		t.Errorf("%d of 100 went to a stable release of 0%%", n)
	}
}

// TestCanaryForce: a header asks for a release, whatever its weight.
func TestCanaryForce(t *testing.T) {
	stable, next, beta := newUpstream(t), newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(500)
	}), newUpstream(t)
	gw := start(t, listening, fmt.Sprintf(`api forced {
		upstream_errors pass
		canary next {
			force X-Canary
			rollback {
				samples 10
			}
			reverse_proxy %s
		}
		canary beta {
			weight 50%%
			force X-Canary preview
			reverse_proxy %s
		}
		reverse_proxy %s
	}`, next.addr(), beta.addr(), stable.addr()))
	for i := range 40 {
		for said, want := range map[string]string{"stable": stable.addr(), "preview": beta.addr(), "nothing": stable.addr()} {
			if a := gw.get(t, "/", http.Header{"X-Canary": {said}, "X-Forwarded-For": {address(i)}}); a.body != want {
				t.Fatalf("X-Canary: %s leads to %q", said, a.body)
			}
		}
		if a := gw.get(t, "/", http.Header{"X-Canary": {"next"}, "X-Forwarded-For": {address(i)}}); a.status != 500 {
			t.Fatalf("X-Canary: next: %d %s", a.status, a.body)
		}
	}
	if r, _ := next.got(); r.Header.Get("X-Canary") != "next" {
		t.Error("the release does not see that it was asked for")
	}
	if both := gw.callers(t, 0, 40); count(both, stable.addr()) < 5 || count(both, beta.addr()) < 5 {
		t.Errorf("those who ask for nothing: %v", both)
	}
	silence(t) // failures of those who ask for the release are no reason
	if d := fmt.Sprint(gw.decisions(t)); !strings.Contains(d, "rule:next, forced") || !strings.Contains(d, "rule:stable, forced") {
		t.Error("the decisions do not say so")
	}
}

// TestCanaryStreams: what a canary streams, and connections that are upgraded,
// pass as they come.
func TestCanaryStreams(t *testing.T) {
	next := streaming(t)
	stable := newUpstream(t)
	gw := start(t, listening, released("streams", "weight 100%", next, stable.addr()))
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost/events", nil)
	res, err := gw.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(res.Body)
	for i := range 3 {
		line, err := lines.ReadString('\n')
		if err != nil || line != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("%q %v", line, err)
		}
		_, _ = lines.ReadString('\n')
	}
	_ = res.Body.Close()

	conn, err := net.Dial("unix", gw.sock)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET /ws HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a2V5\r\n\r\n")
	rd := bufio.NewReader(conn)
	up, err := http.ReadResponse(rd, nil)
	if err != nil || up.StatusCode != http.StatusSwitchingProtocols {
		t.Fatalf("%v %v", up, err)
	}
	for _, word := range []string{"ping\n", "pong\n"} {
		fmt.Fprint(conn, word)
		if got, err := rd.ReadString('\n'); err != nil || got != word {
			t.Fatalf("%q %v", got, err)
		}
	}
	gw.hungUp(t, conn)
	// A body that takes its time to come is not the canary's slowness, and
	// arrives whole.
	body, w := io.Pipe()
	go func() {
		for range 3 {
			time.Sleep(30 * time.Millisecond)
			_, _ = io.WriteString(w, "part ")
		}
		_ = w.Close()
	}()
	req, _ = http.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost/echo", body)
	res, err = gw.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got, err := io.ReadAll(res.Body); err != nil || string(got) != "part part part " {
		t.Errorf("%q %v", got, err)
	}
}

// streaming is an upstream that sends events, echoes what is upgraded, and
// returns bodies.
func streaming(t *testing.T) string {
	t.Helper()
	b := http.NewServeMux()
	b.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for i := 0; r.Context().Err() == nil; i++ {
			fmt.Fprintf(w, "data: %d\n\n", i)
			_ = http.NewResponseController(w).Flush()
			time.Sleep(10 * time.Millisecond)
		}
	})
	b.HandleFunc("/ws", func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
		_ = rw.Flush()
		_, _ = io.Copy(conn, rw)
	})
	b.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: b}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return l.Addr().String()
}

// TestCanaryModes: in shadow and off, everybody gets the stable release, and a
// live mode switches it at once.
func TestCanaryModes(t *testing.T) {
	stable, next := newUpstream(t), newUpstream(t)
	gw := start(t, listening, released("moody", "weight 100%\n sticky cookie\n mode shadow", next.addr(), stable.addr()))
	if a := gw.from(t, address(1)); a.body != stable.addr() || a.header["Set-Cookie"] != nil {
		t.Errorf("in shadow: %q %v", a.body, a.header)
	}
	if d := fmt.Sprint(gw.decisions(t)); !strings.Contains(d, "mode:shadow rule:next stage:canary") {
		t.Errorf("shadow does not record who it would be: %s", d)
	}
	mode := func(mode string) {
		t.Helper()
		if a := gw.change(t, "PUT", "/gatehouse/modes/moody.canary", `{"mode":"`+mode+`"}`, nil); a.status >= 300 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	mode("enforce")
	if a := gw.from(t, address(1)); a.body != next.addr() {
		t.Errorf("enforced: %q", a.body)
	}
	mode("off")
	if a := gw.from(t, address(1)); a.body != stable.addr() {
		t.Errorf("off: %q", a.body)
	}

	// A rollback in shadow only tells of it.
	next.status.Store(500)
	if err := gw.load(listening, released("moodier", "weight 50%\n rollback {\n samples 40\n mode shadow\n}", next.addr(), stable.addr())); err != nil {
		t.Fatal(err)
	}
	gw.callers(t, 0, 150)
	if e := event(t); e["mode"] != "shadow" {
		t.Errorf("%v", e)
	}
	before := next.hits.Load()
	if gw.callers(t, 0, 50); next.hits.Load() == before {
		t.Error("shadow took the callers back")
	}
	for len(heard) > 0 {
		<-heard
	}
	// And off does not even look.
	if err := gw.load(listening, released("moodiest", "weight 50%\n rollback off", next.addr(), stable.addr())); err != nil {
		t.Fatal(err)
	}
	gw.callers(t, 0, 300)
	silence(t)
}

// TestCanaryAlone: in a plain site, errors reach the site's own handle_errors.
func TestCanaryAlone(t *testing.T) {
	stable := newUpstream(t)
	gw := start(t, behindProxy, `
		handle_errors {
			respond "{gatehouse.reason} {err.status_code}"
		}
		canary next {
			name shop
			weight 50%
			@nowhere path /nowhere
			respond @nowhere "at {gatehouse.release}"
		}
		reverse_proxy `+stable.addr())
	answers := map[string]int{}
	for i := range 40 {
		answers[gw.get(t, "/nowhere", http.Header{"X-Forwarded-For": {address(i)}}).body]++
		answers[gw.from(t, address(i)).body]++
	}
	if answers["at next"] < 8 || answers[stable.addr()] < 16 || answers["api.unmatched 404"] != answers["at next"] {
		t.Errorf("%v", answers)
	}
	if a := gw.change(t, "PUT", "/gatehouse/canaries/shop.next", `{"weight":0}`, nil); a.status != 201 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if n := count(gw.callers(t, 0, 40), stable.addr()); n != 40 {
		t.Errorf("%d of 40 are on the stable release", n)
	}
}

// TestCanaryBadConfig: what JSON can say wrong.
func TestCanaryBadConfig(t *testing.T) {
	gw := prepare(t)
	for options, want := range map[string]string{
		`"release":"a.b"`:                                       "a release needs a name",
		`"release":"Stable"`:                                    "stable is the name of what follows",
		`"release":"a","name":"a b"`:                            "name \"a b\" must be",
		`"release":"a","weight":101`:                            "weight 101 is not from 0 to 100",
		`"release":"a","sticky":"cooky"`:                        "expected principal, cookie, address",
		`"release":"a","cookie":"a b"`:                          "cannot be the name of a cookie",
		`"release":"a","force":{}`:                              "cannot be the name of a header field",
		`"release":"a","force":{"header":"X","value":"stable"}`: "stable asks for what follows",
		`"release":"a","rollback":{"errors":-1}`:                "errors -1 is not above 0",
		`"release":"a","rollback":{"latency":0.5}`:              "latency 0.5 is not above 1",
		`"release":"a","rollback":{"samples":1000000}`:          "samples 1000000 is not from 1 to 100000",
		`"release":"a","rollback":{"window":1}`:                 "window must be from 1s to 24h",
		`"release":"a"`:                                         "a release needs handlers of its own",
	} {
		config := fmt.Sprintf(`{"admin":{"disabled":true},"apps":{"http":{"servers":{"s":{"listen":["unix/%s"],"routes":[{"handle":[{"handler":"gatehouse_canary",%s}]}]}}}}}`, gw.sock, options)
		if err := caddy.Load([]byte(config), true); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", options, err, want)
		}
	}
}
