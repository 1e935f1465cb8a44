// Package revoked remembers what is not good any more, a million of it in
// little memory, and is asked about it on every request.
package revoked

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"math/bits"
	"sync/atomic"
	"time"
)

// Parts is how many parts a Set has. Each is replaced whole, so that a change
// costs one part and not the Set.
const Parts = 1 << 12

// Mark stands for what is revoked. It is part of a SHA-256, so that nobody can
// choose things whose marks meet.
type Mark [16]byte

// Of marks a thing: what says of which sort it is, and whose gives it the scope
// that its name is of. No two things have one text.
func Of(what, whose, name string) Mark {
	var room [256]byte
	text := room[:0]
	for _, part := range [...]string{what, whose} {
		text = binary.AppendUvarint(text, uint64(len(part)))
		text = append(text, part...)
	}
	text = append(text, name...)
	sum := sha256.Sum256(text)
	return Mark(sum[:16])
}

// String is the mark in 32 hexadecimal digits.
func (m Mark) String() string { return hex.EncodeToString(m[:]) }

// Part is which part of a Set the mark is in: its first three digits.
func (m Mark) Part() int { return int(m[0])<<4 | int(m[1])>>4 }

// Entry is one revocation.
type Entry struct {
	Mark   Mark
	Until  uint32 // seconds since the epoch, from which on it says nothing
	Before uint32 // only what was issued before; 0 means all
}

// Seconds rounds a time up to whole seconds since the epoch, as entries have
// it: what was issued in the same second counts as issued before.
func Seconds(t time.Time) uint32 {
	s := t.Unix()
	if t.Nanosecond() > 0 {
		s++
	}
	return uint32(min(max(s, 0), 1<<32-1))
}

// Set is all revocations. The zero Set has none, and a nil one too. It may be
// asked by any number of goroutines while one replaces parts. It takes 24 bytes
// for a revocation and a third more for room between them.
type Set struct {
	parts [Parts]atomic.Pointer[part]
	held  atomic.Int64
}

// part is a table that is never full: a search ends at the first empty slot.
type part struct {
	slots []Entry
	held  int
}

// Replace makes a part hold these entries and no others.
func (s *Set) Replace(at int, entries []Entry) {
	var fresh *part
	if len(entries) > 0 {
		fresh = &part{slots: make([]Entry, len(entries)+len(entries)/3+1)}
		for _, e := range entries {
			fresh.add(e)
		}
	}
	s.held.Add(int64(fresh.len() - s.parts[at].Swap(fresh).len()))
}

func (p *part) add(e Entry) {
	e.Until = max(e.Until, 1) // 0 is an empty slot
	i := p.first(e.Mark)
	for p.slots[i].Until != 0 {
		if p.slots[i].Mark == e.Mark {
			p.slots[i] = e
			return
		}
		if i++; i == len(p.slots) {
			i = 0
		}
	}
	p.slots[i] = e
	p.held++
}

// first is the slot where a search begins. The digits that chose the part do
// not choose the slot.
func (p *part) first(m Mark) int {
	high, _ := bits.Mul64(binary.LittleEndian.Uint64(m[8:]), uint64(len(p.slots)))
	return int(high) //nolint:gosec // it is less than the number of slots
}

func (p *part) len() int {
	if p == nil {
		return 0
	}
	return p.held
}

// Has reports whether a thing is revoked at now that was issued at issued, both
// in seconds since the epoch. Who does not know when it was issued says 0. It
// does not allocate, and takes as long for one revocation as for a million.
func (s *Set) Has(m Mark, issued, now int64) bool {
	e := s.find(m)
	return e != nil && now < int64(e.Until) && (e.Before == 0 || issued < int64(e.Before))
}

// Find returns what is held of a mark, be it over or not.
func (s *Set) Find(m Mark) (e Entry, held bool) {
	if at := s.find(m); at != nil {
		return *at, true
	}
	return e, false
}

func (s *Set) find(m Mark) *Entry {
	if s == nil {
		return nil
	}
	p := s.parts[m.Part()].Load()
	if p == nil {
		return nil
	}
	for i := p.first(m); p.slots[i].Until != 0; {
		if e := &p.slots[i]; e.Mark == m {
			return e
		}
		if i++; i == len(p.slots) {
			i = 0
		}
	}
	return nil
}

// Len counts what is held.
func (s *Set) Len() int {
	if s == nil {
		return 0
	}
	return int(s.held.Load())
}

// PartLen counts what a part holds.
func (s *Set) PartLen(at int) int { return s.parts[at].Load().len() }

// Over lists at most limit parts with entries that say nothing any more.
func (s *Set) Over(now time.Time, limit int) (parts []int) {
	for at := range s.parts {
		p := s.parts[at].Load()
		if p == nil {
			continue
		}
		for _, e := range p.slots {
			if e.Until != 0 && int64(e.Until) <= now.Unix() {
				parts = append(parts, at)
				break
			}
		}
		if len(parts) == limit {
			break
		}
	}
	return parts
}
