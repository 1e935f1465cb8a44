package require

import (
	"errors"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

func init() { caddy.RegisterModule(new(Handler)) }

// Handler lets a request pass only if its principal has what is required.
// Without scopes, roles and expression, it enforces the contract's security.
type Handler struct {
	// Scopes the principal must have, all of them.
	Scopes []string `json:"scopes,omitempty"`

	// Roles of which the principal must have at least one.
	Roles []string `json:"roles,omitempty"`

	// A CEL expression that must be true. It sees `principal.` subject, client,
	// tenant, plan, issuer, method, roles, scopes, acr, auth_time and claims, `operation.` id,
	// method, path and params, and `request.` method, path, host, client_ip,
	// query (lists of values) and headers (names in lower case). A name that
	// is not among them fails when the configuration is loaded.
	Expression string `json:"expression,omitempty"`

	StepUp

	// Whether refusals are enforced: `enforce`, `shadow` or `off`.
	// Default: `enforce`.
	Mode gate.Mode `json:"mode,omitempty"`

	program  *program
	rule     string // as it is written, for decisions
	acquired bool   // whether Cleanup has an expression to give back
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.gatehouse_require",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision compiles the expression, or takes the compiled one of another
// handler.
func (h *Handler) Provision(ctx caddy.Context) error {
	if err := gate.RegisterMetrics(ctx); err != nil {
		return err
	}
	h.rule = h.written()
	if h.Expression == "" {
		return nil
	}
	p, _, err := programs.LoadOrNew(h.Expression, func() (caddy.Destructor, error) { return compile(h.Expression) })
	if err != nil {
		return fmt.Errorf("compiling expression %q: %w", h.Expression, err)
	}
	h.program, h.acquired = p.(*program), true
	return nil
}

// Validate reports settings that do not go together.
func (h *Handler) Validate() error {
	n := 0
	for _, set := range []bool{len(h.Scopes) > 0, len(h.Roles) > 0, h.Expression != "", h.asked()} {
		if set {
			n++
		}
	}
	if n > 1 {
		return errors.New("one require takes scopes, roles, an expression, or acr and max_age; use one for each")
	}
	if err := h.check(); err != nil {
		return fmt.Errorf("require: %w", err)
	}
	return nil
}

// Cleanup gives the compiled expression back. Requests may still be on their
// way through this handler, so what they read stays as it is.
func (h *Handler) Cleanup() error {
	if !h.acquired {
		return nil
	}
	h.acquired = false
	_, err := programs.Delete(h.Expression)
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
