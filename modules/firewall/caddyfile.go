package firewall

import (
	"strconv"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	_ "github.com/gatehouse-caddy/gatehouse/caddyfile/order" // the directive's place
	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
)

func init() {
	parse.Handler("firewall", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		m := new(Handler)
		return m, m.UnmarshalCaddyfile(h.Dispenser)
	})
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	firewall [<matcher>] [crs] {
//	    paranoia  <1-4>
//	    threshold <score>
//	    rules     <file...>
//	    exclude   <rule id...>
//	    max_body  <size>
//	    oversize  refuse|pass
//	    arguments <count>
//	    mode      enforce|shadow|off
//	    on_error  closed|open
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the directive's name
	if d.NextArg() && d.Val() != "crs" {
		return parse.Unknown(d, "rule set", d.Val(), "crs")
	}
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		var err error
		switch opt := d.Val(); opt {
		case "paranoia":
			if err = parse.Count(d, &h.Paranoia); err == nil && h.Paranoia > 4 {
				err = d.Errf("paranoia %d is not between 1 and 4", h.Paranoia)
			}
		case "threshold":
			err = parse.Count(d, &h.Threshold)
		case "rules":
			err = h.files(d)
		case "exclude":
			err = h.ids(d)
		case "max_body":
			err = parse.Size(d, &h.MaxBody)
		case "oversize":
			if err = parse.Text(d, &h.Oversize); err == nil && h.Oversize != "refuse" && h.Oversize != "pass" {
				err = parse.Unknown(d, "oversize", h.Oversize, "refuse", "pass")
			}
		case "arguments":
			err = parse.Count(d, &h.Arguments)
		case "mode":
			err = parse.Into(d, &h.Mode)
		case "on_error":
			err = parse.Into(d, &h.OnError)
		default:
			err = parse.Unknown(d, "firewall option", opt, "paranoia", "threshold", "rules", "exclude", "max_body", "oversize", "arguments", "mode", "on_error")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// files reads names of rule files, which are relative to the Caddyfile.
func (h *Handler) files(d *caddyfile.Dispenser) error {
	names := d.RemainingArgs()
	if len(names) == 0 {
		return d.ArgErr()
	}
	for _, name := range names {
		h.Rules = append(h.Rules, parse.File(d, name))
	}
	h.Digest = parse.Digest(h.Rules...)
	return nil
}

func (h *Handler) ids(d *caddyfile.Dispenser) error {
	words := d.RemainingArgs()
	if len(words) == 0 {
		return d.ArgErr()
	}
	for _, word := range words {
		id, err := strconv.Atoi(word)
		if err != nil || id < 1 {
			return d.Errf("exclude %q is not a rule id", word)
		}
		h.Exclude = append(h.Exclude, id)
	}
	return nil
}
