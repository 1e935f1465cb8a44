package guard

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/klauspost/compress/zstd"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// provision makes a handler of the options in a block.
func provision(t testing.TB, block string) *Handler {
	t.Helper()
	h := new(Handler)
	if err := h.UnmarshalCaddyfile(caddyfile.NewTestDispenser("guard {\n" + block + "\n}")); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	if err := h.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	if err := h.Validate(); err != nil {
		t.Fatal(err)
	}
	return h
}

// through sends a request through the guard and reads its body, as a backend would.
func through(h *Handler, r *http.Request) (reason gate.Reason, path, body string) {
	w := httptest.NewRecorder()
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, &caddyhttp.Server{})
	err := h.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		path = r.URL.EscapedPath()
		data, err := io.ReadAll(r.Body)
		body = string(data)
		return err
	}))
	if d, ok := errors.AsType[*gate.Denial](err); ok {
		reason = d.Reason
	}
	return reason, path, body
}

func post(body, contentType string, header ...string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/", strings.NewReader(body))
	r.Header.Set("Content-Type", contentType)
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return r
}

// chunked hides the length of the body.
func chunked(r *http.Request) *http.Request {
	r.ContentLength = -1
	return r
}

func form(target, body string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, target, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	return r
}

func zippedForm(t *testing.T, body string) *http.Request {
	r := form("/", zipped(t, body))
	r.Header.Set("Content-Encoding", "gzip")
	return r
}

func TestChecks(t *testing.T) {
	many := httptest.NewRequest(http.MethodGet, "/", nil)
	for range 101 {
		many.Header.Add("X-Many", "1")
	}
	twice := httptest.NewRequest(http.MethodGet, "/", nil)
	twice.Header["Authorization"] = []string{"a", "b"}
	host := httptest.NewRequest(http.MethodGet, "/", nil)
	host.Host = "a/b"
	early := func(method string) *http.Request {
		r := httptest.NewRequest(method, "https://a.test/", nil)
		r.TLS = &tls.ConnectionState{}
		return r
	}
	done := early(http.MethodPost)
	done.TLS = &tls.ConnectionState{HandshakeComplete: true}
	old := post("{}", "application/json")
	old.TransferEncoding, old.ProtoMinor = []string{"chunked"}, 0
	for _, c := range []struct {
		name, block string
		r           *http.Request
		want        gate.Reason
	}{
		{"a plain request", "", httptest.NewRequest(http.MethodGet, "/a?b=c", nil), gate.None},
		{"an encoded slash", "", httptest.NewRequest(http.MethodGet, "/a%2fb", nil), gate.GuardPath},
		{"an encoded slash that is data", "encoded_slash", httptest.NewRequest(http.MethodGet, "/a%2fb", nil), gate.None},
		{"a parameter in the path", "", httptest.NewRequest(http.MethodGet, "/admin;x/users", nil), gate.GuardPath},
		{"a semicolon that may be there", "semicolon", httptest.NewRequest(http.MethodGet, "/admin;x/users", nil), gate.None},
		{"dot segments, refused", "path refuse", httptest.NewRequest(http.MethodGet, "/a/%2e%2e/b", nil), gate.GuardPath},
		{"OPTIONS *", "", httptest.NewRequest(http.MethodOptions, "*", nil), gate.None},
		{"a long URL", "max_url 16B", httptest.NewRequest(http.MethodGet, "/?q=0123456789abcdef", nil), gate.GuardURL},
		{"a query of many members", "max_query 2", httptest.NewRequest(http.MethodGet, "/?a&b&c", nil), gate.GuardQuery},
		{"a broken query", "", httptest.NewRequest(http.MethodGet, "/?a=%zz", nil), gate.GuardQuery},
		{"a query that is divided by semicolons, or is not", "", httptest.NewRequest(http.MethodGet, "/?a=b;c=d", nil), gate.GuardQuery},
		{"a semicolon that is a character", "", httptest.NewRequest(http.MethodGet, "/?a=b%3Bc=d", nil), gate.None},
		{"many header fields", "", many, gate.GuardHeaders},
		{"a field twice", "", twice, gate.GuardFraming},
		{"a host that is none", "", host, gate.GuardFraming},
		{"a transfer coding in HTTP/1.0", "", old, gate.GuardFraming},
		{"another method", "", post("{}", "application/json", "X-HTTP-Method-Override", "DELETE"), gate.GuardOverride},
		{"another method, as CGI reads it", "", post("{}", "application/json", "X_http_METHOD-Override", "DELETE"), gate.GuardOverride},
		{"another path", "", post("{}", "application/json", "X-Original-URL", "/admin"), gate.GuardOverride},
		{"another path, where a proxy in front says so", "off override", post("{}", "application/json", "X-Rewrite-URL", "/admin"), gate.None},
		{"another path, as nginx tells authorizers", "", post("{}", "application/json", "X-Original-URI", "/admin"), gate.GuardOverride},
		{"another method in the query", "", form("/?a=1&_method=DELETE", ""), gate.GuardOverride},
		{"another method in the query, encoded", "", form("/?%5fmetho%64=DELETE", ""), gate.GuardOverride},
		{"another method in a query that nobody takes it from", "", httptest.NewRequest(http.MethodGet, "/?_method=DELETE", nil), gate.None},
		{"another method in a form", "", form("/", "a=1&_method=DELETE"), gate.GuardOverride},
		{"another method in a form, behind a semicolon", "", form("/", "a=1;_method=DELETE"), gate.GuardOverride},
		{"another method in a form, as PHP reads it", "", form("/", "a=1&+.method%00x=DELETE"), gate.GuardOverride},
		{"another method in a form that was encoded", "", zippedForm(t, "_method=DELETE"), gate.GuardOverride},
		{"a member that ends like it", "", form("/", "payment_method=card&method=a&x_method"), gate.None},
		{"a form in a charset that hides its members", "", post("%6D%85=x", "application/x-www-form-urlencoded; charset=IBM037"), gate.GuardContentType},
		{"a form in Latin-1", "", post("a=%E4", "application/x-www-form-urlencoded; charset=ISO-8859-1"), gate.None},
		{"a field that is called like it", "", post("{}", "application/json", "X-Http-Methods", "x"), gate.None},
		{"a field that CGI takes for the length", "", post("{}", "application/json", "Content_Length", "1"), gate.GuardFraming},
		{"a field with an underscore", "", post("{}", "application/json", "api_key", "x"), gate.None},
		{"a change in early data", "", early(http.MethodPost), gate.GuardEarlyData},
		{"a look in early data", "", early(http.MethodGet), gate.None},
		{"a change in early data of a proxy's", "", post("{}", "application/json", "Early-Data", "1"), gate.GuardEarlyData},
		{"a change after the handshake", "", done, gate.None},
		{"a method in small letters", "", httptest.NewRequest("post", "/", nil), gate.GuardFraming},
		{"a tunnel for WebSockets, of which the upstream would get a GET", "", httptest.NewRequest(http.MethodConnect, "/private", nil), gate.GuardFraming},
		{"a content type that is none", "", post(`{"a":1,"a":2}`, "application/json; x"), gate.GuardFraming},
		{"two content types", "", post(`{"a":1,"a":2}`, "application/json,text/plain"), gate.GuardFraming},
		{"a type that is called like gRPC's", "", post(`{"a":1,"a":2}`, "application/grpcx+json"), gate.GuardJSON},
		{"TRACE", "", httptest.NewRequest(http.MethodTrace, "/", nil), gate.GuardFraming},
		{"a method of its own", "", httptest.NewRequest("M-SEARCH", "/", nil), gate.None},
		{"a content type that is not accepted", "content_types application/json image/*", post("a", "text/csv"), gate.GuardContentType},
		{"none where one is asked for", "content_types application/json", post("a", ""), gate.GuardContentType},
		{"one that is", "content_types application/json image/*", post("a", "image/png"), gate.None},
		{"a long body", "max_body 4B", post("12345", "text/plain"), gate.GuardBodyTooLarge},
		{"one that just fits", "max_body 5B", post("12345", "text/plain"), gate.None},
		{"a long body of unknown length", "max_body 4B", chunked(post("12345", "text/plain")), gate.GuardBodyTooLarge},
		{"one that just fits, of unknown length", "max_body 5B", chunked(post("12345", "text/plain")), gate.None},
		{"a long body of its type", "max_body 4B image/*", post("12345", "image/png"), gate.GuardBodyTooLarge},
		{"of another type", "max_body 4B image/*", post("12345", "text/plain"), gate.None},
		{"JSON", "", post(`{"a":1}`, "application/json; charset=utf-8"), gate.None},
		{"a member twice", "", post(`{"a":1,"a":2}`, "application/json"), gate.GuardJSON},
		{"of a type that ends in json", "", post(`{"a":1,"a":2}`, "application/problem+json"), gate.GuardJSON},
		{"a number that panics libraries", "", post(`1e10000000`, "application/json"), gate.GuardJSON},
		{"something behind the value", "", post(`{} {}`, "application/json"), gate.GuardJSON},
		{"bytes that are not UTF-8", "", post("\"\xff\"", "application/json"), gate.GuardJSON},
		{"deep JSON", "json depth 2", post(`[[[]]]`, "application/json"), gate.GuardJSON},
		{"many values", "json values 3 string 9", post(`[1,2,3,4]`, "application/json"), gate.GuardJSON},
		{"a long string", "json string 3", post(`"abcdef"`, "application/json"), gate.GuardJSON},
		{"JSON, chunked, too long", "max_body 4B", chunked(post(`[1,2,3]`, "application/json")), gate.GuardBodyTooLarge},
		{"an unknown encoding", "", post("x", "text/plain", "Content-Encoding", "br"), gate.GuardContentEncoding},
		{"two encodings", "", post("x", "text/plain", "Content-Encoding", "gzip, gzip"), gate.GuardContentEncoding},
		{"what is no gzip", "", post("x", "text/plain", "Content-Encoding", "gzip"), gate.GuardBodyUnreadable},
		{"a check in shadow", "shadow json", post(`{"a":1,"a":2}`, "application/json"), gate.None},
		{"a check that is off", "off json", post(`{"a":1,"a":2}`, "application/json"), gate.None},
		{"another check beside it", "off json\nmax_url 2B", post(`{"a":1,"a":2}`, "application/json"), gate.None},
		{"all in shadow", "mode shadow", httptest.NewRequest(http.MethodGet, "/a%2fb", nil), gate.None},
		{"JSON that is encoded, in shadow", "mode shadow", post(zipped(t, `{"a":1}`), "application/json", "Content-Encoding", "gzip"), gate.None},
		{"a form that is encoded, in shadow", "mode shadow", zippedForm(t, "a=1"), gate.None},
		{"all off", "mode off", httptest.NewRequest(http.MethodGet, "/a%2fb", nil), gate.None},
	} {
		if got, _, _ := through(provision(t, c.block), c.r); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

func TestCanonicalize(t *testing.T) {
	const sent = "/a/%2e%2e//%62?x=/../"
	for block, want := range map[string]string{"": "/b?x=/../", "shadow path": sent, "mode shadow": sent, "off path": sent} {
		w := httptest.NewRecorder()
		r := caddyhttp.PrepareRequest(httptest.NewRequest(http.MethodGet, sent, nil), caddy.NewReplacer(), w, &caddyhttp.Server{})
		err := provision(t, block).ServeHTTP(w, r, caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil }))
		if err != nil || r.RequestURI != want || r.URL.RequestURI() != want {
			t.Errorf("%q: placeholders see %q, the backend %q: %v", block, r.RequestURI, r.URL.RequestURI(), err)
		}
	}
}

func zipped(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := io.WriteString(z, text)
	if err := errors.Join(err, z.Close()); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestEncodings holds that the stages behind, and the backend, get what was meant.
func TestEncodings(t *testing.T) {
	h := provision(t, "max_body 1KiB")
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, body := range map[string]string{"gzip": zipped(t, `{"a":1}`), "zstd": string(enc.EncodeAll([]byte(`{"a":1}`), nil))} {
		digests := []string{"Content-Digest", "Repr-Digest", "Digest", "Content-Md5"}
		r := post(body, "application/json", "Content-Encoding", name)
		for _, digest := range digests {
			r.Header.Set(digest, "of what was sent")
		}
		defer func() {
			for _, digest := range digests {
				if r.Header.Get(digest) != "" {
					t.Errorf("%s: %s is of another body", name, digest)
				}
			}
		}()
		if reason, _, got := through(h, r); reason != gate.None || got != `{"a":1}` || r.Header.Get("Content-Encoding") != "" {
			t.Errorf("%s: %v %q %q", name, reason, got, r.Header)
		}
	}
	for name, r := range map[string]*http.Request{
		"a bomb":                    post(zipped(t, strings.Repeat("0", 1<<20)), "text/plain", "Content-Encoding", "gzip"),
		"a bomb that says JSON":     post(zipped(t, strings.Repeat(" ", 1<<20)), "application/json", "Content-Encoding", "gzip"),
		"much that comes to little": chunked(post(strings.Repeat(zipped(t, ""), 100), "text/plain", "Content-Encoding", "gzip")),
	} {
		if reason, _, got := through(h, r); reason != gate.GuardBodyTooLarge || len(got) > 1<<10 {
			t.Errorf("%s: %v and %d bytes", name, reason, len(got))
		}
	}
	if reason, _, _ := through(h, post(zipped(t, `{"a":1,"a":2}`), "application/json", "Content-Encoding", "gzip")); reason != gate.GuardJSON {
		t.Errorf("a member twice, zipped: %v", reason)
	}
	if reason, _, _ := through(h, post(zipped(t, "hello hello hello")[:20], "text/plain", "Content-Encoding", "gzip")); reason != gate.GuardBodyUnreadable {
		t.Errorf("a body cut off: %v", reason)
	}
}

// FuzzGuard: whatever is sent, what passes has a canonical path, and a body no
// longer than its limit that is JSON where it says so.
func FuzzGuard(f *testing.F) {
	f.Add("/a/../b", "a=1", "application/json", "gzip", []byte(`{"a":1}`))
	f.Add("/", "", "text/plain", "", []byte("x"))
	f.Add("/a%2fb", "%zz", "application/json", "zstd", []byte{0x28, 0xb5, 0x2f, 0xfd})
	h := provision(f, "max_body 64B")
	again := provision(f, "max_body 64B\npath refuse")
	f.Fuzz(func(t *testing.T, path, query, contentType, encoding string, body []byte) {
		r, err := http.NewRequest(http.MethodPost, "http://localhost", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		if r.URL, err = r.URL.Parse(path); err != nil || r.URL.Opaque != "" {
			return
		}
		r.URL.RawQuery = query
		r.Header.Set("Content-Type", contentType)
		if encoding != "" {
			r.Header.Set("Content-Encoding", encoding)
		}
		reason, _, got := through(h, r)
		if len(got) > 64 {
			t.Fatalf("%d bytes came through", len(got))
		}
		if reason != gate.None {
			return
		}
		r.Body, r.ContentLength = io.NopCloser(strings.NewReader(got)), int64(len(got))
		if reason, _, same := through(again, r); reason != gate.None || same != got {
			t.Fatalf("what passed is refused: %v", reason)
		}
	})
}

// BenchmarkGuard measures what a good request costs: a GET, and the kilobyte of
// JSON that only guard decodes.
func BenchmarkGuard(b *testing.B) {
	h := provision(b, "")
	next := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })
	b.Run("GET", func(b *testing.B) {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "/orders/ord_1?limit=10&sort=asc", nil)
		for _, name := range []string{"Accept", "User-Agent", "Authorization", "Accept-Encoding"} {
			r.Header.Set(name, "x")
		}
		r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, &caddyhttp.Server{})
		gate.Of(r)
		b.ReportAllocs()
		for b.Loop() {
			if err := h.ServeHTTP(w, r, next); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// TestTwice holds that a guard in a site and one in its api agree: the first
// has read a body whose length was not known.
func TestTwice(t *testing.T) {
	first, second := provision(t, ""), provision(t, "")
	w := httptest.NewRecorder()
	r := chunked(post(`{"a":1}`, "application/json"))
	r.TransferEncoding = []string{"chunked"}
	r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, &caddyhttp.Server{})
	passed := false
	err := first.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		return second.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error {
			passed = true
			return nil
		}))
	}))
	if err != nil || !passed {
		t.Errorf("refused: %v", err)
	}
}
