package gate

import (
	"net/http"
	"strings"
	"testing"
)

func TestSessionCookiesAreTaken(t *testing.T) {
	for _, c := range []struct{ name, header, kept, taken string }{
		{"none", "a=1; b=2", "a=1; b=2", ""},
		{"one", "a=1; gatehouse_session=x; b=2", "a=1; b=2", "gatehouse_session=x"},
		{"alone", "gatehouse_session_portal=x", "", "gatehouse_session_portal=x"},
		{"pieces", "gatehouse_session_portal.1=y;a=1;gatehouse_session_portal=x", "a=1", "gatehouse_session_portal.1=y gatehouse_session_portal=x"},
		{"over TLS", "__Host-gatehouse_session_portal=x; __Secure-gatehouse_session_sso=y; a=1", "a=1", "__Host-gatehouse_session_portal=x __Secure-gatehouse_session_sso=y"},
		{"a name that is followed by a blank", "gatehouse_session_portal =x; a=1", "a=1", "gatehouse_session_portal =x"},
		{"names that begin so", "gatehouse_sessions=1; my_gatehouse_session=2; a=gatehouse_session_x", "gatehouse_sessions=1; my_gatehouse_session=2; a=gatehouse_session_x", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			h := http.Header{"Cookie": {c.header}}
			taken := takeCookies(h)
			if h.Get("Cookie") != c.kept || strings.Join(taken, " ") != c.taken {
				t.Errorf("kept %q, took %q", h.Get("Cookie"), taken)
			}
			if _, there := h["Cookie"]; there != (c.kept != "") {
				t.Error("an empty field is left")
			}
		})
	}
	h := http.Header{"Cookie": {"a=1", "gatehouse_session=x", "b=2; gatehouse_session_y=1"}}
	if taken := takeCookies(h); len(taken) != 2 || strings.Join(h["Cookie"], "|") != "a=1|b=2" {
		t.Errorf("of several lines %q are left, %q taken", h["Cookie"], taken)
	}
}

// FuzzSessionCookies: whatever a browser sends, an upstream that reads cookies
// as net/http does finds none of ours, and all others in their order.
func FuzzSessionCookies(f *testing.F) {
	f.Add("a=1; gatehouse_session=1.abc; gatehouse_session.1=x; gatehouse_session_login_abc=1; gatehouse_sessions=2")
	f.Add("__Host-gatehouse_session_a=1;;__Secure-gatehouse_session=; gatehouse_session = 1;\tgatehouse_session_x=\"y\"")
	f.Fuzz(func(t *testing.T, line string) {
		read := func(h http.Header, ours bool) (all []string) {
			r := http.Request{Header: h}
			for _, c := range r.Cookies() {
				if OfSession(c.Name+"=") == ours {
					all = append(all, c.Name+"="+c.Value)
				}
			}
			return all
		}
		h := http.Header{"Cookie": {line}}
		others := read(h, false)
		takeCookies(h)
		if left := read(h, true); left != nil {
			t.Fatalf("%q reach the upstream", left)
		}
		if left := read(h, false); strings.Join(left, ";") != strings.Join(others, ";") {
			t.Fatalf("of %q, %q are left", others, left)
		}
	})
}
