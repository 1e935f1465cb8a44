// Package release tells whether a new release does worse than the stable one,
// from what became of the requests that each of them got, and which callers a
// share of them are.
package release

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Settings say what is worse.
type Settings struct {
	Errors  float64       // by how much the share of failures may exceed the stable one's, 0.05 for 5 points
	Latency float64       // how many times the stable one's 95th percentile may be
	Samples int           // results that both must have in a window
	Window  time.Duration // what is looked back at
}

// Side is one of the two that are compared.
type Side uint8

// The sides.
const (
	Stable Side = iota
	Canary
)

// Outcome is what became of a request.
type Outcome uint8

// The outcomes.
const (
	Fine   Outcome = iota // answered
	Failed                // not answered, or with a failure
	Left                  // the client did not wait for the answer
)

const (
	// slots is how finely the window moves.
	slots = 10

	// callers is how many callers are told apart; two that fall into one place
	// count as one.
	callers = 512

	// share is the part of Samples that the results of one caller can make up
	// in a slot, so that nobody crowds out the others. One who is alone on a
	// release still has enough within half a window.
	share = 5

	// z is how sure to be, in standard deviations. One comparison with a release
	// that is just as bad as it may be goes wrong once in 300,000 times. As
	// comparisons are repeated, and the intervals are approximate, that makes
	// once in some 10,000 windows; with a release that is as good as the stable
	// one it hardly ever happens. The tests simulate both.
	z = 4.5

	// zRest is how sure to be of what is left without the loudest callers. It
	// is asked only where all results have spoken, and must not keep a release
	// that is bad for everybody because few others have met it yet.
	zRest = 3

	// loud is how many callers are left out at most, one for each tenth of
	// those there are: somebody with two addresses is no release.
	loud = 3

	// tail is the share of requests above the 95th percentile.
	tail = 0.05

	// slack is what a 95th percentile may always exceed the other by: a
	// release with few callers has colder connections.
	slack = 10 * time.Millisecond
)

// Figures are what is known of one side.
type Figures struct {
	Results  int           // answered or failed
	Failures int           // of these
	Latency  time.Duration // 95th percentile of the time to the response header, by a 12th too long at most
}

// Finding is why a canary is worse.
type Finding struct {
	Why            string // errors or latency
	Canary, Stable Figures
}

// Comparison compares a canary with the stable release. It is safe for
// concurrent use. It takes some 30 KiB, or 64 bytes for each of Samples where
// that is more, however many requests there are.
type Comparison struct {
	settings Settings
	start    time.Time
	most     uint32       // results of one caller in a slot
	fresh    atomic.Int64 // results of the canary since it was judged last
	seen     [2][callers]atomic.Uint64

	mu     sync.Mutex
	stable [slots]slot
	canary []result // a ring: the last ones, which are looked at one by one
	added  uint64   // results that were ever put into it
}

// slot holds the results of the stable release in a tenth of the window.
type slot struct {
	turn    int64
	results int
	failed  int
	timed   histogram
}

// result is one result of the canary.
type result struct {
	turn    int64
	caller  uint16
	bucket  uint8 // of the histogram
	outcome Outcome
}

// New returns a comparison of nothing yet.
func New(s Settings, now time.Time) *Comparison {
	return &Comparison{
		settings: s, start: now,
		most:   uint32(max(s.Samples/share, 1)), //nolint:gosec // far below its limit
		canary: make([]result, max(4*s.Samples, 1024)),
	}
}

// Reset forgets all results.
func (c *Comparison) Reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stable = [slots]slot{}
	clear(c.canary)
	c.fresh.Store(0)
}

// Ticket is what a result may be spoilt by; the zero Ticket is that of a result
// that does not count.
type Ticket uint64

// Add records what became of a request of a caller, and how long the header of
// the response took.
func (c *Comparison) Add(s Side, caller Point, o Outcome, took time.Duration, now time.Time) Ticket {
	turn := c.turn(now)
	if !c.admit(s, caller, turn) {
		return 0
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s == Canary {
		c.canary[c.added%uint64(len(c.canary))] = result{turn, uint16(caller % callers), uint8(bucket(took)), o} //nolint:gosec // both are within
		c.added++
		c.fresh.Add(1)
		return Ticket(c.added)
	}
	at := c.slot(turn)
	if o != Left {
		at.results++
	}
	if o == Failed {
		at.failed++
	} else {
		at.timed.add(bucket(took))
	}
	return 1
}

// Spoil makes a failure of a result that counted as fine: the response broke
// off, or what came behind it says so.
func (c *Comparison) Spoil(s Side, t Ticket, now time.Time) {
	if t == 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if s == Stable {
		c.slot(c.turn(now)).failed++
		return
	}
	if size := uint64(len(c.canary)); c.added-uint64(t) < size {
		c.canary[uint64(t-1)%size].outcome = Failed
		c.fresh.Add(1)
	}
}

// admit counts the results of one caller in this slot.
func (c *Comparison) admit(s Side, caller Point, turn int64) bool {
	place := &c.seen[s][caller%callers]
	for {
		old := place.Load()
		count := uint32(old)                        //nolint:gosec // the lower half
		if old>>32 != uint64(turn)&math.MaxUint32 { //nolint:gosec // turns are not negative
			count = 0
		}
		if count >= c.most {
			return false
		}
		if place.CompareAndSwap(old, uint64(turn)<<32|uint64(count+1)) { //nolint:gosec // turns are not negative
			return true
		}
	}
}

// turn numbers slots from 1, so that what is empty belongs to none in the window.
func (c *Comparison) turn(now time.Time) int64 {
	return int64(now.Sub(c.start)/(c.settings.Window/slots)) + slots
}

func (c *Comparison) slot(turn int64) *slot {
	at := &c.stable[turn%slots]
	if at.turn < turn {
		*at = slot{turn: turn}
	}
	return at
}

// Judge says whether the canary is worse, as far as there are enough results.
// It looks anew with every tenth of the samples that comes in.
func (c *Comparison) Judge(now time.Time) (Finding, bool) {
	if c.fresh.Load() < int64(max(c.settings.Samples/10, 1)) {
		return Finding{}, false
	}
	c.fresh.Store(0)
	c.mu.Lock()
	defer c.mu.Unlock()
	turn := c.turn(now)
	var stable slot
	for i := range c.stable {
		if at := &c.stable[i]; turn-at.turn < slots {
			stable.results += at.results
			stable.failed += at.failed
			stable.timed.merge(&at.timed)
		}
	}
	// What was spoilt may have been counted in a slot that is gone.
	stable.failed = min(stable.failed, stable.results)

	limit := limit(&stable.timed, c.settings.Latency)
	var failed, slow tally
	var timed histogram
	for i := range c.canary {
		r := &c.canary[i]
		if turn-r.turn >= slots {
			continue
		}
		if r.outcome != Left {
			failed.add(r.caller, r.outcome == Failed)
		}
		if r.outcome != Failed {
			// Who left has waited for so long at least: a release that hangs
			// is left by its clients before anything else shows.
			slow.add(r.caller, int(r.bucket) > limit)
			timed.add(int(r.bucket))
		}
	}
	f := Finding{
		Canary: Figures{failed.all.n, failed.all.bad, timed.quantile(1 - tail)},
		Stable: Figures{stable.results, stable.failed, stable.timed.quantile(1 - tail)},
	}
	enough := c.settings.Samples
	switch {
	case stable.results >= enough && failed.worse(enough, func(s sum, z float64) bool {
		return moreErrors(s, sum{stable.results, stable.failed}, c.settings.Errors, z)
	}):
		f.Why = "errors"
	case stable.timed.n >= enough && slow.worse(enough, moreSlow):
		f.Why = "latency"
	}
	return f, f.Why != ""
}

// sum is how many of some results are bad.
type sum struct{ n, bad int }

// tally counts results, and those of each caller.
type tally struct {
	all sum
	by  [callers]sum
}

func (t *tally) add(caller uint16, bad bool) {
	t.all.n++
	t.by[caller].n++
	if bad {
		t.all.bad++
		t.by[caller].bad++
	}
}

// worse asks about all results, and then about those that are left without the
// callers who have most of the bad ones: who provokes failures, or asks for what
// takes long, does not decide alone, unless there is hardly anyone else.
func (t *tally) worse(enough int, ask func(s sum, z float64) bool) bool {
	if t.all.n < enough || !ask(t.all, z) {
		return false
	}
	var top [loud]sum // most bad ones first
	there := 0
	for _, s := range t.by {
		if s.n > 0 {
			there++
		}
		for i := range top {
			if s.bad > top[i].bad {
				top[i], s = s, top[i]
			}
		}
	}
	rest := t.all
	for i := range min(max(there/10, 1), loud) {
		rest = sum{rest.n - top[i].n, rest.bad - top[i].bad}
		if rest.n < max(enough/10, 1) {
			break
		}
		if !ask(rest, zRest) {
			return false
		}
	}
	return true
}

// moreErrors reports whether the difference of two shares of failures is
// clearly above margin: whether the lower end of its interval is, put together
// from Wilson's intervals of the shares as Newcombe does (method 10 of
// "Interval estimation for the difference between independent proportions",
// 1998). It holds for shares near 0 and few results, where a plain z-test of
// two proportions does not.
func moreErrors(canary, stable sum, margin, z float64) bool {
	p, low, _ := wilson(canary, z)
	q, _, high := wilson(stable, z)
	return p-q-math.Hypot(p-low, high-q) > margin
}

// limit is the last bucket that is not too slow: factor times the stable 95th
// percentile. That is taken as what it is at most, a percentile that is higher
// by z standard deviations of its rank. Nothing is assumed about how latencies
// are distributed.
func limit(stable *histogram, factor float64) int {
	if stable.n == 0 {
		return buckets
	}
	rank := 1 - tail + z*math.Sqrt(tail*(1-tail)/float64(stable.n))
	most := stable.quantile(min(rank, 1))
	return bucket(max(time.Duration(factor*float64(most)), most+slack))
}

// moreSlow reports whether clearly more than 5% of the results are above the
// limit, and so the 95th percentile is.
func moreSlow(canary sum, z float64) bool {
	_, low, _ := wilson(canary, z)
	return low > tail
}

// wilson is the share of what is bad and the interval that Wilson's score
// gives for what it really is.
func wilson(s sum, z float64) (p, low, high float64) {
	n := float64(s.n)
	p = float64(s.bad) / n
	zn := z * z / n
	mid := (p + zn/2) / (1 + zn)
	half := z / (1 + zn) * math.Sqrt(p*(1-p)/n+zn/(4*n))
	return p, mid - half, mid + half
}
