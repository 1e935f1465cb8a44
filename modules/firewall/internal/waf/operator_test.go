package waf

import (
	"io/fs"
	"net/netip"
	"strings"
	"testing"
)

// TestQuickly: all rules of the Core Rule Set match by our operator, but for those
// whose expressions are about bytes.
func TestQuickly(t *testing.T) {
	names, err := fs.Glob(ruleFiles(), "@owasp_crs/REQUEST-*.conf")
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := 0, 0
	for _, name := range names {
		data, err := fs.ReadFile(ruleFiles(), name)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(data)) {
			switch {
			case strings.HasPrefix(line, "#"):
			case strings.Contains(line, "@"+matchOperator+" "):
				ours++
			case strings.Contains(line, "@rx "):
				if theirs++; !byteEscape.MatchString(line) {
					t.Errorf("%s: %.100s", name, line)
				}
			}
		}
	}
	if ours < 250 || theirs > 10 {
		t.Errorf("%d match by ours, %d by Coraza's", ours, theirs)
	}
}

// TestOperator: what groups capture, and what a rule must not match, is as with
// Coraza's own.
func TestOperator(t *testing.T) {
	const rules = `
SecRule ARGS:a "@rx ^(x+)(y)?(z)$" "id:1,phase:1,capture,pass,nolog,setvar:'tx.got=%{TX.1}-%{TX.2}-%{TX.3}'"
SecRule TX:got "@streq xx--z" "id:2,phase:1,deny,status:403,msg:'captured'"
SecRule ARGS:b "!@rx (?i)^fine$" "id:3,phase:1,deny,status:403,msg:'not fine'"
SecRule ARGS:c "@rx \xff" "id:4,phase:1,deny,status:403,msg:'a byte'"
SecRule ARGS:d "@rx a.b" "id:5,phase:1,deny,status:403,msg:'over a line'"
`
	w, err := Compile(&Settings{Arguments: 10, MaxBody: 1 << 10, Rules: []Source{{"test.conf", rules}}})
	if err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string]string{
		"a=xxz": "2", "a=xxyz": "", "a=z": "", "b=FINE": "", "b=not+fine": "3", "b=": "3", "c=%ff": "4", "c=x": "", "d=a%0ab": "5",
	} {
		v, err := w.Inspect(&Request{Client: netip.MustParseAddr("192.0.2.1"), Method: "GET", URI: "/?" + query, Proto: "HTTP/1.1", Host: "a.test"})
		if err != nil || v.Rules != want {
			t.Errorf("%s: %q, want %q; %v", query, v.Rules, want, err)
		}
	}
	if _, err := Compile(&Settings{Arguments: 10, MaxBody: 1 << 10, Rules: []Source{{"bad.conf", `SecRule ARGS "@rx (" "id:1,phase:1,deny"`}}}); err == nil || !strings.Contains(err.Error(), "bad.conf:1") {
		t.Error(err)
	}
}
