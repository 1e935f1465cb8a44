package integration

import (
	"fmt"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestSessionIsRenewed: when its token ends, a session is renewed once for all
// requests that carry it, by whichever cookie; on_error says what it is worth
// while the issuer is away; and it is over when the issuer says so.
func TestSessionIsRenewed(t *testing.T) {
	p := newLoginProvider(t, "http://localhost")
	site := "api portal {\nidentity {\nsession main\non_error %s\n}\nrespond {http.auth.user.id}\n}"
	gw := start(t, loginGlobals(p, ""), fmt.Sprintf(site, "closed"))
	s := gw.surfer(t)
	p.short.Store(int64(2 * time.Second))
	if a := s.login(t, p, "/", ann); a.body != "id1" {
		t.Fatalf("%d %s by %v", a.status, a.body, s.path)
	}
	old := s.jarred()
	p.short.Store(0) // the next is good for long
	eventually(t, "the session to be renewed", func() bool {
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if a := gw.get(t, "/", old); a.body != "id1" {
					t.Errorf("%d %s", a.status, a.body)
				}
			})
		}
		wg.Wait()
		return p.renewed.Load() > 0
	})
	a := gw.get(t, "/", old)
	if n := p.renewed.Load(); n != 1 || a.body != "id1" || a.header.Get("Set-Cookie") == "" {
		t.Errorf("renewed %d times: %d %v", n, a.status, a.header)
	}
	if a := gw.get(t, "/app.js", with(old, "Sec-Fetch-Dest", "script")); a.body != "id1" || a.header.Get("Set-Cookie") != "" {
		t.Errorf("a part of a page: %d %v", a.status, a.header)
	}
	if gw.metric(t, "gatehouse_identity_session_refreshes_total", `outcome="ok"`) != 1 {
		t.Error("it is not counted")
	}

	// Away.
	p.short.Store(int64(2 * time.Second))
	if a := s.login(t, p, "/.gatehouse/login", ann); a.body != "id1" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	p.away.Store(true)
	eventually(t, "the token to end", func() bool {
		a := gw.get(t, "/", s.jarred())
		return a.status == 503 && a.reason() == "identity.unavailable"
	})
	if err := gw.load(loginGlobals(p, ""), fmt.Sprintf(site, "open")); err != nil {
		t.Fatal(err)
	}
	if a := gw.get(t, "/", s.jarred()); a.body != "id1" {
		t.Errorf("open: %d %s", a.status, a.body)
	}

	// Back, and it knows nothing of the session.
	if err := p.TerminateSession(t.Context(), "id1", "portal"); err != nil {
		t.Fatal(err)
	}
	p.away.Store(false)
	eventually(t, "the session to be over", func() bool { return gw.get(t, "/", s.jarred()).reason() == "identity.session_ended" })
}

// TestSessionOfAPublicAnswer: an answer that comes with a new cookie is the
// person's alone, whatever its upstream has said of caches; with and without an api.
func TestSessionOfAPublicAnswer(t *testing.T) {
	b := newBackend(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Cache-Control", "public, max-age=600, s-maxage=900")
		w.Header().Set("CDN-Cache-Control", "max-age=900")
	})
	for name, site := range map[string]string{"in an api": "api portal {\n%s\n}", "alone": "route {\n%s\n}"} {
		p := newLoginProvider(t, "http://localhost")
		gw := start(t, loginGlobals(p, ""), fmt.Sprintf(site, "identity {\nsession main {\nidle 5s\n}\n}\nreverse_proxy "+b.addr()))
		s := gw.surfer(t)
		if a := s.login(t, p, "/", ann); a.status != 200 {
			t.Fatalf("%s: %d %s by %v", name, a.status, a.body, s.path)
		}
		cookie := s.jarred()
		var a answer
		eventually(t, "a new cookie", func() bool {
			a = gw.get(t, "/", cookie)
			if a.header.Get("Set-Cookie") == "" && a.header.Get("Cache-Control") != "public, max-age=600, s-maxage=900" {
				t.Errorf("%s: without a cookie: %v", name, a.header)
			}
			return a.header.Get("Set-Cookie") != ""
		})
		if a.header.Get("Cache-Control") != "private, max-age=600" || a.header.Get("Cdn-Cache-Control") != "" {
			t.Errorf("%s: with a cookie: %v", name, a.header)
		}
	}
}

// TestSessionInACluster: of two gateways one renews a session, whose refresh
// token an issuer takes once; the other serves it on, and both know of an end
// within a second.
func TestSessionInACluster(t *testing.T) {
	p := newLoginProvider(t, "http://localhost")
	r := startRedis(t)
	site := "api portal {\nidentity {\nsession main\n}\nrespond {http.auth.user.id}\n}"
	nodes := []*gateway{prepare(t), prepare(t)}
	for _, g := range nodes {
		src := g.caddyfile("cluster unix://"+r.sock+"\n"+loginGlobals(p, ""), site)
		g.process(t, strings.ReplaceAll(src, filepath.Join(g.dir, "storage"), filepath.Join(nodes[0].dir, "storage")))
		g.up(t, 1)
	}
	s := nodes[0].surfer(t)
	p.short.Store(int64(4 * time.Second))
	if a := s.login(t, p, "/", ann); a.body != "id1" {
		t.Fatalf("%d %s by %v", a.status, a.body, s.path)
	}
	old := s.jarred()
	p.short.Store(0)
	eventually(t, "the session to be renewed", func() bool {
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				if a := nodes[i%2].get(t, "/", old); a.body != "id1" {
					t.Errorf("gateway %d: %d %s", i%2, a.status, a.body)
				}
			})
		}
		wg.Wait()
		return p.renewed.Load() > 0
	})
	if n := p.renewed.Load(); n != 1 {
		t.Errorf("renewed %d times", n)
	}
	cookie := old
	for _, g := range nodes { // one of them has the new cookie, which is good at both
		if c := g.get(t, "/", old).header.Get("Set-Cookie"); c != "" {
			cookie = http.Header{"Cookie": {strings.Split(c, ";")[0]}}
		}
	}
	if cookie.Get("Cookie") == old.Get("Cookie") {
		t.Fatal("neither gateway has a new cookie")
	}
	for i, g := range nodes {
		if a := g.get(t, "/", cookie); a.body != "id1" {
			t.Errorf("the renewed session at gateway %d: %d %s", i, a.status, a.body)
		}
	}
	a := nodes[0].do(t, "POST", "/.gatehouse/backchannel-logout", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, url.Values{"logout_token": {p.logoutToken(t, nil)}}.Encode())
	if a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	ended := time.Now()
	eventually(t, "the other gateway to know of the end", func() bool { return nodes[1].get(t, "/", cookie).reason() == "identity.session_ended" })
	t.Logf("known after %v", time.Since(ended))
}

// TestBackchannelLogout: what the issuer ends is over at once, at every gateway
// that shares the storage, and after a restart.
func TestBackchannelLogout(t *testing.T) {
	p := newLoginProvider(t, "http://localhost")
	site := "api portal {\nidentity {\nsession main\n}\nrespond {http.auth.user.id}\n}"
	gw := start(t, loginGlobals(p, ""), site)
	s, other := gw.surfer(t), gw.surfer(t)
	for who, s := range map[string]*surfer{ann: s, bob: other} {
		if a := s.login(t, p, "/", who); a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
	}
	cookie := s.jarred()

	// A second gateway, which shares the storage and nothing else.
	second := prepare(t)
	second.process(t, strings.Replace(second.caddyfile(loginGlobals(p, ""), site), filepath.Join(second.dir, "storage"), filepath.Join(gw.dir, "storage"), 1))
	if a := second.get(t, "/", cookie); a.body != "id1" {
		t.Fatalf("the second gateway: %d %s", a.status, a.body)
	}

	post := func(token string) answer {
		t.Helper()
		return gw.do(t, "POST", "/.gatehouse/backchannel-logout", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, url.Values{"logout_token": {token}}.Encode())
	}
	for name, token := range map[string]string{
		"none":                "",
		"no token":            "hello",
		"for another client":  p.logoutToken(t, map[string]any{"aud": "billing"}),
		"of another issuer":   p.logoutToken(t, map[string]any{"iss": "https://evil.test"}),
		"with a nonce":        p.logoutToken(t, map[string]any{"nonce": "n"}),
		"without events":      p.logoutToken(t, map[string]any{"events": nil}),
		"old":                 p.logoutToken(t, map[string]any{"iat": time.Now().Unix() - 600}),
		"expired":             p.logoutToken(t, map[string]any{"exp": time.Now().Unix() - 60}),
		"of nobody":           p.logoutToken(t, map[string]any{"sub": nil}),
		"signed by no issuer": newIssuer(t, "k1").token(t, map[string]any{"iss": p.URL, "aud": "portal", "sub": "id1"}),
		"changed":             p.logoutToken(t, nil) + "x",
	} {
		if a := post(token); a.status != 400 || a.reason() != "identity.bad_logout" {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if a := gw.get(t, "/", cookie); a.body != "id1" {
		t.Fatalf("%d %s", a.status, a.body)
	}

	token := p.logoutToken(t, nil)
	if a := post(token); a.status != 200 || a.header.Get("Cache-Control") != "no-store" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := gw.get(t, "/", cookie); a.reason() != "identity.session_ended" {
		t.Errorf("right after: %d %s", a.status, a.body)
	}
	if a := gw.get(t, "/", other.jarred()); a.body != "id2" {
		t.Errorf("somebody else: %d %s", a.status, a.body)
	}
	eventually(t, "the second gateway to know", func() bool { return second.get(t, "/", cookie).reason() == "identity.session_ended" })

	// In again; the same token does nothing any more, and neither does a restart.
	if a := s.login(t, p, "/", ann); a.body != "id1" {
		t.Fatalf("%d %s by %v", a.status, a.body, s.path)
	}
	if a := post(token); a.reason() != "identity.bad_logout" {
		t.Errorf("used twice: %d %s", a.status, a.body)
	}
	third := prepare(t)
	third.process(t, strings.Replace(third.caddyfile(loginGlobals(p, ""), site), filepath.Join(third.dir, "storage"), filepath.Join(gw.dir, "storage"), 1))
	if a := third.get(t, "/", cookie); a.reason() != "identity.session_ended" {
		t.Errorf("after a restart: %d %s", a.status, a.body)
	}
	if a := third.get(t, "/", s.jarred()); a.body != "id1" {
		t.Errorf("after a restart, the new one: %d %s", a.status, a.body)
	}
}
