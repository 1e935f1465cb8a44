package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
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
		if w := useless(name, stage); w != nil || stage != gate.Identity && stage != gate.Require || *m.Mode == gate.Enforce {
			return w
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
// is refused. Its values are *standing.
var running = caddy.NewUsagePool()

// standing has a bit for each stage that stands in a running API, or has since
// another of its name began.
type standing struct{ atomic.Uint32 }

func (s *standing) add(routes caddyhttp.RouteList) {
	var d gate.Description
	gate.Visit(routes, func(m caddyhttp.MiddlewareHandler) {
		if of, ok := m.(gate.Describer); ok {
			of.Describe(&d)
		}
		if proxy, ok := m.(*reverseproxy.Handler); ok {
			if of, ok := proxy.Transport.(gate.Describer); ok {
				of.Describe(&d)
			}
		}
	})
	s.Or(d.Standing)
}

// useless says that a mode is of a stage that is not known to be there.
func useless(name string, stage gate.Stage) []string {
	var found *standing
	running.Range(func(key, value any) bool {
		if key == name {
			found = value.(*standing)
		}
		return found == nil
	})
	if found == nil || found.Load()&(1<<stage) != 0 {
		return nil
	}
	return []string{fmt.Sprintf("no %s stands in %s: this is stored, and has no effect; one that stands in front of an api keeps its configured mode", stage, name)}
}

func runningNames() (names []string) {
	running.Range(func(name, _ any) bool {
		names = append(names, name.(string))
		return true
	})
	slices.Sort(names)
	return names
}
