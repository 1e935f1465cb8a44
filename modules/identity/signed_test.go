package identity

import (
	"crypto/x509"
	"math/big"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/signer"
)

func newTellJWT(tb testing.TB) *TellJWT {
	tb.Helper()
	dir, err := os.MkdirTemp("", "keys") //nolint:usetesting // see the cleanup
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { // a reading that runs behind the requests may still have its lock there
		for range 500 {
			if err = os.RemoveAll(dir); err == nil {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
		tb.Error(err)
	})
	return &TellJWT{
		Audience: []string{"orders"}, Header: "X-Gatehouse-Identity", Lifetime: caddy.Duration(time.Minute), Claims: signedFactNames,
		issuer: "gatehouse",
		signer: &signer.Signer{Store: &certmagic.FileStorage{Path: dir}, Alg: "ES256", Rotate: 30 * 24 * time.Hour, Kept: new(signer.Kept)},
	}
}

func told(t *testing.T, j *TellJWT, who *proven, now time.Time) string {
	t.Helper()
	r := &http.Request{Header: http.Header{}}
	if d := j.tell(r, who, now); d != nil {
		t.Fatal(d)
	}
	return r.Header.Get("X-Gatehouse-Identity")
}

// TestTellRenews: one token for half its lifetime, for certificates too; and a
// principal remembers a bounded number of upstreams.
func TestTellRenews(t *testing.T) {
	t0 := time.Now()
	j := newTellJWT(t)
	who := prove(&gate.Principal{Subject: "ann", Method: gate.Bearer})
	first := told(t, j, who, t0)
	if told(t, j, who, t0.Add(29*time.Second)) != first {
		t.Error("signed again before half its lifetime was over")
	}
	second := told(t, j, who, t0.Add(30*time.Second))
	if second == first || told(t, j, who, t0.Add(31*time.Second)) != second {
		t.Error("not signed again, or twice")
	}
	who.ends = t0.Add(70 * time.Second)
	last := told(t, j, who, t0.Add(60*time.Second))
	if told(t, j, who, t0.Add(64*time.Second)) != last || told(t, j, who, t0.Add(66*time.Second)) == last {
		t.Error("a token of ten seconds is not good for five")
	}

	m := new(MTLS)
	if err := m.ready(); err != nil {
		t.Fatal(err)
	}
	cert := func(name string) *proven {
		who, err := m.holder(&x509.Certificate{Raw: []byte(name), SerialNumber: big.NewInt(1), DNSNames: []string{name}})
		if err != nil {
			t.Fatal(err)
		}
		return who
	}
	if one := told(t, j, cert("a"), t0); told(t, j, cert("a"), t0) != one {
		t.Error("the same certificate has two tokens")
	}
	if told(t, j, cert("a"), t0) == told(t, j, cert("b"), t0) {
		t.Error("two certificates have one token")
	}

	for range 3 * maxAssertions {
		other := *j
		told(t, &other, who, t0)
	}
	n := 0
	for a := who.asserted.Load(); a != nil; a = a.next {
		n++
	}
	if n > maxAssertions {
		t.Errorf("%d upstreams are remembered", n)
	}
}

// TestTellWhileKeysAreAway: a token that is there serves on for a while.
func TestTellWhileKeysAreAway(t *testing.T) {
	t0 := time.Now()
	j := newTellJWT(t)
	who := prove(&gate.Principal{Subject: "ann", Method: gate.Bearer})
	first := told(t, j, who, t0)
	j.signer = newTellJWT(t).signer
	j.signer.Store = &certmagic.FileStorage{Path: "/dev/null/nowhere"}
	if told(t, j, who, t0.Add(44*time.Second)) != first {
		t.Error("another token")
	}
	d := j.tell(&http.Request{Header: http.Header{}}, who, t0.Add(45*time.Second))
	if d == nil || d.Reason != gate.IdentityUnsigned || d.Header.Get("Retry-After") == "" || strings.Contains(d.Sentence(), "/dev") {
		t.Errorf("%v", d)
	}
}

// BenchmarkTell is what most requests pay: the token is there.
func BenchmarkTell(b *testing.B) {
	j := newTellJWT(b)
	who := prove(&gate.Principal{Subject: "ann", Tenant: "acme", Roles: []string{"user", "admin"}, Method: gate.Bearer})
	r := &http.Request{Header: http.Header{}}
	now := time.Now()
	if d := j.tell(r, who, now); d != nil {
		b.Fatal(d)
	}
	b.ReportAllocs()
	for b.Loop() {
		_ = j.tell(r, who, now)
	}
}
