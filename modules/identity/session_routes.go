package identity

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"html"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/ask"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/dpop"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/jwt"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/session"
)

// page is one of the gateway's own. It writes its answer, or returns why not.
type page func(h *Handler, w http.ResponseWriter, r *http.Request, v *visit, now time.Time) *gate.Denial

// pages are where people log in and out, below the session's path.
var pages = map[string]struct {
	methods string
	serve   page
}{
	"/login":              {"GET", (*Handler).login},
	"/callback":           {"GET", (*Handler).callback},
	"/logout":             {"GET POST", (*Handler).logout},
	"/logged-out":         {"GET", (*Handler).loggedOut},
	"/backchannel-logout": {"POST", (*Handler).backchannel},
}

// Own reports whether a request is for one of the gateway's own pages, which no
// contract has to know. Nothing else is: a contract would not be asked about
// what no page answers.
func (h *Handler) Own(r *http.Request) bool {
	if h.Session == nil {
		return false
	}
	path := asked(r).Path
	_, known := pages[strings.TrimPrefix(path, h.Session.Path)]
	return known && h.Session.owns(path) && gate.Of(r).Mode(gate.Identity, h.Mode) != gate.Off
}

func (s *Session) owns(path string) bool {
	rest, below := strings.CutPrefix(path, s.Path)
	return below && strings.HasPrefix(rest, "/")
}

// servePage answers for the gateway's own pages. It reports false for all
// others.
func (h *Handler) servePage(w http.ResponseWriter, r *http.Request, ex *gate.Exchange, v *visit, began time.Time) (done bool, err error) {
	path := asked(r).Path
	if !v.owns(path) {
		return false, nil
	}
	header := w.Header()
	header["Cache-Control"] = []string{"no-store"}
	header["Referrer-Policy"] = []string{"no-referrer"} // the callback's URL holds a code
	p, known := pages[strings.TrimPrefix(path, v.Path)]
	if !known || !strings.Contains(" "+p.methods+" ", " "+r.Method+" ") {
		return true, ex.Conclude(w, r, gate.Identity, gate.Enforce, v.Issuer, &gate.Denial{Reason: gate.IdentityUnknownPage}, began)
	}
	// What a page does is done, or not: there is nothing to let pass.
	rec := &held{ResponseWriter: w}
	var denial *gate.Denial
	if h.app.rehearsed {
		denial = away(errors.New("a policy test asks no issuer"))
	} else {
		denial = p.serve(h, rec, r, v, began)
	}
	if denial != nil && denial.Err != nil {
		h.app.logger.Info("a page of sessions refuses", zap.String("page", path), zap.String("issuer", v.Issuer), zap.Error(denial))
	}
	keepCookies(w, denial)
	if err := ex.Conclude(w, r, gate.Identity, gate.Enforce, v.Issuer, denial, began); err != nil {
		return true, err
	}
	rec.flush()
	return true, nil
}

// keepCookies gives a denial the cookies that an answer was to have: they say
// that something is over, and are needed all the more.
func keepCookies(w http.ResponseWriter, d *gate.Denial) {
	cookies := w.Header()["Set-Cookie"]
	if d == nil || cookies == nil {
		return
	}
	if d.Header == nil {
		d.Header = http.Header{}
	}
	d.Header["Set-Cookie"] = cookies
}

// held keeps an answer back until its decision is recorded.
type held struct {
	http.ResponseWriter

	status int
	body   string
}

func (h *held) redirect(to string) {
	h.Header()["Location"] = []string{to}
	h.status = http.StatusSeeOther // a POST, too, goes on as a GET
}

func (h *held) html(body string) {
	header := h.Header()
	header["Content-Type"] = []string{"text/html; charset=utf-8"}
	header["Content-Security-Policy"] = []string{"default-src 'none'; frame-ancestors 'none'"}
	header["X-Content-Type-Options"] = []string{"nosniff"}
	h.status, h.body = http.StatusOK, "<!doctype html><html lang=en><meta charset=utf-8>"+body+"\n"
}

func (h *held) flush() {
	h.WriteHeader(h.status)
	_, _ = h.Write([]byte(h.body)) // a browser that went away is no error of ours
}

// login sends the browser to the issuer.
func (h *Handler) login(w http.ResponseWriter, r *http.Request, v *visit, now time.Time) *gate.Denial {
	ring, err := v.vault.ready(r.Context(), now)
	if err != nil {
		return away(err)
	}
	e, err := v.shared.provider.Endpoints(r.Context(), now)
	if err != nil {
		logins("away")
		return away(err)
	}
	l := session.NewLogin(session.Place(asked(r).Query().Get("return"), v.Path), v.origin+v.Path+"/callback", now)
	to, err := l.URL(e.Authorize, v.shared.provider.ID, v.scopes)
	if err != nil {
		return away(err)
	}
	for _, name := range session.TooMany(v.cookies.Logins) {
		v.set(w, session.Cookie{Name: name}, 0, http.SameSiteLaxMode)
	}
	// Lax, since it has to come back with the issuer's redirect.
	c := session.Cookie{Name: session.LoginName(v.names.cookie, l.State), Value: l.Seal(ring, v.names.bound, now)}
	v.set(w, c, session.LoginTime, http.SameSiteLaxMode)
	logins("begun")
	w.(*held).redirect(to)
	return nil
}

// callback takes the code that the browser brings from the issuer, if this
// browser has been sent there, and makes a session of it.
func (h *Handler) callback(w http.ResponseWriter, r *http.Request, v *visit, now time.Time) *gate.Denial {
	ring, err := v.vault.ready(r.Context(), now)
	if err != nil {
		return away(err)
	}
	q, err := url.ParseQuery(asked(r).RawQuery)
	if err != nil {
		return &gate.Denial{Reason: gate.IdentityUnknownLogin, Err: errors.New("the query cannot be read")}
	}
	for name, values := range q {
		if len(values) > 1 { // RFC 6749, section 3.1
			return &gate.Denial{Reason: gate.IdentityUnknownLogin, Err: fmt.Errorf("%.32q stands twice", name)}
		}
	}
	l := session.FindLogin(ring, v.names.bound, v.names.cookie, q.Get("state"), v.cookies.Logins, now)
	if l == nil {
		logins("unknown")
		return &gate.Denial{Reason: gate.IdentityUnknownLogin, Detail: "Begin again at the page that you wanted to see.", Err: fmt.Errorf("this browser has no cookie of a login with that state that was begun less than %v ago", session.LoginTime)}
	}
	v.set(w, session.Cookie{Name: session.LoginName(v.names.cookie, l.State)}, 0, http.SameSiteLaxMode) // it is good once
	if h.cameBack(v, l, now) {                                                                          //nolint:contextcheck // the link has a deadline of its own
		logins("unknown")
		return &gate.Denial{Reason: gate.IdentityUnknownLogin, Detail: "Begin again at the page that you wanted to see.", Err: errors.New("a login with that state has come back before; each is good once")}
	}
	e, err := v.shared.provider.Endpoints(r.Context(), now)
	if err != nil {
		logins("away")
		return away(err)
	}
	var sess *session.Session
	err = v.shared.codes.Do(v.ex.Customer(), func() (err error) { //nolint:contextcheck // it is the request that waits
		sess, err = v.exchange(r.Context(), e, q, l, now)
		return err
	})
	if err == nil {
		err = v.write(w, ring, sess, now)
	}
	if err != nil {
		if errors.Is(err, ask.ErrAway) || errors.Is(err, ask.ErrBusy) {
			logins("away")
			return away(err)
		}
		logins("refused")
		return &gate.Denial{Reason: gate.IdentityLoginFailed, Err: err}
	}
	logins("ok")
	if v.SameSite == strict {
		// A browser that comes from the issuer does not send a strict cookie until
		// a page of this site sends it on.
		w.(*held).html(`<meta http-equiv=refresh content="0;url=` + html.EscapeString(l.Place) + `"><title>Logged in</title><p>You are logged in.`)
		return nil
	}
	w.(*held).redirect(l.Place)
	return nil
}

// loginKept is for how many milliseconds other gateways know a state.
var loginKept = strconv.FormatInt((session.LoginTime + time.Minute).Milliseconds(), 10)

// cameBack reports whether a login has come back before: a cookie may be sent on
// and on, and each time the issuer would be asked. The issuer takes a code once
// itself, so that one is let in while too many are remembered to tell.
func (h *Handler) cameBack(v *visit, l *session.Login, now time.Time) bool {
	first, full := v.vault.logins.First(dpop.Proof{Key: v.names.bound, ID: l.State}, now)
	if first && h.app.link != nil {
		name := session.NameOfID(v.issuer.URL, v.shared.provider.ID, l.State)
		answer, err := h.app.link.Run(turn, "login:"+hex.EncodeToString(name[:]), loginKept)
		first = err != nil || len(answer) != 1 || answer[0] == 1
	}
	return !first && !full
}

// exchange makes a session of what the issuer answered.
func (s *Session) exchange(ctx context.Context, e *session.Endpoints, q url.Values, l *session.Login, now time.Time) (*session.Session, error) {
	iss, said := q["iss"]
	switch { // an answer of another issuer must not be taken to this one (RFC 9207)
	case said && iss[0] != s.issuer.URL:
		return nil, errors.New("the answer is another issuer's")
	case !said && e.ISS:
		return nil, errors.New("the answer does not say whose it is")
	case q.Get("error") != "":
		return nil, &session.Refused{Code: q.Get("error")}
	case q.Get("code") == "":
		return nil, errors.New("the answer has no code")
	}
	t, err := s.shared.provider.Exchange(ctx, e, q.Get("code"), l)
	if err != nil {
		return nil, err
	}
	sess := &session.Session{ID: session.NewID(), Nonce: l.Nonce, Scope: strings.Join(s.scopes, " ")}
	sess.Began, sess.Seen = now.UnixMilli(), now.UnixMilli()
	sess.Ends = now.Add(time.Duration(s.Lifetime)).UnixMilli()
	if err := s.take(ctx, sess, t, false, now); err != nil {
		return nil, err
	}
	return sess, nil
}

// logout ends the session here, and sends the browser to end it at the issuer.
func (h *Handler) logout(w http.ResponseWriter, r *http.Request, v *visit, now time.Time) *gate.Denial {
	// Another site must not log people out: neither by a form nor by a picture.
	site := r.Header["Sec-Fetch-Site"]
	typed := r.Method == http.MethodGet && len(site) == 1 && site[0] == "none" // into the address bar
	if !v.ownPage(r) && !typed {
		sessionEvents.WithLabelValues("cross_origin").Inc()
		return &gate.Denial{Reason: gate.IdentityCrossOrigin, Detail: "Log out with a button or a link of this site.", Err: v.whyOther(r)}
	}
	to := v.LoggedOut
	if to == "" {
		to = v.Path + "/logged-out"
	}
	v.forget(w)
	if v.cookies.Value != "" {
		l, _, denial := v.read(r.Context(), now)
		if denial != nil && denial.Reason == gate.IdentityUnavailable {
			return denial // fail closed: who sees a logout believes it
		}
		if denial == nil {
			latest := v.shared.renewer.Latest(l.session)
			v.vault.end(r.Context(), h.app.link, session.End{Name: l.names[0], At: now.UnixMilli(), Until: latest.Ends})
			sessionEvents.WithLabelValues("logout").Inc()
			if e, err := v.shared.provider.Endpoints(r.Context(), now); err == nil {
				if there := v.shared.provider.EndSessionURL(e, latest.IDToken, v.origin+to); there != "" {
					to = there
				}
			}
		}
	}
	w.(*held).redirect(to)
	return nil
}

func (*Handler) loggedOut(w http.ResponseWriter, _ *http.Request, _ *visit, _ time.Time) *gate.Denial {
	w.(*held).html("<title>Logged out</title><p>You are logged out.")
	return nil
}

// logoutKept is for how many milliseconds other gateways know a logout token.
var logoutKept = strconv.FormatInt((2 * session.LogoutAge).Milliseconds(), 10)

// maxLogoutBody bounds what an issuer sends to end sessions.
const maxLogoutBody = jwt.MaxLength + 1<<10

// backchannel ends sessions because the issuer says so (OpenID Connect
// Back-Channel Logout 1.0). What it says is signed; who brings it does not matter.
func (h *Handler) backchannel(w http.ResponseWriter, r *http.Request, v *visit, now time.Time) *gate.Denial {
	bad := func(err error) *gate.Denial {
		sessionEvents.WithLabelValues("backchannel_refused").Inc()
		return &gate.Denial{Reason: gate.IdentityBadLogout, Err: err}
	}
	if media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || media != "application/x-www-form-urlencoded" {
		return bad(errors.New("the body is no form"))
	}
	r.Body = http.MaxBytesReader(w, r.Body, maxLogoutBody)
	if err := r.ParseForm(); err != nil || len(r.PostForm["logout_token"]) != 1 {
		return bad(errors.New("the form has no logout token"))
	}
	if _, err := v.vault.ready(r.Context(), now); err != nil {
		return away(err)
	}
	client := v.shared.provider.ID
	x := idTokens(client, v.issuer)
	x.Types = []string{"", "jwt", "logout+jwt", "application/logout+jwt"}
	t, err := v.issuer.signed(r.Context(), r.PostForm["logout_token"][0], x, now)
	if err != nil {
		if errors.Is(err, ask.ErrAway) {
			return away(err)
		}
		return bad(err)
	}
	issued, there, ok := t.Date("iat")
	l, err := session.CheckLogout(t.Claims, issued, there && ok, now)
	if err != nil {
		return bad(err)
	}
	first, full := v.vault.tokens.First(dpop.Proof{Key: v.issuer.URL + "\x00" + client, ID: l.ID}, now)
	if full {
		return away(errors.New("too many logouts at a time"))
	}
	if first && h.app.link != nil {
		name := session.NameOfID(v.issuer.URL, client, l.ID)
		answer, err := h.app.link.Run(turn, "logout:"+hex.EncodeToString(name[:]), logoutKept) //nolint:contextcheck // the link has a deadline of its own
		first = err != nil || len(answer) != 1 || answer[0] == 1
	}
	if !first {
		return bad(errors.New("the logout token was used before"))
	}
	// Sessions at the issuer may serve several of ours.
	e := session.End{At: now.UnixMilli(), Until: now.Add(v.issuer.longest).UnixMilli()}
	if e.Name = session.NameOfSubject(v.issuer.URL, client, l.Subject); l.SID != "" {
		e.Name = session.NameOfSID(v.issuer.URL, client, l.SID)
	}
	v.vault.end(r.Context(), h.app.link, e)
	sessionEvents.WithLabelValues("backchannel").Inc()
	w.(*held).status = http.StatusOK
	return nil
}

func away(err error) *gate.Denial {
	return &gate.Denial{Reason: gate.IdentityUnavailable, Err: err, Header: http.Header{"Retry-After": {"5"}}}
}

// idTokens is what tokens for a client must say.
func idTokens(client string, i *Issuer) *jwt.Expect {
	return &jwt.Expect{Audience: []string{client}, Algorithms: i.Algorithms, Types: []string{"", "jwt"}, Leeway: i.expect.Leeway}
}

// signed verifies a token of the issuer. An error that is ask.ErrAway says
// nothing about the token.
func (i *Issuer) signed(ctx context.Context, raw string, x *jwt.Expect, now time.Time) (*jwt.Token, error) {
	t, err := jwt.Parse(raw)
	if err != nil {
		return nil, err
	}
	if t.Issuer != i.identifier {
		return nil, &jwt.Fault{Kind: jwt.WrongIssuer, Text: fmt.Sprintf("the token is another issuer's: iss is %.200q, and not %q", t.Issuer, i.identifier)}
	}
	keys, err := i.source.Keys(ctx)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ask.ErrAway, err)
	}
	_, err = t.Verify(keys, x, now)
	if isKind(err, jwt.UnknownKey) {
		if newer := i.source.Missing(ctx, keys); newer != keys {
			_, err = t.Verify(newer, x, now)
		}
	}
	if err != nil {
		return nil, err
	}
	return t, nil
}

// refusedOr makes a refusal of a token's fault.
func refusedOr(err error) error {
	if f, ok := errors.AsType[*jwt.Fault](err); ok {
		return &session.Refused{Err: f}
	}
	return err
}
