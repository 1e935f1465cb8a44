// Package generations remembers what was seen last, in bounded memory.
package generations

// Map holds values by key in two generations: when the young one is full it
// becomes the old one, and what was old is forgotten, save what was put again
// in between. It is not safe for concurrent use. The zero Map holds nothing
// before Most is set.
type Map[V any] struct {
	Most       int // in a generation
	young, old map[uint64]V
}

// Get finds the value of a key that is remembered, or the zero value.
func (m *Map[V]) Get(key uint64) V {
	if v, ok := m.young[key]; ok {
		return v
	}
	return m.old[key]
}

// Put remembers a value.
func (m *Map[V]) Put(key uint64, v V) {
	if _, ok := m.young[key]; !ok && len(m.young) >= m.Most {
		m.old, m.young = m.young, nil
	}
	if m.young == nil {
		m.young = make(map[uint64]V)
	}
	m.young[key] = v
}

// Len counts the keys that are remembered, some of them twice.
func (m *Map[V]) Len() int { return len(m.young) + len(m.old) }
