package integration

import (
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// provider is a real OpenID provider, of a library that is certified. Its
// tokens are opaque: only it can say what they mean.
type provider struct {
	*storage.Storage
	*httptest.Server
	mu       sync.Mutex
	issued   map[string]op.TokenRequest // by the token's id
	away     atomic.Bool
	asked    atomic.Int64 // questions about tokens
	audience []string
	short    atomic.Int64 // how long access tokens are good that come with a refresh token; 0: 5 minutes
	renewed  atomic.Int64 // refresh tokens that were used
	signs    atomic.Bool  // access tokens are signed, and long

	keys map[string]crypto.PublicKey // of clients that sign, by client and kid
}

func newProvider(t testing.TB) *provider {
	t.Helper()
	p := &provider{issued: map[string]op.TokenRequest{}, audience: []string{"orders-api"}}
	var handler http.Handler
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/introspect") {
			p.asked.Add(1)
		}
		if p.away.Load() {
			http.Error(w, "down", http.StatusBadGateway)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(p.Close)
	p.Storage = storage.NewStorage(storage.NewUserStore(p.URL))
	before := slog.Default()
	handler = exampleop.SetupServer(p.URL, p, slog.New(slog.DiscardHandler), false)
	slog.SetDefault(before)
	return p
}

// AuthorizeClientIDSecret knows who may ask about tokens.
func (p *provider) AuthorizeClientIDSecret(_ context.Context, id, secret string) error {
	if id == "gateway" && secret == "s3cr%t: +" || id == "portal" && secret == "p0rt%l: +" {
		return nil
	}
	return errors.New("nobody")
}

// CreateAccessToken notes what a token is for.
func (p *provider) CreateAccessToken(ctx context.Context, r op.TokenRequest) (string, time.Time, error) {
	id, expires, err := p.Storage.CreateAccessToken(ctx, r)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.issued[id] = r
	return id, expires, err
}

// SetIntrospectionFromToken answers what the gateway asks.
func (p *provider) SetIntrospectionFromToken(_ context.Context, answer *oidc.IntrospectionResponse, id, subject, _ string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.issued[id]
	if r == nil {
		return errors.New("revoked")
	}
	answer.Subject, answer.ClientID, answer.Scope, answer.Audience = subject, subject, r.GetScopes(), p.audience
	answer.Expiration = oidc.FromTime(time.Now().Add(5 * time.Minute))
	answer.Claims = map[string]any{"tenant": "acme"}
	return nil
}

func (p *provider) revokeAll() {
	p.mu.Lock()
	defer p.mu.Unlock()
	clear(p.issued)
}

// token asks the provider for one, as a client with a secret does.
func (p *provider) token(t *testing.T, scope string) string {
	t.Helper()
	form := url.Values{"grant_type": {"client_credentials"}, "scope": {scope}}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, p.URL+"/oauth/token", strings.NewReader(form.Encode()))
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	req.SetBasicAuth("sid1", "verysecret")
	resp, err := p.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	var answer struct {
		AccessToken string `json:"access_token"`
	}
	if err := json.Unmarshal(body, &answer); err != nil || answer.AccessToken == "" {
		t.Fatalf("%s: %s", resp.Status, body)
	}
	return answer.AccessToken
}

// TestIntrospection: a real provider is asked about its opaque tokens, once for
// each in a while, and its outage is no verdict on anybody.
func TestIntrospection(t *testing.T) {
	p := newProvider(t)
	b := newBackend(t, nil)
	t.Setenv("INTROSPECTION_SECRET", "s3cr%t: +")
	globals := func(more string) string {
		return fmt.Sprintf("identity {\nissuer main %s {\naudience orders-api\nintrospect {\nclient_id gateway\nclient_secret {env.INTROSPECTION_SECRET}\n%s\n}\n}\n}", p.URL, more)
	}
	site := "api demo {\nidentity main\nrequire scope orders:read\nreverse_proxy " + b.addr() + "\n}"
	gw := start(t, globals("cache 1s\nnegative 1s"), site)

	good := p.token(t, "orders:read")
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if a := gw.get(t, "/", bearer(good)); a.status != 200 {
				t.Errorf("a good token: %d %s", a.status, a.body)
			}
		})
	}
	wg.Wait()
	if n := p.asked.Load(); n != 1 {
		t.Errorf("20 requests asked %d times", n)
	}
	if r, _ := b.got(); r.Header.Get("X-Gatehouse-Subject") != "sid1" || r.Header.Get("X-Gatehouse-Tenant") != "acme" || r.Header.Get("X-Gatehouse-Scopes") != "orders:read" {
		t.Errorf("the backend is told %v", r.Header)
	}
	if a := gw.get(t, "/", bearer(p.token(t, "orders:write"))); a.reason() != "require.scope" {
		t.Errorf("another scope: %d %s", a.status, a.body)
	}
	if a := gw.get(t, "/", bearer("guess")); a.reason() != "identity.inactive" || a.status != 401 || !strings.Contains(a.header.Get("Www-Authenticate"), "invalid_token") {
		t.Errorf("a token nobody issued: %d %s", a.status, a.body)
	}
	before := p.asked.Load()
	for range 10 {
		gw.get(t, "/", bearer("guess"))
	}
	if n := p.asked.Load() - before; n != 0 {
		t.Errorf("the same wrong token asked %d times more", n)
	}

	// Revoked: it passes no longer than it is remembered.
	p.revokeAll()
	eventually(t, "the revoked token to be refused", func() bool { return gw.get(t, "/", bearer(good)).reason() == "identity.inactive" })

	// Away: who is remembered passes, who is not meets on_error.
	kept := p.token(t, "orders:read")
	if err := gw.load(globals("cache 1m"), site); err != nil {
		t.Fatal(err)
	}
	if a := gw.get(t, "/", bearer(kept)); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	p.away.Store(true)
	if a := gw.get(t, "/", bearer(kept)); a.status != 200 {
		t.Errorf("remembered, while the issuer is away: %d %s", a.status, a.body)
	}
	if a := gw.get(t, "/", bearer("another")); a.status != 503 || a.reason() != "identity.unavailable" || a.header.Get("Retry-After") == "" {
		t.Errorf("not remembered: %d %s", a.status, a.body)
	}
	before = p.asked.Load()
	for i := range 50 {
		gw.get(t, "/", bearer(fmt.Sprint("flood-", i)))
	}
	if n := p.asked.Load() - before; n > 2 {
		t.Errorf("a flood asked an issuer that is away %d times", n)
	}
	p.away.Store(false)
	fresh := p.token(t, "orders:read")
	eventually(t, "the issuer to be asked again", func() bool { return gw.get(t, "/", bearer(fresh)).status == 200 })

	// For somebody else, and without secrets in what the gateway shows.
	p.audience = []string{"billing"}
	if a := gw.get(t, "/", bearer(p.token(t, "orders:read"))); a.reason() != "identity.wrong_audience" {
		t.Errorf("another audience: %d %s", a.status, a.body)
	}
	for name, text := range map[string]string{"/config": gw.ask(t, "/config/"), "the log": gw.log(t)} {
		for _, secret := range []string{"s3cr%t", "s3cr%25t", good, fresh} {
			if strings.Contains(text, secret) {
				t.Errorf("%s has %.6q in it", name, secret)
			}
		}
	}
	if err := gw.load(strings.Replace(globals(""), "{env.INTROSPECTION_SECRET}", "hunter2", 1), site); err == nil || !strings.Contains(err.Error(), "client_secret as {env.NAME}") {
		t.Errorf("a secret that is written out: %v", err)
	}
}
