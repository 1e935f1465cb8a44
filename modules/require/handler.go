package require

import (
	"cmp"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// ServeHTTP lets the request pass if its principal has what is required.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	ex, mode := gate.Enter(r, gate.Require, h.Mode)
	if mode == gate.Off {
		return next.ServeHTTP(w, r)
	}
	began := gate.Now()

	rule, denial := h.decide(ex, r)
	if err := ex.Conclude(w, r, gate.Require, mode, rule, denial, began); err != nil {
		return err
	}
	return next.ServeHTTP(w, r)
}

func (h *Handler) decide(ex *gate.Exchange, r *http.Request) (rule string, d *gate.Denial) {
	p := ex.Principal
	switch {
	case len(h.Scopes) > 0:
		if p == nil {
			return h.Scopes[0], anonymous(ex)
		}
		for _, s := range h.Scopes {
			if !p.HasScope(s) {
				return s, lacksScope(ex, h.Scopes)
			}
		}
		return h.Scopes[0], nil

	case len(h.Roles) > 0:
		if p == nil {
			return h.Roles[0], anonymous(ex)
		}
		for _, role := range h.Roles {
			if p.HasRole(role) {
				return role, nil
			}
		}
		return h.Roles[0], &gate.Denial{Reason: gate.RequireRole}

	case h.asked():
		return h.stepUpRule(), stepUp(ex, h.authentication())

	case h.program != nil:
		ok, err := h.program.eval(ex, r)
		if !ok {
			return "cel", &gate.Denial{Reason: gate.RequireExpression, Err: err}
		}
		return "cel", nil
	}
	return "contract", byContract(ex)
}

// byContract looks for one alternative of the operation's security that the
// principal satisfies. The denial speaks of the one that came closest.
func byContract(ex *gate.Exchange) *gate.Denial {
	op, p := cmp.Or(ex.Operation, ex.Otherwise), ex.Principal
	if op == nil {
		return nil
	}
	if op.Authentication.Asked() {
		if d := stepUp(ex, op.Authentication); d != nil {
			return d
		}
	}
	if op.Security == nil || op.Anonymous() {
		return nil
	}
	if p == nil {
		return anonymous(ex)
	}
	var missing []string
	for _, alt := range op.Security {
		proven, scoped := satisfies(p, alt)
		if proven && scoped {
			return nil
		}
		if proven && missing == nil {
			for _, s := range alt {
				missing = append(missing, s.Scopes...)
			}
		}
	}
	if missing != nil {
		return lacksScope(ex, missing)
	}
	return &gate.Denial{
		Reason: gate.RequireScheme,
		Detail: "The contract accepts " + accepted(op.Security) + " here, and the caller is known by " + proofs[p.Method] + ".",
		Header: challenge(ex),
	}
}

// proofs are what contracts call the ways of proving.
var proofs = map[gate.Method]string{
	gate.Bearer: "a bearer token", gate.APIKey: "an API key", gate.MutualTLS: "a client certificate", gate.Session: "a session of a browser",
}

// accepted writes the schemes of an operation as its contract names them.
func accepted(security []gate.Alternative) string {
	ways := make([]string, len(security))
	for i, alt := range security {
		names := make([]string, len(alt))
		for j := range alt {
			kind := alt[j].Type
			if kind == "http" {
				kind += " " + alt[j].HTTP
			}
			names[j] = alt[j].Name + " (" + kind + ")"
		}
		ways[i] = strings.Join(names, " with ")
	}
	return strings.Join(ways, " or ")
}

// satisfies reports whether the principal was proven in every way alt names,
// and whether it has every scope.
func satisfies(p *gate.Principal, alt gate.Alternative) (proven, scoped bool) {
	scoped = true
	for i := range alt {
		s := &alt[i]
		switch s.Type {
		case "oauth2", "openIdConnect":
			proven = p.Method == gate.Bearer || p.Method == gate.Session
		case "http":
			proven = p.Method == gate.Bearer && strings.EqualFold(s.HTTP, "bearer")
		case "apiKey":
			proven = p.Method == gate.APIKey
		case "mutualTLS":
			proven = p.Method == gate.MutualTLS
		default:
			proven = false
		}
		if !proven {
			return false, false
		}
		for _, scope := range s.Scopes {
			if !p.HasScope(scope) {
				scoped = false
			}
		}
	}
	return proven, scoped
}

// Describe tells consumers what they need besides what the contract says.
// Expressions stay inside: they may name what consumers must not know.
func (h *Handler) Describe(d *gate.Description) {
	d.MayRefuse(h.Mode, gate.Require)
	if h.Mode == gate.Enforce {
		d.Scopes = append(d.Scopes, h.Scopes...)
		d.Roles = append(d.Roles, h.Roles...)
	}
}
