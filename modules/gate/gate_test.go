package gate

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

var update = flag.Bool("update", false, "rewrite docs/reasons.md")

func request(method string, body io.Reader, vars map[string]any) *http.Request {
	if vars == nil {
		vars = map[string]any{}
	}
	r := httptest.NewRequest(method, "http://a.test/", body)
	return r.WithContext(context.WithValue(r.Context(), caddyhttp.VarsCtxKey, vars))
}

// TestReasons holds the closed list: every reason is complete, unique and
// belongs to a stage, and the published table says the same.
func TestReasons(t *testing.T) {
	seen := map[string]bool{}
	var doc strings.Builder
	doc.WriteString("# Reasons\n\nWhy a request was refused, for machines: in the `reason` of a problem document, in the decision log,\nand as a label of `gatehouse_decisions_total`. A reason is never renamed and never reused.\n\n")
	stage := ""
	for _, r := range Reasons() {
		if r.String() == "" || r.Title() == "" || (r.Status() < 400 && r != IdentityLogin) || r.Status() > 599 { // who can log in is sent there
			t.Errorf("reason %d is incomplete: %q %d %q", r, r, r.Status(), r.Title())
		}
		if seen[r.String()] {
			t.Errorf("%s is listed twice", r)
		}
		seen[r.String()] = true
		known := false
		for s := range stageCount {
			known = known || s.String() == r.Stage()
		}
		if !known {
			t.Errorf("%s belongs to no stage", r)
		}
		if r.Stage() != stage {
			stage = r.Stage()
			fmt.Fprintf(&doc, "\n## %s\n\n| reason | status | meaning |\n|---|---|---|\n", stage)
		}
		fmt.Fprintf(&doc, "| <a id=\"%s\"></a>`%s` | %d | %s |\n", r, r, r.Status(), r.Title())
	}
	const path = "../../docs/reasons.md"
	if *update {
		if err := os.WriteFile(path, []byte(doc.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != doc.String() {
		t.Errorf("docs/reasons.md is not what the code says (%v); run make golden", err)
	}
}

// TestReadmeStatuses: the table in the README has every status of every stage.
func TestReadmeStatuses(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	statuses := map[string][]string{}
	for _, r := range Reasons() {
		statuses[r.Stage()] = append(statuses[r.Stage()], strconv.Itoa(r.Status()))
	}
	for stage, list := range statuses {
		slices.Sort(list)
		want := "| " + strings.Join(slices.Compact(list), ", ") + " |"
		found := false
		for line := range strings.Lines(string(readme)) {
			if strings.HasPrefix(line, "| `"+stage+"` |") {
				if found = true; !strings.Contains(line, want) {
					t.Errorf("the row of %s does not say %q: %s", stage, want, line)
				}
			}
		}
		if !found {
			t.Errorf("the README has no row for %s", stage)
		}
	}
}

func TestOf(t *testing.T) {
	r := request(http.MethodGet, nil, map[string]any{caddyhttp.ClientIPVarKey: "::ffff:192.0.2.7"})
	r.Header = http.Header{
		"X-Gatehouse-Subject": {"admin"}, "X_gatehouse_roles": {"admin"}, "x-gatehouse-plan": {"pro"},
		"X-Gate": {"stays"}, "X-Request-Id": {"chosen-by-a-stranger"},
	}
	r.Trailer = http.Header{"X-Gatehouse-Tenant": nil}
	ex := Of(r)
	if len(r.Header) != 2 || r.Header.Get("X-Gate") == "" || r.Trailer != nil {
		t.Errorf("left over: %v %v", r.Header, r.Trailer)
	}
	if ex.ID == "chosen-by-a-stranger" || len(ex.ID) != 24 {
		t.Errorf("request id %q", ex.ID)
	}
	if ex.Client.String() != "192.0.2.7" || ex.Network().String() != "192.0.2.7/32" {
		t.Errorf("client %v in %v", ex.Client, ex.Network())
	}
	if Of(r) != ex {
		t.Error("a second Exchange for the same request")
	}

	six := Of(request(http.MethodGet, nil, map[string]any{caddyhttp.ClientIPVarKey: "2001:db8:1:2:3::4%eth0"}))
	if six.Network().String() != "2001:db8:1:2::/64" {
		t.Errorf("IPv6 callers are counted by %v", six.Network())
	}
	trusted := request(http.MethodGet, nil, map[string]any{caddyhttp.TrustedProxyVarKey: true})
	trusted.Header.Set("X-Request-Id", "from-our-balancer")
	if id := Of(trusted).ID; id != "from-our-balancer" {
		t.Errorf("a trusted proxy's id became %q", id)
	}
	trusted = request(http.MethodGet, nil, map[string]any{caddyhttp.TrustedProxyVarKey: true})
	trusted.Header.Set("X-Request-Id", "a\"b\n")
	if id := Of(trusted).ID; strings.Contains(id, "\n") {
		t.Errorf("a malformed id is kept: %q", id)
	}
}

func TestConclude(t *testing.T) {
	w, r := httptest.NewRecorder(), request(http.MethodGet, nil, nil)
	denial := &Denial{Reason: QuotaExhausted, Header: http.Header{"Retry-After": {"7"}}}
	ex := &Exchange{}
	if err := ex.Conclude(w, r, Quota, Shadow, "free", denial, time.Now()); err != nil || w.Header().Get("Retry-After") != "" {
		t.Errorf("shadow denies: %v %v", err, w.Header())
	}
	err := ex.Conclude(w, r, Quota, Enforce, "free", denial, time.Now())
	var he caddyhttp.HandlerError
	if !errors.As(err, &he) || he.StatusCode != 429 {
		t.Errorf("enforce gives %v", err)
	}
	if _, byValue := err.(caddyhttp.HandlerError); !byValue { //nolint:errorlint // Caddy looks for the value itself
		t.Errorf("Caddy needs the error by value, got %T", err)
	}
	if w.Header().Get("Retry-After") != "7" {
		t.Errorf("without an api around it, the denial's headers are lost: %v", w.Header())
	}
	d := ex.Decisions()
	if len(d) != 2 || d[0].Verdict != WouldDeny || d[1].Verdict != Denied || d[1].Reason != QuotaExhausted {
		t.Errorf("recorded %+v", d)
	}

	for range 2 * maxDecisions {
		_ = ex.Conclude(w, r, Quota, Enforce, "", nil, time.Now())
	}
	_ = ex.Conclude(w, r, Firewall, Enforce, "", &Denial{Reason: FirewallAttack}, time.Now())
	d = ex.Decisions()
	if len(d) != maxDecisions || d[len(d)-1].Reason != FirewallAttack || ex.Dropped() == 0 {
		t.Errorf("the decision that ends the Exchange is lost: %d kept, last %v", len(d), d[len(d)-1])
	}
}

func TestConcludeDoesNotAllocate(t *testing.T) {
	w, r := httptest.NewRecorder(), request(http.MethodGet, nil, nil)
	ex, began := &Exchange{API: "demo", Operation: &Operation{ID: "x"}}, time.Now()
	_ = ex.Conclude(w, r, Identity, Enforce, "main", nil, began) // learns the series
	if n := testing.AllocsPerRun(100, func() {
		ex.decided = 0
		_ = ex.Conclude(w, r, Identity, Enforce, "main", nil, began)
	}); n > 0 {
		t.Errorf("recording a decision allocates %v times, want 0", n)
	}
}

// TestSetBody: who asks again for a body that was replaced gets the new one.
func TestSetBody(t *testing.T) {
	r := request(http.MethodPost, strings.NewReader("json"), nil)
	ex := Of(r)
	if _, err := ex.Body(r, 100); err != nil {
		t.Fatal(err)
	}
	ex.SetBody(r, []byte("message"))
	held, ok := ex.Hold(r, 0)
	read, err := ex.Body(r, 100)
	sent, _ := io.ReadAll(r.Body)
	if !ok || err != nil || string(held) != "message" || string(read) != "message" || string(sent) != "message" || r.ContentLength != 7 {
		t.Errorf("%q %q %q %v", held, read, sent, err)
	}
	ex.SetStream(r, io.NopCloser(strings.NewReader("stream")))
	if held, ok := ex.Hold(r, 100); ok || len(held) > 0 {
		t.Errorf("a stream is held: %q", held)
	}
	if sent, _ := io.ReadAll(r.Body); string(sent) != "stream" {
		t.Errorf("%q", sent)
	}
}

func TestProtocolOf(t *testing.T) {
	for ct, want := range map[string]Protocol{
		"": HTTP, "application/json": HTTP, "application/grpc": GRPC, "application/grpc+proto": GRPC, "application/grpc-web-text": GRPCWeb,
		"application/grpc-web+json": GRPCWeb, "application/connect+proto": ConnectStream,
		"Application/gRPC": GRPC, "APPLICATION/GRPC-Web+proto": GRPCWeb, "application/Connect+proto": ConnectStream, "application/grpcs": HTTP,
	} {
		r := request(http.MethodPost, nil, nil)
		r.Header = http.Header{"Content-Type": {ct}}
		if got := ProtocolOf(r); got != want {
			t.Errorf("%q is %v", ct, got)
		}
	}
	r := request(http.MethodPost, nil, nil)
	r.Header = http.Header{"Content-Type": {"application/json"}, "Connect-Protocol-Version": {"1"}}
	if ProtocolOf(r) != Connect {
		t.Error("Connect is not known by its version")
	}
	r = request(http.MethodGet, nil, nil)
	r.URL.RawQuery = "connect=v1&encoding=json"
	if ProtocolOf(r) != Connect {
		t.Error("Connect is not known by its query")
	}
}

func TestCodes(t *testing.T) {
	for s, want := range map[string]Code{"0": 0, "16": 16, "17": 2, "-1": 2, "x": 2, "": 2, "99999999999": 2} {
		if got := ParseCode(s); got != want {
			t.Errorf("%q is %v", s, got)
		}
	}
	if c := Code(1); c.String() != "CANCELLED" || c.Connect() != "canceled" || c.Status() != 499 {
		t.Errorf("%v %v %v", c, c.Connect(), c.Status())
	}
}

func TestBody(t *testing.T) {
	const text = "0123456789"
	for _, tc := range []struct {
		name   string
		limits []int64 // one stage each
		want   []error
	}{
		{"it just fits", []int64{10}, []error{nil}},
		{"one too many", []int64{9}, []error{ErrBodyTooLarge}},
		{"a later stage may read more", []int64{3, 10, 9}, []error{ErrBodyTooLarge, nil, ErrBodyTooLarge}},
		{"a later stage may read less", []int64{10, 3}, []error{nil, ErrBodyTooLarge}},
	} {
		for _, chunked := range []bool{false, true} {
			t.Run(fmt.Sprint(tc.name, ", chunked ", chunked), func(t *testing.T) {
				r := request(http.MethodPost, strings.NewReader(text), nil)
				if chunked {
					r.ContentLength = -1
				}
				ex := Of(r)
				for i, limit := range tc.limits {
					got, err := ex.Body(r, limit)
					if !errors.Is(err, tc.want[i]) || err == nil && string(got) != text {
						t.Errorf("stage %d: %q, %v; want error %v", i, got, err, tc.want[i])
					}
				}
				if rest, err := io.ReadAll(r.Body); string(rest) != text || err != nil {
					t.Errorf("the upstream gets %q, %v", rest, err)
				}
			})
		}
	}

	r := request(http.MethodPost, strings.NewReader(text), nil)
	r.Header.Set("Content-Encoding", "gzip")
	if _, err := Of(r).Body(r, 100); !errors.Is(err, ErrBodyEncoded) {
		t.Errorf("an encoded body: %v", err)
	}
	broken := request(http.MethodPost, io.MultiReader(strings.NewReader("ab"), errReader{}), nil)
	broken.ContentLength = -1
	ex := Of(broken)
	for range 2 {
		if _, err := ex.Body(broken, 100); err == nil {
			t.Error("a broken body is whole")
		}
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

// FuzzBody checks the promise of Body: whatever the limits of the stages, the
// upstream gets every byte, and a stage gets all of them or none.
func FuzzBody(f *testing.F) {
	f.Add([]byte("hello"), uint16(3), uint16(5), true)
	f.Add([]byte{}, uint16(0), uint16(0), false)
	f.Fuzz(func(t *testing.T, data []byte, a, b uint16, chunked bool) {
		r := request(http.MethodPost, bytes.NewReader(data), nil)
		if chunked {
			r.ContentLength = -1
		}
		ex := Of(r)
		for _, limit := range []uint16{a, b, a} {
			got, err := ex.Body(r, int64(limit))
			if (err == nil) != (len(data) <= int(limit)) || err == nil && !bytes.Equal(got, data) {
				t.Fatalf("limit %d of %d: %d bytes, %v", limit, len(data), len(got), err)
			}
		}
		if rest, err := io.ReadAll(r.Body); err != nil || !bytes.Equal(rest, data) {
			t.Fatalf("the upstream gets %d of %d bytes, %v", len(rest), len(data), err)
		}
	})
}

func BenchmarkOf(b *testing.B) {
	r := request(http.MethodGet, nil, nil)
	vars := r.Context().Value(caddyhttp.VarsCtxKey).(map[string]any)
	vars[caddyhttp.ClientIPVarKey] = "192.0.2.7"
	for range 10 {
		r.Header.Add("X-Header-"+requestID(r, false)[:3], "v")
	}
	b.ReportAllocs()
	for b.Loop() {
		delete(vars, varKey)
		Of(r)
	}
}

func BenchmarkConclude(b *testing.B) {
	w, r := httptest.NewRecorder(), request(http.MethodGet, nil, nil)
	ex, began := &Exchange{API: "demo", Operation: &Operation{ID: "getOrder"}}, time.Now()
	b.ReportAllocs()
	for b.Loop() {
		ex.decided = 0
		_ = ex.Conclude(w, r, Identity, Enforce, "main", nil, began)
	}
}

// TestUpgrades: a handshake for WebSockets is the one wish for another protocol
// that goes on to an upstream.
func TestUpgrades(t *testing.T) {
	for _, c := range []struct{ method, sent, key, kept string }{
		{"GET", "websocket", "k", "websocket"},
		{"GET", "WebSocket", "k", "websocket"},
		{"GET", "websocket, h2c", "k", "websocket"},
		{"GET", " h2c ,websocket", "k", "websocket"},
		{"GET", "websocket", "", ""},
		{"POST", "websocket", "k", ""},
		{"GET", "h2c", "k", ""},
		{"GET", "H2C", "", ""},
		{"GET", "websockets", "k", ""},
		{"GET", "tcp", "k", ""},
		{"POST", "SPDY/3.1", "", ""},
	} {
		r := httptest.NewRequest(c.method, "/", nil)
		r.Header = http.Header{"Upgrade": {c.sent}, "Http2-Settings": {"AAMAAABkAARAAAAAAAIAAAAA"}, "Connection": {"Upgrade, HTTP2-Settings"}}
		if c.key != "" {
			r.Header.Set("Sec-WebSocket-Key", c.key)
		}
		if declineUpgrades(r); r.Header.Get("Upgrade") != c.kept || r.Header["Http2-Settings"] != nil {
			t.Errorf("of %v %v is left", c, r.Header)
		}
	}
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header = http.Header{"Upgrade": {"h2c", "websocket"}, "Sec-Websocket-Key": {"k"}}
	if declineUpgrades(r); len(r.Header["Upgrade"]) != 1 || r.Header.Get("Upgrade") != "websocket" {
		t.Errorf("of two lines %v are left", r.Header)
	}
}

// TestHearsay: what a client says of itself as a proxy would is gone, also behind a
// trusted proxy, unless that is known to set it.
func TestHearsay(t *testing.T) {
	defer Believe([]string{"x-real-ip", "CLIENT-CERT", "X_Real_IP"})()
	const of = "X-Real-Ip Client-Cert"
	const kept = "X-Forwarded-For X-Forwarded-Proto X-Forwarded-Host X-Forwarder Cookie Te Client X-Api-Key From"
	const never = "X_forwarded_for X-Forwarded_For Proxy X-Gatehouse-Tenant " +
		"Forwarded True-Client-Ip Client-Cert-Chain Cf-Connecting-Ip X-Forwarded-Uri X-Forwarded-Client-Cert X-Forwarded-User X-Forwarded-Port"
	for _, trusted := range []bool{false, true} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		for name := range strings.FieldsSeq(of + " " + kept + " " + never) {
			r.Header[name] = []string{"x"}
		}
		strip(r, trusted)
		for names, want := range map[string]bool{of: trusted, kept: true, never: false} {
			for name := range strings.FieldsSeq(names) {
				if _, there := r.Header[name]; there != want {
					t.Errorf("trusted %v: %s is there: %v", trusted, name, there)
				}
			}
		}
	}
}

// TestHops: fields that Connection names are gone before a stage looks, and what
// the connection itself needs stays.
func TestHops(t *testing.T) {
	for _, c := range []struct{ connection, kept, gone string }{
		{"keep-alive", "keep-alive", ""},
		{"Upgrade", "Upgrade", ""},
		{"keep-alive, Upgrade", "keep-alive, Upgrade", ""},
		{"close, X-Tenant", "close", "X-Tenant"},
		{"x-tenant ,\tauthorization", "", "X-Tenant Authorization"},
		{"X-Gatehouse-Subject,,X-Request-Id, TE", "TE", "X-Request-Id"},
		{"Connection", "", ""},
	} {
		h := http.Header{"Connection": {c.connection}, "X-Tenant": {"a"}, "Authorization": {"b"}, "X-Request-Id": {"c"}, "Upgrade": {"websocket"}}
		dropHops(h)
		if got := h.Get("Connection"); got != c.kept {
			t.Errorf("%q: %q is kept", c.connection, got)
		}
		for _, name := range []string{"X-Tenant", "Authorization", "X-Request-Id", "Upgrade"} {
			if _, there := h[name]; there == strings.Contains(" "+c.gone+" ", " "+name+" ") {
				t.Errorf("%q: %s is there: %v", c.connection, name, there)
			}
		}
	}
	h := http.Header{"Connection": {"close", "X-Tenant"}, "X-Tenant": {"a"}}
	if dropHops(h); h.Get("X-Tenant") != "" || len(h["Connection"]) != 1 {
		t.Errorf("of two lines: %v", h)
	}
	h = http.Header{"Connection": {"keep-alive, Upgrade"}}
	if n := testing.AllocsPerRun(100, func() { dropHops(h) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkOperations is a client that walks through a contract's operations.
func BenchmarkOperations(b *testing.B) {
	ids := make([]string, 20_000)
	for i := range ids {
		ids[i] = "op" + strconv.Itoa(i)
	}
	ex, d := &Exchange{API: "walked"}, Decision{Stage: Contract}
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		ex.Operation = &Operation{ID: ids[i%len(ids)]}
		count(ex, &d)
	}
}
