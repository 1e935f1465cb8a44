package integration

import (
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	clock "github.com/gatehouse-caddy/gatehouse/modules/gate/rehearsal"
)

const nonceSite = `api demo {
	identity main {
		dpop {
			nonce 60s
		}
	}
	require scope orders:admin
	respond ok
}`

// TestDPoPNonce: a proof needs a nonce that the gateway gave a short while ago,
// which no gateway has to remember (RFC 9449, sections 8 and 9).
func TestDPoPNonce(t *testing.T) {
	iss, ann := newIssuer(t, "k1"), holder{newIssuer(t, "")}
	gw := prepare(t)
	gw.write(t, "jwks.json", iss.jwks())
	if err := gw.load(fmt.Sprintf(identityGlobals, "jwks.json"), strings.Replace(nonceSite, "orders:admin", "orders:read", 1)); err != nil {
		t.Fatal(err)
	}
	now := time.Now().Truncate(time.Minute)
	t.Cleanup(clock.Release)
	clock.Hold(now)
	token := iss.token(t, map[string]any{"iat": now.Unix(), "cnf": map[string]any{"jkt": ann.thumbprint()}})
	ask := func(nonce any) answer {
		t.Helper()
		change := map[string]any{"iat": now.Unix(), "nonce": nonce}
		if nonce == nil {
			delete(change, "nonce")
		}
		return gw.get(t, "/", ann.with(t, token, "http://localhost/", change))
	}
	refused := func(what string, a answer) string {
		t.Helper()
		challenge := strings.Join(a.header["Www-Authenticate"], "|")
		nonce := a.header["Dpop-Nonce"]
		if a.status != 401 || a.reason() != "identity.nonce" || !strings.Contains(challenge, `DPoP algs=`) || !strings.Contains(challenge, `error="use_dpop_nonce"`) || len(nonce) != 1 {
			t.Fatalf("%s: %d %s %v", what, a.status, a.body, a.header)
		}
		return nonce[0]
	}
	nonce := refused("no nonce", ask(nil))
	// The key in the storage may take the place of the process's own meanwhile,
	// whose nonces stay good.
	if a := ask(nonce); a.status != 200 || a.header.Get("Dpop-Nonce") == "" {
		t.Fatalf("a good nonce: %d %s", a.status, a.body)
	}
	refused("somebody's own", ask("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"))
	refused("a number", ask(7))
	if a := gw.get(t, "/", nil); a.reason() != "identity.missing" || ask(a.header.Get("Dpop-Nonce")).status != 200 {
		t.Errorf("who has no token yet: %d %v", a.status, a.header)
	}
	if a := gw.get(t, "/", bearer(iss.token(t, map[string]any{"iat": now.Unix()}))); a.status != 200 || a.header["Dpop-Nonce"] != nil {
		t.Errorf("who makes no proofs: %d %v", a.status, a.header)
	}

	// The next one comes with an answer before this one is too old.
	clock.Advance(20 * time.Second)
	a := ask(nonce)
	next := a.header.Get("Dpop-Nonce")
	if a.status != 200 || next == nonce || next == "" {
		t.Errorf("20s later: %d %q, was %q", a.status, next, nonce)
	}
	clock.Advance(39 * time.Second)
	if a := ask(nonce); a.status != 200 {
		t.Errorf("59s later: %d %s", a.status, a.body)
	}
	clock.Advance(time.Second)
	refused("60s later", ask(nonce))
	if a := ask(next); a.status != 200 {
		t.Errorf("the next one: %d %s", a.status, a.body)
	}
	// A refusal of a later stage has it too, and a reload changes nothing.
	if err := gw.load(fmt.Sprintf(identityGlobals, "jwks.json"), nonceSite); err != nil {
		t.Fatal(err)
	}
	if a := ask(next); a.reason() != "require.scope" || a.header.Get("Dpop-Nonce") == "" || !strings.Contains(strings.Join(a.header["Www-Authenticate"], "|"), `, error="insufficient_scope"`) {
		t.Errorf("after a reload: %d %s %v", a.status, a.body, a.header)
	}
}

// TestDPoPNonceOfOthers: gateways that share a storage accept each other's
// nonces; one with another storage does not.
func TestDPoPNonceOfOthers(t *testing.T) {
	iss, ann := newIssuer(t, "k1"), holder{newIssuer(t, "")}
	token := iss.token(t, bound(ann.thumbprint()))
	var nodes []*gateway
	shared := ""
	for range 2 {
		gw := prepare(t)
		gw.write(t, "jwks.json", iss.jwks())
		file := gw.caddyfile(fmt.Sprintf(identityGlobals, "jwks.json"), strings.Replace(nonceSite, "orders:admin", "orders:read", 1))
		if own := "file_system " + filepath.Join(gw.dir, "storage"); shared == "" {
			shared = own
		} else {
			file = strings.Replace(file, own, shared, 1)
		}
		gw.process(t, file)
		nodes = append(nodes, gw)
	}
	ask := func(n *gateway, nonce string) answer {
		change := map[string]any{}
		if nonce != "" {
			change["nonce"] = nonce
		}
		return n.get(t, "/", ann.with(t, token, "http://localhost/", change))
	}
	eventually(t, "each to accept the other's", func() bool {
		a, b := ask(nodes[0], "").header.Get("Dpop-Nonce"), ask(nodes[1], "").header.Get("Dpop-Nonce")
		return ask(nodes[1], a).status == http.StatusOK && ask(nodes[0], b).status == http.StatusOK
	})
	stranger := nodeWith(t, map[string]string{"jwks.json": iss.jwks()}, fmt.Sprintf(identityGlobals, "jwks.json"), nonceSite)
	if a := ask(stranger, ask(nodes[0], "").header.Get("Dpop-Nonce")); a.reason() != "identity.nonce" {
		t.Errorf("another storage: %d %s", a.status, a.body)
	}
}
