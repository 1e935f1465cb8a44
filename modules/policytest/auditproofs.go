package policytest

import (
	"slices"
	"strings"
)

// uselessProofs finds ways of proving that the contract's security leads nowhere
// with: whoever uses them is refused by every operation that asks for a proof.
func uselessProofs(a *audit) {
	for _, p := range a.apis {
		if p.contract == nil || len(p.contract.schemes) == 0 || !slices.ContainsFunc(p.contract.operations, func(o *operation) bool { return o.secured }) {
			continue
		}
		for _, h := range p.handlers["gatehouse_identity"] {
			for _, way := range []struct {
				setting, name string
				kinds         []string
			}{
				{"issuers", "bearer tokens", []string{"http", "oauth2", "openIdConnect"}},
				{"keys", "API keys", []string{"apiKey"}},
				{"mtls", "client certificates", []string{"mutualTLS"}},
				{"session", "sessions", []string{"oauth2", "openIdConnect"}},
			} {
				if h[way.setting] == nil || h[way.setting] == false || slices.ContainsFunc(way.kinds, func(kind string) bool { return p.contract.schemes[kind] }) {
					continue
				}
				a.found(p.line, "api %s knows callers by %s, and the contract has no security scheme for that (%s): every operation that asks for a proof refuses them", p.name, way.name, strings.Join(way.kinds, ", "))
			}
		}
	}
}
