package identity

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/jwt"
)

func TestDevIssuer(t *testing.T) {
	main, local, second := &Issuer{Name: "main"}, &Issuer{Name: "local", Dev: true}, &Issuer{Name: "second", Dev: true}
	for _, tc := range []struct {
		issuers []*Issuer
		name    string
		want    *Issuer
		says    string
	}{
		{[]*Issuer{main, local}, "", local, ""},
		{[]*Issuer{main, local}, "local", local, ""},
		{[]*Issuer{main, local}, "main", nil, "not declared for development"},
		{[]*Issuer{main}, "", nil, "declares no issuer for development"},
		{[]*Issuer{local}, "locl", nil, `"locl" is not defined`},
		{[]*Issuer{local, second}, "", nil, "choose one"},
	} {
		got, err := (&App{Issuers: tc.issuers}).devIssuer(tc.name)
		if got != tc.want || err != nil && !strings.Contains(err.Error(), tc.says) || (err == nil) != (tc.says == "") {
			t.Errorf("%q of %d: %v %v", tc.name, len(tc.issuers), got, err)
		}
	}
}

// TestDevKeyIsMadeOnce: the gateway and the command line may both be first.
func TestDevKeyIsMadeOnce(t *testing.T) {
	storage := &certmagic.FileStorage{Path: t.TempDir()}
	ids := make([]string, 8)
	var wg sync.WaitGroup
	for i := range ids {
		wg.Go(func() {
			key, err := devKey(context.Background(), storage, "local")
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = keyID(key)
		})
	}
	wg.Wait()
	for _, id := range ids {
		if id != ids[0] || id == "" {
			t.Fatalf("several keys: %q", ids)
		}
	}
	// What one mints, the other verifies.
	token, err := mint(context.Background(), storage, &Issuer{Name: "local"}, map[string]any{"sub": "ann"}, time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	set, err := devKeys(storage, "local")(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	tok, err := jwt.Parse(token)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tok.Verify(set, &jwt.Expect{}, time.Now()); err != nil {
		t.Error(err)
	}
}

func TestPrincipal(t *testing.T) {
	i := &Issuer{Name: "main", Claims: map[string]string{"roles": "realm_access.roles", "tenant": "https://example.com/tenant"}}
	i.paths = map[string][]string{}
	for name, paths := range claimNames {
		i.paths[name] = paths
		if p := i.Claims[name]; p != "" {
			i.paths[name] = []string{p}
		}
	}
	p := i.principal(map[string]any{
		"sub": "ann", "azp": "app", "scp": []any{"a", "b", json.Number("1")}, "https://example.com/tenant": "acme",
		"realm_access": map[string]any{"roles": []any{"clerk"}}, "plan": json.Number("7"),
		"level": json.Number("3"), "ratio": json.Number("0.5"),
	})
	if p.Subject != "ann" || p.Client != "app" || p.Tenant != "acme" || p.Plan != "7" || !reflect.DeepEqual(p.Scopes, []string{"a", "b"}) || !reflect.DeepEqual(p.Roles, []string{"clerk"}) {
		t.Errorf("%+v", p)
	}
	if p.Claims["level"] != int64(3) || p.Claims["ratio"] != 0.5 {
		t.Errorf("numbers for expressions: %#v", p.Claims)
	}
}

func TestNewKey(t *testing.T) {
	a, hash := newKey()
	b, _ := newKey()
	sum := sha256.Sum256([]byte(a))
	if a == b || !strings.HasPrefix(a, "gh_") || len(a) != 3+32+1+8 || hash != hex.EncodeToString(sum[:]) {
		t.Errorf("%q %q %q", a, b, hash)
	}
	file := filepath.Join(t.TempDir(), "keys.json")
	if err := os.WriteFile(file, []byte(`[{"id":"ci","sha256":"`+hash+`","expires":"2030-01-01T00:00:00Z"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	ring, err := readKeys(file)
	if err != nil {
		t.Fatal(err)
	}
	day := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	if who, reason := ring.byHash.lookUp(a).good(day); who == nil || who.principal.Subject != "ci" {
		t.Errorf("%v %v", who, reason)
	}
	if _, reason := ring.byHash.lookUp(a).good(day.AddDate(10, 0, 0)); reason != gate.IdentityExpired {
		t.Errorf("expired: %v", reason)
	}
	if _, reason := ring.byHash.lookUp(b).good(day); reason != gate.IdentityInvalidAPIKey {
		t.Errorf("another key: %v", reason)
	}
}

// FuzzBearer: at most one token comes out of a header, and no part of another
// scheme's credential.
func FuzzBearer(f *testing.F) {
	f.Add("Bearer abc", "")
	f.Add("bEARER  a b", "")
	f.Add("DPoP abc", "")
	f.Add("Basic YTpi", "Bearer x")
	f.Fuzz(func(t *testing.T, first, second string) {
		h := http.Header{"Authorization": {first}}
		if second != "" {
			h["Authorization"] = append(h["Authorization"], second)
		}
		c, there, denial := bearer(h)
		if second != "" && (there || denial == nil) {
			t.Fatalf("two credentials: %q", c.token)
		}
		scheme := "bearer"
		if c.dpop {
			scheme = "dpop"
		}
		if there && (len(first) < len(scheme) || !strings.EqualFold(first[:len(scheme)], scheme) || !strings.HasSuffix(strings.TrimRight(first, " "), c.token)) {
			t.Fatalf("%q of %q", c.token, first)
		}
	})
}

// FuzzPrintable: what goes upstream can stand in a header field, and no two
// texts look the same there.
func FuzzPrintable(f *testing.F) {
	f.Add("ann", "a\r\nb")
	f.Add("%41", "A")
	f.Fuzz(func(t *testing.T, a, b string) {
		for _, separator := range []string{"", " "} {
			x, y := printable(a, separator), printable(b, separator)
			if (x == y) != (a == b) {
				t.Fatalf("%q and %q are %q and %q", a, b, x, y)
			}
			for _, c := range []byte(x) {
				if c < ' ' || c > '~' || separator == " " && c == ' ' {
					t.Fatalf("%q is %q", a, x)
				}
			}
		}
	})
}
