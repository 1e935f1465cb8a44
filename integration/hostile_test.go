package integration

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

// rawUpstream answers each path with the bytes that say gives for it, and closes.
func rawUpstream(t testing.TB, say func(path, addr string) string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				r, err := http.ReadRequest(bufio.NewReader(conn))
				if err != nil {
					return
				}
				_, _ = io.Copy(io.Discard, r.Body)
				_, _ = io.WriteString(conn, say(r.URL.Path, l.Addr().String()))
			}()
		}
	}()
	return l.Addr().String()
}

// spoken sends a request as it is written and reads the whole answer, interim ones
// included, as text.
func (g *gateway) spoken(t testing.TB, request string) string {
	t.Helper()
	conn, err := net.Dial("unix", g.sock)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// ok is an answer with some fields more.
func ok(fields ...string) string {
	return "HTTP/1.1 200 OK\r\n" + strings.Join(append(fields, "Content-Length: 2", "", "ok"), "\r\n")
}

// TestBrokenUpstream: what is no answer is a 502 as a problem, and recorded so.
func TestBrokenUpstream(t *testing.T) {
	answers := map[string]string{
		"/switch":       "HTTP/1.1 101 Switching Protocols\r\nUpgrade: foo\r\nConnection: Upgrade\r\n\r\nraw",
		"/switch/plain": "HTTP/1.1 101 Switching Protocols\r\n\r\nraw",
		"/099":          "HTTP/1.1 099 X\r\nContent-Length: 2\r\n\r\nok",
		"/600":          "HTTP/1.1 600 X\r\nContent-Length: 2\r\n\r\nok",
		"/999":          "HTTP/1.1 999 X\r\nContent-Length: 2\r\n\r\nok",
		"/large":        ok(slices.Repeat([]string{"X-Large: " + strings.Repeat("a", 1000)}, 70)...),
		"/broken":       "HTTP/1.1 502 X\r\nContent-Length: 100000\r\n\r\nstack trace",
	}
	addr := rawUpstream(t, func(path, _ string) string { return answers[path] })
	for _, more := range []string{"", "encode", "errors site"} {
		site := "api demo {\n" + more + "\nreverse_proxy " + addr + "\n}"
		if more == "errors site" {
			site += "\nhandle_errors {\nheader Content-Type application/problem+json\nrespond `{\"reason\":\"{gatehouse.reason}\"}`\n}"
		}
		gw := start(t, "", site)
		n := 0
		for path := range answers {
			a := gw.get(t, path, http.Header{"Accept-Encoding": {"gzip"}})
			if a.status != 502 || a.problem(t)["reason"] != "api.upstream_failed" || a.header.Get("X-Request-Id") == "" || a.header.Get("X-Large") != "" || a.header.Get("Server") == "Caddy" && more != "errors site" {
				t.Errorf("%s %s: %d %v %q", more, path, a.status, a.header, a.body)
			}
			n++
			if d := gw.decisions(t); len(d) != n || d[n-1]["status"] != 502.0 || d[n-1]["verdict"] != "deny" || d[n-1]["reason"] != "api.upstream_failed" {
				t.Errorf("%s %s is recorded as %v", more, path, d[len(d)-1])
			}
		}
	}

	// A body without end, of which nobody gets a byte.
	gone := make(chan struct{})
	endless := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		defer func() { gone <- struct{}{} }()
		status := http.StatusInternalServerError
		if r.URL.Path == "/redirect" {
			w.Header().Set("Location", "http://"+r.Context().Value(http.LocalAddrContextKey).(net.Addr).String()+"/x")
			status = http.StatusFound
		}
		w.WriteHeader(status)
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 32<<10)); err != nil {
				return
			}
		}
	})
	gw := start(t, "", "api demo {\nreverse_proxy "+endless.addr()+"\n}")
	if a := gw.get(t, "/", nil); a.status != 500 || a.problem(t)["reason"] != "api.upstream_failed" {
		t.Errorf("an endless error: %d %q", a.status, a.body)
	}
	<-gone
	if a := gw.get(t, "/redirect", nil); a.status != 302 || a.header.Get("Location") != "/x" || a.body != "" {
		t.Errorf("an endless redirect: %d %v %q", a.status, a.header, a.body)
	}
	<-gone

	gw = start(t, "", "api demo {\nupstream_errors pass\nreverse_proxy "+addr+"\n}")
	if a := gw.get(t, "/600", nil); a.status != 502 {
		t.Errorf("a status that is none passes: %d", a.status)
	}
}

// TestHostileUpstream: what an upstream says of itself, in the gateway's name or
// for all of the host is not passed on.
func TestHostileUpstream(t *testing.T) {
	addr := rawUpstream(t, func(path, addr string) string {
		switch path {
		case "/fields":
			return ok("X_Gatehouse_Subject: root", "x-gatehouse_roles: root", "X_Request_Id: forged", "X_Powered_By: secret-backend", "X-Debug-Exception-File: /srv/app.py:7", "Powered-By: secret-backend", "X-Envoy-Upstream-Service-Time: 7", "X-Accel-Redirect: /etc/passwd",
				`Alt-Svc: h2="evil.example:443"; ma=86400`, `Clear-Site-Data: "*"`, "Set-Cookie: =gatehouse_session=fixed", "Set-Cookie: theme=dark",
				"Content-Type: application/json", "Content-Type: text/html", "X-Keep: yes", `Content-Disposition: inline`, "Strict-Transport-Security: max-age=60")
		case "/address":
			return ok("Refresh: 0;url=http://"+addr+"/x", "Content-Location: //"+addr+"/z", "Link: <http://"+addr+"/2>; rel=next, <https://cdn.example/a>; rel=preload")
		case "/address/odd":
			return ok("Refresh: 0;url=%http://"+addr+"/x", "Link: </a>; rel=x; anchor=\"http://"+addr+"/\"")
		case "/elsewhere":
			return ok("Refresh: 5", "Content-Location: /here", "Link: <https://cdn.example/a>; rel=preload", "Location: https://a.example/", "Location: http://"+addr)
		case "/grpcx":
			return "HTTP/1.1 500 X\r\nContent-Type: application/grpcx\r\nContent-Length: 12\r\n\r\nstack trace!"
		case "/grpc":
			return "HTTP/1.1 500 X\r\nContent-Type: application/grpc\r\nContent-Length: 12\r\n\r\nstack trace!"
		case "/fail":
			return "HTTP/1.1 500 X\r\nRefresh: 0;url=http://" + addr + "/\r\nContent-Location: http://" + addr + "/\r\nContent-Disposition: attachment\r\n" +
				"Alt-Svc: h2=\"evil.example:443\"\r\nX_Gatehouse_Subject: root\r\nContent-Length: 1\r\n\r\nx"
		}
		return ok()
	})
	gw := start(t, "", "api demo {\nreverse_proxy "+addr+"\n}")

	a := gw.get(t, "/fields", nil)
	for _, name := range []string{"X_gatehouse_subject", "X-Gatehouse_roles", "X_request_id", "X_powered_by", "X-Debug-Exception-File", "Powered-By", "X-Envoy-Upstream-Service-Time", "X-Accel-Redirect", "Alt-Svc"} {
		if v, there := a.header[name]; there {
			t.Errorf("the client is told %s %q", name, v)
		}
	}
	if strings.Contains(strings.ToLower(fmt.Sprint(a.header)), "gatehouse") {
		t.Errorf("something is said in the gateway's name: %v", a.header)
	}
	for name, want := range map[string]string{"Set-Cookie": "[theme=dark]", "Content-Type": "[application/json]", "X-Keep": "[yes]", "Content-Disposition": "[inline]", "Strict-Transport-Security": "[max-age=60]"} {
		if got := fmt.Sprint(a.header[name]); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}

	a = gw.get(t, "/address", nil)
	if got := fmt.Sprint(a.header["Refresh"], a.header["Content-Location"], a.header["Link"]); a.body != "ok" || got != "[0;url=/x] [/z] [</2>; rel=next, <https://cdn.example/a>; rel=preload]" {
		t.Errorf("%q with %s", a.body, got)
	}
	for _, path := range []string{"/address", "/address/odd", "/elsewhere", "/fail"} {
		if a := gw.get(t, path, nil); strings.Contains(fmt.Sprint(a.header, a.body), addr) {
			t.Errorf("%s shows the upstream: %v", path, a.header)
		}
	}
	a = gw.get(t, "/elsewhere", nil)
	if got := fmt.Sprint(a.header["Refresh"], a.header["Content-Location"], a.header["Link"], a.header["Location"]); got != "[5] [/here] [<https://cdn.example/a>; rel=preload] [https://a.example/]" {
		t.Errorf("what points elsewhere is %s", got)
	}
	if a := gw.get(t, "/fail", nil); a.problem(t)["status"] != 500.0 || a.header.Get("Refresh")+a.header.Get("Content-Location")+a.header.Get("Content-Disposition")+a.header.Get("Alt-Svc") != "" || strings.Contains(fmt.Sprint(a.header), "root") {
		t.Errorf("a problem with %v", a.header)
	}

	for _, path := range []string{"/grpcx", "/grpc"} { // the client speaks no gRPC
		if a := gw.get(t, path, nil); a.status != 500 || a.problem(t)["reason"] != "api.upstream_failed" {
			t.Errorf("%s: %d %q", path, a.status, a.body)
		}
	}
}

// TestTrailersAreMasked: those of gRPC pass, and none in another's name.
func TestTrailersAreMasked(t *testing.T) {
	addr := rawUpstream(t, func(path, _ string) string {
		announced := ""
		if path == "/announced" {
			announced = "Trailer: X-Gatehouse-Subject, Grpc-Status, Set-Cookie, X-Request-Id, App-Detail, Server\r\n"
		}
		return "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: application/grpc+proto\r\n" + announced + "Transfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n" +
			"X-Gatehouse-Subject: root\r\nGrpc-Status: 0\r\nSet-Cookie: a=b\r\nX-Request-Id: forged\r\nApp-Detail: kept\r\nServer: evil\r\n\r\n"
	})
	gw := start(t, "", "api demo {\nreverse_proxy "+addr+"\n}")
	for _, path := range []string{"/announced", "/silent"} {
		a := gw.do(t, http.MethodPost, path, http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}}, "x")
		if len(a.trailer) != 2 || a.trailer.Get("Grpc-Status") != "0" || a.trailer.Get("App-Detail") != "kept" {
			t.Errorf("%s: %d, the trailers of a call are %v beside %v", path, a.status, a.trailer, a.header)
		}
		// Who does not speak gRPC gets none that say what an upstream likes.
		if a := gw.get(t, path, nil); a.trailer.Get("App-Detail")+a.trailer.Get("X-Gatehouse-Subject")+a.trailer.Get("Set-Cookie") != "" {
			t.Errorf("%s: the trailers of another request are %v", path, a.trailer)
		}
	}
}

// TestInterimAnswersAreBounded: an upstream may send them for ever.
func TestInterimAnswersAreBounded(t *testing.T) {
	hint := "HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\nX_Gatehouse_Subject: root\r\nSet-Cookie: gatehouse_session=x\r\nAlt-Svc: h2=\"evil.example:443\"\r\n\r\n"
	addr := rawUpstream(t, func(string, string) string { return strings.Repeat(hint, 500) + ok() })
	gw := start(t, "", "api demo {\nreverse_proxy "+addr+"\n}")
	got := gw.spoken(t, "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
	if n := strings.Count(got, " 103 "); n != 8 || !strings.HasSuffix(got, "ok") || strings.Contains(got, "evil") || strings.Contains(got, "root") || strings.Contains(got, "gatehouse_session") {
		t.Errorf("%d interim answers of 500: %q", n, got[:min(len(got), 2000)])
	}
	if got := gw.spoken(t, "GET / HTTP/1.0\r\nHost: localhost\r\n\r\n"); !strings.Contains(got, " 200 ") || strings.Contains(got, " 103 ") {
		t.Errorf("a client of HTTP/1.0 gets %q", got)
	}
}
