package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/session"
)

func testAuthority(tb testing.TB) string {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}))
}

// served gives a request what Caddy's server gives it.
func served(tb testing.TB, path string) *http.Request {
	tb.Helper()
	r := httptest.NewRequestWithContext(tb.Context(), http.MethodGet, path, nil)
	return r.WithContext(context.WithValue(r.Context(), caddyhttp.VarsCtxKey, map[string]any{}))
}

// TestRequestsOutliveTheirConfiguration: with a grace period, Caddy cleans up
// while requests still run. They must not fall over what was given back.
func TestRequestsOutliveTheirConfiguration(t *testing.T) {
	name := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(name, []byte(testAuthority(t)), 0o600); err != nil {
		t.Fatal(err)
	}
	m := &MTLS{TrustPool: &TrustPool{Files: []string{name}}, trustKey: t.Name()}
	pool, _, err := trustPools.LoadOrNew(m.trustKey, func() (caddy.Destructor, error) {
		p := &trust{read: m.TrustPool.reader(nil)}
		p.ctx, p.stop = context.WithCancel(context.Background())
		return p, p.look()
	})
	if err != nil {
		t.Fatal(err)
	}
	m.trust = pool.(*trust)
	s := &Session{key: sharedKey{issuer: t.Name()}}
	v, _, err := sharedPool.LoadOrNew(s.key, func() (caddy.Destructor, error) {
		return &sharedSessions{provider: &session.Provider{ID: "portal"}, renewer: session.NewRenewer(1)}, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.shared = v.(*sharedSessions)
	h := &Handler{MTLS: m, Session: s}

	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 200 {
			_, _ = m.chains(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{{NotAfter: time.Now().Add(time.Hour)}}}, time.Now())
			_ = s.shared.provider.ID
		}
	}()
	if err := h.Cleanup(); err != nil {
		t.Error(err)
	}
	<-done
	if _, denial := m.chains(&tls.ConnectionState{PeerCertificates: []*x509.Certificate{{NotAfter: time.Now().Add(time.Hour)}}}, time.Now()); denial == nil {
		t.Error("a certificate of nobody's is trusted")
	}
	if err := h.Cleanup(); err != nil {
		t.Errorf("cleaned up twice: %v", err)
	}
	if n, there := sharedPool.References(s.key); there {
		t.Errorf("%d still use the sessions", n)
	}
}

// TestNobodyIsTwo: of two handlers that both know the caller, the upstream is
// told what the last says, and not a mixture.
func TestNobodyIsTwo(t *testing.T) {
	h := &Handler{told: []int{0, 2, 4}}
	r := served(t, "/")
	ex := gate.Of(r)
	h.accept(ex, r, prove(&gate.Principal{Subject: "ann", Tenant: "acme", Roles: []string{"admin"}}), nil)
	h.accept(ex, r, prove(&gate.Principal{Subject: "bob"}), nil)
	if got := fmt.Sprint(r.Header); got != "map[X-Gatehouse-Subject:[bob]]" {
		t.Errorf("the upstream is told %s", got)
	}
}

// TestOffVouchesForNobody: with identity off, nobody may speak in the gateway's
// name either, and the cookie of a session is for no upstream.
func TestOffVouchesForNobody(t *testing.T) {
	h := &Handler{Mode: gate.Off, Keys: true, KeyHeader: "X-Api-Key", Session: &Session{Path: "/.gatehouse", issuer: &Issuer{}, shared: &sharedSessions{provider: &session.Provider{ID: "portal"}}}}
	r := served(t, "/")
	r.Header.Set("X-Gatehouse-Subject", "root")
	r.Header.Set("X-API-Key", "gh_secret")
	r.Header.Set("Cookie", "theme=dark; gatehouse_session=1.sealed")
	err := h.ServeHTTP(httptest.NewRecorder(), r, caddyhttp.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) error {
		if got := fmt.Sprint(r.Header); got != "map[Cookie:[theme=dark]]" {
			t.Errorf("the upstream gets %s", got)
		}
		return nil
	}))
	if err != nil {
		t.Error(err)
	}
}

// TestOwnPages: a request that no contract is asked about is one that identity
// itself answers.
func TestOwnPages(t *testing.T) {
	h := &Handler{Session: &Session{Path: "/.gatehouse"}}
	for path, want := range map[string]bool{
		"/.gatehouse/login": true, "/.gatehouse/backchannel-logout": true,
		"/.gatehouse/login/../../admin": false, "/.gatehouse/../admin": false, "/.gatehouse": false, "/admin": false,
	} {
		if got := h.Own(served(t, path)); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
	r := served(t, "/.gatehouse/login")
	gate.Of(r).Modes = gate.LiveModes{gate.Identity: gate.Off}
	if h.Own(r) {
		t.Error("while identity is off, nobody answers, and yet no contract is asked")
	}
}

// TestRenewedIsEnded: a session that the issuer calls by another sid since it was
// renewed is over by that one, for the cookie of before, too.
func TestRenewedIsEnded(t *testing.T) {
	claims := base64.RawURLEncoding.EncodeToString([]byte(`{"iss":"https://id.test","sub":"ann"}`))
	raw := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"ES256"}`)) + "." + claims + "." + base64.RawURLEncoding.EncodeToString(make([]byte, 64))
	now := time.Now()
	s := &Session{
		issuer: &Issuer{URL: "https://id.test", Login: &Login{}, paths: claimNames},
		shared: &sharedSessions{provider: &session.Provider{ID: "portal"}, renewer: session.NewRenewer(64)},
		vault:  &vault{ended: session.NewEnded(8)},
	}
	old := &session.Session{ID: "one", SID: "before", Subject: "ann", IDToken: raw, Refresh: "r", Began: now.UnixMilli()}
	renewed := *old
	renewed.SID, renewed.Gen = "since", 1
	if _, err := s.shared.renewer.Renew(t.Context(), netip.Prefix{}, old, now, func(context.Context) (*session.Session, error) { return &renewed, nil }); err != nil {
		t.Fatal(err)
	}
	l, err := s.open(old)
	if err != nil {
		t.Fatal(err)
	}
	v := &visit{Session: s}
	h := &Handler{app: &App{}}
	if next, denial := h.fresh(t.Context(), v, l, now); denial != nil || next.session.SID != "since" {
		t.Fatalf("%v %v", next, denial)
	}
	s.vault.ended.Add(session.End{Name: session.NameOfSID("https://id.test", "portal", "since"), At: now.UnixMilli(), Until: now.Add(time.Hour).UnixMilli()}, true)
	if next, denial := h.fresh(t.Context(), v, l, now); next != nil || denial == nil || denial.Reason != gate.IdentitySessionEnded {
		t.Errorf("%v %v", next, denial)
	}
}

// TestRefusedCertificate: a certificate that was refused is not verified again by
// every request, and is by one after a while.
func TestRefusedCertificate(t *testing.T) {
	read := func() *x509.Certificate {
		block, _ := pem.Decode([]byte(testAuthority(t)))
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	shown := read()
	data := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: read().Raw})
	p := &trust{read: func(context.Context) ([]poolPart, error) { return []poolPart{{"file", data}}, nil }}
	p.ctx, p.stop = context.WithCancel(t.Context())
	defer func() { _ = p.Destruct() }()
	if err := p.look(); err != nil {
		t.Fatal(err)
	}
	m := &MTLS{TrustPool: &TrustPool{}, trust: p}
	now, state := time.Now(), &tls.ConnectionState{PeerCertificates: []*x509.Certificate{shown}}
	if _, d := m.chains(state, now); d == nil || d.Reason != gate.IdentityCertificatePolicy {
		t.Fatalf("of another authority: %v", d)
	}
	p.current.Load().roots.AddCert(shown) // as if the verification came to another end
	one, d := m.chains(state, now.Add(refusedFor-1))
	two, e := m.chains(state, now.Add(refusedFor-1))
	if d == nil || e == nil || one != nil || two != nil || d == e {
		t.Errorf("verified again at once, or one denial is for two requests: %v, %v", d, e)
	}
	if chains, d := m.chains(state, now.Add(refusedFor)); d != nil || len(chains) != 1 {
		t.Errorf("after a while: %v %v", chains, d)
	}
}
