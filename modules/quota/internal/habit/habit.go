// Package habit tells when a caller sends far more than it usually does.
//
// A habit is an average rate that forgets: what lies as long ago as the
// learning time counts for a third. It is compared with the rate of the last
// minute, which is an average of the same kind.
package habit

import (
	"math"
	"sync"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/quota/internal/generations"
)

// Settings say what is unusual.
type Settings struct {
	Above float64       // times the habit
	Learn time.Duration // how long a caller is watched first, and what a habit looks back at
}

const (
	// minute is what "at the moment" means.
	minute = time.Minute

	// least is how many events in that time are worth a thought: twice nothing
	// is nothing.
	least = 20
)

// Habits remembers callers, at least as many as it was made for and at most
// twice as many. It may be used concurrently.
type Habits struct{ shards [shards]shard }

const shards = 64

type shard struct {
	mu      sync.Mutex
	callers generations.Map[caller]
	_       [32]byte // keeps neighbours off the cache line
}

// caller is 32 bytes: there may be millions.
type caller struct {
	since, last int64   // nanoseconds; 0: never seen
	usual       float64 // events a second, over the learning time; not corrected for its beginning
	now         float64 // events a second, over the last minute
}

// New makes room for callers.
func New(callers int) *Habits {
	h := new(Habits)
	for i := range h.shards {
		h.shards[i].callers.Most = max(callers/shards, 1)
	}
	return h
}

// Note takes note of one event of a caller and reports whether the caller
// sends far more than it usually does. One that is not known long enough has no
// habit yet.
func (h *Habits) Note(key uint64, s Settings, now time.Time) (unusual bool) {
	sh := &h.shards[key%shards]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	c := sh.callers.Get(key)
	unusual = c.note(s, now.UnixNano())
	sh.callers.Put(key, c)
	return unusual
}

func (c *caller) note(s Settings, now int64) bool {
	if c.since == 0 {
		c.since, c.last = now, now
	}
	passed := float64(max(now-c.last, 0))
	c.last = max(now, c.last)
	c.now = c.now*math.Exp(-passed/float64(minute)) + 1/minute.Seconds()
	known := float64(now - c.since)
	// What is unusual becomes the habit slowly, however often it is tried: it
	// counts for twice the habit, and so doubles it in most of a learning time.
	event := 1 / s.Learn.Seconds()
	if known < float64(s.Learn) {
		c.usual = c.usual*math.Exp(-passed/float64(s.Learn)) + event
		return false
	}
	usual := c.usual / (1 - math.Exp(-known/float64(s.Learn))) // an average that began with nothing
	unusual := c.now*minute.Seconds() >= least && c.now > s.Above*usual
	c.usual *= math.Exp(-passed / float64(s.Learn))
	if unusual {
		event *= min(1, 2*usual/c.now)
	}
	c.usual += event
	return unusual
}
