package transcode

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/transcode/transcodetest"
)

func provision(t testing.TB, h *Handler) *Handler {
	t.Helper()
	h.File = filepath.Join(t.TempDir(), "shop.binpb")
	if err := os.WriteFile(h.File, transcodetest.New(t).Set, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	t.Cleanup(cancel)
	if err := h.Provision(ctx); err != nil {
		t.Fatal(err)
	}
	return h
}

// service answers every call with the same message.
func service(message string) caddyhttp.Handler {
	frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	return caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return caddyhttp.Error(http.StatusBadGateway, err)
		}
		h := w.Header()
		h["Content-Type"] = []string{"application/grpc"}
		_, _ = w.Write(frame)
		h[http.TrailerPrefix+"Grpc-Status"] = []string{"0"}
		return nil
	})
}

func prepared(w http.ResponseWriter, method, target, body string) *http.Request {
	r := httptest.NewRequest(method, target, strings.NewReader(body))
	if body == "" {
		r = httptest.NewRequest(method, target, nil)
	}
	return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, nil)
}

func reasonOf(err error) gate.Reason {
	if d, ok := errors.AsType[*gate.Denial](err); ok {
		return d.Reason
	}
	return gate.None
}

// TestErrorsPassUntouched: Caddy looks for a HandlerError by value.
func TestErrorsPassUntouched(t *testing.T) {
	h := provision(t, &Handler{})
	want := gate.Deny(&gate.Denial{Reason: gate.ResilienceBreakerOpen})
	w := httptest.NewRecorder()
	err := h.ServeHTTP(w, prepared(w, "GET", "/v1/orders/7", ""), caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return want }))
	he, ok := err.(caddyhttp.HandlerError) //nolint:errorlint // as Caddy does
	if !ok || he.StatusCode != 503 || reasonOf(err) != gate.ResilienceBreakerOpen || w.Body.Len() > 0 || w.Code != 200 {
		t.Errorf("%#v, wrote %d %q", err, w.Code, w.Body)
	}
}

// TestPanicsPass: a panic of a later handler is api's to take up, and aborting
// a half-sent answer Caddy's.
func TestPanicsPass(t *testing.T) {
	h := provision(t, &Handler{})
	for _, want := range []any{http.ErrAbortHandler, "boom"} {
		func() {
			defer func() {
				if got := recover(); got != want {
					t.Errorf("%v instead of %v", got, want)
				}
			}()
			w := httptest.NewRecorder()
			_ = h.ServeHTTP(w, prepared(w, "GET", "/v1/orders/7", ""), caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { panic(want) }))
		}()
	}
}

// TestRequestIsItsOwnAgain: what stands around sees what the client asked, and
// what stands behind sees the call.
func TestRequestIsItsOwnAgain(t *testing.T) {
	h := provision(t, &Handler{Timeout: caddy.Duration(7 * time.Second)})
	w := httptest.NewRecorder()
	r := prepared(w, "POST", "/v1/orders/7:cancel?x=1", `{"why":"late"}`)
	r.URL.RawQuery = ""
	r.Header.Set("Accept", "application/json")
	r.Header.Set("Grpc-Encoding", "evil")
	before, url, header := *r, *r.URL, r.Header.Clone()
	repl := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	err := h.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(rw http.ResponseWriter, q *http.Request) error {
		if q.Method != "POST" || q.URL.Path != "/shop.v1.Orders/Cancel" || q.RequestURI != q.URL.Path || q.Header.Get("Content-Type") != "application/grpc+proto" ||
			q.Header.Get("Te") != "trailers" || q.Header.Get("Grpc-Timeout") != "7100m" || q.Header.Get("Grpc-Encoding") != "" || q.ContentLength != 14 {
			t.Errorf("%s %s %v %d", q.Method, q.URL, q.Header, q.ContentLength)
		}
		if path := repl.ReplaceAll("{http.request.uri.path} {http.request.header.Te}", ""); path != "/shop.v1.Orders/Cancel trailers" {
			t.Errorf("placeholders say %q", path)
		}
		if d, ok := q.Context().Deadline(); !ok || time.Until(d) > 7*time.Second {
			t.Errorf("deadline %v", d)
		}
		return service("").ServeHTTP(rw, q)
	}))
	if err != nil || w.Code != 200 {
		t.Fatalf("%d %v", w.Code, err)
	}
	if r.Method != before.Method || r.URL != before.URL || *r.URL != url || r.RequestURI != before.RequestURI || r.ContentLength != before.ContentLength || r.Proto != before.Proto || len(r.Header) != len(header) {
		t.Errorf("%s %s %v", r.Method, r.URL, r.Header)
	}
	if op := gate.Of(r).Operation; op == nil || op.ID != "shop.v1.Orders.Cancel" {
		t.Errorf("operation %+v", op)
	}
}

func TestWithoutProxy(t *testing.T) {
	h := provision(t, &Handler{})
	w := httptest.NewRecorder()
	err := h.ServeHTTP(w, prepared(w, "GET", "/v1/orders/7", ""), caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil }))
	if reasonOf(err) != gate.TranscodeAnswer || w.Body.Len() > 0 {
		t.Errorf("%v %q", err, w.Body)
	}
}

// TestDenialOfABody: a stage before may end a body; its word counts.
func TestDenialOfABody(t *testing.T) {
	h := provision(t, &Handler{})
	w := httptest.NewRecorder()
	r := prepared(w, "POST", "/v1/orders/7:cancel", "")
	for body, want := range map[io.Reader]gate.Reason{
		failing{gate.Deny(&gate.Denial{Reason: gate.GuardBodyTooLarge})}: gate.GuardBodyTooLarge,
		failing{io.ErrClosedPipe}: gate.TranscodeBodyUnreadable,
	} {
		r.Body, r.ContentLength = io.NopCloser(body), -1
		if err := h.ServeHTTP(w, r, service("")); reasonOf(err) != want {
			t.Errorf("%v, want %v", err, want)
		}
	}
}

type failing struct{ error }

func (f failing) Read([]byte) (int, error) { return 0, f.error }

func TestOff(t *testing.T) {
	h := provision(t, &Handler{Mode: gate.Off})
	w := httptest.NewRecorder()
	r := prepared(w, "GET", "/v1/orders/7", "")
	var got *http.Request
	if err := h.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(_ http.ResponseWriter, q *http.Request) error { got = q; return nil })); err != nil || got != r {
		t.Errorf("%v %v", err, got)
	}
}

func TestSettings(t *testing.T) {
	ctx, cancel := caddy.NewContext(caddy.Context{Context: context.Background()})
	defer cancel()
	for want, h := range map[string]*Handler{
		"a file with descriptors is required": {},
		"max_message must be":                 {File: "x", MaxMessage: -1},
		"timeout must not be":                 {File: "x", Timeout: -1},
		`unrecognized unmatched "no"`:         {File: "x", Unmatched: "no"},
		`unrecognized unknown_fields "no"`:    {File: "x", UnknownFields: "no"},
		"no mode shadow":                      {File: "x", Mode: gate.Shadow},
		"reading descriptors":                 {File: "/nowhere/x"},
	} {
		if err := h.Provision(ctx); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestTimeouts(t *testing.T) {
	for s, want := range map[string]time.Duration{"1500m": 1500 * time.Millisecond, "3S": 3 * time.Second, "2M": 2 * time.Minute, "1H": time.Hour, "0n": 0, "5u": 5 * time.Microsecond} {
		if got, ok := grpcTimeout(s); !ok || got != want {
			t.Errorf("%s: %v %v", s, got, ok)
		}
	}
	for _, s := range []string{"", "S", "5", "-5S", "5x", "99999999999S", "1.5S"} {
		if got, ok := grpcTimeout(s); ok {
			t.Errorf("%s: %v", s, got)
		}
	}
	for d, want := range map[time.Duration]string{time.Second: "1000m", time.Microsecond: "1m", 100 * time.Hour: "360000S"} {
		if got := writeTimeout(d); got != want {
			t.Errorf("%v: %s", d, got)
		}
	}
}

func TestPointer(t *testing.T) {
	for field, want := range map[string]string{"order.parts[0].unit_count": "#/order/parts/0/unitCount", "id": "#/id", "a_": "#/a_"} {
		if got := pointer(field); got != want {
			t.Errorf("%s: %s, want %s", field, got, want)
		}
	}
}

// FuzzREST: what reaches the service is one message of the method, whatever a
// client sends, or nothing does and the client is told.
func FuzzREST(f *testing.F) {
	for _, s := range [][3]string{
		{"GET", "/v1/orders/7", ""},
		{"POST", "/v1/orders/7:cancel", `{"why":"late","order":{"parts":[{}]}}`},
		{"POST", "/v1/customers/ann/orders?dryRun=true", `{"quantity":"7"}`},
		{"GET", "/v1/orders?page_size=1&tags=a&tags=b&filter.customer=x&state=OPEN", ""},
		{"GET", "/v1/customers/%25/orders/%2F", ""},
	} {
		f.Add(s[0], s[1], s[2])
	}
	h := provision(f, &Handler{MaxMessage: 1 << 16, Unmatched: "refuse"})
	f.Fuzz(func(t *testing.T, method, target, body string) {
		r, err := http.NewRequest(method, target, strings.NewReader(body))
		if err != nil || !strings.HasPrefix(target, "/") {
			t.Skip("no server would hand such a request on")
		}
		w := httptest.NewRecorder()
		r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, nil)
		reached := false
		err = h.ServeHTTP(w, r, caddyhttp.HandlerFunc(func(rw http.ResponseWriter, q *http.Request) error {
			reached = true
			data, err := io.ReadAll(q.Body)
			if err != nil || len(data) < 5 || data[0] != 0 || int(binary.BigEndian.Uint32(data[1:])) != len(data)-5 {
				t.Fatalf("%q %v", data, err)
			}
			m := h.set.Methods[q.URL.Path]
			if m == nil {
				t.Fatalf("path %q", q.URL.Path)
			}
			if err := proto.Unmarshal(data[5:], dynamicpb.NewMessage(m.Input())); err != nil {
				t.Fatalf("%q: %v", data, err)
			}
			q.Body = io.NopCloser(bytes.NewReader(nil))
			return service("").ServeHTTP(rw, q)
		}))
		if reached != (err == nil) {
			t.Errorf("reached %v, error %v", reached, err)
		}
	})
}

// discard is a client that costs nothing.
type discard struct{ header http.Header }

func (d discard) Header() http.Header       { return d.header }
func (discard) WriteHeader(int)             {}
func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Flush()                      {}

// BenchmarkServe is a unary call with small messages against a service that
// costs nothing, and requests that no method answers.
func BenchmarkServe(b *testing.B) {
	h := provision(b, &Handler{})
	next := service("\x0a\x017\x18\x05")
	for _, c := range []struct{ name, method, target, ct, body string }{
		{"rest-get", "GET", "/v1/orders/7", "", ""},
		{"rest-post", "POST", "/v1/orders/7:cancel", "application/json", `{"why":"late"}`},
		{"grpc-web", "POST", "/shop.v1.Orders/Get", "application/grpc-web+proto", "\x00\x00\x00\x00\x03\x0a\x017"},
		{"grpc", "POST", "/shop.v1.Orders/Get", "application/grpc", "\x00\x00\x00\x00\x03\x0a\x017"},
		{"unmatched", "GET", "/index.html", "", ""},
		{"unmatched-same-root", "GET", "/v1/index.html", "", ""},
	} {
		b.Run(c.name, func(b *testing.B) {
			w := discard{http.Header{}}
			r := prepared(w, c.method, c.target, c.body)
			if c.ct != "" {
				r.Header.Set("Content-Type", c.ct)
			}
			after := next
			if strings.HasPrefix(c.name, "unmatched") {
				after = caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })
			}
			body := strings.NewReader(c.body)
			gate.Of(r)
			b.ReportAllocs()
			for b.Loop() {
				body.Reset(c.body)
				clear(w.header)
				r.Body = io.NopCloser(body)
				if err := h.ServeHTTP(w, r, after); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
