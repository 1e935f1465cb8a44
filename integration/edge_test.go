package integration

import (
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// TestEdge: the examples of docs/edge.md do what the page says.
func TestEdge(t *testing.T) {
	page, err := os.ReadFile("../docs/edge.md")
	if err != nil {
		t.Fatal(err)
	}
	b := newBackend(t, nil)
	gw := prepare(t)
	gw.write(t, "orders.openapi.yaml", `openapi: 3.1.0
info: {title: t, version: "1"}
paths: {/orders: {get: {operationId: list, responses: {}}}}
`)
	gw.write(t, "keys.json", `[{"id":"ci","sha256":"9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08","scopes":["orders:read"]}]`)
	blocks := regexp.MustCompile("(?s)```caddyfile\n(.*?)```").FindAllStringSubmatch(string(page), -1)
	load := func(n int, servers string) {
		t.Helper()
		_, site, _ := strings.Cut(blocks[n][1], "api.example.com {\n")
		site = strings.TrimSuffix(strings.TrimSpace(site), "}")
		site = regexp.MustCompile(`localhost:8081|10\.1\.0\.7:8080`).ReplaceAllString(site, b.addr())
		if err := gw.load("identity {\nkeys keys.json\n}\n"+servers, site); err != nil {
			t.Fatal(err)
		}
	}

	load(0, "servers {\ntrusted_proxies_unix\ntrusted_proxies_strict\n}\nproxy_headers X-Real-IP")
	a := gw.get(t, "/", http.Header{"X-Forwarded-For": {"192.0.2.9"}, "X-Real-Ip": {"192.0.2.9"}, "Forwarded": {"for=10.0.0.1"}})
	if r, _ := b.got(); a.status != 200 || r.Header.Get("X-Client") != "192.0.2.9" || r.Header.Get("X-Real-Ip") != "192.0.2.9" || r.Header.Get("Forwarded") != "" {
		t.Errorf("behind a proxy: %d, %v", a.status, r.Header)
	}

	load(1, "")
	origin := http.Header{"Origin": {"https://shop.example.com"}}
	preflight := origin.Clone()
	preflight.Set("Access-Control-Request-Method", "POST")
	preflight.Set("Access-Control-Request-Headers", "authorization")
	allowed := func(a answer) bool {
		return a.header.Get("Access-Control-Allow-Origin") == "https://shop.example.com" && strings.Contains(a.header.Get("Vary"), "Origin")
	}
	if a := gw.do(t, http.MethodOptions, "/orders", preflight, ""); a.status != 204 || !allowed(a) || !strings.Contains(a.header.Get("Access-Control-Allow-Headers"), "Authorization") {
		t.Errorf("a preflight: %d %v", a.status, a.header)
	}
	if a := gw.get(t, "/orders", origin); a.reason() != "identity.missing" || !allowed(a) {
		t.Errorf("a refusal: %d %v", a.status, a.header)
	}
	with := origin.Clone()
	with.Set("X-Api-Key", "test")
	if a := gw.get(t, "/orders", with); a.status != 200 || !allowed(a) {
		t.Errorf("a request: %d %v %s", a.status, a.header, a.body)
	}
	preflight.Set("Origin", "https://evil.test")
	if a := gw.do(t, http.MethodOptions, "/orders", preflight, ""); a.header.Get("Access-Control-Allow-Origin") != "" || a.status != 405 {
		t.Errorf("another's preflight: %d %v", a.status, a.header)
	}

	load(2, "")
	if a := gw.get(t, "/", http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Key": {"a2V5"}}); a.status != 403 {
		t.Errorf("a handshake: %d", a.status)
	}
	if a := gw.get(t, "/", nil); a.status != 200 {
		t.Errorf("no handshake: %d", a.status)
	}
}

// TestUntrustedProxy: a proxy that nobody has said to be trusted is in the log, once.
func TestUntrustedProxy(t *testing.T) {
	gw := prepare(t)
	port, _ := freePorts(t)
	if err := gw.loadFile(strings.Replace(gw.caddyfile("", "api demo {\nrespond ok\n}"), "http://localhost {\n\tbind unix/"+gw.sock, "http://localhost:"+strconv.Itoa(port)+" {", 1)); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://localhost:"+strconv.Itoa(port)+"/", nil)
		r.Header.Set("X-Forwarded-For", "192.0.2.9")
		resp, err := new(http.Client).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
	}
	eventually(t, "the warning", func() bool { return strings.Contains(gw.log(t), "until trusted_proxies names it") })
	if n := strings.Count(gw.log(t), "until trusted_proxies names it"); n != 1 {
		t.Errorf("%d warnings", n)
	}
}
