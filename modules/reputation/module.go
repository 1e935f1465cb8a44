package reputation

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"slices"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/reputation/internal/feed"
)

func init() { caddy.RegisterModule(new(Handler)) }

// Handler looks at where a request comes from.
type Handler struct {
	// Lists, addresses and networks that may always come, whatever else says
	// no. Default: none.
	Allow []string `json:"allow,omitempty"`

	// Lists, addresses and networks that may not come. Default: none.
	Deny []string `json:"deny,omitempty"`

	// The only countries that requests may come from, as ISO 3166-1 codes. An
	// address whose country is not known is in none of them. Default: all.
	AllowCountries []string `json:"allow_countries,omitempty"`

	// Countries that requests may not come from. Default: none.
	DenyCountries []string `json:"deny_countries,omitempty"`

	// Whether refusals are enforced: `enforce`, `shadow` or `off`.
	// Default: `enforce`.
	Mode gate.Mode `json:"mode,omitempty"`

	// What happens while a list in `deny` was never read: `open` or `closed`.
	// Default: `open`.
	OnError *gate.OnError `json:"on_error,omitempty"`

	app         *App
	allow, deny []rule
}

// rule is one list to ask, or the networks that stand in the configuration.
type rule struct {
	name string
	list *source[*feed.Set] // nil: own
	own  *feed.Set
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.gatehouse_reputation",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision finds the lists.
func (h *Handler) Provision(ctx caddy.Context) error {
	if err := gate.RegisterMetrics(ctx, failures, readAt, declared); err != nil {
		return err
	}
	app, err := ctx.App("gatehouse_reputation")
	if err != nil {
		return fmt.Errorf("reputation: %w", err)
	}
	h.app = app.(*App)
	if h.allow, err = h.rules(h.Allow); err != nil {
		return err
	}
	if h.deny, err = h.rules(h.Deny); err != nil {
		return err
	}
	if h.OnError == nil {
		usual := gate.Open
		h.OnError = &usual
	}
	return nil
}

// rules puts all networks that stand here into one set.
func (h *Handler) rules(words []string) (rules []rule, _ error) {
	own := new(feed.Set)
	for _, word := range words {
		if p, err := feed.ParsePrefix(word); err == nil {
			own.Add(p)
			continue
		}
		list := h.app.lists[word]
		if list == nil {
			return nil, fmt.Errorf("reputation: %q is no list that is defined, and neither an address nor a network", word)
		}
		rules = append(rules, rule{name: word, list: list})
	}
	if own.Len() > 0 {
		rules = slices.Insert(rules, 0, rule{name: "networks", own: own})
	}
	return rules, nil
}

// on reports whether addr is on the list; known is false while the list was
// never read.
func (r *rule) on(addr netip.Addr) (yes, known bool) {
	if r.list == nil {
		return r.own.Contains(addr), true
	}
	set, ok := r.list.load()
	return ok && set.Contains(addr), ok
}

var countryCode = regexp.MustCompile(`^[A-Z]{2}$`)

// Validate looks at the countries.
func (h *Handler) Validate() error {
	for _, c := range slices.Concat(h.AllowCountries, h.DenyCountries) {
		if !countryCode.MatchString(c) {
			return fmt.Errorf("reputation: %q is no country code such as DE (ISO 3166-1 alpha-2)", c)
		}
	}
	if len(h.AllowCountries)+len(h.DenyCountries) > 0 && h.app.country == nil {
		return errors.New("reputation: countries are named, but the global option reputation has no country_db")
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddyfile.Unmarshaler       = (*Handler)(nil)
)
