package identity

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/clientauth"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/keyset"
)

// ClientAuth is who the gateway is to an issuer, and how it proves that to the
// issuer's endpoints.
type ClientAuth struct {
	// The name of the gateway at the issuer. Required.
	ClientID string `json:"client_id,omitempty"`

	// Its secret, as a placeholder such as `{env.SECRET}` or
	// `{file./run/secrets/gateway}`. Required with auth basic and post; with the
	// others there is none.
	ClientSecret string `json:"client_secret,omitempty"`

	// How the gateway proves who it is: `basic` and `post` send the secret in
	// the header or in the form, `private_key_jwt` signs an assertion, `mtls`
	// shows a client certificate. Default: `basic`.
	Auth string `json:"auth,omitempty"`

	// The key of auth private_key_jwt.
	PrivateKeyJWT *PrivateKeyJWT `json:"private_key_jwt,omitempty"`

	// The certificate of auth mtls.
	MTLS *ClientCertificate `json:"mtls,omitempty"`
}

// PrivateKeyJWT signs an assertion for each question (RFC 7523; OpenID Connect
// Core 1.0, section 9), which is good for a minute.
type PrivateKeyJWT struct {
	// A file with the private key: PEM, or a JWK. It is read again when it
	// changes. RSA keys sign by RS256 unless a JWK's `alg` says another;
	// the others have one algorithm each: ES256, ES384, ES512 or EdDSA. Required.
	Key string `json:"key,omitempty"`

	// How the issuer knows the key. Default: the JWK's `kid`, or none.
	KeyID string `json:"kid,omitempty"`

	// Whom assertions are for. Default: the issuer's URL. Set the endpoint's URL
	// for an issuer that takes nothing else, and only if it is really the
	// issuer's: an assertion is good wherever its audience says.
	Audience string `json:"audience,omitempty"`
}

// ClientCertificate is shown to endpoints that ask for one (RFC 8705, section
// 2). Its files are PEM, and read again when they change.
type ClientCertificate struct {
	// A file with the certificate, and those between it and its authority.
	// Required.
	Certificate string `json:"certificate,omitempty"`

	// A file with its key. Required.
	Key string `json:"key,omitempty"`

	// A file with the authorities of which the endpoint's certificate must be.
	// It is for the endpoint alone; discovery goes by the system's.
	// Default: the system's.
	CA string `json:"ca,omitempty"`
}

const (
	authBasic = "basic"
	authPost  = "post"
	authJWT   = "private_key_jwt"
	authMTLS  = "mtls"
)

var authWords = []string{authBasic, authPost, authJWT, authMTLS}

// clientKey is all that shapes a client; files are read again by themselves.
type clientKey struct {
	id, secret, auth string
	jwt              PrivateKeyJWT
	mtls             ClientCertificate
}

// validate looks at the settings of an option.
func (c *ClientAuth) validate(option string) error {
	secret := c.Auth == "" || c.Auth == authBasic || c.Auth == authPost
	switch {
	case c.Auth != "" && !slices.Contains(authWords, c.Auth):
		return errors.New(parse.Misspelt(option+" auth", c.Auth, authWords...))
	case secret && (c.ClientID == "" || c.ClientSecret == ""):
		return fmt.Errorf("%s needs client_id and client_secret", option)
	case c.ClientID == "":
		return fmt.Errorf("%s needs client_id", option)
	case !secret && c.ClientSecret != "":
		return fmt.Errorf("%s auth %s sends no client_secret; take one of them out", option, c.Auth)
	case (c.Auth == authJWT) != (c.PrivateKeyJWT != nil) || c.Auth == authJWT && c.PrivateKeyJWT.Key == "":
		return fmt.Errorf("%s auth private_key_jwt needs a key, and nothing else does", option)
	case (c.Auth == authMTLS) != (c.MTLS != nil) || c.Auth == authMTLS && (c.MTLS.Certificate == "" || c.MTLS.Key == ""):
		return fmt.Errorf("%s auth mtls needs a certificate and a key, and nothing else does", option)
	}
	return parse.Placeholder("client_secret", c.ClientSecret)
}

// secure reports an endpoint to which a certificate could not be shown.
func (c *ClientAuth) secure(option, address string) error {
	if c.Auth == authMTLS && address != "" && !strings.HasPrefix(address, "https://") {
		return fmt.Errorf("%s %q must be https: a client certificate proves nothing without", option, address)
	}
	return nil
}

// client makes the client, and reads its files: what is wrong with one is an
// error of the configuration. Nothing is asked yet.
func (c *ClientAuth) client(issuer string) (made *clientauth.Client, key clientKey, err error) {
	if key.id, err = parse.Resolve("client_id", c.ClientID); err != nil {
		return nil, key, err
	}
	key.auth = c.Auth
	clock := clientauth.Clock{Now: gate.Now, Failed: func(err error) {
		caddy.Log().Named("gatehouse_identity").Error("a key or certificate of the gateway cannot be read; the last good one is used on", zap.String("issuer", issuer), zap.Error(err))
	}}
	switch c.Auth {
	case authJWT:
		key.jwt = *c.PrivateKeyJWT
		if key.jwt.Audience == "" {
			key.jwt.Audience = issuer
		}
		made, err = clientauth.Assertion(key.id, key.jwt.Audience, key.jwt.Key, key.jwt.KeyID, clock)
	case authMTLS:
		key.mtls = *c.MTLS
		made, err = clientauth.Certificate(key.id, key.mtls.Certificate, key.mtls.Key, key.mtls.CA, clock)
	default:
		if key.secret, err = parse.Resolve("client_secret", c.ClientSecret); err != nil {
			return nil, key, err
		}
		key.secret = strings.TrimRight(key.secret, "\r\n") // a file ends with a line's end
		made = clientauth.Basic(key.id, key.secret)
		if c.Auth == authPost {
			made = clientauth.InBody(key.id, key.secret)
		}
	}
	if err != nil {
		return nil, key, fmt.Errorf("auth %s: %w", c.Auth, err)
	}
	return made, key, nil
}

// at makes the client of a login. Without auth it is nil: the secret, if there is
// one, travels as the issuer takes it.
func (l *Login) at(issuer string) (made *clientauth.Client, key clientKey, err error) {
	if l.Auth != "" || l.ClientSecret != "" {
		if made, key, err = l.client(issuer); err != nil || l.Auth != "" {
			return made, key, err
		}
		return nil, key, nil
	}
	key.id, err = parse.Resolve("client_id", l.ClientID)
	return nil, key, err
}

// introspection and token are the endpoints that are meant for the client: an
// issuer may ask for certificates elsewhere.
func (k *clientKey) introspection(m *keyset.Metadata) string {
	if k.auth == authMTLS && m.Aliases.Introspection != "" {
		return m.Aliases.Introspection
	}
	return m.Introspection
}

func (k *clientKey) token(m *keyset.Metadata) string {
	if k.auth == authMTLS && m.Aliases.Token != "" {
		return m.Aliases.Token
	}
	return m.Token
}

// clientOptions are the words that unmarshal knows.
var clientOptions = []string{"client_id", "client_secret", "auth"}

// unmarshal reads one of the options that a client has wherever it stands.
// Syntax:
//
//	client_id     <id>
//	client_secret <placeholder>
//	auth          basic|post
//	auth          private_key_jwt {
//	    key      <file> [<kid>]
//	    audience <url>
//	}
//	auth          mtls {
//	    certificate <file>
//	    key         <file>
//	    ca          <file>
//	}
func (c *ClientAuth) unmarshal(d *caddyfile.Dispenser) error {
	switch opt := d.Val(); opt {
	case "client_id":
		return parse.Text(d, &c.ClientID)
	case "client_secret":
		return parse.Secret(d, &c.ClientSecret)
	}
	if err := parse.Text(d, &c.Auth); err != nil {
		return err
	}
	c.PrivateKeyJWT, c.MTLS = nil, nil
	switch c.Auth {
	case authBasic, authPost:
		for nesting := d.Nesting(); d.NextBlock(nesting); {
			return d.Errf("auth %s has no options; found %q", c.Auth, d.Val())
		}
		return nil
	case authJWT:
		c.PrivateKeyJWT = new(PrivateKeyJWT)
		return c.PrivateKeyJWT.unmarshal(d)
	case authMTLS:
		c.MTLS = new(ClientCertificate)
		return c.MTLS.unmarshal(d)
	}
	return parse.Unknown(d, "auth", c.Auth, authWords...)
}

func (p *PrivateKeyJWT) unmarshal(d *caddyfile.Dispenser) error {
	line := *d // for errors of the whole option
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch opt := d.Val(); opt {
		case "key":
			args := d.RemainingArgs()
			if len(args) == 0 || len(args) > 2 {
				return d.ArgErr()
			}
			if p.Key = parse.File(d, args[0]); len(args) == 2 {
				p.KeyID = args[1]
			}
		case "audience":
			err = parse.Text(d, &p.Audience)
		default:
			err = parse.Unknown(d, "private_key_jwt option", opt, "key", "audience")
		}
		if err != nil {
			return err
		}
	}
	if p.Key == "" {
		return line.Err("auth private_key_jwt needs a key: key <file> [<kid>]")
	}
	return nil
}

func (m *ClientCertificate) unmarshal(d *caddyfile.Dispenser) error {
	line := *d // for errors of the whole option
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch opt := d.Val(); opt {
		case "certificate":
			err = parse.FileName(d, &m.Certificate)
		case "key":
			err = parse.FileName(d, &m.Key)
		case "ca":
			err = parse.FileName(d, &m.CA)
		default:
			err = parse.Unknown(d, "mtls option", opt, "certificate", "key", "ca")
		}
		if err != nil {
			return err
		}
	}
	if m.Certificate == "" || m.Key == "" {
		return line.Err("auth mtls needs a certificate and a key")
	}
	return nil
}
