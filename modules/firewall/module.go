package firewall

import (
	"errors"
	"fmt"
	"os"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/firewall/internal/waf"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

func init() { caddy.RegisterModule(new(Handler)) }

// Handler refuses requests that look like attacks.
type Handler struct {
	// The paranoia level of the Core Rule Set, 1 to 4: a higher one finds more
	// and refuses more that is harmless. Default: 1.
	Paranoia int `json:"paranoia,omitempty"`

	// The anomaly score at which a request is refused. A critical rule counts
	// 5. Default: 5.
	Threshold int `json:"threshold,omitempty"`

	// Files of more rules in SecLang, which come after the Core Rule Set.
	Rules []string `json:"rules,omitempty"`

	// What the files of rules held when a Caddyfile was adapted, so that a reload sees a
	// change of them alone. Nothing else looks at it. Default: empty.
	Digest string `json:"digest,omitempty"`

	// Numbers of rules that are left out.
	Exclude []int `json:"exclude,omitempty"`

	// How many bytes of a body are inspected. Default: 131072.
	MaxBody int64 `json:"max_body,omitempty"`

	// What happens to a body that is larger, of a type that is inspected:
	// `refuse` or `pass`, which inspects everything but the body.
	// Default: `refuse`.
	Oversize string `json:"oversize,omitempty"`

	// How many arguments (query, form and JSON members) a request may have.
	// Default: 1000.
	Arguments int `json:"arguments,omitempty"`

	// Whether refusals are enforced: `enforce`, `shadow` or `off`.
	// Default: `enforce`.
	Mode gate.Mode `json:"mode,omitempty"`

	// Whether a request passes that could not be inspected because the engine
	// failed: `closed` or `open`. Default: `closed`.
	OnError gate.OnError `json:"on_error,omitempty"`

	waf    inspector
	logger *zap.Logger
	key    string // of the compiled rules that Cleanup gives back
}

// inspector is the engine as the handler sees it.
type inspector interface {
	Inspect(*waf.Request) (waf.Verdict, error)
}

// compiled shares rules over handlers, sites and reloads.
var compiled = caddy.NewUsagePool()

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.gatehouse_firewall",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision fills in defaults and compiles the rules, or takes those of
// another handler that has the same.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.logger = ctx.Logger()
	for _, d := range []struct {
		setting *int
		value   int
	}{{&h.Paranoia, 1}, {&h.Threshold, 5}, {&h.Arguments, 1000}} {
		if *d.setting == 0 {
			*d.setting = d.value
		}
	}
	if h.MaxBody == 0 {
		h.MaxBody = 128 << 10
	}
	if h.Oversize == "" {
		h.Oversize = "refuse"
	}
	if err := gate.RegisterMetrics(ctx); err != nil {
		return err
	}
	// Also when it is off: an operator may switch it on while it runs.
	settings := &waf.Settings{
		CRS: true, Paranoia: h.Paranoia, Threshold: h.Threshold,
		Arguments: h.Arguments, MaxBody: h.MaxBody, Exclude: h.Exclude,
	}
	for _, name := range h.Rules {
		text, err := os.ReadFile(name) //nolint:gosec // the operator's own file
		if err != nil {
			return fmt.Errorf("firewall: reading rules: %w", err)
		}
		settings.Rules = append(settings.Rules, waf.Source{Name: name, Text: string(text)})
	}
	key := settings.Fingerprint()
	w, _, err := compiled.LoadOrNew(key, func() (caddy.Destructor, error) { return waf.Compile(settings) })
	if err != nil {
		return fmt.Errorf("firewall: %w", err)
	}
	h.waf, h.key = w.(*waf.WAF), key
	return nil
}

// Validate reports the first setting that makes no sense.
func (h *Handler) Validate() error {
	switch {
	case h.Paranoia < 1 || h.Paranoia > 4:
		return fmt.Errorf("firewall paranoia %d is not between 1 and 4", h.Paranoia)
	case h.Threshold < 1:
		return errors.New("firewall threshold must be at least 1")
	case h.Arguments < 1:
		return errors.New("firewall arguments must be at least 1")
	case h.MaxBody < 1 || h.MaxBody > 64<<20:
		return errors.New("firewall max_body must be between 1 byte and 64 MiB")
	case h.Oversize != "refuse" && h.Oversize != "pass":
		return fmt.Errorf("unrecognized oversize %q; expected refuse or pass", h.Oversize)
	}
	return nil
}

// Cleanup gives the rules back. Requests may still be running through them, so
// what they read stays as it is.
func (h *Handler) Cleanup() error {
	if h.key == "" {
		return nil
	}
	key := h.key
	h.key = ""
	_, err := compiled.Delete(key)
	return err
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddyfile.Unmarshaler       = (*Handler)(nil)
)
