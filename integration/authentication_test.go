package integration

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// bob's password is hiccup.
const basicBob = "basic_auth {\nbob $2a$14$Zkx19XLiW6VYouLHR5NmfOFU0z2GTNmpkT/5qqR7hx4IjWJPDhjvG\n}"

// TestAuthentication: our provider stands in Caddy's own handler beside one of
// Caddy's, and either is enough; what it proves is known to Caddy's modules and
// to our stages.
func TestAuthentication(t *testing.T) {
	b := newBackend(t, nil)
	iss := newIssuer(t, "k1")
	gw := prepare(t)
	gw.write(t, "jwks.json", iss.jwks())
	site := func(providers, more string) string {
		return "authentication {\n" + providers + "\n}\n" + more + "\nreverse_proxy " + b.addr() + " {\nheader_up X-User {http.auth.user.id}/{http.auth.user.tenant}/{http.auth.user.scopes}\n}"
	}
	globals := fmt.Sprintf(identityGlobals, "jwks.json")
	if err := gw.load(globals, site("gatehouse main\n"+basicBob, "")); err != nil {
		t.Fatal(err)
	}
	ann := bearer(iss.token(t, map[string]any{"sub": "ann"}))
	bob := http.Header{"Authorization": {"Basic " + base64.StdEncoding.EncodeToString([]byte("bob:hiccup"))}}
	for range 6 { // Caddy tries providers in no order
		if a := gw.get(t, "/", ann); a.status != 200 {
			t.Fatalf("by a token: %d %s", a.status, a.body)
		}
		if r, _ := b.got(); r.Header.Get("X-User") != "ann/acme/orders:read orders:write" || r.Header.Get("X-Gatehouse-Subject") != "ann" {
			t.Errorf("the upstream is told %v", r.Header)
		}
		if a := gw.get(t, "/", with(bob, "X-Gatehouse-Subject", "root")); a.status != 200 {
			t.Fatalf("by a password: %d %s", a.status, a.body)
		}
		if r, _ := b.got(); !strings.HasPrefix(r.Header.Get("X-User"), "bob/") || r.Header["X-Gatehouse-Subject"] != nil {
			t.Errorf("the upstream is told %v", r.Header)
		}
		for name, h := range map[string]http.Header{"nothing": nil, "a wrong token": bearer("hello"), "another's token": bearer(newIssuer(t, "k1").token(t, nil))} {
			if a := gw.get(t, "/", h); a.status != 401 || a.header.Get("Www-Authenticate") == "" {
				t.Errorf("%s: %d %v", name, a.status, a.header)
			}
		}
	}
	// Our stages know whom it has proven, and Caddy's matchers do.
	if err := gw.load(globals, site("gatehouse main", "require scope orders:admin")); err != nil {
		t.Fatal(err)
	}
	if a := gw.get(t, "/", ann); a.status != 403 {
		t.Errorf("require: %d %s", a.status, a.body)
	}
	for _, who := range []string{"authentication {\ngatehouse main\n}", "identity main {\noptional\n}"} {
		matched := "@acme vars {http.auth.user.tenant} acme\n@cel expression `{http.auth.user.roles}.contains(\"clerk\")`\n" +
			"route {\n" + who + "\nheader @acme X-Vars yes\nheader @cel X-Cel yes\nrespond \"{http.auth.user.id}|{http.auth.user.plan}\"\n}"
		if err := gw.load(globals, matched); err != nil {
			t.Fatal(err)
		}
		a := gw.get(t, "/", bearer(iss.token(t, map[string]any{"sub": "ann", "realm_access": map[string]any{"roles": []string{"clerk"}}})))
		if a.header.Get("X-Vars") != "yes" || a.header.Get("X-Cel") != "yes" || a.body != "ann|" {
			t.Errorf("%s: %d %v %q", who, a.status, a.header, a.body)
		}
	}
	if a := gw.get(t, "/", nil); a.body != "|" || a.header.Get("X-Vars") != "" {
		t.Errorf("nobody: %v %q", a.header, a.body)
	}
	// An issuer that is away is nobody's proof.
	away := "identity {\nissuer main https://id.test {\njwks http://127.0.0.1:9/keys\naudience orders-api\non_error open\n}\n}"
	if err := gw.load(away, site("gatehouse main", "")); err != nil {
		t.Fatal(err)
	}
	hits := b.count()
	if a := gw.get(t, "/", ann); a.status != 401 || b.count() != hits {
		t.Errorf("while the issuer is away: %d %s", a.status, a.body)
	}
}
