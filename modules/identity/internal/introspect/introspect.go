// Package introspect asks an issuer what a token means that only it can read
// (RFC 7662), and remembers the answer for a while.
package introspect

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"sync"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/gate/strictjson"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/clientauth"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/memory"
)

// Bounds of what is asked.
const (
	Deadline    = 5 * time.Second // of one question
	patience    = 2 * time.Second // of a request that waits for the answer
	maxAnswer   = 64 << 10
	maxAsking   = 64 // questions on their way
	maxToken    = 4 << 10
	firstPause  = time.Second // after a failure; doubles with each that follows
	longestStop = 30 * time.Second
)

// ErrAway means that the issuer could not be asked.
var ErrAway = errors.New("the issuer cannot be asked about the token")

// Answer is what the issuer says of a token. Claims are nil if it is not good.
type Answer struct {
	Claims map[string]any
	Until  time.Time // when it has to be asked again
}

// Asker is one issuer's endpoint. It may be used concurrently.
type Asker struct {
	// Ask puts the question; see Endpoint.
	Ask func(ctx context.Context, token string) (map[string]any, error)

	Good time.Duration // how long a yes is remembered, unless the token expires before
	Bad  time.Duration // how long a no is

	// Close is called when nothing is asked any more. It may be nil.
	Close func()

	answers *memory.Memory[Answer]
	places  chan struct{}

	mu       sync.Mutex
	flights  map[string]*flight
	failures int       // in a row
	closed   time.Time // nothing is asked before
	last     error
}

// flight is a question that several requests wait for.
type flight struct {
	done   chan struct{}
	answer Answer
	err    error
}

// closed is the end of a question that need not be asked.
var closed = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// New makes an Asker that remembers at least answers answers.
func New(ask func(context.Context, string) (map[string]any, error), good, bad time.Duration, answers int) *Asker {
	return &Asker{
		Ask: ask, Good: good, Bad: bad,
		answers: memory.New[Answer](answers), places: make(chan struct{}, maxAsking), flights: map[string]*flight{},
	}
}

// Destruct closes what is kept open; a question ends by its deadline.
func (a *Asker) Destruct() error {
	if a.Close != nil {
		a.Close()
	}
	return nil
}

// About returns what the issuer says of a token: remembered, or asked now,
// however many requests carry it.
func (a *Asker) About(ctx context.Context, token string, now time.Time) (Answer, error) {
	if len(token) > maxToken {
		return Answer{Until: now}, nil
	}
	if known, ok := a.answers.Get(token); ok && now.Before(known.Until) {
		return known, nil
	}
	f, err := a.fly(token, now)
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

// fly joins the question about a token, or begins it.
func (a *Asker) fly(token string, now time.Time) (*flight, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if f := a.flights[token]; f != nil {
		return f, nil
	}
	if known, ok := a.answers.Get(token); ok && now.Before(known.Until) { // it came while we looked
		return &flight{done: closed, answer: known}, nil
	}
	if now.Before(a.closed) {
		return nil, errors.Join(ErrAway, a.last)
	}
	select {
	case a.places <- struct{}{}:
	default:
		return nil, fmt.Errorf("%w: %d questions are on their way", ErrAway, maxAsking)
	}
	f := &flight{done: make(chan struct{})}
	a.flights[token] = f
	go a.run(f, token, now)
	return f, nil
}

func (a *Asker) run(f *flight, token string, now time.Time) {
	// Not a request's context: others wait for the same answer.
	ctx, cancel := context.WithTimeout(context.Background(), Deadline)
	defer cancel()
	claims, err := a.Ask(ctx, token)

	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.flights, token)
	<-a.places
	if err != nil {
		a.closed = now.Add(min(firstPause<<min(a.failures, 5), longestStop))
		a.failures++
		a.last = err
		f.err = errors.Join(ErrAway, err)
	} else {
		a.failures, a.closed = 0, time.Time{}
		keep := a.Bad
		if claims != nil {
			keep = a.Good
		}
		f.answer = Answer{claims, now.Add(keep)}
		a.answers.Put(token, f.answer)
	}
	close(f.done)
}

// Kinds of answers.
const (
	plainAnswer  = "application/json"
	signedAnswer = "application/token-introspection+jwt"
)

// Verify proves a signed answer (RFC 9701) and returns what it says.
type Verify func(ctx context.Context, answer string) (map[string]any, error)

// Endpoint asks a URL. With verify, answers must be signed. It returns nil claims
// for a token that is not good.
func Endpoint(address string, client *clientauth.Client, verify Verify) func(context.Context, string) (map[string]any, error) {
	kind := plainAnswer
	if verify != nil {
		kind = signedAnswer
	}
	return func(ctx context.Context, token string) (map[string]any, error) {
		resp, err := client.Ask(ctx, address, kind, url.Values{"token": {token}, "token_type_hint": {"access_token"}})
		if err != nil {
			return nil, fmt.Errorf("introspection: %w", err)
		}
		defer resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("introspection answered %s", resp.Status)
		}
		switch media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); {
		case err == nil && media == kind:
		case verify == nil:
			return nil, errors.New("introspection answered with something else than JSON")
		case err == nil && media == plainAnswer:
			return nil, errors.New("introspection answered with plain JSON, and a signed answer was asked for; the issuer may have to be told to sign for this client")
		default:
			return nil, errors.New("introspection answered with something else than a signed answer")
		}
		data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
		if err != nil {
			return nil, fmt.Errorf("introspection: %w", err)
		}
		if verify == nil {
			return read(data)
		}
		answer, err := verify(ctx, string(data))
		if err != nil {
			return nil, fmt.Errorf("introspection answered with a signed answer that cannot be accepted: %w", err)
		}
		return verdict(answer)
	}
}

// read reads an answer. What is not clearly a yes is an error or a no.
func read(data []byte) (map[string]any, error) {
	if len(data) > maxAnswer {
		return nil, errors.New("introspection answered with more than 64 KiB")
	}
	v, err := strictjson.Decode(data, strictjson.Limits{Depth: 16, Values: 2048})
	if err != nil {
		return nil, errors.New("introspection answered with JSON that cannot be read")
	}
	claims, _ := v.(map[string]any)
	return verdict(claims)
}

func verdict(claims map[string]any) (map[string]any, error) {
	active, isBool := claims["active"].(bool)
	switch {
	case !isBool:
		return nil, errors.New("introspection answered without active")
	case !active:
		return nil, nil
	}
	return claims, nil
}
