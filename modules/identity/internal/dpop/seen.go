package dpop

import (
	"hash/maphash"
	"sync"
	"time"
)

// Seen remembers the proofs of the last moments, so that none is used twice. It
// holds a number of them at a time: those that were verified, and so not what a
// stranger sends. Of these, one key has a share, so that who makes very many keeps
// nobody else out. It may be used concurrently.
type Seen struct {
	seed   maphash.Seed
	most   int           // per shard and generation
	share  int           // of them, of one key
	keep   time.Duration // at least this long is remembered
	shards [shards]shard
}

const shards = 32

// shard holds two generations: what was old when the young one became old is
// forgotten, and is older than keep by then.
type shard struct {
	mu         sync.Mutex
	since      time.Time
	young, old map[uint64]struct{}
	of         map[uint64]int // how many of the young ones are a key's
}

// NewSeen remembers up to most proofs, and up to share of one key, for at least
// keep.
func NewSeen(most, share int, keep time.Duration) *Seen {
	return &Seen{seed: maphash.MakeSeed(), most: max(most/2/shards, 1), share: max(share/2/shards, 1), keep: keep}
}

// First reports whether a proof is here for the first time. It is full when too
// many came at once, of its key or of all: then nothing is known, and nothing should
// be let in.
func (s *Seen) First(p Proof, now time.Time) (first, full bool) {
	var h maphash.Hash
	h.SetSeed(s.seed)
	_, _ = h.WriteString(p.Key)
	key := h.Sum64()
	_ = h.WriteByte(0)
	_, _ = h.WriteString(p.ID)
	id := h.Sum64()
	sh := &s.shards[id%shards]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	if now.Sub(sh.since) >= s.keep {
		sh.old, sh.young, sh.of = sh.young, nil, nil
		if now.Sub(sh.since) >= 2*s.keep {
			sh.old = nil
		}
		sh.since = now
	}
	if _, there := sh.young[id]; there {
		return false, false
	}
	if _, there := sh.old[id]; there {
		return false, false
	}
	if len(sh.young) >= s.most || sh.of[key] >= s.share {
		return false, true
	}
	if sh.young == nil {
		sh.young, sh.of = make(map[uint64]struct{}), make(map[uint64]int)
	}
	sh.young[id] = struct{}{}
	sh.of[key]++
	return true, false
}
