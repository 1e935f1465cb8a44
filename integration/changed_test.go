package integration

import (
	"fmt"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// TestFilesThatChanged: a reload without force takes up what files say now, of a
// contract in parts, of keys, and of rules.
func TestFilesThatChanged(t *testing.T) {
	gw := prepare(t)
	const path = "  /%s: {$ref: \"parts.yaml#/item\"}\n"
	contract := func(paths ...string) {
		var text strings.Builder
		text.WriteString("openapi: 3.0.3\ninfo: {title: A, version: '1'}\npaths:\n")
		for _, p := range paths {
			fmt.Fprintf(&text, path, p)
		}
		gw.write(t, "api.yaml", text.String())
	}
	part := func(method string) {
		gw.write(t, "parts.yaml", "item: {"+method+": {security: [], responses: {'200': {description: ok}}}}\n")
	}
	keys := func(of ...string) {
		var list []string
		for _, key := range of {
			list = append(list, fmt.Sprintf(`{"id":%q,"sha256":%q}`, key, hashOf(key)))
		}
		gw.write(t, "keys.json", "["+strings.Join(list, ",")+"]")
	}
	rules := func(word string) {
		gw.write(t, "own.conf", `SecRule ARGS "@contains `+word+`" "id:1000,phase:1,deny,status:403"`)
	}
	load := func() {
		t.Helper()
		raw, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(gw.caddyfile("identity {\nkeys "+gw.dir+"/keys.json\n}",
			"api demo {\ncontract "+gw.dir+"/api.yaml\nidentity {\nkeys\noptional\n}\nfirewall {\nrules "+gw.dir+"/own.conf\n}\nrespond ok\n}")), nil)
		if err == nil {
			err = caddy.Load(raw, false)
		}
		if err != nil {
			t.Fatal(err)
		}
		gw.settle()
	}
	expect := func(when, path, key string, want int) {
		t.Helper()
		header := with(nil, "X-Other", "x")
		if key != "" {
			header = with(nil, "X-Api-Key", key)
		}
		if a := gw.get(t, path, header); a.status != want {
			t.Errorf("%s: %s with %q: %d, want %d", when, path, key, a.status, want)
		}
	}
	contract("a")
	part("get")
	keys("one", "two")
	rules("foo")
	load()
	expect("at first", "/a", "one", 200)
	expect("at first", "/b", "", 404)
	expect("at first", "/a?q=bar", "", 200)

	contract("a", "b")
	load()
	expect("a path more", "/b", "", 200)
	part("put")
	load()
	expect("another method in a part", "/a", "", 405)
	part("get")
	keys("two")
	load()
	expect("a key less", "/a", "one", 401)
	expect("a key less", "/a", "two", 200)
	rules("bar")
	load()
	expect("another rule", "/a?q=bar", "", 403)
}

// TestKeySetFileThatChanged: a key that is taken out of an issuer's file is
// trusted no more after a reload, which nobody has to force.
func TestKeySetFileThatChanged(t *testing.T) {
	old, next := newIssuer(t, "k1"), newIssuer(t, "k2")
	gw := prepare(t)
	load := func(iss *issuer) {
		t.Helper()
		gw.write(t, "jwks.json", iss.jwks())
		raw, _, err := caddyconfig.GetAdapter("caddyfile").Adapt([]byte(gw.caddyfile(fmt.Sprintf(identityGlobals, gw.dir+"/jwks.json"), "api demo {\nidentity main\nrespond ok\n}")), nil)
		if err == nil {
			err = caddy.Load(raw, false)
		}
		if err != nil {
			t.Fatal(err)
		}
		gw.settle()
	}
	load(old)
	if a := gw.get(t, "/", bearer(old.token(t, nil))); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	load(next)
	if a := gw.get(t, "/", bearer(old.token(t, nil))); a.reason() != "identity.unknown_key" {
		t.Errorf("the old key: %d %s", a.status, a.body)
	}
	if a := gw.get(t, "/", bearer(next.token(t, nil))); a.status != 200 {
		t.Errorf("the new key: %d %s", a.status, a.body)
	}
}
