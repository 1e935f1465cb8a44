package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/registry"
)

// liveMode is a live object of the kind modes. Its id is the name of an API, a
// dot and the name of a stage: orders.quota.
type liveMode struct {
	// The mode that takes the place of the configured one. Required.
	Mode *gate.Mode `json:"mode"`
}

var modes = registry.NewKind(registry.Kind[liveMode, map[string]gate.LiveModes]{
	Name: "modes",
	Read: func(id string, value json.RawMessage) (m liveMode, err error) {
		if err = registry.Strict(value, &m); err == nil && m.Mode == nil {
			err = errors.New("mode is required: enforce, shadow or off")
		}
		if _, _, idErr := splitModeID(id); err == nil {
			err = idErr
		}
		return m, err
	},
	Admit: func(id string, _ liveMode) error {
		name, _, _ := splitModeID(id)
		if _, ok := running.References(name); !ok {
			return fmt.Errorf("no API %q is running", name)
		}
		return nil
	},
	Index: func(all map[string]liveMode) map[string]gate.LiveModes {
		byAPI := map[string]gate.LiveModes{}
		for id, m := range all {
			name, stage, _ := splitModeID(id)
			if byAPI[name] == nil {
				byAPI[name] = gate.LiveModes{}
			}
			byAPI[name][stage] = *m.Mode
		}
		return byAPI
	},
})

// splitModeID takes an id apart at its last dot, since names may have dots.
func splitModeID(id string) (api string, _ gate.Stage, _ error) {
	dot := strings.LastIndexByte(id, '.')
	if dot < 1 {
		return "", 0, fmt.Errorf("the id %q is not <api>.<stage>", id)
	}
	stage, ok := gate.StageOf(id[dot+1:])
	if !ok || stage == gate.API {
		return "", 0, fmt.Errorf("%q is no stage that has a mode", id[dot+1:])
	}
	return id[:dot], stage, nil
}

// running counts the handlers of each API, so that a mode for a misspelt one
// is refused.
var running = caddy.NewUsagePool()
