package integration

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// sharing starts two gateways that share a storage and, where r is given, a cluster.
func sharing(t *testing.T, r *redis, poll string) (a, b *gateway, iss *issuer) {
	t.Helper()
	iss = newIssuer(t, "k1")
	a, b = prepare(t), prepare(t)
	global := fmt.Sprintf(identityGlobals, "jwks.json") + "registry {\npoll " + poll + "\n}\n"
	if r != nil {
		global += "cluster unix://" + r.sock
	}
	for _, g := range []*gateway{a, b} {
		g.write(t, "jwks.json", iss.jwks())
		file := g.caddyfile(global, "api demo {\nidentity main {\nkeys\n}\nrespond ok\n}")
		g.process(t, strings.ReplaceAll(file, filepath.Join(g.dir, "storage"), filepath.Join(a.dir, "storage")))
		if r != nil {
			g.up(t, 1)
			eventually(t, "a gateway to listen", func() bool {
				out, err := r.ask("PUBSUB NUMSUB gatehouse:notice:registry")
				return err == nil && strings.HasSuffix(out, map[bool]string{true: ":1", false: ":2"}[g == a])
			})
		}
	}
	return a, b, iss
}

// ask sends the server a command as people type them, and returns the last line
// of what it answers.
func (r *redis) ask(command string) (string, error) {
	c, err := net.Dial("unix", r.sock)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := c.Write([]byte(command + "\r\nQUIT\r\n")); err != nil {
		return "", err
	}
	data, err := io.ReadAll(c)
	lines := strings.Split(strings.TrimSuffix(strings.TrimSpace(string(data)), "\r\n+OK"), "\r\n")
	return lines[len(lines)-1], err
}

// TestNotices: what changes on one node is in effect on the other within a
// second, long before it would look at the storage.
func TestNotices(t *testing.T) {
	a, b, iss := sharing(t, startRedis(t), "10m")
	token := bearer(iss.token(t, map[string]any{"jti": "1"}))
	if got := b.get(t, "/", token); got.status != 200 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	key, err := a.command(t, "key", "create", "--id", "ci")
	if err != nil {
		t.Fatal(err)
	}
	with := http.Header{"X-Api-Key": {key}}
	var lift string
	for _, step := range []struct {
		what   string
		change func()
		header http.Header
		status int
	}{
		{"a key that was created", func() {}, with, 200},
		{"a key that was revoked", func() { lift = a.revoke(t, `{"key":"ci"`) }, with, 401},
		{"a revocation that was lifted", func() { _, _ = a.command(t, "revoke", "lift", lift) }, with, 200},
		{"a key that was deleted", func() { _, _ = a.command(t, "key", "revoke", "ci") }, with, 401},
		{"a token that was revoked", func() { a.revoke(t, `{"jti":"1","issuer":"https://id.test"`) }, token, 401},
	} {
		stop := lateness()
		step.change()
		began := time.Now()
		eventually(t, step.what, func() bool { return b.get(t, "/", step.header).status == step.status })
		took, late := time.Since(began), stop()
		t.Logf("%s: %v", step.what, took)
		if took > time.Second+5*late {
			t.Errorf("%s took %v to arrive, and may take a second", step.what, took)
		}
	}
	if n := b.metric(t, "gatehouse_registry_notices_total", `outcome="heard"`); n < 4 {
		t.Errorf("%v notices were heard", n)
	}
	if n := a.metric(t, "gatehouse_registry_notices_total", `outcome="sent"`); n < 4 {
		t.Errorf("%v notices were sent", n)
	}
}

// TestNoticesWithoutServer: when Redis is gone, looking at the storage is what
// is left, and changes are made all the same. When it is back, so are notices.
func TestNoticesWithoutServer(t *testing.T) {
	r := startRedis(t)
	a, b, iss := sharing(t, r, "100ms")
	r.kill()
	a.up(t, 0)
	b.up(t, 0)
	token := bearer(iss.token(t, map[string]any{"jti": "1"}))
	if got := b.get(t, "/", token); got.status != 200 {
		t.Fatalf("%d %s", got.status, got.body)
	}
	a.revoke(t, `{"jti":"1","issuer":"https://id.test"`)
	eventually(t, "the other to look", func() bool { return b.get(t, "/", token).status == 401 })
	if n := a.metric(t, "gatehouse_registry_notices_total", `outcome="failed"`); n != 1 {
		t.Errorf("%v notices failed", n)
	}
	r.start(t)
	a.up(t, 1)
	b.up(t, 1)
	heard := b.metric(t, "gatehouse_registry_notices_total", `outcome="heard"`)
	eventually(t, "the other to listen again", func() bool {
		a.revoke(t, `{"tenant":"acme"`)
		return b.metric(t, "gatehouse_registry_notices_total", `outcome="heard"`) > heard
	})
}

// TestNoticesAreWordsOfStrangers: whoever may publish on the server can make a
// node look, and no more.
func TestNoticesAreWordsOfStrangers(t *testing.T) {
	r := startRedis(t)
	a, b, iss := sharing(t, r, "10m")
	for _, word := range []string{"hello", "18446744073709551615", "-1", "99999999999999999999999"} {
		for range 50 {
			if out, err := r.ask("PUBLISH gatehouse:notice:registry " + word); err != nil || out != ":2" {
				t.Fatal(out, err)
			}
		}
	}
	token := bearer(iss.token(t, map[string]any{"jti": "1"}))
	a.revoke(t, `{"jti":"1","issuer":"https://id.test"`)
	eventually(t, "a true notice", func() bool { return b.get(t, "/", token).status == 401 })
}
