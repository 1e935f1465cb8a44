package integration

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
)

// raw sends bytes as they are and returns the status line of the answer.
func (g *gateway) raw(t testing.TB, request string) string {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "unix", g.sock)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// TestGuardPath holds that matchers, contract and backend see one path.
func TestGuardPath(t *testing.T) {
	back := newBackend(t, nil)
	gw := start(t, "", `
	guard
	api orders {
		@admin path /admin*
		respond @admin "not for you" 403
		reverse_proxy `+back.addr()+`
	}
`)
	for path, want := range map[string]string{
		"/orders/./1":            "/orders/1",
		"/x/../orders":           "/orders",
		"/%6frders":              "/orders",
		"//orders":               "/orders",
		"/caf%c3%a9":             "/caf%C3%A9",
		"/orders/1?next=/../%2f": "/orders/1?next=/../%2f",
	} {
		line := gw.raw(t, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n")
		got, _ := back.got()
		if line != "HTTP/1.1 200 OK" || got.RequestURI != want {
			t.Errorf("%s: %s, and the backend got %q, want %q", path, line, got.RequestURI, want)
		}
	}
	for _, path := range []string{"/x/../admin", "/%61dmin/x", "//admin", "/x/%2e%2e/admin", "/./admin"} {
		if line := gw.raw(t, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); line != "HTTP/1.1 403 Forbidden" {
			t.Errorf("%s passed the matcher: %s", path, line)
		}
	}
	before := back.count()
	for _, path := range []string{"/a%2fb", "/a%5cb", "/a\\b", "/a%00", "/%252e%252e/x", "/%c0%af", "/x/..;/admin"} {
		if line := gw.raw(t, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); line != "HTTP/1.1 400 Bad Request" {
			t.Errorf("%s: %s", path, line)
		}
	}
	if back.count() != before {
		t.Error("something that was refused reached the backend")
	}
}

// TestGuardBodies sends bodies through the whole walk.
func TestGuardBodies(t *testing.T) {
	back := newBackend(t, nil)
	gw := prepare(t)
	gw.write(t, "orders.yaml", walkContract)
	if err := gw.load("", `
	api orders {
		guard {
			max_body 1KiB
			json depth 8
		}
		contract orders.yaml
		require {
			mode off
		}
		reverse_proxy `+back.addr()+`
	}
`); err != nil {
		t.Fatal(err)
	}
	send := func(body string, header ...string) answer {
		h := http.Header{"Content-Type": {"application/json"}}
		for i := 0; i < len(header); i += 2 {
			h.Set(header[i], header[i+1])
		}
		return gw.do(t, "POST", "/orders", h, body)
	}
	if a := send(`{"sku":"a","sku":"b"}`); a.reason() != "guard.json" {
		t.Errorf("a member twice: %d %s", a.status, a.body)
	}
	if a := send(`{"sku":"a","quantity":1e10000000}`); a.reason() != "guard.json" {
		t.Errorf("a number that panics libraries: %d %s", a.status, a.body)
	}
	if a := send(`{"sku":"` + strings.Repeat("a", 2000) + `"}`); a.reason() != "guard.body_too_large" || a.status != 413 {
		t.Errorf("a long body: %d %s", a.status, a.body)
	}
	if a := send(`{"quantity":0}`); a.reason() != "input.body" {
		t.Errorf("the contract behind: %d %s", a.status, a.body)
	}
	var zip bytes.Buffer
	z := gzip.NewWriter(&zip)
	_, _ = z.Write([]byte(`{"sku":"a"}`))
	_ = z.Close()
	if a := send(zip.String(), "Content-Encoding", "gzip"); a.status != 200 {
		t.Errorf("a zipped body: %d %s", a.status, a.body)
	}
	if got, body := back.got(); body != `{"sku":"a"}` || got.Header.Get("Content-Encoding") != "" || got.ContentLength != int64(len(body)) {
		t.Errorf("the backend got %q with %v", body, got.Header)
	}
	zip.Reset()
	z = gzip.NewWriter(&zip)
	_, _ = z.Write([]byte(strings.Repeat(" ", 1<<20)))
	_ = z.Close()
	if a := send(zip.String(), "Content-Encoding", "gzip"); a.reason() != "guard.body_too_large" {
		t.Errorf("a bomb: %d %s", a.status, a.body)
	}
	if n := gw.metric(t, "gatehouse_decisions_total", `stage="guard"`, `verdict="deny"`, `reason="guard.json"`); n != 2 {
		t.Errorf("%v denials counted", n)
	}

	// A body of unknown length that nothing but the proxy reads.
	if err := gw.load("", "api orders {\n guard {\n max_body 1KiB\n }\n reverse_proxy "+back.addr()+"\n }"); err != nil {
		t.Fatal(err)
	}
	chunk := strings.Repeat("x", 0x800)
	line := gw.raw(t, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n800\r\n"+chunk+"\r\n0\r\n\r\n")
	if line != "HTTP/1.1 413 Request Entity Too Large" {
		t.Errorf("a long chunked body: %s", line)
	}
}

// TestGuardFraming sends what request smuggling is made of. Some of it Go's
// server refuses; whoever does, the backend gets one reading or none.
func TestGuardFraming(t *testing.T) {
	back := newBackend(t, nil)
	gw := start(t, "", "api orders {\n guard\n reverse_proxy "+back.addr()+"\n }")
	for name, head := range map[string]string{
		"two lengths":              "Content-Length: 1\r\nContent-Length: 2\r\n",
		"a length with a sign":     "Content-Length: +1\r\n",
		"an unknown coding":        "Transfer-Encoding: cow\r\n",
		"a coding with a tab":      "Transfer-Encoding: chunked\tx\r\n",
		"two hosts":                "Host: other\r\n",
		"a space before a colon":   "Content-Length : 1\r\n",
		"two content types":        "Content-Type: a/b\r\nContent-Type: c/d\r\n",
		"two credentials":          "Authorization: Bearer a\r\nAuthorization: Bearer b\r\n",
		"a folded line":            "X-A: b\r\n c: d\r\nContent-Length: -1\r\n",
		"two codings on two lines": "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
		"a NUL in a field":         "X-A: b\x00c\r\n",
	} {
		line := gw.raw(t, "POST / HTTP/1.1\r\nHost: localhost\r\n"+head+"\r\nx")
		if !strings.HasPrefix(line, "HTTP/1.1 4") && !strings.HasPrefix(line, "HTTP/1.1 501") {
			t.Errorf("%s: %s", name, line)
		}
	}
	if n := back.count(); n > 0 {
		t.Errorf("%d requests reached the backend", n)
	}
	// A chunked body beside a length is read as chunked (RFC 9112, section 6.3), and sent on without the length.
	line := gw.raw(t, "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n")
	if got, body := back.got(); line == "HTTP/1.1 200 OK" && (body != "x" || got.Header.Get("Content-Length") == "3") {
		t.Errorf("%s; the backend got %q with %v", line, body, got.Header)
	}
}

// TestEarlyData: over HTTP/3, where a request may come before the handshake is
// over, one that changes something is taken after it, and one that looks is taken
// at once. What a proxy in front says is believed.
func TestEarlyData(t *testing.T) {
	gw := prepare(t)
	httpPort, httpsPort := freePorts(t)
	src := strings.Replace(gw.caddyfile(fmt.Sprintf("skip_install_trust\nhttp_port %d\nhttps_port %d", httpPort, httpsPort),
		"respond ok\n}\nhttps://early.test {\nbind 127.0.0.1\ntls internal\napi demo {\nguard\nrespond ok\n}"), "auto_https off", "auto_https disable_redirects", 1)
	if err := gw.loadFile(src); err != nil {
		t.Fatal(err)
	}
	config := &tls.Config{ServerName: "early.test", InsecureSkipVerify: true, ClientSessionCache: tls.NewLRUClientSessionCache(1), NextProtos: []string{http3.NextProtoH3}}
	var conn *quic.Conn
	ask := func(method string, header http.Header) (status int) {
		tr := &http3.Transport{TLSClientConfig: config, Dial: func(ctx context.Context, _ string, tc *tls.Config, qc *quic.Config) (*quic.Conn, error) {
			c, err := quic.DialAddrEarly(ctx, fmt.Sprintf("127.0.0.1:%d", httpsPort), tc, qc)
			conn = c
			return c, err
		}}
		defer tr.Close()
		r, _ := http.NewRequestWithContext(t.Context(), method, "https://early.test/", nil)
		maps.Copy(r.Header, header)
		resp, err := tr.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		return resp.StatusCode
	}
	eventually(t, "the certificate", func() bool {
		c, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", httpsPort), &tls.Config{ServerName: "early.test", InsecureSkipVerify: true})
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	for _, c := range []struct {
		method string
		header http.Header
		want   int
	}{
		{http.MethodPost, nil, 200},
		{http.MethodPost, nil, 200}, // on a connection that begins anew where the first left off
		{http.MethodPost, http.Header{"Early-Data": {"1"}}, 425},
	} {
		if got := ask(c.method, c.header); got != c.want {
			t.Errorf("%s %v: %d", c.method, c.header, got)
		}
	}
	eventually(t, "a look in early data", func() bool {
		return ask(http3.MethodGet0RTT, nil) == 200 && conn.ConnectionState().Used0RTT
	})
}
