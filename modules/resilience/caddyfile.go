package resilience

import (
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
)

var (
	breakerOptions = []string{"ratio", "samples", "window", "consecutive", "open", "max_open", "probes", "statuses", "all_open"}
	retryOptions   = []string{"budget", "at_least", "body", "statuses"}
	policyOptions  = []string{"local_zone", "zone"}
)

// UnmarshalCaddyfile sets up the transport from Caddyfile tokens. Syntax:
//
//	transport gatehouse {
//	    try_timeout <duration>
//	    timeout     <duration>
//	    breaker {
//	        ratio       <percent>
//	        samples     <count>
//	        window      <duration>
//	        consecutive <count>
//	        open        <duration>
//	        max_open    <duration>
//	        probes      <count>
//	        statuses    <code|class...>
//	        all_open    pass|refuse
//	    }
//	    retry {
//	        budget   <percent>
//	        at_least <count>
//	        body     <size>
//	        statuses <code|class...>
//	    }
//	    mode enforce|shadow|off
//
//	    <options of transport http>
//	}
func (t *Transport) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the transport's name
	name := d.Token()
	if d.NextArg() {
		return d.ArgErr()
	}
	tokens := []caddyfile.Token{name}
	for d.NextBlock(0) {
		var err error
		switch d.Val() {
		case "try_timeout":
			err = parse.Duration(d, &t.TryTimeout)
		case "timeout":
			err = parse.Duration(d, &t.Timeout)
		case "breaker":
			err = t.Breaker.unmarshal(d)
		case "retry":
			err = t.Retry.unmarshal(d)
		case "mode":
			err = parse.Into(d, &t.Mode)
		default: // Caddy knows, or says that it does not
			if len(tokens) == 1 {
				tokens = append(tokens, caddyfile.Token{File: name.File, Line: name.Line, Text: "{"})
			}
			tokens = append(tokens, d.NextSegment()...)
		}
		if err != nil {
			return err
		}
	}
	if len(tokens) == 1 {
		return nil
	}
	last := tokens[len(tokens)-1]
	tokens = append(tokens, caddyfile.Token{File: name.File, Line: last.Line + 1, Text: "}"})
	return t.HTTPTransport.UnmarshalCaddyfile(caddyfile.NewDispenser(tokens))
}

func (b *Breaker) unmarshal(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch opt := d.Val(); opt {
		case "ratio":
			err = percent(d, &b.Ratio)
		case "samples":
			err = parse.Count(d, &b.Samples)
		case "window":
			err = parse.Duration(d, &b.Window)
		case "consecutive":
			err = parse.Count(d, &b.Consecutive)
		case "open":
			err = parse.Duration(d, &b.Open)
		case "max_open":
			err = parse.Duration(d, &b.MaxOpen)
		case "probes":
			err = parse.Count(d, &b.Probes)
		case "statuses":
			err = statuses(d, &b.Statuses)
		case "all_open":
			if err = parse.Text(d, &b.AllOpen); err == nil && b.AllOpen != "pass" && b.AllOpen != "refuse" {
				err = parse.Unknown(d, "all_open", b.AllOpen, "pass", "refuse")
			}
		default:
			err = parse.Unknown(d, "breaker option", opt, breakerOptions...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (r *Retry) unmarshal(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch opt := d.Val(); opt {
		case "budget":
			err = percent(d, &r.Budget)
		case "at_least":
			err = parse.Count(d, &r.AtLeast)
		case "body":
			err = parse.Size(d, &r.Body)
		case "statuses":
			err = statuses(d, &r.Statuses)
		default:
			err = parse.Unknown(d, "retry option", opt, retryOptions...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// percent reads a share of more than nothing.
func percent(d *caddyfile.Dispenser, to *float64) error {
	opt := d.Val()
	err := parse.Percent(d, to)
	if err == nil && *to == 0 {
		err = d.Errf("%s must be more than nothing", opt)
	}
	return err
}

// statuses reads codes such as 503 and classes such as 5xx.
func statuses(d *caddyfile.Dispenser, to *[]int) error {
	words := d.RemainingArgs()
	if len(words) == 0 {
		return d.ArgErr()
	}
	for _, word := range words {
		n, err := strconv.Atoi(strings.TrimSuffix(word, "xx"))
		if err != nil || !validStatus(n) || (n < 10) != strings.HasSuffix(word, "xx") {
			return d.Errf("%q is not a status code such as 503 or a class such as 5xx", word)
		}
		*to = append(*to, n)
	}
	return nil
}

// UnmarshalCaddyfile sets up the policy from Caddyfile tokens. Syntax:
//
//	lb_policy gatehouse {
//	    local_zone <name>
//	    zone       <name> <upstream...>
//	}
func (p *Policy) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the policy's name
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		switch opt := d.Val(); opt {
		case "local_zone":
			if err := parse.Text(d, &p.LocalZone); err != nil {
				return err
			}
		case "zone":
			args := d.RemainingArgs()
			if len(args) < 2 {
				return d.ArgErr()
			}
			if p.Zones == nil {
				p.Zones = map[string][]string{}
			}
			p.Zones[args[0]] = append(p.Zones[args[0]], args[1:]...)
		default:
			return parse.Unknown(d, "lb_policy option", opt, policyOptions...)
		}
	}
	return nil
}

// Interface guards
var (
	_ caddyfile.Unmarshaler = (*Transport)(nil)
	_ caddyfile.Unmarshaler = (*Policy)(nil)
)
