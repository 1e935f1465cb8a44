package gate

import (
	"slices"
	"strings"
	"time"
)

// Challenge is one way to prove who asks, as a client is told of it in
// WWW-Authenticate (RFC 9110, section 11.6.1).
type Challenge struct {
	Scheme string
	Params string // what follows the scheme, e.g. `realm="api"`; may be empty
	Token  bool   // it takes access tokens, whose errors have names (RFC 6750, section 3.1)
}

// Parameter is one auth-param of a challenge.
type Parameter struct{ Name, Value string }

// Challenges writes a challenge for each way. What is wrong stands in the one
// that the credential was sent by, or else in the first that takes tokens; a
// client that has sent none is told no error. Metadata, where it is not empty,
// is where clients find out about the issuers (RFC 9728, section 5.1).
func Challenges(ways []Challenge, sent, metadata string, wrong ...Parameter) []string {
	at := slices.IndexFunc(ways, func(c Challenge) bool { return c.Token && c.Scheme == sent })
	if at < 0 {
		at = slices.IndexFunc(ways, func(c Challenge) bool { return c.Token })
	}
	out := make([]string, 0, len(ways))
	for i, c := range ways {
		var b strings.Builder
		b.WriteString(c.Scheme)
		separator := " "
		add := func(text string) {
			b.WriteString(separator)
			b.WriteString(text)
			separator = ", "
		}
		if c.Params != "" {
			add(c.Params)
		}
		if i == at {
			for _, p := range wrong {
				add(p.Name + "=" + quoted(p.Value))
			}
		}
		if c.Token && metadata != "" {
			add("resource_metadata=" + quoted(metadata))
		}
		out = append(out, b.String())
	}
	return out
}

// quoted writes a quoted-string of what may stand in one without a backslash,
// which the parameters of RFC 6750 have no room for: a scope of a contract may
// be any text.
func quoted(s string) string {
	return `"` + strings.Map(func(c rune) rune {
		if c < ' ' || c > '~' || c == '"' || c == '\\' {
			return -1
		}
		return c
	}, s) + `"`
}

// Challenge writes the challenges of this Exchange: of the ways that identity
// accepts, or, where there is none, for a token.
func (ex *Exchange) Challenge(wrong ...Parameter) []string {
	ways := ex.Ways
	if ways == nil {
		ways = []Challenge{{Scheme: "Bearer", Token: true}}
	}
	return Challenges(ways, ex.Scheme, ex.Metadata, wrong...)
}

// Authentication is how, and how recently, the subject of a token has to have
// shown its issuer who it is (RFC 9470). The zero value asks for nothing.
type Authentication struct {
	ACR    []string      // any one of these, the preferred one first; empty: any
	MaxAge time.Duration // how long ago; zero: however long
}

// Asked reports whether anything is asked for.
func (a *Authentication) Asked() bool { return len(a.ACR) > 0 || a.MaxAge > 0 }

// Met reports whether the principal has what is asked for. A token that does
// not say does not.
func (a *Authentication) Met(p *Principal, now time.Time) bool {
	if len(a.ACR) > 0 && (p.ACR == "" || !slices.Contains(a.ACR, p.ACR)) {
		return false
	}
	age := now.Sub(p.AuthTime)
	return a.MaxAge == 0 || !p.AuthTime.IsZero() && age <= a.MaxAge && age >= -aheadOfUs
}

// aheadOfUs is how far an issuer's clock may be ahead: an authentication that is
// still to come would be recent for as long as the token is good.
const aheadOfUs = time.Minute
