package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"runtime/metrics"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestAPIAnswersWhatNothingAnswered(t *testing.T) {
	gw := start(t, "", `
	api demo {
		respond /here "found" 200
	}`)
	if a := gw.get(t, "/here", nil); a.status != 200 || a.body != "found" {
		t.Errorf("/here: %d %q", a.status, a.body)
	}
	a := gw.get(t, "/gone", nil)
	p := a.problem(t)
	if a.status != 404 || p["reason"] != "api.unmatched" || p["status"] != 404.0 || p["title"] == "" || !strings.HasSuffix(fmt.Sprint(p["type"]), "api.unmatched") {
		t.Errorf("problem: %d %v", a.status, p)
	}
	if id := a.header.Get("X-Request-Id"); id == "" || p["instance"] != "urn:request:"+id {
		t.Errorf("instance %v does not name request %q", p["instance"], id)
	}
}

func TestAPIMasksTopology(t *testing.T) {
	var addr string
	b := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"Server", "X-Powered-By", "X-AspNet-Version", "X-Served-By"} {
			w.Header().Set(name, "secret-backend/1.2")
		}
		switch r.URL.Path {
		case "/fail":
			w.Header().Set("Retry-After", "7")
			http.Error(w, "stack trace: secret-backend at main.go:7", http.StatusInternalServerError)
		case "/redirect":
			http.Redirect(w, r, "http://"+addr+"/elsewhere?x=1", http.StatusFound)
		case "/trailer":
			w.Header().Set("Trailer", "X-Announced, Grpc-Status")
			_, _ = io.WriteString(w, "body")
			w.Header().Set("X-Announced", "secret-backend")
			w.Header().Set("Grpc-Status", "0")
			w.Header().Set(http.TrailerPrefix+"X-Unannounced", "secret-backend")
		default:
			_, _ = io.WriteString(w, "ok")
		}
	})
	addr = b.addr()
	site := func(more string) string { return "api demo {\n" + more + "\nreverse_proxy " + addr + "\n}" }
	gw := start(t, "", site(""))

	for _, path := range []string{"/", "/fail", "/redirect", "/trailer"} {
		a := gw.get(t, path, nil)
		if all := fmt.Sprint(a.header, a.trailer, a.body); strings.Contains(all, "secret-backend") || strings.Contains(all, "Caddy") || strings.Contains(all, addr) {
			t.Errorf("%s shows the backend: %s", path, all)
		}
		for _, name := range []string{"Server", "Via"} {
			if v := a.header.Values(name); v != nil {
				t.Errorf("%s has %s %q", path, name, v)
			}
		}
	}
	if a := gw.get(t, "/fail", nil); a.status != 500 || a.problem(t)["reason"] != "api.upstream_failed" || a.header.Get("Retry-After") != "7" {
		t.Errorf("a failing upstream: %d %s %v", a.status, a.body, a.header)
	}
	if a := gw.get(t, "/redirect", nil); a.header.Get("Location") != "/elsewhere?x=1" {
		t.Errorf("redirect to %q", a.header.Get("Location"))
	}

	if err := gw.load("", site("upstream_errors pass")); err != nil {
		t.Fatal(err)
	}
	if a := gw.get(t, "/fail", nil); a.status != 500 || !strings.HasPrefix(a.body, "stack trace") {
		t.Errorf("upstream_errors pass: %d %q", a.status, a.body)
	}
}

func TestAPIUnreachableUpstream(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	gw := start(t, "", "api demo {\nreverse_proxy "+addr+"\n}")
	a := gw.get(t, "/", nil)
	if a.status != 502 || a.problem(t)["reason"] != "resilience.unreachable" || strings.Contains(a.body, addr) {
		t.Errorf("%d %s", a.status, a.body)
	}
	if d := gw.decisions(t); len(d) != 1 || !strings.Contains(fmt.Sprint(d[0]["error"]), addr) {
		t.Errorf("the operator is not told: %v", d)
	}
}

func TestAPILeavesOneLogEntryPerRequest(t *testing.T) {
	gw := start(t, "", "api demo {\nowner team\nrequire @admin role admin\n@admin path /admin*\nrespond ok\n}")
	gw.get(t, "/a?token=hunter2", nil)
	a := gw.get(t, "/admin", nil)
	if a.status != 401 || a.reason() != "require.anonymous" {
		t.Errorf("%d %s", a.status, a.body)
	}
	entries := gw.decisions(t)
	if len(entries) != 2 {
		t.Fatalf("%d entries, want 2", len(entries))
	}
	if e := entries[0]; e["api"] != "demo" || e["verdict"] != "allow" || e["path"] != "/a" || e["status"] != 200.0 || strings.Contains(fmt.Sprint(e), "hunter2") {
		t.Errorf("allowed: %v", e)
	}
	e := entries[1]
	if e["verdict"] != "deny" || e["reason"] != "require.anonymous" || e["request_id"] != a.header.Get("X-Request-Id") {
		t.Errorf("denied: %v", e)
	}
	stages, _ := e["stages"].([]any)
	if len(stages) != 1 || !strings.Contains(fmt.Sprint(stages[0]), "rule:role admin") {
		t.Errorf("stages: %v", stages)
	}

	if err := gw.load("", "api demo {\nlog denied\nrespond ok\n}"); err != nil {
		t.Fatal(err)
	}
	gw.get(t, "/", nil)
	if n := len(gw.decisions(t)); n != 2 {
		t.Errorf("log denied left an entry for an allowed request (%d)", n)
	}
}

func TestAPIHandsRefusalsToTheSite(t *testing.T) {
	gw := start(t, "", `
	api demo {
		errors site
		require role admin
		respond ok
	}
	handle_errors {
		respond "{http.error.status_code} {gatehouse.reason} {gatehouse.detail} {gatehouse.request_id}"
	}`)
	a := gw.get(t, "/", nil)
	if want := "401 require.anonymous This operation needs a proven caller. " + a.header.Get("X-Request-Id"); a.status != 401 || a.body != want {
		t.Errorf("%d %q, want %q", a.status, a.body, want)
	}
	if a.header.Get("Www-Authenticate") == "" {
		t.Error("the challenge is lost")
	}
}

func TestAPIStripsWhatOnlyTheGatewayMaySay(t *testing.T) {
	b := newBackend(t, nil)
	gw := start(t, "", "api demo {\nreverse_proxy "+b.addr()+"\n}")

	conn, err := net.Dial("unix", gw.sock)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST / HTTP/1.1\r\nHost: localhost\r\nX-Gatehouse-Subject: admin\r\nx-gatehouse-ROLES: admin\r\nX-Keep: yes\r\n"+
		"Trailer: X-Gatehouse-Tenant\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n"+
		"2\r\nhi\r\n0\r\nX-Gatehouse-Tenant: acme\r\nX-Gatehouse-Plan: pro\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	got, body := b.got()
	if resp.StatusCode != 200 || body != "hi" || got.Header.Get("X-Keep") != "yes" {
		t.Fatalf("%d, backend got %q %v", resp.StatusCode, body, got.Header)
	}
	if all := fmt.Sprint(got.Header, got.Trailer); strings.Contains(all, "atehouse") {
		t.Errorf("the backend was told %s", all)
	}
	if ids := got.Header["X-Request-Id"]; !slices.Equal(ids, resp.Header["X-Request-Id"]) || len(ids) != 1 {
		t.Errorf("request id upstream %q, to the client %q", ids, resp.Header["X-Request-Id"])
	}
}

// TestAPIKeepsItsWord: neither a client nor an upstream says what is the gateway's
// to say, or a proxy's in front.
func TestAPIKeepsItsWord(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("X-Request-Id", "hint")
		h.Set("Link", "</a>; rel=preload")
		h.Set("X-Gatehouse-Subject", "hint")
		w.WriteHeader(http.StatusEarlyHints)
		h.Set("X-Request-Id", "theirs")
		h.Set("X-Gatehouse-Subject", "admin")
		h["Set-Cookie"] = []string{"theme=dark", "__Host-gatehouse_session_orders=x; Path=/", "gatehouse_session.1=; Max-Age=0", "gatehouse_sessions=mine"}
	})
	gw := start(t, "servers {\ntrusted_proxies static private_ranges\n}", "api demo {\nreverse_proxy "+b.addr()+"\n}")
	var hints []string
	r, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(_ int, h textproto.MIMEHeader) error {
		hints = append(hints, h.Get("X-Request-Id")+h.Get("X-Gatehouse-Subject"))
		return nil
	}}), http.MethodGet, "http://localhost/", nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"Forwarded", "X-Real-IP", "X-Forwarded-User", "X-Forwarded-Client-Cert", "Client-Cert", "Proxy"} {
		r.Header.Set(name, "for=10.0.0.1")
	}
	resp, err := gw.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	if id := resp.Header.Get("X-Request-Id"); len(id) != 24 || len(hints) != 1 || hints[0] != id {
		t.Errorf("the answer is %q, hints are %q", id, hints)
	}
	if got := fmt.Sprint(resp.Header["Set-Cookie"], resp.Header["X-Gatehouse-Subject"]); got != "[theme=dark gatehouse_sessions=mine] []" {
		t.Errorf("the client is told %s", got)
	}
	told := func() (names []string) {
		got, _ := b.got()
		for name, values := range got.Header {
			if slices.Contains(values, "for=10.0.0.1") {
				names = append(names, name)
			}
		}
		slices.Sort(names)
		return names
	}
	if names := told(); names != nil {
		t.Errorf("the upstream is told %s", names)
	}
	// A proxy that is trusted is believed in what it is known to set, and sends on what it does not know.
	// What a configuration no longer says does not hold, whatever came between.
	const set, none = "proxy_headers X-Real-IP Client-Cert", "[]"
	for _, c := range []struct{ option, want string }{{"", none}, {set, "[Client-Cert X-Real-Ip]"}, {set + "\nconsole off", "[Client-Cert X-Real-Ip]"}, {"", none}} {
		option, want := c.option, c.want
		if err := gw.load(option+"\nservers {\ntrusted_proxies_unix\n}", "api demo {\nreverse_proxy "+b.addr()+"\n}"); err != nil {
			t.Fatal(err)
		}
		again := r.Clone(t.Context())
		if resp, err = gw.client.Do(again); err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if names := fmt.Sprint(told()); names != want {
			t.Errorf("%s: the upstream is told %s", option, names)
		}
	}
}

// TestHeadroom: a process with an API in it collects less often, as long as one is
// there, also after a reload that was refused.
func TestHeadroom(t *testing.T) {
	percent := func() uint64 {
		sample := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		metrics.Read(sample)
		return sample[0].Value.Uint64()
	}
	const site = "api demo {\nrespond ok\n}"
	usual := percent()
	gw := start(t, "headroom 1GiB", site)
	if p := percent(); p <= usual {
		t.Errorf("%d percent with room, %d without", p, usual)
	}
	if gw.load("headroom 2MiB", site+"\nreverse_proxy {\nto unix//nowhere/at/all\ntransport nonsense\n}") == nil || percent() <= usual {
		t.Errorf("%d percent after a reload that failed", percent())
	}
	for _, c := range []struct{ global, site string }{{"headroom off", site}, {"", "respond ok"}} {
		if err := gw.load("headroom 1GiB", site); err != nil || percent() <= usual {
			t.Fatalf("%d percent, %v", percent(), err)
		}
		if err := gw.load(c.global, c.site); err != nil || percent() != usual {
			t.Errorf("%v: %d percent, %d before; %v", c, percent(), usual, err)
		}
	}
}

func TestAPIPassesStreams(t *testing.T) {
	release := make(chan struct{})
	b := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			_ = rw.Flush()
			line, _ := rw.ReadString('\n')
			fmt.Fprint(rw, line)
			_ = rw.Flush()
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: one\n\n")
		_ = http.NewResponseController(w).Flush()
		<-release
	})
	gw := start(t, "", "log\napi demo {\nreverse_proxy "+b.addr()+"\n}")

	t.Run("an event is there before the stream ends", func(t *testing.T) {
		resp, err := gw.client.Get("http://localhost/events")
		if err != nil {
			t.Fatal(err)
		}
		line, err := bufio.NewReader(resp.Body).ReadString('\n')
		close(release)
		resp.Body.Close()
		if err != nil || line != "data: one\n" {
			t.Errorf("%q, %v", line, err)
		}
	})
	t.Run("an upgraded connection echoes", func(t *testing.T) {
		conn, err := net.Dial("unix", gw.sock)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprint(conn, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: a2V5\r\n\r\n")
		br := bufio.NewReader(conn)
		resp, err := http.ReadResponse(br, nil)
		if err != nil || resp.StatusCode != 101 {
			t.Fatalf("%v %v", resp, err)
		}
		fmt.Fprint(conn, "hello\n")
		if line, err := br.ReadString('\n'); line != "hello\n" {
			t.Errorf("%q, %v", line, err)
		}
		gw.hungUp(t, conn)
	})
}

// hungUp ends an upgraded connection and waits until Caddy's proxy has done so: when
// it is stopped, it writes to those that are open while others may still copy.
func (g *gateway) hungUp(t *testing.T, conn net.Conn) {
	t.Helper()
	_ = conn.Close()
	eventually(t, "the end of the stream", func() bool {
		for _, d := range g.decisions(t) {
			if d["status"] == 101.0 {
				return true
			}
		}
		return false
	})
}

// TestAPIAndGRPC speaks h2c at both ends, as gRPC does inside a network.
func TestAPIAndGRPC(t *testing.T) {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Protocols: protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		_, _ = w.Write([]byte{0, 0, 0, 0, 0})
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"App-Detail", "kept")
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })

	gw := start(t, "servers {\nprotocols h1 h2c\n}", `
	api demo {
		@secret path /pkg.Secret/*
		require @secret role admin
		reverse_proxy h2c://`+l.Addr().String()+`
	}`)
	tr := &http.Transport{DialContext: gw.client.Transport.(*http.Transport).DialContext, Protocols: protocols}
	defer tr.CloseIdleConnections()
	call := func(path string) *http.Response {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://localhost"+path, strings.NewReader("\x00\x00\x00\x00\x00"))
		req.Header.Set("Content-Type", "application/grpc")
		req.Header.Set("Te", "trailers")
		resp, err := tr.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		return resp
	}
	if resp := call("/pkg.Open/Do"); resp.StatusCode != 200 || resp.Trailer.Get("Grpc-Status") != "0" || resp.Trailer.Get("App-Detail") != "kept" {
		t.Errorf("a call: %d %v", resp.StatusCode, resp.Trailer)
	}
	if resp := call("/pkg.Secret/Do"); resp.StatusCode != 200 || resp.Header.Get("Grpc-Status") != "16" || resp.Header.Get("Grpc-Message") == "" {
		t.Errorf("a refused call: %d %v", resp.StatusCode, resp.Header)
	}
}

// TestAPIWhereverItStands runs the same api in the places a Caddyfile allows.
func TestAPIWhereverItStands(t *testing.T) {
	gw := prepare(t)
	src := fmt.Sprintf(`{
	admin unix/%[1]s/a
	auto_https off
	persist_config off
	storage file_system %[1]s/storage
	log {
		output file %[1]s/log
	}
}
(gated) {
	api {args[0]} {
		require role {args[1]}
		{block}
	}
}
&(named) {
	api named {
		respond "named"
	}
}
http://localhost {
	bind unix/%[1]s/s
	handle /snippet {
		import gated snip admin {
			respond ok
		}
	}
	handle /named {
		invoke named
	}
	api @two two {
		respond two
	}
	@two path /two
	handle {
		api one {
			encode gzip
			respond one
		}
	}
}
http://localhost:8081 {
	bind unix/%[1]s/s2
	invoke named
}
`, gw.dir)
	if err := gw.loadFile(src); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{"/snippet": "require.anonymous", "/named": "named", "/two": "two", "/x": "one"} {
		if a := gw.get(t, path, nil); a.body != want && a.reason() != want {
			t.Errorf("%s: %d %q, want %q", path, a.status, a.body, want)
		}
	}
}

// TestConnectionTakesNothing: a caller cannot have what the gateway asserts, or
// has checked, taken away on the way to the upstream by naming it in Connection.
func TestConnectionTakesNothing(t *testing.T) {
	b := newBackend(t, nil)
	gw := prepare(t)
	gw.write(t, "keys.json", `[{"id":"ci","sha256":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","tenant":"acme"}]`)
	gw.write(t, "c.yaml", `openapi: 3.0.3
info: {title: t, version: '1'}
paths:
  /o:
    post:
      operationId: o
      parameters: [{name: X-Region, in: header, required: true, schema: {type: string, enum: [eu]}}]
      requestBody: {required: true, content: {application/json: {schema: {type: object}}}}
      responses: {'200': {description: ok}}
`)
	if err := gw.load("identity {\nkeys keys.json\n}", "handle /o {\napi contracted {\ncontract c.yaml\nguard\nreverse_proxy "+b.addr()+"\n}\n}\nhandle {\napi demo {\nidentity {\nkeys\n}\nreverse_proxy "+b.addr()+"\n}\n}"); err != nil {
		t.Fatal(err)
	}
	a := gw.get(t, "/", http.Header{"X-Api-Key": {"test"}, "Connection": {"close, X-Gatehouse-Subject, x-gatehouse-tenant, X-Request-Id"}})
	r, _ := b.got()
	if a.status != 200 || r.Header.Get("X-Gatehouse-Tenant") != "acme" || r.Header.Get("X-Gatehouse-Subject") != "ci" || r.Header.Get("X-Request-Id") == "" {
		t.Errorf("%d, the upstream is told %v", a.status, r.Header)
	}
	if a := gw.get(t, "/", http.Header{"X-Api-Key": {"test"}, "Connection": {"x-api-key"}}); a.reason() != "identity.missing" {
		t.Errorf("a credential that is taken off: %d %s", a.status, a.body)
	}
	// An upstream that goes over to HTTP/2, or to a tunnel, would be talked to past all stages.
	for _, protocol := range []string{"tcp", "SPDY/3.1", "TLS/1.0"} {
		a = gw.do(t, "POST", "/", http.Header{"X-Api-Key": {"test"}, "Connection": {"Upgrade"}, "Upgrade": {protocol}, "Sec-Websocket-Key": {"a2V5"}}, "")
		if r, _ := b.got(); a.status != 200 || r.Header.Get("Upgrade") != "" {
			t.Errorf("%s: %d, the upstream is asked to upgrade: %v", protocol, a.status, r.Header)
		}
	}
	a = gw.get(t, "/", http.Header{"X-Api-Key": {"test"}, "Connection": {"Upgrade, HTTP2-Settings"}, "Upgrade": {"h2c"}, "Http2-Settings": {"AAMAAABkAARAAAAAAAIAAAAA"}})
	if r, _ := b.got(); a.status != 200 || r.Header.Get("Upgrade")+r.Header.Get("Http2-Settings") != "" || strings.Contains(strings.ToLower(r.Header.Get("Connection")), "upgrade") {
		t.Errorf("%d, the upstream is asked to upgrade: %v", a.status, r.Header)
	}
	send := func(connection string) answer {
		return gw.do(t, "POST", "/o", http.Header{"Content-Type": {"application/json"}, "X-Region": {"eu"}, "Connection": {connection}}, `{}`)
	}
	if a := send("keep-alive"); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := send("close, X-Region"); a.reason() != "input.parameters" {
		t.Errorf("a parameter that is taken off: %d %s", a.status, a.body)
	}
}

// TestTarget: a request whose target stages and upstream would read in two ways
// reaches no upstream.
func TestTarget(t *testing.T) {
	b := newBackend(t, nil)
	gw := start(t, "", "api a {\n@admin path /admin/*\nrequire @admin role admin\nreverse_proxy "+b.addr()+"\n}")
	send := func(target string) string {
		return gw.raw(t, target+" HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	}
	for target, want := range map[string]string{
		"GET http:http://victim.test/admin/x": " 400 ",
		"GET x:admin/x":                       " 400 ",
		"CONNECT localhost:80":                " 400 ",
		"GET http://localhost/admin/x":        " 401 ",
		"GET http://localhost":                " 200 ",
	} {
		before := b.count()
		got := send(target)
		if !strings.Contains(got, want) {
			t.Errorf("%s: %s", target, got)
		}
		if n := b.count() - before; (n == 1) != (want == " 200 ") {
			t.Errorf("%s reached the upstream %d times", target, n)
		}
	}
	if r, _ := b.got(); r.URL.Path != "/" {
		t.Errorf("the upstream got %s", r.URL.Path)
	}

	// A stage that stands alone: the target never reaches the upstream as it was.
	gw = start(t, "", "require cel `!request.path.startsWith(\"/admin\")`\nreverse_proxy "+b.addr())
	_ = send("GET http:http://victim.test/admin/x")
	if r, _ := b.got(); r.URL.Path != "/" || r.Host != "localhost" {
		t.Errorf("the upstream got %s of %s", r.URL.Path, r.Host)
	}
}
