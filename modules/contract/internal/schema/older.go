package schema

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/xeipuuv/gojsonschema"

	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/openapi"
)

// older validates drafts 4, 6 and 7 and OpenAPI 3.0 by xeipuuv/gojsonschema.
// The library cannot compile a schema that leads to another one without
// compiling that one as well, and so on to the end. All schemas of a contract
// are therefore one schema to it, and each is reached by a path of members that
// the value is wrapped in: what they share is compiled once.
type older struct {
	all         *collected
	group, name string
}

// collected is what the schemas of one contract have in common. It is empty
// until they are all there.
type collected struct{ schema *gojsonschema.Schema }

// groupSize is how many schemas a member of the outermost object leads to. The
// library goes through the members of both objects one by one.
const groupSize = 64

// collector brings schemas together with all they refer to, so that the library
// has nothing to load: it would follow references to the network and to files.
type collector struct {
	dialect     Dialect
	copies      *bundle
	definitions map[string]any
	places      []openapi.Node // of the definitions, in the order they were made
	names       []string       // of the definitions
	roots       []string       // the references to the schemas that were asked for
	short       *shortener
	all         *collected
}

func newCollector(d Dialect, absent string) *collector {
	c := &collector{dialect: d, definitions: make(map[string]any), all: new(collected)}
	c.copies = &bundle{
		older: true, absent: absent, openapi30: d == OpenAPI30, names: make(map[openapi.Identity]string), prefix: "#/definitions/",
		define: func(name string, at openapi.Node, schema any) error {
			if m, ok := schema.(map[string]any); ok {
				delete(m, "$schema")
			}
			c.definitions[name] = schema
			c.places, c.names = append(c.places, at), append(c.names, name)
			return nil
		},
	}
	c.short = &shortener{older: true, known: make(map[string]*node), resolve: func(ref string) (any, bool) {
		schema, ok := c.definitions[strings.TrimPrefix(ref, c.copies.prefix)]
		return schema, ok
	}}
	return c
}

// compile adds a schema. It validates once finish has been called.
func (c *collector) compile(n openapi.Node) (Schema, error) {
	ref := c.copies.prefix + c.copies.name(n)
	if err := c.copies.rest(); err != nil {
		return nil, err
	}
	i := len(c.roots)
	c.roots = append(c.roots, ref)
	s := &older{all: c.all, group: strconv.Itoa(i / groupSize), name: strconv.Itoa(i % groupSize)}
	return withShortcut(s, c.short.shorten(map[string]any{"$ref": ref})), nil
}

// finish compiles what was collected.
func (c *collector) finish() error {
	groups := make(map[string]any)
	for i, ref := range c.roots {
		name := strconv.Itoa(i / groupSize)
		group, ok := groups[name].(map[string]any)
		if !ok {
			group = map[string]any{"properties": make(map[string]any)}
			groups[name] = group
		}
		group["properties"].(map[string]any)[strconv.Itoa(i%groupSize)] = map[string]any{"$ref": ref}
	}
	s, err := c.library(map[string]any{"properties": groups, "definitions": c.definitions})
	if err != nil {
		return c.located(err)
	}
	c.all.schema = s
	// The library keeps the documents, and needs them no more.
	for _, definition := range c.definitions {
		if m, ok := definition.(map[string]any); ok {
			clear(m)
		}
	}
	clear(c.definitions)
	clear(groups)
	return nil
}

func (c *collector) library(document map[string]any) (*gojsonschema.Schema, error) {
	loader := gojsonschema.NewSchemaLoader()
	loader.AutoDetect = false
	switch c.dialect {
	case Draft6:
		loader.Draft = gojsonschema.Draft6
	case Draft7:
		loader.Draft = gojsonschema.Draft7
	default:
		loader.Draft = gojsonschema.Draft4
	}
	return loader.Compile(gojsonschema.NewRawLoader(any(document)))
}

// located finds the schema that the library does not take, which it does not
// tell: it is the one that fails alone, with nothing in what it refers to.
func (c *collector) located(err error) error {
	for i, name := range c.names {
		stubs := map[string]any{name: c.definitions[name]}
		c.stub(c.definitions[name], stubs)
		alone := map[string]any{"properties": map[string]any{"it": map[string]any{"$ref": c.copies.prefix + name}}, "definitions": stubs}
		if _, err := c.library(alone); err != nil {
			return c.places[i].Errorf("compiling the schema: %w", err)
		}
	}
	return c.places[0].Errorf("compiling the schemas: %w", err)
}

// stub puts an empty schema in the place of each that is referred to.
func (c *collector) stub(v any, stubs map[string]any) {
	switch v := v.(type) {
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok {
			if name := strings.TrimPrefix(ref, c.copies.prefix); stubs[name] == nil {
				stubs[name] = map[string]any{}
			}
		}
		for _, item := range v {
			c.stub(item, stubs)
		}
	case []any:
		for _, item := range v {
			c.stub(item, stubs)
		}
	}
}

// Validate reports what the library finds, in words of our own.
func (s *older) Validate(value any) []Violation {
	if s.all.schema == nil {
		return []Violation{{Detail: "cannot be validated"}}
	}
	wrapped := map[string]any{s.group: map[string]any{s.name: value}}
	result, err := s.all.schema.Validate(gojsonschema.NewRawLoader(wrapped))
	if err != nil {
		return []Violation{{Detail: "cannot be validated"}}
	}
	if result.Valid() {
		return nil
	}
	var out []Violation
	for _, e := range result.Errors() {
		if len(out) == MaxViolations {
			break
		}
		switch e.Type() {
		case "condition_then", "condition_else", "number_all_of":
			if len(result.Errors()) > 1 {
				continue // its causes are listed too
			}
		}
		v := Violation{Pointer: pointer(e), Detail: sentence(e)}
		if !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}

// pointer reads the place of an error. The library joins names by a character
// of our choice; a unit separator is in no name that a JSON text can show.
func pointer(e gojsonschema.ResultError) string {
	var b strings.Builder
	parts := strings.Split(e.Context().String("\x1f"), "\x1f")
	for _, p := range parts[3:] { // behind the root and the two members around the value
		b.WriteByte('/')
		b.WriteString(openapi.Escape(p))
	}
	if e.Type() == "additional_property_not_allowed" {
		if name, ok := e.Details()["property"].(string); ok {
			b.WriteByte('/')
			b.WriteString(openapi.Escape(name))
		}
	}
	return b.String()
}

func sentence(e gojsonschema.ResultError) string {
	d := e.Details()
	word := func(name string) string { return fmt.Sprint(d[name]) }
	number := func(name string) string {
		if f, ok := d[name].(interface{ FloatString(int) string }); ok {
			s := f.FloatString(6)
			return strings.TrimRight(strings.TrimRight(s, "0"), ".")
		}
		return word(name)
	}
	switch e.Type() {
	case "required":
		return "member " + strconv.Quote(word("property")) + " is missing"
	case "invalid_type":
		return "must be of type " + strings.ReplaceAll(word("expected"), "/", " or ")
	case "additional_property_not_allowed":
		return "is not a member that is known here"
	case "number_gte":
		return "must be at least " + number("min")
	case "number_gt":
		return "must be greater than " + number("min")
	case "number_lte":
		return "must be at most " + number("max")
	case "number_lt":
		return "must be less than " + number("max")
	case "string_gte":
		return "must have at least " + word("min") + " characters"
	case "string_lte":
		return "must have at most " + word("max") + " characters"
	case "array_min_items":
		return "must have at least " + word("min") + " elements"
	case "array_max_items":
		return "must have at most " + word("max") + " elements"
	case "array_min_properties":
		return "must have at least " + word("min") + " members"
	case "array_max_properties":
		return "must have at most " + word("max") + " members"
	case "unique":
		return "must not have an element twice"
	case "pattern":
		return "must match the pattern " + word("pattern")
	case "format":
		if p, ok := patternOf(word("format")); ok {
			return "must match the pattern " + p.String()
		}
		return "must be in the format " + strings.TrimPrefix(word("format"), olderPrefix)
	case "enum":
		return "must be one of " + word("allowed")
	case "const":
		return "must be " + word("allowed")
	case "multiple_of":
		return "must be a multiple of " + number("multiple")
	case "number_one_of":
		return "must match exactly one of the schemas"
	case "number_any_of":
		return "must match at least one of the schemas"
	case "number_not":
		return "must not match the schema"
	}
	return "does not match the schema"
}

// translate30 says in draft 4 what OpenAPI 3.0 says in words of its own.
func translate30(m map[string]any, format string) {
	for _, word := range []string{"example", "examples", "xml", "discriminator", "externalDocs", "deprecated"} {
		delete(m, word)
	}
	if size, ok := intFormats[format]; ok {
		least, most := size.bounds()
		within(m, least, most)
	}
	nullable, _ := m["nullable"].(bool)
	delete(m, "nullable")
	if !nullable {
		return
	}
	// With a type, null is one more; without, nothing forbids it but enum.
	if t, ok := m["type"].(string); ok {
		m["type"] = []any{t, "null"}
	}
	if enum, ok := m["enum"].([]any); ok && !slices.Contains(enum, nil) {
		m["enum"] = append(slices.Clone(enum), nil)
	}
}

// within sets what a format implies, unless the schema says more.
func within(m map[string]any, least, most json.Number) {
	if _, own := m["minimum"]; !own {
		m["minimum"] = least
	}
	if _, own := m["maximum"]; !own {
		m["maximum"] = most
	}
}
