package api

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// observed is an API and a request to it, as it is when the last stage has
// decided.
type observed struct {
	h      *Handler
	r      *http.Request
	tracer trace.Tracer // nil without tracing
}

func observe(tb testing.TB, traced bool) observed {
	tb.Helper()
	enc := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig()) // Caddy's default for a log that is not a terminal
	o := observed{h: &Handler{Name: "orders", Log: "all", decisions: zap.New(zapcore.NewCore(enc, zapcore.AddSync(io.Discard), zap.InfoLevel))}}
	r := httptest.NewRequestWithContext(tb.Context(), http.MethodGet, "/orders?page=2&limit=50", nil)
	r.Header.Set("User-Agent", "Mozilla/5.0 (X11; Linux x86_64)")
	o.r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), httptest.NewRecorder(), nil)
	if traced {
		tp := sdktrace.NewTracerProvider(sdktrace.WithSampler(sdktrace.AlwaysSample()))
		o.tracer = tp.Tracer("test")
	}
	// The test is the writer, so that the log's work is measured with the rest.
	if !writing.CompareAndSwap(false, true) {
		Flush()
		for !writing.CompareAndSwap(false, true) {
			time.Sleep(time.Millisecond)
		}
	}
	size := gate.RecentKept()
	gate.KeepRecent(1000)
	tb.Cleanup(func() { writing.Store(false); gate.KeepRecent(size) })
	return o
}

var (
	shopper   = &gate.Principal{Subject: "user-8f14e45f", Client: "shop", Tenant: "acme", Plan: "free", Issuer: "main", Method: gate.Bearer}
	list      = &gate.Operation{ID: "listOrders", Method: "GET", Path: "/orders"}
	exhausted = &gate.Denial{Reason: gate.QuotaExhausted, Err: errors.New("tenant acme, plan free")}
)

// serve does what the stages and the api tell the world of one Exchange.
func (o observed) serve(d *gate.Denial) {
	now := time.Now()
	ex := &gate.Exchange{ID: "rmtbjkqrxcg6e0g4tc60y04v", API: "orders", Began: now, Client: netip.AddrFrom4([4]byte{192, 0, 2, 1}), Principal: shopper, Operation: list}
	for _, s := range []gate.Stage{gate.Reputation, gate.Guard, gate.Contract, gate.Identity, gate.Require} {
		_ = ex.Decide(s, gate.Enforce, "main", nil, now)
	}
	status := http.StatusOK
	if d != nil {
		status = d.Reason.Status()
		_ = ex.Decide(gate.Quota, gate.Enforce, "free", d, now)
	} else {
		for _, s := range []gate.Stage{gate.Quota, gate.Input, gate.Firewall, gate.Resilience} {
			_ = ex.Decide(s, gate.Enforce, "free", nil, now)
		}
		ex.Close(nil)
	}
	r := o.r
	if o.tracer != nil {
		var span trace.Span
		r, span = o.spanOf()
		defer span.End()
	}
	o.h.report(r, ex, status, d)
	if o.h.Log == "all" {
		(<-queue).write()
	}
}

// TestCostOfSight: log, metrics, trace and record together allocate at most six
// times for a request that passes all stages of the walk.
func TestCostOfSight(t *testing.T) {
	if underRace {
		t.Skip("the race detector allocates")
	}
	for _, c := range []struct {
		name   string
		traced bool
	}{{"without a span", false}, {"with a span", true}} {
		t.Run(c.name, func(t *testing.T) {
			o, bare := observe(t, c.traced), 0.0
			if c.traced {
				bare = testing.AllocsPerRun(2000, o.bareSpan)
			}
			if n := testing.AllocsPerRun(2000, func() { o.serve(nil) }) - bare; n > 6 {
				t.Errorf("%v allocations, want at most 6", n)
			} else {
				t.Logf("%v allocations", n)
			}
		})
	}
}

// BenchmarkSight measures what it costs to be seen: ten decisions of a request
// that passes, each counted and timed, the record, its log entry in JSON and the
// span. A refused one has six decisions.
func BenchmarkSight(b *testing.B) {
	b.Run("a bare span", func(b *testing.B) {
		o := observe(b, true)
		b.ReportAllocs()
		for b.Loop() {
			o.bareSpan()
		}
	})
	for _, c := range []struct {
		name   string
		log    string
		keep   int
		traced bool
		denial *gate.Denial
	}{
		{"metrics", "off", 0, false, nil},
		{"metrics and record", "off", 1000, false, nil},
		{"metrics, record and log", "all", 1000, false, nil},
		{"metrics, record, log and span", "all", 1000, true, nil},
		{"metrics, record, log, refused", "all", 1000, false, exhausted},
		{"metrics, record, log and span, refused", "all", 1000, true, exhausted},
	} {
		b.Run(c.name, func(b *testing.B) {
			o := observe(b, c.traced)
			o.h.Log = c.log
			gate.KeepRecent(c.keep)
			b.ReportAllocs()
			for b.Loop() {
				o.serve(c.denial)
			}
		})
	}
}

// spanOf is a recording span; what Caddy's own tracing costs is not ours.
func (o observed) spanOf() (*http.Request, trace.Span) {
	ctx, span := o.tracer.Start(o.r.Context(), "orders")
	return o.r.WithContext(ctx), span
}

func (o observed) bareSpan() {
	_, span := o.spanOf()
	span.End()
}
