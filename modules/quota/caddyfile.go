package quota

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	_ "github.com/gatehouse-caddy/gatehouse/caddyfile/order" // the directive's place
	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("quota", parseOption)
	parse.Handler("quota", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		m := new(Handler)
		m.Name, _ = h.BlockState[parse.APIName].(string)
		if err := m.UnmarshalCaddyfile(h.Dispenser); err != nil {
			return nil, err
		}
		if m.Rate == nil && !definesPlans(h.Option("quota")) {
			return nil, h.Err("quota without a rate needs plans; give a rate such as 60/m, or define plans in the global options: quota { plan free 60/m }")
		}
		return m, nil
	})
}

func definesPlans(option any) bool {
	app, ok := option.(httpcaddyfile.App)
	if !ok {
		return false
	}
	var a App
	return json.Unmarshal(app.Value, &a) == nil && len(a.Plans) > 0
}

// parseOption reads the global option. Syntax:
//
//	quota {
//	    plan     <name> <rate> [burst <n>] [leaky <queue>] {
//	        when [country <code...>] [hours <from>-<to> [<time zone>]] rate <rate> [burst <n>] [leaky <queue>]
//	    }
//	    default  <plan>
//	    max_keys <count>
//	    max_overshoot <percent>
//	}
func parseOption(d *caddyfile.Dispenser, existing any) (any, error) {
	d.Next() // consume the option's name
	if existing != nil {
		return nil, d.Err("the quota option stands twice; put all plans into one block")
	}
	if d.NextArg() {
		return nil, d.ArgErr()
	}
	var a App
	for d.NextBlock(0) {
		switch opt := d.Val(); opt {
		case "plan":
			var p Plan
			if !d.NextArg() {
				return nil, d.ArgErr()
			}
			p.Name = d.Val()
			for _, q := range a.Plans {
				if q.Name == p.Name {
					return nil, d.Errf("plan %q is defined twice", p.Name)
				}
			}
			if !d.NextArg() {
				return nil, d.Errf("plan %q needs a rate such as 60/m", p.Name)
			}
			if err := p.unmarshal(d); err != nil {
				return nil, err
			}
			for nesting := d.Nesting(); d.NextBlock(nesting); {
				if d.Val() != "when" {
					return nil, parse.Unknown(d, "plan option", d.Val(), "when")
				}
				var w When
				if err := w.unmarshal(d); err != nil {
					return nil, err
				}
				p.When = append(p.When, w)
			}
			a.Plans = append(a.Plans, p)
		case "default":
			if err := parse.Text(d, &a.Default); err != nil {
				return nil, err
			}
		case "max_keys":
			if err := parse.Count(d, &a.MaxKeys); err != nil {
				return nil, err
			}
		case "max_overshoot":
			a.MaxOvershoot = new(float64)
			if err := parse.Percent(d, a.MaxOvershoot); err != nil {
				return nil, err
			}
		default:
			return nil, parse.Unknown(d, "quota option", opt, "plan", "default", "max_keys", "max_overshoot")
		}
	}
	if err := a.checkDefault(d); err != nil {
		return nil, err
	}
	return httpcaddyfile.App{Name: "gatehouse_quota", Value: caddyconfig.JSON(a, nil)}, nil
}

func (a *App) checkDefault(d *caddyfile.Dispenser) error {
	if a.Default == "" {
		return nil
	}
	names := make([]string, 0, len(a.Plans))
	for _, p := range a.Plans {
		if p.Name == a.Default {
			return nil
		}
		names = append(names, p.Name)
	}
	return parse.Unknown(d, "plan", a.Default, names...)
}

// unmarshal reads a rate and what may follow it on the line. Syntax:
//
//	<rate> [burst <n>] [leaky <queue>]
func (r *Rate) unmarshal(d *caddyfile.Dispenser) error {
	rate, ok := parse.ParseRate(d.Val())
	if !ok {
		return d.Errf("%q is not a rate; write for example 10/s, 600/m or 1000/d", d.Val())
	}
	r.Events, r.Window = rate.Events, caddy.Duration(rate.Window)
	for d.NextArg() {
		word := d.Val()
		var to *int
		switch word {
		case "burst":
			to = &r.Burst
		case "leaky":
			to = &r.Leaky
		default:
			return parse.Unknown(d, "word", word, "burst", "leaky")
		}
		if !d.NextArg() {
			return d.Errf("%s needs a number", word)
		}
		n, err := strconv.Atoi(d.Val())
		if err != nil || n < 1 {
			return d.Errf("%s %q is not a whole number of at least 1", word, d.Val())
		}
		*to = n
	}
	return nil
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	quota [<matcher>] per tenant|client|subject|key|address|<placeholder> [<rate> [burst <n>] [leaky <queue>]] {
//	    name <text>
//	    mode enforce|shadow|off
//	    habit <times>x {
//	        tighten <percent>
//	        learn   <duration>
//	        mode    shadow|enforce|off
//	    }
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the directive's name
	if !d.NextArg() {
		return d.Err("quota needs to know whose requests it counts: quota per tenant, for example; plans are defined in the global options")
	}
	if d.Val() != "per" {
		return parse.Unknown(d, "word", d.Val(), "per")
	}
	if !d.NextArg() {
		return d.ArgErr()
	}
	h.Per = d.Val()
	if attributes[h.Per] == nil && !strings.Contains(h.Per, "{") {
		return parse.Unknown(d, "per", h.Per, append(slices.Clip(attributeNames), "a {placeholder}")...)
	}
	if d.NextArg() {
		h.Rate = new(Rate)
		if err := h.Rate.unmarshal(d); err != nil {
			return err
		}
	}
	for d.NextBlock(0) {
		switch opt := d.Val(); opt {
		case "name":
			if err := parse.Text(d, &h.Name); err != nil {
				return err
			}
		case "mode":
			if err := parse.Into(d, &h.Mode); err != nil {
				return err
			}
		case "habit":
			h.Habit = new(Habit)
			if err := h.Habit.unmarshal(d); err != nil {
				return err
			}
		default:
			return parse.Unknown(d, "quota option", opt, "name", "mode", "habit")
		}
	}
	return nil
}
