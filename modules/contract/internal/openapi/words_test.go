package openapi

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// prefix stands for a real search: what begins alike.
func prefix(word string, known []string) string {
	for _, k := range known {
		if len(word) > 3 && strings.HasPrefix(k, word[:3]) {
			return k
		}
	}
	return ""
}

func TestMisspelt(t *testing.T) {
	dir := t.TempDir()
	main := filepath.Join(dir, "api.yaml")
	if err := os.WriteFile(main, []byte(`openapi: 3.1.0
securty: [{key: []}]
x-own: {securty: 1}
paths:
  orders: {get: {}}
  x-more: {}
  /a:
    gett: {}
    get:
      paramters: []
      parameters:
        - {name: a, in: query, typ: string, schema: {type: string, maxLenght: 3, example: {securty: 1}}}
        - {$ref: "#/components/parameters/p", descripton: a}
      requestBody: {requird: true, content: {application/json: {scheme: {}, schema: {properties: {maxLenght: {minLenght: 1, kind: 2}}}}}}
      responses: {"200": {descripton: ok, content: {a/b: {schema: {$ref: part.yaml#/s}}}}}
      respones: {}
components:
  securitySchemes: {key: {type: apiKey, inn: header}}
  schema: {}
  parameters: {p: {name: p, in: query, reqired: true, schema: {$ref: "#/components/schemas/loop"}}}
  schemas: {loop: {items: {$ref: "#/components/schemas/loop"}}}
`), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "part.yaml"), []byte("s:\n  propertis: {}\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := ReadFile(main)
	if err != nil {
		t.Fatal(err)
	}
	list, more := Misspelt(Node{NewFiles(f), f, "", f.Root}, prefix)
	if len(list) != maxWords || more != 5 {
		t.Errorf("%d words, %d more", len(list), more)
	}
	w := &words{}
	w.look(Node{NewFiles(f), f, "", f.Root}, prefix)
	var got []string
	for _, word := range w.list {
		got = append(got, fmt.Sprintf("%s:%d %s %s %s", filepath.Base(word.At.File.Name), word.At.File.Line(word.At.Pointer), word.In, word.Text, word.Near))
	}
	want := []string{
		"api.yaml:2 document securty security", "api.yaml:5 paths orders /orders", "api.yaml:8 path item gett get", "api.yaml:10 operation paramters parameters",
		"api.yaml:12 parameter typ ", "api.yaml:12 schema maxLenght maxContains", "api.yaml:14 request body requird required", "api.yaml:14 media type scheme schema",
		"api.yaml:14 schema minLenght minContains", "api.yaml:15 response descripton description", "api.yaml:16 operation respones responses",
		"api.yaml:18 security scheme inn ", "api.yaml:19 components schema schemas", "api.yaml:20 parameter reqired required", "part.yaml:2 schema propertis properties",
	}
	for _, line := range want {
		if !slices.ContainsFunc(got, func(g string) bool { return strings.HasPrefix(g, line) }) {
			t.Errorf("%s is not told", line)
		}
	}
	if len(got) != len(want) {
		t.Errorf("told:\n%s", strings.Join(got, "\n"))
	}
}
