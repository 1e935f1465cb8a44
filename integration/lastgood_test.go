package integration

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
)

// away takes the storage of live objects away: a file stands where its folder
// was. What it returns brings it back.
func (g *gateway) away(t *testing.T) (back func()) {
	t.Helper()
	dir := filepath.Join(g.dir, "storage", "gatehouse", "registry")
	if err := os.Rename(dir, dir+"-away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return func() {
		t.Helper()
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(dir+"-away", dir); err != nil {
			t.Fatal(err)
		}
	}
}

// TestLastGoodCopy takes the storage away while the gateway runs, over a reload,
// and over a restart with and without a copy.
func TestLastGoodCopy(t *testing.T) {
	const registry = livePlans + "registry {\npoll 100ms\n"
	gw := prepare(t)
	copied := registry + "copy copies\n}\n"
	if err := gw.load(copied, liveSite); err != nil {
		t.Fatal(err)
	}
	good, err := gw.command(t, "key", "create", "--id", "good", "--plan", "pro")
	if err != nil {
		t.Fatal(err)
	}
	bad, err := gw.command(t, "key", "create", "--id", "bad")
	if err != nil {
		t.Fatal(err)
	}
	gw.revoke(t, `{"key":"bad"`)
	decides := func(when string) {
		t.Helper()
		if a := gw.get(t, "/", http.Header{"X-Api-Key": {good}}); a.status != 200 {
			t.Errorf("%s, a good key: %d %s", when, a.status, a.body)
		}
		if a := gw.get(t, "/", http.Header{"X-Api-Key": {bad}}); a.reason() != "identity.revoked" {
			t.Errorf("%s, a revoked key: %d %s", when, a.status, a.body)
		}
	}
	refused := func(when string) {
		t.Helper()
		a := gw.change(t, "PUT", "/gatehouse/tenants/acme", `{"plan":"pro"}`, nil)
		if a.status != 503 || !strings.Contains(a.body, "the storage of live objects cannot be used at the moment") {
			t.Errorf("%s, a change: %d %s", when, a.status, a.body)
		}
	}
	decides("at first")
	eventually(t, "the copy to be made", func() bool {
		data, _ := os.ReadFile(filepath.Join(gw.dir, "copies", "gatehouse", "registry", "copied.json"))
		return strings.Contains(string(data), `"revision":3`)
	})

	back := gw.away(t)
	eventually(t, "the gateway to notice", func() bool { return gw.metric(t, "gatehouse_registry_stale") == 1 })
	decides("while it is away")
	refused("while it is away")
	if err := gw.load(copied, liveSite); err != nil {
		t.Fatalf("a reload while it is away: %v", err)
	}
	decides("after a reload")
	refused("after a reload")

	if err := caddy.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := gw.load(registry+"}\n", liveSite); err == nil || !strings.Contains(err.Error(), "with the option copy, a gateway starts with what it knew last") {
		t.Errorf("started without a copy: %v", err)
	}
	if err := gw.load(registry+"copy nowhere\n}\n", liveSite); err == nil || !strings.Contains(err.Error(), "reading when the copy was made") {
		t.Errorf("started without a copy in the folder: %v", err)
	}
	if err := gw.load(registry+"copy copies 1ms\n}\n", liveSite); err == nil || !strings.Contains(err.Error(), "old, and may be 1ms") {
		t.Errorf("started with a copy that is too old: %v", err)
	}
	if err := gw.load(copied, liveSite); err != nil {
		t.Fatalf("a start with the copy: %v", err)
	}
	decides("after a start with the copy")
	refused("after a start with the copy")
	if n := gw.metric(t, "gatehouse_registry_stale"); n != 1 {
		t.Errorf("stale is %v", n)
	}

	back()
	eventually(t, "changes to be made again", func() bool {
		return gw.change(t, "PUT", "/gatehouse/tenants/acme", `{"plan":"pro"}`, nil).status < 300
	})
	decides("when it is back")
	if n := gw.metric(t, "gatehouse_registry_stale"); n != 0 {
		t.Errorf("stale is %v", n)
	}
}
