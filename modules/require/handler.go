package require

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

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
			return h.rule, anonymous(ex)
		}
		for _, s := range h.Scopes {
			if !p.HasScope(s) {
				return h.rule, lacksScope(ex, h.Scopes)
			}
		}
		return h.rule, nil

	case len(h.Roles) > 0:
		if p == nil {
			return h.rule, anonymous(ex)
		}
		if slices.ContainsFunc(h.Roles, p.HasRole) {
			return h.rule, nil
		}
		return h.rule, &gate.Denial{Reason: gate.RequireRole, Err: errors.New(has(p, "roles", p.Roles))}

	case h.asked():
		return h.rule, stepUp(ex, h.authentication())

	case h.program != nil:
		ok, err := h.program.eval(ex, r)
		if !ok {
			if err == nil && p == nil {
				err = whyNobody(ex)
			}
			return h.rule, &gate.Denial{Reason: gate.RequireExpression, Err: err}
		}
		return h.rule, nil
	}
	return h.rule, byContract(ex)
}

// maxRule bounds what a decision says of a rule, in bytes: no more is kept.
const maxRule = 256

// written is the rule as it stands in a Caddyfile, on one line, for decisions.
func (h *Handler) written() string {
	var words []string
	switch {
	case len(h.Scopes) > 0:
		words = append([]string{"scope"}, h.Scopes...)
	case len(h.Roles) > 0:
		words = append([]string{"role"}, h.Roles...)
	case h.Expression != "":
		words = append([]string{"cel"}, strings.Fields(h.Expression)...)
	case h.asked():
		if len(h.ACR) > 0 {
			words = append([]string{"acr"}, h.ACR...)
		}
		if h.MaxAge > 0 {
			words = append(words, "max_age", time.Duration(h.MaxAge).String())
		}
	default:
		return "contract"
	}
	rule := strings.Join(words, " ")
	if len(rule) <= maxRule {
		return rule
	}
	return strings.ToValidUTF8(rule[:maxRule-len("…")], "") + "…"
}

// has tells the operator what the caller has of what is asked for.
func has(p *gate.Principal, what string, list []string) string {
	const most = 8
	var b strings.Builder
	fmt.Fprintf(&b, "the caller is known by %s", proofs[p.Method])
	if p.Issuer != "" {
		fmt.Fprintf(&b, " of %.64q", p.Issuer)
	}
	if len(list) == 0 {
		b.WriteString(", and has no " + what)
		return b.String()
	}
	b.WriteString(", and has the " + what)
	for i, item := range list {
		if i == most {
			fmt.Fprintf(&b, " and %d more", len(list)-most)
			break
		}
		fmt.Fprintf(&b, " %.64q", item)
	}
	return b.String()
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
		Err:    fmt.Errorf("the contract's security of %s has no scheme for %s", op.ID, proofs[p.Method]),
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
