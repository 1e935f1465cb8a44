// Package keyset keeps the keys of an issuer at hand: fetched when first
// needed, refreshed behind the requests that use them, kept when the issuer is
// away, and asked for again when a token names a key that is not among them.
package keyset

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/jwt"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/safe"
)

// Timing of fetches.
const (
	Deadline   = 5 * time.Second  // of one fetch
	patience   = 2 * time.Second  // of a request that needs the first
	fresh      = 10 * time.Minute // after which a refresh is started behind a request
	stale      = 24 * time.Hour   // for which old keys are good while the issuer is away
	missEvery  = 30 * time.Second // between fetches for keys that are not there
	firstRetry = time.Second      // doubles with each failure
	lastRetry  = 30 * time.Second
)

// ErrAway means there are no keys to check with.
var ErrAway = errors.New("the issuer's keys are not available")

// Fetch gets the keys, from wherever they are.
type Fetch func(context.Context) (*jwt.Set, error)

// Source is one issuer's keys. It may be used concurrently.
type Source struct {
	fetch  Fetch
	static bool
	now    func() time.Time

	have atomic.Pointer[had]

	mu       sync.Mutex
	running  *attempt
	last     error     // why the newest attempt failed, nil when it did not
	failures int       // in a row
	retry    time.Time // no attempt before this, after a failure
	missed   time.Time // the newest fetch for a key that was not there
}

type had struct {
	set *jwt.Set
	at  time.Time
}

// attempt is one fetch that any number of requests may wait for.
type attempt struct{ done chan struct{} }

// Static is a source of keys that do not change.
func Static(set *jwt.Set) *Source {
	s := &Source{static: true, now: time.Now}
	s.have.Store(&had{set: set})
	return s
}

// New is a source that fetches.
func New(fetch Fetch) *Source { return NewAt(fetch, time.Now) }

// NewAt is New by another clock.
func NewAt(fetch Fetch, now func() time.Time) *Source { return &Source{fetch: fetch, now: now} }

// Destruct has nothing to stop: a fetch ends by its deadline.
func (*Source) Destruct() error { return nil }

// Current returns the keys that Keys would give without waiting, or nil. It is
// cheap enough to ask on every request, and refreshes like Keys: requests whose
// tokens are all remembered use the keys too.
func (s *Source) Current(now time.Time) *jwt.Set {
	h := s.have.Load()
	if h == nil {
		return nil
	}
	if s.static {
		return h.set
	}
	age := now.Sub(h.at)
	if age > fresh {
		s.start()
	}
	if age >= stale {
		return nil
	}
	return h.set
}

// Keys returns the keys. It waits for the first fetch only; later ones run
// behind the requests, and when they fail the old keys serve on for a day.
func (s *Source) Keys(ctx context.Context) (*jwt.Set, error) {
	if set := s.Current(s.now()); set != nil {
		return set, nil
	}
	return s.wait(ctx, s.start())
}

// Missing is called when a token names a key that the set does not have: the
// issuer may have rotated. However many tokens do, the issuer is asked at most
// once in 30 seconds. It returns the set that is then current.
func (s *Source) Missing(ctx context.Context, seen *jwt.Set) *jwt.Set {
	if s.static {
		return seen
	}
	s.mu.Lock()
	if cur := s.have.Load(); cur != nil && cur.set != seen {
		s.mu.Unlock()
		return cur.set // somebody else has fetched in between
	}
	a := s.running
	if a == nil && s.now().Sub(s.missed) >= missEvery && !s.now().Before(s.retry) {
		s.missed = s.now()
		a = s.begin()
	}
	s.mu.Unlock()
	if set, err := s.wait(ctx, a); err == nil {
		return set
	}
	return seen
}

// Err says why the newest fetch failed.
func (s *Source) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.last
}

// start begins a fetch unless one runs or the last failure is too young. It
// returns the one that runs, or nil.
func (s *Source) start() *attempt {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running == nil && !s.now().Before(s.retry) {
		return s.begin()
	}
	return s.running
}

// begin is called with the lock held.
func (s *Source) begin() *attempt {
	if s.running != nil || s.now().Before(s.retry) {
		return s.running
	}
	a := &attempt{done: make(chan struct{})}
	s.running = a
	go func() {
		// Not a request's context: others wait for the same fetch.
		ctx, cancel := context.WithTimeout(context.Background(), Deadline)
		defer cancel()
		set, err := safe.Call(func() (*jwt.Set, error) { return s.fetch(ctx) })

		s.mu.Lock()
		defer s.mu.Unlock()
		s.running, s.last = nil, err
		if err != nil {
			s.retry = s.now().Add(min(firstRetry<<min(s.failures, 5), lastRetry))
			s.failures++
		} else {
			s.failures, s.retry = 0, time.Time{}
			if h := s.have.Load(); h != nil && h.set.Equal(set) {
				set = h.set // what was verified with them stays verified
			}
			s.have.Store(&had{set, s.now()})
		}
		close(a.done)
	}()
	return a
}

// wait waits for a fetch, but not for long: a slow issuer must not hold up
// every request.
func (s *Source) wait(ctx context.Context, a *attempt) (*jwt.Set, error) {
	if a != nil {
		limit := time.NewTimer(patience)
		defer limit.Stop()
		select {
		case <-a.done:
		case <-limit.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if h := s.have.Load(); h != nil && s.now().Sub(h.at) < stale {
		return h.set, nil
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrAway, err)
	}
	return nil, fmt.Errorf("%w: they have not come within %v", ErrAway, patience)
}
