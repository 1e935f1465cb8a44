package integration

import (
	"net/http"
	"strings"
	"testing"
)

// TestSessionMeetsOthers: a session is revoked as other credentials are, and no
// step-up takes one for a token that says how somebody has logged in.
func TestSessionMeetsOthers(t *testing.T) {
	b := newBackend(t, nil)
	p := newLoginProvider(t, "http://localhost")
	gw := start(t, loginGlobals(p, ""), "api portal {\nidentity {\nsession main\nkeys\ntell jwt {\naudience orders\n}\n}\nhandle /strong* {\nrequire acr gold\n}\nhandle /recent* {\nrequire max_age 1h\n}\nreverse_proxy "+b.addr()+"\n}")
	s := gw.surfer(t)
	if a := s.login(t, p, "/", ann); a.status != 200 {
		t.Fatalf("%d %s by %v", a.status, a.body, s.path)
	}
	cookie := s.jarred()
	if r, _ := b.got(); r.Header.Get("X-Gatehouse-Identity") == "" || r.Header.Get("Cookie") != "" {
		t.Errorf("the upstream gets %v", r.Header)
	}
	for _, path := range []string{"/strong", "/recent"} {
		if a := gw.get(t, path, cookie); a.reason() != "require.scheme" {
			t.Errorf("%s with a session: %d %s", path, a.status, a.body)
		}
	}

	// In nobody's name, whatever the client says and sends beside.
	for name, h := range map[string]http.Header{
		"nothing":        {"X-Gatehouse-Identity": {"eyJ"}},
		"a wrong bearer": {"X-Gatehouse-Identity": {"eyJ"}, "Authorization": {"Bearer x"}},
		"a broken one":   {"Cookie": {cookie.Get("Cookie") + "; " + cookie.Get("Cookie")}},
	} {
		if a := gw.get(t, "/", h); a.status != 401 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}

	id := gw.revoke(t, `{"subject":"id1","issuer":"`+p.URL+`"`)
	a := gw.get(t, "/", cookie)
	if a.status != 401 || a.reason() != "identity.revoked" || !strings.Contains(strings.Join(a.header["Www-Authenticate"], " "), "Session ") {
		t.Errorf("revoked: %d %v %s", a.status, a.header, a.body)
	}
	if a := gw.surfer(t).login(t, p, "/", ann); a.reason() != "identity.revoked" {
		t.Error("who is revoked gets in by logging in again")
	}
	if _, err := gw.command(t, "revoke", "lift", id); err != nil {
		t.Fatal(err)
	}
	if a := gw.get(t, "/", cookie); a.status != 200 {
		t.Errorf("not any more: %d %s", a.status, a.body)
	}
}

// TestSessionsAreNobodyElses: a browser sends the cookies of all APIs of a host
// to each, whose upstream must not be able to use them.
func TestSessionsAreNobodyElses(t *testing.T) {
	b := newBackend(t, nil)
	p := newLoginProvider(t, "http://localhost")
	gw := start(t, loginGlobals(p, ""), "handle /other* {\napi other {\nidentity {\nkeys\noptional\n}\nreverse_proxy "+b.addr()+"\n}\n}\nhandle {\napi portal {\nidentity {\nsession main\n}\nrespond ok\n}\n}")
	s := gw.surfer(t)
	if a := s.login(t, p, "/", ann); a.body != "ok" {
		t.Fatalf("%d %s by %v", a.status, a.body, s.path)
	}
	cookie := s.jarred().Get("Cookie")
	for sent, want := range map[string]string{cookie: "", "theme=dark; " + cookie + "; gatehouses=1": "theme=dark; gatehouses=1", "a=b;c=d": "a=b;c=d"} {
		if a := gw.get(t, "/other", http.Header{"Cookie": {sent}}); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		if r, _ := b.got(); r.Header.Get("Cookie") != want {
			t.Errorf("of %.40q the upstream gets %.60q", sent, r.Header.Get("Cookie"))
		}
	}
}
