package quota

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

func init() { caddy.RegisterModule(new(Handler)) }

// Handler limits how many requests one caller may make.
type Handler struct {
	// What keeps this quota's counters apart from others': two of the same
	// name, `per` and rate share them. The api directive gives its own name.
	// Default: empty.
	Name string `json:"name,omitempty"`

	// What a caller is counted by: `tenant`, `client`, `subject`, `key`,
	// `address`, or a placeholder. Who has none of it is counted by address.
	// Required.
	Per string `json:"per,omitempty"`

	// The rate for every caller. Default: the plan of the principal.
	Rate *Rate `json:"rate,omitempty"`

	// Whether refusals are enforced: `enforce`, `shadow` or `off`.
	// Default: `enforce`.
	Mode gate.Mode `json:"mode,omitempty"`

	// Tightens the limit of a caller who sends far more than it usually does.
	// Default: none.
	Habit *Habit `json:"habit,omitempty"`

	app  *App
	rate *plan // nil: the principal's
	who  func(*gate.Exchange) string
	zone string // what keeps this quota's callers apart from others'
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.gatehouse_quota",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision finds the plans and the table.
func (h *Handler) Provision(ctx caddy.Context) error {
	if h.Per == "" {
		return errors.New("quota: per is required")
	}
	app, err := ctx.App("gatehouse_quota")
	if err != nil {
		return fmt.Errorf("quota: %w", err)
	}
	h.app = app.(*App)
	h.zone = h.Name + "|" + h.Per
	if h.Rate != nil {
		if h.rate, err = h.Rate.ready("rate"); err != nil {
			return fmt.Errorf("quota: %w", err)
		}
		// Two rates for the same callers are two counters. Plans share one, so
		// that nobody starts afresh by changing theirs.
		h.zone += fmt.Sprintf("|%d/%v", h.Rate.Events, time.Duration(h.Rate.Window))
	} else if h.app.fallback == nil {
		return errors.New("quota: neither a rate is given nor any plan defined")
	}
	if h.Habit != nil {
		if err := h.Habit.ready(); err != nil {
			return fmt.Errorf("quota: %w", err)
		}
	}
	if h.who = attributes[h.Per]; h.who == nil && !strings.Contains(h.Per, "{") {
		return fmt.Errorf("quota: unrecognized per %q; expected %s or a placeholder", h.Per, strings.Join(attributeNames, ", "))
	}
	return nil
}

// perTenant counts a tenant once, whoever issued its callers' credentials.
const perTenant = "tenant"

// attributes are what a principal may be counted by.
var attributes = map[string]func(*gate.Exchange) string{
	perTenant: func(ex *gate.Exchange) string { return ex.Principal.Tenant },
	"client":  func(ex *gate.Exchange) string { return ex.Principal.Client },
	"subject": func(ex *gate.Exchange) string { return ex.Principal.Subject },
	"key": func(ex *gate.Exchange) string {
		if ex.Principal.Method != gate.APIKey {
			return ""
		}
		return ex.Principal.Client
	},
	"address": func(*gate.Exchange) string { return "" },
}

var attributeNames = []string{"tenant", "client", "subject", "key", "address"}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddyfile.Unmarshaler       = (*Handler)(nil)
)
