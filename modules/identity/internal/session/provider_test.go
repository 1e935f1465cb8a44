package session

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/ask"
)

// TestRenewOnce: however many requests carry a session, its refresh token is
// used once, and those that come late with the cookie from before get what it
// has become.
func TestRenewOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewRenewer(16)
		s := &Session{ID: "1", Refresh: "r0", Seen: 5}
		asked := 0
		question := func(context.Context) (*Session, error) {
			asked++
			time.Sleep(time.Second)
			return &Session{ID: "1", Gen: 1, Refresh: "r1"}, nil
		}
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if got, err := n.Renew(t.Context(), netip.Prefix{}, s, time.Now(), question); err != nil || got.Refresh != "r1" {
					t.Errorf("%+v %v", got, err)
				}
			})
		}
		wg.Wait()
		if got, err := n.Renew(t.Context(), netip.Prefix{}, s, time.Now(), question); err != nil || got.Gen != 1 || asked != 1 {
			t.Errorf("late: %+v %v; asked %d times", got, err, asked)
		}
		if got := n.Latest(s); got.Gen != 1 || got.Seen != 5 {
			t.Errorf("latest: %+v", got)
		}
		if got := n.Latest(&Session{ID: "2", Refresh: "x"}); got.ID != "2" {
			t.Errorf("somebody else's: %+v", got)
		}
	})
}

// TestRenewWhileAway: a provider that is away is not asked by every request, and
// one that says no is no reason to wait.
func TestRenewWhileAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := NewRenewer(16)
		asked := 0
		answer := ask.ErrAway
		question := func(context.Context) (*Session, error) { asked++; return nil, answer }
		for i := range 200 {
			s := &Session{ID: string(rune('a' + i)), Refresh: "r"}
			if _, err := n.Renew(t.Context(), netip.Prefix{}, s, time.Now(), question); !errors.Is(err, ask.ErrAway) {
				t.Fatal(err)
			}
			time.Sleep(100 * time.Millisecond)
		}
		if asked < 4 || asked > 6 { // after 1, 2, 4, 8 seconds
			t.Errorf("asked %d times in 20 seconds", asked)
		}
		time.Sleep(30 * time.Second)
		answer, asked = &Refused{Code: "invalid_grant"}, 0
		for i := range 10 {
			_, err := n.Renew(t.Context(), netip.Prefix{}, &Session{ID: "z", Gen: i / 5, Refresh: "r"}, time.Now(), question)
			if _, no := errors.AsType[*Refused](err); !no {
				t.Fatal(err)
			}
		}
		if asked != 2 { // a cookie may be sent on and on
			t.Errorf("asked %d times", asked)
		}
		slow := func(context.Context) (*Session, error) { time.Sleep(time.Hour); return nil, ask.ErrAway }
		began := time.Now()
		if _, err := n.Renew(t.Context(), netip.Prefix{}, &Session{ID: "y", Refresh: "r"}, time.Now(), slow); !errors.Is(err, ask.ErrBusy) || time.Since(began) > ask.Patience {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		time.Sleep(time.Hour)
	})
}

func TestTokenEndpoint(t *testing.T) {
	var form url.Values
	var user, pass string
	status, answer := 200, ""
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		form, _ = url.ParseQuery(string(body))
		user, pass, _ = r.BasicAuth()
		w.WriteHeader(status)
		_, _ = io.WriteString(w, answer)
	}))
	t.Cleanup(srv.Close)
	e := &Endpoints{Token: srv.URL}
	l := NewLogin("/", "https://portal.test/cb", t0)
	p := &Provider{ID: "por tal", Secret: "s3cr%t"}
	const good = `{"access_token":"a","token_type":"Bearer","id_token":"i","refresh_token":"r","expires_in":300,"scope":"openid"}`

	answer = good
	got, err := p.Exchange(t.Context(), e, "c0de", l)
	if err != nil || *got != (Tokens{"i", "a", "r", "openid", 5 * time.Minute}) {
		t.Fatalf("%+v %v", got, err)
	}
	if user != "por+tal" || pass != "s3cr%25t" || form.Get("code") != "c0de" || form.Get("code_verifier") != l.Verifier || form.Get("redirect_uri") != l.Redirect || form.Get("client_secret") != "" {
		t.Errorf("%q %q %v", user, pass, form)
	}
	e.Methods = []string{"client_secret_post"}
	if _, err = p.Renew(t.Context(), e, "r0"); err != nil || user != "" || form.Get("client_secret") != "s3cr%t" || form.Get("refresh_token") != "r0" {
		t.Errorf("by post: %v %v", err, form)
	}
	public := &Provider{ID: "portal"}
	if _, err = public.Renew(t.Context(), e, "r0"); err != nil || user != "" || form.Get("client_id") != "portal" || form.Has("client_secret") {
		t.Errorf("public: %v %v", err, form)
	}

	for _, c := range []struct {
		name   string
		status int
		answer string
		no     bool // rather than away
	}{
		{"a no", 400, `{"error":"invalid_grant"}`, true},
		{"a no to more than was asked", 400, `{"error":"interaction_required"}`, true},
		{"a wrong secret of ours", 401, `{"error":"invalid_client"}`, false},
		{"the same, as some say it", 400, `{"error":"unauthorized_client"}`, false},
		{"an error page of a proxy", 403, `<html>`, false},
		{"down", 502, `{"error":"x"}`, false},
		{"not JSON", 200, `hello`, false},
		{"no token", 200, `{}`, false},
		{"another type", 200, strings.Replace(good, "Bearer", "DPoP", 1), false},
		{"too much", 200, `{"access_token":"` + strings.Repeat("a", maxAnswer) + `"}`, false},
		{"a redirect", 302, "", false},
	} {
		status, answer = c.status, c.answer
		got, err := p.Renew(t.Context(), e, "s3cret")
		_, no := errors.AsType[*Refused](err)
		if err == nil || no != c.no || errors.Is(err, ask.ErrAway) == c.no || strings.Contains(err.Error(), "s3c") {
			t.Errorf("%s: %+v %v", c.name, got, err)
		}
	}
	srv.Close()
	if _, err := p.Renew(t.Context(), e, "s3cret"); !errors.Is(err, ask.ErrAway) || strings.Contains(err.Error(), "s3c") {
		t.Errorf("nobody is there: %v", err)
	}
}

func TestDiscovery(t *testing.T) {
	calls := 0
	var fail error
	e := &Endpoints{Authorize: "https://id.test/auth", Token: "https://id.test/token"}
	p := &Provider{Discover: func(context.Context) (*Endpoints, error) {
		calls++
		if fail != nil {
			return nil, fail
		}
		return e, nil
	}}
	fail = errors.New("down")
	for range 20 {
		if _, err := p.Endpoints(t.Context(), t0); !errors.Is(err, ask.ErrAway) {
			t.Fatal(err)
		}
	}
	if calls != 1 {
		t.Errorf("an issuer that is away is asked %d times at once", calls)
	}
	fail = nil
	now := t0.Add(time.Minute)
	for range 20 {
		if got, err := p.Endpoints(t.Context(), now); err != nil || got != e {
			t.Fatal(err)
		}
	}
	if calls != 2 {
		t.Errorf("asked %d times", calls)
	}
	fail = errors.New("down again")
	if got, err := p.Endpoints(t.Context(), now.Add(time.Hour)); err != nil || got != e {
		t.Errorf("what was known is gone: %v", err)
	}
	for _, bad := range []Endpoints{{}, {Authorize: "http://id.test/auth", Token: "https://id.test/token"}, {Authorize: "https://id.test", Token: "ftp://x"}, {Authorize: "https://id.test", Token: "https://id.test", EndSession: "javascript:alert(1)"}} {
		if bad.Check() == nil {
			t.Errorf("%+v is taken", bad)
		}
	}
	p.ID = "portal"
	if got := p.EndSessionURL(&Endpoints{EndSession: "https://id.test/end?a=b"}, "t", "https://portal.test/out"); got != "https://id.test/end?a=b&client_id=portal&id_token_hint=t&post_logout_redirect_uri=https%3A%2F%2Fportal.test%2Fout" {
		t.Error(got)
	}
	if got := p.EndSessionURL(&Endpoints{}, "t", ""); got != "" {
		t.Error(got)
	}
}

func TestIDTokens(t *testing.T) {
	good := func() map[string]any { return map[string]any{"sub": "ann", "nonce": "n", "aud": "portal"} }
	for _, c := range []struct {
		name   string
		change func(map[string]any)
		later  bool
		ok     bool
	}{
		{"good", func(map[string]any) {}, false, true},
		{"no sub", func(m map[string]any) { delete(m, "sub") }, false, false},
		{"no nonce", func(m map[string]any) { delete(m, "nonce") }, false, false},
		{"no nonce, later", func(m map[string]any) { delete(m, "nonce") }, true, true},
		{"another nonce", func(m map[string]any) { m["nonce"] = "x" }, false, false},
		{"another nonce, later", func(m map[string]any) { m["nonce"] = "x" }, true, false},
		{"a nonce that is no text", func(m map[string]any) { m["nonce"] = 1 }, true, false},
		{"for two", func(m map[string]any) { m["aud"] = []any{"portal", "x"} }, false, false},
		{"for two, and says for whom", func(m map[string]any) { m["aud"], m["azp"] = []any{"portal", "x"}, "portal" }, false, true},
		{"another azp", func(m map[string]any) { m["azp"] = "x" }, false, false},
		{"at_hash", func(m map[string]any) { m["at_hash"] = halfHash("RS256", "access") }, false, true},
		{"another at_hash", func(m map[string]any) { m["at_hash"] = halfHash("RS256", "other") }, false, false},
		{"at_hash of another length", func(m map[string]any) { m["at_hash"] = halfHash("RS512", "access") }, false, false},
	} {
		m := good()
		c.change(m)
		if err := CheckID(m, "RS256", "portal", "n", "access", c.later); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	// OpenID Connect Core 1.0, appendix A.3.
	if got := halfHash("RS256", "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y"); got != "77QmUPtjPfzWtF2AnpK9RQ" {
		t.Error(got)
	}
}

func TestLogoutTokens(t *testing.T) {
	event := map[string]any{logoutEvent: map[string]any{}}
	for _, c := range []struct {
		name   string
		change map[string]any
		age    time.Duration
		ok     bool
	}{
		{"by sid", nil, 0, true},
		{"by sub alone", map[string]any{"sid": nil}, 0, true},
		{"by nobody", map[string]any{"sid": nil, "sub": nil}, 0, false},
		{"a nonce", map[string]any{"nonce": "n"}, 0, false},
		{"no events", map[string]any{"events": nil}, 0, false},
		{"another event", map[string]any{"events": map[string]any{"x": map[string]any{}}}, 0, false},
		{"an event that is no object", map[string]any{"events": map[string]any{logoutEvent: true}}, 0, false},
		{"no jti", map[string]any{"jti": nil}, 0, false},
		{"a jti that is no text", map[string]any{"jti": 1}, 0, false},
		{"a sid that is no text", map[string]any{"sid": 1}, 0, false},
		{"an empty sub", map[string]any{"sub": ""}, 0, false},
		{"old", nil, LogoutAge + time.Second, false},
	} {
		m := map[string]any{"jti": "1", "sub": "ann", "sid": "s", "events": event}
		for name, v := range c.change {
			if m[name] = v; v == nil {
				delete(m, name)
			}
		}
		if got, err := CheckLogout(m, t0.Add(-c.age), true, t0); (err == nil) != c.ok {
			t.Errorf("%s: %+v %v", c.name, got, err)
		}
	}
	if _, err := CheckLogout(map[string]any{"jti": "1", "sub": "ann", "events": event}, time.Time{}, false, t0); err == nil {
		t.Error("one without iat is taken")
	}
}
