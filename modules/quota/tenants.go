package quota

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/gatehouse-caddy/gatehouse/modules/registry"
)

// tenant is a live object of the kind tenants: what a tenant may have, whatever
// plan its principals carry. It counts wherever a quota goes by plan.
type tenant struct {
	// The plan of the tenant.
	Plan string `json:"plan,omitempty"`

	// A rate of its own, which goes before any plan.
	Rate *Rate `json:"rate,omitempty"`

	override *plan
}

var tenants = registry.NewKind(registry.Kind[tenant, map[string]tenant]{
	Name: "tenants",
	Read: func(_ string, value json.RawMessage) (t tenant, err error) {
		if err = registry.Strict(value, &t); err != nil {
			return t, err
		}
		if t.Plan == "" && t.Rate == nil {
			return t, errors.New("a tenant needs a plan or a rate")
		}
		if t.Rate != nil {
			if t.override, err = t.Rate.ready("override"); err != nil {
				return t, fmt.Errorf("rate: %w", err)
			}
		}
		return t, nil
	},
	Admit: func(_ string, t tenant) error {
		app, err := caddy.ActiveContext().AppIfConfigured("gatehouse_quota")
		if err != nil {
			return errors.New("the running configuration has no quota")
		}
		if t.Plan != "" && app.(*App).plans[t.Plan] == nil {
			return fmt.Errorf("plan %q is not defined; expected %s", t.Plan, strings.Join(slices.Sorted(maps.Keys(app.(*App).plans)), ", "))
		}
		return nil
	},
	Index: func(all map[string]tenant) map[string]tenant { return all },
})

// of is what was set for the tenant of a principal while the gateway runs.
func (a *App) of(name string) *plan {
	t, ok := a.tenants.Load()[name]
	switch {
	case !ok:
		return nil
	case t.override != nil:
		return t.override
	}
	return a.plans[t.Plan]
}
