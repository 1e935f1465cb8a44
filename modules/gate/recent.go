package gate

import (
	"iter"
	"slices"
	"sync/atomic"
)

// The last finished Exchanges are remembered for the whole process, so that a
// reload forgets none. Those that passed and those that did not have a ring
// each: operators look for refusals, and traffic that is well must not push
// them out, nor a flood of refusals all else. Remembering is one addition and
// one store; readers come by when they like and find what is still there, so
// that nothing they do can keep a request waiting.

// ring holds the last records of one kind.
type ring struct {
	slots []atomic.Pointer[Record]
	next  atomic.Uint64
	taken uint64 // places before it are another ring's: what is not here will not come
}

func (g *ring) add(rec *Record) {
	rec.place = g.next.Add(1) - 1
	g.slots[rec.place%uint64(len(g.slots))].Store(rec)
}

// at is the record at a place; nil if it has not arrived or is gone.
func (g *ring) at(place uint64) *Record {
	if rec := g.slots[place%uint64(len(g.slots))].Load(); rec != nil && rec.place == place {
		return rec
	}
	return nil
}

// since appends what came from a place on and returns where to go on, and how
// many were gone already.
func (g *ring) since(from uint64, limit int, to []*Record) (_ []*Record, next, lost uint64) {
	end, n := g.next.Load(), uint64(len(g.slots))
	if from > end {
		from = end // the place is one of another process
	}
	if end-from > n {
		from, lost = end-n, end-n-from
	}
	for ; from < end && limit > 0; from++ {
		rec := g.slots[from%n].Load()
		switch {
		case (rec == nil || rec.place < from) && from < g.taken:
			lost++
		case rec == nil || rec.place < from:
			return to, from, lost // on its way
		case rec.place > from:
			lost++ // overtaken while we read
		default:
			to, limit = append(to, rec), limit-1
		}
	}
	return to, from, lost
}

// resized is the ring with another size and the same records, as far as they
// fit. One that arrives meanwhile may be forgotten.
func (g *ring) resized(n int) *ring {
	out := &ring{slots: make([]atomic.Pointer[Record], n)}
	if g == nil {
		return out
	}
	end, fit := g.next.Load(), min(uint64(len(out.slots)), uint64(len(g.slots)))
	out.next.Store(end)
	out.taken = end
	for place := end - min(end, fit); place < end; place++ {
		if rec := g.at(place); rec != nil {
			out.slots[place%uint64(len(out.slots))].Store(rec)
		}
	}
	return out
}

type memory struct {
	rings [2]*ring // that passed, that did not
	size  int
}

var (
	recent   atomic.Pointer[memory]
	recorded atomic.Uint64
)

// KeepRecent says how many Exchanges that passed, and as many that did not, are
// remembered. None are until it is called, nor after it is called with 0. It is
// not to be called by two at once.
func KeepRecent(n int) {
	old := recent.Load()
	switch {
	case n <= 0:
		recent.Store(nil)
		return
	case old == nil:
		old = new(memory)
	case old.size == n:
		return
	}
	recent.Store(&memory{[2]*ring{old.rings[0].resized(n), old.rings[1].resized(n)}, n})
}

// RecentKept is how many of either kind are remembered.
func RecentKept() int {
	if m := recent.Load(); m != nil {
		return m.size
	}
	return 0
}

// Remember keeps a record until enough others have come after it.
func Remember(rec *Record) {
	m := recent.Load()
	if m == nil {
		return
	}
	rec.Seq = recorded.Add(1)
	if rec.Plain() {
		m.rings[0].add(rec)
	} else {
		m.rings[1].add(rec)
	}
}

// Recent goes through what is remembered, the newest first.
func Recent() iter.Seq[*Record] {
	return func(yield func(*Record) bool) {
		m := recent.Load()
		if m == nil {
			return
		}
		a, b := m.rings[0].backwards(), m.rings[1].backwards()
		x, y := a(), b()
		for x != nil || y != nil {
			var rec *Record
			if y == nil || x != nil && x.Seq > y.Seq {
				rec, x = x, a()
			} else {
				rec, y = y, b()
			}
			if !yield(rec) {
				return
			}
		}
	}
}

// backwards gives the ring's records, the newest first, then nil.
func (g *ring) backwards() func() *Record {
	place := g.next.Load()
	last := place - min(place, uint64(len(g.slots)))
	return func() *Record {
		for place > last {
			place--
			if rec := g.at(place); rec != nil {
				return rec
			}
		}
		return nil
	}
}

// FindRecent finds the newest record with a request id; nil if there is none.
func FindRecent(id string) *Record {
	for rec := range Recent() {
		if rec.ID == id {
			return rec
		}
	}
	return nil
}

// Cursor is a place between what is remembered and what is still to come.
type Cursor struct{ Passed, Refused uint64 }

// CursorNow is the place behind all that is remembered.
func CursorNow() (c Cursor) {
	if m := recent.Load(); m != nil {
		c = Cursor{m.rings[0].next.Load(), m.rings[1].next.Load()}
	}
	return c
}

// Since returns what came after c, the oldest first and of either kind at most
// limit, the place to go on from, and how many were forgotten before they could
// be read.
func (c Cursor) Since(limit int) (recs []*Record, next Cursor, lost uint64) {
	m := recent.Load()
	if m == nil {
		return nil, c, 0
	}
	recs, next.Passed, lost = m.rings[0].since(c.Passed, limit, recs)
	recs, refused, more := m.rings[1].since(c.Refused, limit, recs)
	next.Refused = refused
	slices.SortFunc(recs, func(a, b *Record) int { return int(int64(a.Seq - b.Seq)) }) //nolint:gosec // a difference of neighbours
	return recs, next, lost + more
}
