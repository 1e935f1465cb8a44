package integration

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// change makes a request of the admin endpoint.
func (g *gateway) change(t testing.TB, method, path, body string, header http.Header) answer {
	t.Helper()
	tr := &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", g.admin)
	}}
	r, err := http.NewRequestWithContext(t.Context(), method, "http://localhost"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if header != nil {
		r.Header = header
	}
	resp, err := (&http.Client{Transport: tr}).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, resp.Trailer, string(b)}
}

// command runs `caddy gatehouse …` against the gateway.
func (g *gateway) command(t testing.TB, args ...string) (string, error) {
	t.Helper()
	return g.commandAt(t, "unix/"+g.admin, args...)
}

// commandAt is command for another admin endpoint.
func (g *gateway) commandAt(t testing.TB, address string, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := g.serveCommand(t.Context(), t, &out, append(args, "--address", address)...)
	return strings.TrimSpace(out.String()), err
}

// serveCommand is command for one that goes on until ctx ends.
func (g *gateway) serveCommand(ctx context.Context, t testing.TB, out io.Writer, args ...string) error {
	c, ok := caddycmd.Commands()["gatehouse"]
	if !ok {
		t.Error("there is no command gatehouse")
		return nil
	}
	root := &cobra.Command{SilenceUsage: true, SilenceErrors: true}
	c.CobraFunc(root)
	root.SetOut(out)
	root.SetErr(io.Discard)
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}

const liveSite = `
	api orders {
		identity {
			keys
		}
		quota per tenant
		respond ok
	}
`

const livePlans = `
	quota {
		plan free 2/h
		plan pro 1000/h
		default free
	}
`

// TestLiveKeys creates and revokes keys while requests come.
func TestLiveKeys(t *testing.T) {
	gw := start(t, livePlans, liveSite)
	if a := gw.get(t, "/", http.Header{"X-Api-Key": {"gh_unknown"}}); a.reason() != "identity.invalid_api_key" {
		t.Fatalf("an unknown key: %d %s", a.status, a.body)
	}
	key, err := gw.command(t, "key", "create", "--id", "ci", "--tenant", "acme", "--plan", "pro", "--scope", "orders:read")
	if err != nil || !strings.HasPrefix(key, "gh_") {
		t.Fatalf("create: %q %v", key, err)
	}
	with := http.Header{"X-Api-Key": {key}}
	if a := gw.get(t, "/", with); a.status != http.StatusOK {
		t.Fatalf("the next request with the key: %d %s", a.status, a.body)
	}
	if _, err := gw.command(t, "key", "create", "--id", "ci"); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("a second key of one id: %v", err)
	}
	if _, err := gw.command(t, "key", "create", "--id", "late", "--expires", "tomorrow"); err == nil || !strings.Contains(err.Error(), "--expires") {
		t.Errorf("a wrong time: %v", err)
	}
	list, err := gw.command(t, "key", "list")
	if err != nil || !strings.Contains(list, "ci") || !strings.Contains(list, "acme") || strings.Contains(list, key) {
		t.Errorf("list: %v\n%s", err, list)
	}

	// It outlives a reload and, being stored, a restart.
	if err := gw.load(livePlans, liveSite); err != nil {
		t.Fatal(err)
	}
	if a := gw.get(t, "/", with); a.status != http.StatusOK {
		t.Errorf("after a reload: %d %s", a.status, a.body)
	}
	if out, err := gw.command(t, "key", "revoke", "ci"); err != nil || out != "revoked ci" {
		t.Errorf("revoke: %q %v", out, err)
	}
	if a := gw.get(t, "/", with); a.reason() != "identity.invalid_api_key" {
		t.Errorf("after it was revoked: %d %s", a.status, a.body)
	}
	if _, err := gw.command(t, "key", "revoke", "ci"); err == nil || !strings.Contains(err.Error(), `there is no "ci" among the keys`) {
		t.Errorf("revoking it again: %v", err)
	}
	var trail []string
	for line := range strings.Lines(gw.log(t)) {
		if strings.Contains(line, "live object changed") {
			trail = append(trail, line)
		}
	}
	if len(trail) != 2 || !strings.Contains(trail[0], `"action":"create"`) || !strings.Contains(trail[1], `"action":"delete"`) {
		t.Errorf("the audit trail: %s", trail)
	}
	if strings.Contains(gw.log(t), key) {
		t.Error("the key is in the log")
	}
	if got := gw.change(t, "GET", "/gatehouse/audit", "", nil); !strings.Contains(got.body, `"action":"delete","kind":"keys","id":"ci"`) {
		t.Errorf("the trail over the admin API: %s", got.body)
	}
}

// TestConfiguredKeys are shown, and only the configuration changes them.
func TestConfiguredKeys(t *testing.T) {
	gw := prepare(t)
	gw.write(t, "keys.json", fmt.Sprintf(`[{"id":"old","sha256":"%064d","tenant":"acme"}]`, 1))
	if err := gw.load(livePlans+"\n identity {\n keys keys.json\n }", liveSite); err != nil {
		t.Fatal(err)
	}
	if a := gw.change(t, "GET", "/gatehouse/keys", "", nil); a.status != 200 || !strings.Contains(a.body, `"id":"old","source":"config"`) {
		t.Errorf("%d %s", a.status, a.body)
	}
	for _, method := range []string{"PUT", "PATCH", "DELETE"} {
		if a := gw.change(t, method, "/gatehouse/keys/old", `{}`, nil); a.status != http.StatusConflict {
			t.Errorf("%s of a configured key: %d %s", method, a.status, a.body)
		}
	}
}

// TestLiveTenants changes what a tenant may have between two requests.
func TestLiveTenants(t *testing.T) {
	gw := start(t, livePlans, liveSite)
	key, err := gw.command(t, "key", "create", "--id", "a", "--tenant", "acme", "--plan", "free")
	if err != nil {
		t.Fatal(err)
	}
	get := func() answer { return gw.get(t, "/", http.Header{"X-Api-Key": {key}}) }
	get()
	get()
	if a := get(); a.reason() != "quota.exhausted" {
		t.Fatalf("the third of two: %d %s", a.status, a.body)
	}
	for _, bad := range []struct{ body, says string }{
		{`{"plan":"gold"}`, `plan \"gold\" is not defined`},
		{`{"plam":"pro"}`, `unrecognized member \"plam\"; expected plan, rate`},
		{`{}`, "needs a plan or a rate"},
		{`{"rate":{"events":0,"window":"1m"}}`, "events must be at least 1"},
	} {
		if a := gw.change(t, "PUT", "/gatehouse/tenants/acme", bad.body, nil); a.status != 400 || !strings.Contains(a.body, bad.says) {
			t.Errorf("%s: %d %s", bad.body, a.status, a.body)
		}
	}
	if a := gw.change(t, "PUT", "/gatehouse/tenants/acme", `{"plan":"pro"}`, nil); a.status != http.StatusCreated {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := get(); a.status != 200 || !strings.HasPrefix(a.header.Get("RateLimit"), `"pro"`) {
		t.Errorf("with the plan pro: %d %s %q", a.status, a.body, a.header.Get("RateLimit"))
	}
	if a := gw.change(t, "PATCH", "/gatehouse/tenants/acme", `{"rate":{"events":5,"window":"1h"}}`, nil); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := get(); !strings.HasPrefix(a.header.Get("RateLimit-Policy"), `"override";q=5`) {
		t.Errorf("with a rate of its own: %d %q", a.status, a.header.Get("RateLimit-Policy"))
	}
}

// TestLiveModes switches stages between two requests, without a reload.
func TestLiveModes(t *testing.T) {
	gw := start(t, livePlans, liveSite)
	if a := gw.get(t, "/", nil); a.reason() != "identity.missing" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	put := func(id, body string) answer { return gw.change(t, "PUT", "/gatehouse/modes/"+id, body, nil) }
	for _, bad := range []struct{ id, body, says string }{
		{"ordres.identity", `{"mode":"shadow"}`, `no API \"ordres\" is running`},
		{"orders.identiy", `{"mode":"shadow"}`, `\"identiy\" is no stage`},
		{"orders.api", `{"mode":"off"}`, "is no stage that has a mode"},
		{"orders", `{"mode":"off"}`, "is not \\u003capi\\u003e.\\u003cstage\\u003e"},
		{"orders.identity", `{"mode":"shadov"}`, "expected enforce, shadow or off"},
		{"orders.identity", `{}`, "mode is required"},
	} {
		if a := put(bad.id, bad.body); a.status != 400 || !strings.Contains(a.body, bad.says) {
			t.Errorf("%s %s: %d %s", bad.id, bad.body, a.status, a.body)
		}
	}
	if a := put("orders.identity", `{"mode":"shadow"}`); a.status != 201 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := gw.get(t, "/", nil); a.status != 200 {
		t.Errorf("in shadow: %d %s", a.status, a.body)
	}
	if n := gw.metric(t, "gatehouse_decisions_total", `verdict="would_deny"`, `reason="identity.missing"`, `mode="shadow"`); n < 1 {
		t.Error("shadow was not recorded")
	}
	if a := put("orders.identity", `{"mode":"off"}`); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := gw.get(t, "/", http.Header{"X-Api-Key": {"x"}}); a.status != 200 {
		t.Errorf("off: %d %s", a.status, a.body)
	} else if one, err := gw.command(t, "explain", a.header.Get("X-Request-Id")); err != nil || !regexp.MustCompile(`identity +allow .* off `).MatchString(one) {
		t.Errorf("nothing says that identity is off: %v\n%s", err, one)
	}
	if err := gw.load(livePlans, liveSite); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(gw.log(t), "is set over the admin API") {
		t.Error("loading does not warn of a live mode")
	}
	if a := gw.get(t, "/", nil); a.status == 401 {
		t.Error("a reload forgot the mode")
	}
	if a := gw.change(t, "DELETE", "/gatehouse/modes/orders.identity", "", nil); a.status != 204 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	if a := gw.get(t, "/", nil); a.reason() != "identity.missing" {
		t.Errorf("as configured again: %d %s", a.status, a.body)
	}
	// What is off in the configuration can be switched on.
	if err := gw.load("", "api orders {\n firewall {\n mode off\n }\n respond ok\n }"); err != nil {
		t.Fatal(err)
	}
	const attack = "/?q=1%27%20UNION%20SELECT%20password%20FROM%20users--"
	if a := gw.get(t, attack, nil); a.status != 200 {
		t.Errorf("off in the configuration: %d", a.status)
	}
	put("orders.firewall", `{"mode":"enforce"}`)
	if a := gw.get(t, attack, nil); a.reason() != "firewall.attack" {
		t.Errorf("switched on: %d %s", a.status, a.body)
	}
}

// TestAuditAfterRefusedReload: changes go on to the log of the configuration that
// is in effect, whatever a reload that was refused has said.
func TestAuditAfterRefusedReload(t *testing.T) {
	gw := start(t, livePlans, liveSite)
	other := filepath.Join(gw.dir, "other")
	change := func(tenant string) (here, there int) {
		t.Helper()
		if a := gw.change(t, "PUT", "/gatehouse/tenants/"+tenant, `{"plan":"pro"}`, nil); a.status != 201 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		count := func(file string) int {
			log, _ := os.ReadFile(file)
			return strings.Count(string(log), `"live object changed"`)
		}
		return count(gw.logFile()), count(other)
	}
	good := strings.ReplaceAll(gw.caddyfile(livePlans, liveSite), "output file "+gw.logFile(), "output file "+other)
	for i, bad := range []string{
		strings.ReplaceAll(good, "bind unix/"+gw.sock, "bind unix/"+gw.dir+"/nowhere/s"),                                                 // fails when it starts
		strings.ReplaceAll(good, "respond ok", "reverse_proxy localhost:9 {\ntransport http {\ntls_client_auth none.crt none.key\n}\n}"), // when it is made ready
	} {
		if err := gw.loadFile(bad); err == nil {
			t.Fatalf("configuration %d was loaded", i)
		}
		if here, there := change(fmt.Sprint("refused-", i)); here != i+1 || there != 0 {
			t.Errorf("after %d: %d changes are in its log and %d in the other", i, here, there)
		}
	}
	if err := gw.loadFile(good); err != nil {
		t.Fatal(err)
	}
	if here, there := change("taken"); here != 2 || there != 1 {
		t.Errorf("after a reload: %d changes are in the log before and %d in the one now", here, there)
	}
}

// TestRegistryAway starts a gateway whose storage cannot be read.
func TestRegistryAway(t *testing.T) {
	gw := prepare(t)
	dir := filepath.Join(gw.dir, "storage", "gatehouse", "registry")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "journal.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := gw.load(livePlans, liveSite)
	if err == nil || !strings.Contains(err.Error(), "reading the journal of live objects") {
		t.Errorf("a broken journal: %v", err)
	}
}
