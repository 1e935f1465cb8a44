package api

import (
	"net/http"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// What the span of Caddy's `tracing` is told. Who asked is personal and stays
// in the log; the tenant is a customer of ours and is what traces are searched
// by. Names that OpenTelemetry's conventions have are used as they say.
const (
	keyAPI       = attribute.Key("gatehouse.api")
	keyRequestID = attribute.Key("gatehouse.request_id")
	keyOperation = attribute.Key("gatehouse.operation")
	keyTenant    = attribute.Key("gatehouse.tenant")
	keyCut       = attribute.Key("gatehouse.decisions_dropped")
	keyStage     = attribute.Key("gatehouse.stage")
	keyVerdict   = attribute.Key("gatehouse.verdict")
	keyReason    = attribute.Key("gatehouse.reason")
	keyRule      = attribute.Key("gatehouse.rule")
	keyMode      = attribute.Key("gatehouse.mode")
	keyTook      = attribute.Key("gatehouse.duration_us")
	keyRoute     = attribute.Key("http.route")
	keyError     = attribute.Key("error.type")
)

// spent are the names under which a span says how long each stage took.
var spent [32]attribute.Key

func init() {
	for i := range spent[:gate.Stages()] {
		spent[i] = attribute.Key("gatehouse.stage." + gate.Stage(i).String() + ".duration_us")
	}
}

// annotate tells a span how the Exchange ended. A stage's time is an
// attribute if it took any; an event says what is out of the ordinary: a stage that denied,
// would have, or could not decide. An event for each stage that let the request
// pass would cost more than all stages together, and say no more.
func annotate(span trace.Span, ex *gate.Exchange, status int, d *gate.Denial) {
	decisions, n := ex.Decisions(), 9
	for i := range decisions {
		if decisions[i].Took >= time.Microsecond {
			n++
		}
	}
	attrs := make([]attribute.KeyValue, 0, n)
	attrs = append(attrs, keyAPI.String(ex.API), keyRequestID.String(ex.ID))
	if op := ex.Operation; op != nil {
		attrs = append(attrs, keyOperation.String(op.ID))
		if op.Path != "" {
			attrs = append(attrs, keyRoute.String(op.Path))
		}
	}
	if p := ex.Principal; p != nil && p.Tenant != "" {
		attrs = append(attrs, keyTenant.String(p.Tenant))
	}
	if cut := ex.Dropped(); cut > 0 {
		attrs = append(attrs, keyCut.Int(cut))
	}
	verdict := gate.Allowed
	if d != nil {
		verdict = gate.Denied
		attrs = append(attrs, keyReason.String(d.Reason.String()))
		if status >= http.StatusInternalServerError {
			attrs = append(attrs, keyError.String(d.Reason.String()))
			span.SetStatus(codes.Error, d.Reason.Title())
		}
	}
	attrs = append(attrs, keyVerdict.String(verdict.String()))
	for i := range decisions {
		dec := &decisions[i]
		if us := dec.Took.Microseconds(); us > 0 {
			attrs = append(attrs, spent[dec.Stage].Int64(us))
		}
		if dec.Verdict != gate.Allowed {
			event(span, ex.Began, dec)
		}
	}
	span.SetAttributes(attrs...)
}

func event(span trace.Span, began time.Time, d *gate.Decision) {
	attrs := make([]attribute.KeyValue, 0, 6)
	attrs = append(attrs, keyStage.String(d.Stage.String()), keyVerdict.String(d.Verdict.String()),
		keyReason.String(d.Reason.String()), keyMode.String(d.Mode.String()), keyTook.Int64(d.Took.Microseconds()))
	if d.Rule != "" {
		attrs = append(attrs, keyRule.String(d.Rule))
	}
	span.AddEvent("gatehouse.decision", trace.WithTimestamp(began.Add(d.At+d.Took)), trace.WithAttributes(attrs...))
}
