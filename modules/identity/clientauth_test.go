package identity

import (
	"strings"
	"testing"

	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/keyset"
)

// TestAliases: a client with a certificate asks where certificates are asked
// for, if that is elsewhere (RFC 8705, section 5).
func TestAliases(t *testing.T) {
	m := keyset.Metadata{Introspection: "https://id.test/introspect", Token: "https://id.test/token"}
	m.Aliases.Token = "https://mtls.id.test/token"
	for auth, token := range map[string]string{authMTLS: m.Aliases.Token, authBasic: m.Token, authJWT: m.Token, "": m.Token} {
		k := clientKey{auth: auth}
		if got := k.token(&m); got != token {
			t.Errorf("auth %q asks for tokens at %s", auth, got)
		}
		if got := k.introspection(&m); got != m.Introspection {
			t.Errorf("auth %q asks about tokens at %s", auth, got)
		}
	}
}

// TestClientAuth: JSON, which no Caddyfile was before, is held to the same.
func TestClientAuth(t *testing.T) {
	key, pair := &PrivateKeyJWT{Key: "k"}, &ClientCertificate{Certificate: "c", Key: "k"}
	for _, c := range []struct {
		in   ClientAuth
		want string // in the error; empty: it is accepted
	}{
		{ClientAuth{ClientID: "a", ClientSecret: "{env.S}"}, ""},
		{ClientAuth{ClientID: "a", ClientSecret: "{env.S}", Auth: "post"}, ""},
		{ClientAuth{ClientID: "a", Auth: authJWT, PrivateKeyJWT: key}, ""},
		{ClientAuth{ClientID: "a", Auth: authMTLS, MTLS: pair}, ""},
		{ClientAuth{ClientID: "a"}, "needs client_id and client_secret"},
		{ClientAuth{Auth: authJWT, PrivateKeyJWT: key}, "needs client_id"},
		{ClientAuth{ClientID: "a", ClientSecret: "hunter2"}, "client_secret as {env.NAME}"},
		{ClientAuth{ClientID: "a", ClientSecret: "{env.S}", PrivateKeyJWT: key}, "private_key_jwt needs a key"},
		{ClientAuth{ClientID: "a", Auth: authJWT}, "private_key_jwt needs a key"},
		{ClientAuth{ClientID: "a", Auth: authJWT, PrivateKeyJWT: new(PrivateKeyJWT)}, "private_key_jwt needs a key"},
		{ClientAuth{ClientID: "a", Auth: authMTLS, PrivateKeyJWT: key, MTLS: pair}, "private_key_jwt needs a key"},
		{ClientAuth{ClientID: "a", Auth: authMTLS, MTLS: &ClientCertificate{Certificate: "c"}}, "mtls needs a certificate"},
		{ClientAuth{ClientID: "a", Auth: "mlts"}, `did you mean "mtls"`},
	} {
		err := c.in.validate("introspect")
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%+v: %v; want %q", c.in, err, c.want)
		}
	}
}
