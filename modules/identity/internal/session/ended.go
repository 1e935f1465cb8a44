package session

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// End is what is remembered of an end: sessions of that name that began before
// At are over. Until then the latest of them would have ended by itself.
type End struct {
	Name      Name
	At, Until int64 // milliseconds of Unix time
}

// String is the end as it is kept, where the name of a file says everything.
func (e End) String() string {
	return fmt.Sprintf("%d-%d-%s", e.Until, e.At, hex.EncodeToString(e.Name[:]))
}

// ReadEnd reads what String has written.
func ReadEnd(text string) (e End, ok bool) {
	until, rest, ok1 := strings.Cut(text, "-")
	at, name, ok2 := strings.Cut(rest, "-")
	raw, err := hex.DecodeString(name)
	if !ok1 || !ok2 || err != nil || len(raw) != len(e.Name) {
		return e, false
	}
	copy(e.Name[:], raw)
	var err1, err2 error
	e.Until, err1 = strconv.ParseInt(until, 10, 64)
	e.At, err2 = strconv.ParseInt(at, 10, 64)
	return e, err1 == nil && err2 == nil && e.String() == text
}

// Ended remembers which sessions were ended before their time. It may be used
// concurrently. When there are more ends than it holds, it rather ends other
// sessions as well than forgets one: all that began before the ends it leaves
// out.
type Ended struct {
	most int

	mu    sync.RWMutex
	ends  map[Name]ended
	floor int64
}

type ended struct {
	at, until int64
	kept      bool // somewhere else too
}

// NewEnded remembers at most most ends.
func NewEnded(most int) *Ended { return &Ended{most: most, ends: map[Name]ended{}} }

// Add remembers an end; kept says that it came from where it is kept.
func (b *Ended) Add(e End, kept bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	old, there := b.ends[e.Name]
	if there && old.at >= e.At && old.until >= e.Until {
		return
	}
	b.ends[e.Name] = ended{max(old.at, e.At), max(old.until, e.Until), kept}
	if len(b.ends) > b.most {
		b.shorten()
	}
}

// shorten leaves out the older half.
func (b *Ended) shorten() {
	all := make([]Name, 0, len(b.ends))
	for n := range b.ends {
		all = append(all, n)
	}
	slices.SortFunc(all, func(x, y Name) int { return cmp.Compare(b.ends[x].at, b.ends[y].at) })
	for _, n := range all[:(len(all)+1)/2] {
		b.floor = max(b.floor, b.ends[n].at)
		delete(b.ends, n)
	}
}

// Has reports whether a session that began then, of any of these names, was
// ended.
func (b *Ended) Has(began int64, names []Name) bool {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if began <= b.floor {
		return true
	}
	if len(b.ends) == 0 {
		return false
	}
	for _, n := range names {
		if e, there := b.ends[n]; there && began <= e.at {
			return true
		}
	}
	return false
}

// Prune forgets ends whose sessions are over by themselves, and returns those
// that are not kept anywhere else yet.
func (b *Ended) Prune(now time.Time) (unkept []End) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for n, e := range b.ends {
		switch {
		case e.until <= now.UnixMilli():
			delete(b.ends, n)
		case !e.kept:
			unkept = append(unkept, End{n, e.at, e.until})
		}
	}
	return unkept
}

// Kept notes that an end is kept somewhere else.
func (b *Ended) Kept(e End) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if have, there := b.ends[e.Name]; there && have.at == e.At {
		have.kept = true
		b.ends[e.Name] = have
	}
}

// Len counts the ends.
func (b *Ended) Len() int {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return len(b.ends)
}
