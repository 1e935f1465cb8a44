package console

import (
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
)

func init() { httpcaddyfile.RegisterGlobalOption("console", parseOption) }

// parseOption reads the global option. Syntax:
//
//	console [off] {
//	    keep <count>
//	}
func parseOption(d *caddyfile.Dispenser, existing any) (any, error) {
	d.Next() // consume the option's name
	if existing != nil {
		return nil, d.Err("the console option stands twice")
	}
	a := new(App)
	if d.NextArg() {
		if d.Val() != "off" {
			return nil, parse.Unknown(d, "console setting", d.Val(), "off")
		}
		if a.Off = true; d.NextArg() {
			return nil, d.ArgErr()
		}
	}
	for d.NextBlock(0) {
		switch opt := d.Val(); opt {
		case "keep":
			if a.Off {
				return nil, d.Err("a console that is off keeps nothing")
			}
			if err := parse.Count(d, &a.Keep); err != nil {
				return nil, err
			}
			if a.Keep > maxKeep {
				return nil, d.Errf("keep %d is more than %d", a.Keep, maxKeep)
			}
		default:
			return nil, parse.Unknown(d, "console option", opt, "keep")
		}
	}
	return httpcaddyfile.App{Name: "gatehouse_console", Value: caddyconfig.JSON(a, nil)}, nil
}
