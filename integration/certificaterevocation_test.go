package integration

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/crypto/ocsp"
)

// crl signs a revocation list.
func (ca *testCA) crl(t *testing.T, number int64, revoked ...*tls.Certificate) []byte {
	t.Helper()
	template := &x509.RevocationList{Number: big.NewInt(number), ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(time.Hour)}
	for _, c := range revoked {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: c.Leaf.SerialNumber, RevocationTime: time.Now()})
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, ca.Certificate, ca.key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// put replaces a file at once, as whoever rotates a list does.
func (g *gateway) put(t *testing.T, name, content string) {
	t.Helper()
	if err := os.Rename(g.write(t, name+".new", content), filepath.Join(g.dir, name)); err != nil {
		t.Fatal(err)
	}
}

// TestRevocationList revokes certificates in a list that is a file, and in one
// behind a URL, while the gateway runs.
func TestRevocationList(t *testing.T) {
	root := newCA(t, "root", nil)
	ca, other := newCA(t, "clients", root), newCA(t, "others", root)
	ann, bob := ca.sign(t, withURI("urn:ann")), ca.sign(t, withURI("urn:bob"))
	eve := other.sign(t, withURI("urn:eve"))
	var served atomic.Pointer[[]byte]
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		data := served.Load()
		if data == nil {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write(*data)
	}))
	defer srv.Close()

	gw := prepareMTLS(t)
	gw.trust(t, root.Certificate)
	gw.write(t, "ca.pem", block(ca.Certificate))
	gw.write(t, "clients.crl", string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: ca.crl(t, 1, bob)})))
	global := `identity {
	revocation file crl DIR/clients.crl {
		ca      DIR/ca.pem
		refresh 20ms
	}
	revocation url crl ` + srv.URL + ` {
		ca       DIR/ca.pem
		refresh  20ms
		on_error closed
	}
	revocation lenient crl ` + srv.URL + `/lenient {
		ca       DIR/ca.pem
		refresh  20ms
		on_error open
	}
}`
	gw.begin(t, "require_and_verify", strings.ReplaceAll(global, "DIR", gw.dir), route("file", "revocation file")+route("url", "revocation url")+route("lenient", "revocation lenient"))
	ask := func(who *tls.Certificate, path string) string { return gw.as(t, who).ask(t, path).reason() }
	want := func(what string, who *tls.Certificate, path, reason string) {
		t.Helper()
		eventually(t, what, func() bool { return ask(who, path) == reason })
	}
	const revoked, unknown = "identity.certificate_revoked", "identity.revocation_unknown"
	want("ann to be good", ann, "/file", "")
	if got := ask(bob, "/file"); got != revoked {
		t.Errorf("a revoked certificate: %q", got)
	}
	if got := ask(eve, "/file"); got != unknown {
		t.Errorf("a certificate of an authority that the list is not about: %q", got)
	}

	// Somebody else's list changes nothing, nor does an older one; a newer does.
	gw.put(t, "clients.crl", string(other.crl(t, 9)))
	eventually(t, "the wrong list to be refused", func() bool { return gw.metric(t, "gatehouse_identity_crl_failures_total", `source="file"`) > 0 })
	if got := ask(bob, "/file"); got != revoked {
		t.Errorf("after another authority's list: %q", got)
	}
	gw.put(t, "clients.crl", string(ca.crl(t, 0)))
	before := gw.metric(t, "gatehouse_identity_crl_failures_total", `source="file"`)
	eventually(t, "the old list to be refused", func() bool { return gw.metric(t, "gatehouse_identity_crl_failures_total", `source="file"`) > before })
	if got := ask(bob, "/file"); got != revoked {
		t.Errorf("after an older list: %q", got)
	}
	held := gw.as(t, ann)
	if a := held.ask(t, "/file"); a.status != http.StatusOK {
		t.Fatalf("%d %s", a.status, a.body)
	}
	gw.put(t, "clients.crl", string(ca.crl(t, 2, ann)))
	eventually(t, "the list to revoke ann on the connection that she has", func() bool { return held.ask(t, "/file").reason() == revoked })
	if n := held.dialed.Load(); n != 1 {
		t.Errorf("it took %d connections", n)
	}
	want("bob to be taken off", bob, "/file", "")

	// A URL that is down, that comes up, and that goes away again.
	want("nobody to know", ann, "/url", unknown)
	if got := ask(ann, "/lenient"); got != "" {
		t.Errorf("on_error open: %q", got)
	}
	list := ca.crl(t, 1, bob)
	served.Store(&list)
	want("the list from the URL", ann, "/url", "")
	want("the list from the URL, for the other", ann, "/lenient", "")
	want("bob to be revoked by it", bob, "/lenient", revoked)
	served.Store(nil)
	failed := gw.metric(t, "gatehouse_identity_crl_failures_total", `source="url"`)
	eventually(t, "the URL to fail", func() bool { return gw.metric(t, "gatehouse_identity_crl_failures_total", `source="url"`) > failed })
	if a, b := ask(ann, "/url"), ask(bob, "/url"); a != "" || b != revoked {
		t.Errorf("the last good list: %q, %q", a, b)
	}
	if n := gw.metric(t, "gatehouse_identity_crl_entries", `source="url"`); n != 1 {
		t.Errorf("%v entries", n)
	}
	// An alarm about the end of a list must not go on when nobody has it any more.
	one, _, _ := strings.Cut(global, "revocation url")
	gw.begin(t, "require_and_verify", strings.ReplaceAll(one, "DIR", gw.dir)+"}", route("file", "revocation file"))
	eventually(t, "the list to be gone", func() bool {
		told := gw.ask(t, "/metrics")
		return strings.Contains(told, `gatehouse_identity_crl_next_update_timestamp_seconds{source="file"}`) && !strings.Contains(told, `gatehouse_identity_crl_next_update_timestamp_seconds{source="url"}`)
	})
}

// responder answers for an authority, as a test says.
type responder struct {
	*httptest.Server
	ca     *testCA
	signer *testCA // whose certificate goes along; nil: the authority itself
	asked  atomic.Int64
	status atomic.Pointer[func(serial *big.Int) int]
	life   time.Duration
	hang   atomic.Bool
	end    chan struct{}
}

func newResponder(t *testing.T, ca, signer *testCA) *responder {
	t.Helper()
	r := &responder{ca: ca, signer: signer, life: time.Hour, end: make(chan struct{})}
	r.answer(func(*big.Int) int { return ocsp.Good })
	r.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.asked.Add(1)
		if r.hang.Load() {
			<-r.end
			return
		}
		body, _ := io.ReadAll(req.Body)
		question, err := ocsp.ParseRequest(body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer := ocsp.Response{
			Status: (*r.status.Load())(question.SerialNumber), SerialNumber: question.SerialNumber, RevokedAt: time.Now().Add(-time.Minute),
			ThisUpdate: time.Now().Add(-time.Minute), NextUpdate: time.Now().Add(r.life),
		}
		by := r.ca
		if r.signer != nil {
			by = r.signer
			answer.Certificate = by.Certificate
		}
		der, err := ocsp.CreateResponse(r.ca.Certificate, by.Certificate, answer, by.key)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/ocsp-response")
		_, _ = w.Write(der)
	}))
	t.Cleanup(func() { close(r.end); r.Close() })
	return r
}

func (r *responder) answer(f func(*big.Int) int) { r.status.Store(&f) }

// delegate makes a certificate that signs for the authority, or pretends to.
func (ca *testCA) delegate(t *testing.T, usage x509.ExtKeyUsage) *testCA {
	t.Helper()
	c := ca.sign(t, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{usage} })
	return &testCA{c.Leaf, c.PrivateKey.(*ecdsa.PrivateKey)}
}

// TestRevocationResponder asks real responders: the configured one, and those
// that certificates name.
func TestRevocationResponder(t *testing.T) {
	ca := newCA(t, "clients", nil)
	main := newResponder(t, ca, nil)
	official := newResponder(t, ca, ca.delegate(t, x509.ExtKeyUsageOCSPSigning))
	forged := newResponder(t, ca, ca.delegate(t, x509.ExtKeyUsageClientAuth)) // a client's own certificate
	stuck := newResponder(t, ca, nil)
	stuck.hang.Store(true)
	ann, bob, lost := ca.sign(t, withURI("urn:ann")), ca.sign(t, withURI("urn:bob")), ca.sign(t, withURI("urn:lost"))
	main.answer(func(serial *big.Int) int {
		switch {
		case serial.Cmp(bob.Leaf.SerialNumber) == 0:
			return ocsp.Revoked
		case serial.Cmp(lost.Leaf.SerialNumber) == 0:
			return ocsp.Unknown
		}
		return ocsp.Good
	})
	secret := newResponder(t, ca, nil) // on our own side, which nobody may make us ask
	naming := func(r *responder) *tls.Certificate {
		return ca.sign(t, func(c *x509.Certificate) { withURI("urn:x")(c); c.OCSPServer = []string{r.URL} })
	}
	gw := startMTLS(t, "require_and_verify", `identity {
	revocation main ocsp `+main.URL+`
	revocation official ocsp `+official.URL+`
	revocation forged ocsp `+forged.URL+`
	revocation stuck ocsp `+stuck.URL+` {
		timeout 200ms
	}
	revocation open ocsp `+stuck.URL+`/open {
		timeout  200ms
		on_error open
	}
	revocation named ocsp {
		hosts `+strings.TrimPrefix(main.URL, "http://")+`
	}
	revocation any ocsp {
		hosts any
	}
}`, route("main", "revocation main")+route("official", "revocation official")+route("forged", "revocation forged")+route("stuck", "revocation stuck")+
		route("open", "revocation open")+route("named", "revocation named")+route("any", "revocation any")+route("both", "revocation stuck main"), ca.Certificate)
	const revoked, unknown = "identity.certificate_revoked", "identity.revocation_unknown"
	for _, tc := range []struct {
		name, path string
		who        *tls.Certificate
		reason     string
	}{
		{"good", "/main", ann, ""},
		{"revoked", "/main", bob, revoked},
		{"the responder does not know", "/main", lost, unknown},
		{"one that the authority has appointed", "/official", ann, ""},
		{"one that a client has appointed itself", "/forged", ann, unknown},
		{"no answer", "/stuck", ann, unknown},
		{"no answer, and that is as well", "/open", ann, ""},
		{"no answer, but another knows", "/both", bob, revoked},
		{"a responder that the certificate names", "/named", naming(main), ""},
		{"one that nobody said may be asked", "/named", naming(secret), unknown},
		{"any, but on our own side", "/any", naming(secret), unknown},
		{"a certificate that names none", "/any", ann, unknown},
	} {
		began := time.Now()
		a := gw.as(t, tc.who).ask(t, tc.path)
		if a.reason() != tc.reason || tc.reason == "" && a.status != http.StatusOK || tc.reason == unknown && a.status != http.StatusServiceUnavailable {
			t.Errorf("%s: %d %s", tc.name, a.status, a.body)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: it took %v", tc.name, took)
		}
	}
	if n := secret.asked.Load(); n != 0 {
		t.Errorf("a server of our own was asked %d times because a certificate names it", n)
	}
	asked := main.asked.Load()
	for range 5 {
		if a := gw.as(t, ann).ask(t, "/main"); a.status != http.StatusOK {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	gw.reload(t, true)
	if a := gw.as(t, bob).ask(t, "/main"); a.reason() != revoked {
		t.Errorf("after a reload: %d %s", a.status, a.body)
	}
	if n := main.asked.Load() - asked; n != 0 {
		t.Errorf("what is known was asked about %d times", n)
	}
}
