package require

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	_ "github.com/gatehouse-caddy/gatehouse/caddyfile/order" // the directive's place
	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
)

func init() {
	parse.Handler("require", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		m := new(Handler)
		return m, m.UnmarshalCaddyfile(h.Dispenser)
	})
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	require [<matcher>] [scope|role <value...> | cel <expression> | acr <value...> | max_age <duration>] {
//	    acr     <value...>
//	    max_age <duration>
//	    mode    enforce|shadow|off
//	}
//
// Every scope named is needed, and any one of the roles and of the values of acr.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the directive's name
	if d.NextArg() {
		what := d.Val()
		args := d.RemainingArgs()
		switch what {
		case "scope":
			h.Scopes = args
		case "role":
			h.Roles = args
		case "acr", "max_age":
			if err := h.readStepUp(d, what, args); err != nil {
				return err
			}
		case "cel":
			if len(args) != 1 {
				return d.Err("require cel takes one expression; put it in quotes or backticks")
			}
			h.Expression = args[0]
		default:
			return parse.Unknown(d, "requirement", what, "scope", "role", "cel", "acr", "max_age")
		}
		if len(args) == 0 {
			return d.Errf("require %s needs a value", what)
		}
	}
	for d.NextBlock(0) {
		switch opt := d.Val(); opt {
		case "mode":
			if err := parse.Into(d, &h.Mode); err != nil {
				return err
			}
		case "acr", "max_age":
			if len(h.Scopes) > 0 || len(h.Roles) > 0 || h.Expression != "" {
				return d.Errf("%s stands in a require of its own", opt)
			}
			if err := h.readStepUp(d, opt, d.RemainingArgs()); err != nil {
				return err
			}
		default:
			return parse.Unknown(d, "require option", opt, "acr", "max_age", "mode")
		}
	}
	return nil
}
