package canary

import (
	"net/http"
	"strings"
	"testing"
)

// FuzzCookie: the cookie that is found is the one that net/http finds, as long
// as it is one of ours; and whatever is sent, what is used is well formed.
func FuzzCookie(f *testing.F) {
	id := newTicket()
	for _, line := range []string{
		"", "gatehouse_canary=" + id, "a=b; gatehouse_canary=" + id + "; c=d", "gatehouse_canary=" + id + ";gatehouse_canary=x",
		" gatehouse_canary=" + id + " ", "xgatehouse_canary=" + id, "gatehouse_canary", "gatehouse_canary=", ";;;=;gatehouse_canary=;",
		`gatehouse_canary="` + id + `"`, "Gatehouse_Canary=" + id, "a=gatehouse_canary=" + id,
	} {
		f.Add(line)
	}
	f.Fuzz(func(t *testing.T, line string) {
		got := find([]string{line}, defaultCookie)
		if len(got) > len(line) {
			t.Fatalf("%q holds %q", line, got)
		}
		theirs, err := (&http.Request{Header: http.Header{"Cookie": {line}}}).Cookie(defaultCookie)
		if err == nil && wellFormed(theirs.Value) && !theirs.Quoted && got != theirs.Value {
			t.Errorf("in %q we find %q, net/http %q", line, got, theirs.Value)
		}
		if wellFormed(got) && (err != nil || theirs.Value != got) && !strings.Contains(line, defaultCookie+"="+got) {
			t.Errorf("in %q there is no %q", line, got)
		}
	})
}

func TestTicket(t *testing.T) {
	seen := map[string]bool{}
	for range 1000 {
		id := newTicket()
		if !wellFormed(id) || seen[id] {
			t.Fatalf("%q", id)
		}
		seen[id] = true
	}
	for _, odd := range []string{"", "0", strings.Repeat("0", 25), strings.Repeat("0", 27), strings.Repeat("l", 26), strings.Repeat("A", 26)} {
		if wellFormed(odd) {
			t.Errorf("%q is taken for one of ours", odd)
		}
	}
}
