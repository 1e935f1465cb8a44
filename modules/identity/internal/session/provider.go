package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/gate/fetch"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/ask"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/clientauth"
)

// Bounds of what a provider is asked.
const (
	maxAnswer = 128 << 10
	freshFor  = 10 * time.Minute
)

// Refused means that the provider has answered, with a no, or with a token that is
// not good.
type Refused struct {
	Code string // what it says
	Err  error  // what is wrong with its token; nil if it gave none
}

func (r *Refused) Error() string {
	if r.Err != nil {
		return "the issuer's token is not good: " + r.Err.Error()
	}
	return fmt.Sprintf("the issuer refuses: %.64q", r.Code)
}

// Endpoints are where a provider is asked what.
type Endpoints struct {
	Issuer string // who names them

	Authorize, Token, EndSession string

	ISS     bool     // answers say who gives them (RFC 9207)
	Methods []string // how clients may prove themselves; nil: by basic
}

// Check finds addresses that must not be used.
func (e *Endpoints) Check() error {
	for name, address := range map[string]string{"authorization_endpoint": e.Authorize, "token_endpoint": e.Token} {
		if err := fetch.CheckNamed(e.Issuer, address); err != nil {
			return fmt.Errorf("%s %w", name, err)
		}
	}
	if e.EndSession != "" {
		if err := fetch.CheckNamed(e.Issuer, e.EndSession); err != nil {
			return fmt.Errorf("end_session_endpoint %w", err)
		}
	}
	return nil
}

// Provider is an OpenID provider and who we are to it. It may be used
// concurrently.
type Provider struct {
	ID, Secret string             // no secret: a public client
	Client     *clientauth.Client // how we prove it; nil: by the secret, as the provider takes it
	Discover   func(context.Context) (*Endpoints, error)

	mu       sync.Mutex
	known    *Endpoints
	at       time.Time
	failures int
	closed   time.Time
	last     error
}

// Endpoints are found when first needed, and kept while the provider is away.
// One request at a time looks; the others wait for it, no longer than ask.Deadline.
func (p *Provider) Endpoints(ctx context.Context, now time.Time) (*Endpoints, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.known != nil && now.Sub(p.at) < freshFor {
		return p.known, nil
	}
	if now.Before(p.closed) {
		if p.known != nil {
			return p.known, nil
		}
		return nil, fmt.Errorf("%w: %w", ask.ErrAway, p.last)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), ask.Deadline)
	defer cancel()
	e, err := p.Discover(ctx)
	if err == nil {
		err = e.Check()
	}
	if err != nil {
		p.last = err
		p.closed = now.Add(min(time.Second<<min(p.failures, 5), 30*time.Second))
		p.failures++
		if p.known != nil {
			return p.known, nil
		}
		return nil, fmt.Errorf("%w: %w", ask.ErrAway, err)
	}
	p.known, p.at, p.failures, p.closed = e, now, 0, time.Time{}
	return e, nil
}

// Tokens are what a provider gives.
type Tokens struct {
	ID, Access, Refresh, Scope string

	Expires time.Duration // of the access token; 0: not said
}

// Exchange turns a code into tokens.
func (p *Provider) Exchange(ctx context.Context, e *Endpoints, code string, l *Login) (*Tokens, error) {
	return p.ask(ctx, e, url.Values{"grant_type": {"authorization_code"}, "code": {code}, "redirect_uri": {l.Redirect}, "code_verifier": {l.Verifier}})
}

// Renew turns a refresh token into tokens.
func (p *Provider) Renew(ctx context.Context, e *Endpoints, refresh string) (*Tokens, error) {
	return p.ask(ctx, e, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {refresh}})
}

func (p *Provider) ask(ctx context.Context, e *Endpoints, form url.Values) (*Tokens, error) {
	ctx, cancel := context.WithTimeout(ctx, ask.Deadline)
	defer cancel()
	client := p.Client
	if client == nil {
		client = clientauth.InBody(p.ID, p.Secret)
		if p.Secret != "" && (len(e.Methods) == 0 || slices.Contains(e.Methods, "client_secret_basic")) {
			client = clientauth.Basic(p.ID, p.Secret)
		}
	}
	resp, err := client.Ask(ctx, e.Token, "application/json", form)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ask.ErrAway, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil || len(data) > maxAnswer {
		return nil, fmt.Errorf("%w: its answer cannot be read", ask.ErrAway)
	}
	t, err := read(resp.StatusCode, data)
	if _, no := errors.AsType[*Refused](err); err != nil && !no {
		err = fmt.Errorf("%w: %w", ask.ErrAway, err) // whatever is wrong, the person has not done it
	}
	return t, err
}

// read reads an answer of the token endpoint. Only an answer that is clearly a
// no is one: neither a proxy's error page nor a secret of ours that is wrong must
// log everybody out.
func read(status int, data []byte) (*Tokens, error) {
	var answer struct {
		Error   string      `json:"error"`
		ID      string      `json:"id_token"`
		Access  string      `json:"access_token"`
		Type    string      `json:"token_type"`
		Refresh string      `json:"refresh_token"`
		Scope   string      `json:"scope"`
		Expires json.Number `json:"expires_in"`
	}
	err := json.Unmarshal(data, &answer)
	switch {
	case (status == http.StatusBadRequest || status == http.StatusUnauthorized || status == http.StatusForbidden) && err == nil && answer.Error != "" && !ask.Ours(answer.Error):
		return nil, &Refused{Code: answer.Error}
	case status != http.StatusOK:
		return nil, ask.Status("the token endpoint", status, answer.Error)
	case err != nil || answer.Access == "" || !strings.EqualFold(answer.Type, "bearer"):
		return nil, &ask.Odd{Err: errors.New("the token endpoint answered with no token that could be used")}
	}
	t := &Tokens{ID: answer.ID, Access: answer.Access, Refresh: answer.Refresh, Scope: answer.Scope}
	if n, err := answer.Expires.Int64(); err == nil && n > 0 && n < int64(MaxLifetime/time.Second) {
		t.Expires = time.Duration(n) * time.Second
	}
	return t, nil
}

// EndSessionURL is where the browser ends its session at the provider. It is
// empty if the provider has no such place.
func (p *Provider) EndSessionURL(e *Endpoints, idToken, back string) string {
	if e.EndSession == "" {
		return ""
	}
	q := url.Values{"client_id": {p.ID}, "post_logout_redirect_uri": {back}}
	if idToken != "" {
		q.Set("id_token_hint", idToken)
	}
	address, err := withQuery(e.EndSession, q)
	if err != nil {
		return ""
	}
	return address
}
