package api

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/order"
	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("drain", parseDrain)
	httpcaddyfile.RegisterGlobalOption("headroom", parseHeadroom)
	httpcaddyfile.RegisterGlobalOption("proxy_headers", parseProxies)
	httpcaddyfile.RegisterDirective("api", func(h httpcaddyfile.Helper) ([]httpcaddyfile.ConfigValue, error) {
		set, err := parse.Matcher(h)
		if err != nil {
			return nil, err
		}
		m, around, err := setup(h)
		if err != nil {
			return nil, err
		}
		values := h.NewRoute(set, m)
		if route, ok := values[0].Value.(caddyhttp.Route); ok && len(around) > 0 {
			route.HandlersRaw = append(around, route.HandlersRaw...)
			values[0].Value = route
		}
		return values, nil
	})
}

var options = []string{"owner", "description", "errors", "upstream_errors", "log", "problem_type"}

// common are the directives of Caddy that an api block is likely to hold, for
// the answer to a misspelt one.
var common = []string{"encode", "handle", "handle_path", "header", "invoke", "rate_limit", "respond", "reverse_proxy", "rewrite", "request_header", "route", "tracing", "uri"}

// setup reads the directive. Syntax:
//
//	api [<matcher>] <name> {
//	    owner           <text>
//	    description     <text>
//	    errors          problem|site
//	    upstream_errors mask|pass
//	    log             all|denied|off
//	    problem_type    <uri prefix>
//
//	    <directives of the suite and of Caddy>
//	}
//
// The directives may stand in any order; they run in the order of the walk.
// An encode goes outermost. A tracing goes around the api itself, so that its
// span sees the answer and can be told the decisions. A contract gets its input
// stage, and together with identity a require that enforces the contract's
// security. A reverse_proxy that names no transport gets the suite's own, if it
// is compiled in.
//
// What is to stand around the handler is returned beside it.
func setup(h httpcaddyfile.Helper) (_ caddyhttp.MiddlewareHandler, around []json.RawMessage, _ error) {
	h.Next() // consume the directive's name
	m := new(Handler)
	if !h.AllArgs(&m.Name) {
		return nil, nil, h.ArgErr()
	}
	if !validName.MatchString(m.Name) {
		return nil, nil, h.Errf("api name %q must be at most 64 letters, digits, dots, underscores and hyphens", m.Name)
	}
	start := h.Token()

	var segments []caddyfile.Segment
	for nesting := h.Nesting(); h.NextBlock(nesting); {
		switch opt := h.Val(); opt {
		case "owner":
			if err := parse.Text(h.Dispenser, &m.Owner); err != nil {
				return nil, nil, err
			}
		case "description":
			if err := parse.Text(h.Dispenser, &m.Description); err != nil {
				return nil, nil, err
			}
		case "errors":
			if err := parse.OneOf(h.Dispenser, &m.Errors, "problem", "site"); err != nil {
				return nil, nil, err
			}
		case "upstream_errors":
			if err := parse.OneOf(h.Dispenser, &m.UpstreamErrors, "mask", "pass"); err != nil {
				return nil, nil, err
			}
		case "log":
			if err := parse.OneOf(h.Dispenser, &m.Log, "all", "denied", "off"); err != nil {
				return nil, nil, err
			}
		case "problem_type":
			if err := parse.Text(h.Dispenser, &m.ProblemType); err != nil {
				return nil, nil, err
			}
		case "api":
			return nil, nil, h.Err("an api cannot stand inside another")
		default:
			segments = append(segments, h.NextSegment())
		}
	}
	if len(segments) == 0 {
		return nil, nil, h.Errf("api %s has no directives; a reverse_proxy is the least", m.Name)
	}

	var err error
	m.Routes, around, err = expand(h, m.Name, start, segments)
	return m, around, err
}

// expand hands the block's directives to Caddy, which sorts them, in three
// parts: tracing, which stands around the api; encode, which must see what the
// others write; and all else.
func expand(h httpcaddyfile.Helper, name string, start caddyfile.Token, segments []caddyfile.Segment) (routes caddyhttp.RouteList, around []json.RawMessage, _ error) {
	has := func(dir string) bool {
		return slices.ContainsFunc(segments, func(s caddyfile.Segment) bool { return s.Directive() == dir })
	}
	if err := nested(segments); err != nil {
		return nil, nil, err
	}
	bare := slices.ContainsFunc(segments, func(s caddyfile.Segment) bool { return s.Directive() == "require" && (len(s) == 1 || s[1].Text == "{") })
	var traced, outer, inner []caddyfile.Segment
	for _, s := range segments {
		switch dir := s.Directive(); {
		case strings.HasPrefix(dir, "@"):
			traced, outer, inner = append(traced, s), append(outer, s), append(inner, s)
		case dir == "tracing":
			traced = append(traced, s)
		case dir == "encode":
			outer = append(outer, s)
		default:
			inner = append(inner, resilient(s))
		}
	}
	if has("contract") {
		if !has("input") {
			inner = append(inner, parse.Implied("input", start))
		}
		if !bare { // identity may stand around the api; without any, nobody has what the contract asks for
			inner = append(inner, parse.Implied("require", start))
		}
	}

	// The directives learn whose they are.
	h.BlockState = maps.Clone(h.BlockState)
	if h.BlockState == nil {
		h.BlockState = make(map[string]any)
	}
	h.BlockState[parse.APIName] = name

	for part, segs := range [][]caddyfile.Segment{traced, outer, inner} {
		if part == 0 && !has("tracing") {
			continue
		}
		sub, err := httpcaddyfile.ParseSegmentAsSubroute(h.WithDispenser(parse.Block(start, segs)))
		if err != nil {
			return nil, nil, parse.Directive(err, segments, "api option or directive", slices.Concat(options, order.Stages(), common)...)
		}
		list, ok := sub.(*caddyhttp.Subroute)
		switch {
		case !ok:
		case part > 0:
			routes = append(routes, list.Routes...)
		default:
			around = handlers(list)
		}
	}
	return routes, around, nil
}

// nested refuses a contract in a route or handle of the block without a require and
// an input there: what api adds stands before that route, where no operation is
// known yet.
func nested(segments []caddyfile.Segment) error {
	for _, s := range segments {
		lines := directives(s)
		has := func(dir string) bool {
			return slices.ContainsFunc(lines, func(at int) bool { return s[at].Text == dir })
		}
		whole := has("require") && has("input")
		for _, at := range lines {
			if s[at].Text == "contract" && !whole && !schema(s[at:]) {
				d := caddyfile.NewDispenser(s[at:])
				d.Next()
				return d.Errf("contract stands in %s, where api adds neither input nor require; put it into the block of the api itself, or write require and input behind it", s.Directive())
			}
		}
	}
	return nil
}

// directives are where the lines inside a segment begin.
func directives(s caddyfile.Segment) (at []int) {
	for i := 1; i < len(s); i++ {
		if s[i].Line != s[i-1].Line || s[i].File != s[i-1].File {
			at = append(at, i)
		}
	}
	return at
}

// schema reports a contract that is for its route alone, and validates there.
func schema(tokens []caddyfile.Token) bool {
	for _, t := range tokens[1:min(3, len(tokens))] { // a matcher may stand before it
		if t.Line == tokens[0].Line && t.Text == "schema" {
			return true
		}
	}
	return false
}

// handlers are those of a list of routes, which stay a list if there is a
// condition to one of them.
func handlers(list *caddyhttp.Subroute) (raw []json.RawMessage) {
	for _, route := range list.Routes {
		if len(route.MatcherSetsRaw) > 0 {
			return []json.RawMessage{caddyconfig.JSONModuleObject(list, "handler", "subroute", nil)}
		}
		raw = append(raw, route.HandlersRaw...)
	}
	return raw
}

// parseDrain reads the global option. Syntax:
//
//	drain off|<duration>
func parseDrain(d *caddyfile.Dispenser, existing any) (any, error) {
	d.Next() // consume the option's name
	if existing != nil {
		return nil, d.Err("the drain option stands twice")
	}
	drain := new(Drain)
	if d.CountRemainingArgs() != 1 {
		return nil, d.ArgErr()
	}
	switch d.NextArg(); d.Val() {
	case "off":
		drain.Off = true
	default:
		wait, err := caddy.ParseDuration(d.Val())
		if err != nil || wait <= 0 || wait > maxDrain {
			return nil, d.Errf("drain %q is neither off nor a duration of up to %v", d.Val(), maxDrain)
		}
		drain.Wait = caddy.Duration(wait)
	}
	return httpcaddyfile.App{Name: "gatehouse_drain", Value: caddyconfig.JSON(drain, nil)}, nil
}

// parseHeadroom reads the global option. Syntax:
//
//	headroom off|<size>
func parseHeadroom(d *caddyfile.Dispenser, existing any) (any, error) {
	d.Next() // consume the option's name
	if existing != nil {
		return nil, d.Err("the headroom option stands twice")
	}
	var word string
	if !d.AllArgs(&word) {
		return nil, d.ArgErr()
	}
	headroom := new(Headroom)
	if headroom.Off = word == "off"; !headroom.Off {
		size, ok := parse.ParseSize(word)
		if !ok || size > maxHeadroom {
			return nil, d.Errf("headroom %q is neither off nor a size of up to 1GiB", word)
		}
		headroom.Size = size
	}
	return httpcaddyfile.App{Name: "gatehouse_headroom", Value: caddyconfig.JSON(headroom, nil)}, nil
}

// parseProxies reads the global option. Syntax:
//
//	proxy_headers <field...>
func parseProxies(d *caddyfile.Dispenser, existing any) (any, error) {
	d.Next() // consume the option's name
	if existing != nil {
		return nil, d.Err("the proxy_headers option stands twice")
	}
	proxies := &Proxies{Headers: d.RemainingArgs()}
	if len(proxies.Headers) == 0 {
		return nil, d.ArgErr()
	}
	for _, name := range proxies.Headers {
		if err := believable(name); err != nil {
			return nil, d.Err(err.Error())
		}
	}
	return httpcaddyfile.App{Name: "gatehouse_proxies", Value: caddyconfig.JSON(proxies, nil)}, nil
}
