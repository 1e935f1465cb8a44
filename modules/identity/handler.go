package identity

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/ask"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/jwt"
)

// ServeHTTP finds out who asks.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	ex, mode := gate.Enter(r, gate.Identity, h.Mode)
	if mode == gate.Off {
		gate.Of(r) // which takes off what is for the gateway alone
		h.hide(r.Header)
		return next.ServeHTTP(w, r)
	}
	began := gate.Now()

	var v *visit
	if h.Session != nil {
		v = h.Session.visit(r, ex)
		if done, err := h.servePage(w, r, ex, v, began); done {
			return err
		}
	}
	who, issuer, denial := h.identify(r, began)
	if v != nil && denial != nil && denial.Reason == gate.IdentityMissing {
		if by, why, there := h.bySession(w, r, v, began); there {
			who, issuer, denial = by, h.Session.issuer, h.refuse(r, why, "")
		}
	}
	if gone := h.revocation(who, r, began); gone != nil {
		who, denial = nil, gone
	}
	if denial != nil && noSession(denial.Reason) && (h.Optional || ex.Operation.Anonymous()) {
		denial = nil
	}
	if denial != nil && denial.Reason == gate.IdentityMissing {
		denial.Err = h.came(r, ex)
	}
	unchecked := denial != nil && denial.Reason == gate.IdentityUnavailable && issuer != nil && !theirs(denial.Err) && h.onError(issuer) == gate.Open
	rule := h.accept(ex, r, who, issuer)
	if rule == "" && denial != nil {
		rule = ruleOf(denial)
	}

	late, onError := h.forUpstream(r, who, denial == nil || unchecked, began)
	switch {
	case late != nil && onError == gate.Closed:
		denial = late
	case unchecked:
		ex.LetPass(gate.Identity, mode, withCause(issuer.Name, denial), denial.Reason, began)
		return next.ServeHTTP(v.ours(w), r)
	case late != nil:
		ex.LetPass(gate.Identity, mode, withCause(rule, late), late.Reason, began)
		return next.ServeHTTP(v.ours(w), r)
	}
	h.offer(w, ex, who, began)
	if v != nil {
		denial = v.invite(r, denial)
		keepCookies(w, denial)
	}
	if mode == gate.Shadow {
		rule = withCause(rule, denial)
	}
	if err := ex.Conclude(w, r, gate.Identity, mode, rule, denial, began); err != nil {
		return err
	}
	return next.ServeHTTP(v.ours(w), r)
}

// theirs reports what on_error does not decide about, because the caller can bring
// it about alone: a proof of which nobody can tell, a token that its issuer
// answers oddly to, more questions than an issuer bears, and going away before the
// answer is there (a proxy may send such a request on all the same).
func theirs(err error) bool {
	_, odd := errors.AsType[*ask.Odd](err)
	return errors.Is(err, errProof) || errors.Is(err, ask.ErrBusy) || errors.Is(err, context.Canceled) || odd && !errors.Is(err, ask.ErrAway)
}

// accept says who asks, to the stages, to Caddy's modules and to the upstream,
// and returns whose word it is.
func (h *Handler) accept(ex *gate.Exchange, r *http.Request, who *proven, issuer *Issuer) (rule string) {
	repl, _ := r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if repl != nil {
		repl.Map(placeholders(ex))
	}
	switch {
	case who != nil:
		who.become(ex, r.Header, h.told)
		if repl != nil {
			repl.Set("http.auth.user.id", who.userID)
		}
		return who.principal.Issuer
	case issuer != nil:
		return issuer.Name
	}
	return ""
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
	if denial != nil {
		return nil, nil, h.refuse(r, denial, schemeBearer)
	}
	if len(keys) > 1 {
		return nil, nil, &gate.Denial{Reason: gate.IdentityAmbiguous, Err: fmt.Errorf("%d fields %s", len(keys), h.KeyHeader)}
	}
	if there && len(h.issuers) > 0 {
		who, issuer, denial := h.byToken(r, c.token, now)
		if denial == nil {
			denial = h.bound(r, who.bound, c, now)
		}
		if denial != nil {
			who = nil
		}
		return who, issuer, h.refuse(r, denial, c.scheme())
	}
	if len(keys) == 1 {
		who, denial := h.findKey(r, keys[0], now)
		if denial != nil && denial.Err == nil {
			denial.Err = h.whyKey(denial.Reason, keys[0])
		}
		return who, nil, h.refuse(r, denial, "")
	}
	if h.MTLS != nil {
		if who, denial := h.byCertificate(r, now); who != nil || denial != nil {
			return who, nil, h.refuse(r, denial, "")
		}
	}
	return nil, nil, h.refuse(r, &gate.Denial{Reason: gate.IdentityMissing}, "")
}

// credential is a token as it was sent.
type credential struct {
	token string
	dpop  bool // as one that is bound to a key (RFC 9449, section 7.1)
}

func (c credential) scheme() string {
	if c.dpop {
		return schemeDPoP
	}
	return schemeBearer
}

// bearer finds the token (RFC 6750, section 2.1). It is never taken from the
// query or a form, where it would end up in logs.
func bearer(h http.Header) (c credential, there bool, _ *gate.Denial) {
	values := h["Authorization"]
	if len(values) == 0 {
		return c, false, nil
	}
	if len(values) > 1 {
		return c, false, &gate.Denial{Reason: gate.IdentityAmbiguous, Err: fmt.Errorf("%d fields Authorization", len(values))}
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
func (h *Handler) byToken(r *http.Request, token string, now time.Time) (*proven, *Issuer, *gate.Denial) {
	if len(token) > jwt.MaxLength {
		return nil, nil, &gate.Denial{Reason: gate.IdentityMalformed, Err: errors.New("token is longer than 16 KiB")}
	}
	if who, ok := h.app.tokens.Get(token); ok && now.Before(who.good) && h.issuers[who.issuer.identifier] == who.issuer && (who.keys == nil || who.keys == who.issuer.source.Current(now)) {
		return who, who.issuer, nil
	}
	if h.opaque != nil && isOpaque(token) {
		if !isToken68(token) { // what an issuer makes of another text is not to be found out
			return nil, nil, &gate.Denial{Reason: gate.IdentityMalformed, Err: errors.New("token has characters that none has")}
		}
		return h.byAsking(r, token, now)
	}
	t, err := jwt.Parse(token)
	if err != nil {
		return nil, nil, denialOf(h.whyUnread(token, err))
	}
	issuer := h.issuers[t.Issuer]
	if issuer == nil {
		return nil, nil, &gate.Denial{Reason: gate.IdentityUnknownIssuer, Err: h.whyIssuer(t)}
	}
	keys, err := issuer.source.Keys(r.Context())
	if err != nil {
		return nil, issuer, &gate.Denial{
			Reason: gate.IdentityUnavailable, Err: err,
			Header: http.Header{"Retry-After": {"5"}},
		}
	}
	expires, err := t.Verify(keys, &issuer.expect, now)
	if isKind(err, jwt.UnknownKey) {
		if newer := issuer.source.Missing(r.Context(), keys); newer != keys {
			keys = newer
			expires, err = t.Verify(keys, &issuer.expect, now)
		}
	}
	if err != nil {
		return nil, issuer, denialOf(err)
	}
	who := prove(issuer.principal(t.Claims))
	who.bound = bindingOf(t.Claims)
	who.ends = expires.Add(issuer.expect.Leeway)
	who.issuer, who.keys, who.good = issuer, keys, expires.Add(issuer.expect.Leeway)
	if len(token) <= longestRemembered {
		h.app.tokens.Put(token, who)
	}
	return who, issuer, nil
}

// isToken68 reports whether a text may stand behind Bearer (RFC 6750, section 2.1).
func isToken68(s string) bool {
	s = strings.TrimRight(s, "=")
	return s != "" && strings.IndexFunc(s, func(c rune) bool {
		return (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') && !strings.ContainsRune("-._~+/", c)
	}) < 0
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

// Describe tells consumers how they can prove who they are.
func (h *Handler) Describe(d *gate.Description) {
	d.MayRefuse(h.Mode, gate.Identity)
	h.describeTokens(d)
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
	if h.Session != nil {
		d.Credentials = append(d.Credentials, gate.Credential{Kind: "Session", How: "log in at " + h.Session.Path + "/login", Issuer: h.Session.issuer.URL})
	}
	if h.MTLS != nil {
		d.Credentials = append(d.Credentials, gate.Credential{Kind: "Client certificate", How: "mutual TLS"})
	}
}
