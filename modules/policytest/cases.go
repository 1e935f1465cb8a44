package policytest

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"go.yaml.in/yaml/v3"
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
