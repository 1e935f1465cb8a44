package identity

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/jwt"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/keyset"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/memory"
)

// testHandler accepts the tokens of one issuer, of which it also gives one,
// and the API key "secret".
func testHandler(tb testing.TB) (h *Handler, token string) {
	tb.Helper()
	storage := &certmagic.FileStorage{Path: tb.TempDir()}
	i := &Issuer{Name: "local", identifier: devIdentifier("local"), paths: claimNames, expect: jwt.Expect{Leeway: 30 * time.Second}}
	set, err := devKeys(storage, i.Name)(tb.Context())
	if err != nil {
		tb.Fatal(err)
	}
	i.source = keyset.Static(set)
	token, err = mint(tb.Context(), storage, i, map[string]any{"sub": "ann", "tenant": "acme", "roles": []string{"clerk"}, "scope": "orders:read"}, time.Hour)
	if err != nil {
		tb.Fatal(err)
	}
	hash := sha256.Sum256([]byte("secret"))
	ring, err := readKeys(keysFile(tb, `[{"id":"ci","sha256":"`+hex.EncodeToString(hash[:])+`"}]`))
	if err != nil {
		tb.Fatal(err)
	}
	return &Handler{
		Keys: true, KeyHeader: "X-Api-Key",
		app:     &App{tokens: memory.New[*proven](64), keys: ring},
		issuers: map[string]*Issuer{i.identifier: i},
	}, token
}

func keysFile(tb testing.TB, content string) string {
	tb.Helper()
	name := filepath.Join(tb.TempDir(), "keys.json")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		tb.Fatal(err)
	}
	return name
}

// TestAssertedHeadersAreEachRequestsOwn: Caddy's request_header replaces text
// inside the slice it finds, which must not be every other request's too.
func TestAssertedHeadersAreEachRequestsOwn(t *testing.T) {
	p := prove(&gate.Principal{Subject: "ann", Roles: []string{"clerk"}, Method: gate.Bearer})
	first, second := http.Header{}, http.Header{}
	told := []int{0, 1, 4, 7} // subject, client, roles, method
	p.assert(first, told)
	first["X-Gatehouse-Roles"][0] = "admin"
	first["X-Gatehouse-Subject"] = append(first["X-Gatehouse-Subject"], "eve")
	p.assert(second, told)
	if got := fmt.Sprint(second); got != "map[X-Gatehouse-Method:[bearer] X-Gatehouse-Roles:[clerk] X-Gatehouse-Subject:[ann]]" {
		t.Errorf("the next request asserts %s", got)
	}
}

// TestSpacesAtTheEndsAreKept: HTTP trims field values, which would make two
// subjects one.
func TestSpacesAtTheEndsAreKept(t *testing.T) {
	for in, want := range map[string]string{"admin": "admin", " admin": "%20admin", "admin ": "admin%20", "a b": "a b", " ": "%20", "  ": "%20%20"} {
		if got := printable(in, ""); got != want {
			t.Errorf("%q goes upstream as %q, want %q", in, got, want)
		}
	}
}

// TestKeyNeverGoesUpstream: not even when another credential proved the caller.
func TestKeyNeverGoesUpstream(t *testing.T) {
	h, token := testHandler(t)
	for _, authorization := range []string{"", "Bearer " + token, "Bearer wrong"} {
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Header.Set("X-Api-Key", "secret")
		if authorization != "" {
			r.Header.Set("Authorization", authorization)
		}
		h.identify(r, time.Now())
		if r.Header.Get("X-Api-Key") != "" {
			t.Errorf("with authorization %.10q the key stays", authorization)
		}
	}
}

func TestChallenges(t *testing.T) {
	h, _ := testHandler(t)
	for _, tc := range []struct {
		name   string
		header http.Header
		want   string
	}{
		{"nothing presented", http.Header{}, `[Bearer realm="api" ApiKey realm="api", header="X-Api-Key"]`},
		{"a wrong key", http.Header{"X-Api-Key": {"wrong"}}, `[Bearer realm="api" ApiKey realm="api", header="X-Api-Key"]`},
		{"a wrong token", http.Header{"Authorization": {"Bearer x"}}, `[Bearer realm="api", error="invalid_token", error_description="The credential cannot be read." ApiKey realm="api", header="X-Api-Key"]`},
	} {
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.Header = tc.header
		_, _, d := h.identify(r, time.Now())
		if d == nil || fmt.Sprint(d.Header["Www-Authenticate"]) != tc.want {
			t.Errorf("%s: %+v", tc.name, d)
		}
	}
}

// TestBearerSpelledOddly: what another program may take for a bearer token is
// one, and not the absence of a credential.
func TestBearerSpelledOddly(t *testing.T) {
	for value, want := range map[string]bool{
		"Bearer": true, "Bearer\tx": true, "Bearer,x": true, "bearer=x": true, "Bearer  x": true,
		"Bearers x": false, "Basic Bearer": false, "": false,
	} {
		if _, there, _ := bearer(http.Header{"Authorization": {value}}); there != want {
			t.Errorf("%q: a bearer token is there: %v", value, there)
		}
	}
}

func TestKeysFileIsReadStrictly(t *testing.T) {
	one := `{"id":"a","sha256":"` + strings.Repeat("ab", 32) + `"}`
	for _, tc := range []struct{ content, says string }{
		{"[" + one + "]", ""},
		{"[]", ""},
		{"[" + one + "]\n[]", ":2:"},
		{"[\n" + one + ",\n" + strings.Replace(one, `"id"`, `"id":"b","id"`, 1) + "\n]", ":3: member name occurs twice"},
		{"[\n" + strings.Replace(one, `"id"`, `"ID"`, 1) + "\n]", `:2: unrecognized member "ID"`},
		{"[\n{\"id\":\"a\",\n\"expire\":\"2030-01-01T00:00:00Z\"}\n]", `unrecognized member "expire"`},
		{"[\n" + one + ",\n" + one + "\n]", `:3: key "a" stands twice`},
		{"[\n" + one + ",\n" + strings.Replace(one, `"a"`, `"b"`, 1) + "\n]", `:3: key "b" has the hash of another`},
		{"[\n" + strings.Replace(one, `"a"`, `"a","scopes":"x y"`, 1) + "\n]", `:2: key "a": member "scopes" cannot be a string`},
		{"[\n" + strings.Replace(one, `"a"`, `"a","expires":"2030-01-01"`, 1) + "\n]", `:2: key "a": "2030-01-01" is no time such as 2027-01-01T00:00:00Z`},
		{"{}", ":1: a list of keys is expected"},
		{"[null]", ":1:"},
		{"[" + one, ":1:"},
		{"", ":1:"},
	} {
		_, err := readKeys(keysFile(t, tc.content))
		if (err == nil) != (tc.says == "") || err != nil && !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, want %q", tc.content, err, tc.says)
		}
	}
}

func TestRememberedDoesNotAllocate(t *testing.T) {
	h, token := testHandler(t)
	now := time.Now()
	r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	if n := testing.AllocsPerRun(100, func() {
		if who, _, _ := h.identify(r, now); who == nil {
			t.Fatal("refused")
		}
	}); n > 0 {
		t.Errorf("a remembered token allocates %v times, want 0", n)
	}
}

// BenchmarkRemembered is what a caller costs on every request but its first.
func BenchmarkRemembered(b *testing.B) {
	h, token := testHandler(b)
	now := time.Now()
	r, _ := http.NewRequestWithContext(b.Context(), http.MethodGet, "/", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	b.Run("identify", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			h.identify(r, now)
		}
	})
	h.told = []int{0, 1, 2, 4, 5} // what is usual
	b.Run("identify-and-assert", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			who, _, _ := h.identify(r, now)
			who.assert(r.Header, h.told)
		}
	})
}

// TestUsual: where a principal can be proven in several ways, the upstream is
// told which it was.
func TestUsual(t *testing.T) {
	for _, tc := range []struct {
		h    Handler
		more bool
	}{
		{Handler{Issuers: []string{"a"}}, false},
		{Handler{MTLS: new(MTLS)}, false},
		{Handler{Issuers: []string{"a", "b"}}, true},
		{Handler{Keys: true, MTLS: new(MTLS)}, true},
	} {
		told := tc.h.usual()
		if slices.Contains(told, "issuer") != tc.more || slices.Contains(told, "method") != tc.more || !slices.Contains(told, "subject") {
			t.Errorf("%+v tells %v", tc.h, told)
		}
	}
}

// TestBoundToCertificate: the connection's own certificate counts, whoever has
// issued it.
func TestBoundToCertificate(t *testing.T) {
	own, other := &x509.Certificate{Raw: []byte("own")}, &x509.Certificate{Raw: []byte("other")}
	sum := sha256.Sum256(own.Raw)
	b := bindingOf(map[string]any{"cnf": map[string]any{"x5t#S256": base64.RawURLEncoding.EncodeToString(sum[:])}})
	for _, tc := range []struct {
		state *tls.ConnectionState
		good  bool
	}{
		{nil, false},
		{&tls.ConnectionState{}, false},
		{&tls.ConnectionState{PeerCertificates: []*x509.Certificate{own}}, true},
		{&tls.ConnectionState{PeerCertificates: []*x509.Certificate{other, own}}, false},
	} {
		r, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "/", nil)
		r.TLS = tc.state
		if d := new(Handler).bound(r, b, credential{token: "t"}, time.Now()); (d == nil) != tc.good {
			t.Errorf("%+v: %v", tc.state, d)
		}
	}
}
