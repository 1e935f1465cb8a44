// Package memory remembers what was proven of a credential, so that it need
// not be proven again, in bounded memory.
package memory

import (
	"hash/maphash"
	"sync"
)

// Memory maps texts to values. It holds at most 2×Size of them; what is not
// asked for is forgotten first. It may be used concurrently.
type Memory[V any] struct {
	seed   maphash.Seed
	size   int // per shard and generation
	shards [shards]shard[V]
}

const shards = 32

type shard[V any] struct {
	mu         sync.Mutex
	young, old map[uint64]entry[V]
}

// entry keeps the whole text: a hash that collides must not log anybody in.
type entry[V any] struct {
	text  string
	value V
}

// New makes a memory for at least size texts.
func New[V any](size int) *Memory[V] {
	return &Memory[V]{seed: maphash.MakeSeed(), size: max(size/shards, 1)}
}

// Get returns the value that was put for text. It does not allocate.
func (m *Memory[V]) Get(text string) (value V, ok bool) {
	h := maphash.String(m.seed, text)
	s := &m.shards[h%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.young[h]
	if !ok {
		if e, ok = s.old[h]; ok && e.text == text {
			s.put(h, e, m.size) // still in use: it lives on in the young generation
		}
	}
	if !ok || e.text != text {
		return value, false
	}
	return e.value, true
}

// Put remembers value for text.
func (m *Memory[V]) Put(text string, value V) {
	h := maphash.String(m.seed, text)
	s := &m.shards[h%shards]
	s.mu.Lock()
	defer s.mu.Unlock()
	s.put(h, entry[V]{text, value}, m.size)
}

func (s *shard[V]) put(h uint64, e entry[V], size int) {
	if _, ok := s.young[h]; !ok && len(s.young) >= size {
		s.old, s.young = s.young, nil
	}
	if s.young == nil {
		s.young = make(map[uint64]entry[V])
	}
	s.young[h] = e
}

// Len counts what is remembered.
func (m *Memory[V]) Len() (n int) {
	for i := range m.shards {
		s := &m.shards[i]
		s.mu.Lock()
		n += len(s.young) + len(s.old)
		s.mu.Unlock()
	}
	return n
}
