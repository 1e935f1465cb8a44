// Package bucket counts many callers against rates, in bounded memory.
//
// A caller is remembered as one number, its theoretical arrival time (GCRA):
// when its bucket will be full again. A bucket that is full needs no memory.
package bucket

import (
	"hash/maphash"
	"net/netip"
	"sync"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/quota/internal/generations"
)

// Limit is a rate with a burst. The zero Limit allows nothing.
type Limit struct {
	step  int64 // nanoseconds after which one event comes back
	depth int64 // nanoseconds of events that may be spent ahead: burst × step
	burst int
	ahead int64 // see Among
}

// NewLimit allows events per window, and burst at once. A rate of more than
// one event a nanosecond counts as that.
func NewLimit(events int, window time.Duration, burst int) Limit {
	if events < 1 || window <= 0 || burst < 1 {
		return Limit{}
	}
	step := max(int64(window)/int64(events), 1)
	if int64(burst) > maxAhead/step {
		burst = int(max(maxAhead/step, 1))
	}
	return Limit{step: step, depth: int64(burst) * step, burst: burst}
}

// maxAhead keeps sums of times far from overflow: ten years.
const maxAhead = int64(10 * 365 * 24 * time.Hour)

// Burst is how many events a full bucket holds.
func (l Limit) Burst() int { return l.burst }

// Step is the time after which one event comes back.
func (l Limit) Step() time.Duration { return time.Duration(l.step) }

// Ahead is how far in advance events may be spent, by those who wait too.
func (l Limit) Ahead(queue int) time.Duration {
	return time.Duration(l.depth + l.patience(queue))
}

// Among is the limit for callers whose events are spent under other limits too,
// which may be ahead by so much: who is held to this one for a moment must not
// be forgiven what was spent under a deeper one.
func (l Limit) Among(ahead time.Duration) Limit {
	l.ahead = max(l.ahead, int64(ahead))
	return l
}

// Most is the furthest that a caller can be ahead.
func (l Limit) Most(queue int) time.Duration { return max(l.Ahead(queue), time.Duration(l.ahead)) }

func (l Limit) patience(queue int) int64 { return min(int64(queue), maxAhead/max(l.step, 1)) * l.step }

// Share is what one of n may have who cannot ask each other: together no more
// than the limit, but at least one event at once.
func (l Limit) Share(n int) Limit {
	if n <= 1 || l.step == 0 {
		return l
	}
	burst := max(l.burst/n, 1)
	step := min(l.step, maxAhead/int64(n)) * int64(n)
	return Limit{step: step, depth: min(int64(burst)*step, maxAhead), burst: burst, ahead: l.ahead}
}

// Part is the limit made smaller: a part of its rate and burst, but at least
// one event at once.
func (l Limit) Part(of float64) Limit {
	if !(of > 0 && of < 1) || l.step == 0 {
		return l
	}
	burst := max(int(of*float64(l.burst)), 1)
	step := int64(min(float64(l.step)/of, float64(maxAhead)/float64(burst)))
	return Limit{step: step, depth: int64(burst) * step, burst: burst}
}

// Outcome is what one Take found.
type Outcome struct {
	Allowed   bool
	Wait      time.Duration // denied: when to come back. Allowed by Queue: when it is this one's turn
	Remaining int           // events left after this one
	Reset     time.Duration // until the bucket is full again
}

// Table remembers callers. At most 2×keys are remembered; one that is forgotten
// starts again with a full bucket. It may be used concurrently. The zero value
// is not usable; see NewTable.
type Table struct {
	seed   maphash.Seed
	shards [shards]shard
}

const shards = 64

type shard struct {
	mu    sync.Mutex
	times generations.Map[int64]
	_     [32]byte // keeps neighbours off the cache line
}

// NewTable makes a table that remembers at least keys callers.
func NewTable(keys int) *Table {
	t := &Table{seed: maphash.MakeSeed()}
	for i := range t.shards {
		t.shards[i].times.Most = max(keys/shards, 1)
	}
	return t
}

// Key names a caller of a scope under a limit. The seed is secret to the
// process, so nobody can choose names that collide.
func (t *Table) Key(limit, scope, caller string) uint64 {
	var h maphash.Hash
	h.SetSeed(t.seed)
	_, _ = h.WriteString(limit)
	_ = h.WriteByte(0)
	_, _ = h.WriteString(scope)
	_ = h.WriteByte(0)
	_, _ = h.WriteString(caller)
	return h.Sum64()
}

// KeyOf names a caller who is known by its network only.
func (t *Table) KeyOf(limit string, network netip.Prefix) uint64 {
	addr := network.Addr().As16()
	var h maphash.Hash
	h.SetSeed(t.seed)
	_, _ = h.WriteString(limit)
	_ = h.WriteByte(1) // apart from every scope, which follows a zero
	_, _ = h.Write(addr[:])
	_ = h.WriteByte(byte(network.Bits())) //nolint:gosec // at most 128
	return h.Sum64()
}

// Len counts the callers that are remembered, some of them twice.
func (t *Table) Len() (n int) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		n += s.times.Len()
		s.mu.Unlock()
	}
	return n
}

// Take spends one event of key at time now if there is one. A refused event
// costs nothing, and a caller who waits exactly Wait is let in.
func (t *Table) Take(key uint64, l Limit, now time.Time) Outcome {
	return t.take(key, l, now.UnixNano(), 0)
}

// Queue spends one event of key even when it has to wait its turn, as long as
// at most queue others wait already. Wait then says how long.
func (t *Table) Queue(key uint64, l Limit, queue int, now time.Time) Outcome {
	return t.take(key, l, now.UnixNano(), l.patience(queue))
}

func (t *Table) take(key uint64, l Limit, now, patience int64) Outcome {
	if l.step == 0 {
		return Outcome{Wait: time.Hour}
	}
	s := &t.shards[key%shards]
	s.mu.Lock()
	defer s.mu.Unlock()

	tat := s.times.Get(key)
	// A clock that went back must not lock a caller out for longer than a full
	// bucket takes, nor may a limit that became smaller.
	if most := now + max(l.depth+patience, l.ahead); tat > most {
		tat = most
		s.times.Put(key, tat)
	}
	tat = max(tat, now)
	if late := tat + l.step - now - l.depth; late > patience {
		return Outcome{Wait: time.Duration(late - patience), Reset: time.Duration(tat - now)}
	} else if late > 0 {
		s.times.Put(key, tat+l.step)
		return Outcome{Allowed: true, Wait: time.Duration(late), Reset: time.Duration(tat + l.step - now)}
	}
	tat += l.step
	s.times.Put(key, tat)
	return Outcome{Allowed: true, Remaining: int((now + l.depth - tat) / l.step), Reset: time.Duration(tat - now)}
}
