// Package members finds members of a JSON value that a contract does not
// describe, though it does not forbid them: where a backend says more than its
// contract, and consumers come to depend on it.
package members

import (
	"slices"
	"strconv"

	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/openapi"
)

// Shape is which members a value may have. It is immutable once built, and may
// lead back to itself.
type Shape struct {
	members map[string]*Shape
	items   *Shape
	open    bool // the contract says itself what other members there may be, or nothing at all
}

// Builder builds shapes that share what they have in common.
type Builder struct{ known map[openapi.Identity]*Shape }

// NewBuilder makes a builder for one contract.
func NewBuilder() *Builder { return &Builder{known: make(map[openapi.Identity]*Shape)} }

// Of is the shape that a schema describes.
func (b *Builder) Of(n openapi.Node) *Shape {
	n, err := n.Resolve()
	if err != nil {
		return &Shape{open: true}
	}
	key := n.Identity()
	if s := b.known[key]; s != nil {
		return s
	}
	s := &Shape{members: make(map[string]*Shape)}
	b.known[key] = s
	b.add(s, n, 0)
	s.open = s.open || len(s.members) == 0
	return s
}

// maxDepth bounds schemas within schemas for the same value.
const maxDepth = 32

// add merges what a schema and its branches say. One member of any branch is
// described, whichever branch holds.
func (b *Builder) add(s *Shape, n openapi.Node, depth int) {
	n, err := n.Resolve()
	m, ok := n.Value.(map[string]any)
	if err != nil || !ok || depth > maxDepth {
		s.open = true
		return
	}
	properties, _ := n.Child("properties")
	if all, ok := properties.Value.(map[string]any); ok {
		for name := range all {
			if s.members[name] == nil {
				child, _ := properties.Child(name)
				s.members[name] = b.Of(child)
			}
		}
	}
	if _, said := m["additionalProperties"]; said || m["patternProperties"] != nil || m["$dynamicRef"] != nil {
		s.open = true
	}
	if items, ok := n.Child("items"); ok && s.items == nil {
		s.items = b.Of(items)
	}
	for _, word := range []string{"allOf", "anyOf", "oneOf"} {
		branches, _ := n.Child(word)
		list, _ := branches.Value.([]any)
		for i := range list {
			branch, _ := branches.Child(strconv.Itoa(i))
			b.add(s, branch, depth+1)
		}
	}
}

// maxVisits bounds the time for one value.
const maxVisits = 100_000

// Unknown lists the pointers of members that are not described, at most limit,
// in order. Elements of lists are written *.
func (s *Shape) Unknown(value any, limit int) []string {
	w := &walk{limit: limit, seen: make(map[string]bool)}
	w.value(s, value, "")
	slices.Sort(w.found)
	return w.found
}

type walk struct {
	found  []string
	seen   map[string]bool
	limit  int
	visits int
}

func (w *walk) value(s *Shape, value any, pointer string) {
	if w.visits++; s == nil || w.visits > maxVisits || len(w.found) >= w.limit {
		return
	}
	switch value := value.(type) {
	case []any:
		for _, item := range value {
			w.value(s.items, item, pointer+"/*")
		}
	case map[string]any:
		for name, item := range value {
			at := pointer + "/" + openapi.Escape(name)
			if known := s.members[name]; known != nil {
				w.value(known, item, at)
			} else if !s.open && !w.seen[at] && len(w.found) < w.limit {
				w.seen[at] = true
				w.found = append(w.found, at)
			}
		}
	}
}
