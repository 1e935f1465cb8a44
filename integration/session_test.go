package integration

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// TestSession: a person logs in at a real provider, is a principal like any
// other, and logs out; a program is told so, and nothing is left of the cookie
// afterwards.
func TestSession(t *testing.T) {
	b := newBackend(t, nil)
	p := newLoginProvider(t, "http://localhost")
	site := "api portal {\ncontract portal.yaml\nidentity {\nsession main\n}\nreverse_proxy " + b.addr() + "\n}"
	gw := prepare(t)
	gw.write(t, "portal.yaml", `{"openapi":"3.1.0","info":{"title":"p","version":"1"},"paths":{"/page":{
		"get":{"security":[{"login":[]}],"responses":{"200":{"description":"ok"}}},"post":{"requestBody":{"content":{"application/x-www-form-urlencoded":{}}},"responses":{"200":{"description":"ok"}}}}},
		"components":{"securitySchemes":{"login":{"type":"openIdConnect","openIdConnectUrl":"https://id.test"}}}}`)
	if err := gw.load(loginGlobals(p, ""), site); err != nil {
		t.Fatal(err)
	}

	// Only people are sent away.
	for name, h := range map[string]http.Header{
		"a program":        nil,
		"a script's fetch": {"Accept": {"text/html"}, "Sec-Fetch-Mode": {"cors"}},
	} {
		a := gw.get(t, "/page", h)
		if a.status != 401 || a.reason() != "identity.missing" || !strings.Contains(a.header.Get("Www-Authenticate"), `Session realm="api", login="/.gatehouse/login"`) {
			t.Errorf("%s: %d %v %s", name, a.status, a.header, a.body)
		}
	}
	if a := gw.do(t, "POST", "/page", http.Header{"Accept": {"text/html"}}, "x"); a.status != 401 {
		t.Errorf("a form: %d %s", a.status, a.body)
	}
	if a := gw.get(t, "/page?a=b", http.Header{"Sec-Fetch-Mode": {"navigate"}}); a.status != 302 || a.header.Get("Location") != "/.gatehouse/login?return=%2Fpage%3Fa%3Db" {
		t.Errorf("a navigation: %d %v", a.status, a.header)
	}

	// In, with what the upstream is told, and without what it must not see.
	s := gw.surfer(t)
	theirs, _ := url.Parse("http://localhost/")
	s.Jar.SetCookies(theirs, []*http.Cookie{{Name: "theme", Value: "dark"}})
	if a := s.login(t, p, "/page?a=b", ann); a.status != 200 || a.body != `{"ok":true}` {
		t.Fatalf("%d %s by %v", a.status, a.body, s.path)
	}
	if last := s.path[len(s.path)-1]; last != "http://localhost/page?a=b" {
		t.Errorf("sent back to %s", last)
	}
	r, _ := b.got()
	if r.Header.Get("X-Gatehouse-Subject") != "id1" || r.Header.Get("Cookie") != "theme=dark" {
		t.Errorf("the upstream is told %v", r.Header)
	}
	cookie := s.jarred()
	if !strings.Contains(cookie.Get("Cookie"), "gatehouse_session_portal=1.") || strings.Contains(cookie.Get("Cookie"), ".login.") {
		t.Errorf("the cookies are %q", cookie)
	}

	// Another page's form is refused; the site's own is not.
	for name, c := range map[string]struct {
		header http.Header
		status int
	}{
		"no page":                         {nil, 403},
		"another site's":                  {http.Header{"Sec-Fetch-Site": {"cross-site"}, "Origin": {"http://localhost"}}, 403},
		"another host's of the site":      {http.Header{"Sec-Fetch-Site": {"same-site"}}, 403},
		"another origin's, an old one":    {http.Header{"Origin": {"http://evil.test"}}, 403},
		"nobody's, an old one":            {http.Header{"Origin": {"null"}}, 403},
		"its own":                         {http.Header{"Sec-Fetch-Site": {"same-origin"}}, 200},
		"its own, in an old browser":      {http.Header{"Origin": {"http://localhost"}}, 200},
		"two origins":                     {http.Header{"Origin": {"http://localhost", "http://evil.test"}}, 403},
		"a program that took the cookie":  {http.Header{"Accept": {"application/json"}}, 403},
		"own by Origin, but not by Fetch": {http.Header{"Sec-Fetch-Site": {"none"}, "Origin": {"http://localhost"}}, 403},
	} {
		if a := s.do(t, "POST", "/page", c.header, url.Values{"x": {"y"}}); a.status != c.status || c.status == 403 && a.reason() != "identity.cross_origin" {
			t.Errorf("a form of %s: %d %s", name, a.status, a.body)
		}
	}
	socket := http.Header{"Upgrade": {"websocket"}, "Sec-Websocket-Key": {"a2V5"}, "Connection": {"Upgrade"}, "Origin": {"http://evil.test"}, "Cookie": cookie["Cookie"]}
	if a := gw.get(t, "/page", socket); a.reason() != "identity.cross_origin" {
		t.Errorf("a WebSocket of another site: %d %s", a.status, a.body)
	}

	// Out: not because another site wants it, and then for good.
	if a := s.get(t, "/.gatehouse/logout", http.Header{"Sec-Fetch-Site": {"cross-site"}}); a.reason() != "identity.cross_origin" {
		t.Errorf("another site logs out: %d %s", a.status, a.body)
	}
	if a := s.get(t, "/page", nil); a.status != 200 {
		t.Fatalf("after that: %d %s", a.status, a.body)
	}
	if a := s.do(t, "POST", "/.gatehouse/logout", http.Header{"Sec-Fetch-Site": {"same-origin"}}, url.Values{}); a.status != 200 || !strings.Contains(a.body, "logged out") {
		t.Fatalf("%d %s by %v", a.status, a.body, s.path)
	}
	if by := strings.Join(s.path, " "); !strings.Contains(by, p.URL+"/end_session?") || !strings.Contains(by, "id_token_hint=") || !strings.HasSuffix(by, "http://localhost/.gatehouse/logged-out") {
		t.Errorf("the logout went by %s", by)
	}
	if left := s.jarred().Get("Cookie"); left != "theme=dark" {
		t.Errorf("left in the browser: %q", left)
	}
	if a := gw.get(t, "/page", cookie); a.status != 401 || a.reason() != "identity.session_ended" || !strings.Contains(fmt.Sprint(a.header["Set-Cookie"]), "gatehouse_session_portal=; Path=/; Max-Age=0") {
		t.Errorf("the cookie after the logout: %d %s %v", a.status, a.body, a.header)
	}
	if err := gw.load(loginGlobals(p, ""), site+"\n# again"); err != nil {
		t.Fatal(err)
	}
	if a := gw.get(t, "/page", cookie); a.reason() != "identity.session_ended" {
		t.Errorf("after a reload: %d %s", a.status, a.body)
	}

	// Nothing of it is told.
	secret := strings.TrimPrefix(strings.Split(cookie.Get("Cookie"), "gatehouse_session_portal=1.")[1], "")
	for name, text := range map[string]string{"/config": gw.ask(t, "/config/"), "the log": gw.log(t), "the metrics": gw.ask(t, "/metrics")} {
		for _, s := range []string{"p0rt%l", secret[:40], "eyJ"} {
			if strings.Contains(text, s) {
				t.Errorf("%s has %.6q in it", name, s)
			}
		}
	}
	for name, labels := range map[string]string{"logins": `outcome="ok"`, "events": `event="logout"`} {
		if gw.metric(t, "gatehouse_identity_session_"+name+"_total", labels) == 0 {
			t.Errorf("%s with %s are not counted", name, labels)
		}
	}
}

// TestSessionIsOfOne: a cookie that was made for one name, issuer or client is
// nothing to another, and one that was changed is nothing to anybody.
func TestSessionIsOfOne(t *testing.T) {
	p := newLoginProvider(t, "http://localhost")
	site := func(client string) (string, string) {
		globals := strings.Replace(loginGlobals(p, ""), "issuer main", "issuer "+client, 1)
		if client == "public" {
			globals = strings.Replace(strings.Replace(globals, "client_id portal", "client_id public", 1), "client_secret {env.PORTAL_SECRET}", "", 1)
		}
		api := "handle /%[1]s/* {\napi %[1]s {\nidentity {\nsession " + client + " {\npath /%[1]s/.gatehouse\ncookie_name %[2]s\n}\n}\nrespond {http.auth.user.id}\n}\n}\n"
		return globals, fmt.Sprintf(api, "one", "first") + fmt.Sprintf(api, "two", "first") + fmt.Sprintf(api, "three", "second")
	}
	gw := prepare(t)
	global, routes := site("portal")
	// The callback is at the path of the first; one cookie is for both.
	one := strings.Replace(routes, "path /one/.gatehouse", "path /.gatehouse", 1)
	one = strings.Replace(one, "handle /one/*", "@one path /one/* /.gatehouse/*\nhandle @one", 1)
	if err := gw.load(global, one); err != nil {
		t.Fatal(err)
	}
	s := gw.surfer(t)
	if a := s.login(t, p, "/one/x", bob); a.status != 200 || a.body != "id2" {
		t.Fatalf("%d %s by %v", a.status, a.body, s.path)
	}
	cookie := s.jarred().Get("Cookie")
	value := strings.TrimPrefix(cookie, "gatehouse_session_first=")
	is := func(what, path, cookie, reason string) {
		t.Helper()
		a := gw.get(t, path, http.Header{"Cookie": {cookie}})
		if a.reason() != reason || reason == "" && a.body != "id2" {
			t.Errorf("%s: %d %s, want %q", what, a.status, a.body, reason)
		}
	}
	is("its own", "/one/x", cookie, "")
	is("an API that names the same cookie", "/two/x", cookie, "")
	is("another name", "/three/x", cookie, "identity.missing")
	is("renamed", "/three/x", "gatehouse_session_second="+value, "identity.bad_session")
	is("changed", "/one/x", "gatehouse_session_first="+value[:len(value)-3]+"AAA", "identity.bad_session")
	is("two of them", "/one/x", cookie+"; "+cookie, "identity.bad_session")
	is("a guess", "/one/x", "gatehouse_session_first=1.guess", "identity.bad_session")
	is("half of one", "/one/x", strings.Replace(cookie, "=1.", "=2.", 1), "identity.bad_session")

	// A session that a stranger brings does not become that of who logs in.
	victim := gw.surfer(t)
	u, _ := url.Parse("http://localhost/")
	victim.Jar.SetCookies(u, []*http.Cookie{{Name: "gatehouse_session_first", Value: value, Path: "/"}})
	if a := victim.login(t, p, "/.gatehouse/login?return=/one/x", ann); a.body != "id1" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	is("the stranger after the login", "/one/x", cookie, "")
	if victim.jarred().Get("Cookie") == cookie {
		t.Error("the login kept the stranger's session")
	}

	// Without a secret, by PKCE alone; the other client's cookie is nothing to it.
	global, _ = site("public")
	if err := gw.load(global, strings.ReplaceAll(one, "session portal", "session public")); err != nil {
		t.Fatal(err)
	}
	is("another client's", "/one/x", cookie, "identity.bad_session")
	public := gw.surfer(t)
	if a := public.login(t, p, "/one/x", ann); a.body != "id1" {
		t.Errorf("a public client: %d %s by %v", a.status, a.body, public.path)
	}
}

// TestCallbacks: what comes back of one login has the issuer asked once, however
// often it is sent; and one customer's logins cannot have it asked without bound.
func TestCallbacks(t *testing.T) {
	var asked, now, most atomic.Int64
	var iss *httptest.Server
	iss = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path != "/token" {
			_, _ = fmt.Fprintf(w, `{"issuer":%[1]q,"authorization_endpoint":"%[1]s/auth","token_endpoint":"%[1]s/token","jwks_uri":"%[1]s/jwks"}`, iss.URL)
			return
		}
		asked.Add(1)
		for n, m := now.Add(1), most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		time.Sleep(200 * time.Millisecond)
		now.Add(-1)
		w.WriteHeader(http.StatusBadRequest)
		_, _ = fmt.Fprint(w, `{"error":"invalid_grant"}`)
	}))
	defer iss.Close()
	t.Setenv("PORTAL_SECRET", "s3cret")
	gw := start(t, "identity {\nissuer main "+iss.URL+" {\nlogin {\nclient_id portal\nclient_secret {env.PORTAL_SECRET}\n}\n}\n}", "api portal {\nidentity {\nsession main\n}\nrespond ok\n}")
	begin := func() (path string, cookie http.Header) {
		t.Helper()
		a := gw.get(t, "/.gatehouse/login", nil)
		to, err := url.Parse(a.header.Get("Location"))
		if a.status != 303 || err != nil {
			t.Fatalf("%d %s", a.status, a.body)
		}
		cookie = http.Header{"Cookie": {strings.SplitN(a.header.Get("Set-Cookie"), ";", 2)[0]}}
		return "/.gatehouse/callback?code=guess&state=" + to.Query().Get("state"), cookie
	}
	path, cookie := begin()
	var all sync.WaitGroup
	var failed, unknown atomic.Int64
	for range 100 {
		all.Go(func() {
			switch a := gw.get(t, path, cookie); a.reason() {
			case "identity.login_failed":
				failed.Add(1)
			case "identity.unknown_login":
				unknown.Add(1)
			default:
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	all.Wait()
	if asked.Load() != 1 || failed.Load() != 1 || unknown.Load() != 99 {
		t.Errorf("asked %d times; %d failed, %d are unknown", asked.Load(), failed.Load(), unknown.Load())
	}
	for range 40 {
		path, cookie := begin()
		all.Go(func() {
			if a := gw.get(t, path, cookie); a.reason() != "identity.login_failed" {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	all.Wait()
	if most.Load() > 16 {
		t.Errorf("%d questions at once", most.Load())
	}
}

// TestSessionLogins: several tabs may log in at once, each login is good once
// and in its own browser only, and no return leads anywhere else.
func TestSessionLogins(t *testing.T) {
	p := newLoginProvider(t, "http://localhost")
	gw := start(t, loginGlobals(p, ""), "api portal {\nidentity {\nsession main\n}\nrespond {http.auth.user.id}\n}")

	// Two tabs, of which the first ends last.
	s := gw.surfer(t)
	first := loginForm.FindStringSubmatch(s.get(t, "/first", nil).body)
	if a := s.login(t, p, "/second", ann); a.body != "id1" || !strings.HasSuffix(s.path[len(s.path)-1], "/second") {
		t.Fatalf("%d %s %v", a.status, a.body, s.path)
	}
	form := url.Values{"id": {first[1]}, "username": {ann}, "password": {"verysecure"}}
	if a := s.do(t, "POST", p.URL+"/login/username", nil, form); a.body != "id1" || !strings.HasSuffix(s.path[len(s.path)-1], "/first") {
		t.Errorf("the first tab: %d %s %v", a.status, a.body, s.path)
	}

	// What the provider sends is good once, and not in another browser.
	var callback string
	for _, at := range s.path {
		if strings.Contains(at, "/callback?code=") {
			callback = at
		}
	}
	if a := s.get(t, callback, nil); a.status != 400 || a.reason() != "identity.unknown_login" {
		t.Errorf("a second time: %d %s", a.status, a.body)
	}
	eve := gw.surfer(t)
	if a := eve.get(t, callback, nil); a.reason() != "identity.unknown_login" || len(eve.jarred().Get("Cookie")) > 0 {
		t.Errorf("in another browser: %d %s", a.status, a.body)
	}

	// Answers that are not those that were asked for.
	begin := func(s *surfer, more string) answer {
		t.Helper()
		a := gw.get(t, "/.gatehouse/login"+more, nil)
		if a.status != 303 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		to, err := url.Parse(a.header.Get("Location"))
		if err != nil || to.Query().Get("code_challenge_method") != "S256" || to.Query().Get("nonce") == "" {
			t.Fatalf("sent to %v", to)
		}
		u, _ := url.Parse("http://localhost/")
		set, err := http.ParseSetCookie(a.header.Get("Set-Cookie"))
		if err != nil || !set.HttpOnly || set.SameSite != http.SameSiteLaxMode || set.MaxAge != 600 {
			t.Fatalf("%v %v", set, err)
		}
		s.Jar.SetCookies(u, []*http.Cookie{set})
		a.body = to.Query().Get("state")
		return a
	}
	for name, query := range map[string]string{
		"a refusal":               "error=access_denied&state=%s",
		"no code":                 "state=%s",
		"a code of nobody":        "code=guess&state=%s",
		"another issuer's answer": "code=guess&state=%s&iss=https%%3A%%2F%%2Fevil.test",
	} {
		s := gw.surfer(t)
		state := begin(s, "").body
		if a := s.get(t, "/.gatehouse/callback?"+fmt.Sprintf(query, state), nil); a.status != 403 || a.reason() != "identity.login_failed" || strings.Contains(s.jarred().Get("Cookie"), "=") {
			t.Errorf("%s: %d %s; cookies %v", name, a.status, a.body, s.jarred())
		}
	}
	state := begin(s, "").body
	if a := s.get(t, "/.gatehouse/callback?code=x&code=y&state="+state, nil); a.reason() != "identity.unknown_login" {
		t.Errorf("two codes: %d %s", a.status, a.body)
	}
	for range 20 {
		begin(s, "")
	}
	many := s.jarred()
	if a := gw.get(t, "/.gatehouse/login", many); strings.Count(fmt.Sprint(a.header["Set-Cookie"]), "Max-Age=0") < 10 {
		t.Errorf("logins are kept for ever: %v", a.header["Set-Cookie"])
	}

	// Nowhere else.
	for _, to := range []string{"//evil.test", `/\evil.test`, "https://evil.test/", "/%09/evil.test", "/.//evil.test", "/.gatehouse/logout"} {
		s := gw.surfer(t)
		if a := s.login(t, p, "/.gatehouse/login?return="+url.QueryEscape(to), ann); a.body != "id1" || s.path[len(s.path)-1] != "http://localhost/" && to != "/%09/evil.test" {
			t.Errorf("%q led to %v: %d %s", to, s.path, a.status, a.body)
		}
	}
	for path, reason := range map[string]string{"/.gatehouse/nowhere": "identity.unknown_page", "/.gatehouse/backchannel-logout": "identity.unknown_page", "/.gatehouses": "identity.missing"} {
		if a := gw.get(t, path, nil); a.reason() != reason {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}

	// The provider is away.
	p.away.Store(true)
	if a := gw.get(t, "/first", s.jarred()); a.status != 200 {
		t.Errorf("a session, while the issuer is away: %d %s", a.status, a.body)
	}
	begin(s, "") // where to is known
	p.away.Store(false)
}

// TestSessionOverTLS: behind a proxy that ends TLS, the cookie is this host's
// alone, and never leaves without TLS.
func TestSessionOverTLS(t *testing.T) {
	p := newLoginProvider(t, "https://localhost")
	site := "api portal {\nidentity {\nsession main {\n%s\n}\n}\nrespond ok\n}"
	gw := start(t, behindProxy+loginGlobals(p, ""), fmt.Sprintf(site, ""))
	tls := http.Header{"X-Forwarded-Proto": {"https"}, "X-Forwarded-For": {"192.0.2.1"}}
	a := gw.get(t, "/.gatehouse/login", tls)
	if c := a.header.Get("Set-Cookie"); !strings.HasPrefix(c, "__Host-gatehouse_session_portal.login.") || !strings.Contains(c, "; Secure") || strings.Contains(c, "Domain") || !strings.Contains(c, "Path=/;") {
		t.Errorf("%d %s", a.status, c)
	}
	if to, _ := url.Parse(a.header.Get("Location")); to.Query().Get("redirect_uri") != "https://localhost/.gatehouse/callback" {
		t.Errorf("redirected to %v", to)
	}
	// A cookie without the mark may have been put there by anybody.
	if a := gw.get(t, "/", with(tls, "Cookie", "gatehouse_session_portal=1.x")); a.reason() != "identity.missing" {
		t.Errorf("%d %s", a.status, a.body)
	}
	for options, want := range map[string]string{
		"cookie_domain example.com\ncookie_name sso": "__Secure-gatehouse_session_sso.login.",
		"origin https://portal.example.com":          "__Host-gatehouse_session_portal.login.",
	} {
		if err := gw.load(loginGlobals(p, ""), fmt.Sprintf(site, options+"\nsame_site strict")); err != nil {
			t.Fatal(err)
		}
		a := gw.get(t, "/.gatehouse/login", with(nil, "X-Forwarded-Proto", "https"))
		c := a.header.Get("Set-Cookie")
		if strings.Contains(options, "origin") != strings.HasPrefix(c, want) { // nobody trusts the header any more
			t.Errorf("%q: %s", options, c)
		}
		if strings.Contains(options, "domain") && !strings.Contains(c, "Domain=example.com") {
			t.Errorf("%q: %s", options, c)
		}
	}
}

// TestSessionPagesOfNobody: a page that a matcher keeps from its identity is
// unknown like all that the contract has not.
func TestSessionPagesOfNobody(t *testing.T) {
	p := newLoginProvider(t)
	gw := prepare(t)
	gw.write(t, "orders.yaml", walkContract)
	if err := gw.load(loginGlobals(p, ""), "api demo {\ncontract orders.yaml\n@web header X-Web 1\nidentity @web {\nsession main\n}\nrespond reached\n}"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/.gatehouse/login", "/.gatehouse/logout", "/.gatehouse/logged-out", "/other"} {
		if a := gw.get(t, path, nil); a.status != 404 || a.reason() != "contract.unknown_path" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	if a := gw.get(t, "/.gatehouse/login", http.Header{"X-Web": {"1"}}); a.status != 303 {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestSessionBesideOthers: a token that is presented decides, a session counts
// where there is none, and who is optional needs neither.
func TestSessionBesideOthers(t *testing.T) {
	p := newLoginProvider(t, "http://localhost")
	site := "api portal {\nidentity {\nkeys\nsession main {\nidle %s\n}\n%s\n}\nrespond \"{http.auth.user.id}\"\n}"
	gw := start(t, loginGlobals(p, ""), fmt.Sprintf(site, "1h", ""))
	s := gw.surfer(t)
	if a := s.login(t, p, "/", ann); a.body != "id1" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := gw.get(t, "/", with(s.jarred(), "X-Api-Key", "guess")); a.reason() != "identity.invalid_api_key" {
		t.Errorf("a wrong key beside a session: %d %s", a.status, a.body)
	}
	if a := gw.get(t, "/", nil); len(a.header["Www-Authenticate"]) != 2 {
		t.Errorf("the ways there are: %v", a.header["Www-Authenticate"])
	}
	if err := gw.load(loginGlobals(p, ""), fmt.Sprintf(site, "1h", "optional")); err != nil {
		t.Fatal(err)
	}
	for name, h := range map[string]http.Header{"nothing": nil, "no session": {"Cookie": {"gatehouse_session_portal=1.x"}}, "a browser": {"Accept": {"text/html"}}} {
		if a := gw.get(t, "/", h); a.status != 200 || a.body != "" {
			t.Errorf("optional, with %s: %d %s", name, a.status, a.body)
		}
	}
	if a := gw.get(t, "/", s.jarred()); a.body != "id1" {
		t.Errorf("optional, with a session: %d %s", a.status, a.body)
	}

	// Off and shadow.
	if err := gw.load(loginGlobals(p, ""), fmt.Sprintf(site, "1h", "mode shadow")); err != nil {
		t.Fatal(err)
	}
	if a := gw.get(t, "/", http.Header{"Accept": {"text/html"}}); a.status != 200 {
		t.Errorf("shadow: %d %v", a.status, a.header)
	}
	if a := gw.get(t, "/.gatehouse/login", nil); a.status != 303 {
		t.Errorf("login in shadow: %d %s", a.status, a.body)
	}
	if err := gw.load(loginGlobals(p, ""), fmt.Sprintf(site, "1h", "mode off")); err != nil {
		t.Fatal(err)
	}
	if a := gw.get(t, "/.gatehouse/login", nil); a.status != 200 {
		t.Errorf("login while off: %d %s", a.status, a.body)
	}
	for word, options := range map[string]string{
		`issuer "main" has no audience`: "api a {\nidentity main\nrespond ok\n}",
	} {
		if err := gw.load(loginGlobals(p, ""), options); err == nil || !strings.Contains(err.Error(), word) {
			t.Errorf("%s: %v", options, err)
		}
	}
}

// sessionProvocations gives every reason of sessions once.
func sessionProvocations(t *testing.T) map[gate.Reason]provoked {
	p := newLoginProvider(t, "http://localhost")
	page := func(ask func(t *testing.T, gw *gateway) answer) provoked {
		return provoked{global: loginGlobals(p, ""), site: "identity {\nsession main {\nidle 1s\nlifetime 1h\n}\n}\nrespond ok", ask: ask}
	}
	in := func(t *testing.T, gw *gateway) *surfer {
		s := gw.surfer(t)
		if a := s.login(t, p, "/.gatehouse/login", ann); a.body != "ok" {
			t.Fatalf("%d %s", a.status, a.body)
		}
		return s
	}
	return map[gate.Reason]provoked{
		gate.IdentityLogin: page(func(t *testing.T, gw *gateway) answer { return gw.get(t, "/", http.Header{"Accept": {"text/html"}}) }),
		gate.IdentityBadSession: page(func(t *testing.T, gw *gateway) answer {
			return gw.get(t, "/", http.Header{"Cookie": {"gatehouse_session_reasons=1.x"}})
		}),
		gate.IdentitySessionExpired: page(func(t *testing.T, gw *gateway) (a answer) {
			cookie := in(t, gw).jarred()
			eventually(t, "the session to expire", func() bool { a = gw.get(t, "/", cookie); return a.status != 200 })
			return a
		}),
		gate.IdentitySessionEnded: page(func(t *testing.T, gw *gateway) answer {
			s := in(t, gw)
			cookie := s.jarred()
			s.get(t, "/.gatehouse/logout", http.Header{"Sec-Fetch-Site": {"same-origin"}})
			return gw.get(t, "/", cookie)
		}),
		gate.IdentityCrossOrigin: page(func(t *testing.T, gw *gateway) answer {
			return gw.do(t, "POST", "/", with(in(t, gw).jarred(), "Sec-Fetch-Site", "cross-site"), "x")
		}),
		gate.IdentityUnknownLogin: page(func(t *testing.T, gw *gateway) answer { return gw.get(t, "/.gatehouse/callback?code=x&state=y", nil) }),
		gate.IdentityLoginFailed: page(func(t *testing.T, gw *gateway) answer {
			a := gw.get(t, "/.gatehouse/login", nil)
			to, _ := url.Parse(a.header.Get("Location"))
			cookie, _, _ := strings.Cut(a.header.Get("Set-Cookie"), ";")
			return gw.get(t, "/.gatehouse/callback?error=access_denied&state="+to.Query().Get("state"), http.Header{"Cookie": {cookie}})
		}),
		gate.IdentityBadLogout: page(func(t *testing.T, gw *gateway) answer {
			return gw.do(t, "POST", "/.gatehouse/backchannel-logout", http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}, "logout_token=x")
		}),
		gate.IdentityUnknownPage: page(func(t *testing.T, gw *gateway) answer { return gw.get(t, "/.gatehouse/nowhere", nil) }),
	}
}

// TestSessionInABrowser: a real browser logs in, sees the page, changes
// something, and logs out.
func TestSessionInABrowser(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	origin := "http://" + addr
	b := newBrowser(t, origin)
	p := newLoginProvider(t, origin)
	back := newBackend(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprintf(w, `<!doctype html><link rel=icon href=data:,><h1>%s</h1><p id=cookie>%s</p><p id=method>%s</p>
			<form id=change method=post action=/orders></form><form id=out method=post action=/.gatehouse/logout></form>`, r.Header.Get("X-Gatehouse-Subject"), r.Header.Get("Cookie"), r.Method)
	})
	for _, c := range []struct {
		name, sameSite, login, issuer, tenant string
		pieces                                int // of the cookie
	}{
		{"lax", "lax", "", "", "", 1},
		{"strict", "strict", "", "", "", 1},
		{"access token in pieces", "lax", "principal access_token", "audience portal", "acme", 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			p.signs.Store(c.pieces > 1)
			gw := prepare(t)
			globals := strings.Replace(loginGlobals(p, c.login), "login {", c.issuer+"\nlogin {", 1)
			src := gw.caddyfile(globals, "api portal {\nidentity {\nsession main {\nsame_site "+c.sameSite+"\n}\n}\nreverse_proxy "+back.addr()+"\n}")
			src = strings.Replace(src, "http://localhost {\n\tbind unix/"+gw.sock, origin+" {", 1)
			if err := gw.loadFile(src); err != nil {
				t.Fatal(err)
			}
			b.do(t, chromedp.Navigate(origin+"/orders?page=2"))
			b.until(t, "the provider's form", `document.getElementById("username") !== null`)
			b.eval(t, fmt.Sprintf(`(() => { document.getElementById("username").value = %q; document.getElementById("password").value = "verysecure"; document.querySelector("button").click() })()`, ann))
			b.until(t, "the page", `document.querySelector("h1") !== null && document.querySelector("h1").textContent === "id1" && location.href === "`+origin+`/orders?page=2"`)
			if r, _ := back.got(); r.Header.Get("X-Gatehouse-Tenant") != c.tenant {
				t.Errorf("the upstream is told %v", r.Header)
			}
			if n := b.sessionCookies(t); n != c.pieces {
				t.Errorf("the session has %d pieces", n)
			}
			if seen := b.eval(t, `document.getElementById("cookie").textContent + document.cookie`); seen != "" {
				t.Errorf("the page and its scripts see %q", seen)
			}
			b.eval(t, `document.getElementById("change").submit()`)
			b.until(t, "the page after a form", `document.getElementById("method") !== null && document.getElementById("method").textContent === "POST"`)
			b.eval(t, `document.getElementById("out").submit()`)
			b.until(t, "that it is over", `document.title === "Logged out" && location.pathname === "/.gatehouse/logged-out"`)
			b.do(t, chromedp.Navigate(origin+"/orders"))
			b.until(t, "the provider's form again", `document.getElementById("username") !== null`)
		})
	}
}
