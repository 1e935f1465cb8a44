package schema

import (
	"math"
	"reflect"
)

// bounded limits the work of one validation. Libraries follow a schema that
// comes back to itself in several ways as often as there are ways, at every
// level of the value: 150 bytes could keep a core busy for minutes. Their
// visits can be counted beforehand in a time that is linear in the product of
// schema and value, because the count for a subschema and a part of the value
// is the same whichever way leads to them.
type bounded struct {
	Schema
	root *vertex
}

// A visit takes the libraries about three microseconds. A value may cost
// baseVisits, whatever it is, and visitsPerValue more for each value in it, so
// that long bodies are as welcome as with a schema that is not recursive.
const (
	baseVisits     = 30_000
	visitsPerValue = 8
)

func (b *bounded) Validate(value any) []Violation {
	m := meter{limit: baseVisits + visitsPerValue*float64(size(value)), memo: make(map[visit]float64)}
	if m.cost(b.root, value); m.over {
		return []Violation{{Detail: "is nested too deeply for a schema that branches this often"}}
	}
	return b.Schema.Validate(value)
}

// size counts the values in a value.
func size(v any) int {
	n := 1
	switch v := v.(type) {
	case map[string]any:
		for _, item := range v {
			n += size(item)
		}
	case []any:
		for _, item := range v {
			n += size(item)
		}
	}
	return n
}

// meter counts the visits of one validation.
type meter struct {
	limit float64
	memo  map[visit]float64
	over  bool
}

type visit struct {
	schema *vertex
	value  uintptr // of a map or slice that the caller keeps alive
}

// cost counts the visits for a value and everything in it. Once the limit is
// passed anywhere it is passed everywhere, and counting ends.
func (m *meter) cost(v *vertex, value any) float64 {
	switch value := value.(type) {
	case map[string]any:
		if len(value) == 0 {
			return v.flat
		}
	case []any:
		if len(value) == 0 {
			return v.flat
		}
	default:
		return v.flat
	}
	key := visit{v, reflect.ValueOf(value).Pointer()}
	if known, ok := m.memo[key]; ok || m.over {
		return known
	}
	m.memo[key] = 0 // a guessed reference may lead back here
	sum := 1.0
	for _, c := range v.inPlace {
		sum += m.cost(c, value)
	}
	for _, c := range v.guessed {
		sum += m.cost(c, value)
	}
	switch value := value.(type) {
	case map[string]any:
		for i := range v.parts {
			sum += m.members(&v.parts[i], value)
		}
	case []any:
		for i := range v.parts {
			sum += m.elements(&v.parts[i], value)
		}
	}
	m.memo[key] = sum
	if sum > m.limit || float64(len(m.memo)) > m.limit {
		m.over = true
	}
	return sum
}

func (m *meter) members(p *part, value map[string]any) (sum float64) {
	switch p.which {
	case member:
		if item, ok := value[p.name]; ok {
			sum = m.cost(p.to, item)
		}
	case names:
		sum = float64(len(value)) * p.to.flat
	case matching:
		for name, item := range value {
			if p.names.MatchString(name) {
				sum += m.cost(p.to, item)
			}
		}
	case others:
		for name, item := range value {
			if _, own := p.known[name]; !own {
				sum += m.cost(p.to, item)
			}
		}
	case element, rest: // not for objects
	}
	return sum
}

func (m *meter) elements(p *part, value []any) (sum float64) {
	switch p.which {
	case element:
		if p.index < len(value) {
			sum = m.cost(p.to, value[p.index])
		}
	case rest:
		for _, item := range value[min(p.index, len(value)):] {
			sum += m.cost(p.to, item)
		}
	case member, matching, others, names: // not for arrays
	}
	return sum
}

// measure counts the visits of a value without parts. It must be called for
// every schema before any value is looked at.
func (v *vertex) measure() float64 {
	if v.flat != 0 {
		return v.flat
	}
	v.flat = 1 // for a guessed reference that leads back here
	sum := 1.0
	for _, c := range v.inPlace {
		sum += c.measure()
	}
	for _, c := range v.guessed {
		sum += c.measure()
	}
	v.flat = sum
	return sum
}

// plenty is how many visits the places of one value may cost before the work
// is counted for each value.
const plenty = 1000

// boundless reports whether the work for a value may be out of proportion to
// its size: because the schema is recursive, or because it names the same
// subschemas very often.
func (v *vertex) boundless() bool {
	return v.unfolded(make(map[*vertex]float64)) > plenty
}

// unfolded is how large the schema is with every reference written out.
func (v *vertex) unfolded(known map[*vertex]float64) float64 {
	if n, ok := known[v]; ok {
		return n
	}
	known[v] = math.Inf(1) // on the way: to come back here is recursion
	sum := 1.0
	for _, c := range v.inPlace {
		sum += c.unfolded(known)
	}
	for _, c := range v.guessed {
		sum += c.unfolded(known)
	}
	for _, p := range v.parts {
		sum += p.to.unfolded(known)
	}
	known[v] = sum
	return sum
}
