package session

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/memory"
)

// Renewer renews sessions, each once however many requests carry it, and knows
// what they became: a browser may still send, for a while, the cookie from
// before, whose refresh token is used up. It may be used concurrently.
type Renewer struct {
	latest *memory.Memory[*Session]

	mu       sync.Mutex
	flights  map[string]*flight
	failures int       // in a row
	closed   time.Time // the provider is not asked before
}

type flight struct {
	done chan struct{}
	next *Session
	err  error
}

// patience is how long a request waits.
const patience = 3 * time.Second

// maxFlights bounds how many sessions are renewed at a time.
const maxFlights = 64

// NewRenewer knows the latest of at least size sessions.
func NewRenewer(size int) *Renewer {
	return &Renewer{latest: memory.New[*Session](size), flights: map[string]*flight{}}
}

// Latest is what a session has become, if that is known.
func (n *Renewer) Latest(s *Session) *Session {
	if s.Refresh == "" {
		return s
	}
	l, ok := n.latest.Get(s.ID)
	if !ok || l.Gen <= s.Gen {
		return s
	}
	if s.Seen > l.Seen {
		c := *l
		c.Seen = s.Seen
		return &c
	}
	return l
}

// Renew asks for a session's next generation by ask, which must end by the
// deadline that it sets itself, or joins who has asked. An error that is no
// *Refused means that the provider could not be asked.
func (n *Renewer) Renew(ctx context.Context, s *Session, now time.Time, ask func(context.Context) (*Session, error)) (*Session, error) {
	f, err := n.fly(s, now, ask) //nolint:contextcheck // others wait for the same answer
	if err != nil {
		return nil, err
	}
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-f.done:
		return f.next, f.err
	case <-limit.C:
		return nil, ErrAway
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (n *Renewer) fly(s *Session, now time.Time, ask func(context.Context) (*Session, error)) (*flight, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if f := n.flights[s.ID]; f != nil {
		return f, nil
	}
	if l := n.Latest(s); l.Gen > s.Gen { // it came while we looked
		f := &flight{done: make(chan struct{}), next: l}
		close(f.done)
		return f, nil
	}
	if now.Before(n.closed) || len(n.flights) >= maxFlights {
		return nil, ErrAway
	}
	f := &flight{done: make(chan struct{})}
	n.flights[s.ID] = f
	go func() {
		next, err := ask(context.Background()) // not a request's context: others wait for the same answer
		n.mu.Lock()
		defer n.mu.Unlock()
		delete(n.flights, s.ID)
		f.next, f.err = next, err
		switch {
		case err == nil:
			n.failures, n.closed = 0, time.Time{}
			n.latest.Put(s.ID, next)
		case !isRefused(err):
			n.closed = now.Add(min(time.Second<<min(n.failures, 5), 30*time.Second))
			n.failures++
		}
		close(f.done)
	}()
	return f, nil
}

func isRefused(err error) bool {
	_, ok := errors.AsType[*Refused](err)
	return ok
}
