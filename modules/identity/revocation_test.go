package identity

import (
	"encoding/hex"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/revoked"
	"github.com/gatehouse-caddy/gatehouse/modules/registry"
)

func (s *revokedSet) has(tb testing.TB, v revocation) {
	tb.Helper()
	if v.Expires.IsZero() {
		v.Expires = time.Now().Add(time.Hour)
	}
	e, err := v.entry()
	if err != nil {
		tb.Fatal(err)
	}
	s.Replace(e.Mark.Part(), []revokedObject{{Entry: e}})
}

// TestRevokedBeatsMemory: a token that was verified and is remembered is refused
// at once, and is good again when the revocation is gone.
func TestRevokedBeatsMemory(t *testing.T) {
	h, token := testHandler(t)
	h.revoked = new(revokedSet)
	now := time.Now()
	ask := func() gate.Reason {
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		who, _, denial := h.identify(r, now)
		if denial == nil {
			denial = h.revocation(who, r, now)
		}
		if denial != nil {
			return denial.Reason
		}
		return gate.None
	}
	sum := tokenHash(token)
	for _, v := range []revocation{
		{Subject: "ann", Issuer: devIdentifier("local")},
		{Tenant: "acme"},
		{SHA256: hex.EncodeToString(sum[:])},
	} {
		if got := ask(); got != gate.None {
			t.Fatalf("before %+v: %v", v, got)
		}
		h.revoked.has(t, v)
		if got := ask(); got != gate.IdentityRevoked {
			t.Errorf("%+v: %v", v, got)
		}
		v.Expires = now.Add(time.Hour)
		e, _ := v.entry()
		h.revoked.Replace(e.Mark.Part(), nil)
	}
	// The one who revokes may be wrong about the time: what has expired is good.
	h.revoked.has(t, revocation{Tenant: "acme", Expires: now.Add(-time.Second)})
	if got := ask(); got != gate.None {
		t.Errorf("after it expired: %v", got)
	}
}

// TestRevokedDoesNotAllocate: nor with something revoked.
func TestRevokedDoesNotAllocate(t *testing.T) {
	h, token := testHandler(t)
	h.revoked = new(revokedSet)
	h.revoked.has(t, revocation{Tenant: "else"})
	now := time.Now()
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	if n := testing.AllocsPerRun(100, func() {
		who, _, _ := h.identify(r, now)
		if who == nil || h.revocation(who, r, now) != nil {
			t.Fatal("refused")
		}
	}); n > 0 {
		t.Errorf("a remembered token allocates %v times, want 0", n)
	}
}

// BenchmarkRevocation is what a million revocations cost a request.
func BenchmarkRevocation(b *testing.B) {
	h, token := testHandler(b)
	now := time.Now()
	r, _ := http.NewRequestWithContext(b.Context(), http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	who, _, _ := h.identify(r, now)
	for _, n := range []int{0, 1, 1_000_000} {
		h.revoked = new(revokedSet)
		all := make([][]revokedObject, revoked.Parts)
		for i := range n {
			m := revoked.Of(ofJTI, "https://id.test", strconv.Itoa(i))
			all[m.Part()] = append(all[m.Part()], revokedObject{Entry: revoked.Entry{Mark: m, Until: 1 << 31}})
		}
		for at, objects := range all {
			h.revoked.Replace(at, objects)
		}
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				_ = h.revocation(who, r, now)
			}
		})
	}
}

// TestTokenHash: what a holder can change without breaking the signature does
// not change the hash.
func TestTokenHash(t *testing.T) {
	if tokenHash("a.b.c") != tokenHash("a.b.d") || tokenHash("a.b.c") == tokenHash("a.c.c") || tokenHash("abc") == tokenHash("abd") {
		t.Error("hashes differ where tokens do not, or the other way round")
	}
}

// FuzzRevocation: what is read is about one thing that has an id, and reading it
// again gives the same.
func FuzzRevocation(f *testing.F) {
	f.Add(`{"jti":"a","issuer":"https://id.test","expires":"2030-01-01T00:00:00Z"}`)
	f.Add(`{"subject":"ann","issuer":"keys","before":"2026-01-01T00:00:00.5Z","expires":"2030-01-01T00:00:00Z","reason":"left"}`)
	f.Add(`{"sha256":"` + strings.Repeat("ab", 32) + `","expires":"2030-01-01T00:00:00Z"}`)
	f.Fuzz(func(t *testing.T, text string) {
		var v, again revocation
		if registry.Strict(json.RawMessage(text), &v) != nil {
			return
		}
		e, err := v.entry()
		if err != nil {
			return
		}
		n := 0
		for _, name := range []string{v.JTI, v.SHA256, v.Key, v.Subject, v.Tenant} {
			if name != "" {
				n++
			}
		}
		if n != 1 {
			t.Fatalf("%d things in %s", n, text)
		}
		data, err := json.Marshal(v)
		if err != nil || registry.Strict(data, &again) != nil {
			t.Fatalf("%s cannot be read again: %v", data, err)
		}
		if twice, err := again.entry(); err != nil || twice != e {
			t.Fatalf("%+v and %+v, %v", e, twice, err)
		}
	})
}
