package registry

import (
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
)

func init() { httpcaddyfile.RegisterGlobalOption("registry", parseOption) }

// parseOption reads the global option. Syntax:
//
//	registry {
//	    poll <duration>
//	}
func parseOption(d *caddyfile.Dispenser, existing any) (any, error) {
	d.Next() // consume the option's name
	if existing != nil {
		return nil, d.Err("the registry option stands twice")
	}
	if d.NextArg() {
		return nil, d.ArgErr()
	}
	a := new(App)
	for d.NextBlock(0) {
		switch opt := d.Val(); opt {
		case "poll":
			if err := parse.Duration(d, &a.Poll); err != nil {
				return nil, err
			}
		default:
			return nil, parse.Unknown(d, "registry option", opt, "poll")
		}
	}
	return httpcaddyfile.App{Name: "gatehouse_registry", Value: caddyconfig.JSON(a, nil)}, nil
}
