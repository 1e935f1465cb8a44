package canary

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/order"
	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

func init() { parse.Handler("canary", setup) }

var (
	options         = []string{"weight", "sticky", "force", "rollback", "name", "mode"}
	rollbackOptions = []string{"errors", "latency", "samples", "window", "mode"}

	// common are the directives that a release is likely to have, for the
	// answer to a misspelt one.
	common = []string{"handle", "handle_path", "header", "invoke", "request_header", "respond", "reverse_proxy", "rewrite", "route", "uri"}
)

// setup reads the directive. Syntax:
//
//	canary [<matcher>] <release> {
//	    weight   <percent>
//	    sticky   principal|address|cookie [<name>]
//	    force    <header> [<value>]
//	    rollback off
//	    rollback {
//	        errors  <percent>
//	        latency <factor>x
//	        samples <count>
//	        window  <duration>
//	        mode    enforce|shadow|off
//	    }
//	    name     <text>
//	    mode     enforce|shadow|off
//
//	    <directives that answer for the release>
//	}
func setup(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
	h.Next() // consume the directive's name
	m := new(Handler)
	m.Name, _ = h.BlockState[parse.APIName].(string)
	if !h.AllArgs(&m.Release) {
		return nil, h.ArgErr()
	}
	if !validRelease.MatchString(m.Release) || strings.EqualFold(m.Release, stableName) {
		return nil, h.Errf("%q cannot name a release: at most 63 letters, digits, underscores and hyphens, and not stable", m.Release)
	}
	start := h.Token()
	var segments []caddyfile.Segment
	for nesting := h.Nesting(); h.NextBlock(nesting); {
		known, err := m.option(h.Dispenser)
		switch {
		case err != nil:
			return nil, err
		case known:
		case h.Val() == "canary" || h.Val() == "api":
			return nil, h.Errf("%s cannot stand inside a canary", articled(h.Val()))
		default:
			segments = append(segments, h.NextSegment())
		}
	}
	if !slices.ContainsFunc(segments, func(s caddyfile.Segment) bool { return !strings.HasPrefix(s.Directive(), "@") }) {
		return nil, h.Errf("canary %s has no directives that answer for it; a reverse_proxy is the least", m.Release)
	}
	if err := m.addUp(h, start); err != nil {
		return nil, err
	}
	sub, err := httpcaddyfile.ParseSegmentAsSubroute(h.WithDispenser(parse.Block(start, segments)))
	if err != nil {
		return nil, parse.Directive(err, segments, "canary option or directive", known()...)
	}
	if sub, ok := sub.(*caddyhttp.Subroute); ok {
		m.Routes = sub.Routes
	}
	return m, nil
}

func articled(word string) string {
	if word == "api" {
		return "an api"
	}
	return "a " + word
}

// option reads one of the canary's own options.
func (h *Handler) option(d *caddyfile.Dispenser) (bool, error) {
	switch d.Val() {
	case "weight":
		return true, percent(d, &h.Weight, 0)
	case "sticky":
		return true, h.unmarshalSticky(d)
	case "force":
		args := d.RemainingArgs()
		if len(args) < 1 || len(args) > 2 {
			return true, d.ArgErr()
		}
		h.Force = &Force{Header: args[0]}
		if !validToken.MatchString(args[0]) {
			return true, d.Errf("%q cannot be the name of a header field", args[0])
		}
		if len(args) == 2 {
			h.Force.Value = args[1]
		}
		if strings.EqualFold(h.Force.Value, stableName) {
			return true, d.Errf("%s asks for the stable release; another value must ask for this one", stableName)
		}
		return true, nil
	case "rollback":
		return true, h.Rollback.unmarshal(d)
	case "name":
		if err := parse.Text(d, &h.Name); err != nil {
			return true, err
		}
		if !validName.MatchString(h.Name) {
			return true, d.Errf("name %q must be at most 64 letters, digits, dots, underscores and hyphens", h.Name)
		}
		return true, nil
	case "mode":
		return true, parse.Into(d, &h.Mode)
	}
	return false, nil
}

func (h *Handler) unmarshalSticky(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) == 0 {
		return d.ArgErr()
	}
	h.Sticky = args[0]
	if !slices.Contains(stickies, h.Sticky) {
		return parse.Unknown(d, "sticky", h.Sticky, stickies...)
	}
	switch {
	case len(args) == 1:
	case len(args) > 2 || h.Sticky != "cookie":
		return d.ArgErr()
	case !validToken.MatchString(args[1]):
		return d.Errf("%q cannot be the name of a cookie", args[1])
	default:
		h.Cookie = args[1]
	}
	return nil
}

func (b *Rollback) unmarshal(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		if d.Val() != "off" || d.NextArg() {
			return parse.Unknown(d, "rollback", d.Val(), "off", "a block")
		}
		b.Mode = gate.Off
		return nil
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch opt := d.Val(); opt {
		case "errors":
			err = percent(d, &b.Errors, 1e-6)
		case "latency":
			err = factor(d, &b.Latency)
		case "samples":
			if err = parse.Count(d, &b.Samples); err == nil && b.Samples > maxSamples {
				err = d.Errf("samples %d is more than %d", b.Samples, maxSamples)
			}
		case "window":
			err = parse.Duration(d, &b.Window)
		case "mode":
			err = parse.Into(d, &b.Mode)
		default:
			err = parse.Unknown(d, "rollback option", opt, rollbackOptions...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// percent reads a number such as 5% or 0.5%.
func percent(d *caddyfile.Dispenser, to *float64, least float64) error {
	opt := d.Val()
	var word string
	if !d.AllArgs(&word) {
		return d.ArgErr()
	}
	digits, ok := strings.CutSuffix(word, "%")
	n, err := strconv.ParseFloat(digits, 64)
	if !ok || err != nil || !(n >= least && n <= 100) {
		return d.Errf("%s %q is not a percentage; write for example 5%%", opt, word)
	}
	*to = n
	return nil
}

// factor reads a number such as 1.5x.
func factor(d *caddyfile.Dispenser, to *float64) error {
	opt := d.Val()
	var word string
	if !d.AllArgs(&word) {
		return d.ArgErr()
	}
	digits, ok := strings.CutSuffix(word, "x")
	n, err := strconv.ParseFloat(digits, 64)
	if !ok || err != nil || !(n > 1 && n <= 1000) {
		return d.Errf("%s %q is not a factor above 1; write for example 1.5x", opt, word)
	}
	*to = n
	return nil
}

// addUp holds the weights of the releases in one block to 100%, and their names
// apart.
func (h *Handler) addUp(helper httpcaddyfile.Helper, at caddyfile.Token) error {
	const key = "gatehouse.canary"
	before, _ := helper.BlockState[key].(map[string]float64)
	id, sum := h.Name+"."+h.Release, h.Weight
	if _, twice := before[id]; twice {
		return fmt.Errorf("release %s stands twice; give each a name of its own, at %s:%d", h.Release, at.File, at.Line)
	}
	for _, weight := range before {
		sum += weight
	}
	if sum > 100 {
		return fmt.Errorf("the releases of this block have %g%% of the callers; 100%% is the most, at %s:%d", sum, at.File, at.Line)
	}
	all := map[string]float64{id: h.Weight} // of this block alone: blocks inside begin with a copy
	maps.Copy(all, before)
	if helper.BlockState != nil {
		helper.BlockState[key] = all
	}
	return nil
}

// known lists the words that may stand in the block.
func known() []string {
	words := slices.Concat(options, order.Stages(), common)
	return slices.DeleteFunc(words, func(w string) bool { return w == "canary" })
}
