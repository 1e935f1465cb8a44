package policytest

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// expect is what must be true of an outcome. Nil and zero values ask nothing.
type expect struct {
	handshake string // refused
	status    int
	reason    string
	operation *named
	release   string
	wouldDeny []string
	caller    map[string]string
	message
	upstream *expectUpstream
}

// message is what must be true of the answer, or of what the upstream got.
type message struct {
	headers []headerPattern
	body    *pattern
	json    *any
}

type expectUpstream struct {
	calls  int // -1: not asked
	method string
	path   *pattern
	to     string
	message
}

// pattern is a text, or a regular expression between slashes.
type pattern struct {
	text   string
	re     *regexp.Regexp
	absent bool
}

type headerPattern struct {
	name string
	pattern
}

const noReason = "none"

func reasonNames() []string {
	names := []string{noReason}
	for _, r := range gate.Reasons() {
		names = append(names, r.String())
	}
	return names
}

func (r *caseReader) expectation(n *yaml.Node) *expect {
	e := new(expect)
	fields := append(r.message(&e.message),
		field{"status", func(n *yaml.Node) { r.number(n, "status", 100, 599, &e.status) }},
		field{"reason", func(n *yaml.Node) { r.reason(n, &e.reason) }},
		field{"operation", func(n *yaml.Node) {
			e.operation = &named{line: n.Line}
			r.text(n, "operation", &e.operation.value)
		}},
		field{"release", func(n *yaml.Node) { r.text(n, "release", &e.release) }},
		field{"would_deny", func(n *yaml.Node) {
			e.wouldDeny = []string{}
			r.list(n, "would_deny", func(n *yaml.Node) {
				var reason string
				r.reason(n, &reason)
				e.wouldDeny = append(e.wouldDeny, reason)
			})
		}},
		field{"caller", func(n *yaml.Node) { e.caller = r.expectedCaller(n) }},
		field{"handshake", func(n *yaml.Node) {
			if r.text(n, "handshake", &e.handshake); e.handshake != "refused" {
				r.fail(n.Line, "%s", parse.Misspelt("handshake", e.handshake, "refused"))
			}
		}},
		field{"upstream", func(n *yaml.Node) { e.upstream = r.expectedUpstream(n) }},
	)
	if r.object(n, "expect", fields...) && len(n.Content) == 0 {
		r.fail(n.Line, "nothing is expected; a case that asserts nothing shows nothing")
	}
	return e
}

func (r *caseReader) reason(n *yaml.Node, to *string) {
	r.text(n, "reason", to)
	if known := reasonNames(); !slices.Contains(known, *to) {
		stage, _, _ := strings.Cut(*to, ".")
		of := slices.DeleteFunc(known, func(name string) bool { return !strings.HasPrefix(name, stage+".") })
		if len(of) == 0 { // the stage itself may be misspelt
			of = reasonNames()
		}
		r.fail(n.Line, "%s", parse.Misspelt("reason", *to, of...))
	}
}

func (r *caseReader) message(m *message) []field {
	return []field{
		{"headers", func(n *yaml.Node) {
			if n.Kind != yaml.MappingNode || len(n.Content) == 0 {
				r.fail(n.Line, "headers must be an object of header fields")
				return
			}
			for i := 0; i+1 < len(n.Content); i += 2 {
				value := resolved(n.Content[i+1])
				p := headerPattern{name: n.Content[i].Value}
				if p.absent = value.Tag == "!!null"; !p.absent {
					p.pattern = *r.pattern(value, p.name)
				}
				m.headers = append(m.headers, p)
			}
		}},
		{"body", func(n *yaml.Node) { m.body = r.pattern(n, "body") }},
		{"json", func(n *yaml.Node) {
			m.json = new(any)
			r.value(n, "json", m.json)
		}},
	}
}

func (r *caseReader) pattern(n *yaml.Node, what string) *pattern {
	p := new(pattern)
	r.text(n, what, &p.text)
	if inner, ok := strings.CutPrefix(p.text, "/"); ok && len(inner) > 1 && strings.HasSuffix(inner, "/") && what != "path" {
		var err error
		if p.re, err = regexp.Compile(strings.TrimSuffix(inner, "/")); err != nil {
			r.fail(n.Line, "%s: %v", what, err)
		}
	}
	return p
}

func (r *caseReader) expectedCaller(n *yaml.Node) map[string]string {
	facts := map[string]string{}
	if n.Kind == yaml.ScalarNode && n.Value == nobody {
		return facts
	}
	var fields []field
	for _, name := range []string{"subject", "client", "tenant", "plan", "issuer", "method"} {
		fields = append(fields, field{name, func(n *yaml.Node) {
			var s string
			r.text(n, name, &s)
			facts[name] = s
		}})
	}
	if r.object(n, "caller", fields...) && len(facts) == 0 {
		r.fail(n.Line, "caller needs facts, or is nobody")
	}
	return facts
}

func (r *caseReader) expectedUpstream(n *yaml.Node) *expectUpstream {
	u := &expectUpstream{calls: -1}
	fields := append(r.message(&u.message),
		field{"called", func(n *yaml.Node) {
			var called bool
			if r.flag(n, "called", &called); called {
				u.calls = atLeastOnce
			} else {
				u.calls = 0
			}
		}},
		field{"calls", func(n *yaml.Node) { r.number(n, "calls", 0, 1000, &u.calls) }},
		field{"method", func(n *yaml.Node) { r.text(n, "method", &u.method) }},
		field{"path", func(n *yaml.Node) { u.path = r.pattern(n, "path") }},
		field{"to", func(n *yaml.Node) { r.text(n, "to", &u.to) }},
	)
	if r.object(n, "upstream", fields...) && len(n.Content) == 0 {
		r.fail(n.Line, "nothing is expected of the upstream")
	}
	return u
}

const atLeastOnce = -2

// difference is one thing that is not as expected.
type difference struct{ what, want, got string }

func (d difference) String() string {
	return fmt.Sprintf("%s: expected %s, got %s", d.what, d.want, d.got)
}

// compare lists what is not as expected.
func (e *expect) compare(o *outcome) (diffs []difference) {
	differ := func(what string, want, got any) {
		diffs = append(diffs, difference{what, fmt.Sprint(want), fmt.Sprint(got)})
	}
	if o.refused || e.handshake != "" {
		if !o.refused {
			differ("handshake", e.handshake, "an answer")
		} else if e.handshake == "" {
			differ("connection", "an answer", "a TLS handshake that is refused, since the site demands a client certificate")
		}
		return diffs
	}
	if e.status != 0 && e.status != o.status {
		differ("status", e.status, o.said())
	}
	if got := orNone(o.reason); e.reason != "" && e.reason != got {
		differ("reason", e.reason, got)
	}
	if got := orNone(o.operation()); e.operation != nil && e.operation.value != got {
		differ("operation", e.operation.value, got)
	}
	if got := o.release(); e.release != "" && e.release != got {
		differ("release", e.release, orNone(got))
	}
	if got := o.wouldDeny(); e.wouldDeny != nil && !slices.Equal(slices.Sorted(slices.Values(e.wouldDeny)), slices.Sorted(slices.Values(got))) {
		differ("would_deny", e.wouldDeny, got)
	}
	if e.caller != nil {
		diffs = append(diffs, compareCaller(e.caller, o)...)
	}
	diffs = append(diffs, e.message.compare("", o.header.Values, o.body, o.json())...)
	if e.upstream != nil {
		diffs = append(diffs, e.upstream.compare(o)...)
	}
	return diffs
}

func orNone(s string) string {
	if s == "" {
		return noReason
	}
	return s
}

func compareCaller(want map[string]string, o *outcome) (diffs []difference) {
	p := o.principal()
	if len(want) == 0 || p == nil {
		if got := orNobody(p); len(want) != 0 || p != nil {
			wanted := nobody
			if len(want) != 0 {
				wanted = "somebody"
			}
			return []difference{{"caller", wanted, got}}
		}
		return nil
	}
	for name, got := range map[string]string{"subject": p.Subject, "client": p.Client, "tenant": p.Tenant, "plan": p.Plan, "issuer": p.Issuer, "method": p.Method.String()} {
		if w, asked := want[name]; asked && w != got {
			diffs = append(diffs, difference{"caller " + name, w, orNone(got)})
		}
	}
	slices.SortFunc(diffs, func(a, b difference) int { return strings.Compare(a.what, b.what) })
	return diffs
}

func orNobody(p *gate.Principal) string {
	if p == nil {
		return nobody
	}
	return p.Subject
}

func (p *pattern) matches(s string) bool {
	if p.re != nil {
		return p.re.MatchString(s)
	}
	return s == p.text
}

func (m *message) compare(of string, header func(string) []string, body []byte, json any) (diffs []difference) {
	for _, h := range m.headers {
		values := header(h.name)
		if h.absent {
			if len(values) > 0 {
				diffs = append(diffs, difference{of + h.name, noReason, strings.Join(values, ", ")})
			}
			continue
		}
		if !slices.ContainsFunc(values, h.matches) {
			diffs = append(diffs, difference{of + h.name, h.text, orNone(strings.Join(values, ", "))})
		}
	}
	if m.body != nil && !m.body.matches(string(body)) {
		diffs = append(diffs, difference{of + "body", m.body.text, excerpt(body)})
	}
	if m.json != nil {
		if at, want, got, ok := within(*m.json, json, ""); !ok {
			diffs = append(diffs, difference{of + "json" + at, want, got})
		}
	}
	return diffs
}

func (u *expectUpstream) compare(o *outcome) (diffs []difference) {
	n := len(o.calls)
	switch {
	case u.calls == atLeastOnce && n == 0:
		return []difference{{"upstream", "a call", noReason}}
	case u.calls >= 0 && u.calls != n:
		return []difference{{"upstream calls", strconv.Itoa(u.calls), strconv.Itoa(n)}}
	case n == 0:
		if u.asks() {
			return []difference{{"upstream", "a call", noReason}}
		}
		return nil
	}
	c := o.calls[n-1]
	if u.method != "" && u.method != c.method {
		diffs = append(diffs, difference{"upstream method", u.method, c.method})
	}
	if u.path != nil && !u.path.matches(c.path) {
		diffs = append(diffs, difference{"upstream path", u.path.text, c.path})
	}
	if u.to != "" && u.to != c.to {
		diffs = append(diffs, difference{"upstream", u.to, c.to})
	}
	return append(diffs, u.message.compare("upstream ", c.values, c.body, c.json)...)
}

// asks reports whether anything is expected of the call itself.
func (u *expectUpstream) asks() bool {
	return u.method != "" || u.path != nil || u.to != "" || len(u.headers) > 0 || u.body != nil || u.json != nil
}
