package identity

import (
	"strconv"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/clientcert"
)

// unmarshal reads the option. Syntax:
//
//	mtls {
//	    subject      spiffe|uri|dns|email|cn|dn|fingerprint...
//	    trust_domain <name...>
//	    tenant       o|ou|segment <n>|after <word>
//	    plan         o|ou|segment <n>|after <word>
//	    roles        o|ou|segment <n>|after <word>
//	    ca           <fingerprint|name...>
//	    san          uri|dns|email <pattern...>
//	    usage        client_auth|server_auth|email_protection|code_signing|<oid>...
//	    max_age      <duration>
//	    trust_pool   file|storage <name...>
//	    revocation   <name...>
//	}
func (m *MTLS) unmarshal(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	line := *d // for errors of the whole option
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch opt := d.Val(); opt {
		case "subject":
			if err = parse.Words(d, &m.Subject); err == nil {
				for _, word := range m.Subject {
					if _, ok := clientcert.ParseKind(word); !ok {
						return parse.Unknown(d, "subject", word, clientcert.Kinds()...)
					}
				}
			}
		case "trust_domain":
			err = parse.Words(d, &m.TrustDomains)
		case "tenant":
			err = unmarshalPlace(d, &m.Tenant)
		case "plan":
			err = unmarshalPlace(d, &m.Plan)
		case "roles":
			err = unmarshalPlace(d, &m.Roles)
		case "ca":
			err = parse.Words(d, &m.CA)
		case "san":
			err = m.unmarshalSAN(d)
		case "usage":
			err = parse.Words(d, &m.Usage)
		case "max_age":
			err = parse.Duration(d, &m.MaxAge)
		case "trust_pool":
			if m.TrustPool == nil {
				m.TrustPool = new(TrustPool)
			}
			err = m.TrustPool.unmarshal(d)
		case "revocation":
			err = parse.Words(d, &m.Revocation)
		default:
			err = parse.Unknown(d, "mtls option", opt, "subject", "trust_domain", "tenant", "plan", "roles", "ca", "san", "usage", "max_age", "trust_pool", "revocation")
		}
		if err != nil {
			return err
		}
	}
	tried := *m // what ready fills in is not what the user wrote
	if err := tried.ready(); err != nil {
		return line.Err(err.Error())
	}
	return nil
}

// unmarshalPlace reads where in a certificate something stands.
func unmarshalPlace(d *caddyfile.Dispenser, to *string) error {
	args := d.RemainingArgs()
	if len(args) == 0 || len(args) > 2 {
		return d.ArgErr()
	}
	switch word := args[0]; word {
	case "o", "ou":
		if len(args) > 1 {
			return d.ArgErr()
		}
	case "segment":
		if len(args) != 2 {
			return d.ArgErr()
		}
		if n, err := strconv.Atoi(args[1]); err != nil || n < 1 {
			return d.Errf("segment %q is not a whole number of at least 1", args[1])
		}
	case "after":
		if len(args) != 2 {
			return d.ArgErr()
		}
	default:
		return parse.Unknown(d, "place in a certificate", word, "o", "ou", "segment", "after")
	}
	*to = strings.Join(args, " ")
	return nil
}

func (m *MTLS) unmarshalSAN(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) < 2 {
		return d.ArgErr()
	}
	switch word := args[0]; word {
	case "uri", "dns", "email":
		if m.SAN == nil {
			m.SAN = make(map[string][]string)
		}
		m.SAN[word] = append(m.SAN[word], args[1:]...)
		return nil
	default:
		return parse.Unknown(d, "san", word, "uri", "dns", "email")
	}
}
