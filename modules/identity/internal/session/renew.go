package session

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/ask"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/memory"
)

// Renewer renews sessions, each once however many requests carry it, and knows
// what they became: a browser may still send, for a while, the cookie from
// before, whose refresh token is used up. It may be used concurrently.
type Renewer struct {
	asker  *ask.Asker[renewal]
	latest *memory.Memory[*Session]
	over   *memory.Memory[*Refused] // by name and generation: a cookie may be sent on and on
}

// renewal is what a session has become: another, or nothing any more.
type renewal struct {
	next *Session
	over *Refused
}

// NewRenewer knows the latest of at least size sessions.
func NewRenewer(size int) *Renewer {
	return &Renewer{ask.New[renewal](), memory.New[*Session](size), memory.New[*Refused](size)}
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

// Renew gets a customer's session's next generation by question, which must end by the
// deadline that it is given, or joins who has asked. An error that is no *Refused
// means that nobody can tell.
func (n *Renewer) Renew(ctx context.Context, by netip.Prefix, s *Session, now time.Time, question func(context.Context) (*Session, error)) (*Session, error) {
	this := s.ID + " " + strconv.Itoa(s.Gen)
	known := func() (renewal, bool) {
		if l := n.Latest(s); l.Gen > s.Gen {
			return renewal{next: l}, true
		}
		no, ok := n.over.Get(this)
		return renewal{over: no}, ok
	}
	r, err := n.asker.Do(ctx, by, s.ID, now, known, func(ctx context.Context) (renewal, error) {
		next, err := question(ctx)
		if no, ok := errors.AsType[*Refused](err); ok {
			n.over.Put(this, no)
			return renewal{over: no}, nil
		}
		if err != nil {
			return renewal{}, err
		}
		n.latest.Put(s.ID, next)
		return renewal{next: next}, nil
	})
	switch {
	case err != nil:
		return nil, err
	case r.over != nil:
		return nil, r.over
	}
	return r.next, nil
}
