package policytest

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestMisspelt holds that what is wrong in a file of cases is told with its
// line, and with the word that was likely meant.
func TestMisspelt(t *testing.T) {
	const good = "{ request: GET /a, expect: { status: 200 } }"
	for _, c := range []struct{ name, file, want string }{
		{"an empty file", "", "there are no cases"},
		{"no cases", "clock: 2026-01-01T00:00:00Z", ":1: there are no cases"},
		{"an empty list", "cases: []", ":1: there are no cases"},
		{"no YAML", "cases: [", "did not find expected"},
		{"a misspelt word of the file", "case: []\ncases: [{ name: a, request: GET /a, expect: { status: 200 } }]", `:1: unrecognized file option "case"; did you mean "cases"?`},
		{"a misspelt word of a case", "cases:\n  - name: a\n    reqest: GET /a\n    expect: { status: 200 }", `:3: unrecognized case option "reqest"; did you mean "request"?`},
		{"a word that stands twice", "cases:\n  - name: a\n    name: b\n    request: GET /a\n    expect: { status: 200 }", `:3: "name" stands twice in this case`},
		{"no name", "cases: [" + good + "]", ":1: a case needs a name"},
		{"nothing expected", "cases: [{ name: a, request: GET /a }]", ":1: nothing is expected; a case that asserts nothing"},
		{"an empty expectation", "cases:\n  - name: a\n    request: GET /a\n    expect: {}", ":4: nothing is expected"},
		{"an empty expectation of the upstream", "cases:\n  - name: a\n    request: GET /a\n    expect: { upstream: {} }", ":4: nothing is expected of the upstream"},
		{"an empty expectation of headers", "cases: [{ name: a, request: GET /a, expect: { headers: {} } }]", ":1: headers must be an object"},
		{"an empty expectation of the caller", "cases: [{ name: a, request: GET /a, expect: { caller: {} } }]", ":1: caller needs facts, or is nobody"},
		{"a step that expects nothing", "cases:\n  - name: a\n    request: GET /a\n    steps:\n      - times: 3", ":5: nothing is expected"},
		{"expectations beside steps", "cases:\n  - name: a\n    request: GET /a\n    expect: { status: 200 }\n    steps: [{ expect: { status: 200 } }]", ":4: times, advance and expect belong to each of the steps"},
		{"no request", "cases: [{ name: a, expect: { status: 200 } }]", ":1: a request is needed"},
		{"a misspelt reason", "cases: [{ name: a, request: GET /a, expect: { reason: quota.exhausetd } }]", `:1: unrecognized reason "quota.exhausetd"; did you mean "quota.exhausted"?`},
		{"a reason of a misspelt stage", "cases: [{ name: a, request: GET /a, expect: { reason: quotas.exhausted } }]", `did you mean "quota.exhausted"?`},
		{"a misspelt reason in shadow", "cases: [{ name: a, request: GET /a, expect: { would_deny: [firewall.atack] } }]", `did you mean "firewall.attack"?`},
		{"an unknown caller", "callers: { ann: { subject: ann } }\ncases: [{ name: a, as: anne, request: GET /a, expect: { status: 200 } }]", `:2: unrecognized caller "anne"; did you mean "ann"? Expected ann or nobody`},
		{"a caller named nobody", "callers: { nobody: { subject: ann } }\ncases: []", "nobody is who has no credential"},
		{"a misspelt fact", "as: { subjct: ann }\ncases: []", `unrecognized caller option "subjct"; did you mean "subject"?`},
		{"a key with claims", "as: { key: a, claims: { b: 1 } }\ncases: []", "a key has neither an issuer nor claims"},
		{"a certificate of nobody", "as: { certificate: {} }\ncases: []", "a certificate needs a common_name"},
		{"a request without a path", "request: GET\ncases: []", "is not a method and a path"},
		{"a relative path", "request: GET orders\ncases: []", "does not begin with a slash"},
		{"two bodies", "request: { path: /, body: a, json: {} }\ncases: []", "either body or json"},
		{"a wrong address", "from: localhost\ncases: []", `from "localhost" is not an IP address`},
		{"a wrong clock", "clock: noon\ncases: []", `clock "noon" is not a time`},
		{"time that goes back", "cases: [{ name: a, request: GET /a, advance: -1s, expect: { status: 200 } }]", "the time does not go back"},
		{"a wrong number", "cases: [{ name: a, request: GET /a, times: many, expect: { status: 200 } }]", `times "many" is not a whole number from 1 to 100000`},
		{"a wrong status", "cases: [{ name: a, request: GET /a, expect: { status: 700 } }]", `status "700" is not a whole number from 100 to 599`},
		{"a misspelt upstream", "upstream: unreachabel\ncases: []", `did you mean "unreachable"?`},
		{"a misspelt code", "upstream: { code: NOT_FUOND }\ncases: []", `did you mean "NOT_FOUND"?`},
		{"HTTP and gRPC in one answer", "upstream: { status: 200, code: OK }\ncases: []", "neither status nor body"},
		{"a wrong expression", "cases: [{ name: a, request: GET /a, expect: { body: '/(/' } }]", "missing closing )"},
		{"aliases that stand for millions of values", "cases:\n  - name: a\n    request: { path: /, json: [" + aliases(8, 9) + "] }\n    expect: { status: 200 }", ":3: json cannot be read: yaml: document contains excessive aliasing"},
		{"a value that holds itself", "cases:\n  - name: a\n    request: { path: /, json: &a [*a] }\n    expect: { status: 200 }", ":3: json cannot be read"},
		{"a misspelt handshake", "cases: [{ name: a, request: GET /a, expect: { handshake: refusd } }]", `did you mean "refused"?`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parseSuite("x.test.yaml", []byte(c.file))
			if err == nil || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), "x.test.yaml") {
				t.Errorf("got:\n%v\nwant: %s", err, c.want)
			}
		})
	}
}

// TestDocumentedCases reads what the page shows.
func TestDocumentedCases(t *testing.T) {
	page, err := os.ReadFile("../../docs/policytest.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := regexp.MustCompile("(?s)```yaml\n(.*?)```").FindAllSubmatch(page, -1)
	if len(blocks) < 3 {
		t.Fatalf("only %d files were found", len(blocks))
	}
	for _, b := range blocks {
		if _, err := parseSuite("page", b[1]); err != nil {
			t.Errorf("%v in:\n%s", err, b[1])
		}
	}
	r := &caseReader{}
	for _, fields := range [][]field{r.scene(new(scene)), r.step(new(step))} {
		for _, f := range fields {
			if !strings.Contains(string(page), "`"+f.name) {
				t.Errorf("the page does not tell of %s", f.name)
			}
		}
	}
}

func TestWithin(t *testing.T) {
	for _, c := range []struct{ name, want, got, differs string }{
		{"other members do not matter", `{"a":1}`, `{"a":1,"b":2}`, ""},
		{"deep down", `{"a":[{"b":"x"}]}`, `{"a":[{"b":"x","c":1}]}`, ""},
		{"one number, written in two ways", `1`, `1.0`, ""},
		{"a member that is missing", `{"a":{"b":null}}`, `{"a":{}}`, ".a.b"},
		{"another value", `{"a":[1,2]}`, `{"a":[1,3]}`, ".a[1]"},
		{"a longer list", `[1]`, `[1,2]`, "@"},
		{"another type", `{"a":"1"}`, `{"a":1}`, ".a"},
		{"no object", `{}`, `[]`, "@"},
	} {
		t.Run(c.name, func(t *testing.T) {
			want, err := decodeJSON([]byte(c.want))
			if err != nil {
				t.Fatal(err)
			}
			got, err := decodeJSON([]byte(c.got))
			if err != nil {
				t.Fatal(err)
			}
			where, _, _, ok := within(want, got, "")
			if ok != (c.differs == "") || !ok && where != strings.TrimSuffix(c.differs, "@") {
				t.Errorf("%v at %q, want %q", ok, where, c.differs)
			}
		})
	}
}

// FuzzCases holds that what is read without an error asks and asserts
// something in every step.
func FuzzCases(f *testing.F) {
	// Small ones: the engine makes each interesting input as short as it can,
	// and would do nothing else with the files of the examples.
	for _, seed := range []string{
		"cases: [{name: a, request: GET /, expect: {status: 200}}]",
		"as: {key: k, tenant: t}\ncases: [{name: a, request: {path: /, json: [1]}, expect: {reason: none}}]",
		"callers: {a: {subject: s, expires: -1m}}\nas: a\ncases: []",
		"clock: 2026-01-01T00:00:00Z\nfrom: ::1\nsite: a.b\nenv: {A: b}",
		"upstream: [unreachable, {code: OK, message: {}}, {status: 204}]",
		"cases: [{name: a, request: GET /, steps: [{times: 2, advance: 1s, expect: {body: /x/}}]}]",
		"cases: [{name: a, request: GET /, expect: {upstream: {to: x, json: {}}, headers: {A: null}}}]",
		"a: &a [*a]\ncases: *a",
		"cases: [{name: a, steps: [{}]}]",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseSuite("x", data)
		if err != nil {
			return
		}
		if len(s.cases) == 0 {
			t.Fatal("no cases and no error")
		}
		for _, c := range s.cases {
			if c.name == "" || len(c.steps) == 0 {
				t.Fatalf("an empty case: %+v", c)
			}
			for _, st := range c.steps {
				if st.request == nil || st.expect == nil || st.times < 1 || len(st.upstream) == 0 {
					t.Fatalf("an empty step: %+v", st)
				}
			}
		}
	})
}

// aliases are lists of the list before.
func aliases(levels, each int) string {
	var list strings.Builder
	list.WriteString("&a0 [1]")
	for i := 1; i <= levels; i++ {
		fmt.Fprintf(&list, ", &a%d [%s]", i, strings.Repeat(fmt.Sprintf("*a%d, ", i-1), each))
	}
	return list.String()
}

// TestContractOfAliases: a contract is looked at as it is written.
func TestContractOfAliases(t *testing.T) {
	file := filepath.Join(t.TempDir(), "c.yaml")
	doc := "x-bomb: [" + aliases(30, 9) + "]\npaths: &p\n  /a: { post: { operationId: a, requestBody: { content: { application/json: { schema: &s { type: object, properties: { a: *s } } } } } } }\n  /b: *p\n"
	if err := os.WriteFile(file, []byte(doc), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := readContract(file)
	if err != nil || len(c.operations) != 1 {
		t.Fatalf("%+v %v", c, err)
	}
	openBodies(&audit{check: checks[5], apis: []*api{{contract: c}}})
}
