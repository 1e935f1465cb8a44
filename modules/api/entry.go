package api

import (
	"net/http"
	"time"

	"go.uber.org/zap/zapcore"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// entry is the one log entry of an Exchange. Its field names are the same
// everywhere in the suite. The query is left out: tokens travel there.
type entry struct {
	h      *Handler
	r      *http.Request
	ex     *gate.Exchange
	status int
	denial *gate.Denial
	took   time.Duration
}

// MarshalLogObject writes the fields without building them first.
func (e *entry) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	ex := e.ex
	enc.AddString("request_id", ex.ID)
	enc.AddString("api", ex.API)
	if ex.Operation != nil {
		enc.AddString("operation", ex.Operation.ID)
	}
	enc.AddString("method", e.r.Method)
	enc.AddString("path", e.r.URL.Path)
	if ex.Client.IsValid() {
		enc.AddString("client_ip", ex.Client.String())
	}
	if ex.Origin.Country != "" {
		enc.AddString("country", ex.Origin.Country)
	}
	if ex.Origin.ASN != 0 {
		enc.AddUint32("asn", ex.Origin.ASN)
	}
	if ex.Origin.Bot != "" {
		enc.AddString("bot", ex.Origin.Bot)
	}
	if p := ex.Principal; p != nil {
		enc.AddString("principal", p.Subject)
		if p.Client != "" {
			enc.AddString("client", p.Client)
		}
		if p.Tenant != "" {
			enc.AddString("tenant", p.Tenant)
		}
	}
	enc.AddInt("status", e.status)
	if e.denial == nil {
		enc.AddString("verdict", gate.Allowed.String())
	} else {
		enc.AddString("verdict", gate.Denied.String())
		enc.AddString("reason", e.denial.Reason.String())
		if e.denial.Err != nil {
			enc.AddString("error", e.denial.Err.Error())
		}
	}
	enc.AddDuration("duration", e.took)
	if n := ex.Dropped(); n > 0 {
		enc.AddInt("decisions_dropped", n)
	}
	return enc.AddArray("stages", stages(ex.Decisions()))
}

type stages []gate.Decision

// MarshalLogArray writes what each stage concluded, in order.
func (s stages) MarshalLogArray(enc zapcore.ArrayEncoder) error {
	for i := range s {
		if err := enc.AppendObject((*stage)(&s[i])); err != nil {
			return err
		}
	}
	return nil
}

type stage gate.Decision

// MarshalLogObject writes one decision; what is usual is left out.
func (s *stage) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddString("stage", s.Stage.String())
	enc.AddString("verdict", s.Verdict.String())
	if s.Reason != gate.None {
		enc.AddString("reason", s.Reason.String())
	}
	if s.Rule != "" {
		enc.AddString("rule", s.Rule)
	}
	if s.Mode != gate.Enforce {
		enc.AddString("mode", s.Mode.String())
	}
	enc.AddInt64("us", s.Took.Microseconds())
	return nil
}
