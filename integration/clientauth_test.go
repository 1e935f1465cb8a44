package integration

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
	"github.com/lestrrat-go/jwx/v2/jwt"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// GetKeyByIDAndClientID knows the keys of clients that sign.
func (p *provider) GetKeyByIDAndClientID(_ context.Context, kid, client string) (*jose.JSONWebKey, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	key := p.keys[client+" "+kid]
	if key == nil {
		return nil, errors.New("nobody's")
	}
	return &jose.JSONWebKey{KeyID: kid, Use: "sig", Key: key}, nil
}

func (p *provider) knows(client, kid string, key crypto.PublicKey) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys = map[string]crypto.PublicKey{client + " " + kid: key}
}

// signingClient has a key and no secret.
type signingClient struct{ op.Client }

func (signingClient) AuthMethod() oidc.AuthMethod { return oidc.AuthMethodPrivateKeyJWT }

func (p *provider) authenticated(c op.Client) op.Client {
	p.mu.Lock()
	defer p.mu.Unlock()
	for of := range p.keys {
		if strings.HasPrefix(of, c.GetID()+" ") {
			return signingClient{c}
		}
	}
	return c
}

func keyPEM(t testing.TB, key any) string {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

func newRSA(t testing.TB) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// TestPrivateKeyJWT: a real provider knows the gateway by its key, also after it
// was replaced.
func TestPrivateKeyJWT(t *testing.T) {
	p := newProvider(t)
	gw := prepare(t)
	first, second := newRSA(t), newRSA(t)
	p.knows("gateway", "k1", first.Public())
	gw.write(t, "client.pem", keyPEM(t, first))
	globals := func(more string) string {
		return fmt.Sprintf("identity {\nissuer main %s {\naudience orders-api\nintrospect {\nclient_id gateway\nauth private_key_jwt {\nkey client.pem k1\n%s\n}\n}\n}\n}", p.URL, more)
	}
	site := "api demo {\nidentity main\nrespond {http.auth.user.id}\n}"
	if err := gw.load(globals(""), site); err != nil {
		t.Fatal(err)
	}
	if a := gw.get(t, "/", bearer(p.token(t, "orders:read"))); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := gw.get(t, "/", bearer("guess")); a.reason() != "identity.inactive" {
		t.Errorf("a token nobody issued: %d %s", a.status, a.body)
	}

	// The key is replaced here and there; no reload.
	p.knows("gateway", "k1", second.Public())
	gw.write(t, "client.pem", keyPEM(t, second))
	eventually(t, "the new key to sign", func() bool { return gw.get(t, "/", bearer(p.token(t, "orders:read"))).status == 200 })

	// An audience that is not the provider's: an answer is refused to the gateway.
	if err := gw.load(globals("audience https://elsewhere.test"), site); err != nil {
		t.Fatal(err)
	}
	if a := gw.get(t, "/", bearer(p.token(t, "orders:read"))); a.status != 503 || a.reason() != "identity.unavailable" {
		t.Errorf("an assertion for others: %d %s", a.status, a.body)
	}

	// A file that is no key is an error of the configuration, without its content.
	gw.write(t, "client.pem", "hunter2")
	if err := gw.load(globals(""), site); err == nil || !strings.Contains(err.Error(), "client.pem\": it is neither PEM nor a JWK") || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("no key: %v", err)
	}
	if text := gw.ask(t, "/config/") + gw.log(t); strings.Contains(text, "PRIVATE KEY-----") || strings.Contains(text, "client_assertion=") {
		t.Error("a key or an assertion is shown")
	}
}

// TestLoginByKey: people log in at a real provider that knows the gateway by its
// key, and by nothing else.
func TestLoginByKey(t *testing.T) {
	p := newLoginProvider(t, "http://localhost")
	key := newRSA(t)
	p.knows("portal", "k1", key.Public())
	b := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprint(w, r.Header.Get("X-Gatehouse-Subject"))
	})
	gw := prepare(t)
	gw.write(t, "client.pem", keyPEM(t, key))
	site := "api portal {\nidentity {\nsession main\n}\nreverse_proxy " + b.addr() + "\n}"
	globals := "identity {\nissuer main " + p.URL + " {\nlogin {\nclient_id portal\nauth private_key_jwt {\nkey client.pem k1\n}\n}\n}\n}"
	if err := gw.load(globals, site); err != nil {
		t.Fatal(err)
	}
	if a := gw.surfer(t).login(t, p, "/page", ann); a.status != 200 || a.body != "id1" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if err := gw.load(loginGlobals(p, ""), site); err != nil {
		t.Fatal(err)
	}
	if a := gw.surfer(t).login(t, p, "/page", ann); a.status == 200 {
		t.Errorf("with a secret: %d %s", a.status, a.body)
	}
}

// certifiedIssuer is an endpoint that knows clients by their certificates, and
// answers for its tokens.
type certifiedIssuer struct {
	*httptest.Server
	asked atomic.Int64
	mu    sync.Mutex
	names []string // of the certificates that were shown
}

func newCertifiedIssuer(t *testing.T, clients *testCA) *certifiedIssuer {
	t.Helper()
	s := new(certifiedIssuer)
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.asked.Add(1)
		s.mu.Lock()
		s.names = append(s.names, r.TLS.VerifiedChains[0][0].Subject.CommonName)
		s.mu.Unlock()
		w.Header().Set("Content-Type", "application/json")
		switch {
		case r.PostFormValue("client_id") != "gateway" || r.PostFormValue("client_secret") != "" || r.Header.Get("Authorization") != "":
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = fmt.Fprint(w, `{"error":"invalid_client"}`)
		case r.URL.Path == "/token":
			_, _ = fmt.Fprint(w, `{"access_token":"theirs","issued_token_type":"urn:ietf:params:oauth:token-type:access_token","token_type":"Bearer","expires_in":300}`)
		default:
			_, _ = fmt.Fprintf(w, `{"active":%t,"sub":"ann","aud":"orders-api"}`, strings.HasPrefix(r.PostFormValue("token"), "good"))
		}
	}))
	pool := x509.NewCertPool()
	pool.AddCert(clients.Certificate)
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	s.StartTLS()
	t.Cleanup(s.Close)
	return s
}

func (s *certifiedIssuer) last() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.names) == 0 {
		return ""
	}
	return s.names[len(s.names)-1]
}

// putClient writes a client's certificate and key. The certificate comes last, as
// between the two they do not fit.
func (g *gateway) putClient(t testing.TB, ca *testCA, name string) {
	t.Helper()
	c := ca.sign(t, func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: name} })
	g.write(t, "client.key", keyPEM(t, c.PrivateKey))
	g.write(t, "client.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})))
}

// TestCertifiedClient: an issuer that demands a certificate of its clients gets
// it for introspection and exchange, and a replaced one without a reload.
func TestCertifiedClient(t *testing.T) {
	clients := newCA(t, "clients", nil)
	s := newCertifiedIssuer(t, clients)
	b := newBackend(t, nil)
	gw := prepare(t)
	gw.putClient(t, clients, "one")
	gw.write(t, "issuer.crt", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})))
	gw.write(t, "jwks.json", `{"keys":[`+publicJWK(t, newEC(t), "k1")+`]}`)
	globals := func(ca string) string {
		auth := "client_id gateway\nauth mtls {\ncertificate client.crt\nkey client.key\n" + ca + "\n}\n"
		return "identity {\nissuer main https://id.test {\njwks " + gw.dir + "/jwks.json\naudience orders-api\nintrospect " + s.URL + "/introspect {\n" + auth + "}\nexchange " + s.URL + "/token {\n" + auth + "}\n}\n}"
	}
	site := "api demo {\nidentity main {\nexchange orders-backend\n}\nreverse_proxy " + b.addr() + "\n}"
	if err := gw.load(globals("ca issuer.crt"), site); err != nil {
		t.Fatal(err)
	}
	if a := gw.get(t, "/", bearer("good-1")); a.status != 200 || s.last() != "one" {
		t.Fatalf("%d %s; shown %q", a.status, a.body, s.last())
	}
	if r, _ := b.got(); r.Header.Get("Authorization") != "Bearer theirs" || r.Header.Get("X-Gatehouse-Subject") != "ann" {
		t.Errorf("the backend is told %v", r.Header)
	}
	if a := gw.get(t, "/", bearer("bad")); a.reason() != "identity.inactive" {
		t.Errorf("a token that is not good: %d %s", a.status, a.body)
	}

	gw.putClient(t, clients, "two")
	n := 1
	eventually(t, "the new certificate to be shown", func() bool {
		n++
		a := gw.get(t, "/", bearer(fmt.Sprint("good-", n)))
		return a.status == 200 && s.last() == "two"
	})

	// Without its authority the endpoint is nobody: it is asked nothing.
	if err := gw.load(globals(""), site); err != nil {
		t.Fatal(err)
	}
	before := s.asked.Load()
	if a := gw.get(t, "/", bearer("good-once-more")); a.status != 503 || a.reason() != "identity.unavailable" || s.asked.Load() != before {
		t.Errorf("an endpoint that is not trusted: %d %s", a.status, a.body)
	}

	// A certificate of nobody's authority is refused by the endpoint.
	gw.putClient(t, newCA(t, "strangers", nil), "stranger")
	if err := gw.load(strings.Replace(globals("ca issuer.crt"), "client_id gateway", "client_id gateway\ncache 1s", 1), site); err != nil {
		t.Fatal(err)
	}
	if a := gw.get(t, "/", bearer("good-at-last")); a.status != 503 || a.reason() != "identity.unavailable" || s.last() == "stranger" {
		t.Errorf("a stranger's certificate: %d %s", a.status, a.body)
	}
	_ = os.Remove(filepath.Join(gw.dir, "client.key"))
	if err := gw.load(globals("ca issuer.crt"), site); err == nil || !strings.Contains(err.Error(), "client.key") {
		t.Errorf("a key that is not there: %v", err)
	}
}

func newEC(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func publicJWK(t testing.TB, key crypto.Signer, kid string) string {
	t.Helper()
	k, err := jwk.FromRaw(key.Public())
	if err == nil {
		err = k.Set("kid", kid)
	}
	data, err2 := json.Marshal(k)
	if err := errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// signingIssuer signs what it says of tokens.
type signingIssuer struct {
	*httptest.Server
	mu     sync.Mutex
	key    *ecdsa.PrivateKey
	kid    string
	plain  bool
	status int // of every answer, if it is not zero
	change func(header, claims map[string]any)
	last   string // answer
}

func newSigningIssuer(t *testing.T) *signingIssuer {
	t.Helper()
	s := &signingIssuer{key: newEC(t), kid: "k1"}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch r.URL.Path {
		case "/.well-known/openid-configuration":
			_ = json.NewEncoder(w).Encode(map[string]any{"issuer": s.URL, "jwks_uri": s.URL + "/jwks", "introspection_endpoint": s.URL + "/introspect"})
		case "/jwks":
			_, _ = fmt.Fprint(w, `{"keys":[`+publicJWK(t, s.key, s.kid)+`]}`)
		case "/introspect":
			s.answer(t, w, r)
		}
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *signingIssuer) answer(t *testing.T, w http.ResponseWriter, r *http.Request) {
	if odd := strings.HasPrefix(r.PostFormValue("token"), "odd"); odd || s.status != 0 {
		status := s.status
		if odd {
			status = http.StatusBadRequest
		}
		w.WriteHeader(status)
		return
	}
	about := map[string]any{"active": strings.HasPrefix(r.PostFormValue("token"), "good"), "sub": "ann", "aud": "orders-api", "scope": "orders:read"}
	if s.plain || r.Header.Get("Accept") != "application/token-introspection+jwt" {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(about)
		return
	}
	header := map[string]any{"typ": "token-introspection+jwt", "kid": s.kid}
	claims := map[string]any{"iss": s.URL, "aud": "gateway", "iat": time.Now().Unix(), "token_introspection": about}
	if s.change != nil {
		s.change(header, claims)
	}
	token := jwt.New()
	head := jws.NewHeaders()
	for name, v := range claims {
		_ = token.Set(name, v)
	}
	for name, v := range header {
		_ = head.Set(name, v)
	}
	signed, err := jwt.Sign(token, jwt.WithKey(jwa.ES256, s.key, jws.WithProtectedHeaders(head)))
	if err != nil {
		t.Error(err)
	}
	s.last = string(signed)
	w.Header().Set("Content-Type", "application/token-introspection+jwt")
	_, _ = w.Write(signed)
}

func (s *signingIssuer) set(change func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change()
}

// TestSignedIntrospection: what an issuer says of a token is taken only with its
// signature, for this gateway; all else is no answer.
func TestSignedIntrospection(t *testing.T) {
	s := newSigningIssuer(t)
	b := newBackend(t, nil)
	t.Setenv("INTROSPECTION_SECRET", "s3cr%t: +")
	asked := 0
	globals := func(more string) string { // each asks anew, however often the one before failed
		asked++
		return fmt.Sprintf("identity {\nissuer main %s {\naudience orders-api\n%s\nintrospect {\nclient_id gateway\nclient_secret {env.INTROSPECTION_SECRET}\nsigned\ncache %ds\n}\n}\n}", s.URL, more, 60+asked)
	}
	site := "api demo {\nidentity main\nreverse_proxy " + b.addr() + "\n}"
	gw := start(t, globals(""), site)

	if a := gw.get(t, "/", bearer("good")); a.status != 200 {
		t.Fatalf("%d %s\n%s", a.status, a.body, gw.log(t))
	}
	if r, _ := b.got(); r.Header.Get("X-Gatehouse-Subject") != "ann" || r.Header.Get("X-Gatehouse-Scopes") != "orders:read" {
		t.Errorf("the backend is told %v", r.Header)
	}
	if a := gw.get(t, "/", bearer("bad")); a.reason() != "identity.inactive" {
		t.Errorf("a token that is not good: %d %s", a.status, a.body)
	}
	var answer string
	s.set(func() { answer = s.last })
	if a := gw.get(t, "/", bearer(answer)); a.reason() != "identity.wrong_type" {
		t.Errorf("an answer that is shown as a token: %d %s", a.status, a.body)
	}

	// The issuer takes another key; its answers are good at once.
	s.set(func() { s.key, s.kid = newEC(t), "k2" })
	if a := gw.get(t, "/", bearer("good-of-k2")); a.status != 200 {
		t.Errorf("with a new key: %d %s", a.status, a.body)
	}

	for _, c := range []struct {
		name, log string
		plain     bool
		change    func(header, claims map[string]any)
	}{
		{"a plain answer", "plain JSON, and a signed answer was asked for", true, nil},
		{"for another", "for another audience", false, func(_, c map[string]any) { c["aud"] = "portal" }},
		{"of another issuer", "another issuer's", false, func(_, c map[string]any) { c["iss"] = "https://other.test" }},
		{"of long ago", "more than a minute ago", false, func(_, c map[string]any) { c["iat"] = time.Now().Add(-time.Hour).Unix() }},
		{"a token", "type that is not accepted", false, func(h, _ map[string]any) { h["typ"] = "at+jwt" }},
		{"of a key that is not the issuer's", "no key has the token's kid", false, func(h, _ map[string]any) { h["kid"] = "k9" }},
	} {
		s.set(func() { s.plain, s.change = c.plain, c.change })
		if err := gw.load(globals(""), site); err != nil {
			t.Fatal(err)
		}
		if a := gw.get(t, "/", bearer(fmt.Sprint("good-", asked))); a.status != 503 || a.reason() != "identity.unavailable" {
			t.Errorf("%s: %d %s", c.name, a.status, a.body)
		}
		eventually(t, c.name+" to be in the log", func() bool { return strings.Contains(gw.log(t), c.log) })
	}
	// A caller chooses its token, and might know one that the issuer answers oddly
	// to: on_error is for an issuer that is away for everybody.
	open := "api demo {\nidentity main {\non_error open\n}\nreverse_proxy " + b.addr() + "\n}"
	before := b.count()
	if err := gw.load(globals("on_error open"), open); err != nil {
		t.Fatal(err)
	}
	if a := gw.get(t, "/", bearer("good-without-a-signature")); a.status != 503 || b.count() != before {
		t.Errorf("an odd answer, with on_error open: %d %s", a.status, a.body)
	}
	s.set(func() { s.status = 500 })
	if a := gw.get(t, "/", bearer("good-and-down")); a.status != 200 || b.count() != before+1 {
		t.Errorf("away, with on_error open: %d %s", a.status, a.body)
	}
	if r, _ := b.got(); r.Header.Get("X-Gatehouse-Subject") != "" {
		t.Errorf("the backend is told %v", r.Header)
	}
}

// TestFloodOfQuestions: one who has an issuer asked more than it can answer gets
// nobody in by it, whatever on_error says of an issuer that is away, and leaves
// others their places.
func TestFloodOfQuestions(t *testing.T) {
	var asked atomic.Int64
	iss := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("Content-Type", "application/json")
		if strings.HasPrefix(r.FormValue("token"), "odd") {
			time.Sleep(time.Second)
			_, _ = fmt.Fprint(w, `{"active":false}`)
			return
		}
		_, _ = fmt.Fprint(w, `{"active":true,"sub":"ann","aud":"orders-api"}`)
	}))
	defer iss.Close()
	b := newBackend(t, nil)
	t.Setenv("INTROSPECTION_SECRET", "s3cret")
	gw := start(t, behindProxy+fmt.Sprintf("identity {\nissuer main %[1]s {\naudience orders-api\non_error open\nintrospect %[1]s/introspect {\nclient_id gateway\nclient_secret {env.INTROSPECTION_SECRET}\n}\n}\n}", iss.URL),
		"api demo {\nidentity main\nreverse_proxy "+b.addr()+"\n}")
	ask := func(token, from string) answer {
		return gw.get(t, "/", with(bearer(token), "X-Forwarded-For", from))
	}
	var all sync.WaitGroup
	for i := range 400 {
		all.Go(func() {
			if a := ask(fmt.Sprint("odd", i), "198.18.0.1"); a.status != 401 && a.reason() != "identity.unavailable" {
				t.Errorf("of the flood: %d %s", a.status, a.body)
			}
		})
	}
	eventually(t, "the flood", func() bool { return asked.Load() > 0 })
	for i := range 5 {
		if a := ask(fmt.Sprint("good", i), "198.18.0.2"); a.status != 200 {
			t.Errorf("another: %d %s", a.status, a.body)
		}
	}
	all.Wait()
	if n := b.count(); n != 5 {
		t.Errorf("%d requests reached the backend", n)
	}
}

// TestOddTokens: tokens that an issuer makes nothing of keep nobody from theirs,
// and get nobody in.
func TestOddTokens(t *testing.T) {
	s := newSigningIssuer(t)
	s.set(func() { s.plain = true })
	b := newBackend(t, nil)
	t.Setenv("INTROSPECTION_SECRET", "s3cr%t: +")
	gw := start(t, fmt.Sprintf("identity {\nissuer main %s {\naudience orders-api\non_error open\nintrospect {\nclient_id gateway\nclient_secret {env.INTROSPECTION_SECRET}\n}\n}\n}", s.URL),
		"api demo {\nidentity main\nreverse_proxy "+b.addr()+"\n}")
	for i := range 20 {
		if a := gw.get(t, "/", bearer(fmt.Sprint("odd", i))); a.reason() != "identity.unavailable" {
			t.Errorf("an odd token: %d %s", a.status, a.body)
		}
		if a := gw.get(t, "/", bearer(fmt.Sprint("good", i))); a.status != 200 {
			t.Errorf("another after it: %d %s", a.status, a.body)
		}
	}
	if n := b.count(); n != 20 {
		t.Errorf("%d requests reached the backend", n)
	}
}
