package require

import (
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

func TestStepUp(t *testing.T) {
	strong := &gate.Principal{Method: gate.Bearer, ACR: "gold", AuthTime: time.Now()}
	weak := &gate.Principal{Method: gate.Bearer}
	ask := gate.Authentication{ACR: []string{"gold", "silver"}, MaxAge: 5 * time.Minute}
	for _, tc := range []struct {
		name string
		who  *gate.Principal
		want gate.Reason
	}{
		{"strong", strong, gate.None},
		{"weak", weak, gate.RequireAuthentication},
		{"nobody", nil, gate.RequireAnonymous},
		{"a key, which nothing makes stronger", &gate.Principal{Method: gate.APIKey}, gate.RequireScheme},
	} {
		d := stepUp(&gate.Exchange{Principal: tc.who}, ask)
		got := gate.None
		if d != nil {
			got = d.Reason
		}
		if got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
	said := stepUp(&gate.Exchange{Principal: weak}, ask).Header.Get("WWW-Authenticate")
	for _, part := range []string{`error="insufficient_user_authentication"`, `acr_values="gold silver"`, `max_age="300"`} {
		if !strings.Contains(said, part) {
			t.Errorf("the challenge %s has no %s", said, part)
		}
	}

	// A contract may ask for it where it asks for nothing else.
	op := &gate.Operation{Security: []gate.Alternative{}, Authentication: ask}
	for who, want := range map[*gate.Principal]gate.Reason{strong: gate.None, weak: gate.RequireAuthentication, nil: gate.RequireAnonymous} {
		got := gate.None
		if d := byContract(&gate.Exchange{Operation: op, Principal: who}); d != nil {
			got = d.Reason
		}
		if got != want {
			t.Errorf("by contract: %v, want %v", got, want)
		}
	}
}

func TestExpressionSeesAuthentication(t *testing.T) {
	p, err := compile(`principal.acr == "gold" && principal.auth_time > timestamp("2026-01-01T00:00:00Z")`)
	if err != nil {
		t.Fatal(err)
	}
	for who, want := range map[*gate.Principal]bool{
		{ACR: "gold", AuthTime: time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)}: true,
		{ACR: "gold"}: false,
		nil:           false,
	} {
		if ok, err := p.eval(&gate.Exchange{Principal: who}, nil); ok != want || err != nil {
			t.Errorf("%+v: %v, %v", who, ok, err)
		}
	}
}

func TestStepUpDoesNotAllocate(t *testing.T) {
	h := &Handler{StepUp: StepUp{ACR: []string{"gold"}, MaxAge: 3600e9}}
	ex := &gate.Exchange{Principal: &gate.Principal{Method: gate.Bearer, ACR: "gold", AuthTime: time.Now()}}
	if n := testing.AllocsPerRun(100, func() {
		if _, d := h.decide(ex, nil); d != nil {
			t.Fatal(d)
		}
	}); n > 0 {
		t.Errorf("a decision allocates %v times", n)
	}
}
