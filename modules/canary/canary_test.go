package canary

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"
	"github.com/caddyserver/certmagic"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse-caddy/gatehouse/modules/canary/internal/release"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// provisioned is a handler as a running configuration has it.
func provisioned(tb testing.TB, settings string) *Handler {
	tb.Helper()
	config := new(caddy.Config)
	if err := json.Unmarshal(fmt.Appendf(nil, `{"admin":{"disabled":true},"storage":{"module":"file_system","root":%q}}`, tb.TempDir()), config); err != nil {
		tb.Fatal(err)
	}
	ctx, err := caddy.ProvisionContext(config)
	if err != nil {
		tb.Fatal(err)
	}
	m, err := ctx.LoadModuleByID("http.handlers.gatehouse_canary", fmt.Appendf(nil, `{"name":"orders","release":"next","routes":[{"handle":[{"handler":"static_response"}]}],%s}`, settings))
	if err != nil {
		tb.Fatal(err)
	}
	h := m.(*Handler)
	tb.Cleanup(func() {
		if err := errors.Join(h.Cleanup(), h.Cleanup()); err != nil { // the second finds nothing to give back
			tb.Error(err)
		}
	})
	return h
}

// request is one as Caddy's server hands it to handlers.
func request(ctx context.Context, body io.Reader) *http.Request {
	r := httptest.NewRequestWithContext(ctx, http.MethodPost, "http://a.test/", body)
	return caddyhttp.PrepareRequest(r, caddy.NewReplacer(), httptest.NewRecorder(), new(caddyhttp.Server))
}

// TestOutcomes: what counts as a failure, when it is known, and for whom.
func TestOutcomes(t *testing.T) {
	const ok, failed, left = "ok", "failed", "left"
	grpc := func(w http.ResponseWriter, header, trailer string) error {
		w.Header().Set("Content-Type", "application/grpc+proto")
		if header != "" {
			w.Header().Set("Grpc-Status", header)
		}
		w.WriteHeader(200)
		_, err := w.Write([]byte("data"))
		if trailer != "" {
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", trailer)
		}
		return err
	}
	for name, c := range map[string]struct {
		answer func(http.ResponseWriter, *http.Request) error
		want   string
	}{
		"200":              {func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(200); return nil }, ok},
		"nothing at all":   {func(http.ResponseWriter, *http.Request) error { return nil }, ok},
		"404":              {func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(404); return nil }, ok},
		"a hint, then 200": {func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(103); w.WriteHeader(200); return nil }, ok},
		"a hint, then 500": {func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(103); w.WriteHeader(500); return nil }, failed},
		"500":              {func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(500); return nil }, failed},
		"a refusal": {func(http.ResponseWriter, *http.Request) error {
			return gate.Deny(&gate.Denial{Reason: gate.APIUnmatched})
		}, ok},
		"a time-out": {func(http.ResponseWriter, *http.Request) error {
			return gate.Deny(&gate.Denial{Reason: gate.ResilienceTimeout})
		}, failed},
		"Caddy's own error, 502": {func(http.ResponseWriter, *http.Request) error { return caddyhttp.Error(502, errors.New("no")) }, failed},
		"Caddy's own error, 403": {func(http.ResponseWriter, *http.Request) error { return caddyhttp.Error(403, errors.New("no")) }, ok},
		"any other error":        {func(http.ResponseWriter, *http.Request) error { return errors.New("no") }, failed},
		"a panic":                {func(http.ResponseWriter, *http.Request) error { panic("no") }, failed},
		"an answer that breaks": {func(w http.ResponseWriter, _ *http.Request) error {
			_, _ = w.Write([]byte("x"))
			panic(http.ErrAbortHandler)
		}, failed},
		"an error after an answer": {func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(200); return errors.New("no") }, failed},
		"a flush first":            {func(w http.ResponseWriter, _ *http.Request) error { return http.NewResponseController(w).Flush() }, ok},
		"a copy": {func(w http.ResponseWriter, _ *http.Request) error {
			_, err := w.(io.ReaderFrom).ReadFrom(strings.NewReader("x"))
			return err
		}, ok},
		"gRPC, fine":                   {func(w http.ResponseWriter, _ *http.Request) error { return grpc(w, "", "0") }, ok},
		"gRPC, not found":              {func(w http.ResponseWriter, _ *http.Request) error { return grpc(w, "", "5") }, ok},
		"gRPC, unavailable":            {func(w http.ResponseWriter, _ *http.Request) error { return grpc(w, "14", "") }, failed},
		"gRPC, internal, in a trailer": {func(w http.ResponseWriter, _ *http.Request) error { return grpc(w, "", "13") }, failed},
		"the client leaves": {func(_ http.ResponseWriter, r *http.Request) error {
			r.Context().Value(leave{}).(context.CancelFunc)()
			return caddyhttp.Error(502, r.Context().Err())
		}, left},
		"the client leaves a stream": {func(w http.ResponseWriter, r *http.Request) error {
			w.WriteHeader(200)
			r.Context().Value(leave{}).(context.CancelFunc)()
			panic(http.ErrAbortHandler)
		}, ok},
	} {
		t.Run(name, func(t *testing.T) {
			for _, side := range []string{"next", "stable"} {
				weight := map[string]string{"next": "100", "stable": "0.000001"}[side]
				h := provisioned(t, `"weight":`+weight)
				h.chain = caddyhttp.HandlerFunc(c.answer)
				before := counts(t)
				func() {
					defer func() { _ = recover() }()
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					_ = h.ServeHTTP(httptest.NewRecorder(), request(context.WithValue(ctx, leave{}, cancel), nil), h.chain)
				}()
				for series, n := range counts(t) {
					want := 0.0
					if series == side+" "+c.want {
						want = 1
					}
					if n-before[series] != want {
						t.Errorf("%s: %s was counted %v times", side, series, n-before[series])
					}
				}
			}
		})
	}
}

type leave struct{}

// counts reads the counters of requests.
func counts(t *testing.T) map[string]float64 {
	t.Helper()
	all := map[string]float64{}
	reg := prometheus.NewRegistry()
	reg.MustRegister(requests)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range families[0].GetMetric() {
		labels := map[string]string{}
		for _, l := range m.GetLabel() {
			labels[l.GetName()] = l.GetValue()
		}
		all[labels["release"]+" "+labels["outcome"]] = m.GetCounter().GetValue()
	}
	return all
}

// TestStreamsCountAtOnce: a result is known with the header, so that a canary
// is judged while its streams last.
func TestStreamsCountAtOnce(t *testing.T) {
	h := provisioned(t, `"weight":50,"rollback":{"samples":10}`)
	hold := make(chan struct{})
	begun := make(chan struct{}, 100)
	done := make(chan struct{}, 100)
	for i := range 60 {
		r := request(t.Context(), nil)
		ex := gate.Of(r)
		ex.API, ex.Principal = "orders", &gate.Principal{Subject: strconv.Itoa(i), Issuer: "a"}
		h.chain = caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
			w.WriteHeader(503)
			begun <- struct{}{}
			<-hold
			return nil
		})
		go func() {
			_ = h.ServeHTTP(httptest.NewRecorder(), r, caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error {
				w.WriteHeader(200)
				begun <- struct{}{}
				<-hold
				return nil
			}))
			done <- struct{}{}
		}()
		<-begun
	}
	if w := h.effective(h.live.Load()[h.id]); w != 0 {
		t.Errorf("while all responses last, the weight is %v", w)
	}
	close(hold)
	for range 60 {
		<-done
	}
	settled(t, h)
}

// settled waits until a rollback is stored.
func settled(t *testing.T, h *Handler) {
	t.Helper()
	for range 200 {
		if o := h.live.Load()[h.id]; o != nil && o.RolledBack != nil {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("no rollback was stored")
}

// TestUploads: the time in which the client is waited for is not the release's.
func TestUploads(t *testing.T) {
	h := provisioned(t, `"weight":100`)
	h.chain = caddyhttp.HandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		body, err := io.ReadAll(r.Body)
		if err != nil || string(body) != "slow" {
			t.Errorf("the body arrives as %q: %v", body, err)
		}
		a := w.(*answer)
		if waited := a.upload.waited(time.Now()); waited < 50*time.Millisecond || time.Since(a.began)-waited > 40*time.Millisecond {
			t.Errorf("of %v, %v were waited", time.Since(a.began), waited)
		}
		return nil
	})
	body, pipe := io.Pipe()
	go func() {
		time.Sleep(60 * time.Millisecond)
		_, _ = io.WriteString(pipe, "slow")
		_ = pipe.Close()
	}()
	if err := h.ServeHTTP(httptest.NewRecorder(), request(t.Context(), body), nil); err != nil {
		t.Fatal(err)
	}
	// A read that goes on counts as well.
	u := upload{ReadCloser: io.NopCloser(strings.NewReader("")), began: time.Now().Add(-time.Second)}
	u.since.Store(int64(600 * time.Millisecond))
	if waited := u.waited(time.Now()); waited < 350*time.Millisecond {
		t.Errorf("waited for %v", waited)
	}
}

// TestStop: a rollback holds on this node while it cannot be stored, is tried
// again, and yields to an operator who comes in between.
func TestStop(t *testing.T) {
	h := provisioned(t, `"weight":50`)
	now := time.Now()
	writer := h.writer
	journal := filepath.Join(h.ctx.Storage().(*certmagic.FileStorage).Path, "gatehouse", "registry", "journal.json")
	if err := os.MkdirAll(filepath.Dir(journal), 0o700); err != nil {
		t.Fatal(err)
	}
	kept := []byte(`{"revision":0}`)
	away := func(away bool) { // nothing can be changed while the journal is broken
		t.Helper()
		text := kept
		if away {
			kept, _ = os.ReadFile(journal)
			text = []byte("{")
		}
		if err := os.WriteFile(journal, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	away(false)
	away(true)
	fail := func() {
		t.Helper()
		for i := range 400 {
			side, o := release.Stable, release.Fine
			if i%4 == 0 {
				side, o = release.Canary, release.Failed
			}
			h.watch.Add(side, release.Point(i).Mix(), o, time.Millisecond, now)
		}
		h.judge(gate.Of(request(t.Context(), nil)), now)
	}
	fail()
	if h.weight(now) != 0 || h.state.stopped.Load() == nil {
		t.Fatal("it is not stopped")
	}
	time.Sleep(50 * time.Millisecond)
	if o := h.live.Load()[h.id]; o != nil {
		t.Fatalf("%s was stored", o.text)
	}
	away(false)
	if h.weight(now.Add(time.Second)); h.state.stopped.Load().next.Load() != now.Add(storeEvery).UnixNano() {
		t.Error("it is tried again at once")
	}
	if w := h.weight(now.Add(storeEvery)); w != 0 {
		t.Errorf("weight %v", w)
	}
	settled(t, h)
	if w := h.weight(now); w != 0 || h.state.stopped.Load() != nil {
		t.Errorf("stored, the weight is %v, and %v", w, h.state.stopped.Load())
	}
	set := func(text string) {
		t.Helper()
		if err := writer.Change(t.Context(), h.id, "an operator", func(json.RawMessage) (json.RawMessage, error) { return json.RawMessage(text), nil }); err != nil {
			t.Fatal(err)
		}
	}
	set(`{"weight": 20}`)
	if w := h.weight(now); w != 20 {
		t.Errorf("resumed with 20, the weight is %v", w)
	}
	// An operator who sets a weight before a rollback can be stored has the
	// last word.
	away(true)
	fail()
	held := h.state.stopped.Load()
	if held == nil || h.weight(now) != 0 {
		t.Fatal("it is not stopped again")
	}
	time.Sleep(50 * time.Millisecond)
	away(false)
	set(`{"weight":30}`)
	h.store(held, now.Add(time.Hour))
	time.Sleep(50 * time.Millisecond)
	if w := h.weight(now); w != 30 || h.state.stopped.Load() != nil {
		t.Errorf("the weight is %v, and %v", w, h.state.stopped.Load())
	}
	// What cannot be read had no effect, and is replaced.
	if !(&stop{}).replaces(json.RawMessage(`{"wight":3}`)) || (&stop{before: &override{text: "x"}}).replaces(nil) {
		t.Error("a rollback replaces the wrong thing")
	}
}

// TestWholeBody: a body that a stage has read is not waited for.
func TestWholeBody(t *testing.T) {
	r := request(t.Context(), strings.NewReader("read"))
	ex := gate.Of(r)
	if _, err := ex.Body(r, 100); err != nil {
		t.Fatal(err)
	}
	a := answerOf(httptest.NewRecorder(), r, ex, 0, time.Now())
	if r.Body == &a.upload {
		t.Error("it is wrapped")
	}
	if again := answerOf(a, r, ex, 0, time.Now()); again != a {
		t.Error("a second canary watches anew")
	}
}

// TestCounted: one customer's networks of IPv6 stay each by itself, and count
// as one caller.
func TestCounted(t *testing.T) {
	of := func(addr string, p *gate.Principal) (stays, counts release.Point) {
		ex := &gate.Exchange{Client: netip.MustParseAddr(addr), Principal: p}
		stays = caller(ex)
		return stays, counted(ex, stays)
	}
	a, one := of("2001:db8:1:1::1", nil)
	b, two := of("2001:db8:1:2::1", nil)
	_, three := of("2001:db8:2:1::1", nil)
	if a == b || one != two || one == three {
		t.Errorf("they stay by %d and %d, and count as %d, %d and, elsewhere, %d", a, b, one, two, three)
	}
	ann := &gate.Principal{Subject: "ann", Issuer: "main"}
	a, one = of("2001:db8:1:1::1", ann)
	b, two = of("192.0.2.1", ann)
	if a != b || one != two || a != one {
		t.Error("a principal is not the same caller everywhere")
	}
	if a, one = of("192.0.2.1", nil); a != one {
		t.Error("an address stays by one point and counts by another")
	}
}

// TestPrice: what a canary adds to a request that the stable release answers.
func TestPrice(t *testing.T) {
	h := provisioned(t, `"weight":5`)
	next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(200); return nil })
	w := quiet{http.Header{}}
	r := request(t.Context(), nil)
	ex := gate.Of(r)
	ex.API, ex.Principal = "orders", &gate.Principal{Subject: "ann", Issuer: "main"}
	if n := testing.AllocsPerRun(1000, func() {
		ex.Release = gate.Release{}
		_ = h.ServeHTTP(w, r, next)
	}); n > 1 {
		t.Errorf("a request that passes allocates %v times, want the wrapper alone", n)
	}
}

// quiet is a response writer without a cost.
type quiet struct{ header http.Header }

func (q quiet) Header() http.Header       { return q.header }
func (quiet) Write(b []byte) (int, error) { return len(b), nil }
func (quiet) WriteHeader(int)             {}

func BenchmarkPass(b *testing.B) {
	next := caddyhttp.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) error { w.WriteHeader(200); return nil })
	for name, c := range map[string]struct {
		settings  string
		principal *gate.Principal
		cookie    string
	}{
		"principal": {`"weight":5`, &gate.Principal{Subject: "ann", Issuer: "main"}, ""},
		"address":   {`"weight":5`, nil, ""},
		"cookie":    {`"weight":5,"sticky":"cookie"`, nil, "a=b; gatehouse_canary=0123456789abcdefghjkmnpqrs"},
		"weight-0":  {`"weight":0`, nil, ""},
	} {
		b.Run(name, func(b *testing.B) {
			h := provisioned(b, c.settings)
			r := request(b.Context(), nil)
			if c.cookie != "" {
				r.Header.Set("Cookie", c.cookie)
			}
			ex := gate.Of(r)
			ex.API, ex.Principal = "orders", c.principal
			var w http.ResponseWriter = quiet{http.Header{}}
			b.ReportAllocs()
			for b.Loop() {
				ex.Release = gate.Release{}
				_ = h.ServeHTTP(w, r, next)
			}
		})
	}
}
