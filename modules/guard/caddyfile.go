package guard

import (
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	_ "github.com/gatehouse-caddy/gatehouse/caddyfile/order" // the directive's place
	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

func init() {
	parse.Handler("guard", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		m := new(Handler)
		err := m.UnmarshalCaddyfile(h.Dispenser)
		return m, err
	})
}

var options = []string{"path", "encoded_slash", "semicolon", "max_url", "max_query", "max_headers", "max_body", "content_types", "json", "shadow", "off", "mode"}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	guard [<matcher>] {
//	    path          canonicalize|refuse
//	    encoded_slash
//	    semicolon
//	    max_url       <size>
//	    max_query     <count>
//	    max_headers   <count>
//	    max_body      <size> [<content type...>]
//	    content_types <content type...>
//	    json          depth|values|string|number|exponent <count>
//	    shadow        <check...>
//	    off           <check...>
//	    mode          enforce|shadow|off
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the directive's name
	if d.NextArg() {
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		var err error
		switch opt := d.Val(); opt {
		case "path":
			if err = parse.Text(d, &h.Path); err == nil && h.Path != "canonicalize" && h.Path != "refuse" {
				err = parse.Unknown(d, "path", h.Path, "canonicalize", "refuse")
			}
		case "encoded_slash":
			err = parse.Flag(d, &h.EncodedSlash)
		case "semicolon":
			err = parse.Flag(d, &h.Semicolon)
		case "max_url":
			var n int64
			err = parse.Size(d, &n)
			h.MaxURL = int(n)
		case "max_query":
			err = parse.Count(d, &h.MaxQuery)
		case "max_headers":
			err = parse.Count(d, &h.MaxHeaders)
		case "max_body":
			err = h.unmarshalMaxBody(d)
		case "content_types":
			h.ContentTypes = append(h.ContentTypes, d.RemainingArgs()...)
			err = types(d, h.ContentTypes)
		case "json":
			err = h.JSON.unmarshal(d)
		case "shadow":
			err = h.unmarshalChecks(d, gate.Shadow)
		case "off":
			err = h.unmarshalChecks(d, gate.Off)
		case "mode":
			err = parse.Into(d, &h.Mode)
		default:
			err = parse.Unknown(d, "guard option", opt, options...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func types(d *caddyfile.Dispenser, of []string) error {
	if len(of) == 0 {
		return d.ArgErr()
	}
	for _, t := range of {
		if validType(t) != nil {
			return d.Errf("%q is not a content type such as application/json or image/*", t)
		}
	}
	return nil
}

func (h *Handler) unmarshalMaxBody(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.ArgErr()
	}
	n, ok := parse.ParseSize(args[0])
	if !ok {
		return d.Errf("max_body %q is not a size; write for example 64KiB or 1MB", args[0])
	}
	if len(args) == 1 {
		h.MaxBody = n
		return nil
	}
	if h.MaxBodyOf == nil {
		h.MaxBodyOf = map[string]int64{}
	}
	for _, t := range args[1:] {
		h.MaxBodyOf[t] = n
	}
	return types(d, args[1:])
}

// unmarshal reads one or more limits. Syntax:
//
//	json depth|values|string|number|exponent <count> …
func (j *JSON) unmarshal(d *caddyfile.Dispenser) error {
	to := map[string]*int{"depth": &j.Depth, "values": &j.Values, "string": &j.String, "number": &j.Number, "exponent": &j.Exponent}
	words := d.RemainingArgs()
	if len(words) == 0 || len(words)%2 != 0 {
		return d.Err("json takes pairs such as depth 32 values 10000")
	}
	for pair := range slices.Chunk(words, 2) {
		setting := to[pair[0]]
		if setting == nil {
			return parse.Unknown(d, "json limit", pair[0], "depth", "values", "string", "number", "exponent")
		}
		n, ok := parse.ParseSize(pair[1])
		if !ok || strings.ContainsAny(pair[1], "-.") || n > 1<<31-1 {
			return d.Errf("json %s %q is not a whole number of at least 1", pair[0], pair[1])
		}
		*setting = int(n)
	}
	return nil
}

func (h *Handler) unmarshalChecks(d *caddyfile.Dispenser, m gate.Mode) error {
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.ArgErr()
	}
	for _, name := range args {
		if !slices.Contains(checkNames, name) {
			return parse.Unknown(d, "check", name, checkNames...)
		}
		if _, twice := h.Modes[name]; twice {
			return d.Errf("the check %q has a mode already", name)
		}
		if h.Modes == nil {
			h.Modes = map[string]gate.Mode{}
		}
		h.Modes[name] = m
	}
	return nil
}
