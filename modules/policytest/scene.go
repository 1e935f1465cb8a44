package policytest

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// This file reads who asks, what is asked, and what the upstream answers.

func (r *caseReader) named(n *yaml.Node) {
	if n.Kind != yaml.MappingNode {
		r.fail(n.Line, "callers must be an object of names")
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		name := n.Content[i].Value
		if name == nobody {
			r.fail(n.Content[i].Line, "nobody is who has no credential, and cannot be given one")
		}
		r.callers[name] = r.caller(resolved(n.Content[i+1]))
	}
}

const nobody = "nobody"

func (r *caseReader) caller(n *yaml.Node) *caller {
	if n.Kind == yaml.ScalarNode {
		if n.Value == nobody {
			return nil
		}
		c, ok := r.callers[n.Value]
		if !ok {
			known := []string{nobody}
			for name := range r.callers {
				known = append(known, name)
			}
			slices.Sort(known)
			r.fail(n.Line, "%s", parse.Misspelt("caller", n.Value, known...))
		}
		return c
	}
	c := &caller{line: n.Line, facts: map[string]any{}, expires: time.Hour}
	fact := func(name string) field {
		return field{name, func(n *yaml.Node) {
			var s string
			r.text(n, name, &s)
			c.facts[name] = s
			if name == "plan" {
				c.plan = &named{s, n.Line}
			}
		}}
	}
	facts := func(name string) field {
		return field{name, func(n *yaml.Node) {
			var l []string
			r.words(n, name, &l)
			c.facts[name] = l
		}}
	}
	word := func(name string, to **named) field {
		return field{name, func(n *yaml.Node) {
			*to = &named{line: n.Line}
			r.text(n, name, &(*to).value)
		}}
	}
	token := false
	r.object(n, "caller",
		fact("subject"), fact("client"), fact("tenant"), fact("plan"), facts("roles"), facts("scopes"),
		word("issuer", &c.issuer),
		field{"claims", func(n *yaml.Node) {
			var v any
			r.value(n, "claims", &v)
			var ok bool
			if c.claims, ok = v.(map[string]any); !ok {
				r.fail(n.Line, "claims must be an object")
			}
			token = true
		}},
		field{"audience", func(n *yaml.Node) { token = true; r.words(n, "audience", &c.audience) }},
		field{"expires", func(n *yaml.Node) { token = true; r.duration(n, "expires", &c.expires) }},
		field{"not_before", func(n *yaml.Node) { token = true; r.duration(n, "not_before", &c.notBefore) }},
		field{"forged", func(n *yaml.Node) { token = true; r.flag(n, "forged", &c.forged) }},
		word("key", &c.key),
		field{"certificate", func(n *yaml.Node) { c.certificate = r.certificate(n) }},
	)
	switch {
	case c.key != nil && (token || c.issuer != nil || c.certificate != nil):
		r.fail(n.Line, "a key has neither an issuer nor claims nor a certificate")
	case c.certificate != nil && (token || c.issuer != nil || len(c.facts) > 0):
		r.fail(n.Line, "whoever has a certificate is called what it says; it has no other facts")
	}
	return c
}

func (r *caseReader) certificate(n *yaml.Node) *certificate {
	c := new(certificate)
	text := func(name string, to *string) field {
		return field{name, func(n *yaml.Node) { r.text(n, name, to) }}
	}
	r.object(n, "certificate", text("common_name", &c.name), text("uri", &c.uri), text("dns", &c.dns), text("email", &c.email))
	if *c == (certificate{}) {
		r.fail(n.Line, "a certificate needs a common_name, uri, dns or email")
	}
	return c
}

var validMethod = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$") // RFC 9110, section 9.1

func (r *caseReader) request(n *yaml.Node) *request {
	q := &request{method: "GET", line: n.Line}
	if n.Kind == yaml.ScalarNode {
		var ok bool
		if q.method, q.path, ok = strings.Cut(n.Value, " "); !ok {
			r.fail(n.Line, "request %q is not a method and a path, such as GET /orders", n.Value)
			return q
		}
	} else {
		var body content
		r.object(n, "request", append(r.content(&body),
			field{"method", func(n *yaml.Node) { r.text(n, "method", &q.method) }},
			field{"path", func(n *yaml.Node) { r.text(n, "path", &q.path) }},
			field{"headers", func(n *yaml.Node) { r.headers(n, "headers", &q.headers) }},
		)...)
		q.body = body.data
		q.headers = body.typed(q.headers)
	}
	if !validMethod.MatchString(q.method) {
		r.fail(n.Line, "%q is not a method", q.method)
	}
	if !strings.HasPrefix(q.path, "/") && q.path != "*" {
		r.fail(n.Line, "path %q does not begin with a slash", q.path)
	}
	return q
}

// content is a body, in one of two ways to write it.
type content struct {
	data []byte
	json bool
	set  int
}

func (r *caseReader) content(c *content) []field {
	once := func(n *yaml.Node) {
		if c.set++; c.set > 1 {
			r.fail(n.Line, "there is one body: either body or json")
		}
	}
	return []field{
		{"body", func(n *yaml.Node) {
			once(n)
			var s string
			r.text(n, "body", &s)
			c.data = []byte(s)
		}},
		{"json", func(n *yaml.Node) {
			once(n)
			var v any
			r.value(n, "json", &v)
			c.data, c.json = marshal(v), true
		}},
	}
}

// typed says what the body is, unless a header field does.
func (c *content) typed(headers []headerField) []headerField {
	if !c.json || slices.ContainsFunc(headers, func(h headerField) bool { return strings.EqualFold(h.name, "Content-Type") }) {
		return headers
	}
	return append(headers, headerField{name: "Content-Type", values: []string{"application/json"}})
}

func (r *caseReader) answers(n *yaml.Node) (all []*answer) {
	if n.Kind != yaml.SequenceNode {
		return []*answer{r.answer(n)}
	}
	r.list(n, "upstream", func(n *yaml.Node) { all = append(all, r.answer(n)) })
	if len(all) == 0 {
		r.fail(n.Line, "upstream needs an answer")
	}
	return all
}

func (r *caseReader) answer(n *yaml.Node) *answer {
	a := &answer{status: 200}
	if n.Kind == yaml.ScalarNode {
		if a.unreachable = true; n.Value != "unreachable" {
			r.fail(n.Line, "%s", parse.Misspelt("upstream", n.Value, "unreachable"))
		}
		return a
	}
	var body content
	var call callAnswer
	isCall, isPlain := false, false
	r.object(n, "upstream", append(r.content(&body),
		field{"status", func(n *yaml.Node) { isPlain = true; r.number(n, "status", 200, 599, &a.status) }},
		field{"headers", func(n *yaml.Node) { r.headers(n, "headers", &a.headers) }},
		field{"message", func(n *yaml.Node) {
			isCall = true
			var v any
			r.value(n, "message", &v)
			call.messages = append(call.messages, v)
		}},
		field{"messages", func(n *yaml.Node) {
			isCall = true
			r.list(n, "messages", func(n *yaml.Node) {
				var v any
				r.value(n, "message", &v)
				call.messages = append(call.messages, v)
			})
		}},
		field{"code", func(n *yaml.Node) {
			isCall = true
			var name string
			r.text(n, "code", &name)
			if call.code = slices.Index(codeNames, name); call.code < 0 {
				r.fail(n.Line, "%s", parse.Misspelt("code", name, codeNames...))
			}
		}},
		field{"detail", func(n *yaml.Node) { isCall = true; r.text(n, "detail", &call.detail) }},
	)...)
	if isCall && (isPlain || body.set > 0) {
		r.fail(n.Line, "an answer in gRPC has messages, a code and a detail, and neither status nor body")
	}
	if isCall {
		call.line = n.Line
		a.call = &call
	}
	a.body, a.headers = body.data, body.typed(a.headers)
	return a
}

// codeNames are those of gRPC, by number.
var codeNames = func() (names []string) {
	for i := range 17 {
		names = append(names, gate.ParseCode(strconv.Itoa(i)).String())
	}
	return names
}()
