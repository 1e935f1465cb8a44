package transcode

import (
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	_ "github.com/gatehouse-caddy/gatehouse/caddyfile/order" // the directive's place
	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

func init() {
	parse.Handler("transcode", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		m := new(Handler)
		return m, m.UnmarshalCaddyfile(h.Dispenser)
	})
}

var options = []string{"services", "max_message", "timeout", "unmatched", "unknown_fields", "mode"}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	transcode [<matcher>] <descriptor set file> {
//	    services       <name...>
//	    max_message    <size>
//	    timeout        <duration>
//	    unmatched      pass|refuse
//	    unknown_fields refuse|ignore
//	    mode           enforce|off
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the directive's name
	if err := parse.FileName(d, &h.File); err != nil {
		return err
	}
	h.Digest = parse.Digest(h.File)
	for d.NextBlock(0) {
		var err error
		switch opt := d.Val(); opt {
		case "services":
			names := d.RemainingArgs()
			if len(names) == 0 {
				return d.ArgErr()
			}
			h.Services = append(h.Services, names...)
		case "max_message":
			err = parse.Size(d, &h.MaxMessage)
		case "timeout":
			err = parse.Duration(d, &h.Timeout)
		case "unmatched":
			err = parse.OneOf(d, &h.Unmatched, "pass", "refuse")
		case "unknown_fields":
			err = parse.OneOf(d, &h.UnknownFields, "refuse", "ignore")
		case "mode":
			err = h.unmarshalMode(d)
		default:
			err = parse.Unknown(d, "transcode option", opt, options...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (h *Handler) unmarshalMode(d *caddyfile.Dispenser) error {
	var word string
	if err := parse.Text(d, &word); err != nil {
		return err
	}
	switch word {
	case "enforce":
		h.Mode = gate.Enforce
	case "off":
		h.Mode = gate.Off
	case "shadow":
		return d.Err(errNoShadow.Error())
	default:
		return parse.Unknown(d, "mode", word, "enforce", "off")
	}
	return nil
}
