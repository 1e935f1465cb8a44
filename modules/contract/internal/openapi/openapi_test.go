package openapi

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"strings"
	"testing"
)

func TestReadBytes(t *testing.T) {
	f, err := ReadBytes("a.yaml", []byte("a: 1\nb: [x, 2.50, true, null, 2020-01-01, 0x10, '5']\nc: &c {d: 1e3}\ne: *c\n200: {f: yes}\n"))
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"a": json.Number("1"), "b": []any{"x", json.Number("2.50"), true, nil, "2020-01-01", json.Number("16"), "5"},
		"c": map[string]any{"d": json.Number("1e3")}, "e": map[string]any{"d": json.Number("1e3")}, "200": map[string]any{"f": "yes"},
	}
	if !reflect.DeepEqual(f.Root, want) {
		t.Errorf("%#v", f.Root)
	}
	if f.Line("/c/d") != 3 || f.Line("/b/nothing") != 2 {
		t.Errorf("lines %d %d", f.Line("/c/d"), f.Line("/b/nothing"))
	}
	j, err := ReadBytes("a.json", []byte("{\n\t\"a\": {\n\t\t\"b\": 1}}"))
	if err != nil || !reflect.DeepEqual(j.Root, map[string]any{"a": map[string]any{"b": json.Number("1")}}) {
		t.Errorf("%v %v", j, err)
	}
}

// TestAliases: what a few bytes unfold to is counted before it is unfolded.
func TestAliases(t *testing.T) {
	nested := func(levels, each int) string {
		var doc strings.Builder
		doc.WriteString("x-0: &a0 [1]\n")
		for i := 1; i <= levels; i++ {
			fmt.Fprintf(&doc, "x-%d: &a%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i-1), each), ","))
		}
		return doc.String()
	}
	var before, after runtime.MemStats
	for name, doc := range map[string]string{
		"as many as there may be": nested(7, 9),
		"more than anything":      nested(40, 9),
		"into itself":             "a: &a [*a]\n",
		"into itself by merging":  "a: &a {<<: *a}\n",
		"by merging":              nested(6, 9) + "m: {<<: {a: *a6}}\n",
	} {
		runtime.ReadMemStats(&before)
		_, err := ReadBytes("bomb.yaml", []byte(doc))
		runtime.ReadMemStats(&after)
		if err == nil || !regexp.MustCompile(`^bomb.yaml:\d+: .*(too large or too deep|contains itself)`).MatchString(err.Error()) {
			t.Errorf("%s: %v", name, err)
		}
		if used := after.TotalAlloc - before.TotalAlloc; used > 4<<20 {
			t.Errorf("%s: %d bytes", name, used)
		}
	}
	for name, doc := range map[string]string{
		"a thousand of a hundred": "a: &a [" + strings.Repeat("1,", 100) + "1]\nb: [" + strings.Repeat("*a,", 500) + "*a]\n",
		"deep aliases":            nested(100, 1),
	} {
		if _, err := ReadBytes("a.yaml", []byte(doc)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func read(t *testing.T, doc string) (*Contract, error) {
	t.Helper()
	f, err := ReadBytes("api.yaml", []byte(doc))
	if err != nil {
		return nil, err
	}
	return Read(f, NewFiles(f))
}

func TestRead(t *testing.T) {
	c, err := read(t, `
openapi: 3.1.0
servers: [{url: "https://{env}.example.com/v1/", variables: {env: {default: api}}}, {url: /v2}]
security: [{key: []}]
paths:
  /a/{id}:
    parameters: [{name: id, in: path, required: true, schema: {type: string}}, {$ref: "#/components/parameters/page"}]
    get: {operationId: getA}
    post:
      security: []
      parameters: [{name: page, in: query, schema: {type: string}}]
      requestBody: {$ref: "#/components/requestBodies/b"}
  x-extension: {get: {}}
components:
  securitySchemes: {key: {type: apiKey, in: header, name: X}}
  parameters: {page: {name: page, in: query, schema: {type: integer}}}
  requestBodies: {b: {required: true, content: {"*/*": {}, application/json: {schema: {type: object}}}}}
`)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(c.Bases, []string{"/v1", "/v2"}) || len(c.Operations) != 2 {
		t.Fatalf("%v, %d operations", c.Bases, len(c.Operations))
	}
	get, post := c.Operations[0], c.Operations[1]
	if get.ID != "getA" || len(get.Params) != 2 || len(get.Security) != 1 || get.Security[0][0].Type != "apiKey" || get.Body != nil {
		t.Errorf("%+v", get)
	}
	if post.ID != "POST /a/{id}" || len(post.Params) != 2 || post.Security == nil || len(post.Security) != 0 || !post.Body.Required || post.Body.Types[0].Range != "application/json" {
		t.Errorf("%+v", post)
	}
}

func TestReadErrors(t *testing.T) {
	for doc, want := range map[string]string{
		"":                     "empty",
		"a: b: c":              "api.yaml",
		"a: 1\na: 2":           "api.yaml:2: \"a\" stands twice",
		"[1]":                  "not an object",
		"{\"a\":\n 1,}":        "api.yaml:2:",
		"a: 1\nb: [1e-5000]":   "api.yaml:2: number with too large an exponent",
		"{\n\"a\":\n1e999999}": "api.yaml:2: number with too large an exponent",
		"{} {}":                "behind the document",
		`{"openapi":"3.0.0","paths":{"/a":{"get":{"parameters":[{"in":"query"}]}}}}`: "api.yaml:1 /paths/~1a/get/parameters/0: a parameter needs a name",
		"swagger: \"2.0\"":          "Swagger 2.0 is not supported",
		"info: {}":                  "no member openapi",
		"openapi: 4.0.0":            "OpenAPI \"4.0.0\" is not supported",
		"openapi: 3.0.0":            "no paths",
		"openapi: 3.0.0\npaths: {}": "no operation",
		"openapi: 3.0.0\npaths:\n  /a:\n    get:\n      parameters: [{$ref: \"#/components/x\"}]": "api.yaml:5: reference \"#/components/x\" leads nowhere",
		"openapi: 3.0.0\npaths:\n  /a:\n    get:\n      parameters: [{name: id, in: path}]":       "path parameter \"id\" is not in the path",
		"openapi: 3.0.0\npaths:\n  /a:\n    get:\n      parameters: [{name: id, in: body}]":       "in must be path",
		"openapi: 3.0.0\npaths:\n  /a:\n    get: {operationId: x}\n    put: {operationId: x}":     "stands twice",
		"openapi: 3.0.0\npaths:\n  /a:\n    get: {security: [{nobody: []}]}":                      "scheme \"nobody\" is not defined",
		"openapi: 3.0.0\npaths:\n  /a: {$ref: \"#/paths/~1b\"}\n  /b: {$ref: \"#/paths/~1a\"}":    "circle",
		"openapi: 3.0.0\npaths:\n  /a: {$ref: \"http://evil.test/x.yaml\"}":                       "are not followed",
		"openapi: 3.0.0\npaths:\n  /a: {$ref: \"../../../../etc/passwd\"}":                        "out of the contract's folder",
	} {
		if _, err := read(t, doc); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", doc, err, want)
		}
	}
}

func TestFilesBesideTheContract(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"api.yaml":           "openapi: 3.0.0\npaths:\n  /a: {$ref: \"parts/a.yaml#/item\"}",
		"parts/a.yaml":       "item:\n  get:\n    requestBody: {$ref: \"b.json\"}",
		"parts/b.json":       `{"content":{"application/json":{"schema":{"$ref":"schemas.json#/x"}}}}`,
		"parts/schemas.json": `{"x":{"type":"string"}}`,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f, err := ReadFile(filepath.Join(dir, "api.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	files := NewFiles(f)
	c, err := Read(f, files)
	if err != nil {
		t.Fatal(err)
	}
	s, err := c.Operations[0].Body.Types[0].Schema.Resolve()
	if err != nil || s.Text("type") != "string" {
		t.Errorf("%v %v", s.Value, err)
	}
	if n := len(files.Closure()); n != 4 {
		t.Errorf("%d files, want 4", n)
	}
}

// FuzzRead: no document makes it panic, and a contract comes exactly when
// there is no error.
func FuzzRead(f *testing.F) {
	f.Add("openapi: 3.0.0\npaths:\n  /a: {get: {parameters: [{name: a, in: query}]}}")
	f.Add(`{"openapi":"3.1.0","paths":{"/a":{"post":{"requestBody":{"content":{"a/b":{}}}}}}}`)
	f.Add("a: &a [*a]")
	f.Add("<<: {a: 1}\nb: !!binary x")
	f.Fuzz(func(t *testing.T, doc string) {
		file, err := ReadBytes("api.yaml", []byte(doc))
		if err != nil {
			return
		}
		c, err := Read(file, NewFiles(file))
		if (c == nil) == (err == nil) {
			t.Fatalf("%v and %v", c, err)
		}
	})
}

// TestBasePaths are of servers in published documents.
func TestBasePaths(t *testing.T) {
	for raw, want := range map[string]string{
		"https://api.example.com/v1/":                        "/v1",
		"https://{accountName}.{environment}.example.com.br": "",
		"https://{accountName}.example.com/api/io?x=/y":      "/api/io",
		"//api.example.com/v2":                               "/v2",
		"/v3":                                                "/v3", "/": "", "": "", "v4/": "/v4",
	} {
		if got, err := basePath(raw); err != nil || got != want {
			t.Errorf("%q: %q, %v", raw, got, err)
		}
	}
	_, err := read(t, "openapi: 3.0.0\nservers:\n  - url: https://api.example.com/{version}\npaths: {/a: {get: {}}}")
	if err == nil || !strings.Contains(err.Error(), "api.yaml:3: server url \"https://api.example.com/{version}\": a variable in its path has no default") {
		t.Error(err)
	}
}

// TestUnnamedParameter is what some tools export; nobody can send it.
func TestUnnamedParameter(t *testing.T) {
	c, err := read(t, "openapi: 3.0.0\npaths: {/a: {get: {parameters: [{name: '', in: query}]}}}")
	if err != nil || len(c.Operations[0].Params) != 0 {
		t.Error(err)
	}
}
