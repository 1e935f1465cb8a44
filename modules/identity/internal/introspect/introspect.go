// Package introspect asks an issuer what a token means that only it can read
// (RFC 7662), and remembers the answer for a while.
package introspect

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/gate/strictjson"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/ask"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/clientauth"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/memory"
)

// Bounds of what is asked.
const (
	maxAnswer = 64 << 10
	maxToken  = 4 << 10
)

// Answer is what the issuer says of a token. Claims are nil if it is not good.
type Answer struct {
	Claims map[string]any
	Until  time.Time // when it has to be asked again
}

// Asker is one issuer's endpoint. It may be used concurrently.
type Asker struct {
	Close func() // called when nothing is asked any more; may be nil

	question  func(ctx context.Context, token string) (map[string]any, error) // see Endpoint
	good, bad time.Duration                                                   // how long a yes is remembered, and a no
	asker     *ask.Asker[Answer]

	// By the tokens' hashes: a stranger's may be long. Those that are not good
	// have a place of their own, where they push out nothing else.
	yes, no *memory.Memory[Answer]
}

// New makes an Asker that remembers at least answers answers.
func New(question func(context.Context, string) (map[string]any, error), good, bad time.Duration, answers int) *Asker {
	return &Asker{question: question, good: good, bad: bad, asker: ask.New[Answer](), yes: memory.New[Answer](answers), no: memory.New[Answer](answers / 4)}
}

// Destruct closes what is kept open; a question ends by its deadline.
func (a *Asker) Destruct() error {
	if a.Close != nil {
		a.Close()
	}
	return nil
}

// About returns what the issuer says of a token: remembered, or asked now for a
// customer, however many requests carry it.
func (a *Asker) About(ctx context.Context, by netip.Prefix, token string, now time.Time) (Answer, error) {
	if len(token) > maxToken {
		return Answer{Until: now}, nil
	}
	sum := sha256.Sum256([]byte(token))
	key := string(sum[:])
	known := func() (Answer, bool) {
		answer, ok := a.yes.Get(key)
		if !ok || !now.Before(answer.Until) {
			answer, ok = a.no.Get(key)
		}
		return answer, ok && now.Before(answer.Until)
	}
	if answer, ok := known(); ok {
		return answer, nil
	}
	return a.asker.Do(ctx, by, token, now, known, func(ctx context.Context) (Answer, error) {
		claims, err := a.question(ctx, token)
		if err != nil {
			return Answer{}, err
		}
		answer, in := Answer{claims, now.Add(a.bad)}, a.no
		if claims != nil {
			answer.Until, in = now.Add(a.good), a.yes
		}
		in.Put(key, answer)
		return answer, nil
	})
}

// Kinds of answers.
const (
	plainAnswer  = "application/json"
	signedAnswer = "application/token-introspection+jwt"
)

// Verify proves a signed answer (RFC 9701) and returns what it says. An answer
// that is not proven is Odd; an error that is not says that nobody can tell.
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
			return nil, ask.Status("introspection", resp.StatusCode, "")
		}
		switch media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); {
		case err == nil && media == kind:
		case verify == nil:
			return nil, odd("something else than JSON")
		case err == nil && media == plainAnswer:
			return nil, odd("plain JSON, and a signed answer was asked for; the issuer may have to be told to sign for this client")
		default:
			return nil, odd("something else than a signed answer")
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

func odd(what string) error {
	return &ask.Odd{Err: errors.New("introspection answered with " + what)}
}

// read reads an answer. What is not clearly a yes is an error or a no.
func read(data []byte) (map[string]any, error) {
	if len(data) > maxAnswer {
		return nil, odd("more than 64 KiB")
	}
	v, err := strictjson.Decode(data, strictjson.Limits{Depth: 16, Values: 2048})
	if err != nil {
		return nil, odd("JSON that cannot be read")
	}
	claims, _ := v.(map[string]any)
	return verdict(claims)
}

func verdict(claims map[string]any) (map[string]any, error) {
	active, isBool := claims["active"].(bool)
	switch {
	case !isBool:
		return nil, &ask.Odd{Err: errors.New("introspection answered without active")}
	case !active:
		return nil, nil
	}
	return claims, nil
}
