package policytest

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// Suffix is how the name of a file with cases ends.
const Suffix = ".test.yaml"

// suite is one file of cases.
type suite struct {
	name   string
	config string // the configuration they are about
	env    map[string]string
	cases  []*testCase
}

// testCase is a sequence of steps that a gateway meets which was just started.
type testCase struct {
	name  string
	line  int
	clock time.Time
	steps []*step
}

// step is one request, made once or several times, and what is expected of it.
type step struct {
	line    int
	advance time.Duration
	times   int
	scene
	expect *expect
}

// scene is what a file sets for its cases, and a case for its steps.
type scene struct {
	site     *named
	as       *caller
	from     netip.Addr
	request  *request
	upstream []*answer
}

// named is a word whose meaning depends on the configuration.
type named struct {
	value string
	line  int
}

// caller is who asks.
type caller struct {
	facts       map[string]any // of identity.App.Rehearse
	claims      map[string]any
	issuer      *named
	plan        *named
	audience    []string
	expires     time.Duration
	notBefore   time.Duration
	forged      bool
	key         *named
	certificate *certificate
	line        int
}

// certificate is a client's, as far as identity reads it.
type certificate struct{ name, uri, dns, email string }

type request struct {
	method, path string
	headers      []headerField
	body         []byte
	line         int
}

// answer is what the upstream says.
type answer struct {
	unreachable bool
	status      int
	headers     []headerField
	body        []byte
	call        *callAnswer // of gRPC
}

type callAnswer struct {
	messages []any
	code     int
	detail   string
	line     int
}

// defaultClock is when a case begins that does not say: the same time every
// day, so that a test never depends on when it is run. It is a Thursday.
var defaultClock = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)

// defaultFrom is an address that documentation may use (RFC 5737).
var defaultFrom = netip.MustParseAddr("192.0.2.1")

// readSuite reads a file of cases.
func readSuite(name string) (*suite, error) {
	data, err := os.ReadFile(name) //nolint:gosec // the operator's own file
	if err != nil {
		return nil, err
	}
	return parseSuite(name, data)
}

func parseSuite(name string, data []byte) (*suite, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(doc.Content) == 0 {
		return nil, fmt.Errorf("%s: there are no cases", name)
	}
	r := &caseReader{reader: reader{file: name}, callers: map[string]*caller{}}
	s := &suite{name: name, config: filepath.Join(filepath.Dir(name), "Caddyfile")}
	base := scene{from: defaultFrom, upstream: []*answer{{status: 200}}}
	clock := defaultClock
	var cases *yaml.Node
	r.object(doc.Content[0], "file", slices.Concat([]field{
		{"config", func(n *yaml.Node) {
			r.text(n, "config", &s.config)
			if !filepath.IsAbs(s.config) {
				s.config = filepath.Join(filepath.Dir(name), s.config)
			}
		}},
		{"env", func(n *yaml.Node) { s.env = r.env(n) }},
		{"clock", func(n *yaml.Node) { r.time(n, "clock", &clock) }},
		{"callers", r.named},
		{"cases", func(n *yaml.Node) { cases = n }},
	}, r.scene(&base))...)
	if cases == nil {
		r.fail(doc.Content[0].Line, "there are no cases")
		return nil, r.err()
	}
	r.list(cases, "cases", func(n *yaml.Node) { s.cases = append(s.cases, r.testCase(n, base, clock)) })
	if len(s.cases) == 0 {
		r.fail(cases.Line, "there are no cases")
	}
	return s, r.err()
}

// caseReader knows the callers that the file has given a name.
type caseReader struct {
	reader
	callers map[string]*caller
}

// scene lists the words that files, cases and steps have in common.
func (r *caseReader) scene(s *scene) []field {
	return []field{
		{"site", func(n *yaml.Node) {
			s.site = &named{line: n.Line}
			r.text(n, "site", &s.site.value)
		}},
		{"as", func(n *yaml.Node) { s.as = r.caller(n) }},
		{"from", func(n *yaml.Node) {
			var err error
			if s.from, err = netip.ParseAddr(n.Value); err != nil {
				r.fail(n.Line, "from %q is not an IP address", n.Value)
			}
		}},
		{"request", func(n *yaml.Node) { s.request = r.request(n) }},
		{"upstream", func(n *yaml.Node) { s.upstream = r.answers(n) }},
	}
}

func (r *caseReader) testCase(n *yaml.Node, base scene, clock time.Time) *testCase {
	c := &testCase{line: n.Line, clock: clock}
	alone := &step{line: n.Line, times: 1, scene: base}
	var steps *yaml.Node
	var own []*yaml.Node // what belongs to a step
	fields := []field{
		{"name", func(n *yaml.Node) { r.text(n, "name", &c.name) }},
		{"clock", func(n *yaml.Node) { r.time(n, "clock", &c.clock) }},
		{"steps", func(n *yaml.Node) { steps = n }},
	}
	for _, f := range r.step(alone) {
		fields = append(fields, field{f.name, func(n *yaml.Node) {
			if f.name == "times" || f.name == "expect" || f.name == "advance" {
				own = append(own, n)
			}
			f.read(n)
		}})
	}
	if !r.object(n, "case", fields...) {
		return c
	}
	if c.name == "" {
		r.fail(n.Line, "a case needs a name")
	}
	if steps == nil {
		r.complete(alone)
		c.steps = []*step{alone}
		return c
	}
	for _, n := range own {
		r.fail(n.Line, "times, advance and expect belong to each of the steps")
	}
	r.list(steps, "steps", func(n *yaml.Node) {
		s := &step{line: n.Line, times: 1, scene: alone.scene}
		if r.object(n, "step", r.step(s)...) {
			r.complete(s)
		}
		c.steps = append(c.steps, s)
	})
	if len(c.steps) == 0 {
		r.fail(steps.Line, "there are no steps")
	}
	return c
}

func (r *caseReader) step(s *step) []field {
	return append(r.scene(&s.scene),
		field{"advance", func(n *yaml.Node) {
			if r.duration(n, "advance", &s.advance); s.advance < 0 {
				r.fail(n.Line, "the time does not go back")
			}
		}},
		field{"times", func(n *yaml.Node) { r.number(n, "times", 1, 100_000, &s.times) }},
		field{"expect", func(n *yaml.Node) { s.expect = r.expectation(n) }},
	)
}

// complete looks for what a step cannot do without.
func (r *caseReader) complete(s *step) {
	if s.request == nil {
		r.fail(s.line, "a request is needed, such as GET /orders")
	}
	if s.expect == nil {
		r.fail(s.line, "nothing is expected; a case that asserts nothing shows nothing")
	}
}

// env reads what the environment has while the cases run.
func (r *caseReader) env(n *yaml.Node) map[string]string {
	env := map[string]string{}
	if n.Kind != yaml.MappingNode {
		r.fail(n.Line, "env must be an object of names")
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		var value string
		r.text(resolved(n.Content[i+1]), n.Content[i].Value, &value)
		env[n.Content[i].Value] = value
	}
	return env
}

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
		names = append(names, gate.ParseCode(fmt.Sprint(i)).String())
	}
	return names
}()
