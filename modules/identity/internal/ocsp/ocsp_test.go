package ocsp

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	xocsp "golang.org/x/crypto/ocsp"
)

var now = time.Now().Truncate(time.Second)

// authority makes an authority and a certificate of it.
func authority(tb testing.TB) (ca, leaf *x509.Certificate, key *ecdsa.PrivateKey) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	issue := func(template, parent *x509.Certificate) *x509.Certificate {
		template.NotBefore, template.NotAfter = now.Add(-time.Hour), now.Add(time.Hour)
		der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, key)
		if err != nil {
			tb.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			tb.Fatal(err)
		}
		return c
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true}
	ca = issue(template, template)
	return ca, issue(&x509.Certificate{SerialNumber: big.NewInt(7)}, ca), key
}

func sign(tb testing.TB, ca *x509.Certificate, key *ecdsa.PrivateKey, r xocsp.Response) []byte {
	tb.Helper()
	der, err := xocsp.CreateResponse(ca, ca, r, key)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

func TestRead(t *testing.T) {
	ca, leaf, key := authority(t)
	_, _, other := authority(t)
	for _, tc := range []struct {
		name string
		r    xocsp.Response
		by   *ecdsa.PrivateKey
		want Status
		good bool
	}{
		{"good", xocsp.Response{ThisUpdate: now, NextUpdate: now.Add(time.Minute)}, key, Good, true},
		{"revoked", xocsp.Response{Status: xocsp.Revoked, RevokedAt: now, ThisUpdate: now, NextUpdate: now.Add(time.Minute)}, key, Revoked, true},
		{"not known", xocsp.Response{Status: xocsp.Unknown, ThisUpdate: now, NextUpdate: now.Add(time.Minute)}, key, Unknown, true},
		{"without an end", xocsp.Response{ThisUpdate: now}, key, Good, true},
		{"ended", xocsp.Response{ThisUpdate: now.Add(-time.Hour), NextUpdate: now}, key, Unknown, false},
		{"without an end, and old", xocsp.Response{ThisUpdate: now.Add(-time.Hour)}, key, Unknown, false},
		{"from the future", xocsp.Response{ThisUpdate: now.Add(time.Hour), NextUpdate: now.Add(2 * time.Hour)}, key, Unknown, false},
		{"about another", xocsp.Response{SerialNumber: big.NewInt(8), ThisUpdate: now, NextUpdate: now.Add(time.Minute)}, key, Unknown, false},
		{"of another", xocsp.Response{ThisUpdate: now, NextUpdate: now.Add(time.Minute)}, other, Unknown, false},
	} {
		if tc.r.SerialNumber == nil {
			tc.r.SerialNumber = leaf.SerialNumber
		}
		got, err := read(sign(t, ca, tc.by, tc.r), leaf, ca, now)
		if got.status != tc.want || (err == nil) != tc.good || err == nil && !got.until.After(now) {
			t.Errorf("%s: %+v, %v", tc.name, got, err)
		}
	}
}

// TestAskOnce: however many ask, there is one question; a responder that fails
// is left alone for a while.
func TestAskOnce(t *testing.T) {
	ca, leaf, key := authority(t)
	var asked atomic.Int64
	var down atomic.Bool
	held := make(chan struct{})
	answer := sign(t, ca, key, xocsp.Response{SerialNumber: leaf.SerialNumber, ThisUpdate: now, NextUpdate: now.Add(time.Minute)})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		if down.Load() {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		<-held
		_, _ = w.Write(answer)
	}))
	defer srv.Close()
	a := New(Settings{Responder: srv.URL, Timeout: 5 * time.Second}, 64)
	defer func() { _ = a.Destruct() }()
	var wg sync.WaitGroup
	for range 50 {
		wg.Go(func() {
			if s, err := a.About(t.Context(), leaf, ca, now); s != Good || err != nil {
				t.Errorf("%v, %v", s, err)
			}
		})
	}
	for asked.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	close(held)
	wg.Wait()
	if n := asked.Load(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	down.Store(true)
	late := now.Add(time.Minute) // the answer has ended
	for range 5 {
		if s, err := a.About(t.Context(), leaf, ca, late); s != Unknown || err == nil {
			t.Errorf("%v, %v", s, err)
		}
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("a responder that is down was asked %d times", n-1)
	}
}

// TestRevokedStays: who makes the responder fail does not thereby get back what
// was taken.
func TestRevokedStays(t *testing.T) {
	ca, leaf, key := authority(t)
	var down atomic.Bool
	answer := sign(t, ca, key, xocsp.Response{Status: xocsp.Revoked, RevokedAt: now, SerialNumber: leaf.SerialNumber, ThisUpdate: now, NextUpdate: now.Add(time.Minute)})
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if down.Load() {
			http.Error(w, "down", http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write(answer)
	}))
	defer srv.Close()
	a := New(Settings{Responder: srv.URL, Timeout: 5 * time.Second}, 64)
	defer func() { _ = a.Destruct() }()
	for range 3 { // asked, remembered, and with a responder that is down
		if s, err := a.About(t.Context(), leaf, ca, now); s != Revoked {
			t.Errorf("%v, %v", s, err)
		}
	}
	down.Store(true)
	for range 2 {
		if s, err := a.About(t.Context(), leaf, ca, now.Add(2*time.Minute)); s != Revoked {
			t.Errorf("when its answer has ended and it is down: %v, %v", s, err)
		}
	}
}

// TestPublicOnly: a certificate makes nobody ask on the gateway's own side.
func TestPublicOnly(t *testing.T) {
	for address, public := range map[string]bool{
		"93.184.216.34:80": true, "[2606:2800:220:1::1]:443": true,
		"10.0.0.1:80": false, "127.0.0.1:80": false, "169.254.169.254:80": false, "[::1]:80": false, "[fd00::1]:80": false, "0.0.0.0:80": false,
		"100.100.100.200:80": false, "[64:ff9b::a9fe:a9fe]:80": false, "[2002:7f00:1::]:80": false, "[::ffff:10.0.0.1]:80": false,
		"[::169.254.169.254]:80": false, "198.18.0.1:80": false, "192.0.0.192:80": false, "240.0.0.1:80": false, "[fec0::1]:80": false,
	} {
		if err := publicOnly("tcp", address, nil); (err == nil) != public {
			t.Errorf("%s: %v", address, err)
		}
	}
}

// TestSecretsStayHere: the responder's URL may hold a key.
func TestSecretsStayHere(t *testing.T) {
	ca, leaf, _ := authority(t)
	a := New(Settings{Responder: "http://127.0.0.1:1/?key=hunter2", Timeout: time.Second}, 64)
	defer func() { _ = a.Destruct() }()
	if _, err := a.About(t.Context(), leaf, ca, now); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
}

// FuzzRead: what is believed was signed by the authority, in whatever way it is
// written.
func FuzzRead(f *testing.F) {
	ca, leaf, key := authority(f)
	good := sign(f, ca, key, xocsp.Response{SerialNumber: leaf.SerialNumber, ThisUpdate: now, NextUpdate: now.Add(time.Minute)})
	f.Add(good)
	f.Add([]byte{0x30, 3, 0x0a, 1, 6})
	f.Fuzz(func(t *testing.T, data []byte) {
		got, err := read(data, leaf, ca, now)
		if err != nil {
			if got.status != Unknown {
				t.Fatal("an error and a status")
			}
			return
		}
		r, err := xocsp.ParseResponse(data, ca)
		if err != nil || r.CheckSignatureFrom(ca) != nil || r.SerialNumber.Cmp(leaf.SerialNumber) != 0 {
			t.Fatalf("believed: %v", err)
		}
	})
}
