package integration

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestTrustPoolWithoutReload replaces the authority of the clients, from the
// first over both to the second, in a file and in Caddy's storage. Nothing is
// reloaded, and it counts on connections that are open.
func TestTrustPoolWithoutReload(t *testing.T) {
	one, two := newCA(t, "one", nil), newCA(t, "two", nil)
	ann, bob := one.sign(t, withURI("urn:ann")), two.sign(t, withURI("urn:bob"))
	gw := prepareMTLS(t)
	if err := os.MkdirAll(filepath.Join(gw.dir, "storage", "clients"), 0o700); err != nil {
		t.Fatal(err)
	}
	trust := func(content string) {
		t.Helper()
		gw.put(t, "live.pem", content)
		gw.put(t, "storage/clients/ca.pem", content)
	}
	trust(block(one.Certificate))
	gw.begin(t, "request", "", route("file", "trust_pool file "+gw.dir+"/live.pem")+route("storage", "trust_pool storage clients/ca.pem"))
	a, b := gw.as(t, ann), gw.as(t, bob) // one connection each, to the end
	both := func(c *caller, reason string) bool {
		for _, path := range []string{"/file", "/storage"} {
			if got := c.ask(t, path); got.reason() != reason || (got.status == http.StatusOK) != (reason == "") {
				return false
			}
		}
		return true
	}
	const refused = "identity.certificate_policy"
	if !both(a, "") || !both(b, refused) {
		t.Fatalf("at first: %v %v", a.ask(t, "/file"), b.ask(t, "/file"))
	}
	trust(block(one.Certificate) + block(two.Certificate))
	eventually(t, "both to be trusted", func() bool { return both(b, "") })
	if !both(a, "") {
		t.Error("the first is not trusted any more")
	}
	trust("")
	eventually(t, "the log to tell of it", func() bool { return strings.Contains(gw.log(t), "a trust pool cannot be read") })
	if !both(a, "") || !both(b, "") {
		t.Error("an empty file, written half-way, took trust away")
	}
	trust(block(two.Certificate))
	eventually(t, "the first to be trusted no more", func() bool { return both(a, refused) })
	if !both(b, "") {
		t.Error("the second is not trusted")
	}
	if n := a.dialed.Load() + b.dialed.Load(); n != 2 {
		t.Errorf("it took %d connections, want one each", n)
	}
	if a := gw.as(t, nil).ask(t, "/file"); a.reason() != "identity.missing" {
		t.Errorf("without a certificate: %d %s", a.status, a.body)
	}
	gw.write(t, "broken.pem", "hello")
	if err := gw.load("", "identity {\nmtls {\ntrust_pool file broken.pem\n}\n}\nrespond ok"); err == nil || !strings.Contains(err.Error(), "trust_pool") {
		t.Errorf("a file without certificates: %v", err)
	}
}
