package gate_test

import (
	"testing"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/gate/rehearsal"
)

func TestHeldTime(t *testing.T) {
	if gate.Skip(time.Hour) {
		t.Error("real time was skipped")
	}
	if d := time.Since(gate.Now()); d < 0 || d > time.Minute {
		t.Errorf("the time is off by %v", d)
	}
	t.Cleanup(rehearsal.Release)
	noon := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	rehearsal.Hold(noon)
	if !gate.Now().Equal(noon) {
		t.Errorf("now is %v", gate.Now())
	}
	rehearsal.Advance(time.Minute)
	if !gate.Skip(time.Second) || gate.Since(noon) != 61*time.Second {
		t.Errorf("%v went by, want 61s", gate.Since(noon))
	}
}

func BenchmarkNow(b *testing.B) {
	b.Run("time", func(b *testing.B) {
		for b.Loop() {
			_ = time.Now()
		}
	})
	b.Run("gate", func(b *testing.B) {
		for b.Loop() {
			_ = gate.Now()
		}
	})
}
