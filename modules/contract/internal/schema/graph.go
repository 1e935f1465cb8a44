package schema

import (
	"slices"
	"strconv"

	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/openapi"
)

// graph is how the subschemas of a schema lead to each other. It finds, before
// any library sees them, loops that would overflow the stack and branches that
// would take for ever.
type graph struct {
	seen map[string]*vertex
	all  []*vertex
}

type vertex struct {
	at      openapi.Node
	inPlace []*vertex // subschemas for the same value
	deeper  []*vertex // subschemas for parts of it
	state   uint8     // of the search for loops: 1 on the way, 2 done
}

// Keywords that apply schemas, by what they hold and what they apply to.
var (
	inPlaceOne  = []string{"not", "if", "then", "else"}
	inPlaceList = []string{"allOf", "anyOf", "oneOf"}
	inPlaceMap  = []string{"dependentSchemas", "dependencies"}
	deeperOne   = []string{"items", "additionalItems", "additionalProperties", "contains", "propertyNames", "unevaluatedItems", "unevaluatedProperties"}
	deeperList  = []string{"items", "prefixItems"}
	deeperMap   = []string{"properties", "patternProperties"}
)

// walk builds the graph from a node and reports a loop without progress.
func (g *graph) walk(n openapi.Node) error {
	v, err := g.vertex(n)
	if err != nil {
		return err
	}
	_ = v
	for _, v := range g.all {
		if err := v.loop(); err != nil {
			return err
		}
	}
	return nil
}

func (g *graph) vertex(n openapi.Node) (*vertex, error) {
	key := n.File.Name + "#" + n.Pointer
	if v := g.seen[key]; v != nil {
		return v, nil
	}
	v := &vertex{at: n}
	g.seen[key] = v
	g.all = append(g.all, v)
	m, ok := n.Value.(map[string]any)
	if !ok {
		return v, nil
	}
	add := func(to *[]*vertex, child openapi.Node) error {
		if _, isSchema := child.Value.(map[string]any); !isSchema {
			return nil
		}
		c, err := g.vertex(child)
		if err == nil {
			*to = append(*to, c)
		}
		return err
	}
	if ref, ok := m["$ref"].(string); ok && (ref == "" || ref[0] == '#' && (len(ref) == 1 || ref[1] == '/') || !isAnchor(ref)) {
		target, err := n.Step()
		if err != nil {
			return nil, err
		}
		if err := add(&v.inPlace, target); err != nil {
			return nil, err
		}
	}
	for _, group := range []struct {
		to    *[]*vertex
		words []string
		many  bool
	}{{&v.inPlace, inPlaceOne, false}, {&v.inPlace, inPlaceList, true}, {&v.inPlace, inPlaceMap, true}, {&v.deeper, deeperOne, false}, {&v.deeper, deeperList, true}, {&v.deeper, deeperMap, true}} {
		for _, word := range group.words {
			child, ok := n.Child(word)
			if !ok {
				continue
			}
			if !group.many {
				if err := add(group.to, child); err != nil {
					return nil, err
				}
				continue
			}
			if err := eachPart(child, func(part openapi.Node) error { return add(group.to, part) }); err != nil {
				return nil, err
			}
		}
	}
	return v, nil
}

// isAnchor tells references that are not pointers, which the newer library
// resolves by itself.
func isAnchor(ref string) bool {
	for i := range len(ref) {
		if ref[i] == '#' {
			return i+1 < len(ref) && ref[i+1] != '/'
		}
	}
	return len(ref) > 4 && (ref[:4] == "http" || ref[:4] == "urn:")
}

func eachPart(n openapi.Node, do func(openapi.Node) error) error {
	switch v := n.Value.(type) {
	case []any:
		for i := range v {
			c, _ := n.Child(strconv.Itoa(i))
			if err := do(c); err != nil {
				return err
			}
		}
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			c, _ := n.Child(k)
			if err := do(c); err != nil {
				return err
			}
		}
	}
	return nil
}

// loop finds a way back to v that looks at the same value all along.
func (v *vertex) loop() error {
	switch v.state {
	case 1:
		return v.at.Errorf("the schema refers to itself without looking at a part of the value")
	case 2:
		return nil
	}
	v.state = 1
	for _, next := range v.inPlace {
		if err := next.loop(); err != nil {
			return err
		}
	}
	v.state = 2
	return nil
}

// branching is the greatest number of ways in which one subschema comes back
// to itself on parts of the same value; 0 or 1 is harmless.
func (g *graph) branching() int {
	most := 0
	for _, v := range g.all {
		if len(v.inPlace) < 2 {
			continue
		}
		n := 0
		for _, branch := range v.inPlace {
			if reaches(branch, v, make(map[*vertex]bool)) {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

func reaches(from, to *vertex, seen map[*vertex]bool) bool {
	if from == to {
		return true
	}
	if seen[from] {
		return false
	}
	seen[from] = true
	for _, next := range from.inPlace {
		if reaches(next, to, seen) {
			return true
		}
	}
	for _, next := range from.deeper {
		if reaches(next, to, seen) {
			return true
		}
	}
	return false
}
