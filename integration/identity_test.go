package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

const identityGlobals = `
	identity {
		issuer main https://id.test {
			jwks %s
			audience orders-api
			claims roles realm_access.roles
		}
	}
`

func TestIdentityTokens(t *testing.T) {
	b := newBackend(t, nil)
	iss, other := newIssuer(t, "k1"), newIssuer(t, "k1")
	gw := prepare(t)
	gw.write(t, "jwks.json", iss.jwks())
	if err := gw.load(fmt.Sprintf(identityGlobals, "jwks.json"), "api demo {\nidentity main\nreverse_proxy "+b.addr()+"\n}"); err != nil {
		t.Fatal(err)
	}
	now := time.Now().Unix()
	claims := map[string]any{"iss": "https://id.test", "aud": "orders-api", "sub": "ann", "exp": now + 60}
	none := b64([]byte(`{"alg":"none"}`)) + "." + b64([]byte(`{"iss":"https://id.test","sub":"ann","exp":9999999999}`)) + "."

	for _, tc := range []struct {
		name   string
		header http.Header
		status int
		reason string
	}{
		{"a good token", bearer(iss.token(t, nil)), 200, ""},
		{"the scheme in any case", http.Header{"Authorization": {"bEaReR " + iss.token(t, nil)}}, 200, ""},
		{"several audiences", bearer(iss.token(t, map[string]any{"aud": []string{"x", "orders-api"}})), 200, ""},
		{"nothing", nil, 401, "identity.missing"},
		{"another scheme", http.Header{"Authorization": {"Basic YTpi"}}, 401, "identity.missing"},
		{"two credentials", http.Header{"Authorization": {"Bearer a", "Bearer b"}}, 400, "identity.ambiguous"},
		{"an empty token", bearer(""), 401, "identity.malformed"},
		{"no token at all", bearer("hello"), 401, "identity.malformed"},
		{"a token of a megabyte", bearer(strings.Repeat("a", 15<<10) + "." + strings.Repeat("b", 4<<10)), 401, "identity.malformed"},
		{"alg none", bearer(none), 401, "identity.malformed"},
		{"alg none with a signature", bearer(none + "AAAA"), 401, "identity.bad_algorithm"},
		{"HMAC with the public key", bearer(iss.sign(t, map[string]any{"alg": "HS256", "kid": "k1"}, claims)), 401, "identity.bad_algorithm"},
		{"an algorithm the key is not for", bearer(iss.sign(t, map[string]any{"alg": "RS256", "kid": "k1"}, claims)), 401, "identity.bad_algorithm"},
		{"crit", bearer(iss.sign(t, map[string]any{"alg": "ES256", "kid": "k1", "crit": []string{"exp"}}, claims)), 401, "identity.malformed"},
		{"b64 false", bearer(iss.sign(t, map[string]any{"alg": "ES256", "kid": "k1", "b64": false}, claims)), 401, "identity.malformed"},
		{"a key of its own in the header", bearer(other.sign(t, map[string]any{"alg": "ES256", "jwk": json.RawMessage(`{"kty":"EC"}`)}, claims)), 401, "identity.bad_signature"},
		{"another type", bearer(iss.sign(t, map[string]any{"alg": "ES256", "kid": "k1", "typ": "logout+jwt"}, claims)), 401, "identity.wrong_type"},
		{"a key nobody knows", bearer(iss.sign(t, map[string]any{"alg": "ES256", "kid": "k9"}, claims)), 401, "identity.unknown_key"},
		{"another's signature", bearer(other.token(t, nil)), 401, "identity.bad_signature"},
		{"a changed token", bearer(strings.Replace(iss.token(t, nil), ".", ".e30", 1)), 401, "identity.malformed"},
		{"another issuer", bearer(iss.token(t, map[string]any{"iss": "https://id.test/"})), 401, "identity.unknown_issuer"},
		{"another audience", bearer(iss.token(t, map[string]any{"aud": "billing"})), 401, "identity.wrong_audience"},
		{"no audience", bearer(iss.token(t, map[string]any{"aud": nil})), 401, "identity.wrong_audience"},
		{"expired", bearer(iss.token(t, map[string]any{"exp": now - 31})), 401, "identity.expired"},
		{"expired within the leeway", bearer(iss.token(t, map[string]any{"exp": now - 5})), 200, ""},
		{"never expires", bearer(iss.token(t, map[string]any{"exp": nil})), 401, "identity.missing_claim"},
		{"expires in words", bearer(iss.token(t, map[string]any{"exp": "tomorrow"})), 401, "identity.malformed"},
		{"not yet valid", bearer(iss.token(t, map[string]any{"nbf": now + 60})), 401, "identity.not_yet_valid"},
		{"issued in the future", bearer(iss.token(t, map[string]any{"iat": now + 60})), 401, "identity.not_yet_valid"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := b.count()
			for range 2 { // the second time it may be remembered
				a := gw.get(t, "/", tc.header)
				if a.status != tc.status || a.reason() != tc.reason {
					t.Fatalf("%d %s, want %d %s", a.status, a.body, tc.status, tc.reason)
				}
				if challenge := a.header.Get("Www-Authenticate"); (tc.status != 200) != (challenge != "") ||
					strings.Contains(challenge, "error=") != (tc.status != 200 && tc.reason != "identity.missing") {
					t.Errorf("challenge %q", challenge)
				}
			}
			if tc.status != 200 && b.count() != before {
				t.Error("the backend was reached")
			}
		})
	}

	t.Run("a token in the query is none", func(t *testing.T) {
		if a := gw.get(t, "/?access_token="+url.QueryEscape(iss.token(t, nil)), nil); a.reason() != "identity.missing" {
			t.Errorf("%d %s", a.status, a.body)
		}
	})
	t.Run("the upstream is told, safely", func(t *testing.T) {
		token := iss.token(t, map[string]any{"sub": "ann\r\nX-Evil: 1 é%", "realm_access": map[string]any{"roles": []string{"a b", "c"}}})
		gw.get(t, "/", with(bearer(token), "X-Gatehouse-Roles", "admin"))
		r, _ := b.got()
		want := map[string]string{"Subject": "ann%0D%0AX-Evil: 1 %C3%A9%25", "Roles": "a%20b c", "Scopes": "orders:read orders:write", "Tenant": "acme"}
		for name, value := range want {
			if got := r.Header["X-Gatehouse-"+name]; len(got) != 1 || got[0] != value {
				t.Errorf("%s is %q, want %q", name, got, value)
			}
		}
		for _, name := range []string{"Plan", "Issuer", "Method"} { // not by default, where there is one issuer
			if got := r.Header["X-Gatehouse-"+name]; got != nil {
				t.Errorf("%s is told as well: %q", name, got)
			}
		}
	})
	t.Run("tokens are not in the log", func(t *testing.T) {
		token := iss.token(t, map[string]any{"exp": now - 100})
		gw.get(t, "/", bearer(token))
		if log := fmt.Sprint(gw.decisions(t)); strings.Contains(log, token[:40]) {
			t.Error("the log has a token")
		}
	})
}

// TestIdentityKeysFromURL follows an issuer that is down at the start, comes
// up, and rotates its key; a flood of unknown kids costs it one fetch.
func TestIdentityKeysFromURL(t *testing.T) {
	b := newBackend(t, nil)
	old, young := newIssuer(t, "old"), newIssuer(t, "young")
	var keys atomic.Pointer[issuer]
	var fetches atomic.Int64
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i := keys.Load()
		if i == nil {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		if strings.HasSuffix(r.URL.Path, "openid-configuration") {
			fmt.Fprintf(w, `{"issuer":"http://%[1]s/realm","jwks_uri":"http://%[1]s/keys"}`, r.Host)
			return
		}
		fetches.Add(1)
		fmt.Fprint(w, i.jwks())
	}))
	defer srv.Close()
	id := srv.URL + "/realm"
	globals := "identity {\nissuer main " + id + " {\naudience orders-api\n}\n}"
	gw := start(t, globals, "api demo {\nidentity main\nreverse_proxy "+b.addr()+"\n}")
	token := func(i *issuer) http.Header { return bearer(i.token(t, map[string]any{"iss": id})) }

	a := gw.get(t, "/", token(old))
	if a.status != 503 || a.reason() != "identity.unavailable" || a.header.Get("Retry-After") == "" || strings.Contains(a.body, srv.URL) {
		t.Fatalf("an issuer that is down: %d %s", a.status, a.body)
	}
	keys.Store(old)
	deadline := time.Now().Add(10 * time.Second)
	for a = gw.get(t, "/", token(old)); a.status != 200 && time.Now().Before(deadline); a = gw.get(t, "/", token(old)) {
		time.Sleep(50 * time.Millisecond) // its back-off is real time
	}
	if a.status != 200 {
		t.Fatalf("it came up, and still: %d %s", a.status, a.body)
	}
	if err := gw.load(globals, "api demo {\nowner x\nidentity main\nreverse_proxy "+b.addr()+"\n}"); err != nil {
		t.Fatal(err)
	}
	if a := gw.get(t, "/", token(old)); a.status != 200 || fetches.Load() != 1 {
		t.Errorf("after a reload: %d, %d fetches", a.status, fetches.Load())
	}
	keys.Store(young)
	if a := gw.get(t, "/", token(young)); a.status != 200 {
		t.Errorf("the first token after a rotation: %d %s", a.status, a.body)
	}
	if a := gw.get(t, "/", token(old)); a.reason() != "identity.unknown_key" {
		t.Errorf("a token of the old key: %d %s", a.status, a.body)
	}
	before := fetches.Load()
	for i := range 200 {
		stranger := newIssuerLike(young, fmt.Sprint("k", i))
		if a := gw.get(t, "/", token(stranger)); a.reason() != "identity.unknown_key" {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	if n := fetches.Load() - before; n > 0 {
		t.Errorf("200 unknown kids caused %d fetches within 30 seconds of the last", n)
	}
	keys.Store(nil)
	if a := gw.get(t, "/", token(young)); a.status != 200 {
		t.Errorf("the issuer is away, and its last keys are not used: %d", a.status)
	}
}

func newIssuerLike(i *issuer, kid string) *issuer { return &issuer{kid, i.key} }

func TestIdentityOnErrorOpen(t *testing.T) {
	b := newBackend(t, nil)
	gw := start(t, "identity {\nissuer main https://id.test {\njwks http://127.0.0.1:1/keys\naudience any\non_error open\n}\n}",
		"api demo {\nidentity main\nreverse_proxy "+b.addr()+"\n}")
	if a := gw.get(t, "/", bearer(newIssuer(t, "k").token(t, nil))); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if r, _ := b.got(); r.Header.Get("X-Gatehouse-Subject") != "" {
		t.Error("a principal was asserted that nobody proved")
	}
	if d := fmt.Sprint(gw.decisions(t)); !strings.Contains(d, "undecided") || !strings.Contains(d, "identity.unavailable") {
		t.Errorf("recorded %s", d)
	}
}

// TestIdentityHandlerChoosesOnError: what one API may risk is not what all may.
func TestIdentityHandlerChoosesOnError(t *testing.T) {
	gw := start(t, "identity {\nissuer main https://id.test {\njwks http://127.0.0.1:1/keys\naudience any\non_error open\n}\n}", `
	@strict path /strict
	api @strict strict {
		identity main {
			on_error closed
		}
		respond ok
	}
	api loose {
		identity main
		respond ok
	}`)
	token := bearer(newIssuer(t, "k").token(t, nil))
	if a := gw.get(t, "/strict", token); a.status != 503 {
		t.Errorf("closed: %d %s", a.status, a.body)
	}
	if a := gw.get(t, "/", token); a.status != 200 {
		t.Errorf("open: %d %s", a.status, a.body)
	}
}

// TestIdentityOneIssuerTwoAudiences: two APIs of one issuer do not accept each
// other's tokens, remembered or not.
func TestIdentityOneIssuerTwoAudiences(t *testing.T) {
	iss := newIssuer(t, "k1")
	gw := prepare(t)
	gw.write(t, "jwks.json", iss.jwks())
	globals := "identity {\nissuer orders https://id.test {\njwks jwks.json\naudience orders-api\n}\nissuer billing https://id.test {\njwks jwks.json\naudience billing-api\n}\n}"
	if err := gw.load(globals, "@b path /billing\napi @b billing {\nidentity billing\nrespond ok\n}\napi orders {\nidentity orders\nrespond ok\n}"); err != nil {
		t.Fatal(err)
	}
	orders, billing := bearer(iss.token(t, nil)), bearer(iss.token(t, map[string]any{"aud": "billing-api"}))
	for range 2 {
		for _, tc := range []struct {
			path   string
			token  http.Header
			reason string
		}{
			{"/", orders, ""},
			{"/billing", billing, ""},
			{"/", billing, "identity.wrong_audience"},
			{"/billing", orders, "identity.wrong_audience"},
		} {
			if a := gw.get(t, tc.path, tc.token); a.reason() != tc.reason || (a.status == 200) != (tc.reason == "") {
				t.Errorf("%s: %d %s, want %q", tc.path, a.status, a.body, tc.reason)
			}
		}
	}
	if err := gw.load(globals, "identity orders billing\nrespond ok"); err == nil || !strings.Contains(err.Error(), "have the same URL") {
		t.Errorf("both in one handler: %v", err)
	}
}

// TestIdentityHeadersAreEachRequestsOwn: a request_header that edits what the
// gateway asserts edits it for its own request.
func TestIdentityHeadersAreEachRequestsOwn(t *testing.T) {
	b := newBackend(t, nil)
	iss := newIssuer(t, "k1")
	gw := prepare(t)
	gw.write(t, "jwks.json", iss.jwks())
	if err := gw.load(fmt.Sprintf(identityGlobals, "jwks.json"), `
	api demo {
		identity main
		@edit path /edit
		request_header @edit X-Gatehouse-Subject ann ann-and-more
		reverse_proxy `+b.addr()+`
	}`); err != nil {
		t.Fatal(err)
	}
	token := bearer(iss.token(t, map[string]any{"sub": "ann"}))
	for path, want := range map[string]string{"/edit": "ann-and-more", "/": "ann"} {
		for range 3 {
			gw.get(t, path, token)
			if r, _ := b.got(); r.Header.Get("X-Gatehouse-Subject") != want {
				t.Fatalf("%s: the upstream is told %q, want %q", path, r.Header.Get("X-Gatehouse-Subject"), want)
			}
		}
	}
}

func TestIdentityKeys(t *testing.T) {
	b := newBackend(t, nil)
	gw := prepare(t)
	hash := func(key string) string {
		sum := sha256.Sum256([]byte(key))
		return hex.EncodeToString(sum[:])
	}
	gw.write(t, "keys.json", `[
		{"id":"ci","sha256":"`+hash("good-key")+`","tenant":"acme","scopes":["orders:read"]},
		{"id":"old","sha256":"`+hash("old-key")+`","expires":"2020-01-01T00:00:00Z"}
	]`)
	globals := "identity {\nkeys keys.json\n}"
	if err := gw.load(globals, "api demo {\nidentity {\nkeys\noptional\ntell client method\n}\nrequire scope orders:read\nreverse_proxy "+b.addr()+"\n}"); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name   string
		keys   []string
		reason string
	}{
		{"a good key", []string{"good-key"}, ""},
		{"a wrong key", []string{"bad-key"}, "identity.invalid_api_key"},
		{"an empty key", []string{""}, "identity.invalid_api_key"},
		{"an expired key", []string{"old-key"}, "identity.expired"},
		{"two keys", []string{"good-key", "good-key"}, "identity.ambiguous"},
		{"no key passes where that is optional", nil, "require.anonymous"},
	} {
		if a := gw.get(t, "/", http.Header{"X-Api-Key": tc.keys}); a.reason() != tc.reason {
			t.Errorf("%s: %d %s", tc.name, a.status, a.body)
		}
	}
	r, _ := b.got()
	if r.Header.Get("X-Gatehouse-Client") != "ci" || r.Header.Get("X-Gatehouse-Method") != "api_key" || r.Header.Get("X-Api-Key") != "" || r.Header.Get("X-Gatehouse-Tenant") != "" {
		t.Errorf("the backend was told %v", r.Header)
	}

	for content, want := range map[string]string{
		`{}`:                            "keys.json:1: a list",
		"[\n{\"id\":\"a\",\"hash\":1}]": "keys.json:2:",
		`[{"id":"a","sha256":"abc"}]`:   "64 hexadecimal",
		`[{"id":"a","sha256":"` + hash("a") + `"},{"id":"a","sha256":"` + hash("b") + `"}]`: "twice",
	} {
		gw.write(t, "keys.json", content)
		if err := gw.load(globals, "api demo {\nidentity {\nkeys\n}\nrespond ok\n}"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", content, err, want)
		}
	}
}

// TestIdentityMTLS: only certificates that Caddy verified make a principal.
func TestIdentityMTLS(t *testing.T) {
	b := newBackend(t, nil)
	ca, caKey := certificate(t, nil, nil, "ca")
	stranger, strangerKey := certificate(t, nil, nil, "stranger")
	gw := prepare(t)
	gw.write(t, "ca.pem", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: ca.Raw})))

	for _, tc := range []struct {
		mode   string
		client *tls.Certificate
		want   int
	}{
		{"verify_if_given", pair(t, ca, caKey, "spiffe://test/ann"), 200},
		{"verify_if_given", nil, 401},
		{"request", pair(t, stranger, strangerKey, "spiffe://test/mallory"), 401},
	} {
		src := fmt.Sprintf(`{
	admin off
	persist_config off
	auto_https disable_redirects
	skip_install_trust
	storage file_system %[1]s/storage
	log {
		output file %[1]s/log
	}
}
https://localhost:0 {
	bind 127.0.0.1
	tls internal {
		client_auth {
			mode %[2]s
			trust_pool file %[1]s/ca.pem
		}
	}
	api demo {
		identity {
			mtls
		}
		reverse_proxy %[3]s
	}
}
`, gw.dir, tc.mode, b.addr())
		if err := gw.loadFile(src); err != nil {
			t.Fatal(err)
		}
		app, err := caddy.ActiveContext().App("http")
		if err != nil {
			t.Fatal(err)
		}
		addr := app.(*caddyhttp.App).Servers["srv0"].Listeners()[0].Addr().String()
		config := &tls.Config{InsecureSkipVerify: true, ServerName: "localhost"}
		if tc.client != nil {
			config.Certificates = []tls.Certificate{*tc.client}
		}
		tr := &http.Transport{TLSClientConfig: config}
		req, _ := http.NewRequest(http.MethodGet, "https://"+addr+"/", nil)
		req.Host = "localhost"
		var resp *http.Response
		for range 100 { // the internal certificate is issued behind the load
			if resp, err = tr.RoundTrip(req); err == nil {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		if err != nil {
			t.Fatalf("%s: %v", tc.mode, err)
		}
		resp.Body.Close()
		tr.CloseIdleConnections()
		if resp.StatusCode != tc.want {
			t.Errorf("%s: %d, want %d", tc.mode, resp.StatusCode, tc.want)
		}
	}
	if r, _ := b.got(); r == nil || r.Header.Get("X-Gatehouse-Subject") != "spiffe://test/ann" {
		t.Errorf("the backend was told %v", r.Header)
	}
}

func certificate(t *testing.T, parent *x509.Certificate, parentKey *ecdsa.PrivateKey, name string) (*x509.Certificate, *ecdsa.PrivateKey) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if parent == nil {
		tmpl.IsCA, tmpl.BasicConstraintsValid, tmpl.KeyUsage = true, true, x509.KeyUsageCertSign
		parent, parentKey = tmpl, key
	} else {
		tmpl.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		u, err := url.Parse(name)
		if err != nil {
			t.Fatal(err)
		}
		tmpl.URIs = []*url.URL{u}
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c, key
}

func pair(t *testing.T, ca *x509.Certificate, caKey *ecdsa.PrivateKey, name string) *tls.Certificate {
	t.Helper()
	c, key := certificate(t, ca, caKey, name)
	return &tls.Certificate{Certificate: [][]byte{c.Raw}, PrivateKey: key}
}
