// Package breaker decides whether one upstream is worth another request, from
// what became of the last ones.
//
// A breaker is closed while requests go through, open while they do not, and
// half-open while a few may find out whether the upstream is back. It opens on
// a ratio of failures, once there are enough samples, or on a number of
// requests in a row for which the upstream could not be reached, or that waited
// in vain while nobody was answered.
//
// Whoever sends requests may choose ones that fail. So what one caller provokes
// is set against how others fare: see window.tripped, Breaker.hear and Pass.
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
	Consecutive int           // requests in a row that did not reach it, or got no answer
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
	Broken                    // the connection was there, and ended without an answer
	Unanswered                // no answer in time
	Unreached                 // no connection
	Unknown                   // nobody waited for the answer
)

// Result is what became of whose request.
type Result struct {
	Outcome Outcome
	Caller  uint64    // a hash; two that are equal in its lower bits count as one
	Began   time.Time // when it was sent
	Again   bool      // an earlier try of the same request has failed here
}

// State is what a breaker lets through.
type State uint32

// The states.
const (
	Closed State = iota
	HalfOpen
	Open
)

func (s State) String() string { return [...]string{"closed", "half_open", "open"}[s] }

// deafness is why an upstream that is left alone gets nothing at all.
type deafness uint8

const (
	hears deafness = iota // it answers, if badly
	mute                  // it takes requests and answers nobody
	gone                  // it cannot be reached
)

// Breaker is the state of one upstream. It is safe for concurrent use.
type Breaker struct {
	settings Settings
	state    atomic.Uint32 // State, readable without the lock
	start    time.Time     // of its own clock, which no one sets back

	mu         sync.Mutex
	window     window
	until      time.Duration // when a probe may go, or the probes on their way are given up
	answered   time.Duration // when it answered last
	unreached  int           // in a row
	unanswered int           // in a row, and nobody else was answered
	waited     uint16        // the places of callers whom it did not answer, a bit each
	asking     [places]int   // requests on their way that Pass let through
	deaf       deafness      // while it is open
	length     time.Duration // how long it is, or was last, open
	closed     time.Duration // when it closed last
	epoch      uint32        // counts openings and closings
	probing    int           // probes on their way
	passed     int           // probes that came back well
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
	case b.deaf != hears:
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
	asks  uint8 // the place of one who was let through by Pass, counted from 1
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

// Pass asks for leave to send a request in spite of an open breaker. Whoever
// gets it must call Done. An upstream that answers, if badly, is asked; one that
// cannot be reached is not. Of one that answers nobody, callers who have not
// waited for it yet may find out, a few requests each: if it was one caller
// alone whom it kept waiting, the first answer to another ends it.
func (b *Breaker) Pass(caller uint64) (Permit, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	place := caller % places
	switch {
	case b.State() == Closed, b.deaf == hears:
		return Permit{}, true
	case b.deaf == gone, b.waited>>place&1 != 0, b.asking[place] >= b.settings.Consecutive:
		return Permit{}, false
	}
	b.asking[place]++
	return Permit{asks: uint8(place) + 1}, true
}

// Done records what became of a request and returns the state it leads to, and
// whether that is a new one.
func (b *Breaker) Done(p Permit, r Result, now time.Time) (State, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	state := b.State()
	at := now.Sub(b.start)
	if p.asks > 0 {
		b.asking[p.asks-1]--
	}
	o := b.hear(r, at)
	if p.probe {
		if p.epoch != b.epoch || state != HalfOpen {
			return state, false // of an earlier time; another probe has decided
		}
		b.probing--
		deaf := b.silence()
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
		case Unreached:
			deaf = gone
		case Unanswered:
			deaf = max(deaf, mute)
		case Bad, Broken:
		}
		b.open(deaf, at)
		return Open, true
	}
	switch {
	case o == Unknown:
		return state, false
	case state != Closed: // sent before it opened, or in spite of it
		b.deaf = max(b.deaf, b.silence())
		return state, false
	case r.Again && (o == Bad || o == Broken):
		return state, false // one request that fails is one failure, however often it was tried
	}
	turn := int64(at / (b.settings.Window / slots))
	b.window.add(r.Caller, o != Fine, turn)
	if o == Fine {
		return Closed, false
	}
	deaf := b.silence()
	if deaf == hears && !b.window.tripped(&b.settings, turn) {
		return Closed, false
	}
	b.open(deaf, at)
	return Open, true
}

// hear keeps in mind whether the upstream can be reached and answers. That it
// keeps one caller waiting says something about what was asked, as long as it
// answers others in that time; it is a failure like others then.
func (b *Breaker) hear(r Result, at time.Duration) Outcome {
	switch r.Outcome {
	case Fine, Bad:
		b.answered, b.deaf = at, hears
		b.unreached, b.unanswered, b.waited = 0, 0, 0
	case Broken:
		b.unreached = 0
	case Unreached:
		b.unreached++
	case Unanswered:
		if r.Began.Sub(b.start) < b.answered {
			return Broken
		}
		b.unanswered++
		b.waited |= 1 << (r.Caller % places)
	case Unknown:
	}
	return r.Outcome
}

// silence reads what hear has kept in mind.
func (b *Breaker) silence() deafness {
	switch {
	case b.unreached >= b.settings.Consecutive:
		return gone
	case b.unanswered >= b.settings.Consecutive:
		return mute
	}
	return hears
}

// open doubles the time of the last opening, unless that is long over.
func (b *Breaker) open(deaf deafness, at time.Duration) {
	switch {
	case b.length == 0, b.State() == Closed && at-b.closed > max(2*b.length, b.settings.Window):
		b.length = b.settings.Open
	default:
		b.length = min(2*b.length, b.settings.MaxOpen)
	}
	b.deaf = deaf
	b.epoch++
	b.until = at + b.length
	b.state.Store(uint32(Open))
}

func (b *Breaker) close(at time.Duration) {
	b.epoch++
	b.closed, b.deaf = at, hears
	b.window = window{}
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
