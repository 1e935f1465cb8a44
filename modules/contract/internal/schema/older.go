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
type older struct{ schema *gojsonschema.Schema }

// compileOlder bundles the schema with all it refers to into one document, so
// that the library has nothing to load: it would follow references to the
// network and to files.
func compileOlder(n openapi.Node, d Dialect, absent string) (Schema, error) {
	definitions := make(map[string]any)
	b := &bundle{
		older: true, absent: absent, openapi30: d == OpenAPI30, names: make(map[string]string), prefix: "#/definitions/",
		define: func(name string, _ openapi.Node, schema any) error { definitions[name] = schema; return nil },
	}
	root, err := b.schema(n)
	if err != nil {
		return nil, err
	}
	if err := b.rest(); err != nil {
		return nil, err
	}
	m, ok := root.(map[string]any)
	if !ok {
		m = map[string]any{"allOf": []any{root}}
	}
	if _, ref := m["$ref"]; ref {
		m = map[string]any{"allOf": []any{m}} // siblings of $ref are ignored
	}
	delete(m, "$schema")
	short := &shortener{older: true, known: make(map[string]*node), resolve: func(ref string) (any, bool) {
		schema, ok := definitions[strings.TrimPrefix(ref, b.prefix)]
		return schema, ok
	}}
	quick := short.shorten(m)
	loader := gojsonschema.NewSchemaLoader()
	loader.AutoDetect = false
	switch d {
	case Draft6:
		loader.Draft = gojsonschema.Draft6
	case Draft7:
		loader.Draft = gojsonschema.Draft7
	default:
		loader.Draft = gojsonschema.Draft4
	}
	if len(definitions) > 0 {
		m["definitions"] = definitions
	}
	s, err := loader.Compile(gojsonschema.NewRawLoader(any(m)))
	if err != nil {
		return nil, err
	}
	return withShortcut(&older{s}, quick), nil
}

// Validate reports what the library finds, in words of our own.
func (s *older) Validate(value any) []Violation {
	result, err := s.schema.Validate(gojsonschema.NewRawLoader(value))
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
	for _, p := range parts[1:] {
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
