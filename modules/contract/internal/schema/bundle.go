package schema

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"

	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/openapi"
	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/pattern"
)

// bundle copies schemas and what they refer to, so that the libraries find
// everything they need in what they are given, in the shape they like best.
type bundle struct {
	older     bool // siblings of $ref do not count
	openapi30 bool
	absent    string                      // what marks members that need not be there
	prefix    string                      // of the references the copies use
	names     map[openapi.Identity]string // of the copies
	define    func(name string, at openapi.Node, schema any) error
	pending   []openapi.Node
}

// errNamed means that a schema is referred to by a name rather than a pointer,
// which depends on where it stands: such documents are used as they are.
var errNamed = errors.New("the schema uses names")

// name is what a schema's copy is called; it will be copied.
func (b *bundle) name(n openapi.Node) string {
	key := n.Identity()
	name, known := b.names[key]
	if !known {
		name = "d" + strconv.Itoa(len(b.names))
		b.names[key] = name
		b.pending = append(b.pending, n)
	}
	return name
}

// rest copies what was referred to, and what that refers to.
func (b *bundle) rest() error {
	for len(b.pending) > 0 {
		n := b.pending[0]
		b.pending = b.pending[1:]
		v, err := b.schema(n)
		if err != nil {
			return err
		}
		if err := b.define(b.names[n.Identity()], n, v); err != nil {
			return err
		}
	}
	return nil
}

// schema copies one schema, with references turned to the bundle's own.
func (b *bundle) schema(n openapi.Node) (any, error) {
	m, ok := n.Value.(map[string]any)
	if !ok {
		return n.Value, nil
	}
	out := make(map[string]any, len(m))
	if ref, ok := m["$ref"].(string); ok {
		if !b.older && isName(ref) {
			return nil, errNamed
		}
		target, err := n.Step()
		if err != nil {
			return nil, err
		}
		out["$ref"] = b.prefix + b.name(target)
		if b.older {
			return out, nil
		}
	}
	for word := range m {
		switch word {
		case "$ref":
			continue
		case "definitions", "$defs": // copied where they are referred to
			continue
		case "$id", "id", "$anchor", "$dynamicAnchor", "$dynamicRef", "$recursiveAnchor", "$recursiveRef":
			if !b.older && word != "id" {
				return nil, errNamed
			}
			continue
		}
		child, _ := n.Child(word)
		v, err := b.keyword(word, child)
		if err != nil {
			return nil, err
		}
		out[word] = v
	}
	b.notRequired(n, out)
	if b.older {
		once(out)
		if err := olderPattern(out); err != nil {
			return nil, err
		}
	}
	format, _ := m["format"].(string)
	if b.older {
		if delete(out, "format"); formats[format] != nil {
			out["format"] = olderPrefix + format
		}
	}
	if b.openapi30 {
		translate30(out, format)
	}
	return out, nil
}

// keyword copies the value of one keyword, which may hold schemas.
func (b *bundle) keyword(word string, n openapi.Node) (any, error) {
	switch word {
	case "enum", "const", "default", "example", "examples", "required":
		return n.Value, nil
	}
	switch v := n.Value.(type) {
	case []any:
		list := make([]any, len(v))
		for i := range v {
			c, _ := n.Child(strconv.Itoa(i))
			item, err := b.schema(c)
			if err != nil {
				return nil, err
			}
			list[i] = item
		}
		return list, nil
	case map[string]any:
		if !slices.Contains(deeperMap, word) && !slices.Contains(inPlaceMap, word) && word != "dependentRequired" {
			return b.schema(n)
		}
		out := make(map[string]any, len(v))
		for name := range v {
			c, _ := n.Child(name)
			item, err := b.schema(c)
			if err != nil {
				return nil, err
			}
			if word == "patternProperties" && b.older {
				p, err := pattern.Compile(name)
				if err != nil {
					return nil, err
				}
				plain, ok := p.Plain()
				if !ok {
					return nil, c.Errorf("pattern %q looks around, which the names of patternProperties cannot do in this version of JSON Schema", name)
				}
				name = plain
			}
			out[name] = item
		}
		return out, nil
	}
	return n.Value, nil
}

// notRequired takes members that are read-only out of required, since a request
// does not have to send them; and of a response those that are write-only.
func (b *bundle) notRequired(n openapi.Node, out map[string]any) {
	members, _ := n.Child("properties")
	dropReadOnly(out, func(name string) bool {
		member, ok, err := members.Get(name)
		if direct, _ := members.Child(name); direct.Flag(b.absent, false) {
			return true
		}
		return ok && err == nil && member.Flag(b.absent, false)
	})
}

// dropReadOnly takes members out of required.
func dropReadOnly(m map[string]any, readOnly func(string) bool) {
	required, _ := m["required"].([]any)
	if len(required) == 0 {
		return
	}
	var kept []any
	for _, name := range required {
		if s, ok := name.(string); !ok || !readOnly(s) {
			kept = append(kept, name)
		}
	}
	if m["required"] = kept; len(kept) == 0 {
		delete(m, "required") // draft 4 wants at least one
	}
}

// once takes repeated values out of enum. Draft 4 forbids them, many documents
// have them, and they change nothing.
func once(m map[string]any) {
	values, _ := m["enum"].([]any)
	if len(values) < 2 {
		return
	}
	seen := make(map[string]bool, len(values))
	kept := make([]any, 0, len(values))
	for _, v := range values {
		text, err := json.Marshal(v)
		if err == nil && seen[string(text)] {
			continue
		}
		seen[string(text)] = true
		kept = append(kept, v)
	}
	m["enum"] = kept
}
