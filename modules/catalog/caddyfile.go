package catalog

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	_ "github.com/gatehouse-caddy/gatehouse/caddyfile/order" // the directive's place
	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
)

func init() {
	parse.Handler("catalog", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		m := new(Handler)
		_, inAPI := h.BlockState[parse.APIName]
		m.Index = !inAPI
		return m, m.UnmarshalCaddyfile(h.Dispenser)
	})
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax, in an
// api:
//
//	catalog [<path>] {
//	    hide   <operation or tag...>
//	    server <url>
//	}
//
// and in a site, where it lists the APIs that have a page:
//
//	catalog [<path>]
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the directive's name
	if d.NextArg() {
		h.Path = d.Val()
		if err := (&Handler{Path: h.Path}).Validate(); err != nil {
			return d.Err(err.Error())
		}
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		opt := d.Val()
		if h.Index && (opt == "hide" || opt == "server") {
			return d.Errf("%s belongs into the catalog of an api; here catalog lists the APIs of the site", opt)
		}
		switch opt {
		case "hide":
			words := d.RemainingArgs()
			if len(words) == 0 {
				return d.ArgErr()
			}
			h.Hide = append(h.Hide, words...)
		case "server":
			if err := parse.Text(d, &h.Server); err != nil {
				return err
			}
			if _, err := parseServer(h.Server); err != nil {
				return d.Err(err.Error())
			}
		default:
			return parse.Unknown(d, "catalog option", opt, "hide", "server")
		}
	}
	return nil
}
