package identity

import (
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// user is where Caddy's own authentication puts what it knows of the user.
const user = "http.auth.user."

// placeholders answer for the principal as Caddy's authentication does for its
// users, when somebody asks. For nobody they are empty: Caddy sends one that it
// does not know to upstreams as it is written.
func placeholders(ex *gate.Exchange) caddy.ReplacerFunc {
	return func(key string) (any, bool) {
		name, ok := strings.CutPrefix(key, user)
		if !ok {
			return nil, false
		}
		p := ex.Principal
		if p == nil {
			p = new(gate.Principal)
		}
		if name == "id" {
			return p.Subject, true
		}
		value, ok := said(p)[name]
		return value, ok
	}
}

// said is what there is to say of a principal beside its id, as texts.
// Lists are separated by spaces and written as in header fields.
func said(p *gate.Principal) map[string]string {
	return map[string]string{
		"client": p.Client, "tenant": p.Tenant, "plan": p.Plan, "issuer": p.Issuer, "method": p.Method.String(),
		"roles": join(p.Roles), "scopes": join(p.Scopes),
	}
}
