package reputation

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	_ "github.com/gatehouse-caddy/gatehouse/caddyfile/order" // the directive's place
	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/reputation/internal/feed"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("reputation", parseOption)
	parse.Handler("reputation", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		m := new(Handler)
		if err := m.UnmarshalCaddyfile(h.Dispenser); err != nil {
			return nil, err
		}
		return m, m.checkLists(h)
	})
}

// checkLists finds names that the global option does not define.
func (h *Handler) checkLists(helper httpcaddyfile.Helper) error {
	a := new(App)
	if app, ok := helper.Option("reputation").(httpcaddyfile.App); ok {
		if err := json.Unmarshal(app.Value, a); err != nil {
			return err
		}
	}
	known := make([]string, 0, len(a.Lists)+1)
	for _, l := range a.Lists {
		known = append(known, l.Name)
	}
	for _, word := range slices.Concat(h.Allow, h.Deny) {
		if _, err := feed.ParsePrefix(word); err != nil && !slices.Contains(known, word) {
			return parse.Unknown(helper.Dispenser, "list", word, append(known, "a network such as 192.0.2.0/24")...)
		}
	}
	if len(h.AllowCountries)+len(h.DenyCountries) > 0 && a.CountryDB == "" {
		return helper.Err("countries need a database; add country_db <file> to the global option reputation")
	}
	return nil
}

// parseOption reads the global option. Syntax:
//
//	reputation {
//	    list       <name> <file|url>
//	    country_db <file>
//	    asn_db     <file>
//	    bots       <file|url>
//	    refresh    <duration>
//	}
func parseOption(d *caddyfile.Dispenser, existing any) (any, error) {
	d.Next() // consume the option's name
	if existing != nil {
		return nil, d.Err("the reputation option stands twice; put all lists into one block")
	}
	if d.NextArg() {
		return nil, d.ArgErr()
	}
	a := new(App)
	for d.NextBlock(0) {
		var err error
		switch opt := d.Val(); opt {
		case "list":
			err = a.unmarshalList(d)
		case "country_db":
			err = parse.FileName(d, &a.CountryDB)
		case "asn_db":
			err = parse.FileName(d, &a.ASNDB)
		case "bots":
			if err = parse.Text(d, &a.Bots); err == nil {
				err = locate(d, &a.Bots)
			}
		case "refresh":
			err = parse.Duration(d, &a.Refresh)
		default:
			err = parse.Unknown(d, "reputation option", opt, "list", "country_db", "asn_db", "bots", "refresh")
		}
		if err != nil {
			return nil, err
		}
	}
	return httpcaddyfile.App{Name: "gatehouse_reputation", Value: caddyconfig.JSON(a, nil)}, nil
}

// locate makes a file relative to the Caddyfile, and looks at a URL.
func locate(d *caddyfile.Dispenser, to *string) error {
	if !strings.Contains(*to, "://") {
		*to = parse.File(d, *to)
		return nil
	}
	if err := checkSource(*to); err != nil {
		return d.Err(err.Error())
	}
	return nil
}

func (a *App) unmarshalList(d *caddyfile.Dispenser) error {
	var l List
	if !d.AllArgs(&l.Name, &l.Source) {
		return d.ArgErr()
	}
	if slices.ContainsFunc(a.Lists, func(other List) bool { return other.Name == l.Name }) {
		return d.Errf("list %q is defined twice", l.Name)
	}
	if _, err := feed.ParsePrefix(l.Name); err == nil {
		return d.Errf("%q is a network and cannot name a list", l.Name)
	}
	if err := locate(d, &l.Source); err != nil {
		return err
	}
	a.Lists = append(a.Lists, l)
	return nil
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	reputation [<matcher>] {
//	    allow           <list|network...>
//	    deny            <list|network...>
//	    allow_countries <code...>
//	    deny_countries  <code...>
//	    mode            enforce|shadow|off
//	    on_error        open|closed
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the directive's name
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		var err error
		switch opt := d.Val(); opt {
		case "allow":
			err = parse.Words(d, &h.Allow)
		case "deny":
			err = parse.Words(d, &h.Deny)
		case "allow_countries":
			err = countries(d, &h.AllowCountries)
		case "deny_countries":
			err = countries(d, &h.DenyCountries)
		case "mode":
			err = parse.Into(d, &h.Mode)
		case "on_error":
			h.OnError = new(gate.OnError)
			err = parse.Into(d, h.OnError)
		default:
			err = parse.Unknown(d, "reputation option", opt, "allow", "deny", "allow_countries", "deny_countries", "mode", "on_error")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func countries(d *caddyfile.Dispenser, to *[]string) error {
	if err := parse.Words(d, to); err != nil {
		return err
	}
	for _, c := range *to {
		if !countryCode.MatchString(c) {
			return d.Errf("%q is no country code such as DE (ISO 3166-1 alpha-2)", c)
		}
	}
	return nil
}
