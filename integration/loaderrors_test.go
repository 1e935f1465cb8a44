package integration

import (
	"os"
	"strings"
	"testing"
)

// TestIdentityLoadErrors: what a configuration names and cannot be used is told by
// the option's word, the file, and its line; a secret is never repeated.
func TestIdentityLoadErrors(t *testing.T) {
	gw := prepare(t)
	const good = `{"keys":[{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","kid":"1","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`
	gw.write(t, "jwks.json", good)
	gw.write(t, "syntax.json", "{\n\"keys\": [\n{\"kty\": }\n]}")
	gw.write(t, "weak.json", "{\"keys\": [\n{\"kty\": \"oct\", \"k\": \"aHVudGVyMg\"}\n]}")
	gw.write(t, "key.pem", "-----BEGIN EC PRIVATE KEY-----\naHVudGVyMg==\n-----END EC PRIVATE KEY-----\n")
	gw.write(t, "empty", "\n")
	t.Setenv("GATEHOUSE_TEST_EMPTY", "")
	issuer := func(more string) string {
		return "identity {\nissuer main https://id.test {\naudience orders-api\n" + more + "\n}\n}"
	}
	introspect := func(more string) string { return issuer("introspect {\nclient_id gateway\n" + more + "\n}") }
	const site = "identity main\nrespond ok"
	for _, c := range []struct {
		name, global, site string
		want               []string
	}{
		{"no such file of keys", issuer("jwks none.json"), site, []string{`issuer "main": jwks "`, "none.json", "no such file"}},
		{"a file that is no JSON", issuer("jwks syntax.json"), site, []string{`issuer "main": jwks "`, `syntax.json": `, "line 3"}},
		{"keys that are too weak", issuer("jwks weak.json"), site, []string{`issuer "main": jwks "`, `weak.json": `, "key 1 in line 2"}},
		{"a variable that is not set", introspect("client_secret {env.GATEHOUSE_TEST_NONE}"), site, []string{`issuer "main": introspect client_secret: {env.GATEHOUSE_TEST_NONE}: the environment has no variable`}},
		{"a variable that is empty", introspect("client_secret {env.GATEHOUSE_TEST_EMPTY}"), site, []string{`introspect client_secret: {env.GATEHOUSE_TEST_EMPTY}: the environment variable is empty`}},
		{"a file that is not there", introspect("client_secret {file./none/secret}"), site, []string{`introspect client_secret: {file./none/secret}: no such file`}},
		{"a file that is empty", introspect("client_secret {file." + gw.dir + "/empty}"), site, []string{"introspect client_secret: {file.", "the file is empty"}},
		{"a name without a value", issuer("introspect {\nclient_id {env.GATEHOUSE_TEST_NONE}\nclient_secret {env.PATH}\n}"), site, []string{"introspect client_id: {env.GATEHOUSE_TEST_NONE}: the environment has no variable"}},
		{"a key that is none", introspect("auth private_key_jwt {\nkey key.pem\n}"), site, []string{`introspect auth private_key_jwt: key "`, "key.pem", "cannot be read as a private key"}},
		{"no such key", introspect("auth private_key_jwt {\nkey none.pem\n}"), site, []string{`introspect auth private_key_jwt: key "`, "none.pem", "no such file"}},
		{"no such certificate", introspect("auth mtls {\ncertificate none.crt\nkey key.pem\n}"), site, []string{`introspect auth mtls: certificate "`, "none.crt", "no such file"}},
		{"authorities that are a key", "", "identity {\nmtls {\ntrust_pool file key.pem\n}\n}\nrespond ok", []string{`mtls trust_pool: file "`, `key.pem": line 1: PEM block 1 is a "EC PRIVATE KEY"`}},
		{"no authorities", "", "identity {\nmtls {\ntrust_pool file none.pem\n}\n}\nrespond ok", []string{`mtls trust_pool: file "`, "none.pem", "no such file"}},
	} {
		err := gw.load(c.global, c.site)
		if err == nil {
			t.Errorf("%s: it is loaded", c.name)
			continue
		}
		for _, w := range c.want {
			if !strings.Contains(err.Error(), w) {
				t.Errorf("%s: %v; want %q", c.name, err, w)
			}
		}
		if strings.Contains(err.Error(), "aHVudGVyMg") || strings.Contains(err.Error(), os.Getenv("PATH")) {
			t.Errorf("%s: %v repeats a secret", c.name, err)
		}
	}
	// A Caddyfile's own line is in the log of what runs meanwhile.
	if err := gw.load("", "respond ok"); err != nil {
		t.Fatal(err)
	}
	if err := gw.load(introspect("client_secret {env.GATEHOUSE_TEST_NONE}"), site); err == nil {
		t.Fatal("it is loaded")
	}
	eventually(t, "the log to name the line", func() bool {
		log := gw.log(t)
		return strings.Contains(log, "a placeholder in the configuration has no value") && strings.Contains(log, "{env.GATEHOUSE_TEST_NONE}: the environment has no variable") && strings.Contains(log, "Caddyfile:16")
	})
}
