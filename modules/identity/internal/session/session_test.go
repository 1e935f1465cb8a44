package session

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"
)

var t0 = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func ring(t testing.TB, now time.Time) *Ring {
	t.Helper()
	r, changed := (*Ring)(nil).Rotated(now)
	if !changed || len(r.Keys) != 1 {
		t.Fatal("no first key")
	}
	return r
}

// TestSealed: a sealed text is good for its purpose, bound to the same things,
// with the same key, and unchanged; and for nothing else.
func TestSealed(t *testing.T) {
	r := ring(t, t0)
	text := r.Seal("session", "portal", []byte("hello"), t0)
	if data, err := r.Open("session", "portal", text); err != nil || string(data) != "hello" {
		t.Fatalf("%q %v", data, err)
	}
	for name, open := range map[string]func() ([]byte, error){
		"another purpose": func() ([]byte, error) { return r.Open("login", "portal", text) },
		"another name":    func() ([]byte, error) { return r.Open("session", "billing", text) },
		"another key":     func() ([]byte, error) { return ring(t, t0).Open("session", "portal", text) },
		"nothing":         func() ([]byte, error) { return r.Open("session", "portal", "") },
		"cut":             func() ([]byte, error) { return r.Open("session", "portal", text[:len(text)-4]) },
		"longer":          func() ([]byte, error) { return r.Open("session", "portal", text+"AAAA") },
	} {
		if data, err := open(); err == nil {
			t.Errorf("%s: %q", name, data)
		}
	}
	for i := range text {
		c := byte('A')
		if text[i] == c {
			c = 'B'
		}
		if _, err := r.Open("session", "portal", text[:i]+string(c)+text[i+1:]); err == nil {
			t.Errorf("the character at %d can be changed", i)
		}
	}
	if text == r.Seal("session", "portal", []byte("hello"), t0) {
		t.Error("two seals are alike")
	}
}

// TestRotation: over a year of rotations, with nodes that read the ring late,
// every session can be opened for as long as it may live.
func TestRotation(t *testing.T) {
	r := ring(t, t0)
	type sealed struct {
		text string
		at   time.Time
	}
	var all []sealed
	var before *Ring // what a node has that has not looked for a while
	for now := t0; now.Before(t0.Add(365 * 24 * time.Hour)); now = now.Add(11 * time.Hour) {
		next, _ := r.Rotated(now)
		before, r = r, next
		for _, by := range []*Ring{before, r} {
			all = append(all, sealed{by.Seal("session", "", []byte("x"), now), now})
		}
		if len(r.Keys) > 8 {
			t.Fatalf("%d keys", len(r.Keys))
		}
		// A new key is used once every node has it.
		if _, err := before.Open("session", "", r.Seal("session", "", nil, now)); err != nil {
			t.Fatalf("at %v a node that is behind cannot open what another seals", now)
		}
		for len(all) > 0 && now.Sub(all[0].at) >= MaxLifetime {
			all = all[1:]
		}
		for _, s := range all {
			if _, err := r.Open("session", "", s.text); err != nil {
				t.Fatalf("at %v a cookie of %v cannot be opened", now, s.at)
			}
		}
	}
	if len(r.Keys) < 3 {
		t.Errorf("%d keys", len(r.Keys))
	}
	data, _ := json.Marshal(r)
	if back, err := ReadRing(data); err != nil || len(back.Keys) != len(r.Keys) {
		t.Errorf("%v", err)
	}
	for _, bad := range []string{"", "{}", `{"keys":[{"id":"x","secret":"AAAA"}]}`, `{"keys":[{"id":"00000000","secret":"AAAA"}]}`} {
		if _, err := ReadRing([]byte(bad)); err == nil {
			t.Errorf("%q is a ring", bad)
		}
	}
}

func TestCookies(t *testing.T) {
	for _, c := range []struct {
		name, header, value string
		broken              bool
		logins              int
	}{
		{"none", "a=1; b=2", "", false, 0},
		{"one", "a=1; gh=1.abc; b=2", "abc", false, 0},
		{"alone", "gh=1.abc", "abc", false, 0},
		{"pieces in any order", "gh.1=def; a=1; gh=2.abc", "abcdef", false, 0},
		{"a piece left over", "gh=1.abc; gh.1=def", "abc", false, 0},
		{"a piece is missing", "gh=3.abc; gh.1=def", "", true, 0},
		{"the first is missing", "gh.1=def", "", true, 0},
		{"no count", "gh=abc", "", true, 0},
		{"too high a count", "gh=9.abc", "", true, 0},
		{"two of the name", "gh=1.abc; gh=1.def", "", true, 0},
		{"a name that begins so", "ghost=1; gh=1.abc", "abc", false, 0},
		{"logins", "gh.login.abc=x; gh=1.abc; gh.login.def=y", "abc", false, 2},
		{"somebody else's beside", "gh-other=1; gh=1.abc", "abc", false, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := Take(strings.Split(c.header, "; "), "gh")
			if got.Value != c.value || got.Broken != c.broken || len(got.Logins) != c.logins {
				t.Errorf("%+v", got)
			}
		})
	}
}

// TestSplit: what is split is put together again, at every length around the
// edges, and fits into what a browser keeps.
func TestSplit(t *testing.T) {
	for _, n := range []int{1, chunk - 3, chunk - 2, chunk - 1, chunk, 2*chunk - 2, 2*chunk - 1, MaxSealed, MaxSealed + 1} {
		text := strings.Repeat("x", n)
		pieces, ok := Split("__Host-gatehouse_session_portal", text)
		if ok != (n <= MaxSealed) {
			t.Errorf("%d: %v", n, ok)
		}
		var line []string
		for _, p := range pieces {
			if len(p.Name)+len(p.Value) > 3900 {
				t.Errorf("%d: a piece of %d", n, len(p.Value))
			}
			line = append(line, p.Name+"="+p.Value)
		}
		got := Take(line, "__Host-gatehouse_session_portal")
		if ok && (got.Value != text || got.Broken || got.Chunks != len(pieces)) {
			t.Errorf("%d: %d bytes come back in %d pieces", n, len(got.Value), got.Chunks)
		}
	}
}

func TestPlace(t *testing.T) {
	for asked, want := range map[string]string{
		"/orders?page=2&q=%2F%2F": "/orders?page=2&q=%2F%2F", "/": "/", "/a//b": "/a//b", "/caf%C3%A9": "/caf%C3%A9", "/.gatehouses": "/.gatehouses",
		"": "/", "//evil.test": "/", "/\\evil.test": "/", "\\\\evil.test": "/", "https://evil.test/": "/", "/\t/evil.test": "/", "/\n/evil.test": "/",
		"javascript:alert(1)": "/", "/a\x00": "/", "/./\\evil": "/", "/.//evil.test": "/", "/a/..//evil.test": "/", "/%2e%2E//evil.test": "/", "evil.test": "/",
		"/a#b": "/", "/a b": "/", "/é": "/", " /a": "/", "/.gatehouse": "/", "/.gatehouse/logout": "/", "/" + strings.Repeat("a", maxPlace): "/",
	} {
		if got := Place(asked, "/.gatehouse"); got != want {
			t.Errorf("%q leads to %q, want %q", asked, got, want)
		}
	}
}

// FuzzPlace: wherever it leads, it is this origin, for a library that resolves
// it by the letter of the RFC and for a browser that reads what it likes.
func FuzzPlace(f *testing.F) {
	for _, s := range []string{"/a?b=c", "//evil.test", "/\\evil.test", "/\t/evil.test", "/.//evil.test", "/%2e//evil", "https://evil.test", "/a/../..//evil", "///evil.test", "/;/../evil", "/%2F", "/.gatehouse/logout"} {
		f.Add(s)
	}
	base, _ := url.Parse("https://portal.test/.gatehouse/callback?code=x")
	f.Fuzz(func(t *testing.T, asked string) {
		got := Place(asked, "/.gatehouse")
		if got != asked && got != "/" {
			t.Fatalf("%q was changed to %q", asked, got)
		}
		if strings.ContainsAny(got, "\r\n") {
			t.Fatalf("%q breaks the line", got)
		}
		// A browser leaves out tabs and line breaks, trims what is not printable,
		// and takes a backslash for a slash.
		as := strings.ReplaceAll(strings.Trim(strings.NewReplacer("\t", "", "\r", "", "\n", "").Replace(got), "\x00\x01\x1f "), "\\", "/")
		for _, to := range []string{got, as} {
			u, err := base.Parse(to)
			if err != nil {
				if got == "/" {
					t.Fatal(err)
				}
				continue // which a browser may read: by the letter it stays, see below
			}
			if u.Scheme != "https" || u.Host != "portal.test" || u.User != nil || strings.HasPrefix(u.EscapedPath(), "//") {
				t.Fatalf("%q leads to %q", asked, u)
			}
		}
		if as[0] != '/' || len(as) > 1 && as[1] == '/' {
			t.Fatalf("%q may be read as another origin", got)
		}
	})
}

// FuzzCookies: whatever a browser sends, nothing but what was sealed can be
// opened.
func FuzzCookies(f *testing.F) {
	f.Add("a=1; gh=1.abc; gh.1=x; gh.login.abc=1; ghost=2")
	f.Add("gh=3.a; gh.1=b; gh.2=c;;gh.02=3; gh=; gh.=")
	r := ring(f, t0)
	f.Fuzz(func(t *testing.T, line string) {
		c := Take(strings.Split(line, "; "), "gh")
		if c.Value != "" {
			if data, err := r.Open("session", "", c.Value); err == nil {
				t.Fatalf("%q was opened", data)
			}
		}
		if len(c.Value) > len(line) || c.Chunks > MaxChunks || len(c.Logins) > maxLogins {
			t.Fatalf("%+v", c)
		}
	})
}

func TestLogins(t *testing.T) {
	r := ring(t, t0)
	var cookies []Cookie
	var all []*Login
	for i := range 3 {
		l := NewLogin(fmt.Sprintf("/tab%d", i), "https://portal.test/.gatehouse/callback", t0)
		all = append(all, l)
		cookies = append(cookies, Cookie{LoginName("gh", l.State), l.Seal(r, "portal", t0)})
	}
	for i, l := range all { // several tabs at once
		got := FindLogin(r, "portal", "gh", l.State, cookies, t0.Add(time.Minute))
		if got == nil || *got != *all[i] {
			t.Errorf("tab %d: %+v", i, got)
		}
	}
	l := all[0]
	swapped := []Cookie{{LoginName("gh", l.State), cookies[1].Value}}
	for name, got := range map[string]*Login{
		"no cookie":           FindLogin(r, "portal", "gh", l.State, nil, t0),
		"no state":            FindLogin(r, "portal", "gh", "", cookies, t0),
		"another state":       FindLogin(r, "portal", "gh", NewLogin("/", "", t0).State, cookies, t0),
		"too late":            FindLogin(r, "portal", "gh", l.State, cookies, t0.Add(LoginTime)),
		"another tab's value": FindLogin(r, "portal", "gh", l.State, swapped, t0),
		"another API":         FindLogin(r, "billing", "gh", l.State, cookies, t0),
	} {
		if got != nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
	to, err := l.URL("https://id.test/auth?tenant=a", "portal", []string{"openid", "email"})
	if err != nil {
		t.Fatal(err)
	}
	u, _ := url.Parse(to)
	q := u.Query()
	for name, want := range map[string]string{"tenant": "a", "response_type": "code", "client_id": "portal", "scope": "openid email", "state": l.State, "nonce": l.Nonce, "code_challenge_method": "S256", "redirect_uri": l.Redirect} {
		if q.Get(name) != want {
			t.Errorf("%s is %q", name, q.Get(name))
		}
	}
	if strings.Contains(to, l.Verifier) || len(q.Get("code_challenge")) != 43 {
		t.Errorf("the verifier is told, or no challenge: %s", to)
	}
	many := make([]Cookie, 9)
	for i := range many {
		many[i].Name = strconv.Itoa(i)
	}
	if got := TooMany(many); len(got) != 4 || got[0] != "0" {
		t.Errorf("%v have to go", got)
	}
	if got := TooMany(many[:5]); got != nil {
		t.Errorf("%v have to go", got)
	}
}

func TestTimes(t *testing.T) {
	ms := func(d time.Duration) int64 { return t0.Add(d).UnixMilli() }
	s := &Session{Began: ms(0), Seen: ms(0), Ends: ms(12 * time.Hour), Refresh: "r"}
	const idle, lifetime = time.Hour, 12 * time.Hour
	for _, c := range []struct {
		name  string
		after time.Duration
		seen  time.Duration
		over  bool
	}{
		{"fresh", 0, 0, false},
		{"just used", 59 * time.Minute, 0, false},
		{"not used for an hour", time.Hour, 0, true},
		{"used, after an hour", time.Hour, time.Minute, false},
		{"used to the end", 12 * time.Hour, 12*time.Hour - time.Second, true},
	} {
		s.Seen = ms(c.seen)
		if got := s.Over(idle, lifetime, t0.Add(c.after)); got != c.over {
			t.Errorf("%s: %v", c.name, got)
		}
	}
	s.Seen = ms(0)
	if s.Over(idle, 48*time.Hour, t0.Add(time.Minute)) || !s.Over(idle, time.Minute, t0.Add(time.Minute)) {
		t.Error("a shorter lifetime holds for sessions that are there")
	}
	s.Seen, s.Ends = ms(30*time.Hour), ms(12*time.Hour)
	if !s.Over(idle, 48*time.Hour, t0.Add(30*time.Hour)) {
		t.Error("a longer lifetime wakes sessions whose end was already forgotten")
	}
	s.Lasts(5*time.Minute, t0)
	for after, want := range map[time.Duration][2]bool{0: {false, false}, 3 * time.Minute: {false, false}, 4*time.Minute + time.Second: {true, false}, 5 * time.Minute: {true, true}} {
		if should, must := s.Due(t0.Add(after)); [2]bool{should, must} != want {
			t.Errorf("after %v: %v %v", after, should, must)
		}
	}
	s.Lasts(0, t0)
	if should, _ := s.Due(t0.Add(time.Hour)); should {
		t.Error("a session without an end of its token is renewed")
	}
}

func TestSessionInCookies(t *testing.T) {
	r := ring(t, t0)
	s := &Session{ID: NewID(), Subject: "ann", IDToken: strings.Repeat("t", 4000), Refresh: "r", Began: 1, Seen: 2, Ends: 3}
	pieces, err := s.Seal(r, "portal", "gh", t0)
	if err != nil || len(pieces) != 2 {
		t.Fatalf("%d pieces, %v", len(pieces), err)
	}
	got := Take([]string{pieces[1].Name + "=" + pieces[1].Value, "gh=" + pieces[0].Value}, "gh")
	back, err := Open(r, "portal", got.Value)
	if err != nil || *back != *s {
		t.Errorf("%+v %v", back, err)
	}
	if _, err := Open(r, "billing", got.Value); err == nil {
		t.Error("another API opens it")
	}
	if bytes.Contains([]byte(got.Value), []byte("ttt")) {
		t.Error("the cookie can be read")
	}
	s.IDToken = strings.Repeat("t", 9000)
	if _, err := s.Seal(r, "portal", "gh", t0); err != ErrTooLarge { //nolint:errorlint // returned as it is
		t.Errorf("too large: %v", err)
	}
}

func TestEnded(t *testing.T) {
	ms := func(d time.Duration) int64 { return t0.Add(d).UnixMilli() }
	b := NewEnded(8)
	ann := &Session{ID: "1", Subject: "ann", SID: "s1", Began: ms(0)}
	names := ann.Names("iss", "portal")
	if len(names) != 3 || b.Has(ann.Began, names) {
		t.Fatal("ended before anything")
	}
	for _, n := range []Name{NameOfID("iss", "portal", "1"), NameOfSID("iss", "portal", "s1"), NameOfSubject("iss", "portal", "ann")} {
		b := NewEnded(8)
		b.Add(End{n, ms(time.Minute), ms(time.Hour)}, false)
		if !b.Has(ann.Began, names) {
			t.Errorf("not ended by %x", n)
		}
		if b.Has(ms(2*time.Minute), names) {
			t.Error("a login after the end is ended too")
		}
		if left := b.Prune(t0); len(left) != 1 {
			t.Errorf("to be kept: %v", left)
		} else if e, ok := ReadEnd(left[0].String()); !ok || e != left[0] {
			t.Errorf("%v is read as %v", left[0], e)
		} else if b.Kept(e); len(b.Prune(t0)) != 0 {
			t.Error("kept, and still to be kept")
		}
		b.Prune(t0.Add(time.Hour))
		if b.Len() != 0 {
			t.Error("remembered for ever")
		}
	}
	for _, n := range []Name{NameOfID("iss", "portal", "ann"), NameOfSID("iss", "portal", "1"), NameOfSubject("other", "portal", "ann"), NameOfSubject("iss", "billing", "ann")} {
		b.Add(End{n, ms(time.Minute), ms(time.Hour)}, true)
	}
	if b.Has(ann.Began, names) {
		t.Error("ended by what is somebody else's")
	}
	for _, bad := range []string{"", "1-2", "1-2-zz", "1-2-00", "01-2-" + strings.Repeat("0", 32), "1-2-" + strings.Repeat("0", 34)} {
		if _, ok := ReadEnd(bad); ok {
			t.Errorf("%q is an end", bad)
		}
	}
}

// TestEndedIsBounded: whatever is ended stays ended, however many there are.
func TestEndedIsBounded(t *testing.T) {
	const most = 100
	b := NewEnded(most)
	began := func(i int) int64 { return t0.Add(time.Duration(i) * time.Second).UnixMilli() }
	name := func(i int) []Name { return []Name{NameOfID("", "", strconv.Itoa(i))} }
	for i := range 10 * most {
		b.Add(End{name(i)[0], began(i) + 500, began(1 << 20)}, i%2 == 0)
		if b.Len() > most {
			t.Fatalf("%d ends", b.Len())
		}
		for j := range i {
			if !b.Has(began(j), name(j)) {
				t.Fatalf("after %d ends, that of %d is forgotten", i, j)
			}
		}
	}
	if b.Has(began(10*most)+1, name(-1)) {
		t.Error("a session that began after all of them is over")
	}
}
