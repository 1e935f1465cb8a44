package integration

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// loggingOut is a client that may be sent back to after a logout, which the
// provider's own example cannot be.
type loggingOut struct {
	op.Client

	back []string
}

func (c loggingOut) PostLogoutRedirectURIs() []string { return c.back }

// given is a client whose access tokens are signed.
type given struct{ op.Client }

func (given) AccessTokenType() op.AccessTokenType { return op.AccessTokenTypeJWT }

// GetPrivateClaimsFromScopes puts into signed access tokens as many groups as some
// companies have.
func (p *provider) GetPrivateClaimsFromScopes(context.Context, string, string, []string) (map[string]any, error) {
	groups := make([]string, 180)
	for i := range groups {
		groups[i] = fmt.Sprintf("cn=group-%03d,ou=groups", i)
	}
	return map[string]any{"groups": groups, "tenant": "acme"}, nil
}

// GetClientByClientID lets the portal log out, and knows the gateway as one that
// may exchange tokens.
func (p *provider) GetClientByClientID(ctx context.Context, id string) (op.Client, error) {
	if id == "gateway" {
		return storage.WebClient(id, ""), nil
	}
	c, err := p.Storage.GetClientByClientID(ctx, id)
	if err != nil || id != "portal" && id != "public" {
		return c, err
	}
	var back []string
	for _, uri := range c.RedirectURIs() {
		back = append(back, strings.Replace(uri, "/callback", "/logged-out", 1))
	}
	if p.signs.Load() {
		c = given{c}
	}
	return p.authenticated(loggingOut{c, back}), nil
}

// CreateAccessAndRefreshTokens makes tokens that end soon, if asked to.
func (p *provider) CreateAccessAndRefreshTokens(ctx context.Context, r op.TokenRequest, current string) (id, refresh string, expires time.Time, err error) {
	if current != "" {
		p.renewed.Add(1)
	}
	id, refresh, expires, err = p.Storage.CreateAccessAndRefreshTokens(ctx, r, current)
	if short := p.short.Load(); short > 0 {
		expires = time.Now().Add(time.Duration(short))
	}
	return id, refresh, expires, err
}

// logoutToken is what the provider says when a session ends, with some claims
// changed.
func (p *provider) logoutToken(t *testing.T, change map[string]any) string {
	t.Helper()
	key, err := p.SigningKey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	proofID++
	claims := map[string]any{
		"iss": p.URL, "aud": "portal", "sub": "id1", "jti": fmt.Sprint("logout-", proofID), "iat": time.Now().Unix(), "exp": time.Now().Add(time.Minute).Unix(),
		"events": map[string]any{"http://schemas.openid.net/event/backchannel-logout": map[string]any{}},
	}
	maps.Copy(claims, change)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	header, _ := json.Marshal(map[string]any{"alg": "RS256", "kid": key.ID(), "typ": "logout+jwt"})
	body, _ := json.Marshal(claims)
	signed := b64(header) + "." + b64(body)
	sum := sha256.Sum256([]byte(signed))
	sig, err := rsa.SignPKCS1v15(rand.Reader, key.Key().(*rsa.PrivateKey), crypto.SHA256, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	return signed + "." + b64(sig)
}

// newLoginProvider is a provider at which people log in to some origins.
func newLoginProvider(t testing.TB, origins ...string) *provider {
	t.Helper()
	var uris []string
	for _, o := range origins {
		uris = append(uris, o+"/.gatehouse/callback")
	}
	storage.RegisterClients(storage.WebClient("portal", "p0rt%l: +", uris...), storage.NativeClient("public", uris...))
	t.Setenv("PORTAL_SECRET", "p0rt%l: +")
	return newProvider(t)
}

func loginGlobals(p *provider, options string) string {
	return "identity {\nissuer main " + p.URL + " {\nlogin {\nclient_id portal\nclient_secret {env.PORTAL_SECRET}\nscopes openid offline_access\n" + options + "\n}\n}\n}"
}

// surfer is a browser without a screen: it keeps cookies and follows redirects.
type surfer struct {
	*http.Client

	gw     *gateway
	header http.Header
	path   []string // where redirects led
}

func (g *gateway) surfer(t testing.TB) *surfer {
	t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := &http.Transport{DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
		if addr == "localhost:80" {
			network, addr = "unix", g.sock
		}
		return new(net.Dialer).DialContext(ctx, network, addr)
	}}
	t.Cleanup(tr.CloseIdleConnections)
	s := &surfer{gw: g, header: http.Header{"Accept": {"text/html,*/*"}}}
	s.Client = &http.Client{Transport: tr, Jar: jar, Timeout: 30 * time.Second, CheckRedirect: func(r *http.Request, via []*http.Request) error {
		s.path = append(s.path, r.URL.String())
		if len(via) > 12 {
			return fmt.Errorf("in circles: %v", s.path)
		}
		return nil
	}}
	return s
}

func (s *surfer) do(t testing.TB, method, address string, header http.Header, form url.Values) answer {
	t.Helper()
	if strings.HasPrefix(address, "/") {
		address = "http://localhost" + address
	}
	req, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(form.Encode()))
	if err != nil {
		t.Fatal(err)
	}
	maps.Copy(req.Header, s.header)
	maps.Copy(req.Header, header)
	if form != nil {
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	s.path = nil
	resp, err := s.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, resp.Trailer, string(body)}
}

func (s *surfer) get(t testing.TB, address string, header http.Header) answer {
	t.Helper()
	return s.do(t, http.MethodGet, address, header, nil)
}

var loginForm = regexp.MustCompile(`name="id" value="([^"]+)"`)

// login asks for a page, logs in at the provider, and returns what comes then.
func (s *surfer) login(t testing.TB, p *provider, page, user string) answer {
	t.Helper()
	a := s.get(t, page, nil)
	id := loginForm.FindStringSubmatch(a.body)
	if id == nil {
		t.Fatalf("no form to log in: %d %s, by %v", a.status, a.body, s.path)
	}
	return s.do(t, http.MethodPost, p.URL+"/login/username", nil, url.Values{"id": {id[1]}, "username": {user}, "password": {"verysecure"}})
}

const (
	ann = "test-user@127.0.0.1" // id1
	bob = "test-user2"          // id2
)

// jarred are the cookies of the gateway, as a request's header has them.
func (s *surfer) jarred() http.Header {
	u, _ := url.Parse("http://localhost/")
	var all []string
	for _, c := range s.Jar.Cookies(u) {
		all = append(all, c.String())
	}
	return http.Header{"Cookie": {strings.Join(all, "; ")}}
}
