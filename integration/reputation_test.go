package integration

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// from is a request that a trusted proxy says came from addr.
func (g *gateway) from(t testing.TB, addr string) answer {
	t.Helper()
	return g.get(t, "/", http.Header{"X-Forwarded-For": {addr}})
}

const behindProxy = `
	servers {
		trusted_proxies_unix
	}
`

// mmdb copies a database of the third-party suite into the gateway's folder.
func (g *gateway) mmdb(t testing.TB, name, as string) {
	t.Helper()
	suites := os.Getenv("GATEHOUSE_SUITES")
	if suites == "" {
		if os.Getenv("GATEHOUSE_SUITES_REQUIRED") != "" {
			t.Fatal("GATEHOUSE_SUITES is not set")
		}
		t.Skip("GATEHOUSE_SUITES names no folder with third-party suites")
	}
	data, err := os.ReadFile(filepath.Join(suites, "mmdb", "test-data", name))
	if err != nil {
		t.Fatal(err)
	}
	g.write(t, as, string(data))
}

func TestReputation(t *testing.T) {
	gw := prepare(t)
	gw.write(t, "drop.txt", "; DROP\n192.0.2.0/24 ; SBL1\n2001:db8:bad::/48\n")
	gw.write(t, "office.txt", "192.0.2.7\n")
	site := `
	api orders {
		reputation {
			allow office
			deny drop 198.51.100.9
		}
		respond ok
	}
`
	global := behindProxy + "reputation {\n list drop drop.txt\n list office office.txt\n }"
	if err := gw.load(global, site); err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]string{
		"192.0.2.1": "reputation.denied", "2001:db8:bad::1": "reputation.denied", "::ffff:192.0.2.1": "reputation.denied",
		"198.51.100.9": "reputation.denied", "192.0.2.7": "", "203.0.113.1": "", "2001:db8:900d::1": "",
	} {
		if a := gw.from(t, addr); a.reason() != want {
			t.Errorf("%s: %d %q, want %q", addr, a.status, a.reason(), want)
		}
	}
	found := false
	for _, e := range gw.decisions(t) {
		if e["reason"] == "reputation.denied" && strings.Contains(fmt.Sprint(e["stages"]), "rule:drop") {
			found = true
		}
	}
	if !found {
		t.Error("no decision names the list")
	}
	// A file that was changed counts after a reload at the latest; a broken one
	// refuses the reload, and the last good copy stays.
	gw.write(t, "drop.txt", "203.0.113.0/24\nexample.com\n")
	if err := gw.load(global, site); err == nil || !strings.Contains(err.Error(), `drop.txt: line 2: "example.com"`) {
		t.Errorf("a broken list: %v", err)
	}
	if a := gw.from(t, "192.0.2.1"); a.reason() != "reputation.denied" {
		t.Errorf("after a refused reload: %d %s", a.status, a.body)
	}
	gw.write(t, "drop.txt", "203.0.113.0/24\n")
	if err := gw.load(global, site); err != nil {
		t.Fatal(err)
	}
	if a := gw.from(t, "192.0.2.1"); a.status != 200 {
		t.Errorf("an address that was taken off: %d", a.status)
	}
	if a := gw.from(t, "203.0.113.1"); a.reason() != "reputation.denied" {
		t.Errorf("one that was put on: %d", a.status)
	}
	if a := gw.change(t, "PUT", "/gatehouse/modes/orders.reputation", `{"mode":"shadow"}`, nil); a.status != 201 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := gw.from(t, "203.0.113.1"); a.status != 200 {
		t.Errorf("in shadow: %d", a.status)
	}
}

func TestReputationCountries(t *testing.T) {
	gw := prepare(t)
	gw.mmdb(t, "GeoLite2-Country-Test.mmdb", "country.mmdb")
	gw.mmdb(t, "GeoLite2-ASN-Test.mmdb", "asn.mmdb")
	global := behindProxy + "reputation {\n country_db country.mmdb\n asn_db asn.mmdb\n }"
	if err := gw.load(global, `
	api orders {
		reputation {
			deny_countries GB
		}
		require cel `+"`origin.asn != 1221`"+`
		respond ok
	}
`); err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]string{"81.2.69.160": "reputation.country", "2001:218::1": "", "1.128.0.1": "require.expression", "192.0.2.1": ""} {
		if a := gw.from(t, addr); a.reason() != want {
			t.Errorf("%s: %d %q, want %q", addr, a.status, a.reason(), want)
		}
	}
	known := map[string]bool{}
	for _, e := range gw.decisions(t) {
		known[fmt.Sprint(e["country"], " ", e["asn"])] = true
	}
	if !known["JP <nil>"] || !known["GB <nil>"] || !known["<nil> 1221"] {
		t.Errorf("the log knows %v", known)
	}
	if err := gw.load(global, "api orders {\n reputation {\n allow_countries JP\n }\n respond ok\n }"); err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]int{"81.2.69.160": 403, "2001:218::1": 200, "192.0.2.1": 403} {
		if a := gw.from(t, addr); a.status != want {
			t.Errorf("only Japan: %s got %d", addr, a.status)
		}
	}
	gw.mmdb(t, "GeoLite2-ASN-Test.mmdb", "country.mmdb")
	if err := gw.load(global, "reputation\nrespond ok"); err == nil || !strings.Contains(err.Error(), `country.mmdb: a database of type "GeoLite2-ASN" knows nothing of Country`) {
		t.Errorf("a database of another kind: %v", err)
	}
}

// TestReputationURL fetches a list from a server that fails at first, then
// answers, then breaks.
func TestReputationURL(t *testing.T) {
	var state atomic.Int32
	feed := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if state.Load() == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		_, _ = w.Write([]byte("192.0.2.0/24\n"))
	}))
	defer feed.Close()
	global := behindProxy + "reputation {\n list drop " + feed.URL + "/drop\n }"
	gw := start(t, global, "api orders {\n reputation {\n deny drop\n }\n respond ok\n }")
	if a := gw.from(t, "192.0.2.1"); a.status != 200 {
		t.Errorf("never fetched, open: %d %s", a.status, a.body)
	}
	if n := gw.metric(t, "gatehouse_decisions_total", `stage="reputation"`, `verdict="undecided"`, `reason="reputation.unavailable"`); n != 1 {
		t.Errorf("%v undecided", n)
	}
	closed := "api orders {\n reputation {\n deny drop\n on_error closed\n }\n respond ok\n }"
	if err := gw.load(global, closed); err != nil {
		t.Fatal(err)
	}
	if a := gw.from(t, "192.0.2.1"); a.reason() != "reputation.unavailable" || a.status != 503 {
		t.Errorf("never fetched, closed: %d %s", a.status, a.body)
	}
	state.Store(1)
	if err := gw.load(global, closed); err != nil { // a new configuration asks at once
		t.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if a := gw.from(t, "192.0.2.1"); a.reason() == "reputation.denied" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the list was never fetched")
		}
	}
	if a := gw.from(t, "203.0.113.1"); a.status != 200 {
		t.Errorf("an address that is not on it: %d", a.status)
	}
	// The server goes away: what was fetched stays, over a reload too.
	feed.Close()
	if err := gw.load(global, closed); err != nil {
		t.Fatal(err)
	}
	if a := gw.from(t, "192.0.2.1"); a.reason() != "reputation.denied" {
		t.Errorf("after the server went away: %d %s", a.status, a.body)
	}
}
