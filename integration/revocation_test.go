package integration

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// revoke revokes what begins an object, for an hour, and returns its id.
func (g *gateway) revoke(t testing.TB, begins string) (id string) {
	t.Helper()
	a := g.change(t, http.MethodPost, "/gatehouse/revocations", begins+`,"expires":"`+time.Now().Add(time.Hour).Format(time.RFC3339)+`"}`, nil)
	var o struct{ ID string }
	if err := json.Unmarshal([]byte(a.body), &o); err != nil || a.status >= 300 || a.header.Get("Location") != "/gatehouse/revocations/"+o.ID {
		t.Fatalf("%s: %d %s", begins, a.status, a.body)
	}
	return o.ID
}

// commandWith is command with something on standard input.
func (g *gateway) commandWith(t testing.TB, in string, args ...string) (string, error) {
	t.Helper()
	var out strings.Builder
	root := &cobra.Command{SilenceUsage: true, SilenceErrors: true}
	caddycmd.Commands()["gatehouse"].CobraFunc(root)
	root.SetIn(strings.NewReader(in))
	root.SetOut(&out)
	root.SetArgs(append(args, "--address", "unix/"+g.admin))
	err := root.ExecuteContext(t.Context())
	return strings.TrimSpace(out.String()), err
}

func revocable(t *testing.T) (gw *gateway, iss *issuer, key http.Header) {
	t.Helper()
	gw, iss = prepare(t), newIssuer(t, "k1")
	gw.write(t, "jwks.json", iss.jwks())
	if err := gw.load(fmt.Sprintf(identityGlobals, "jwks.json"), "api demo {\nidentity main {\nkeys\n}\nrespond ok\n}"); err != nil {
		t.Fatal(err)
	}
	secret, err := gw.command(t, "key", "create", "--id", "ci", "--tenant", "acme")
	if err != nil {
		t.Fatal(err)
	}
	return gw, iss, http.Header{"X-Api-Key": {secret}}
}

// TestRevocation: what was accepted and remembered is refused by the next
// request, and what is alike is not.
func TestRevocation(t *testing.T) {
	gw, iss, key := revocable(t)
	now := time.Now()
	token := func(claims map[string]any) http.Header { return bearer(iss.token(t, claims)) }
	mark := func(what, name string) string { return fmt.Sprintf(`{%q:%q`, what, name) }
	const of = `,"issuer":"https://id.test"`
	for _, tc := range []struct {
		name     string
		gone     http.Header
		stays    http.Header
		revokes  string
		describe string
	}{
		{"a token by its jti", token(map[string]any{"jti": "1"}), token(map[string]any{"jti": "2"}), mark("jti", "1") + of, "jti"},
		{"a subject", token(map[string]any{"sub": "eve"}), token(map[string]any{"sub": "eva"}), mark("subject", "eve") + of, "subject"},
		{
			"what a subject got before", token(map[string]any{"sub": "bob", "iat": now.Add(-time.Hour).Unix()}), token(map[string]any{"sub": "bob", "iat": now.Add(-time.Minute).Unix()}),
			mark("subject", "bob") + of + `,"before":"` + now.Add(-30*time.Minute).Format(time.RFC3339) + `"`, "subject",
		},
		{"a tenant", token(map[string]any{"tenant": "evil"}), token(map[string]any{"tenant": "evi"}), mark("tenant", "evil"), "tenant"},
		{"a key", key, token(nil), mark("key", "ci"), "key"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			for range 2 {
				if a := gw.get(t, "/", tc.gone); a.status != 200 {
					t.Fatalf("before: %d %s", a.status, a.body)
				}
			}
			counted := gw.metric(t, "gatehouse_identity_revoked_total", `by="`+tc.describe+`"`)
			id := gw.revoke(t, tc.revokes)
			a := gw.get(t, "/", tc.gone)
			if a.status != 401 || a.reason() != "identity.revoked" {
				t.Errorf("the next request: %d %s", a.status, a.body)
			}
			if challenge := a.header.Get("Www-Authenticate"); strings.Contains(challenge, `error="invalid_token"`) != (tc.describe != "key") {
				t.Errorf("challenge %q", challenge)
			}
			if n := gw.metric(t, "gatehouse_identity_revoked_total", `by="`+tc.describe+`"`) - counted; n != 1 {
				t.Errorf("counted %v times", n)
			}
			if a := gw.get(t, "/", tc.stays); a.status != 200 {
				t.Errorf("what is alike: %d %s", a.status, a.body)
			}
			if err := gw.load(fmt.Sprintf(identityGlobals, "jwks.json"), "api demo {\nidentity main {\nkeys\n}\nrespond ok\n}"); err != nil {
				t.Fatal(err)
			}
			if a := gw.get(t, "/", tc.gone); a.reason() != "identity.revoked" {
				t.Errorf("after a reload: %d %s", a.status, a.body)
			}
			if out, err := gw.command(t, "revoke", "lift", id); err != nil || out != "lifted "+id {
				t.Errorf("lifting it: %s %v", out, err)
			}
			if a := gw.get(t, "/", tc.gone); a.status != 200 {
				t.Errorf("lifted: %d %s", a.status, a.body)
			}
		})
	}
}

// TestRevokeCommand revokes tokens that are read from standard input, and holds
// that they are kept nowhere.
func TestRevokeCommand(t *testing.T) {
	gw, iss, _ := revocable(t)
	token := iss.token(t, nil)
	// A holder may write the same signature in another way: the last letter of
	// 64 bytes in base64url has four bits that say nothing.
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
	last := strings.IndexByte(letters, token[len(token)-1])
	again := token[:len(token)-1] + string(letters[last^1])
	if out, err := gw.commandWith(t, token+"\n", "revoke", "token", "--reason", "found in a log"); err != nil || !strings.HasPrefix(out, "revoked until ") {
		t.Fatalf("%s %v", out, err)
	}
	for name, text := range map[string]string{"the token": token, "the token written in another way": again} {
		if a := gw.get(t, "/", bearer(text)); a.status != 401 || text == token && a.reason() != "identity.revoked" {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
	}
	if a := gw.get(t, "/", bearer(iss.token(t, map[string]any{"sub": "bob"}))); a.status != 200 {
		t.Errorf("another: %d %s", a.status, a.body)
	}
	list, err := gw.command(t, "revoke", "list")
	if err != nil || !strings.Contains(list, "found in a log") || !strings.Contains(list, "sha256 ") {
		t.Errorf("%s %v", list, err)
	}
	kept := gw.log(t)
	err = filepath.Walk(filepath.Join(gw.dir, "storage"), func(name string, info os.FileInfo, err error) error {
		if err == nil && !info.IsDir() {
			data, _ := os.ReadFile(name)
			kept += string(data)
		}
		return err
	})
	if err != nil || strings.Contains(kept, token) || strings.Contains(kept, token[:len(token)-90]) || !strings.Contains(kept, "found in a log") {
		t.Errorf("the token is kept: %v", err)
	}
	for _, bad := range []struct{ in, args, says string }{
		{"", "token", "standard input has no token"},
		{"two words", "token", "standard input has no token"},
		{"opaque", "token", "--expires is required"},
		{"", "token --jti a --expires 1h", "issuer is required with jti"},
		{"", "token --sha256 abc --expires 1h", "64 hexadecimal digits"},
		{"", "subject ann --expires 1h", "issuer is required with subject"},
		{"", "subject ann --issuer main --expires 1h", `its tokens say "https://id.test"`},
		{"", "subject ann --issuer https://id.tset --expires 1h", `expected keys, mtls, https://id.test`},
		{"", "subject ann --issuer keys --expires tomorrow", "--expires \"tomorrow\" is neither"},
		{"", "subject ann --issuer keys --expires 1h --before noon", "--before \"noon\" is neither"},
		{"", "tenant acme", "--expires is required"},
		{"", "tenant acme --expires 2020-01-01T00:00:00Z", "--expires has passed"},
		{"", "lift subject ann", "none of key and tenant"},
		{"", "tenant acme --expires 900000h", "at most 10 years"},
		{"", "key", "accepts 1 arg"},
		{"", "lift nothing", `there is no "nothing" among the revocations`},
	} {
		if out, err := gw.commandWith(t, bad.in, append([]string{"revoke"}, strings.Fields(bad.args)...)...); err == nil || !strings.Contains(err.Error(), bad.says) {
			t.Errorf("%s: %s %v", bad.args, out, err)
		}
	}
	if a := gw.change(t, "PUT", "/gatehouse/revocations/mine", `{"tenant":"acme","expires":"2030-01-01T00:00:00Z"}`, nil); a.status != 400 || !strings.Contains(a.body, "the id of this object is") {
		t.Errorf("an id of one's own: %d %s", a.status, a.body)
	}
	if a := gw.change(t, "POST", "/gatehouse/revocations", `{"tennant":"acme"}`, nil); a.status != 400 || !strings.Contains(a.body, `unrecognized member \"tennant\"`) {
		t.Errorf("a misspelt member: %d %s", a.status, a.body)
	}
	if a := gw.change(t, "POST", "/gatehouse/tenants", `{}`, nil); a.status != 405 {
		t.Errorf("a tenant without an id: %d %s", a.status, a.body)
	}
}

// TestRevokeKeyCommand: a key that is not there is asked back about, and whoever
// revokes is told what stands.
func TestRevokeKeyCommand(t *testing.T) {
	gw, _, key := revocable(t)
	for _, step := range []struct {
		args      string
		fails     bool
		says, not string
	}{
		{"key cii", true, `there is no key "cii"`, "?force"},
		{"list", false, "ID", "cii"},
		{"key cii --force --reason early", false, "warning: there is no key \"cii\"", ""},
		{"key cii --expires 1h", false, "it stood already, and revokes at least as much: nothing was changed; its reason is early", "warning"},
		{"lift key cii", false, "lifted", ""},
		{"key ci", false, "revoked until 203", "warning"}, // for as long as can be: the key does not expire
		{"lift key ci", false, "lifted", ""},
		{"lift key ci", true, "there is no", ""},
		{"tenant acme --before now --expires 30d", false, ", of what was issued before 2", ""},
		{"tenant acme --expires 2d", true, "--replace puts yours in its place", "--force"},
		{"tenant acme --expires 2d --replace", false, "revoked until", "before"},
		{"lift tenant acme", false, "lifted", ""},
	} {
		said, err := gw.told(t, append([]string{"revoke"}, strings.Fields(step.args)...)...)
		if err != nil {
			said += err.Error()
		}
		if (err != nil) != step.fails || !strings.Contains(said, step.says) || step.not != "" && strings.Contains(said, step.not) {
			t.Errorf("%s: %s", step.args, said)
		}
	}
	if a := gw.get(t, "/", key); a.status != 200 {
		t.Errorf("when all is lifted: %d %s", a.status, a.body)
	}
	if list, err := gw.command(t, "revoke", "list", "--json"); err != nil || list != "" {
		t.Errorf("a list of nothing: %q %v", list, err)
	}
	// What stood already leaves no change behind.
	audit := gw.change(t, "GET", "/gatehouse/audit?kind=revocations", "", nil)
	if n := strings.Count(audit.body, `"action":"create"`); n != 3 || strings.Count(audit.body, `"action":"replace"`) != 1 {
		t.Errorf("the trail: %s", audit.body)
	}
	// A key that expires is revoked until then.
	if _, err := gw.command(t, "key", "create", "--id", "brief", "--expires", "2d"); err != nil {
		t.Fatal(err)
	}
	is := gw.change(t, "GET", "/gatehouse/keys/brief", "", nil)
	_, after, _ := strings.Cut(is.body, `"expires":"`)
	if said, err := gw.told(t, "revoke", "key", "brief", "--reason", "a\tb"); err != nil || !strings.HasPrefix(said, "revoked until "+after[:20]) {
		t.Errorf("%s %v, of %s", said, err, is.body)
	}
	list, err := gw.command(t, "revoke", "list", "--json")
	var o struct{ Value struct{ Key, Reason string } }
	if err != nil || json.Unmarshal([]byte(list), &o) != nil || o.Value.Key != "brief" || o.Value.Reason != "a\tb" {
		t.Errorf("a list: %q %v", list, err)
	}
}

// BenchmarkMillionRevocations starts a gateway that has a million of them, and
// fails if they take 100 MB or more.
func BenchmarkMillionRevocations(b *testing.B) {
	const million = 1_000_000
	gw := prepare(b)
	dir := filepath.Join(gw.dir, "storage", "gatehouse", "registry", "revocations")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		b.Fatal(err)
	}
	parts := make([]strings.Builder, 1<<12)
	for i := range million {
		// A mark as the engine makes it: the parts' lengths, their texts, the name.
		sum := sha256.Sum256(fmt.Appendf(nil, "\x03jti\x0fhttps://id.test%d", i))
		id := hex.EncodeToString(sum[:16])
		at := int(sum[0])<<4 | int(sum[1])>>4
		sep := `{"objects":[`
		if parts[at].Len() > 0 {
			sep = ","
		}
		fmt.Fprintf(&parts[at], `%s{"id":%q,"version":%d,"source":"live","value":{"jti":"%d","issuer":"https://id.test","expires":"2035-01-01T00:00:00Z"}}`, sep, id, i+1, i)
	}
	for at := range parts {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%03x.json", at)), []byte(parts[at].String()+"]}"), 0o600); err != nil {
			b.Fatal(err)
		}
		parts[at].Reset()
	}
	iss := newIssuer(b, "k1")
	gw.write(b, "jwks.json", iss.jwks())
	heap := func() float64 {
		var m runtime.MemStats
		for range 2 {
			runtime.GC()
		}
		runtime.ReadMemStats(&m)
		return float64(m.HeapAlloc) / 1e6
	}
	before := heap()
	for b.Loop() {
		if err := gw.load(fmt.Sprintf(identityGlobals, "jwks.json"), "api demo {\nidentity main\nrespond ok\n}"); err != nil {
			b.Fatal(err)
		}
	}
	took := heap() - before
	b.ReportMetric(took, "MB")
	if n := gw.metric(b, "gatehouse_registry_objects", `kind="revocations"`); n != million || took >= 100 {
		b.Errorf("%v revocations take %.1f MB, and may take less than 100", n, took)
	}
	for jti, want := range map[string]int{"7": 401, "1000000": 200} {
		if a := gw.get(b, "/", bearer(iss.token(b, map[string]any{"jti": jti}))); a.status != want {
			b.Errorf("jti %s: %d %s", jti, a.status, a.body)
		}
	}
}

// TestRevokedTwice: of two revocations of the same the stronger stands.
func TestRevokedTwice(t *testing.T) {
	gw, iss, _ := revocable(t)
	token := bearer(iss.token(t, map[string]any{"iat": time.Now().Unix()}))
	revoke := func(before, expires time.Duration, method, path string) answer {
		v := map[string]any{"subject": "ann", "issuer": "https://id.test", "expires": time.Now().Add(expires)}
		if before != 0 {
			v["before"] = time.Now().Add(before)
		}
		body, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		return gw.change(t, method, path, string(body), nil)
	}
	is := func(what, reason string) {
		t.Helper()
		if a := gw.get(t, "/", token); a.reason() != reason {
			t.Errorf("%s: %d %s", what, a.status, a.body)
		}
	}
	const all = "/gatehouse/revocations"
	a := revoke(-time.Minute, time.Hour, "POST", all)
	one := a.header.Get("Location")
	if a.status != 201 || one == "" {
		t.Fatalf("%d %s", a.status, a.body)
	}
	is("logged out, and in again", "")
	if a := revoke(0, 2*time.Hour, "POST", all); a.status != 200 {
		t.Errorf("shut out: %d %s", a.status, a.body)
	}
	is("shut out", "identity.revoked")
	if a := revoke(-time.Minute, time.Hour, "POST", all); a.status != 200 || strings.Contains(a.body, "before") {
		t.Errorf("logged out while shut out: %d %s", a.status, a.body)
	}
	is("still shut out", "identity.revoked")
	if a := revoke(-time.Minute, 3*time.Hour, "POST", all); a.status != 409 || !strings.Contains(a.body, "PUT") {
		t.Errorf("for longer, but less: %d %s", a.status, a.body)
	}
	is("and still", "identity.revoked")
	if a := revoke(-time.Minute, 3*time.Hour, "PUT", one); a.status != 200 {
		t.Errorf("on purpose: %d %s", a.status, a.body)
	}
	is("let in again", "")
}
