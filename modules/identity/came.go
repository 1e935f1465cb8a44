package identity

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/apikey"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/jwt"
)

// What follows is the operator's view of a refusal: it is in the log and in
// explain, and never told to the caller. It is made when a request is refused, and
// repeats no credential, nor any part of one.

// withCause adds the cause of what would have been refused to the rule: in shadow
// mode, and where on_error is open, there is no refusal that could carry it.
func withCause(rule string, d *gate.Denial) string {
	if d == nil || d.Err == nil {
		return rule
	}
	text := d.Err.Error()
	if rule != "" && !strings.HasPrefix(text, rule) {
		text = rule + ": " + text
	}
	return text
}

// came says what a request has brought instead of a credential that is read here,
// and what would be read.
func (h *Handler) came(r *http.Request, ex *gate.Exchange) error {
	var found []string
	add := func(text string) {
		if text != "" {
			found = append(found, text)
		}
	}
	add(h.inAuthorization(r.Header["Authorization"]))
	for _, name := range keyHeaders {
		if r.Header[name] != nil {
			add("a field " + name + ", which is not read")
		}
	}
	add(notRead("the query", strings.FieldsFunc(r.URL.RawQuery, func(c rune) bool { return c == '&' || c == ';' })))
	var cookies []string
	for _, line := range r.Header["Cookie"] {
		cookies = append(cookies, strings.Split(line, ";")...)
	}
	add(notRead("a cookie", cookies))
	if len(ex.Cookies) > 0 {
		word := "of another name than it has here"
		if h.Session == nil {
			word = "and no session is set here"
		}
		add("a cookie of a session, " + word)
	}
	if r.Header["Dpop"] != nil {
		add("a proof in DPoP without a token")
	}
	if r.Header["Proxy-Authorization"] != nil {
		add("a field Proxy-Authorization, which is for proxies")
	}
	add(h.inTLS(r))
	if found == nil {
		found = []string{"nothing that could be a credential"}
	}
	return fmt.Errorf("there came %s; accepted here: %s", strings.Join(found, "; and "), h.accepts())
}

// schemes are the words that may be repeated from Authorization. Any other may be
// a key that somebody has written there without a scheme.
var schemes = []string{
	"Basic", "Digest", "Negotiate", "NTLM", "Token", "ApiKey", "Api-Key", "Key", "JWT", "OAuth", "Hawk", "Signature", "AWS4-HMAC-SHA256", "Session", "GNAP", "HOBA", "Mutual", "PrivateToken",
}

// inAuthorization is about a field that has no token of a scheme and an issuer
// that are accepted.
func (h *Handler) inAuthorization(values []string) string {
	if len(values) == 0 {
		return ""
	}
	value := strings.TrimSpace(values[0])
	if c, there, _ := bearer(http.Header{"Authorization": values[:1]}); there {
		if isKey(c.token) {
			return "an API key as a bearer token: " + h.keysGo()
		}
		return "a bearer token, and no issuer is accepted here"
	}
	word, rest, _ := strings.Cut(value, " ")
	for _, scheme := range schemes {
		if strings.EqualFold(word, scheme) {
			if isKey(strings.TrimSpace(rest)) {
				return "an API key in Authorization, as " + scheme + ": " + h.keysGo()
			}
			return "an Authorization with the scheme " + scheme
		}
	}
	switch {
	case value == "":
		return "an Authorization that is empty"
	case isKey(value):
		return "an API key in Authorization: " + h.keysGo()
	case isJWT(value):
		return "a token in Authorization without the word Bearer before it"
	}
	return "an Authorization of another scheme, or of none"
}

// keysGo says where keys go.
func (h *Handler) keysGo() string {
	if h.Keys {
		return "it goes into " + h.KeyHeader
	}
	return "no keys are accepted here"
}

// keyHeaders are where keys are put elsewhere. The one that is read here never is
// among what is left.
var keyHeaders = []string{"X-Api-Key", "Api-Key", "Apikey", "X-Auth-Token", "X-Auth-Key", "X-Access-Token", "Ocp-Apim-Subscription-Key"}

// parameters are what credentials are called in queries and cookies.
var parameters = []string{"access_token", "id_token", "token", "jwt", "api_key", "api-key", "apikey", "x-api-key", "key"}

// notRead finds credentials by what they are called, or look like.
func notRead(where string, pairs []string) string {
	var named []string
	for _, pair := range pairs {
		name, value, _ := strings.Cut(strings.TrimSpace(pair), "=")
		word := ""
		switch i := slices.Index(parameters, strings.ToLower(name)); {
		case i >= 0:
			word = parameters[i]
		case isKey(value):
			word = "an API key"
		case isJWT(value):
			word = "a token"
		}
		if word != "" && !slices.Contains(named, word) {
			named = append(named, word)
		}
	}
	if named == nil {
		return ""
	}
	return strings.Join(named, " and ") + " in " + where + ", where nothing is read"
}

// inTLS is about certificates.
func (h *Handler) inTLS(r *http.Request) string {
	switch {
	case r.TLS == nil && h.MTLS != nil:
		return "a connection without TLS, and so without a client certificate"
	case r.TLS == nil:
		return ""
	case len(r.TLS.PeerCertificates) == 0 && h.MTLS != nil:
		return "a connection without a client certificate: the site's client_auth asks for none, or the client has none of the authorities that are trusted"
	case len(r.TLS.PeerCertificates) == 0:
		return ""
	case h.MTLS == nil:
		return naming(r.TLS.PeerCertificates[0]) + ", and mtls is not set here"
	}
	return naming(r.TLS.PeerCertificates[0]) + ", which was not verified: mode request and require of client_auth verify none; verify_if_given and require_and_verify do, with a trust_pool"
}

// isKey reports whether a text is written like an API key of ours.
func isKey(s string) bool { return strings.HasPrefix(s, "gh_") && apikey.MayExist(s) }

// isJWT reports whether a text looks like a signed token.
func isJWT(s string) bool { return strings.HasPrefix(s, "eyJ") && strings.Count(s, ".") == 2 }

// accepts lists the ways of proving.
func (h *Handler) accepts() string {
	var ways []string
	if len(h.issuers) > 0 {
		ways = append(ways, "bearer tokens of "+h.issuersHere())
	}
	if h.Keys {
		ways = append(ways, "API keys in "+h.KeyHeader)
	}
	if h.MTLS != nil {
		ways = append(ways, "client certificates that were verified")
	}
	if h.Session != nil {
		ways = append(ways, "sessions of issuer "+h.Session.Issuer)
	}
	return strings.Join(ways, ", ")
}

// maxIssuers is how many of the issuers are listed.
const maxIssuers = 4

// issuersHere lists the issuers as the configuration calls them, with what their
// tokens must say in iss.
func (h *Handler) issuersHere() string {
	var all []string
	for _, identifier := range slices.Sorted(maps.Keys(h.issuers)) {
		if len(all) == maxIssuers {
			all = append(all, fmt.Sprintf("%d more", len(h.issuers)-maxIssuers))
			break
		}
		all = append(all, fmt.Sprintf("%s (%.200s)", h.issuers[identifier].Name, identifier))
	}
	return strings.Join(all, ", ")
}

// whyIssuer says of whom a token is, which nobody has verified, and of whom it may
// be.
func (h *Handler) whyIssuer(t *jwt.Token) error {
	if t.Issuer == "" {
		return fmt.Errorf("the token has no iss; accepted here: %s", h.issuersHere())
	}
	hint := ""
	for identifier, i := range h.issuers {
		if strings.EqualFold(strings.TrimSuffix(identifier, "/"), strings.TrimSuffix(t.Issuer, "/")) {
			hint = "; that of " + i.Name + " is another only by the slash at its end, or by capitals, and both count"
		}
	}
	for _, i := range h.app.Issuers {
		if i.identifier == t.Issuer {
			hint = "; it is issuer " + i.Name + ", which this identity does not name"
		}
	}
	return fmt.Errorf("the token's iss is %.200q; accepted here: %s%s", t.Issuer, h.issuersHere(), hint)
}

// whyUnread adds to why a token is none what it may be instead.
func (h *Handler) whyUnread(token string, err error) error {
	switch {
	case token == "":
		return fmt.Errorf("%w: nothing stands behind the scheme", err)
	case isKey(token):
		return fmt.Errorf("%w; it is written like an API key: %s", err, h.keysGo())
	case h.opaque == nil && isOpaque(token):
		return fmt.Errorf("%w; if it is one that only its issuer can read, the issuer needs introspect", err)
	}
	return err
}

// whyKey says what is wrong with a key, as far as it can be seen.
func (h *Handler) whyKey(reason gate.Reason, key string) error {
	switch {
	case reason == gate.IdentityExpired:
		return errors.New("the key's time is over, as its expires says, or that of a secret that was rotated away")
	case reason != gate.IdentityInvalidAPIKey:
		return nil
	case key == "":
		return fmt.Errorf("%s is empty", h.KeyHeader)
	case isJWT(key):
		return fmt.Errorf("%s has what looks like a token: tokens go into Authorization, behind Bearer", h.KeyHeader)
	case !apikey.MayExist(key):
		return errors.New("the key begins as ours do, and its checksum is wrong: it is cut off, mistyped or made up")
	case strings.TrimSpace(key) != key || strings.ContainsAny(key, " \"'"):
		return errors.New("the key has a space or a quote, which keys have not")
	}
	return errors.New("no key in the file of keys or among the live ones has this text: it was deleted, or is of another gateway")
}

// isHeaderName reports whether a text is a token (RFC 9110, section 5.6.2).
func isHeaderName(s string) bool {
	return s != "" && strings.IndexFunc(s, func(c rune) bool {
		return (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'z') && !strings.ContainsRune("!#$%&'*+-.^_`|~", c)
	}) < 0
}
