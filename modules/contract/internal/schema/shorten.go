package schema

import (
	"encoding/json"
	"math"
	"strings"

	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/pattern"
)

// shortener makes shortcuts of schemas as a bundle has copied them.
type shortener struct {
	older   bool
	resolve func(ref string) (any, bool)
	known   map[string]*node // by reference; nil where there is no shortcut
}

// shorten makes a schema's shortcut, or returns nil if it has keywords that a
// shortcut does not know.
func (c *shortener) shorten(schema any) *node {
	switch schema := schema.(type) {
	case bool:
		if schema {
			return newNode()
		}
		return &node{} // accepts no kind of value
	case map[string]any:
		n := newNode()
		for word, v := range schema {
			if !c.keyword(n, schema, word, v) {
				return nil
			}
		}
		return n
	}
	return nil
}

func newNode() *node {
	most := span{0, math.MaxInt}
	return &node{kinds: anyKind, length: most, count: most, size: most}
}

// keyword adds one keyword to the node, and tells whether it could.
func (c *shortener) keyword(n *node, schema map[string]any, word string, v any) (ok bool) {
	switch word {
	case "$ref":
		return c.reference(n, v)
	case "type":
		n.kinds, ok = kindsOf(v)
		return ok
	case "enum":
		return c.values(n, v)
	case "const":
		return c.values(n, []any{v})
	case "allOf":
		n.all, ok = c.several(n.all, v)
		return ok
	case "anyOf":
		choice, ok := c.several(nil, v)
		n.some = append(n.some, choice)
		return ok
	case "format":
		return c.format(n, v)
	case "pattern":
		text, _ := v.(string)
		p, err := pattern.Compile(text)
		n.patterns = append(n.patterns, p)
		return err == nil
	case "minLength":
		return whole(v, &n.length.least)
	case "maxLength":
		return whole(v, &n.length.most)
	case "minItems":
		return whole(v, &n.count.least)
	case "maxItems":
		return whole(v, &n.count.most)
	case "minProperties":
		return whole(v, &n.size.least)
	case "maxProperties":
		return whole(v, &n.size.most)
	case "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum":
		return limit(n, schema, word, v)
	case "multipleOf":
		m, _ := v.(json.Number)
		i, err := m.Int64()
		n.multiple = i
		return err == nil && i > 0
	case "uniqueItems":
		n.sets, ok = v.(bool)
		return ok
	case "items":
		n.items = c.shorten(v)
		return n.items != nil
	case "properties":
		return c.properties(n, v)
	case "required":
		return texts(v, &n.required)
	case "additionalProperties":
		if open, ok := v.(bool); ok {
			n.closed = !open
			return true
		}
		n.more = c.shorten(v)
		return n.more != nil
	case "title", "description", "default", "example", "examples", "deprecated", "readOnly", "writeOnly", "xml", "externalDocs", "discriminator", "$comment", "$schema":
		return true // only describe
	}
	return strings.HasPrefix(word, "x-")
}

// reference follows $ref. A schema may come back to itself by way of members
// and elements: the node stands before it is complete.
func (c *shortener) reference(n *node, v any) bool {
	ref, _ := v.(string)
	target, begun := c.known[ref]
	if !begun {
		schema, ok := c.resolve(ref)
		if !ok {
			return false
		}
		target = new(node)
		c.known[ref] = target
		made := c.shorten(schema)
		if made == nil {
			c.known[ref] = nil
			*target = node{} // accepts nothing, wherever it was used meanwhile
			return false
		}
		*target = *made
	}
	if target == nil {
		return false
	}
	n.all = append(n.all, target)
	return true
}

func (c *shortener) several(to []*node, v any) ([]*node, bool) {
	schemas, _ := v.([]any)
	for _, s := range schemas {
		n := c.shorten(s)
		if n == nil {
			return nil, false
		}
		to = append(to, n)
	}
	return to, len(schemas) > 0
}

func (c *shortener) properties(n *node, v any) bool {
	members, ok := v.(map[string]any)
	n.members = make(map[string]*node, len(members))
	for name, schema := range members {
		member := c.shorten(schema)
		if member == nil {
			member = new(node) // the shortcut is for values without it
		}
		n.members[name] = member
	}
	return ok
}

// values keeps those of enum that a shortcut can compare.
func (c *shortener) values(n *node, v any) bool {
	values, ok := v.([]any)
	if n.enum != nil || !ok {
		return false // enum and const together
	}
	n.enum = make([]any, 0, len(values))
	for _, value := range values {
		switch value.(type) {
		case nil, bool, string, json.Number:
			n.enum = append(n.enum, value)
		}
	}
	return true
}

func (c *shortener) format(n *node, v any) bool {
	name, ok := v.(string)
	if p, is := patternOf(name); is {
		n.patterns = append(n.patterns, p)
		return true
	}
	if c.older {
		name = strings.TrimPrefix(name, olderPrefix)
	}
	if size, isInt := intFormats[name]; isInt {
		least, most := size.bounds()
		ranged := newNode()
		ranged.least, _ = newBound(least, false)
		ranged.most, _ = newBound(most, false)
		n.all = append(n.all, ranged)
	}
	n.format = formats[name]
	return ok
}

func kindsOf(v any) (kinds, bool) {
	if name, ok := v.(string); ok {
		k, known := kindNames[name]
		return k, known
	}
	var names []string
	if !texts(v, &names) {
		return 0, false
	}
	var all kinds
	for _, name := range names {
		k, known := kindNames[name]
		if !known {
			return 0, false
		}
		all |= k
	}
	return all, true
}

// limit reads the four words for bounds of numbers, in the older way, where
// exclusive is a flag, or the newer, where it is a number.
func limit(n *node, schema map[string]any, word string, v any) (ok bool) {
	if flag, isFlag := v.(bool); isFlag {
		_, used := schema[strings.ToLower(strings.TrimPrefix(word, "exclusive"))]
		return used || !flag
	}
	value, ok := v.(json.Number)
	if !ok {
		return false
	}
	exclusive := strings.HasPrefix(word, "exclusive")
	if !exclusive {
		exclusive, _ = schema["exclusive"+strings.ToUpper(word[:1])+word[1:]].(bool)
	}
	b, ok := newBound(value, exclusive)
	to := &n.most
	if word == "minimum" || word == "exclusiveMinimum" {
		to = &n.least
	}
	if !ok || *to != nil {
		return false // both words at once are left to the library
	}
	*to = b
	return true
}

func whole(v any, to *int) bool {
	n, _ := v.(json.Number)
	i, err := n.Int64()
	*to = int(i)
	return err == nil && i >= 0 && i <= math.MaxInt32
}

func texts(v any, to *[]string) bool {
	values, ok := v.([]any)
	for _, value := range values {
		s, isText := value.(string)
		if !isText {
			return false
		}
		*to = append(*to, s)
	}
	return ok
}
