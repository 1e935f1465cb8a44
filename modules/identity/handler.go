package identity

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/jwt"
)

// ServeHTTP finds out who asks.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	ex, mode := gate.Enter(r, gate.Identity, h.Mode)
	if mode == gate.Off {
		return next.ServeHTTP(w, r)
	}
	began := gate.Now()

	who, issuer, denial := h.identify(r, began)
	if denial != nil && denial.Reason == gate.IdentityMissing && (h.Optional || ex.Operation.Anonymous()) {
		denial = nil
	}
	if denial != nil && denial.Reason == gate.IdentityUnavailable && issuer != nil && !errors.Is(denial.Err, errProof) && h.onError(issuer) == gate.Open {
		ex.LetPass(gate.Identity, mode, issuer.Name, denial.Reason, began)
		return next.ServeHTTP(w, r)
	}
	rule := ""
	switch {
	case who != nil:
		rule = who.principal.Issuer
		ex.Principal = who.principal
		who.assert(r.Header, h.told)
		if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
			repl.Set("http.auth.user.id", who.userID)
		}
	case issuer != nil:
		rule = issuer.Name
	case denial != nil:
		rule = ruleOf(denial)
	}
	if err := ex.Conclude(w, r, gate.Identity, mode, rule, denial, began); err != nil {
		return err
	}
	return next.ServeHTTP(w, r)
}

// onError is the handler's own choice, or that of the issuer.
func (h *Handler) onError(i *Issuer) gate.OnError {
	if h.OnError != nil {
		return *h.OnError
	}
	return i.OnError
}

// identify tries the ways of proving in order. A credential that is there and
// wrong ends it: falling through would let an attacker choose what is checked.
func (h *Handler) identify(r *http.Request, now time.Time) (*proven, *Issuer, *gate.Denial) {
	var keys []string
	if h.Keys {
		keys = r.Header[h.KeyHeader]
		delete(r.Header, h.KeyHeader) // not for the upstream, whatever proves the caller
	}
	c, there, denial := bearer(r.Header)
	if denial != nil || len(keys) > 1 {
		return nil, nil, &gate.Denial{Reason: gate.IdentityAmbiguous}
	}
	if there && len(h.issuers) > 0 {
		who, issuer, denial := h.byToken(r.Context(), c.token, now)
		if denial == nil {
			denial = h.bound(r, who.bound, c, now)
		}
		if denial != nil {
			who = nil
		}
		return who, issuer, h.refuse(denial, true, c.dpop)
	}
	if len(keys) == 1 {
		who, denial := h.findKey(r, keys[0], now)
		return who, nil, h.refuse(denial, false, false)
	}
	if h.MTLS != nil {
		if who, denial := h.byCertificate(r, now); who != nil || denial != nil {
			return who, nil, h.refuse(denial, false, false)
		}
	}
	return nil, nil, h.refuse(&gate.Denial{Reason: gate.IdentityMissing}, false, false)
}

// credential is a token as it was sent.
type credential struct {
	token string
	dpop  bool // as one that is bound to a key (RFC 9449, section 7.1)
}

// bearer finds the token (RFC 6750, section 2.1). It is never taken from the
// query or a form, where it would end up in logs.
func bearer(h http.Header) (c credential, there bool, _ *gate.Denial) {
	values := h["Authorization"]
	if len(values) == 0 {
		return c, false, nil
	}
	if len(values) > 1 {
		return c, false, &gate.Denial{Reason: gate.IdentityAmbiguous}
	}
	for _, scheme := range []string{"bearer", "dpop"} {
		v := values[0]
		if len(v) < len(scheme) || !strings.EqualFold(v[:len(scheme)], scheme) {
			continue // somebody else's credential, e.g. Basic
		}
		// Whatever else ends the scheme's name, another program may take for a
		// bearer token: it is one, and malformed, rather than no credential.
		if v = v[len(scheme):]; v != "" && isNameChar(v[0]) {
			continue
		}
		return credential{strings.Trim(v, " "), scheme == "dpop"}, true, nil
	}
	return c, false, nil
}

// isNameChar reports whether c can be in the name of a scheme, less the signs.
func isNameChar(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c == '-' || c == '_' || c == '.'
}

// longestRemembered bounds what the memory of tokens may grow to in bytes.
const longestRemembered = 4 << 10

// byToken finds the principal of a token: remembered, or verified now.
func (h *Handler) byToken(ctx context.Context, token string, now time.Time) (*proven, *Issuer, *gate.Denial) {
	if len(token) > jwt.MaxLength {
		return nil, nil, &gate.Denial{Reason: gate.IdentityMalformed, Err: errors.New("token is longer than 16 KiB")}
	}
	if who, ok := h.app.tokens.Get(token); ok && now.Before(who.good) && h.issuers[who.issuer.identifier] == who.issuer && (who.keys == nil || who.keys == who.issuer.source.Current(now)) {
		return who, who.issuer, nil
	}
	if h.opaque != nil && isOpaque(token) {
		return h.byAsking(ctx, token, now)
	}
	t, err := jwt.Parse(token)
	if err != nil {
		return nil, nil, denialOf(err)
	}
	issuer := h.issuers[t.Issuer]
	if issuer == nil {
		return nil, nil, &gate.Denial{Reason: gate.IdentityUnknownIssuer}
	}
	keys, err := issuer.source.Keys(ctx)
	if err != nil {
		return nil, issuer, &gate.Denial{
			Reason: gate.IdentityUnavailable, Err: err,
			Header: http.Header{"Retry-After": {"5"}},
		}
	}
	expires, err := t.Verify(keys, &issuer.expect, now)
	if isKind(err, jwt.UnknownKey) {
		if newer := issuer.source.Missing(ctx, keys); newer != keys {
			keys = newer
			expires, err = t.Verify(keys, &issuer.expect, now)
		}
	}
	if err != nil {
		return nil, issuer, denialOf(err)
	}
	who := prove(issuer.principal(t.Claims))
	who.bound = bindingOf(t.Claims)
	who.issuer, who.keys, who.good = issuer, keys, expires.Add(issuer.expect.Leeway)
	if len(token) <= longestRemembered {
		h.app.tokens.Put(token, who)
	}
	return who, issuer, nil
}

func isKind(err error, k jwt.Kind) bool {
	f, ok := errors.AsType[*jwt.Fault](err)
	return ok && f.Kind == k
}

// denialOf turns a token's fault into a denial.
func denialOf(err error) *gate.Denial {
	d := &gate.Denial{Reason: gate.IdentityMalformed, Err: err}
	if f, ok := errors.AsType[*jwt.Fault](err); ok {
		d.Reason = faultReasons[f.Kind]
	}
	return d
}

var faultReasons = map[jwt.Kind]gate.Reason{
	jwt.Malformed:     gate.IdentityMalformed,
	jwt.BadAlgorithm:  gate.IdentityBadAlgorithm,
	jwt.UnknownKey:    gate.IdentityUnknownKey,
	jwt.BadSignature:  gate.IdentityBadSignature,
	jwt.Expired:       gate.IdentityExpired,
	jwt.NotYetValid:   gate.IdentityNotYetValid,
	jwt.WrongIssuer:   gate.IdentityUnknownIssuer,
	jwt.WrongAudience: gate.IdentityWrongAudience,
	jwt.WrongType:     gate.IdentityWrongType,
	jwt.MissingClaim:  gate.IdentityMissingClaim,
}

// refuse adds a challenge for each way of proving (RFC 9110, section 11.6.1).
// An error is named only when it was a token that was wrong (RFC 6750, section 3).
func (h *Handler) refuse(d *gate.Denial, token, dpop bool) *gate.Denial {
	if d == nil || d.Reason.Status() != http.StatusUnauthorized {
		return d
	}
	const realm = ` realm="api"`
	var challenges []string
	if len(h.issuers) > 0 {
		c, p := "Bearer"+realm, `DPoP algs="`+strings.Join(jwt.Algorithms(), " ")+`"` // RFC 9449, section 7.1
		proof := h.DPoP != nil || dpop
		switch d.Reason {
		case gate.IdentityBadProof, gate.IdentityReplayed:
			p += `, error="invalid_dpop_proof"`
		default:
			proof = proof || d.Reason == gate.IdentityUnbound
			if token {
				wrong := `, error="invalid_token", error_description="` + d.Reason.Title() + `"`
				c, p = c+wrong, p+wrong
			}
		}
		if h.DPoP == nil || !h.DPoP.Required {
			challenges = append(challenges, c)
		}
		if proof {
			challenges = append(challenges, p)
		}
	}
	if h.Keys {
		challenges = append(challenges, "ApiKey"+realm)
	}
	if challenges == nil { // certificates have no scheme, and a 401 needs one
		challenges = []string{"ClientCertificate" + realm}
	}
	d.Header = http.Header{"Www-Authenticate": challenges}
	return d
}

// Describe tells consumers how they can prove who they are.
func (h *Handler) Describe(d *gate.Description) {
	d.MayRefuse(h.Mode, gate.Identity)
	for _, name := range h.Issuers {
		i := h.app.byName[name]
		c := gate.Credential{Kind: "Bearer token", How: "Authorization: Bearer …"}
		if i.Dev {
			c.Kind = "Development token"
		} else {
			c.Issuer, c.Audience = i.URL, i.Audience
		}
		d.Credentials = append(d.Credentials, c)
	}
	if h.Keys {
		d.Credentials = append(d.Credentials, gate.Credential{Kind: "API key", How: h.KeyHeader + ": …"})
	}
	if h.MTLS != nil {
		d.Credentials = append(d.Credentials, gate.Credential{Kind: "Client certificate", How: "mutual TLS"})
	}
}
