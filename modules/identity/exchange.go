package identity

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/gate/fetch"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/ask"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/exchange"
)

// ExchangeClient says where, and by what name, the gateway exchanges an issuer's
// tokens (RFC 8693).
type ExchangeClient struct {
	// The token endpoint. Default: found by discovery at the issuer's URL.
	URL string `json:"url,omitempty"`

	// The name that the gateway asks by, and how it proves it.
	ClientAuth
}

// TokenExchange sends the upstream a token that is meant for it, in place of the
// client's, for which it is exchanged at the token's issuer.
type TokenExchange struct {
	// Whom the new token is to be for, as the issuer knows it.
	Audience []string `json:"audience,omitempty"`

	// The same, as URLs (RFC 8707).
	Resource []string `json:"resource,omitempty"`

	// What the new token may be good for. Default: what the issuer gives.
	Scope []string `json:"scope,omitempty"`

	// What happens to requests while the issuer cannot be asked: `closed`
	// refuses them with 503, `open` lets them pass without any token; the
	// client's own is never sent on. Default: `closed`.
	OnError gate.OnError `json:"on_error,omitempty"`

	at   map[*Issuer]*exchange.Exchanger
	used []exchangeKey
	app  *App
}

// exchangers keep tokens over reloads.
var exchangers = caddy.NewUsagePool()

type exchangeKey struct {
	issuer, url               string
	client                    clientKey
	audience, resource, scope string
}

// maxExchanged is how many tokens are remembered at least, for each issuer and
// audience.
const maxExchanged = 1 << 14

func (e *ExchangeClient) validate() error {
	if err := e.ClientAuth.validate("exchange"); err != nil {
		return err
	}
	if e.URL != "" {
		if err := fetch.CheckURL(e.URL); err != nil {
			return fmt.Errorf("exchange %w", err)
		}
	}
	return e.secure("exchange", e.URL)
}

func (e *TokenExchange) validate(h *Handler) error {
	switch {
	case len(e.Audience) == 0 && len(e.Resource) == 0:
		return errors.New("exchange needs an audience or a resource: whom the new token is to be for")
	case h.Keys || h.MTLS != nil || h.Session != nil || len(h.Issuers) == 0:
		return errors.New("exchange needs tokens, and API keys, client certificates and sessions are none; put those into an identity of their own, or use tell jwt")
	case h.TellJWT != nil && http.CanonicalHeaderKey(h.TellJWT.Header) == "Authorization":
		return errTwice
	}
	return nil
}

// checkExchange finds issuers that do not say how, on the line that wants it.
func (h *Handler) checkExchange(helper httpcaddyfile.Helper, issuers []*Issuer) error {
	for _, i := range issuers {
		if h.TokenExchange != nil && i.Exchange == nil && slices.Contains(h.Issuers, i.Name) {
			return helper.Errf("issuer %q does not say how its tokens are exchanged; give it an exchange in the global options too", i.Name)
		}
	}
	return nil
}

// ready finds the issuers' endpoints. Nothing is asked yet.
func (e *TokenExchange) ready(h *Handler) error {
	if err := e.validate(h); err != nil {
		return err
	}
	e.app = h.app
	e.at = make(map[*Issuer]*exchange.Exchanger, len(h.Issuers))
	for _, i := range h.issuers {
		if i.Exchange == nil {
			return fmt.Errorf("exchange: issuer %q does not say how its tokens are exchanged; give it an exchange too", i.Name)
		}
		x, err := e.exchanger(i)
		if err != nil {
			return fmt.Errorf("exchange: issuer %q: %w", i.Name, err)
		}
		e.at[i] = x
	}
	return nil
}

func (e *TokenExchange) exchanger(i *Issuer) (*exchange.Exchanger, error) {
	at := i.Exchange
	if err := at.validate(); err != nil {
		return nil, err
	}
	client, who, err := at.client(i.URL)
	if err != nil {
		return nil, err
	}
	key := exchangeKey{
		i.URL, at.URL, who,
		strings.Join(e.Audience, "\n"), strings.Join(e.Resource, "\n"), strings.Join(e.Scope, " "),
	}
	v, _, err := exchangers.LoadOrNew(key, func() (caddy.Destructor, error) {
		c := &exchange.Client{Client: client, Audience: e.Audience, Resource: e.Resource, Scope: e.Scope}
		token := &endpoint{issuer: i.URL, configured: at.URL, what: "token_endpoint", of: who.token}
		x := exchange.New(func(ctx context.Context, subject string) (exchange.Granted, error) {
			address, err := token.find(ctx)
			if err != nil {
				exchanges.WithLabelValues(i.Name, "failed").Inc()
				return exchange.Granted{}, err
			}
			g, err := c.Exchange(ctx, address, subject)
			if _, odd := errors.AsType[*ask.Odd](err); err != nil && !odd {
				token.failed()
			}
			switch {
			case err != nil:
				exchanges.WithLabelValues(i.Name, "failed").Inc()
			case g.Refused != "":
				exchanges.WithLabelValues(i.Name, "refused").Inc()
			default:
				exchanges.WithLabelValues(i.Name, "granted").Inc()
			}
			return g, err
		}, maxExchanged)
		x.Close = client.Close
		return x, nil
	})
	if err != nil {
		return nil, err
	}
	e.used = append(e.used, key)
	return v.(*exchange.Exchanger), nil
}

// cleanup gives the exchangers back.
func (e *TokenExchange) cleanup() {
	if e == nil {
		return
	}
	for _, key := range e.used {
		_, _ = exchangers.Delete(key) // Destruct cannot fail
	}
	e.used = nil
}

// swap puts the upstream's token in the place of the client's.
func (e *TokenExchange) swap(r *http.Request, who *proven, token string, now time.Time) *gate.Denial {
	x := e.at[who.issuer]
	if x == nil || token == "" {
		return &gate.Denial{Reason: gate.IdentityExchangeRefused, Err: errors.New("the caller has no token that could be exchanged")}
	}
	if e.app.rehearsed { // there is nobody to ask
		return nil
	}
	answer, err := x.For(r.Context(), gate.Of(r).Customer(), token, who.ends, now)
	switch {
	case err != nil:
		return &gate.Denial{Reason: gate.IdentityExchangeUnavailable, Err: err, Header: http.Header{"Retry-After": {"5"}}}
	case answer.Refused != "":
		return &gate.Denial{Reason: gate.IdentityExchangeRefused, Err: fmt.Errorf("the issuer answered %s", answer.Refused)}
	}
	r.Header["Authorization"] = []string{"Bearer " + answer.Token}
	return nil
}

// onError is about issuers that cannot be asked: a refusal is a refusal.
func (e *TokenExchange) onError(d *gate.Denial) gate.OnError {
	if d.Reason == gate.IdentityExchangeUnavailable && !theirs(d.Err) {
		return e.OnError
	}
	return gate.Closed
}

// unmarshal reads the issuer's option. Syntax:
//
//	exchange [<token endpoint>] {
//	    client_id     <id>
//	    client_secret <placeholder>
//	    auth          basic|post|private_key_jwt|mtls [{ … }]    # see ClientAuth
//	}
func (e *ExchangeClient) unmarshal(d *caddyfile.Dispenser) error {
	if args := d.RemainingArgs(); len(args) > 1 {
		return d.ArgErr()
	} else if len(args) == 1 {
		e.URL = args[0]
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch opt := d.Val(); opt {
		case "client_id", "client_secret", "auth":
			err = e.ClientAuth.unmarshal(d)
		default:
			err = parse.Unknown(d, "exchange option", opt, clientOptions...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unmarshal reads the directive's option. Syntax:
//
//	exchange [<audience...>] {
//	    resource <url...>
//	    scope    <scope...>
//	    on_error closed|open
//	}
func (e *TokenExchange) unmarshal(d *caddyfile.Dispenser) error {
	line := *d // for errors of the whole option
	e.Audience = d.RemainingArgs()
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch opt := d.Val(); opt {
		case "resource":
			err = parse.Words(d, &e.Resource)
		case "scope":
			err = parse.Words(d, &e.Scope)
		case "on_error":
			err = parse.Into(d, &e.OnError)
		default:
			err = parse.Unknown(d, "exchange option", opt, "resource", "scope", "on_error")
		}
		if err != nil {
			return err
		}
	}
	if len(e.Audience) == 0 && len(e.Resource) == 0 {
		return line.Err("exchange needs an audience or a resource: whom the new token is to be for")
	}
	return nil
}

var exchanges = prometheus.NewCounterVec(prometheus.CounterOpts{
	Name: "gatehouse_identity_exchanges_total",
	Help: "Token exchanges at issuers, by what came of them: granted, refused or failed.",
}, []string{"issuer", "outcome"})
