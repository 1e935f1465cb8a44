package schema

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/openapi"
	"github.com/gatehouse-caddy/gatehouse/modules/gate/strictjson"
)

func compileText(t testing.TB, d Dialect, text string) (Schema, error) {
	t.Helper()
	f, err := openapi.ReadBytes("schema.json", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return compileOne(d, openapi.Node{Files: openapi.NewFiles(f), File: f, Value: f.Root})
}

func decode(t testing.TB, text string) any {
	t.Helper()
	v, err := strictjson.Decode([]byte(text), strictjson.Limits{Values: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestViolationsPointAndDoNotRepeat(t *testing.T) {
	const text = `{"type":"object","required":["id"],"additionalProperties":false,"properties":{
		"id":{"type":"string","pattern":"^a+$","maxLength":3},"n":{"type":"integer","minimum":1,"maximum":9},
		"list":{"type":"array","maxItems":1,"items":{"enum":["x","y"]}},"a/b":{"type":"boolean"}}}`
	for _, d := range []Dialect{Draft4, Draft7, Draft2019, Draft2020, OpenAPI30} {
		s, err := compileText(t, d, text)
		if err != nil {
			t.Fatal(err)
		}
		for value, want := range map[string]string{
			`{"id":"aa","n":5,"list":["x"]}`: "",
			`{}`:                             ` member "id" is missing`,
			`[]`:                             " must be of type object",
			`{"id":"a","n":0}`:               "/n must be at least 1",
			`{"id":"a","n":"secret"}`:        "/n must be of type integer",
			`{"id":"a","n":10}`:              "/n must be at most 9",
			`{"id":"secret"}`:                "/id must",
			`{"id":"a","list":["secret"]}`:   "/list/0 must be one of",
			`{"id":"a","list":["x","y"]}`:    "/list must have at most 1 elements",
			`{"id":"a","zzz":"secret"}`:      "/zzz is not a member",
			`{"id":"a","a/b":1}`:             "/a~1b must be of type boolean",
		} {
			var got []string
			for _, v := range s.Validate(decode(t, value)) {
				got = append(got, v.Pointer+" "+v.Detail)
			}
			all := strings.Join(got, "; ")
			if !strings.Contains(all, want) || (want == "") != (all == "") || strings.Contains(all, "secret") {
				t.Errorf("dialect %d: %s: %q, want %q", d, value, all, want)
			}
		}
	}
}

func TestOpenAPI30(t *testing.T) {
	for _, tc := range []struct {
		schema, value string
		ok            bool
	}{
		{`{"type":"string","nullable":true}`, `null`, true},
		{`{"type":"string"}`, `null`, false},
		{`{"type":"string","nullable":true,"enum":["a"]}`, `null`, true},
		{`{"type":"integer","minimum":1,"exclusiveMinimum":true}`, `1`, false},
		{`{"type":"integer","format":"int32"}`, `2147483648`, false},
		{`{"type":"object","required":["id"],"properties":{"id":{"type":"string","readOnly":true}}}`, `{}`, true},
	} {
		s, err := compileText(t, OpenAPI30, tc.schema)
		if err != nil {
			t.Fatal(err)
		}
		if got := s.Validate(decode(t, tc.value)); (got == nil) != tc.ok {
			t.Errorf("%s of %s: %v", tc.value, tc.schema, got)
		}
	}
}

// TestBombs: what made these libraries overflow the stack, or work for
// minutes, is refused at load or answered at once.
func TestBombs(t *testing.T) {
	for _, loop := range []string{
		`{"$ref":"#"}`,
		`{"allOf":[{"$ref":"#"}]}`,
		`{"anyOf":[{"type":"string"},{"not":{"$ref":"#"}}]}`,
		`{"definitions":{"a":{"$ref":"#/definitions/b"},"b":{"$ref":"#/definitions/a"}},"properties":{"x":{"$ref":"#/definitions/a"}}}`,
	} {
		for _, d := range []Dialect{Draft7, Draft2020} {
			if _, err := compileText(t, d, loop); err == nil || !strings.Contains(err.Error(), "schema.json:1") {
				t.Errorf("dialect %d: %s: %v", d, loop, err)
			}
		}
	}
	for _, word := range []string{"anyOf", "oneOf", "allOf"} {
		for _, d := range []Dialect{Draft7, Draft2020} {
			s, err := compileText(t, d, `{"`+word+`":[{"properties":{"a":{"$ref":"#"}},"required":["b"]},{"properties":{"a":{"$ref":"#"}},"required":["c"]}]}`)
			if err != nil {
				t.Fatal(err)
			}
			value := decode(t, strings.Repeat(`{"a":`, 25)+`1`+strings.Repeat(`}`, 25))
			began := time.Now()
			if s.Validate(value) == nil && word != "anyOf" {
				t.Errorf("%s: a bomb is valid", word)
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("%s, dialect %d: %v", word, d, took)
			}
		}
	}
}

// TestSuite runs the required part of the JSON Schema test suite.
func TestSuite(t *testing.T) {
	root := os.Getenv("GATEHOUSE_SUITES")
	if root == "" {
		if os.Getenv("GATEHOUSE_SUITES_REQUIRED") != "" {
			t.Fatal("GATEHOUSE_SUITES is not set, and GATEHOUSE_SUITES_REQUIRED says it must be")
		}
		t.Skip("third-party suites are not part of the repository; set GATEHOUSE_SUITES to their folder")
	}
	for _, tc := range []struct {
		draft   string
		dialect Dialect
		passes  int // the rest refers to documents that are not in the contract, or is about formats
		total   int
	}{
		{"draft4", Draft4, 587, 618},
		{"draft6", Draft6, 776, 839},
		{"draft7", Draft7, 856, 927},
		{"draft2019-09", Draft2019, 1197, 1259},
		{"draft2020-12", Draft2020, 1190, 1299},
	} {
		t.Run(tc.draft, func(t *testing.T) {
			files, err := filepath.Glob(filepath.Join(root, "json-schema", "tests", tc.draft, "*.json"))
			if err != nil || len(files) == 0 {
				t.Fatalf("no files: %v", err)
			}
			ran, passed, remote := 0, 0, 0
			failures := map[string]int{}
			for _, name := range files {
				data, err := os.ReadFile(name)
				if err != nil {
					t.Fatal(err)
				}
				var groups []struct {
					Description string
					Schema      json.RawMessage
					Tests       []struct {
						Description string
						Data        json.RawMessage
						Valid       bool
					}
				}
				if err := json.Unmarshal(data, &groups); err != nil {
					t.Fatal(err)
				}
				base := filepath.Base(name)
				for _, g := range groups {
					f, err := openapi.ReadBytes("schema.json", append([]byte(`{"s":`), append(g.Schema, '}')...))
					if err != nil {
						t.Fatal(err)
					}
					rootValue := f.Root.(map[string]any)["s"]
					f.Root = rootValue
					s, err := compileOne(tc.dialect, openapi.Node{Files: openapi.NewFiles(f), File: f, Value: rootValue})
					for _, c := range g.Tests {
						ran++
						if err != nil {
							remote++
							continue // refers to what is not in the contract
						}
						v, derr := strictjson.Decode(c.Data, strictjson.Limits{})
						if derr != nil {
							failures[base+": "+derr.Error()]++
							continue
						}
						if (s.Validate(v) == nil) == c.Valid {
							passed++
						} else {
							failures[fmt.Sprintf("%s: %s", base, g.Description)]++
						}
					}
				}
			}
			t.Logf("%d ran, %d passed, %d refused at load, %d failed", ran, passed, remote, ran-passed-remote)
			for f, n := range failures {
				// Formats are assertions to us, and annotations to the suite.
				if !strings.HasPrefix(f, "format.json: ") {
					t.Errorf("%d × %s", n, f)
				}
			}
			if ran != tc.total || passed != tc.passes {
				t.Errorf("%d of %d passed, want %d of %d; raise the number when it grew", passed, ran, tc.passes, tc.total)
			}
		})
	}
}

// TestReadOnlyThroughReferences: a read-only member need not be sent, wherever
// it says that it is one.
func TestReadOnlyThroughReferences(t *testing.T) {
	for _, word := range []string{`"definitions"`, `"$anchor":"x","definitions"`} { // copied, and in place
		for _, d := range []Dialect{OpenAPI30, Draft2020} {
			s, err := compileText(t, d, `{`+word+`:{"id":{"type":"string","readOnly":true},"o":{"required":["at","n"],"properties":{"at":{"readOnly":true},"n":{}}}},
				"required":["o","n"],"properties":{"o":{"$ref":"#/definitions/o"},"n":{}}}`)
			if err != nil {
				t.Fatal(err)
			}
			if got := s.Validate(decode(t, `{"o":{"n":1},"n":1}`)); got != nil {
				t.Errorf("%s, dialect %d: %v", word, d, got)
			}
			if got := s.Validate(decode(t, `{"o":{"at":1},"n":1}`)); got == nil {
				t.Errorf("%s, dialect %d: a member that is missing is not missed", word, d)
			}
		}
	}
	for _, d := range []Dialect{OpenAPI30, Draft2020} {
		s, err := compileText(t, d, `{"definitions":{"id":{"type":"string","readOnly":true}},"required":["id"],"properties":{"id":{"$ref":"#/definitions/id"}}}`)
		if err != nil || s.Validate(decode(t, `{}`)) != nil {
			t.Errorf("dialect %d: behind a reference: %v", d, err)
		}
	}
}

// TestFaultsHaveLines: a schema that is none is named with its line, also when
// others refer to it.
func TestFaultsHaveLines(t *testing.T) {
	_, err := compileText(t, Draft2020, "{\n\"$defs\":{\n\"a\":{\n\"properties\":{\n\"x\":{\"type\":\"strin\"}}}},\n\"items\":{\"$ref\":\"#/$defs/a\"}}")
	if err == nil || !strings.Contains(err.Error(), "schema.json:5: /$defs/a/properties/x/type") {
		t.Errorf("%v", err)
	}
}

// compileOne compiles a schema that is alone in its contract.
func compileOne(d Dialect, n openapi.Node) (Schema, error) {
	c := NewCompiler(d)
	s, err := c.Compile(n)
	if err != nil {
		return nil, err
	}
	return s, c.Finish()
}
