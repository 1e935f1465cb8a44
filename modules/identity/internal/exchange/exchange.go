// Package exchange gets tokens for others in exchange for those of callers
// (RFC 8693), and remembers them for as long as they are good.
package exchange

import (
	"context"
	"crypto/sha256"
	"net/netip"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/ask"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/memory"
)

// How long answers are kept.
const (
	refusedFor = 10 * time.Second
	unsaid     = time.Minute // a token that does not say how long it is good
	longest    = time.Hour   // any
	maxMargin  = 30 * time.Second
)

// Answer is what the issuer gave for a token: another, or a refusal.
type Answer struct {
	Token   string
	Refused string    // the issuer's word, e.g. invalid_target; empty: granted
	Until   time.Time // when it has to be asked again
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

	question func(ctx context.Context, token string) (Granted, error)
	asker    *ask.Asker[Answer]
	answers  *memory.Memory[Answer] // by the hash of the token
}

// New makes an Exchanger that remembers at least size answers.
func New(question func(context.Context, string) (Granted, error), size int) *Exchanger {
	return &Exchanger{question: question, asker: ask.New[Answer](), answers: memory.New[Answer](size)}
}

// Destruct closes what is kept open; an exchange ends by its deadline.
func (x *Exchanger) Destruct() error {
	if x.Close != nil {
		x.Close()
	}
	return nil
}

// For returns what there is for a token, which ends at ends if that is not
// zero: remembered, or asked for now for a customer, however many requests carry it.
func (x *Exchanger) For(ctx context.Context, by netip.Prefix, token string, ends, now time.Time) (Answer, error) {
	sum := sha256.Sum256([]byte(token))
	key := string(sum[:])
	known := func() (Answer, bool) {
		answer, ok := x.answers.Get(key)
		return answer, ok && now.Before(answer.Until)
	}
	if answer, ok := known(); ok {
		return answer, nil
	}
	return x.asker.Do(ctx, by, token, now, known, func(ctx context.Context) (Answer, error) {
		granted, err := x.question(ctx, token)
		if err != nil {
			return Answer{}, err
		}
		answer := Answer{Token: granted.Token, Refused: granted.Refused, Until: until(granted, ends, now)}
		x.answers.Put(key, answer)
		return answer, nil
	})
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
