package quota

import (
	"net/netip"
	"testing"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// TestCallers: who is one caller to a quota, and who are two.
func TestCallers(t *testing.T) {
	home := netip.MustParseAddr("192.0.2.1")
	ann := gate.Principal{Subject: "ann", Tenant: "acme", Issuer: "main"}
	other := ann
	other.Issuer = "partner"
	moved := ann
	moved.Tenant = "zoo"
	none := gate.Principal{Issuer: "main"}
	for _, c := range []struct {
		per  string
		a, b *gate.Principal
		same bool
	}{
		{"subject", &ann, &ann, true},
		{"subject", &ann, &other, false}, // two issuers may know a subject of one name
		{"subject", &ann, &moved, true},
		{"tenant", &ann, &other, true}, // a tenant is ours
		{"tenant", &ann, &moved, false},
		{"subject", &ann, nil, false},
		{"subject", nil, &none, true}, // by address
		{"address", &ann, &other, true},
	} {
		h := &Handler{Per: c.per, who: attributes[c.per]}
		name := func(p *gate.Principal) string {
			who := h.caller(&gate.Exchange{Client: home, Principal: p}, nil, "zone")
			return who.name()
		}
		if got := name(c.a) == name(c.b); got != c.same {
			t.Errorf("per %s, %+v and %+v are one: %v", c.per, c.a, c.b, got)
		}
	}
}
