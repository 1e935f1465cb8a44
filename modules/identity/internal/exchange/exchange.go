// Package exchange gets tokens for others in exchange for those of callers
// (RFC 8693), and remembers them for as long as they are good.
package exchange

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/memory"
)

// Bounds of what is asked.
const (
	Deadline    = 5 * time.Second // of one exchange
	patience    = 3 * time.Second // of a request that waits for it
	maxAsking   = 64              // exchanges on their way
	refusedFor  = 10 * time.Second
	unsaid      = time.Minute // how long a token is kept that does not say how long it is good
	longest     = time.Hour   // for which any is kept
	maxMargin   = 30 * time.Second
	firstPause  = time.Second // after a failure; doubles with each that follows
	longestStop = 30 * time.Second
)

// ErrAway means that the issuer could not be asked.
var ErrAway = errors.New("the issuer cannot be asked for a token")

// Answer is what the issuer gave for a token: another, or a refusal.
type Answer struct {
	Token   string
	Refused string    // the issuer's word, e.g. invalid_target; empty: granted
	Until   time.Time // when it has to be asked again

	away error // why there is none
}

// Granted is an answer as it came.
type Granted struct {
	Token   string
	Refused string
	Life    time.Duration // zero: not said
}

// Exchanger asks one issuer for tokens for one audience. It may be used
// concurrently.
type Exchanger struct {
	Close func() // called when nothing is exchanged any more; may be nil

	ask     func(ctx context.Context, token string) (Granted, error)
	answers *memory.Memory[Answer] // by the hash of the token
	places  chan struct{}

	mu       sync.Mutex
	flights  map[string]*flight
	failures int       // in a row
	failed   string    // the token that failed last
	closed   time.Time // nothing is asked before
	last     error
}

// flight is an exchange that several requests wait for.
type flight struct {
	done   chan struct{}
	answer Answer
	err    error
}

// New makes an Exchanger that remembers at least size answers.
func New(ask func(context.Context, string) (Granted, error), size int) *Exchanger {
	return &Exchanger{ask: ask, answers: memory.New[Answer](size), places: make(chan struct{}, maxAsking), flights: map[string]*flight{}}
}

// Destruct closes what is kept open; an exchange ends by its deadline.
func (x *Exchanger) Destruct() error {
	if x.Close != nil {
		x.Close()
	}
	return nil
}

// For returns what there is for a token, which ends at ends if that is not
// zero: remembered, or asked for now, however many requests carry it.
func (x *Exchanger) For(ctx context.Context, token string, ends, now time.Time) (Answer, error) {
	sum := sha256.Sum256([]byte(token))
	key := string(sum[:])
	if known, ok := x.answers.Get(key); ok && now.Before(known.Until) {
		return known, known.away
	}
	f, err := x.fly(key, token, ends, now) //nolint:contextcheck // others wait for the same answer
	if err != nil {
		return Answer{}, err
	}
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-f.done:
		return f.answer, f.err
	case <-limit.C:
		return Answer{}, ErrAway
	case <-ctx.Done():
		return Answer{}, ctx.Err()
	}
}

// fly joins the exchange of a token, or begins it.
func (x *Exchanger) fly(key, token string, ends, now time.Time) (*flight, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if f := x.flights[key]; f != nil {
		return f, nil
	}
	f := &flight{done: make(chan struct{})}
	if known, ok := x.answers.Get(key); ok && now.Before(known.Until) { // it came while we looked
		f.answer, f.err = known, known.away
		close(f.done)
		return f, nil
	}
	if now.Before(x.closed) {
		return nil, fmt.Errorf("%w: %w", ErrAway, x.last)
	}
	select {
	case x.places <- struct{}{}:
	default:
		return nil, fmt.Errorf("%w: %d exchanges are on their way", ErrAway, maxAsking)
	}
	x.flights[key] = f
	go x.run(f, key, token, ends, now)
	return f, nil
}

func (x *Exchanger) run(f *flight, key, token string, ends, now time.Time) {
	// Not a request's context: others wait for the same answer.
	ctx, cancel := context.WithTimeout(context.Background(), Deadline)
	defer cancel()
	granted, err := x.ask(ctx, token)

	x.mu.Lock()
	defer x.mu.Unlock()
	delete(x.flights, key)
	<-x.places
	defer close(f.done)
	if err != nil {
		f.err = fmt.Errorf("%w: %w", ErrAway, err)
		pause := min(firstPause<<min(x.failures, 5), longestStop)
		x.failures++
		if x.failed == "" || x.failed == key {
			// It may be this token that the issuer cannot read: who has such a one
			// must not keep all others from theirs.
			x.failed = key
			x.answers.Put(key, Answer{Until: now.Add(pause), away: f.err})
			return
		}
		x.failed, x.closed, x.last = key, now.Add(pause), err
		return
	}
	x.failures, x.failed, x.closed = 0, "", time.Time{}
	f.answer = Answer{Token: granted.Token, Refused: granted.Refused, Until: until(granted, ends, now)}
	x.answers.Put(key, f.answer)
}

// until is counted from when the issuer was asked. A token is given up a while
// before it ends, since it has a way to go, and with the one that it was given
// for: who was let in no longer is not let in by it.
func until(g Granted, ends, now time.Time) time.Time {
	life := unsaid
	switch {
	case g.Refused != "":
		life = refusedFor
	case g.Life > 0:
		life = min(g.Life-min(g.Life/5, maxMargin), longest)
	}
	until := now.Add(life)
	if !ends.IsZero() && ends.Before(until) {
		until = ends
	}
	return until
}
