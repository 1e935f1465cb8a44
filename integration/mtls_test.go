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
	"fmt"
	"io"
	"math/big"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// startMTLS is a gateway on a real port that asks for client certificates, with
// a site that a test writes. DIR stands for its folder, BACKEND for what echoes
// in the header Told what it was told.
func startMTLS(t *testing.T, mode, global, site string, trusted ...*x509.Certificate) *clientAuth {
	t.Helper()
	c := prepareMTLS(t)
	c.trust(t, trusted...)
	c.begin(t, mode, global, site)
	return c
}

func prepareMTLS(t *testing.T) *clientAuth {
	t.Helper()
	c := &clientAuth{gateway: prepare(t)}
	c.backend = newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		for _, fact := range []string{"Subject", "Tenant", "Plan", "Roles"} {
			w.Header().Set(fact, r.Header.Get("X-Gatehouse-"+fact))
		}
	})
	c.serve(t, 1)
	return c
}

// begin loads the site, on the ports of before if there was one.
func (c *clientAuth) begin(t *testing.T, mode, global, site string) {
	t.Helper()
	if err := c.tryBegin(t, mode, global, site); err != nil {
		t.Fatal(err)
	}
}

func (c *clientAuth) tryBegin(t *testing.T, mode, global, site string) error {
	t.Helper()
	httpPort := 0
	if c.port == 0 {
		httpPort, c.port = freePorts(t)
	}
	pool := "trust_pool file DIR/clients.pem"
	if mode == "request" {
		pool = ""
	}
	src := strings.NewReplacer("DIR", c.dir, "BACKEND", c.backend.addr()).Replace(c.secured(httpPort, c.port, global, host+` {
	tls DIR/cert.pem DIR/key.pem {
		client_auth {
			mode `+mode+`
			`+pool+`
		}
	}
	`+site+`
}`))
	var err error
	if c.raw, _, err = caddyconfig.GetAdapter("caddyfile").Adapt([]byte(src), nil); err != nil {
		return err
	}
	c.reload(t, true)
	return nil
}

// ask sends a request over a caller's connection.
func (c *caller) ask(t testing.TB, path string) answer {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+c.TLSClientConfig.ServerName+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.by.RoundTrip(req)
	for range 3 { // a connection of before a reload may end under the request
		if err == nil {
			break
		}
		resp, err = c.by.RoundTrip(req)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, resp.Trailer, string(body)}
}

var serials atomic.Int64

// testCA is an authority that signs what a test wants signed.
type testCA struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

// newCA makes an authority; a nil parent makes a root.
func newCA(t testing.TB, name string, parent *testCA) *testCA {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serials.Add(1)), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage:  x509.KeyUsageCertSign | x509.KeyUsageCRLSign | x509.KeyUsageDigitalSignature,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	signer := &testCA{template, key}
	if parent != nil {
		signer = parent
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer.Certificate, &key.PublicKey, signer.key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &testCA{c, key}
}

// sign makes a client's certificate; the chain goes along.
func (ca *testCA) sign(t testing.TB, change func(*x509.Certificate)) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serials.Add(1)), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		NotBefore: time.Now().Add(-10 * time.Minute), NotAfter: time.Now().Add(time.Hour),
	}
	change(template)
	der, err := x509.CreateCertificate(rand.Reader, template, ca.Certificate, &key.PublicKey, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der, ca.Raw}, PrivateKey: key, Leaf: leaf}
}

func withURI(words ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		for _, word := range words {
			u, err := url.Parse(word)
			if err != nil {
				panic(err)
			}
			c.URIs = append(c.URIs, u)
		}
	}
}

// route is an API of its own under a path.
func route(name, options string) string {
	return fmt.Sprintf("@%[1]s path /%[1]s\napi @%[1]s %[1]s {\nidentity {\nmtls {\n%[2]s\n}\ntell subject tenant plan roles\n}\nreverse_proxy BACKEND\n}\n", name, options)
}

// TestCertificatePrincipals reads subjects, tenants and roles from certificates
// that real connections bring.
func TestCertificatePrincipals(t *testing.T) {
	ca := newCA(t, "ca", nil)
	gw := startMTLS(t, "require_and_verify", "", route("usual", "")+
		route("spiffe", "trust_domain example.org\ntenant after ns\nroles segment 4\nplan o")+
		route("dns", "subject dns")+route("email", "subject email\nroles ou\ntenant ou")+route("cn", "subject cn")+
		route("dn", "subject dn\nroles ou")+route("fingerprint", "subject fingerprint"), ca.Certificate)

	web := ca.sign(t, func(c *x509.Certificate) {
		withURI("spiffe://example.org/ns/acme/sa/web")(c)
		c.DNSNames, c.EmailAddresses = []string{"Web.example.org", "other.example.org"}, []string{"web@example.org"}
		c.Subject = pkix.Name{CommonName: "web, the first", Organization: []string{"pro"}, OrganizationalUnit: []string{"clerk", "auditor"}}
	})
	sum := sha256.Sum256(web.Certificate[0])
	evil := ca.sign(t, withURI("spiffe://evil.org/ns/acme/sa/web"))
	nobody := ca.sign(t, func(*x509.Certificate) {})
	for _, tc := range []struct {
		path                         string
		who                          *tls.Certificate
		subject, tenant, plan, roles string
		reason                       string
	}{
		{"usual", web, "spiffe://example.org/ns/acme/sa/web", "", "", "", ""},
		{"spiffe", web, "spiffe://example.org/ns/acme/sa/web", "acme", "pro", "web", ""},
		{"dns", web, "web.example.org", "", "", "", ""},
		{"email", web, "", "", "", "", "identity.certificate_name"}, // two units could be the tenant
		{"cn", web, "web, the first", "", "", "", ""},
		{"dn", web, `CN=web\, the first,OU=clerk+OU=auditor,O=pro`, "", "", "clerk auditor", ""},
		{"fingerprint", web, hex.EncodeToString(sum[:]), "", "", "", ""},
		{"spiffe", evil, "", "", "", "", "identity.certificate_name"},
		{"usual", evil, "spiffe://evil.org/ns/acme/sa/web", "", "", "", ""},
		{"usual", nobody, "", "", "", "", "identity.certificate_name"},
	} {
		for range 2 { // the second time it is remembered
			a := gw.as(t, tc.who).ask(t, "/"+tc.path)
			if a.reason() != tc.reason || tc.reason == "" && a.status != http.StatusOK || a.header.Get("Subject") != tc.subject ||
				a.header.Get("Tenant") != tc.tenant || a.header.Get("Plan") != tc.plan || a.header.Get("Roles") != tc.roles {
				t.Errorf("%s: %d %s %v", tc.path, a.status, a.body, a.header)
			}
		}
	}
}

// TestCertificatePlaceholders: Caddy fills its placeholders from a certificate
// that nobody verified. They prove nothing, and neither does it.
func TestCertificatePlaceholders(t *testing.T) {
	stranger := newCA(t, "stranger", nil)
	mallory := stranger.sign(t, func(c *x509.Certificate) { c.Subject.CommonName = "admin" })
	gw := startMTLS(t, "request", "", "header Claimed {tls_client_subject}\n"+route("cn", "subject cn"))
	a := gw.as(t, mallory).ask(t, "/cn")
	if a.header.Get("Claimed") != "CN=admin" {
		t.Fatalf("the placeholder says %q: the trap is gone, and so is this test's point", a.header.Get("Claimed"))
	}
	if a.reason() != "identity.missing" || gw.backend.count() != 0 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestCertificatePolicy: one listener, and each route asks for other
// certificates. Each refusal names its rule in the log and not to the client.
func TestCertificatePolicy(t *testing.T) {
	root := newCA(t, "root", nil)
	partners, staff := newCA(t, "partners", root), newCA(t, "staff", root)
	sumOf := func(ca *testCA) string {
		sum := sha256.Sum256(ca.Raw)
		return hex.EncodeToString(sum[:])
	}
	gw := startMTLS(t, "require_and_verify", "", route("partners", "ca "+sumOf(partners))+route("staff", `ca "CN=staff"`)+
		route("root", "ca "+sumOf(root))+route("san", "san uri spiffe://example.org/ns/*/sa/*")+route("dns", "san dns *.example.org")+
		route("usage", "usage client_auth 1.2.3.4")+route("young", "max_age 5m")+route("old", "max_age 1h"), root.Certificate)
	ann := partners.sign(t, withURI("spiffe://example.org/ns/acme/sa/web"))
	bob := staff.sign(t, withURI("spiffe://example.org/ns/acme"))
	for _, tc := range []struct {
		path string
		who  *tls.Certificate
		rule string
	}{
		{"partners", ann, ""},
		{"partners", bob, "mtls ca"},
		{"staff", bob, ""},
		{"staff", ann, "mtls ca"},
		{"root", ann, ""},
		{"root", bob, ""},
		{"san", ann, ""},
		{"san", bob, "mtls san uri"},
		{"dns", ann, "mtls san dns"},
		{"usage", ann, "mtls usage"},
		{"young", ann, "mtls max_age"},
		{"old", ann, ""},
	} {
		logged := len(gw.decisions(t))
		a := gw.as(t, tc.who).ask(t, "/"+tc.path)
		reason := ""
		if tc.rule != "" {
			reason = "identity.certificate_policy"
		}
		if a.reason() != reason || (a.status == http.StatusOK) != (reason == "") || strings.Contains(a.body, "mtls") {
			t.Errorf("%s: %d %s", tc.path, a.status, a.body)
		}
		if log := fmt.Sprint(gw.decisions(t)[logged:]); tc.rule != "" && !strings.Contains(log, tc.rule) {
			t.Errorf("%s: the log does not name the rule: %s", tc.path, log)
		}
	}
}
