package schema

import (
	"slices"
	"strconv"
	"strings"

	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/openapi"
	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/pattern"
)

// graph is how subschemas lead to each other. It finds, before any library sees
// them, loops that would overflow the stack and patterns that do not compile,
// and says how much work a value will be.
type graph struct {
	seen    map[openapi.Identity]*vertex
	all     []*vertex
	checked int                                         // how many of all are known not to loop
	named   map[*openapi.File]map[string][]openapi.Node // by $id, $anchor and $dynamicAnchor
}

func newGraph() *graph {
	return &graph{seen: make(map[openapi.Identity]*vertex), named: make(map[*openapi.File]map[string][]openapi.Node)}
}

type vertex struct {
	at      openapi.Node
	inPlace []*vertex // subschemas for the same value
	guessed []*vertex // the same, by names that only the library resolves exactly
	parts   []part    // subschemas for parts of it
	state   uint8     // of the search for loops: 1 on the way, 2 done
	flat    float64   // visits that a value without parts costs
}

// part is a subschema with the parts of a value that it is applied to.
type part struct {
	to    *vertex
	which selection
	name  string           // for member
	index int              // for element and rest
	known map[string]any   // for others: the members that have their own
	names *pattern.Pattern // for matching
}

type selection uint8

const (
	member   selection = iota // the one of that name
	matching                  // members whose names match
	others                    // members without a subschema of their own
	names                     // the names of all members
	element                   // the one at that index
	rest                      // elements from that index
)

// Keywords that hold schemas for the same value, and how: the others are read
// one by one in vertex.
var (
	inPlaceOne  = []string{"not", "if", "then", "else"}
	inPlaceList = []string{"allOf", "anyOf", "oneOf"}
	inPlaceMap  = []string{"dependentSchemas", "dependencies"}
	deeperMap   = []string{"properties", "patternProperties"}
)

// walk adds what a node leads to, and reports a loop without progress.
func (g *graph) walk(n openapi.Node) (*vertex, error) {
	v, err := g.vertex(n)
	if err != nil {
		return nil, err
	}
	for ; g.checked < len(g.all); g.checked++ {
		if err := g.all[g.checked].loop(); err != nil {
			return nil, err
		}
		g.all[g.checked].measure()
	}
	return v, nil
}

// vertex returns nil for what is no schema, or is one without parts: true and
// false.
func (g *graph) vertex(n openapi.Node) (*vertex, error) {
	m, ok := n.Value.(map[string]any)
	if !ok {
		return nil, nil
	}
	key := n.Identity()
	if v := g.seen[key]; v != nil {
		return v, nil
	}
	v := &vertex{at: n}
	g.seen[key] = v
	g.all = append(g.all, v)
	if err := g.references(v, m); err != nil {
		return nil, err
	}
	for _, word := range inPlaceOne {
		if err := g.one(n, word, func(c *vertex) { v.inPlace = append(v.inPlace, c) }); err != nil {
			return nil, err
		}
	}
	for _, word := range slices.Concat(inPlaceList, inPlaceMap) {
		if err := g.each(n, word, func(c *vertex, _ string) { v.inPlace = append(v.inPlace, c) }); err != nil {
			return nil, err
		}
	}
	if p, ok := m["pattern"]; ok {
		p, ok := p.(string)
		if !ok {
			at, _ := n.Child("pattern")
			return nil, at.Errorf("pattern must be a text")
		}
		if err := usable(n, "pattern", p); err != nil {
			return nil, err
		}
	}
	if err := g.members(v, m); err != nil {
		return nil, err
	}
	return v, g.elements(v, m)
}

func (g *graph) references(v *vertex, m map[string]any) error {
	n := v.at
	if ref, ok := m["$ref"].(string); ok {
		if !isName(ref) {
			target, err := n.Step()
			if err != nil {
				return err
			}
			c, err := g.vertex(target)
			if c != nil {
				v.inPlace = append(v.inPlace, c)
			}
			if err != nil {
				return err
			}
		} else if err := g.guess(v, ref); err != nil {
			return err
		}
	}
	for _, word := range []string{"$dynamicRef", "$recursiveRef"} {
		if ref, ok := m[word].(string); ok {
			if err := g.guess(v, ref); err != nil {
				return err
			}
		}
	}
	return nil
}

func (g *graph) members(v *vertex, m map[string]any) error {
	n := v.at
	err := g.each(n, "properties", func(c *vertex, name string) {
		v.parts = append(v.parts, part{to: c, which: member, name: name})
	})
	if err != nil {
		return err
	}
	patterns, _ := n.Child("patternProperties")
	if all, ok := patterns.Value.(map[string]any); ok {
		for p := range all {
			if err := usable(patterns, p, p); err != nil {
				return err
			}
		}
	}
	err = g.each(n, "patternProperties", func(c *vertex, p string) {
		compiled, err := pattern.Compile(p)
		if err == nil { // it was usable just before
			v.parts = append(v.parts, part{to: c, which: matching, names: compiled})
		}
	})
	if err != nil {
		return err
	}
	known, _ := m["properties"].(map[string]any)
	for _, word := range []string{"additionalProperties", "unevaluatedProperties"} {
		if err := g.one(n, word, func(c *vertex) { v.parts = append(v.parts, part{to: c, which: others, known: known}) }); err != nil {
			return err
		}
	}
	return g.one(n, "propertyNames", func(c *vertex) { v.parts = append(v.parts, part{to: c, which: names}) })
}

func (g *graph) elements(v *vertex, m map[string]any) error {
	n := v.at
	from := func(word string, index int) error {
		return g.one(n, word, func(c *vertex) { v.parts = append(v.parts, part{to: c, which: rest, index: index}) })
	}
	tuple := func(word string) (int, error) {
		list, _ := m[word].([]any)
		return len(list), g.each(n, word, func(c *vertex, index string) {
			i, _ := strconv.Atoi(index)
			v.parts = append(v.parts, part{to: c, which: element, index: i})
		})
	}
	prefix, err := tuple("prefixItems")
	if err != nil {
		return err
	}
	older := 0
	if _, list := m["items"].([]any); list {
		older, err = tuple("items")
	} else {
		err = from("items", prefix)
	}
	if err != nil {
		return err
	}
	for word, index := range map[string]int{"additionalItems": older, "unevaluatedItems": 0, "contains": 0} {
		if err := from(word, index); err != nil {
			return err
		}
	}
	return nil
}

// one adds the schema that a keyword holds.
func (g *graph) one(n openapi.Node, word string, add func(*vertex)) error {
	child, ok := n.Child(word)
	if !ok {
		return nil
	}
	c, err := g.vertex(child)
	if c != nil {
		add(c)
	}
	return err
}

// each adds the schemas that a keyword holds, with their names or indices.
func (g *graph) each(n openapi.Node, word string, add func(*vertex, string)) error {
	holder, _ := n.Child(word)
	var keys []string
	switch v := holder.Value.(type) {
	case []any:
		for i := range v {
			keys = append(keys, strconv.Itoa(i))
		}
	case map[string]any:
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys) // two loads find the same faults first
	}
	for _, k := range keys {
		child, _ := holder.Child(k)
		c, err := g.vertex(child)
		if c != nil {
			add(c, k)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// isName tells references that are no pointers into files of the contract.
func isName(ref string) bool {
	file, fragment, _ := strings.Cut(ref, "#")
	return fragment != "" && fragment[0] != '/' || strings.HasPrefix(file, "http") || strings.HasPrefix(file, "urn:")
}

// guess adds every schema that a name may mean. The library resolves names by
// their scope; for the amount of work it is enough to leave none out. Loops in
// place through them are found by the library, at run time.
func (g *graph) guess(v *vertex, ref string) error {
	byName := g.named[v.at.File]
	if byName == nil {
		byName = make(map[string][]openapi.Node)
		collect(openapi.Node{Files: v.at.Files, File: v.at.File, Value: v.at.File.Root}, byName)
		g.named[v.at.File] = byName
	}
	file, fragment, _ := strings.Cut(ref, "#")
	candidates := byName[fragment]
	if fragment == "" || strings.HasPrefix(fragment, "/") {
		candidates = byName[file[strings.LastIndexByte(file, '/')+1:]]
		if file == "" {
			candidates = append(candidates, openapi.Node{Files: v.at.Files, File: v.at.File, Value: v.at.File.Root})
		}
	}
	for _, n := range candidates {
		c, err := g.vertex(n)
		if err != nil {
			return err
		}
		if c != nil {
			v.guessed = append(v.guessed, c)
		}
	}
	return nil
}

func collect(n openapi.Node, byName map[string][]openapi.Node) {
	switch v := n.Value.(type) {
	case map[string]any:
		for _, word := range []string{"$anchor", "$dynamicAnchor"} {
			if name, ok := v[word].(string); ok {
				byName[name] = append(byName[name], n)
			}
		}
		if id, ok := v["$id"].(string); ok {
			id = strings.TrimSuffix(id, "#")
			id = id[strings.LastIndexByte(id, '/')+1:]
			byName[id] = append(byName[id], n)
		}
		for k := range v {
			c, _ := n.Child(k)
			collect(c, byName)
		}
	case []any:
		for i := range v {
			c, _ := n.Child(strconv.Itoa(i))
			collect(c, byName)
		}
	}
}

// loop finds a way back to a schema that looks at the same value all along.
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
