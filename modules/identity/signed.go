package identity

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/signer"
)

// TellJWT tells the upstream who asks by a short-lived token that the gateway
// signs, so that it need not trust whoever reaches it. Its header field is
// taken off every request before.
type TellJWT struct {
	// Whom the token is for: the upstream's name for itself. Required.
	Audience []string `json:"audience,omitempty"`

	// The header field that carries it. In `Authorization` it takes the place of
	// the client's own, as a bearer token. Default: `X-Gatehouse-Identity`.
	Header string `json:"header,omitempty"`

	// How long a token is good, from 10s to 1h, unless the client's credential
	// ends before. A new one is made after half of it. Default: 60s.
	Lifetime caddy.Duration `json:"lifetime,omitempty"`

	// Which facts the token has beside `sub`: `client` (as client_id), `tenant`,
	// `plan`, `roles`, `scopes` (as scope), `issuer` (as idp), `method` and `act`.
	// Default: all that are known.
	Claims []string `json:"claims,omitempty"`

	// Claims of the client's token that are copied, as they are and by their
	// names. Default: none.
	Copy []string `json:"copy,omitempty"`

	// What happens to requests while there is no key to sign with: `closed`
	// refuses them with 503, `open` lets them pass without a token.
	// Default: `closed`.
	OnError gate.OnError `json:"on_error,omitempty"`

	issuer string
	signer *signer.Signer
}

// signedFacts are the facts that a token can have, by the names of its claims.
var signedFacts = map[string]string{
	"client": "client_id", "tenant": "tenant", "plan": "plan", "roles": "roles",
	"scopes": "scope", "issuer": "idp", "method": "method", "act": "act",
}

var signedFactNames = []string{"client", "tenant", "plan", "roles", "scopes", "issuer", "method", "act"}

// ours are claims that the gateway vouches for itself, or that would bind its
// token to something that the upstream is not shown.
var ours = []string{"iss", "sub", "aud", "iat", "exp", "nbf", "jti", "cnf"}

func (j *TellJWT) validate() error {
	switch {
	case len(j.Audience) == 0:
		return errors.New("tell jwt needs an audience: without one, what is signed for one upstream is good at every other")
	case j.Lifetime != 0 && (j.Lifetime < caddy.Duration(10*time.Second) || j.Lifetime > caddy.Duration(signer.MaxLife)):
		return fmt.Errorf("tell jwt lifetime must be between 10s and %v", signer.MaxLife)
	case j.Header != "" && !isHeader(j.Header):
		return fmt.Errorf("tell jwt header %q is none that can carry it", j.Header)
	}
	for _, name := range j.Claims {
		if signedFacts[name] == "" {
			return errors.New(parse.Misspelt("tell jwt claim", name, signedFactNames...))
		}
	}
	for _, name := range j.Copy {
		taken := slices.Contains(ours, name)
		for _, claim := range signedFacts {
			taken = taken || claim == name
		}
		if taken {
			return fmt.Errorf("tell jwt copy %q: the gateway says that itself", name)
		}
	}
	return nil
}

// isHeader refuses fields by which the request itself is read.
func isHeader(name string) bool {
	for _, c := range []byte(name) {
		if !isNameChar(c) || c == '_' || c == '.' { // which Caddy's server drops, and others take for a hyphen
			return false
		}
	}
	switch http.CanonicalHeaderKey(name) {
	case "Host", "Cookie", "Connection", "Content-Length", "Content-Type", "Transfer-Encoding", "Te", "Trailer", "Upgrade", "X-Request-Id":
		return false
	}
	return true
}

// ready finds the keys. None is made yet.
func (j *TellJWT) ready(ctx caddy.Context, app *App) error {
	if err := j.validate(); err != nil {
		return err
	}
	if j.Header == "" {
		j.Header = gate.Asserted + "Identity"
	}
	j.Header = http.CanonicalHeaderKey(j.Header)
	if j.Lifetime == 0 {
		j.Lifetime = caddy.Duration(time.Minute)
	}
	if j.Claims == nil {
		j.Claims = signedFactNames
	}
	var err error
	j.signer, j.issuer, err = app.signs(ctx)
	return err
}

// assertion is a token about one principal for one upstream. It is remembered
// beside the principal, and so bounded as principals are.
type assertion struct {
	by       *TellJWT
	value    []string
	renew    time.Time // when somebody should make a new one
	last     time.Time // when it is not sent any more
	renewing atomic.Bool
	next     *assertion // of another upstream
}

// maxAssertions bounds the upstreams that one principal is remembered for.
const maxAssertions = 8

// tell puts the token about a principal into the header. In most requests it is
// there already; when half its time is over, one of them makes the next, and
// the others go on with it meanwhile.
func (j *TellJWT) tell(r *http.Request, who *proven, now time.Time) *gate.Denial {
	a := who.asserted.Load()
	for a != nil && a.by != j {
		a = a.next
	}
	if a == nil || !now.Before(a.last) || !now.Before(a.renew) && a.renewing.CompareAndSwap(false, true) {
		next, err := j.sign(r.Context(), who, now)
		switch {
		case err == nil:
			a = next
			who.remember(a, now)
		case a == nil || !now.Before(a.last):
			return &gate.Denial{Reason: gate.IdentityUnsigned, Err: err, Header: http.Header{"Retry-After": {"5"}}}
		default:
			a.renewing.Store(false)
		}
	}
	// A slice of its own, for what assert says of request_header.
	r.Header[j.Header] = []string{a.value[0]}
	return nil
}

// remember puts a new assertion in the place of the old one, and drops those
// that are over: their upstreams may be gone since a reload.
func (v *proven) remember(a *assertion, now time.Time) {
	for range 3 { // who loses the race signs once more, later
		head := v.asserted.Load()
		kept, at := 1, a
		a.next = nil
		for old := head; old != nil && kept < maxAssertions; old = old.next {
			if old.by == a.by || !now.Before(old.last) {
				continue
			}
			at.next = &assertion{by: old.by, value: old.value, renew: old.renew, last: old.last}
			at, kept = at.next, kept+1
		}
		if v.asserted.CompareAndSwap(head, a) {
			return
		}
	}
}

// sign makes a token. It ends with the credential that the client has shown.
func (j *TellJWT) sign(ctx context.Context, who *proven, now time.Time) (*assertion, error) {
	ends := now.Add(time.Duration(j.Lifetime))
	if !who.ends.IsZero() && who.ends.Before(ends) {
		ends = who.ends
	}
	claims, err := json.Marshal(j.said(who, now, ends))
	if err != nil {
		return nil, fmt.Errorf("writing the token: %w", err)
	}
	token, err := j.signer.Sign(ctx, claims, now)
	if err != nil {
		return nil, err
	}
	tokensSigned.Inc()
	if j.Header == "Authorization" {
		token = "Bearer " + token
	}
	life := ends.Sub(now)
	return &assertion{by: j, value: []string{token}, renew: now.Add(life / 2), last: now.Add(life * 3 / 4)}, nil
}

// said are the claims. All of them come from what was proven.
func (j *TellJWT) said(who *proven, now, ends time.Time) map[string]any {
	p := who.principal
	said := map[string]any{
		"iss": j.issuer, "aud": j.Audience, "jti": rand.Text(),
		"iat": now.Unix(), "exp": ends.Unix(),
	}
	if len(j.Audience) == 1 {
		said["aud"] = j.Audience[0]
	}
	for _, name := range j.Copy {
		if v, there := p.Claims[name]; there {
			said[name] = v
		}
	}
	text := func(claim, value string) {
		if value != "" {
			said[claim] = value
		}
	}
	text("sub", p.Subject)
	for _, name := range j.Claims {
		claim := signedFacts[name]
		switch name {
		case "client":
			text(claim, p.Client)
		case "tenant":
			text(claim, p.Tenant)
		case "plan":
			text(claim, p.Plan)
		case "scopes":
			text(claim, strings.Join(p.Scopes, " ")) // RFC 8693, section 4.2
		case "issuer":
			text(claim, p.Issuer)
		case "method":
			text(claim, p.Method.String())
		case "roles":
			if len(p.Roles) > 0 {
				said[claim] = p.Roles
			}
		case "act":
			if act, ok := p.Claims["act"].(map[string]any); ok { // RFC 8693, section 4.1
				said[claim] = act
			}
		}
	}
	return said
}

// unmarshal reads the option. Syntax:
//
//	tell jwt {
//	    audience <value...>
//	    header   <name>
//	    lifetime <duration>
//	    claims   client|tenant|plan|roles|scopes|issuer|method|act ...
//	    copy     <claim...>
//	    on_error closed|open
//	}
func (j *TellJWT) unmarshal(d *caddyfile.Dispenser) error {
	line := *d // for errors of the whole option
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch opt := d.Val(); opt {
		case "audience":
			err = parse.Words(d, &j.Audience)
		case "header":
			err = parse.Text(d, &j.Header)
		case "lifetime":
			err = parse.Duration(d, &j.Lifetime)
		case "claims":
			for _, name := range d.RemainingArgs() {
				if signedFacts[name] == "" {
					return parse.Unknown(d, "claim", name, signedFactNames...)
				}
				j.Claims = append(j.Claims, name)
			}
			if j.Claims == nil {
				err = d.ArgErr()
			}
		case "copy":
			err = parse.Words(d, &j.Copy)
		case "on_error":
			err = parse.Into(d, &j.OnError)
		default:
			err = parse.Unknown(d, "tell jwt option", opt, "audience", "header", "lifetime", "claims", "copy", "on_error")
		}
		if err != nil {
			return err
		}
	}
	if err := j.validate(); err != nil {
		return line.Err(err.Error())
	}
	return nil
}
