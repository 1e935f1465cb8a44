package registry

import (
	"slices"

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
//	    role <name> {
//	        read|create|replace|delete|change <kind...>|all
//	    }
//	    operator <name> <role> {
//	        token       <sha256>
//	        certificate <sha256>
//	    }
//	    local  <role>|all|none
//	    remote <role>|all|none
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
		var err error
		switch opt := d.Val(); opt {
		case "poll":
			err = parse.Duration(d, &a.Poll)
		case "copy":
			err = a.parseCopy(d)
		case "role":
			err = a.parseRole(d)
		case "operator":
			err = a.parseOperator(d)
		case "local":
			err = parse.Text(d, &a.Local)
		case "remote":
			err = parse.Text(d, &a.Remote)
		default:
			err = parse.Unknown(d, "registry option", opt, "poll", "copy", "role", "operator", "local", "remote")
		}
		if err != nil {
			return nil, err
		}
	}
	if err := a.checkRoles(); err != nil {
		return nil, d.Err(err.Error())
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

func (a *App) parseRole(d *caddyfile.Dispenser) error {
	var name string
	if !d.AllArgs(&name) {
		return d.ArgErr()
	}
	if _, twice := a.Roles[name]; twice {
		return d.Errf("role %q is defined twice", name)
	}
	r := Role{}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		verb := d.Val()
		if !slices.Contains(verbs, verb) {
			return parse.Unknown(d, "verb", verb, verbs...)
		}
		on := d.RemainingArgs()
		if len(on) == 0 {
			return d.ArgErr()
		}
		for _, kind := range on {
			if known := append(kindNames(), anything); !slices.Contains(known, kind) {
				return parse.Unknown(d, "kind", kind, known...)
			}
		}
		r[verb] = append(r[verb], on...)
	}
	if a.Roles == nil {
		a.Roles = map[string]Role{}
	}
	a.Roles[name] = r
	return nil
}

func (a *App) parseOperator(d *caddyfile.Dispenser) error {
	o := new(Operator)
	if !d.AllArgs(&o.Name, &o.Role) {
		return d.Err("an operator needs a name and a role")
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch opt := d.Val(); opt {
		case "token":
			err = parse.Text(d, &o.Token)
		case "certificate":
			err = parse.Text(d, &o.Certificate)
		default:
			err = parse.Unknown(d, "operator option", opt, "token", "certificate")
		}
		if err != nil {
			return err
		}
	}
	a.Operators = append(a.Operators, o)
	return nil
}
