package identity

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/gate/fetch"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/introspect"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/jwt"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/keyset"
)

// Introspect says how an issuer is asked about tokens that only it can read
// (RFC 7662).
type Introspect struct {
	// The endpoint. Default: found by discovery at the issuer's URL.
	URL string `json:"url,omitempty"`

	// The name that the gateway asks by. Required.
	ClientID string `json:"client_id,omitempty"`

	// Its secret, as a placeholder such as `{env.SECRET}` or
	// `{file./run/secrets/introspection}`. Required.
	ClientSecret string `json:"client_secret,omitempty"`

	// How long a token that is good is not asked about again, unless it expires
	// before: a token that was revoked passes for that long. Default: 30s.
	Cache caddy.Duration `json:"cache,omitempty"`

	// How long a token that is not good is not asked about again. Default: 10s.
	Negative caddy.Duration `json:"negative,omitempty"`
}

// askers keep answers over reloads.
var askers = caddy.NewUsagePool()

type askerKey struct {
	issuer, url, id, secret string
	good, bad               caddy.Duration
}

// maxOpaque is how many tokens' answers are remembered at least, for each
// issuer.
const maxOpaque = 1 << 16

func (n *Introspect) validate() error {
	switch {
	case n.ClientID == "" || n.ClientSecret == "":
		return errors.New("introspect needs client_id and client_secret")
	case n.Cache < 0 || n.Negative < 0 || n.Cache > caddy.Duration(time.Hour) || n.Negative > caddy.Duration(time.Hour):
		return errors.New("introspect cache and negative must be at most 1h")
	}
	if err := parse.Placeholder("client_secret", n.ClientSecret); err != nil {
		return err
	}
	if n.URL != "" {
		if err := fetch.CheckURL(n.URL); err != nil {
			return fmt.Errorf("introspect %w", err)
		}
	}
	return nil
}

// opaque makes the issuer ready to be asked. Nothing is asked yet.
func (i *Issuer) opaque() error {
	n := i.Introspect
	if n.Cache == 0 {
		n.Cache = caddy.Duration(30 * time.Second)
	}
	if n.Negative == 0 {
		n.Negative = caddy.Duration(10 * time.Second)
	}
	repl := caddy.NewReplacer()
	id, err := repl.ReplaceOrErr(n.ClientID, true, true)
	if err != nil {
		return fmt.Errorf("introspect client_id: %w", err)
	}
	secret, err := repl.ReplaceOrErr(n.ClientSecret, true, true)
	if err != nil || secret == "" {
		return errors.New("introspect client_secret: a placeholder is empty or not known")
	}
	secret = strings.TrimRight(secret, "\r\n") // a file ends with a line's end
	i.asked = askerKey{i.URL, n.URL, id, secret, n.Cache, n.Negative}
	v, _, err := askers.LoadOrNew(i.asked, func() (caddy.Destructor, error) {
		ask := introspect.Endpoint(n.URL, id, secret)
		if n.URL == "" {
			ask = discovered(i.URL, id, secret)
		}
		return introspect.New(ask, time.Duration(n.Cache), time.Duration(n.Negative), maxOpaque), nil
	})
	if err != nil {
		return err
	}
	i.asker = v.(*introspect.Asker)
	return nil
}

// discovered finds the endpoint by the issuer's metadata, when it is first
// needed.
func discovered(issuer, id, secret string) func(context.Context, string) (map[string]any, error) {
	var endpoint atomic.Pointer[string]
	return func(ctx context.Context, token string) (map[string]any, error) {
		at := endpoint.Load()
		if at == nil {
			meta, err := keyset.Discover(ctx, issuer)
			if err != nil {
				return nil, err
			}
			if err := fetch.CheckURL(meta.Introspection); err != nil {
				return nil, fmt.Errorf("discovery of %q: introspection_endpoint %w", issuer, err)
			}
			at = &meta.Introspection
			endpoint.Store(at)
		}
		return introspect.Endpoint(*at, id, secret)(ctx, token)
	}
}

// isOpaque reports whether a token is none that could be read here.
func isOpaque(token string) bool { return token != "" && strings.Count(token, ".") != 2 }

// byAsking finds the principal of a token that only its issuer can read.
func (h *Handler) byAsking(ctx context.Context, token string, now time.Time) (*proven, *Issuer, *gate.Denial) {
	i := h.opaque
	answer, err := i.asker.About(ctx, token, now)
	if err != nil {
		return nil, i, &gate.Denial{Reason: gate.IdentityUnavailable, Err: err, Header: http.Header{"Retry-After": {"5"}}}
	}
	if answer.Claims == nil {
		return nil, i, &gate.Denial{Reason: gate.IdentityInactive}
	}
	expires, err := jwt.CheckAnswer(answer.Claims, i.identifier, &i.expect, now)
	if err != nil {
		return nil, i, denialOf(err)
	}
	who := prove(i.principal(answer.Claims))
	who.issuer, who.bound, who.good = i, bindingOf(answer.Claims), answer.Until
	if !expires.IsZero() {
		who.ends = expires.Add(i.expect.Leeway)
	}
	if !expires.IsZero() && expires.Add(i.expect.Leeway).Before(who.good) {
		who.good = expires.Add(i.expect.Leeway)
	}
	h.app.tokens.Put(token, who)
	return who, i, nil
}

// unmarshal reads the option. Syntax:
//
//	introspect [<url>] {
//	    client_id     <id>
//	    client_secret <placeholder>
//	    cache         <duration>
//	    negative      <duration>
//	}
func (n *Introspect) unmarshal(d *caddyfile.Dispenser) error {
	if args := d.RemainingArgs(); len(args) > 1 {
		return d.ArgErr()
	} else if len(args) == 1 {
		n.URL = args[0]
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch opt := d.Val(); opt {
		case "client_id":
			err = parse.Text(d, &n.ClientID)
		case "client_secret":
			if err = parse.Text(d, &n.ClientSecret); err == nil {
				if err = parse.Placeholder(opt, n.ClientSecret); err != nil {
					err = d.Err(err.Error())
				}
			}
		case "cache":
			err = parse.Duration(d, &n.Cache)
		case "negative":
			err = parse.Duration(d, &n.Negative)
		default:
			err = parse.Unknown(d, "introspect option", opt, "client_id", "client_secret", "cache", "negative")
		}
		if err != nil {
			return err
		}
	}
	return nil
}
