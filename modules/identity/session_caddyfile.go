package identity

import (
	"slices"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
)

// unmarshal reads the option of an issuer. Syntax:
//
//	login {
//	    client_id     <id>
//	    client_secret <placeholder>
//	    auth          basic|post|private_key_jwt|mtls [{ … }]    # see ClientAuth
//	    scopes        <scope...>
//	    principal     id_token|access_token
//	}
func (l *Login) unmarshal(d *caddyfile.Dispenser) error {
	if d.NextArg() {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch opt := d.Val(); opt {
		case "client_id", "client_secret", "auth":
			err = l.ClientAuth.unmarshal(d)
		case "scopes":
			err = parse.Words(d, &l.Scopes)
		case "principal":
			err = parse.OneOf(d, &l.Principal, fromID, fromAccess)
		default:
			err = parse.Unknown(d, "login option", opt, append(clientOptions, "scopes", "principal")...)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// unmarshal reads the option of the handler. Syntax:
//
//	session <issuer> {
//	    path          <path>
//	    origin        <origin>
//	    idle          <duration>
//	    lifetime      <duration>
//	    cookie_name   <name>
//	    cookie_domain <domain>
//	    same_site     lax|strict
//	    csrf          same_origin|same_site
//	    logged_out    <path>
//	}
func (s *Session) unmarshal(d *caddyfile.Dispenser) error {
	if !d.AllArgs(&s.Issuer) {
		return d.ArgErr()
	}
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		var err error
		switch opt := d.Val(); opt {
		case "path":
			err = parse.Text(d, &s.Path)
		case "origin":
			err = parse.Text(d, &s.Origin)
		case "idle":
			err = parse.Duration(d, &s.Idle)
		case "lifetime":
			err = parse.Duration(d, &s.Lifetime)
		case "cookie_name":
			err = parse.Text(d, &s.CookieName)
		case "cookie_domain":
			err = parse.Text(d, &s.CookieDomain)
		case "same_site":
			if err = parse.Text(d, &s.SameSite); err == nil && s.SameSite != "none" { // validate says why not
				err = oneOf(d, opt, s.SameSite, lax, strict)
			}
		case "csrf":
			err = parse.OneOf(d, &s.CSRF, sameOrigin, sameSite)
		case "logged_out":
			err = parse.Text(d, &s.LoggedOut)
		default:
			err = parse.Unknown(d, "session option", opt, "path", "origin", "idle", "lifetime", "cookie_name", "cookie_domain", "same_site", "csrf", "logged_out")
		}
		if err == nil {
			if wrong := s.validate(); wrong != nil { // on the line that is wrong
				err = d.Errf("session: %v", wrong)
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func oneOf(d *caddyfile.Dispenser, what, word string, known ...string) error {
	if slices.Contains(known, word) {
		return nil
	}
	return parse.Unknown(d, what, word, known...)
}

// checkSession finds an issuer that nobody defined, or at which nobody can log
// in, on the line that names it.
func (h *Handler) checkSession(helper httpcaddyfile.Helper, a *App) error {
	if h.Session == nil {
		return nil
	}
	var known []string
	for _, i := range a.Issuers {
		if i.Login != nil {
			known = append(known, i.Name)
		}
		if i.Name == h.Session.Issuer {
			if i.Login == nil {
				return helper.Errf("nobody can log in at issuer %q; add login { client_id … } to it", i.Name)
			}
			return nil
		}
	}
	if known == nil {
		return helper.Errf("issuer %q of session is not defined; define it in the global options: identity { issuer %s <url> { login { … } } }", h.Session.Issuer, h.Session.Issuer)
	}
	return parse.Unknown(helper.Dispenser, "issuer of session", h.Session.Issuer, known...)
}
