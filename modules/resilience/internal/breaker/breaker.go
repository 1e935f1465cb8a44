// Package breaker decides whether one upstream is worth another request, from
// what became of the last ones.
//
// A breaker is closed while requests go through, open while they do not, and
// half-open while a few may find out whether the upstream is back. It opens on
// a ratio of failures, once there are enough samples, or on a number of
// requests in a row that were not answered at all.
package breaker

import (
	"sync"
	"sync/atomic"
	"time"
)

// Settings say when a breaker opens and for how long.
type Settings struct {
	Ratio       float64       // share of failures that opens it
	Samples     int           // results in a window before Ratio counts
	Window      time.Duration // what is looked back at
	Consecutive int           // requests unanswered in a row that open it
	Open        time.Duration // how long it stays open the first time
	MaxOpen     time.Duration // how long it stays open at most
	Probes      int           // successes in a row that close it
}

// Outcome is what became of a request.
type Outcome uint8

// The outcomes.
const (
	Fine       Outcome = iota // answered well
	Bad                       // answered, but with a failure
	Unanswered                // no connection, no answer, or not in time
	Unknown                   // nobody waited for the answer
)

// State is what a breaker lets through.
type State uint32

// The states.
const (
	Closed State = iota
	HalfOpen
	Open
)

func (s State) String() string { return [...]string{"closed", "half_open", "open"}[s] }

// slots is how finely the window moves.
const slots = 10

// Breaker is the state of one upstream. It is safe for concurrent use.
type Breaker struct {
	settings Settings
	state    atomic.Uint32 // State, readable without the lock
	start    time.Time     // of its own clock, which no one sets back

	mu         sync.Mutex
	window     [slots]slot
	until      time.Duration // when a probe may go, or the probes on their way are given up
	unanswered int           // in a row
	deaf       bool          // it opened because requests were not answered
	length     time.Duration // how long it is, or was last, open
	closed     time.Duration // when it closed last
	epoch      uint32        // counts openings and closings
	probing    int           // probes on their way
	passed     int           // probes that came back well
}

// slot counts the results of a tenth of the window.
type slot struct {
	turn        int64
	total, fail int
}

// New returns a closed breaker.
func New(s Settings, now time.Time) *Breaker { return &Breaker{settings: s, start: now} }

// Readiness is what a request may expect of an upstream.
type Readiness uint8

// How ready an upstream is, best first.
const (
	Ready   Readiness = iota // the breaker is closed
	Due                      // a probe may find out whether it is back
	Failing                  // open; it answers, but badly
	Deaf                     // open; it does not answer
)

// Look says how ready the upstream is, and changes nothing. A request that can
// be repeated elsewhere probes at once; others wait as long again, so that an
// upstream that sees no such requests comes back too.
func (b *Breaker) Look(repeatable bool, now time.Time) Readiness {
	if b.State() == Closed {
		return Ready
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	state, due := b.State(), b.until
	if state == Open && !repeatable {
		due += b.length
	}
	switch {
	case state == Closed:
		return Ready
	case now.Sub(b.start) >= due, state == HalfOpen && b.probing < b.most():
		return Due
	case b.deaf:
		return Deaf
	}
	return Failing
}

// most is how many probes may be on their way: one until one came back.
func (b *Breaker) most() int {
	if b.passed == 0 {
		return 1
	}
	return b.settings.Probes - b.passed
}

// Permit is the leave to send one request.
type Permit struct {
	epoch uint32
	probe bool
}

// Enter asks for leave to send a request. Whoever gets it must call Done.
func (b *Breaker) Enter(now time.Time) (Permit, bool) {
	if b.State() == Closed {
		return Permit{}, true
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	at := now.Sub(b.start)
	switch state := b.State(); {
	case state == Closed:
		return Permit{}, true
	case at >= b.until: // also when probes have been on their way for too long
		b.epoch++
		b.state.Store(uint32(HalfOpen))
		b.probing, b.passed = 0, 0
		b.until = at + b.length
	case state == Open, b.probing >= b.most():
		return Permit{}, false
	}
	b.probing++
	return Permit{epoch: b.epoch, probe: true}, true
}

// Done records what became of a request and returns the state it leads to, and
// whether that is a new one.
func (b *Breaker) Done(p Permit, o Outcome, now time.Time) (State, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	state := b.State()
	at := now.Sub(b.start)
	if p.probe {
		if p.epoch != b.epoch || state != HalfOpen {
			return state, false // of an earlier time; another probe has decided
		}
		b.probing--
		switch o {
		case Unknown:
			return state, false
		case Fine:
			b.passed++
			if b.passed < b.settings.Probes {
				return state, false
			}
			b.close(at)
			return Closed, true
		case Bad, Unanswered:
		}
		b.open(o, at)
		return Open, true
	}
	if state != Closed || o == Unknown {
		return state, false // sent before it opened, or in spite of it
	}
	if b.count(o, at) {
		b.open(o, at)
		return Open, true
	}
	return Closed, false
}

// count adds a result and reports whether it is one too many.
func (b *Breaker) count(o Outcome, at time.Duration) bool {
	turn := int64(at / (b.settings.Window / slots))
	s := &b.window[turn%slots]
	if s.turn != turn {
		*s = slot{turn: turn}
	}
	s.total++
	if o == Fine {
		b.unanswered = 0
		return false
	}
	s.fail++
	if o == Bad {
		b.unanswered = 0
	} else if b.unanswered++; b.unanswered >= b.settings.Consecutive {
		return true
	}
	total, fail := 0, 0
	for i := range b.window {
		if w := &b.window[i]; turn-w.turn < slots {
			total, fail = total+w.total, fail+w.fail
		}
	}
	return total >= b.settings.Samples && float64(fail) >= b.settings.Ratio*float64(total)
}

// open doubles the time of the last opening, unless that is long over.
func (b *Breaker) open(o Outcome, at time.Duration) {
	switch {
	case b.length == 0, b.State() == Closed && at-b.closed > max(2*b.length, b.settings.Window):
		b.length = b.settings.Open
	default:
		b.length = min(2*b.length, b.settings.MaxOpen)
	}
	// One time-out among answers does not make an upstream deaf: who can provoke
	// one would close the API for all.
	b.deaf = o == Unanswered && (b.State() == HalfOpen || b.unanswered >= b.settings.Consecutive)
	b.epoch++
	b.until = at + b.length
	b.state.Store(uint32(Open))
}

func (b *Breaker) close(at time.Duration) {
	b.epoch++
	b.closed, b.unanswered = at, 0
	b.window = [slots]slot{}
	b.state.Store(uint32(Closed))
}

// State is the state at the moment.
func (b *Breaker) State() State { return State(b.state.Load()) }

// Wait is how long it takes at least until a probe may go.
func (b *Breaker) Wait(now time.Time) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.State() == Closed {
		return 0
	}
	return max(0, b.until-now.Sub(b.start))
}
