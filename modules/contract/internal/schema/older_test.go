package schema

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/openapi"
)

// connected writes schemas that all lead to each other, as those of the largest
// published documents do.
func connected(n int) string {
	var b strings.Builder
	b.WriteString("schemas:\n")
	for i := range n {
		fmt.Fprintf(&b, "  s%d:\n    type: object\n    required: [own%d]\n    properties:\n      own%d: {type: integer}\n", i, i, i)
		for j := range n {
			fmt.Fprintf(&b, "      to%d: {$ref: '#/schemas/s%d'}\n", j, j)
		}
	}
	return b.String()
}

// TestSharedSchemas compiles each schema once, however many lead to it, and
// still tells them apart.
func TestSharedSchemas(t *testing.T) {
	const n = groupSize + 6
	f, err := openapi.ReadBytes("api.yaml", []byte(connected(n)))
	if err != nil {
		t.Fatal(err)
	}
	c := NewCompiler(OpenAPI30)
	root := openapi.Node{Files: openapi.NewFiles(f), File: f, Value: f.Root}
	all, _ := root.Child("schemas")
	var ready []Schema
	for i := range n {
		at, _ := all.Child(fmt.Sprintf("s%d", i))
		s, err := c.Compile(at)
		if err != nil {
			t.Fatal(err)
		}
		ready = append(ready, s)
	}
	if made := len(c.older.definitions); made != n {
		t.Errorf("%d schemas were copied for the library, want %d", made, n)
	}
	if err := c.Finish(); err != nil {
		t.Fatal(err)
	}
	for i, s := range ready {
		own := fmt.Sprintf("own%d", i)
		if v := s.Validate(map[string]any{own: json.Number("1")}); v != nil {
			t.Errorf("s%d refuses what it describes: %v", i, v)
		}
		v := s.Validate(map[string]any{own: "x", "to1": map[string]any{"own1": true}})
		if len(v) != 2 || v[0].Pointer == v[1].Pointer {
			t.Errorf("s%d: %v", i, v)
		}
		for _, one := range v {
			if one.Pointer != "/"+own && one.Pointer != "/to1/own1" {
				t.Errorf("s%d: violation at %q", i, one.Pointer)
			}
		}
		if v := s.Validate("text"); len(v) != 1 || v[0].Pointer != "" {
			t.Errorf("s%d: %v", i, v)
		}
	}
}

// TestFaultySchema is reported at its own line, whichever schemas lead there.
func TestFaultySchema(t *testing.T) {
	for word, want := range map[string]string{"minLength: x": "api.yaml:6: compiling the schema", "properties: {a: null}": "api.yaml:6: compiling the schema"} {
		f, err := openapi.ReadBytes("api.yaml", []byte("a: {type: string}\nb:\n  type: object\n  properties: {c: {$ref: '#/c'}, a: {$ref: '#/a'}}\n\nc: {"+word+"}\n"))
		if err != nil {
			t.Fatal(err)
		}
		root := openapi.Node{Files: openapi.NewFiles(f), File: f, Value: f.Root}
		c := NewCompiler(OpenAPI30)
		for _, name := range []string{"a", "b"} {
			at, _ := root.Child(name)
			if _, err := c.Compile(at); err != nil {
				t.Fatal(err)
			}
		}
		if err := c.Finish(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", word, err, want)
		}
	}
}
