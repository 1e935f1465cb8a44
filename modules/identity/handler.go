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
	if h.Mode == gate.Off {
		return next.ServeHTTP(w, r)
	}
	began := time.Now()
	ex := gate.Of(r)

	who, issuer, denial := h.identify(r, began)
	if denial != nil && denial.Reason == gate.IdentityMissing && (h.Optional || ex.Operation.Anonymous()) {
		denial = nil
	}
	if denial != nil && denial.Reason == gate.IdentityUnavailable && issuer.OnError == gate.Open {
		ex.LetPass(gate.Identity, h.Mode, issuer.Name, denial.Reason, began)
		return next.ServeHTTP(w, r)
	}
	rule := ""
	switch {
	case who != nil:
		rule = who.principal.Issuer
		ex.Principal = who.principal
		who.assert(r.Header)
		if repl, ok := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
			repl.Set("http.auth.user.id", who.principal.Subject)
		}
	case issuer != nil:
		rule = issuer.Name
	}
	if err := ex.Conclude(w, r, gate.Identity, h.Mode, rule, denial, began); err != nil {
		return err
	}
	return next.ServeHTTP(w, r)
}

// identify tries the ways of proving in order. A credential that is there and
// wrong ends it: falling through would let an attacker choose what is checked.
func (h *Handler) identify(r *http.Request, now time.Time) (*proven, *Issuer, *gate.Denial) {
	if len(h.issuers) > 0 {
		token, there, denial := bearer(r.Header)
		if denial != nil {
			return nil, nil, h.refuse(denial)
		}
		if there {
			who, issuer, denial := h.byToken(r.Context(), token, now)
			return who, issuer, h.refuse(denial)
		}
	}
	if h.Keys {
		if keys := r.Header[h.KeyHeader]; len(keys) > 0 {
			delete(r.Header, h.KeyHeader) // not for the upstream
			if len(keys) > 1 {
				return nil, nil, h.refuse(&gate.Denial{Reason: gate.IdentityAmbiguous})
			}
			who, reason := h.app.keys.find(keys[0], now)
			if who == nil {
				return nil, nil, h.refuse(&gate.Denial{Reason: reason})
			}
			return who, nil, nil
		}
	}
	if h.MTLS {
		if who := byCertificate(r.TLS); who != nil {
			return who, nil, nil
		}
	}
	return nil, nil, h.refuse(&gate.Denial{Reason: gate.IdentityMissing})
}

// bearer finds the token (RFC 6750, section 2.1). It is never taken from the
// query or a form, where it would end up in logs.
func bearer(h http.Header) (token string, there bool, _ *gate.Denial) {
	values := h["Authorization"]
	if len(values) == 0 {
		return "", false, nil
	}
	if len(values) > 1 {
		return "", false, &gate.Denial{Reason: gate.IdentityAmbiguous}
	}
	scheme, token, _ := strings.Cut(values[0], " ")
	if !strings.EqualFold(scheme, "bearer") {
		return "", false, nil // somebody else's credential, e.g. Basic
	}
	return strings.Trim(token, " "), true, nil
}

// byToken finds the principal of a token: remembered, or verified now.
func (h *Handler) byToken(ctx context.Context, token string, now time.Time) (*proven, *Issuer, *gate.Denial) {
	if len(token) > jwt.MaxLength {
		return nil, nil, &gate.Denial{Reason: gate.IdentityMalformed, Err: errors.New("token is longer than 16 KiB")}
	}
	if who, ok := h.app.tokens.Get(token); ok && now.Before(who.good) && h.issuers[who.issuer.identifier] == who.issuer && who.keys == any(who.issuer.source.Current()) {
		return who, who.issuer, nil
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
	who.issuer, who.keys, who.good = issuer, keys, expires.Add(issuer.expect.Leeway)
	h.app.tokens.Put(token, who)
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

// refuse adds the challenge (RFC 9110, section 11.6.1; RFC 6750, section 3):
// an error is named only when a credential was there.
func (h *Handler) refuse(d *gate.Denial) *gate.Denial {
	if d == nil || d.Reason.Status() != http.StatusUnauthorized {
		return d
	}
	challenge := h.challenge
	if d.Reason != gate.IdentityMissing && challenge == "Bearer" {
		challenge += ` error="invalid_token", error_description="` + d.Reason.Title() + `"`
	}
	if d.Header == nil {
		d.Header = http.Header{}
	}
	d.Header["Www-Authenticate"] = []string{challenge}
	return d
}
