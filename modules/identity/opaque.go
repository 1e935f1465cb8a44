package identity

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/gate/fetch"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/ask"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/clientauth"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/introspect"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/jwt"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/keyset"
)

// Introspect says how an issuer is asked about tokens that only it can read
// (RFC 7662).
type Introspect struct {
	// The endpoint. Default: found by discovery at the issuer's URL.
	URL string `json:"url,omitempty"`

	// The name that the gateway asks by, and how it proves it.
	ClientAuth

	// Whether answers must be signed (RFC 9701): for this client, by the issuer's
	// keys, at most a minute ago. A plain answer is then as none. Default: false.
	Signed bool `json:"signed,omitempty"`

	// How long a token that is good is not asked about again, unless it expires
	// before: a token that was revoked passes for that long. Default: 30s.
	Cache caddy.Duration `json:"cache,omitempty"`

	// How long a token that is not good is not asked about again. Default: 10s.
	Negative caddy.Duration `json:"negative,omitempty"`
}

// askers keep answers over reloads.
var askers = caddy.NewUsagePool()

type askerKey struct {
	issuer, url string
	client      clientKey
	good, bad   caddy.Duration
	signed      string // all that signed answers are verified by; empty: they are plain
}

// maxOpaque is how many tokens' answers are remembered at least, for each
// issuer.
const maxOpaque = 1 << 16

func (n *Introspect) validate() error {
	if n.Cache < 0 || n.Negative < 0 || n.Cache > caddy.Duration(time.Hour) || n.Negative > caddy.Duration(time.Hour) {
		return errors.New("introspect cache and negative must be at most 1h")
	}
	if err := n.ClientAuth.validate("introspect"); err != nil {
		return err
	}
	if n.URL != "" {
		if err := fetch.CheckURL(n.URL); err != nil {
			return fmt.Errorf("introspect %w", err)
		}
	}
	return n.secure("introspect", n.URL)
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
	client, who, err := n.client(i.URL)
	if err != nil {
		return fmt.Errorf("introspect %w", err)
	}
	i.asked = askerKey{i.URL, n.URL, who, n.Cache, n.Negative, ""}
	var verify introspect.Verify
	if n.Signed {
		i.asked.signed = fmt.Sprint(i.keys, i.expect.Algorithms, i.expect.Leeway)
		verify = signedBy(i.source, i.URL, who.id, i.expect)
	}
	at := &endpoint{issuer: i.URL, configured: n.URL, what: "introspection_endpoint", of: who.introspection}
	v, _, err := askers.LoadOrNew(i.asked, func() (caddy.Destructor, error) {
		a := introspect.New(asking(at, client, verify), time.Duration(n.Cache), time.Duration(n.Negative), maxOpaque)
		a.Close = client.Close
		return a, nil
	})
	if err != nil {
		return err
	}
	i.asker = v.(*introspect.Asker)
	return nil
}

// asking asks the endpoint.
func asking(at *endpoint, client *clientauth.Client, verify introspect.Verify) func(context.Context, string) (map[string]any, error) {
	return func(ctx context.Context, token string) (map[string]any, error) {
		address, err := at.find(ctx)
		if err != nil {
			return nil, err
		}
		claims, err := introspect.Endpoint(address, client, verify)(ctx, token)
		if _, odd := errors.AsType[*ask.Odd](err); err != nil && !odd {
			at.failed()
		}
		return claims, err
	}
}

// signedBy verifies answers that an issuer signs for a client.
func signedBy(source *keyset.Source, issuer, client string, x jwt.Expect) introspect.Verify {
	return func(ctx context.Context, answer string) (map[string]any, error) {
		t, err := jwt.Parse(answer)
		if err != nil {
			return nil, &ask.Odd{Err: err}
		}
		keys, err := source.Keys(ctx)
		if err != nil {
			return nil, err
		}
		about, err := t.VerifyAnswer(keys, issuer, client, &x, gate.Now())
		if isKind(err, jwt.UnknownKey) { // the issuer may have new ones
			if newer := source.Missing(ctx, keys); newer != keys {
				about, err = t.VerifyAnswer(newer, issuer, client, &x, gate.Now())
			}
		}
		if err != nil {
			return nil, &ask.Odd{Err: err}
		}
		return about, nil
	}
}

// isOpaque reports whether a token is none that could be read here.
func isOpaque(token string) bool { return token != "" && strings.Count(token, ".") != 2 }

// byAsking finds the principal of a token that only its issuer can read.
func (h *Handler) byAsking(r *http.Request, token string, now time.Time) (*proven, *Issuer, *gate.Denial) {
	i := h.opaque
	if h.app.rehearsed { // who makes tokens there makes none of these
		return nil, i, &gate.Denial{Reason: gate.IdentityInactive}
	}
	answer, err := i.asker.About(r.Context(), gate.Of(r).Customer(), token, now)
	if err != nil {
		return nil, i, &gate.Denial{Reason: gate.IdentityUnavailable, Err: err, Header: http.Header{"Retry-After": {"5"}}}
	}
	if answer.Claims == nil {
		return nil, i, &gate.Denial{Reason: gate.IdentityInactive, Err: h.whyUnread(token, fmt.Errorf("issuer %q was asked, and does not know the token, or not any more", i.Name))}
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
//	    auth          basic|post|private_key_jwt|mtls [{ … }]    # see ClientAuth
//	    signed
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
		case "client_id", "client_secret", "auth":
			err = n.ClientAuth.unmarshal(d)
		case "signed":
			err = parse.Flag(d, &n.Signed)
		case "cache":
			err = parse.Duration(d, &n.Cache)
		case "negative":
			err = parse.Duration(d, &n.Negative)
		default:
			err = parse.Unknown(d, "introspect option", opt, append(clientOptions, "signed", "cache", "negative")...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
