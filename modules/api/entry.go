package api

import (
	"go.uber.org/zap/zapcore"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// entry is the one log entry of an Exchange. Its field names are the same
// everywhere in the suite. The query is left out: tokens travel there.
type entry gate.Record

// MarshalLogObject writes the fields without building them first.
func (e *entry) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	text := func(name, value string) {
		if value != "" {
			enc.AddString(name, value)
		}
	}
	enc.AddString("request_id", e.ID)
	enc.AddString("api", e.API)
	text("operation", e.Operation)
	enc.AddString("method", e.Method)
	enc.AddString("path", e.Path)
	if e.Client.IsValid() {
		enc.AddString("client_ip", e.Client.String())
	}
	text("country", e.Origin.Country)
	if e.Origin.ASN != 0 {
		enc.AddUint32("asn", e.Origin.ASN)
	}
	text("bot", e.Origin.Bot)
	if e.Principal.Method != 0 {
		enc.AddString("principal", e.Principal.Subject)
		text("client", e.Principal.Client)
		text("tenant", e.Principal.Tenant)
	}
	enc.AddInt("status", e.Status)
	if e.Reason == gate.None {
		enc.AddString("verdict", gate.Allowed.String())
	} else {
		enc.AddString("verdict", gate.Denied.String())
		enc.AddString("reason", e.Reason.String())
		text("error", e.Err)
	}
	enc.AddDuration("duration", e.Took)
	text("trace_id", e.TraceID)
	if e.Dropped > 0 {
		enc.AddInt("decisions_dropped", e.Dropped)
	}
	return enc.AddArray("stages", (*stages)(&e.Decisions))
}

type stages []gate.Decision

// MarshalLogArray writes what each stage concluded, in order.
func (s *stages) MarshalLogArray(enc zapcore.ArrayEncoder) error {
	for i := range *s {
		if err := enc.AppendObject((*stage)(&(*s)[i])); err != nil {
			return err
		}
	}
	return nil
}

type stage gate.Decision

// MarshalLogObject writes one decision. What is usual is left out: a stage that
// says nothing else has let the request pass.
func (s *stage) MarshalLogObject(enc zapcore.ObjectEncoder) error {
	enc.AddString("stage", s.Stage.String())
	if s.Verdict != gate.Allowed {
		enc.AddString("verdict", s.Verdict.String())
	}
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
