package clientauth

import (
	"crypto"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwa"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jws"
	"github.com/lestrrat-go/jwx/v2/jwt"
)

var t0 = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// clock is a time that tests set, and what failed.
type clock struct {
	at     time.Time
	failed []error
}

func (c *clock) clock() Clock {
	return Clock{Now: func() time.Time { return c.at }, Failed: func(err error) { c.failed = append(c.failed, err) }}
}

func file(t testing.TB, data string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func pkcs8(key any) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: must(x509.MarshalPKCS8PrivateKey(key))}))
}

func asJWK(key any, set map[string]any) string {
	k := must(jwk.FromRaw(key))
	for name, value := range set {
		if err := k.Set(name, value); err != nil {
			panic(err)
		}
	}
	return string(must(json.Marshal(k)))
}

// form is what an endpoint is sent.
func form(t testing.TB, c *Client) url.Values {
	t.Helper()
	var got url.Values
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_ = r.ParseForm()
		got = r.PostForm
		if r.Header.Get("Authorization") != "" {
			t.Error("there is a header too")
		}
	}))
	defer srv.Close()
	resp, err := c.Ask(t.Context(), srv.URL, "application/json", url.Values{"token": {"a&b"}})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got.Get("token") != "a&b" {
		t.Errorf("asked %v", got)
	}
	return got
}

// TestAssertion: another library verifies what is sent, by the algorithm of the
// key, and no two are the same.
func TestAssertion(t *testing.T) {
	rsaKey := must(rsa.GenerateKey(rand.Reader, 2048))
	p256 := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	p384 := must(ecdsa.GenerateKey(elliptic.P384(), rand.Reader))
	p521 := must(ecdsa.GenerateKey(elliptic.P521(), rand.Reader))
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	params := string(pem.EncodeToMemory(&pem.Block{Type: "EC PARAMETERS", Bytes: []byte{6, 8, 42, 134, 72, 206, 61, 3, 1, 7}}))
	sec1 := string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: must(x509.MarshalECPrivateKey(p256))}))
	pkcs1 := string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(rsaKey)}))

	for _, c := range []struct {
		name, file, kid string
		private         crypto.Signer
		alg, wantKid    string
	}{
		{"RSA", pkcs8(rsaKey), "k1", rsaKey, "RS256", "k1"},
		{"RSA of PKCS #1", pkcs1, "", rsaKey, "RS256", ""},
		{"P-256", pkcs8(p256), "", p256, "ES256", ""},
		{"P-256 as OpenSSL writes it", params + sec1, "", p256, "ES256", ""},
		{"P-384", pkcs8(p384), "", p384, "ES384", ""},
		{"P-521", pkcs8(p521), "", p521, "ES512", ""},
		{"Ed25519", pkcs8(ed), "", ed, "EdDSA", ""},
		{"a JWK", asJWK(p256, map[string]any{"kid": "k2"}), "", p256, "ES256", "k2"},
		{"a JWK, and another kid", asJWK(p256, map[string]any{"kid": "k2"}), "k3", p256, "ES256", "k3"},
		{"a JWK with its algorithm", asJWK(rsaKey, map[string]any{"alg": "PS384", "use": "sig"}), "", rsaKey, "PS384", ""},
		{"a JWK of Ed25519", asJWK(ed, map[string]any{"alg": "Ed25519"}), "", ed, "EdDSA", ""},
	} {
		at := clock{at: t0}
		client, err := Assertion("gateway", "https://id.test", file(t, c.file), c.kid, at.clock())
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		sent := form(t, client)
		assertion := sent.Get("client_assertion")
		if sent.Get("client_assertion_type") != assertionType || sent.Has("client_secret") {
			t.Errorf("%s: sent %v", c.name, sent)
		}
		token, err := jwt.Parse([]byte(assertion), jwt.WithKey(jwa.SignatureAlgorithm(c.alg), c.private.Public()), jwt.WithValidate(false))
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if token.Issuer() != "gateway" || token.Subject() != "gateway" || strings.Join(token.Audience(), " ") != "https://id.test" ||
			!token.IssuedAt().Equal(t0) || !token.Expiration().Equal(t0.Add(time.Minute)) || len(token.JwtID()) < 20 {
			t.Errorf("%s: claims %v", c.name, token)
		}
		if head := must(jws.ParseString(assertion)).Signatures()[0].ProtectedHeaders(); head.KeyID() != c.wantKid || head.Algorithm().String() != c.alg {
			t.Errorf("%s: header %v", c.name, head)
		}
		if again := form(t, client).Get("client_assertion"); must(jwt.ParseInsecure([]byte(again))).JwtID() == token.JwtID() {
			t.Errorf("%s: an assertion was sent twice", c.name)
		}
	}
}

// TestNoKey: what cannot sign is refused, and nothing of it is said.
func TestNoKey(t *testing.T) {
	small := must(rsa.GenerateKey(rand.Reader, 1024))
	p256 := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	x25519 := must(ecdh.X25519().GenerateKey(rand.Reader))
	p224 := must(ecdsa.GenerateKey(elliptic.P224(), rand.Reader))
	for name, data := range map[string]string{
		"nothing":                "",
		"a text":                 "hunter2",
		"a small key":            pkcs8(small),
		"a key for agreement":    pkcs8(x25519),
		"another curve":          pkcs8(p224),
		"two keys":               pkcs8(p256) + pkcs8(p256),
		"a broken key":           "-----BEGIN PRIVATE KEY-----\naHVudGVyMg==\n-----END PRIVATE KEY-----\n",
		"an encrypted key":       "-----BEGIN ENCRYPTED PRIVATE KEY-----\naHVudGVyMg==\n-----END ENCRYPTED PRIVATE KEY-----\n",
		"a public key":           asJWK(p256.Public(), nil),
		"a shared secret":        `{"kty":"oct","k":"aHVudGVyMg"}`,
		"a broken JWK":           `{"kty":"EC","crv":"P-256","d":"aHVudGVyMg"}`,
		"a JWK of a set":         `{"keys":[` + asJWK(p256, nil) + `]}`,
		"a JWK for encryption":   asJWK(p256, map[string]any{"use": "enc"}),
		"an algorithm of others": asJWK(p256, map[string]any{"alg": "ES384"}),
		"no algorithm at all":    asJWK(p256, map[string]any{"alg": "none"}),
	} {
		_, err := Assertion("gateway", "https://id.test", file(t, data), "", Clock{Now: time.Now})
		if err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "aHVudGVyMg") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Assertion("gateway", "https://id.test", filepath.Join(t.TempDir(), "none"), "", Clock{Now: time.Now}); err == nil {
		t.Error("a file that is not there")
	}
}

// TestAnotherKey: a new key signs from the next second on; while there is none,
// the old one does, and that is said once.
func TestAnotherKey(t *testing.T) {
	old, fresh := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	name := file(t, pkcs8(old))
	at := clock{at: t0}
	client := must(Assertion("gateway", "https://id.test", name, "", at.clock()))
	by := func(key *ecdsa.PrivateKey, step string) {
		t.Helper()
		at.at = at.at.Add(time.Second)
		if _, err := jws.Verify([]byte(form(t, client).Get("client_assertion")), jws.WithKey(jwa.ES256, key.Public())); err != nil {
			t.Errorf("%s: %v", step, err)
		}
	}
	by(old, "at first")
	write := func(data string) {
		if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("half a ke")
	by(old, "while the file is broken")
	by(old, "while it still is")
	if len(at.failed) != 1 || strings.Contains(at.failed[0].Error(), "half") {
		t.Errorf("told %v, want one thing", at.failed)
	}
	write(pkcs8(fresh))
	by(fresh, "after the change")
	_ = os.Remove(name)
	by(fresh, "without a file")
	if len(at.failed) != 2 {
		t.Errorf("told %v, want two things", at.failed)
	}
}

func TestSecrets(t *testing.T) {
	if sent := form(t, InBody("gate way", "s3cr%t: +")); sent.Get("client_id") != "gate way" || sent.Get("client_secret") != "s3cr%t: +" {
		t.Errorf("sent %v", sent)
	}
	if sent := form(t, InBody("public", "")); sent.Get("client_id") != "public" || sent.Has("client_secret") {
		t.Errorf("sent %v", sent)
	}
	header := http.Header{}
	_ = Basic("gate:way", "p w").prove(nil, header)
	if id, secret, _ := (&http.Request{Header: header}).BasicAuth(); id != "gate%3Away" || secret != "p+w" {
		t.Errorf("sent %s %s", id, secret)
	}
	for _, address := range []string{"http://user:hunter2@127.0.0.1:1/t?key=hunter2", "http://\x7f/?hunter2"} {
		resp, err := Basic("gateway", "hunter2").Ask(t.Context(), address, "*/*", url.Values{})
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%v", err)
		}
		if resp != nil {
			_ = resp.Body.Close()
		}
	}
}

// pair is a certificate with its key, PEM.
func pair(serial int64, name string) (cert, key string) {
	private := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	c := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der := must(x509.CreateCertificate(rand.Reader, c, c, private.Public(), private))
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})), pkcs8(private)
}

// TestCertificate: an endpoint that demands a certificate gets the one of the
// file, and another after it was replaced; one that nobody trusts gets nothing.
func TestCertificate(t *testing.T) {
	cert1, key1 := pair(1, "one")
	cert2, key2 := pair(2, "two")
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM([]byte(cert1 + cert2))
	var shown atomic.Value
	var asked atomic.Int64
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		shown.Store(r.TLS.PeerCertificates[0].Subject.CommonName + " " + r.FormValue("client_id"))
	}))
	srv.TLS = &tls.Config{MinVersion: tls.VersionTLS12, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}
	srv.StartTLS()
	defer srv.Close()
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: srv.Certificate().Raw}))

	at := clock{at: t0}
	certFile, keyFile, caFile := file(t, cert1), file(t, key1), file(t, ca)
	client := must(Certificate("gateway", certFile, keyFile, caFile, at.clock()))
	defer client.Close()
	ask := func(c *Client, address string) error {
		resp, err := c.Ask(t.Context(), address, "*/*", url.Values{})
		if err == nil {
			_ = resp.Body.Close()
		}
		return err
	}
	if err := ask(client, srv.URL); err != nil || shown.Load() != "one gateway" {
		t.Fatalf("%v: %v", shown.Load(), err)
	}
	replace := func(name, data string) {
		if err := os.WriteFile(name, []byte(data), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	replace(certFile, cert2) // the key comes a moment later
	at.at = at.at.Add(time.Second)
	if err := ask(client, srv.URL); err != nil || shown.Load() != "one gateway" || len(at.failed) != 1 {
		t.Errorf("between the files: %v, %v, %v", shown.Load(), err, at.failed)
	}
	replace(keyFile, key2)
	at.at = at.at.Add(time.Second)
	if err := ask(client, srv.URL); err != nil || shown.Load() != "two gateway" {
		t.Errorf("after the change: %v: %v", shown.Load(), err)
	}

	before := asked.Load()
	for name, ca := range map[string]string{"another authority": cert1, "the system's": ""} {
		if ca != "" {
			ca = file(t, ca)
		}
		stranger := must(Certificate("gateway", certFile, keyFile, ca, at.clock()))
		if err := ask(stranger, srv.URL); err == nil {
			t.Errorf("%s: an endpoint that is not trusted was asked", name)
		}
		stranger.Close()
	}
	if err := ask(client, strings.Replace(srv.URL, "https", "http", 1)); err == nil || !strings.Contains(err.Error(), "https") {
		t.Errorf("without TLS: %v", err)
	}
	if n := asked.Load() - before; n != 0 {
		t.Errorf("asked %d times", n)
	}
	for name, files := range map[string][3]string{
		"a key of another": {cert1, key2, ca}, "no certificate": {key1, key1, ca}, "no authority": {cert1, key1, "none"},
		"an authority with a key": {cert1, key1, ca + key1}, "something behind": {cert1, key1, ca + "x"},
	} {
		if _, err := Certificate("gateway", file(t, files[0]), file(t, files[1]), file(t, files[2]), at.clock()); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
