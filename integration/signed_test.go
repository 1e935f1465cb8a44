package integration

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jwt"
	"github.com/zitadel/oidc/v3/pkg/client/rp"
	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

const signedKeys = "http://localhost/.well-known/jwks.json"

// claims reads a token without verifying it.
func claimsOf(t *testing.T, token string) (header, claims map[string]any) {
	t.Helper()
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		t.Fatalf("%q is no token", token)
	}
	for i, to := range []*map[string]any{&header, &claims} {
		data, err := base64.RawURLEncoding.DecodeString(parts[i])
		if err == nil {
			err = json.Unmarshal(data, to)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return header, claims
}

func tellJWT(backend, more string) string {
	return "api demo {\njwks\nidentity main {\noptional\nkeys\ntell jwt {\naudience orders-backend\n" + more + "\n}\n}\nreverse_proxy " + backend + "\n}"
}

// TestTellJWT: the upstream is told by tokens that two libraries which are not
// ours verify with what the gateway publishes, and that nobody else can say.
func TestTellJWT(t *testing.T) {
	for _, alg := range []string{"ES256", "EdDSA"} {
		t.Run(alg, func(t *testing.T) {
			b := newBackend(t, nil)
			iss := newIssuer(t, "k1")
			gw := prepare(t)
			gw.write(t, "jwks.json", iss.jwks())
			const key = "good-key"
			gw.write(t, "keys.json", `[{"id":"ci","sha256":"`+hashOf(key)+`","tenant":"acme","plan":"pro"}]`)
			globals := "identity {\nissuer main https://id.test {\njwks jwks.json\naudience orders-api\nclaims roles realm_access.roles\n}\nkeys keys.json\nsigner {\nissuer https://api.test\nalgorithm " + alg + "\n}\n}"
			load := func(more string) {
				t.Helper()
				if err := gw.load(globals, tellJWT(b.addr(), more)); err != nil {
					t.Fatal(err)
				}
			}
			load("copy email absent")
			if _, err := os.Stat(filepath.Join(gw.dir, "storage/gatehouse/identity/signer")); err == nil {
				t.Error("a key was made before it was needed")
			}
			told := func(h http.Header) string {
				t.Helper()
				if a := gw.get(t, "/", h); a.status != 200 {
					t.Fatalf("%d %s", a.status, a.body)
				}
				r, _ := b.got()
				if n := len(r.Header["X-Gatehouse-Identity"]); n > 1 {
					t.Fatalf("%d of them", n)
				}
				return r.Header.Get("X-Gatehouse-Identity")
			}
			ann := bearer(iss.token(t, map[string]any{
				"sub": "ann", "email": "ann@acme.test", "client_id": "shop", "realm_access": map[string]any{"roles": []string{"a b", "clerk"}},
				"act": map[string]any{"sub": "bot"}, "aud": []string{"orders-api"},
			}))
			first := told(with(ann, "X-Gatehouse-Identity", "forged"))

			set, err := jwk.Fetch(t.Context(), signedKeys, jwk.WithHTTPClient(gw.client))
			if err != nil {
				t.Fatal(err)
			}
			token, err := jwt.Parse([]byte(first), jwt.WithKeySet(set), jwt.WithIssuer("https://api.test"), jwt.WithAudience("orders-backend"))
			if err != nil {
				t.Fatalf("one library: %v", err)
			}
			if life := token.Expiration().Sub(token.IssuedAt()); life != time.Minute || len(token.JwtID()) < 22 {
				t.Errorf("good for %v, id %q", life, token.JwtID())
			}
			v := op.NewAccessTokenVerifier("https://api.test", rp.NewRemoteKeySet(gw.client, signedKeys), op.WithSupportedAccessTokenSigningAlgorithms(alg))
			if _, err := op.VerifyAccessToken[*oidc.AccessTokenClaims](t.Context(), first, v); err != nil {
				t.Errorf("another library: %v", err)
			}
			header, claims := claimsOf(t, first)
			if only, _ := set.Key(0); header["typ"] != "JWT" || header["alg"] != alg || header["kid"] != only.KeyID() || len(header) != 3 || set.Len() != 1 {
				t.Errorf("header %v, %d keys", header, set.Len())
			}
			delete(claims, "jti")
			delete(claims, "iat")
			delete(claims, "exp")
			got, _ := json.Marshal(claims)
			const want = `{"act":{"sub":"bot"},"aud":"orders-backend","client_id":"shop","email":"ann@acme.test","idp":"main","iss":"https://api.test",` +
				`"method":"bearer","roles":["a b","clerk"],"scope":"orders:read orders:write","sub":"ann","tenant":"acme"}`
			if string(got) != want {
				t.Errorf("it says\n%s, want\n%s", got, want)
			}
			r, _ := b.got()
			for name := range r.Header {
				if strings.HasPrefix(name, "X-Gatehouse-") && name != "X-Gatehouse-Identity" {
					t.Errorf("%s is told as well", name)
				}
			}

			// One for each principal, not for each request; nobody has somebody's.
			if again := told(ann); again != first {
				t.Error("a second token for the same principal")
			}
			byKey := told(http.Header{"X-Api-Key": {key}})
			if _, c := claimsOf(t, byKey); c["sub"] != "ci" || c["method"] != "api_key" || c["plan"] != "pro" || c["tenant"] != "acme" {
				t.Errorf("by a key: %v", c)
			}
			if forged := told(http.Header{"X-Gatehouse-Identity": {first}}); forged != "" {
				t.Error("an anonymous client has handed in a token of its own")
			}
			// It does not outlive what it was made for.
			_, c := claimsOf(t, told(bearer(iss.token(t, map[string]any{"exp": time.Now().Add(-10 * time.Second).Unix()})))) // within the leeway
			if left := int64(c["exp"].(float64)) - time.Now().Unix(); left > 21 {
				t.Errorf("good for %ds more, its own credential for 20s", left)
			}

			// The keys are for everybody, and outlive a reload.
			a := gw.get(t, "/.well-known/jwks.json", nil)
			if a.status != 200 || a.header.Get("Content-Type") != "application/jwk-set+json" || a.header.Get("Cache-Control") != "public, max-age=300" || strings.Contains(a.body, `"d"`) {
				t.Errorf("%d %v %s", a.status, a.header, a.body)
			}
			if again := gw.get(t, "/.well-known/jwks.json", http.Header{"If-None-Match": {a.header.Get("Etag")}}); again.status != 304 || again.body != "" {
				t.Errorf("%d %s", again.status, again.body)
			}
			load("header Authorization\nclaims tenant")
			if again := gw.get(t, "/.well-known/jwks.json", nil); again.body != a.body {
				t.Errorf("after a reload %s, before %s", again.body, a.body)
			}
			told(ann)
			r, _ = b.got()
			if _, c := claimsOf(t, strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")); c["sub"] != "ann" || c["tenant"] != "acme" || c["scope"] != nil || c["email"] != nil {
				t.Errorf("in Authorization: %v", c)
			}
			told(http.Header{"Authorization": {"Basic YTpi"}})
			if r, _ = b.got(); r.Header["Authorization"] != nil {
				t.Errorf("an anonymous client's Authorization is %q", r.Header["Authorization"])
			}
			load("header X-Who\n}\nmode off\ndpop {")
			told(with(ann, "X-Who", "forged"))
			if r, _ = b.got(); r.Header["X-Who"] != nil {
				t.Errorf("with identity off, a client says %q", r.Header["X-Who"])
			}
			for name, text := range map[string]string{"/config": gw.ask(t, "/config/"), "the log": gw.log(t)} {
				for _, secret := range []string{first[:60], "PRIVATE KEY"} {
					if strings.Contains(text, secret) {
						t.Errorf("%s has %.12q in it", name, secret)
					}
				}
			}
		})
	}
}

// TestSignerStorageAway: a storage that gives and takes nothing stops no start.
// Who is to be told of is refused, or passes untold where that was chosen, until
// there is a key.
func TestSignerStorageAway(t *testing.T) {
	b := newBackend(t, nil)
	iss := newIssuer(t, "k1")
	gw := prepare(t)
	gw.write(t, "jwks.json", iss.jwks())
	gw.write(t, "keys.json", `[]`)
	if err := os.MkdirAll(filepath.Join(gw.dir, "storage/gatehouse"), 0o700); err != nil {
		t.Fatal(err)
	}
	block := gw.write(t, "storage/gatehouse/identity", "no folder")
	globals := "identity {\nissuer main https://id.test {\njwks jwks.json\naudience orders-api\n}\nkeys keys.json\n}"
	if err := gw.load(globals, tellJWT(b.addr(), "")); err != nil {
		t.Fatal(err)
	}
	ann := bearer(iss.token(t, nil))
	for _, path := range []string{"/", "/.well-known/jwks.json"} {
		if a := gw.get(t, path, ann); a.status != 503 || a.reason() != "identity.unsigned" || a.header.Get("Retry-After") == "" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if a := gw.get(t, "/", nil); a.status != 200 {
		t.Errorf("who is nobody needs no key: %d %s", a.status, a.body)
	}
	if err := gw.load(globals, tellJWT(b.addr(), "on_error open")); err != nil {
		t.Fatal(err)
	}
	if a := gw.get(t, "/", with(ann, "X-Gatehouse-Identity", "forged")); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if r, _ := b.got(); r.Header["X-Gatehouse-Identity"] != nil {
		t.Errorf("told %q", r.Header["X-Gatehouse-Identity"])
	}
	d := gw.decisions(t)
	if last := fmt.Sprint(d[len(d)-1]); !strings.Contains(last, "undecided") || !strings.Contains(last, "identity.unsigned") || !strings.Contains(last, "principal:") {
		t.Errorf("the log says %s", last)
	}
	if err := os.Remove(block); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a key", func() bool {
		gw.get(t, "/", ann)
		r, _ := b.got()
		return len(r.Header["X-Gatehouse-Identity"]) == 1
	})
}

// TestSeveralUpstreams: a principal's tokens for two upstreams are two.
func TestSeveralUpstreams(t *testing.T) {
	b := newBackend(t, nil)
	iss := newIssuer(t, "k1")
	gw := prepare(t)
	gw.write(t, "jwks.json", iss.jwks())
	var site strings.Builder
	for _, name := range []string{"orders", "stock"} {
		site.WriteString("handle /" + name + "/* {\nidentity main {\ntell jwt {\naudience " + name + "\n}\n}\nreverse_proxy " + b.addr() + "\n}\n")
	}
	if err := gw.load(fmt.Sprintf(identityGlobals, "jwks.json"), site.String()); err != nil {
		t.Fatal(err)
	}
	ann := bearer(iss.token(t, nil))
	seen := map[string][]string{}
	for range 3 {
		for _, name := range []string{"orders", "stock"} {
			if a := gw.get(t, "/"+name+"/1", ann); a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			r, _ := b.got()
			token := r.Header.Get("X-Gatehouse-Identity")
			if _, c := claimsOf(t, token); c["aud"] != name || c["iss"] != "gatehouse" {
				t.Errorf("%s is told %v", name, c)
			}
			if !slices.Contains(seen[name], token) {
				seen[name] = append(seen[name], token)
			}
		}
	}
	if n := len(seen["orders"]) + len(seen["stock"]); n != 2 {
		t.Errorf("%d tokens", n)
	}
}

// hashOf is what a file of keys has of a key.
func hashOf(key string) string {
	sum := sha256.Sum256([]byte(key))
	return hex.EncodeToString(sum[:])
}

// withoutSigner makes the storage refuse what the gateway would sign with.
func (g *gateway) withoutSigner(t *testing.T) {
	t.Helper()
	folder := filepath.Join(g.dir, "storage/gatehouse/identity")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	file := g.write(t, "storage/gatehouse/identity/signer", "no folder")
	t.Cleanup(func() { _ = os.Remove(file) })
}
