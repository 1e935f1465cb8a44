package schema

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/pattern"
)

// shortcut accepts most valid values in much less time than the libraries need
// (BenchmarkInput). It never refuses: what it does not accept, it leaves to the library, and
// so it may doubt whatever is laborious to decide. It must not accept what the
// library refuses, which a fuzz target and the suite of JSON Schema hold it to.
type shortcut struct {
	Schema
	root *node
}

// withShortcut puts a shortcut before a schema, if there is one.
func withShortcut(s Schema, root *node) Schema {
	if root == nil {
		return s
	}
	return &shortcut{s, root}
}

func (s *shortcut) Validate(value any) []Violation {
	if s.root.accepts(value) {
		return nil
	}
	return s.Schema.Validate(value)
}

// node is one schema, of the keywords that a shortcut knows.
type node struct {
	kinds    kinds
	enum     []any // of values that are not lists or objects; nil if there is none
	format   func(string) bool
	patterns []*pattern.Pattern
	length   span
	least    *bound
	most     *bound
	multiple int64

	items *node
	count span // of elements
	sets  bool // elements must differ

	members  map[string]*node
	required []string
	more     *node // for members that are not named
	closed   bool  // there may be no others
	size     span  // of members

	all  []*node
	some [][]*node // of each, one must accept
}

// kinds are types of values.
type kinds uint8

const (
	null kinds = 1 << iota
	boolean
	integer
	number
	text
	list
	object
	anyKind = null | boolean | number | text | list | object
)

var kindNames = map[string]kinds{
	"null": null, "boolean": boolean, "integer": integer, "number": number,
	"string": text, "array": list, "object": object,
}

// span is how many there may be.
type span struct{ least, most int }

func (s span) holds(n int) bool { return s.least <= n && n <= s.most }

// accepts tells that the value is valid. False says nothing.
func (n *node) accepts(v any) bool {
	ok := false
	switch v := v.(type) {
	case string:
		ok = n.acceptsText(v)
	case json.Number:
		ok = n.acceptsNumber(string(v))
	case map[string]any:
		ok = n.acceptsObject(v)
	case []any:
		ok = n.acceptsList(v)
	case bool:
		ok = n.kinds&boolean != 0 && n.listed(v)
	case nil:
		ok = n.kinds&null != 0 && n.listed(v)
	}
	if !ok {
		return false
	}
	for _, other := range n.all {
		if !other.accepts(v) {
			return false
		}
	}
	for _, choice := range n.some {
		if !slices.ContainsFunc(choice, func(c *node) bool { return c.accepts(v) }) {
			return false
		}
	}
	return true
}

// listed looks a scalar up in enum. Numbers are the same if they are written so.
func (n *node) listed(v any) bool { return n.enum == nil || slices.Contains(n.enum, v) }

func (n *node) acceptsText(s string) bool {
	if n.kinds&text == 0 || !n.listed(s) {
		return false
	}
	if n.length.least > 0 || n.length.most < len(s) {
		if !n.length.holds(utf8.RuneCountInString(s)) {
			return false
		}
	}
	for _, p := range n.patterns {
		if !p.MatchString(s) {
			return false
		}
	}
	return n.format == nil || n.format(s)
}

func (n *node) acceptsNumber(s string) bool {
	whole := isWhole(s)
	if n.kinds&number == 0 && (n.kinds&integer == 0 || !whole) || !n.listed(json.Number(s)) {
		return false
	}
	if n.least == nil && n.most == nil && n.multiple == 0 {
		return true
	}
	if whole && len(s) <= safeDigits {
		i, err := strconv.ParseInt(s, 10, 64)
		return err == nil && (n.multiple == 0 || i%n.multiple == 0) && n.least.below(i, float64(i)) && n.most.above(i, float64(i))
	}
	f, err := strconv.ParseFloat(s, 64)
	return err == nil && n.multiple == 0 && n.least.belowFloat(f) && n.most.aboveFloat(f)
}

func (n *node) acceptsList(v []any) bool {
	if n.kinds&list == 0 || n.enum != nil || !n.count.holds(len(v)) || n.sets && !differ(v) {
		return false
	}
	if n.items != nil {
		for _, item := range v {
			if !n.items.accepts(item) {
				return false
			}
		}
	}
	return true
}

// differ tells that no two texts of a short list are the same.
func differ(v []any) bool {
	if len(v) > 16 {
		return false
	}
	for i, item := range v {
		if _, ok := item.(string); !ok && len(v) > 1 {
			return false
		}
		if slices.Contains(v[:i], item) {
			return false
		}
	}
	return true
}

func (n *node) acceptsObject(v map[string]any) bool {
	if n.kinds&object == 0 || n.enum != nil || !n.size.holds(len(v)) {
		return false
	}
	for _, name := range n.required {
		if _, ok := v[name]; !ok {
			return false
		}
	}
	if n.members == nil && n.more == nil && !n.closed {
		return true
	}
	for name, item := range v {
		member, known := n.members[name]
		if !known {
			if n.closed {
				return false
			}
			member = n.more
		}
		if member != nil && !member.accepts(item) {
			return false
		}
	}
	return true
}

// bound is a least or greatest number.
type bound struct {
	i         int64
	f         float64
	whole     bool // i is exact
	exclusive bool
}

// safeDigits is how long a whole number may be to fit in an int64, with a sign.
const safeDigits = 18

func newBound(n json.Number, exclusive bool) (*bound, bool) {
	b := &bound{exclusive: exclusive}
	var err error
	if b.whole = isWhole(string(n)) && len(n) <= safeDigits; b.whole {
		b.i, err = n.Int64()
	}
	if err == nil {
		b.f, err = n.Float64()
	}
	return b, err == nil
}

// below tells that the bound is below a whole number, or the same if it may be.
func (b *bound) below(i int64, f float64) bool {
	if b == nil || !b.whole {
		return b.belowFloat(f)
	}
	return b.i < i || b.i == i && !b.exclusive
}

func (b *bound) above(i int64, f float64) bool {
	if b == nil || !b.whole {
		return b.aboveFloat(f)
	}
	return b.i > i || b.i == i && !b.exclusive
}

// belowFloat compares what both were rounded to. Rounding keeps the order, so
// that less is less; the same may not be.
func (b *bound) belowFloat(f float64) bool { return b == nil || b.f < f }
func (b *bound) aboveFloat(f float64) bool { return b == nil || b.f > f }

func isWhole(s string) bool { return !strings.ContainsAny(s, ".eE") }
