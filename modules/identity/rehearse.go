package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"maps"
	"strings"

	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/jwt"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/keyset"
)

// Rehearse makes the app believe credentials that are made here, instead of
// those of its issuers, whose keys it then neither has nor fetches. It is for a
// policy test, which calls it on an app of its own, before the first request;
// nothing in a configuration does.
//
// Both functions take facts about a principal: subject, client, tenant, plan,
// roles and scopes. mint makes a token of an issuer, with claims that come on
// top; one that is forged is signed by a key that is not the issuer's. key makes
// an API key: with no facts, one that stands for the entry of that id in the
// file of keys.
func (a *App) Rehearse() (
	mint func(issuer string, facts, claims map[string]any, forged bool) (string, error),
	key func(id string, facts map[string]any) (string, error),
	err error,
) {
	var signers [2]*ecdsa.PrivateKey // the issuers', and one that nobody knows
	for n := range signers {
		if signers[n], err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			return nil, nil, err
		}
	}
	a.rehearsed = true
	id := keyID(signers[0])
	source := keyset.Static(jwt.NewSet(id, &signers[0].PublicKey))
	for _, i := range a.Issuers {
		i.source = source
		if len(i.expect.Algorithms) > 0 {
			i.expect.Algorithms = []string{"ES256"} // which the made tokens have
		}
	}
	mint = func(issuer string, facts, claims map[string]any, forged bool) (string, error) {
		i := a.byName[issuer]
		if i == nil {
			return "", fmt.Errorf("issuer %q is not defined", issuer)
		}
		signer, said := signers[0], i.said(facts, claims)
		if forged {
			signer = signers[1]
		}
		typ := "at+jwt"
		if len(i.expect.Types) > 0 {
			typ = i.expect.Types[0]
		}
		return sign(signer, id, typ, said)
	}
	return mint, a.rehearsedKey, nil
}

// said is what a token of the issuer says.
func (i *Issuer) said(facts, claims map[string]any) map[string]any {
	said := map[string]any{"iss": i.identifier}
	if len(i.Audience) > 0 {
		said["aud"] = i.Audience[0]
	}
	for name, value := range facts {
		if words, ok := value.([]string); ok && name == "scopes" {
			value = strings.Join(words, " ")
		}
		i.put(said, name, value)
	}
	maps.Copy(said, claims)
	return said
}

func (a *App) rehearsedKey(id string, facts map[string]any) (string, error) {
	if a.keys == nil {
		a.keys = &keyring{byHash: hashes{}}
	}
	secret, hash := newKey()
	k, inFile := a.keys.entries[id].(apiKey)
	switch {
	case inFile && len(facts) > 0:
		return "", fmt.Errorf("key %q stands in the file of keys, which says whose it is", id)
	case !inFile && len(facts) == 0:
		return "", fmt.Errorf("key %q is not in the file of keys; one that operators would make needs a tenant, a plan, roles or scopes", id)
	case !inFile:
		k = apiKey{ID: id}
		text := func(name string) string { s, _ := facts[name].(string); return s }
		list := func(name string) []string { l, _ := facts[name].([]string); return l }
		k.Subject, k.Tenant, k.Plan = text("subject"), text("tenant"), text("plan")
		k.Roles, k.Scopes = list("roles"), list("scopes")
		if text("client") != "" {
			return "", errors.New("the client of a key is its id")
		}
	}
	k.SHA256 = hash
	e, err := k.entry()
	if err != nil {
		return "", err
	}
	a.keys.byHash[e.hash] = e
	return secret, nil
}
