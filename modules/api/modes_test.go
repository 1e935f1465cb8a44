package api

import (
	"testing"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

func TestSplitModeID(t *testing.T) {
	for id, want := range map[string]struct {
		api   string
		stage gate.Stage
	}{"orders.quota": {"orders", gate.Quota}, "shop.v1.2.firewall": {"shop.v1.2", gate.Firewall}} {
		if name, stage, err := splitModeID(id); err != nil || name != want.api || stage != want.stage {
			t.Errorf("%s is %q, %v: %v", id, name, stage, err)
		}
	}
	for _, id := range []string{"", "orders", ".quota", "orders.", "orders.api", "orders.Quota", "orders.quota."} {
		if name, stage, err := splitModeID(id); err == nil {
			t.Errorf("%q was taken for %q, %v", id, name, stage)
		}
	}
}

// TestModesIndex holds that each API gets its own modes and no other's.
func TestModesIndex(t *testing.T) {
	shadow, off := gate.Shadow, gate.Off
	got := modes.Index(map[string]liveMode{"a.quota": {&shadow}, "a.firewall": {&off}, "b.quota": {&off}})
	ex := gate.Exchange{Modes: got["a"]}
	for stage, want := range map[gate.Stage]gate.Mode{gate.Quota: gate.Shadow, gate.Firewall: gate.Off, gate.Identity: gate.Enforce} {
		if m := ex.Mode(stage, gate.Enforce); m != want {
			t.Errorf("%v of a is in %v, want %v", stage, m, want)
		}
	}
	if m := (&gate.Exchange{Modes: got["c"]}).Mode(gate.Quota, gate.Enforce); m != gate.Enforce {
		t.Errorf("an API nobody switched is in %v", m)
	}
}
