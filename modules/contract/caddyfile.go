package contract

import (
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	_ "github.com/gatehouse-caddy/gatehouse/caddyfile/order" // the directives' places
	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
)

func init() {
	parse.Handler("contract", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		m := new(Handler)
		_, m.DeferInput = h.BlockState[parse.APIName] // api puts input in its place
		return m, m.UnmarshalCaddyfile(h.Dispenser)
	})
	parse.Handler("input", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		m := new(Input)
		return m, m.UnmarshalCaddyfile(h.Dispenser)
	})
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	contract [<matcher>] <openapi file> {
//	    base_path     <path>
//	    encoded_slash
//	    max_body      <size>
//	    mode          enforce|shadow|off
//	    input_mode    enforce|shadow|off
//	    unknown_query refuse|pass
//	    responses     shadow [<percent>] | off
//	}
//	contract [<matcher>] schema <json schema file> {
//	    max_body   <size>
//	    input_mode enforce|shadow|off
//	}
//
// Files are relative to the Caddyfile.
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the directive's name
	switch args := d.RemainingArgs(); {
	case len(args) == 1 && args[0] != "schema":
		h.File = parse.File(d, args[0])
		h.Digest = parse.Digest(parts(h.File)...)
	case len(args) == 2 && args[0] == "schema":
		h.Schema = parse.File(d, args[1])
		h.Digest = parse.Digest(parts(h.Schema)...)
		h.DeferInput = false // it belongs to its route, wherever that is
	case len(args) == 2:
		return parse.Unknown(d, "kind of contract", args[0], "schema")
	default:
		return d.ArgErr()
	}
	for d.NextBlock(0) {
		var err error
		switch opt := d.Val(); {
		case opt == "base_path" && h.File != "":
			if err = parse.Text(d, &h.BasePath); err == nil && !strings.HasPrefix(h.BasePath, "/") {
				err = d.Errf("base_path %q does not begin with a slash", h.BasePath)
			}
		case opt == "encoded_slash" && h.File != "":
			err = parse.Flag(d, &h.EncodedSlash)
		case opt == "max_body":
			err = parse.Size(d, &h.MaxBody)
		case opt == "mode" && h.File != "":
			err = parse.Into(d, &h.Mode)
		case opt == "input_mode":
			err = parse.Into(d, &h.InputMode)
		case opt == "unknown_query" && h.File != "":
			if err = parse.Text(d, &h.UnknownQuery); err == nil && h.UnknownQuery != "refuse" && h.UnknownQuery != "pass" {
				err = parse.Unknown(d, "unknown_query", h.UnknownQuery, "refuse", "pass")
			}
		case opt == "responses" && h.File != "":
			err = h.parseResponses(d)
		default:
			known := []string{"base_path", "encoded_slash", "max_body", "mode", "input_mode", "unknown_query", "responses"}
			if h.Schema != "" {
				known = []string{"max_body", "input_mode"}
			}
			err = parse.Unknown(d, "contract option", opt, known...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// parseResponses reads the option with the part of the bodies to look at.
func (h *Handler) parseResponses(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	switch {
	case len(args) == 0 || len(args) > 2 || args[0] == "off" && len(args) == 2:
		return d.ArgErr()
	case args[0] == "enforce":
		return d.Err("responses cannot be enforced: an answer is on its way when it is looked at; expected shadow or off")
	case args[0] != shadow && args[0] != "off":
		return parse.Unknown(d, "responses", args[0], shadow, "off")
	}
	h.Responses = args[0]
	if len(args) == 1 {
		return nil
	}
	digits, percent := strings.CutSuffix(args[1], "%")
	n, err := strconv.ParseFloat(digits, 64)
	if err != nil || !percent || !(n > 0 && n <= 100) {
		return d.Errf("responses shadow %q is not a share; write for example 10%%", args[1])
	}
	h.ResponseSample = n / 100
	return nil
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	input [<matcher>]
//
// Inside an api it is there by itself.
func (*Input) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the directive's name
	if d.NextArg() || d.NextBlock(0) {
		return d.ArgErr()
	}
	return nil
}
