package registry

import (
	"github.com/caddyserver/caddy/v2"
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
//	    copy <folder> [<max age>]
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
		case "copy":
			if err := a.parseCopy(d); err != nil {
				return nil, err
			}
		default:
			return nil, parse.Unknown(d, "registry option", opt, "poll", "copy")
		}
	}
	return httpcaddyfile.App{Name: "gatehouse_registry", Value: caddyconfig.JSON(a, nil)}, nil
}

func (a *App) parseCopy(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) < 1 || len(args) > 2 {
		return d.ArgErr()
	}
	a.Copy = parse.Path(d, args[0])
	if len(args) == 1 {
		return nil
	}
	age, err := caddy.ParseDuration(args[1])
	if err != nil || age <= 0 {
		return d.Errf("copy: %q is not a duration such as 24h", args[1])
	}
	a.CopyMaxAge = caddy.Duration(age)
	return nil
}
