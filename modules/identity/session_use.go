package identity

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/cluster"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/session"
)

// visit is what a request brings of a session.
type visit struct {
	*Session

	ex      *gate.Exchange
	names   *names
	cookies session.Cookies
	origin  string // of the site, as the browser sees it
}

// visit reads the cookies, which were taken from the request when the Exchange
// opened.
func (s *Session) visit(r *http.Request, ex *gate.Exchange) *visit {
	origin := s.Origin
	if origin == "" {
		origin = originAsAsked(r)
	}
	n := s.namesFor(ex.API, strings.HasPrefix(origin, "https://"))
	return &visit{s, ex, n, session.Take(ex.Cookies, n.cookie), origin}
}

// bySession finds the principal of a session. There is none where the browser
// has no cookie.
func (h *Handler) bySession(w http.ResponseWriter, r *http.Request, v *visit, now time.Time) (who *proven, denial *gate.Denial, there bool) {
	if v.cookies.Value == "" && !v.cookies.Broken {
		return nil, nil, false
	}
	if h.app.rehearsed { // nobody has logged in, and no key is made for it
		return nil, &gate.Denial{Reason: gate.IdentityBadSession}, true
	}
	l, ring, denial := v.read(r.Context(), now)
	if denial != nil {
		if denial.Reason != gate.IdentityUnavailable {
			v.forget(w)
		}
		return nil, denial, true
	}
	if changes(r) && !v.ownPage(r) {
		sessionEvents.WithLabelValues("cross_origin").Inc()
		return l.who, &gate.Denial{Reason: gate.IdentityCrossOrigin, Err: v.whyOther(r)}, true
	}
	next, denial := h.fresh(r.Context(), v, l, now)
	if next == nil { // the issuer says that it is over
		v.forget(w)
		return nil, denial, true
	}
	if denial == nil && !subresource(r) && (next != l || l.session.Ageing(time.Duration(v.Idle), now)) {
		c := *next.session
		c.Seen = now.UnixMilli()
		if err := v.write(w, ring, &c, now); err != nil {
			h.app.logger.Warn("a session has become too large for its cookie", zap.String("issuer", v.Issuer), zap.Error(err))
		}
	}
	return next.who, denial, true
}

// read opens the cookie and looks whether the session still is one.
func (v *visit) read(ctx context.Context, now time.Time) (*live, *session.Ring, *gate.Denial) {
	ring, err := v.vault.ready(ctx, now)
	if err != nil {
		return nil, nil, &gate.Denial{Reason: gate.IdentityUnavailable, Err: err, Header: http.Header{"Retry-After": {"1"}}}
	}
	l, ok := v.names.opened.Get(v.cookies.Value)
	if !ok {
		sess, err := session.Open(ring, v.names.bound, v.cookies.Value)
		if v.cookies.Broken {
			err = errors.New("the browser has sent some of its pieces only")
		}
		if err != nil {
			return nil, nil, &gate.Denial{Reason: gate.IdentityBadSession, Err: fmt.Errorf("cookie %s: %w", v.names.cookie, err)}
		}
		if l, err = v.open(sess); err != nil {
			return nil, nil, &gate.Denial{Reason: gate.IdentityBadSession, Err: err}
		}
		if len(v.cookies.Value) <= longestRemembered {
			v.names.opened.Put(v.cookies.Value, l)
		}
	}
	if v.vault.ended.Has(l.session.Began, l.names) {
		return nil, nil, ended()
	}
	if l.session.Over(time.Duration(v.Idle), time.Duration(v.Lifetime), now) {
		return nil, nil, &gate.Denial{Reason: gate.IdentitySessionExpired, Err: fmt.Errorf("begun at %s, last used at %s; idle is %v, and lifetime %v",
			when(l.session.Began), when(l.session.Seen), time.Duration(v.Idle), time.Duration(v.Lifetime))}
	}
	return l, ring, nil
}

// fresh renews a session whose access token comes to its end, or takes what it
// has become meanwhile. A denial beside a session means that the issuer could
// not be asked, which on_error decides about.
func (h *Handler) fresh(ctx context.Context, v *visit, l *live, now time.Time) (*live, *gate.Denial) {
	latest := v.shared.renewer.Latest(l.session)
	should, must := latest.Due(now)
	if should && !must && !h.app.mayRenew(latest) { //nolint:contextcheck // the link has a deadline of its own
		should = false // another gateway does
	}
	if should {
		next, err := v.shared.renewer.Renew(ctx, v.ex.Customer(), latest, now, func(ctx context.Context) (*session.Session, error) {
			return v.renew(ctx, latest)
		})
		var refused *session.Refused
		switch {
		case err == nil:
			latest = next
		case errors.As(err, &refused):
			return nil, &gate.Denial{Reason: gate.IdentitySessionEnded, Err: err}
		case must: // fail closed: whether they may still be here is not known
			return l, &gate.Denial{Reason: gate.IdentityUnavailable, Err: err, Header: http.Header{"Retry-After": {"5"}}}
		}
	}
	if latest == l.session {
		return l, nil
	}
	next, err := v.open(latest)
	if err != nil {
		return nil, &gate.Denial{Reason: gate.IdentityBadSession, Err: err}
	}
	if v.vault.ended.Has(next.session.Began, next.names) { // the issuer may call it by another sid since
		return nil, ended()
	}
	return next, nil
}

func ended() *gate.Denial {
	return &gate.Denial{Reason: gate.IdentitySessionEnded, Err: errors.New("somebody has logged out, here or at the issuer")}
}

func when(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }

// whyOther says what a browser has told of the page that asks.
func (v *visit) whyOther(r *http.Request) error {
	return fmt.Errorf("Sec-Fetch-Site is %.32q and Origin %.128q; the site is %q, and csrf %s",
		strings.Join(r.Header["Sec-Fetch-Site"], ", "), strings.Join(r.Header["Origin"], ", "), v.origin, v.CSRF)
}

// turn lets one of several gateways renew a session: what they hold is the same
// refresh token, which many issuers take once.
var turn = cluster.NewScript(`return {redis.call('SET', KEYS[1], 1, 'NX', 'PX', ARGV[1]) and 1 or 0}`)

// mayRenew asks the cluster, if there is one, whether nobody else does. While it
// cannot be asked, everybody may.
func (a *App) mayRenew(s *session.Session) bool {
	if a.link == nil {
		return true
	}
	n := session.NameOfID("", "", s.ID)
	answer, err := a.link.Run(turn, "session:"+hex.EncodeToString(n[:]), "10000")
	return err != nil || len(answer) != 1 || answer[0] == 1
}

// renew asks the issuer for new tokens.
func (s *Session) renew(ctx context.Context, old *session.Session) (*session.Session, error) {
	now := gate.Now()
	e, err := s.shared.provider.Endpoints(ctx, now)
	if err != nil {
		refreshes("away")
		return nil, err
	}
	t, err := s.shared.provider.Renew(ctx, e, old.Refresh)
	if err == nil {
		next := *old
		next.Gen++
		if err = s.take(ctx, &next, t, true, now); err == nil {
			refreshes("ok")
			return &next, nil
		}
	}
	if _, no := errors.AsType[*session.Refused](err); no {
		refreshes("refused")
	} else {
		refreshes("away")
	}
	return nil, err
}

// take puts tokens into a session after it has verified them. Tokens that are
// not good are refused: they are no reason to ask again.
func (s *Session) take(ctx context.Context, sess *session.Session, t *session.Tokens, later bool, now time.Time) error {
	client := s.shared.provider.ID
	if t.ID != "" || !later {
		token, err := s.issuer.signed(ctx, t.ID, idTokens(client, s.issuer), now)
		if err != nil {
			return refusedOr(err)
		}
		if err := session.CheckID(token.Claims, token.Alg, client, sess.Nonce, t.Access, later); err != nil {
			return &session.Refused{Err: err}
		}
		sub, _ := token.Claims["sub"].(string)
		if later && sub != sess.Subject {
			return &session.Refused{Err: errors.New("the ID token is somebody else's")}
		}
		sess.Subject, sess.IDToken = sub, t.ID
		if sid, ok := token.Claims["sid"].(string); ok {
			sess.SID = sid
		}
	}
	if s.issuer.Login.Principal == fromAccess {
		token, err := s.issuer.signed(ctx, t.Access, &s.issuer.expect, now)
		if err != nil {
			return refusedOr(err)
		}
		if token.Claims["sub"] != sess.Subject {
			return &session.Refused{Err: errors.New("the access token is somebody else's")}
		}
		sess.Access = t.Access
	}
	if t.Refresh != "" {
		sess.Refresh = t.Refresh
	}
	if t.Scope != "" {
		sess.Scope = t.Scope
	}
	sess.Lasts(t.Expires, now)
	return nil
}

// changes reports whether a request may change something, and so must not be
// another site's idea. An upgrade to a WebSocket is a GET that does.
func changes(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return r.Header["Upgrade"] != nil || r.Method == http.MethodConnect
	}
	return true
}

// ownPage reports whether the browser says that a page of this origin, or site,
// asks. One that says nothing is not believed.
func (v *visit) ownPage(r *http.Request) bool {
	site, origin := r.Header["Sec-Fetch-Site"], r.Header["Origin"]
	if len(site) > 1 || len(origin) > 1 {
		return false
	}
	if len(site) == 1 {
		return site[0] == "same-origin" || site[0] == "same-site" && v.CSRF == sameSite
	}
	return len(origin) == 1 && strings.EqualFold(origin[0], v.origin)
}

// navigation reports whether a person looks at the answer, who can log in; a
// program cannot.
func navigation(r *http.Request) bool {
	if r.Method != http.MethodGet && r.Method != http.MethodHead || r.Header["Upgrade"] != nil {
		return false
	}
	if mode := r.Header["Sec-Fetch-Mode"]; mode != nil {
		return len(mode) == 1 && mode[0] == "navigate"
	}
	return strings.Contains(strings.Join(r.Header["Accept"], ","), "text/html")
}

// subresource reports whether the answer is a part of a page that caches share:
// no cookie is set with it.
func subresource(r *http.Request) bool {
	switch r.Header.Get("Sec-Fetch-Dest") {
	case "image", "script", "style", "font", "audio", "video", "track", "manifest", "worker", "serviceworker":
		return true
	}
	return false
}

// noSession reports whether a refusal leaves the caller nothing but nobody: a
// browser cannot help sending the cookie of a session that is over, and has
// nothing to gain by it that it would not have without.
func noSession(r gate.Reason) bool {
	return r == gate.IdentityMissing || r == gate.IdentityBadSession || r == gate.IdentitySessionExpired || r == gate.IdentitySessionEnded
}

// invite sends a person to log in, and tells a program where that is.
func (v *visit) invite(r *http.Request, d *gate.Denial) *gate.Denial {
	if d == nil || !noSession(d.Reason) {
		return d
	}
	to := v.Path + "/login"
	if !navigation(r) {
		d.Detail = "Log in with a browser at " + to + "."
		return d
	}
	if place := session.Place(asked(r).RequestURI(), v.Path); place != "/" {
		to += "?return=" + url.QueryEscape(place)
	}
	header := http.Header{"Location": {to}}
	return &gate.Denial{Reason: gate.IdentityLogin, Err: d, Header: header}
}

func originAsAsked(r *http.Request) string {
	whole := asAsked(r)
	scheme, rest, _ := strings.Cut(whole, "://")
	host, _, _ := strings.Cut(rest, "/")
	return strings.ToLower(scheme) + "://" + strings.ToLower(host)
}

// asked is the URL that the browser has asked for, whatever was rewritten since.
func asked(r *http.Request) *url.URL {
	if o, ok := r.Context().Value(caddyhttp.OriginalRequestCtxKey).(http.Request); ok && o.URL != nil {
		return o.URL
	}
	return r.URL
}
