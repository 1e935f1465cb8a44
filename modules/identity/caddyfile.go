package identity

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	_ "github.com/gatehouse-caddy/gatehouse/caddyfile/order" // the directive's place
	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/jwt"
)

func init() {
	httpcaddyfile.RegisterGlobalOption("identity", parseOption)
	parse.Handler("identity", func(h httpcaddyfile.Helper) (caddyhttp.MiddlewareHandler, error) {
		m := new(Handler)
		if err := m.UnmarshalCaddyfile(h.Dispenser); err != nil {
			return nil, err
		}
		return m, m.checkNames(h)
	})
}

// checkNames finds issuers that nobody defined, on the line that names them.
func (h *Handler) checkNames(helper httpcaddyfile.Helper) error {
	var a App
	if option, ok := helper.Option("identity").(httpcaddyfile.App); ok {
		if err := json.Unmarshal(option.Value, &a); err != nil {
			return helper.WrapErr(err)
		}
	}
	if err := h.checkSession(helper, &a); err != nil {
		return err
	}
	if err := h.checkExchange(helper, a.Issuers); err != nil {
		return err
	}
	known := make([]string, 0, len(a.Issuers))
	for _, i := range a.Issuers {
		known = append(known, i.Name)
	}
	for _, name := range h.Issuers {
		if !slices.Contains(known, name) {
			if len(known) == 0 {
				return helper.Errf("issuer %q is not defined; define it in the global options: identity { issuer %s <url> { … } }", name, name)
			}
			return parse.Unknown(helper.Dispenser, "issuer", name, known...)
		}
	}
	return h.checkRevocation(helper, &a)
}

// parseOption reads the global option. Syntax:
//
//	identity {
//	    issuer <name> <url> {
//	        jwks       <file|url>
//	        audience   <value...>
//	        algorithms <alg...>
//	        types      <typ...>
//	        introspect [<url>] {
//	            client_id     <id>
//	            client_secret <placeholder>
//	            auth          basic|post|private_key_jwt|mtls [{ … }]    # see ClientAuth
//	            signed
//	            cache         <duration>
//	            negative      <duration>
//	        }
//	        login {
//	            …
//	        }
//	        exchange [<token endpoint>] {
//	            client_id     <id>
//	            client_secret <placeholder>
//	            auth          basic|post|private_key_jwt|mtls [{ … }]
//	        }
//	        leeway     <duration>
//	        claims     subject|client|tenant|plan|roles|scopes <path>
//	        on_error   closed|open
//	    }
//	    issuer <name> dev {
//	        audience <value...>
//	        claims   subject|client|tenant|plan|roles|scopes <path>
//	    }
//	    signer {
//	        issuer    <url|name>
//	        algorithm ES256|EdDSA
//	        rotate    <duration>
//	    }
//	    revocation <name> crl <file|url> { … }    # see Revocation
//	    revocation <name> ocsp [<url>] { … }
//	    keys       <file>
//	    max_tokens <count>
//	}
func parseOption(d *caddyfile.Dispenser, existing any) (any, error) {
	d.Next() // consume the option's name
	if existing != nil {
		return nil, d.Err("the identity option stands twice; put all issuers into one block")
	}
	if d.NextArg() {
		return nil, d.ArgErr()
	}
	var a App
	for d.NextBlock(0) {
		var err error
		switch opt := d.Val(); opt {
		case "issuer":
			err = a.unmarshalIssuer(d)
		case "keys":
			if err = parse.FileName(d, &a.Keys); err == nil {
				a.KeysDigest = parse.Digest(a.Keys)
			}
		case "revocation":
			err = a.unmarshalRevocation(d)
		case "max_tokens":
			err = parse.Count(d, &a.MaxTokens)
		case "signer":
			a.Signer = new(Signer)
			err = a.Signer.unmarshal(d)
		default:
			err = parse.Unknown(d, "identity option", opt, "issuer", "keys", "revocation", "max_tokens", "signer")
		}
		if err != nil {
			return nil, err
		}
	}
	return httpcaddyfile.App{Name: "gatehouse_identity", Value: caddyconfig.JSON(a, nil)}, nil
}

func (a *App) unmarshalIssuer(d *caddyfile.Dispenser) error {
	i := new(Issuer)
	var url string
	if !d.AllArgs(&i.Name, &url) {
		return d.ArgErr()
	}
	if slices.ContainsFunc(a.Issuers, func(other *Issuer) bool { return other.Name == i.Name }) {
		return d.Errf("issuer %q is defined twice", i.Name)
	}
	if i.Dev = url == "dev"; !i.Dev {
		i.URL = url
		if !strings.Contains(url, "://") {
			return d.Errf("issuer %q needs the URL that its tokens say in iss, or dev; %q is neither", i.Name, url)
		}
	}
	line := *d // for errors of the whole issuer
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		if err := i.unmarshalOption(d); err != nil {
			return err
		}
	}
	if err := i.validate(); err != nil {
		return line.Errf("issuer %q: %v", i.Name, err)
	}
	a.Issuers = append(a.Issuers, i)
	return nil
}

func (i *Issuer) unmarshalOption(d *caddyfile.Dispenser) error {
	opt := d.Val()
	switch opt {
	case "jwks":
		if err := parse.Text(d, &i.JWKS); err != nil {
			return err
		}
		if !strings.Contains(i.JWKS, "://") {
			i.JWKS = parse.File(d, i.JWKS)
			i.JWKSDigest = parse.Digest(i.JWKS)
		}
	case "audience":
		return parse.Words(d, &i.Audience)
	case "algorithms":
		if err := parse.Words(d, &i.Algorithms); err != nil {
			return err
		}
		for _, alg := range i.Algorithms {
			if !slices.Contains(jwt.Algorithms(), alg) {
				return parse.Unknown(d, "algorithm", alg, jwt.Algorithms()...)
			}
		}
	case "types":
		return parse.Words(d, &i.Types)
	case "introspect":
		i.Introspect = new(Introspect)
		return i.Introspect.unmarshal(d)
	case "login":
		i.Login = new(Login)
		return i.Login.unmarshal(d)
	case "exchange":
		i.Exchange = new(ExchangeClient)
		return i.Exchange.unmarshal(d)
	case "leeway":
		return parse.Duration(d, &i.Leeway)
	case "claims":
		var name, path string
		if !d.AllArgs(&name, &path) {
			return d.ArgErr()
		}
		if claimNames[name] == nil {
			return parse.Unknown(d, "claim", name, "subject", "client", "tenant", "plan", "roles", "scopes")
		}
		if i.Claims == nil {
			i.Claims = make(map[string]string)
		}
		i.Claims[name] = path
	case "on_error":
		return parse.Into(d, &i.OnError)
	default:
		return parse.Unknown(d, "issuer option", opt, "jwks", "audience", "algorithms", "types", "introspect", "exchange", "login", "leeway", "claims", "on_error")
	}
	return nil
}

// UnmarshalCaddyfile sets up the handler from Caddyfile tokens. Syntax:
//
//	identity [<matcher>] <issuer...> {
//	    keys [<header>]
//	    mtls [{ … }]    # see MTLS
//	    optional
//	    tell <fact...>
//	    tell jwt {
//	        audience <value...>
//	        header   <name>
//	        lifetime <duration>
//	        claims   client|tenant|plan|roles|scopes|issuer|method|act ...
//	        copy     <claim...>
//	        on_error closed|open
//	    }
//	    exchange [<audience...>] {
//	        resource <url...>
//	        scope    <scope...>
//	        on_error closed|open
//	    }
//	    dpop {
//	        required
//	        max_age  <duration>
//	        nonce    [<duration>]
//	        on_error open|closed
//	    }
//	    session <issuer> {
//	        …
//	    }
//	    mode enforce|shadow|off
//	    on_error closed|open
//	}
func (h *Handler) UnmarshalCaddyfile(d *caddyfile.Dispenser) error {
	d.Next() // consume the directive's name
	h.Issuers = d.RemainingArgs()
	for d.NextBlock(0) {
		var err error
		switch opt := d.Val(); opt {
		case "keys":
			h.Keys = true
			if d.NextArg() {
				h.KeyHeader = d.Val()
			}
			if strings.ContainsAny(h.KeyHeader, "/.") {
				return d.Errf("keys %q would be the header that carries a key; a file of keys is named in the global options: identity { keys <file> }", h.KeyHeader)
			}
			if d.NextArg() {
				err = d.ArgErr()
			}
		case "mtls":
			h.MTLS = new(MTLS)
			err = h.MTLS.unmarshal(d)
		case "optional":
			err = parse.Flag(d, &h.Optional)
		case "tell":
			err = h.unmarshalTell(d)
		case "dpop":
			h.DPoP = new(DPoP)
			err = h.DPoP.unmarshal(d)
		case "session":
			h.Session = new(Session)
			err = h.Session.unmarshal(d)
		case "exchange":
			h.TokenExchange = new(TokenExchange)
			err = h.TokenExchange.unmarshal(d)
		case "mode":
			err = parse.Into(d, &h.Mode)
		case "on_error":
			h.OnError = new(gate.OnError)
			err = parse.Into(d, h.OnError)
		default:
			err = parse.Unknown(d, "identity option", opt, "keys", "mtls", "optional", "tell", "exchange", "dpop", "session", "mode", "on_error")
		}
		if err != nil {
			return err
		}
	}
	if len(h.Issuers) == 0 && !h.Keys && h.MTLS == nil && h.Session == nil {
		return d.Err("identity needs at least one issuer, keys, mtls or session")
	}
	if h.TokenExchange != nil {
		if err := h.TokenExchange.validate(h); err != nil {
			return d.Err(err.Error())
		}
	}
	return nil
}

func (h *Handler) unmarshalTell(d *caddyfile.Dispenser) error {
	if d.NextArg() && d.Val() == "jwt" {
		h.TellJWT = new(TellJWT)
		return h.TellJWT.unmarshal(d)
	}
	d.Prev()
	for d.NextArg() {
		if known := append(factNames(), tellNone, "jwt"); !slices.Contains(known, d.Val()) {
			return parse.Unknown(d, "fact", d.Val(), known...)
		}
		h.Tell = append(h.Tell, d.Val())
	}
	if h.Tell == nil || len(h.Tell) > 1 && slices.Contains(h.Tell, tellNone) {
		return d.Err("tell needs facts about the principal, or none alone")
	}
	return nil
}
