package identity

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/gate/fetch"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/ask"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/jwt"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/keyset"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/memory"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/session"
)

// Login says who the gateway is to an issuer at which people log in (OpenID
// Connect Core 1.0, authorization code flow with PKCE).
type Login struct {
	// The name of the gateway at the issuer, and how it proves it. Without auth,
	// a secret travels as the issuer takes it; without a secret, the gateway is a
	// public client, which PKCE alone vouches for.
	ClientAuth

	// What is asked for; `openid` is always among it. With `offline_access`,
	// many issuers give a refresh token, by which sessions are renewed.
	// Default: openid, profile, email.
	Scopes []string `json:"scopes,omitempty"`

	// Which token says who somebody is: `id_token`, or `access_token`, which
	// must then be signed and meant for the issuer's audience.
	// Default: `id_token`.
	Principal string `json:"principal,omitempty"`
}

func (l *Login) validate(i *Issuer) error {
	if l.ClientID == "" {
		return errors.New("login needs client_id")
	}
	if l.Auth == "" {
		if err := parse.Placeholder("client_secret", l.ClientSecret); err != nil {
			return err
		}
	}
	if l.Auth != "" || l.PrivateKeyJWT != nil || l.MTLS != nil {
		if err := l.ClientAuth.validate("login"); err != nil {
			return err
		}
	}
	switch {
	case i.Dev:
		return errors.New("nobody can log in at an issuer for development")
	case l.Principal != "" && l.Principal != fromID && l.Principal != fromAccess:
		return errors.New(parse.Misspelt("principal", l.Principal, fromID, fromAccess))
	case l.Principal == fromAccess && len(i.Audience) == 0:
		return errors.New("principal access_token needs an audience: without it, nobody knows whom the token is meant for")
	}
	if err := fetch.CheckURL(i.URL); err != nil {
		return fmt.Errorf("url %w", err)
	}
	return nil
}

const (
	fromID     = "id_token"
	fromAccess = "access_token"
)

// Session lets people in who have logged in at an issuer with a browser.
type Session struct {
	// The name of the issuer at which they log in; it must have a login.
	Issuer string `json:"issuer,omitempty"`

	// Where the gateway's own pages are: login, callback, logout, logged-out and
	// backchannel-logout below it. Default: `/.gatehouse`.
	Path string `json:"path,omitempty"`

	// The site as browsers see it, such as https://portal.example.com. Default:
	// by the request, which is right unless a proxy that is not trusted stands
	// in front.
	Origin string `json:"origin,omitempty"`

	// How long a session lasts that is not used. Default: 1h.
	Idle caddy.Duration `json:"idle,omitempty"`

	// How long a session lasts at most, up to 30 days. Default: 12h.
	Lifetime caddy.Duration `json:"lifetime,omitempty"`

	// What the cookie is called after `gatehouse_session_`; over TLS `__Host-` stands
	// before that, or `__Secure-` with a domain. APIs of one site that name the
	// same cookie and issuer share sessions. Default: the name of the API.
	CookieName string `json:"cookie_name,omitempty"`

	// The domain whose hosts all get the cookie. Default: this host alone.
	CookieDomain string `json:"cookie_domain,omitempty"`

	// `lax`, or `strict`: links from elsewhere then arrive without a session,
	// and log in anew. Default: `lax`.
	SameSite string `json:"same_site,omitempty"`

	// Whose pages may change something with a session: `same_origin`, or
	// `same_site`, which trusts every host of the domain. Default: `same_origin`.
	CSRF string `json:"csrf,omitempty"`

	// The path that a browser is sent to when its session has ended. Default:
	// a page of the gateway's own.
	LoggedOut string `json:"logged_out,omitempty"`

	issuer *Issuer
	shared *sharedSessions
	key    sharedKey
	scopes []string
	vault  *vault
	names  atomic.Pointer[names]
}

// Names of choices.
const (
	lax        = "lax"
	strict     = "strict"
	sameOrigin = "same_origin"
	sameSite   = "same_site"
)

// sharedSessions is what outlives a reload of one issuer's sessions.
type sharedSessions struct {
	provider *session.Provider
	codes    *ask.Places // of callbacks at the token endpoint
	renewer  *session.Renewer
}

// Destruct closes what is kept open; questions end by their deadline.
func (s *sharedSessions) Destruct() error {
	if s.provider.Client != nil {
		s.provider.Client.Close()
	}
	return nil
}

type sharedKey struct {
	storage, issuer string
	client          clientKey
}

var sharedPool = caddy.NewUsagePool()

const (
	// latestKept is how many sessions are remembered that were renewed.
	latestKept = 1 << 12

	// opened is how many cookies need not be opened again.
	opened = 1 << 12
)

// live is a session that was opened, with what follows from it.
type live struct {
	session *session.Session
	who     *proven
	names   []session.Name
}

// provision finds the issuer. Nothing is asked, and no key made.
func (s *Session) provision(ctx caddy.Context, a *App) error {
	s.fill()
	s.issuer = a.byName[s.Issuer]
	switch {
	case s.issuer == nil:
		return fmt.Errorf("session: issuer %q is not defined", s.Issuer)
	case s.issuer.Login == nil:
		return fmt.Errorf("session: issuer %q has no login", s.Issuer)
	}
	if err := s.validate(); err != nil {
		return fmt.Errorf("session: %w", err)
	}
	l := s.issuer.Login
	client, who, err := l.at(s.issuer.URL)
	if err != nil {
		return fmt.Errorf("login %w", err)
	}
	s.scopes = l.Scopes
	if s.scopes == nil {
		s.scopes = []string{"openid", "profile", "email"}
	}
	if !slices.Contains(s.scopes, "openid") {
		s.scopes = append([]string{"openid"}, s.scopes...)
	}
	if s.vault == nil {
		if s.vault, err = a.openVault(ctx); err != nil {
			return err
		}
	}
	s.key = sharedKey{a.vaultKey, s.issuer.URL, who}
	v, _, err := sharedPool.LoadOrNew(s.key, func() (caddy.Destructor, error) {
		return &sharedSessions{
			provider: &session.Provider{ID: who.id, Secret: who.secret, Client: client, Discover: endpoints(s.issuer.URL, who)},
			codes:    ask.NewPlaces(),
			renewer:  session.NewRenewer(latestKept),
		}, nil
	})
	if err != nil {
		return err
	}
	s.shared = v.(*sharedSessions)
	s.issuer.longest = max(s.issuer.longest, time.Duration(s.Lifetime))
	return nil
}

// cleanup gives back what is shared. It stays where it is, for requests that
// outlive their configuration.
func (s *Session) cleanup() {
	if s != nil && s.key != (sharedKey{}) {
		_, _ = sharedPool.Delete(s.key) // Destruct cannot fail
		s.key = sharedKey{}
	}
}

func (s *Session) fill() {
	for to, def := range map[*string]string{&s.Path: "/.gatehouse", &s.SameSite: lax, &s.CSRF: sameOrigin} {
		if *to == "" {
			*to = def
		}
	}
	if s.Idle == 0 {
		s.Idle = caddy.Duration(min(time.Hour, max(time.Duration(s.Lifetime), time.Second)))
		if s.Lifetime == 0 {
			s.Idle = caddy.Duration(time.Hour)
		}
	}
	if s.Lifetime == 0 {
		s.Lifetime = max(caddy.Duration(12*time.Hour), s.Idle)
	}
}

// validate looks at settings, of which some may not be filled in yet.
func (s *Session) validate() error {
	switch {
	case s.Issuer == "":
		return errors.New("name the issuer at which people log in")
	case s.Path != "" && session.Place(s.Path, "") != s.Path, s.Path == "/", strings.HasSuffix(s.Path, "/"), strings.Contains(s.Path, "?"):
		return fmt.Errorf("path %q is no path such as /.gatehouse", s.Path)
	case s.LoggedOut != "" && session.Place(s.LoggedOut, "") != s.LoggedOut, s.LoggedOut == "/" && s.Path == "/":
		return fmt.Errorf("logged_out %q is no path of this site", s.LoggedOut)
	case s.SameSite == "none":
		return errors.New("same_site none would let every site's pages use a session; expected lax or strict")
	case s.SameSite != "" && s.SameSite != lax && s.SameSite != strict:
		return errors.New(parse.Misspelt("same_site", s.SameSite, lax, strict))
	case s.CSRF != "" && s.CSRF != sameOrigin && s.CSRF != sameSite:
		return errors.New(parse.Misspelt("csrf", s.CSRF, sameOrigin, sameSite))
	case s.Lifetime < 0 || s.Lifetime > caddy.Duration(session.MaxLifetime):
		return fmt.Errorf("lifetime must be at most %v", session.MaxLifetime)
	case s.Idle < 0 || s.Lifetime != 0 && s.Idle > s.Lifetime:
		return errors.New("idle is longer than lifetime, and would never come to an end")
	case !cookieName(s.CookieName):
		return fmt.Errorf("cookie_name %q is no name of letters, digits, _ and -", s.CookieName)
	case s.CookieDomain != "" && (strings.Trim(s.CookieDomain, ".") == "" || strings.ContainsAny(s.CookieDomain, " ;,\"\\/:=")):
		return fmt.Errorf("cookie_domain %q is no domain", s.CookieDomain)
	}
	if s.Origin != "" {
		u, err := url.Parse(s.Origin)
		if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || s.Origin != u.Scheme+"://"+u.Host {
			return fmt.Errorf("origin %q is none such as https://portal.example.com", s.Origin)
		}
	}
	return nil
}

func cookieName(name string) bool {
	return len(name) <= 64 && strings.IndexFunc(name, func(c rune) bool {
		return (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') && c != '_' && c != '-'
	}) < 0
}

// endpoints finds a provider by its metadata.
func endpoints(issuer string, who clientKey) func(context.Context) (*session.Endpoints, error) {
	return func(ctx context.Context) (*session.Endpoints, error) {
		m, err := keyset.Discover(ctx, issuer)
		if err != nil {
			return nil, err
		}
		return &session.Endpoints{Issuer: issuer, Authorize: m.Authorization, Token: who.token(&m), EndSession: m.EndSession, ISS: m.ISS, Methods: m.AuthMethods}, nil
	}
}

// names are how a session's cookies are called at one API.
type names struct {
	api    string
	secure bool
	cookie string
	bound  string // what a cookie is sealed for: another name, issuer or client cannot open it
	opened *memory.Memory[*live]
}

func (s *Session) namesFor(api string, secure bool) *names {
	if n := s.names.Load(); n != nil && n.api == api && n.secure == secure {
		return n
	}
	name := s.CookieName
	if name == "" {
		name = nameOf(api)
	}
	if name = gate.SessionCookie + "_" + name; name == gate.SessionCookie+"_" {
		name = gate.SessionCookie
	}
	if secure {
		prefix := "__Host-"
		if s.CookieDomain != "" {
			prefix = "__Secure-"
		}
		name = prefix + name
	}
	n := &names{api, secure, name, name + "\x00" + s.issuer.URL + "\x00" + s.shared.provider.ID, memory.New[*live](opened)}
	s.names.Store(n)
	return n
}

// nameOf is an API's name in that of a cookie. Two APIs do not have one.
func nameOf(api string) string {
	name := strings.Map(func(c rune) rune {
		if cookieName(string(c)) {
			return c
		}
		return '-'
	}, api)
	if name == api {
		return name
	}
	sum := sha256.Sum256([]byte(api))
	return fmt.Sprintf("%.56s-%x", name, sum[:4])
}

// set adds a cookie to an answer. It is for this host alone, or the domain, and
// never for scripts.
func (v *visit) set(w http.ResponseWriter, c session.Cookie, keep time.Duration, site http.SameSite) {
	//nolint:gosec // Secure wherever the site has TLS, which a test on this machine has not
	cookie := http.Cookie{Name: c.Name, Value: c.Value, Path: "/", Domain: v.CookieDomain, Secure: v.names.secure, HttpOnly: true, SameSite: site, MaxAge: int(keep / time.Second)}
	if keep <= 0 {
		cookie.MaxAge = -1
	}
	line := cookie.String()
	v.ex.Given = append(v.ex.Given, line) // an upstream that sets one of this name is another matter
	w.Header().Add("Set-Cookie", line)
}

func (s *Session) sameSite() http.SameSite {
	if s.SameSite == strict {
		return http.SameSiteStrictMode
	}
	return http.SameSiteLaxMode
}

// forget takes a session's cookies out of the browser.
func (v *visit) forget(w http.ResponseWriter) {
	for _, name := range session.Leftover(v.names.cookie, max(v.cookies.Chunks, 1), 0) {
		v.set(w, session.Cookie{Name: name}, 0, v.sameSite())
	}
}

// write puts a session into the browser.
func (v *visit) write(w http.ResponseWriter, ring *session.Ring, sess *session.Session, now time.Time) error {
	pieces, err := sess.Seal(ring, v.names.bound, v.names.cookie, now)
	if err != nil {
		return err
	}
	for _, c := range pieces {
		v.set(w, c, sess.Left(time.Duration(v.Idle), time.Duration(v.Lifetime)), v.sameSite())
	}
	for _, name := range session.Leftover(v.names.cookie, v.cookies.Chunks, len(pieces)) {
		v.set(w, session.Cookie{Name: name}, 0, v.sameSite())
	}
	return nil
}

// open makes a principal of a session.
func (s *Session) open(sess *session.Session) (*live, error) {
	raw := sess.IDToken
	if s.issuer.Login.Principal == fromAccess {
		raw = sess.Access
	}
	t, err := jwt.Parse(raw) // what is sealed by us was verified when it came
	if err != nil {
		return nil, err
	}
	if _, there := t.Claims["scope"]; !there && sess.Scope != "" {
		t.Claims["scope"] = sess.Scope
	}
	p := s.issuer.principal(t.Claims)
	p.Method = gate.Session
	who := prove(p)
	who.issuer, who.began, who.ends = s.issuer, sess.Began/1000, time.UnixMilli(sess.Ends)
	return &live{sess, who, sess.Names(s.issuer.URL, s.shared.provider.ID)}, nil
}
