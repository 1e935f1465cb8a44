package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"

	"github.com/gatehouse-caddy/gatehouse/modules/cli"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/registry"
)

func init() { cli.Add(modeCommand) }

func modeCommand() *cobra.Command {
	return registry.Setting{
		Use:   "mode",
		Short: "Switches stages of APIs between enforce, shadow and off",
		Long:  "Switches stages of the running gateway's APIs between enforce, shadow and off, without a reload, until they are reset.",
		Kind:  "modes", ID: "<api>.<stage>", Words: "enforce|shadow|off",
		Value: func(words []string) (any, error) {
			if len(words) > 1 {
				return nil, fmt.Errorf("one mode is enough: %s", strings.Join(words, " "))
			}
			var m gate.Mode
			return liveMode{&m}, m.UnmarshalText([]byte(words[0]))
		},
		Columns: []string{"MODE"},
		Row: func(value json.RawMessage) ([]string, error) {
			var m struct{ Mode gate.Mode }
			err := json.Unmarshal(value, &m)
			return []string{m.Mode.String()}, err
		},
	}.Command()
}

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
			return fmt.Errorf("no API %q is running; expected %s", name, strings.Join(runningNames(), ", "))
		}
		return nil
	},
	Warn: func(id string, m liveMode) []string {
		name, stage, _ := splitModeID(id)
		if stage != gate.Identity && stage != gate.Require || *m.Mode == gate.Enforce {
			return nil
		}
		return []string{fmt.Sprintf("with %s in mode %s, %s lets in whom it refuses otherwise, until the mode is reset", stage, *m.Mode, name)}
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
		var stages []string
		for s := range gate.Stages() {
			if s := gate.Stage(s); s != gate.API {
				stages = append(stages, s.String())
			}
		}
		return "", 0, fmt.Errorf("%q is no stage that has a mode; expected %s", id[dot+1:], strings.Join(stages, ", "))
	}
	return id[:dot], stage, nil
}

// running counts the handlers of each API, so that a mode for a misspelt one
// is refused.
var running = caddy.NewUsagePool()

func runningNames() (names []string) {
	running.Range(func(name, _ any) bool {
		names = append(names, name.(string))
		return true
	})
	slices.Sort(names)
	return names
}
