package members

import (
	"encoding/json"
	"slices"
	"testing"

	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/openapi"
)

func TestUnknown(t *testing.T) {
	main, err := openapi.ReadBytes("api.yaml", []byte(`
order: {type: object, properties: {id: {}, next: {$ref: "#/order"}, lines: {type: array, items: {$ref: "#/line"}}, labels: {additionalProperties: {type: string}}}}
line: {allOf: [{$ref: "#/base"}, {properties: {n: {}}}], oneOf: [{properties: {a: {}}}, {properties: {b: {}}}]}
base: {properties: {sku: {}}}
open: {properties: {a: {}}, additionalProperties: true}
closed: {properties: {a: {}}, additionalProperties: false}
nothing: {type: object}
`))
	if err != nil {
		t.Fatal(err)
	}
	root := openapi.Node{Files: openapi.NewFiles(main), File: main, Value: main.Root}
	b := NewBuilder()
	for _, c := range []struct {
		schema, value string
		want          []string
	}{
		{"order", `{"id":1,"next":{"id":2,"more":3}}`, []string{"/next/more"}},
		{"order", `{"labels":{"x":"y"},"lines":[{"sku":1,"n":1,"a":1,"b":1},{"c/d":1},{"c/d":2}]}`, []string{"/lines/*/c~1d"}},
		{"order", `{"z":{},"y":[]}`, []string{"/y", "/z"}},
		{"open", `{"b":1}`, nil},
		{"closed", `{"b":1}`, nil},
		{"nothing", `{"b":1}`, nil},
		{"order", `[1,"x",null]`, nil},
	} {
		schema, _ := root.Child(c.schema)
		var value any
		if err := json.Unmarshal([]byte(c.value), &value); err != nil {
			t.Fatal(err)
		}
		if got := b.Of(schema).Unknown(value, 10); !slices.Equal(got, c.want) {
			t.Errorf("%s: %s: %v, want %v", c.schema, c.value, got, c.want)
		}
	}
}

// FuzzUnknown: no schema and no value lead astray, what is found is bounded and
// sorted, and a value that has only members of its schema has none.
func FuzzUnknown(f *testing.F) {
	f.Add([]byte(`{"properties":{"a":{"$ref":"#"}}}`), []byte(`{"a":{"a":{"b":1}},"c":[{}]}`))
	f.Add([]byte(`{"allOf":[{"$ref":"#"},{"properties":{"a/b":{"items":{"$ref":"#"}}}}]}`), []byte(`{"a/b":[{"x":1},{"x":2}]}`))
	f.Add([]byte(`{"properties":{"a":{"additionalProperties":false}},"oneOf":[true,{"properties":{"b":{}}}]}`), []byte(`{"a":{"z":1},"b":null}`))
	f.Fuzz(func(t *testing.T, schema, data []byte) {
		main, err := openapi.ReadBytes("s.yaml", schema)
		var value any
		if err != nil || json.Unmarshal(data, &value) != nil {
			return
		}
		s := NewBuilder().Of(openapi.Node{Files: openapi.NewFiles(main), File: main, Value: main.Root})
		const limit = 5
		found := s.Unknown(value, limit)
		if len(found) > limit || !slices.IsSorted(found) || len(slices.Compact(slices.Clone(found))) != len(found) {
			t.Fatalf("%q", found)
		}
		if m, ok := value.(map[string]any); ok && len(found) == 0 && !s.open {
			for name := range m {
				if s.members[name] == nil {
					t.Errorf("%q is not described, and not found", name)
				}
			}
		}
	})
}
