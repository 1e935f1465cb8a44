// Package ask puts questions to an issuer's endpoint: each once, however many
// requests wait for its answer, and no more at a time than an endpoint bears.
//
// A failure is the endpoint's or the question's. While an endpoint does not
// answer, or will not have the gateway, nobody asks it for a while. What it has
// answered with, if that is no answer, concerns the one question: strangers choose
// what is asked, and must not keep others from theirs by it.
//
// Nor by how much they ask: the places of an endpoint are shared, and that there is
// none, or that an answer takes long, says nothing of the endpoint.
package ask

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/memory"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/safe"
)

// Bounds of what is asked.
const (
	Deadline = 5 * time.Second // of one question
	Patience = 3 * time.Second // of a request that waits for the answer

	remembered  = 1 << 10 // questions that were answered oddly
	firstPause  = time.Second
	longestStop = 30 * time.Second
)

// ErrAway means that the endpoint cannot be asked.
var ErrAway = errors.New("the issuer cannot be asked at the moment")

// Odd is an answer that is none. The question is not put again for a while.
type Odd struct {
	Err  error
	Down bool // the endpoint says that the fault is its own
}

func (o *Odd) Error() string { return o.Err.Error() }

func (o *Odd) Unwrap() error { return o.Err }

// Status is the error of an answer whose status is none that was asked for. Some
// say that the endpoint will answer nothing at the moment, or not to us.
func Status(what string, status int, code string) error {
	err := fmt.Errorf("%s answered %d", what, status)
	if IsCode(code) {
		err = fmt.Errorf("%w %s", err, code)
	}
	switch status {
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusTooManyRequests,
		http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return err
	}
	if Ours(code) || status < http.StatusBadRequest {
		return err
	}
	return &Odd{err, status >= http.StatusInternalServerError}
}

// Ours reports an error code (RFC 6749, section 5.2) that says nothing of the
// caller's token: a refusal of one would be a refusal of all.
func Ours(code string) bool {
	return slices.Contains([]string{"invalid_client", "unauthorized_client", "unsupported_grant_type", "server_error", "temporarily_unavailable"}, code)
}

// IsCode accepts error codes as they are registered: nothing else of an answer
// gets into logs.
func IsCode(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz_") == ""
}

// Asker is one endpoint. It may be used concurrently.
type Asker[A any] struct {
	places *Places
	odd    *memory.Memory[oddity]

	mu       sync.Mutex
	flights  map[string]*flight[A]
	failures int       // of the endpoint, in a row
	closed   time.Time // nothing is asked before
	last     error
}

type oddity struct {
	err   error
	until time.Time // it is not asked again before
	times int
}

// flight is a question that several requests wait for.
type flight[A any] struct {
	done   chan struct{}
	answer A
	err    error
}

// New makes an Asker.
func New[A any]() *Asker[A] {
	return &Asker[A]{places: NewPlaces(), odd: memory.New[oddity](remembered), flights: map[string]*flight[A]{}}
}

// Do returns the answer to a question of a customer, by its name: the one that is
// known, or the one that it is given now. An answer must be known before question
// returns.
func (a *Asker[A]) Do(ctx context.Context, by netip.Prefix, name string, now time.Time, known func() (A, bool), question func(context.Context) (A, error)) (answer A, err error) {
	sum := sha256.Sum256([]byte(name))
	key := string(sum[:])
	f, err := a.fly(by, key, now, known, question)
	if err != nil {
		return answer, err
	}
	limit := time.NewTimer(Patience)
	defer limit.Stop()
	select {
	case <-f.done:
		return f.answer, f.err
	case <-limit.C:
		return answer, a.late()
	case <-ctx.Done():
		return answer, ctx.Err()
	}
}

// late is about an answer that has not come in time. Of an endpoint that has failed
// since it answered last, it is one failure more.
func (a *Asker[A]) late() error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.failures > 0 {
		return fmt.Errorf("%w: it takes long, and before: %w", ErrAway, a.last)
	}
	return fmt.Errorf("%w: the answer takes long", ErrBusy)
}

// fly joins who asks already, or asks.
func (a *Asker[A]) fly(by netip.Prefix, key string, now time.Time, known func() (A, bool), question func(context.Context) (A, error)) (*flight[A], error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if f := a.flights[key]; f != nil {
		return f, nil
	}
	f := &flight[A]{done: make(chan struct{})}
	if answer, ok := known(); ok { // it came while we looked
		f.answer = answer
		close(f.done)
		return f, nil
	}
	if o, ok := a.odd.Get(key); ok && now.Before(o.until) {
		return nil, o.err
	}
	if now.Before(a.closed) {
		return nil, fmt.Errorf("%w: %w", ErrAway, a.last)
	}
	c, err := a.places.take(by)
	if err != nil {
		return nil, err
	}
	a.flights[key] = f
	go a.run(f, c, key, now, question)
	return f, nil
}

func (a *Asker[A]) run(f *flight[A], c *customer, key string, now time.Time, question func(context.Context) (A, error)) {
	began := time.Now()
	err := a.places.ask(c, func() (err error) {
		// Not a request's context: others wait for the same answer. All of the deadline
		// is the endpoint's; what waited before is not to be told as its failure.
		ctx, cancel := context.WithTimeout(context.Background(), Deadline)
		defer cancel()
		f.answer, err = safe.Call(func() (A, error) { return question(ctx) })
		return err
	})
	a.places.leave(c)
	if _, panicked := errors.AsType[*safe.Panic](err); panicked {
		err = &Odd{Err: err} // what was asked, or answered, has done it
	}

	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.flights, key)
	defer close(f.done)
	odd, isOdd := errors.AsType[*Odd](err)
	ended := now.Add(time.Since(began)) // a pause begins then
	switch {
	case errors.Is(err, ErrBusy):
		f.err = err
	case err == nil:
		a.failures, a.closed = 0, time.Time{}
	case isOdd:
		if f.err = err; odd.Down {
			f.err = fmt.Errorf("%w: %w", ErrAway, err)
		}
		a.failures, a.closed = 0, time.Time{} // it does answer
		o, _ := a.odd.Get(key)
		a.odd.Put(key, oddity{f.err, ended.Add(pause(o.times)), o.times + 1})
	default:
		f.err = fmt.Errorf("%w: %w", ErrAway, err)
		if ended.Before(a.closed) { // of one failure, many questions at once may tell
			return
		}
		a.closed, a.last = ended.Add(pause(a.failures)), err
		a.failures++
	}
}

func pause(failures int) time.Duration { return min(firstPause<<min(failures, 5), longestStop) }
