package registry

import (
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
)

// Role is what somebody may do over the admin API: for each verb the kinds it
// may be done to. The verbs are `read`, `create`, `replace`, `delete`, and
// `change` for the last three; `all` among the kinds means every kind.
// `audit`, which can be read only, is one of them; so is `exchanges`, which is
// what the gateway has seen: its decisions, the console and the drift from contracts.
type Role map[string][]string

// Operator is somebody with a name, by which the audit trail knows them.
type Operator struct {
	// The name. Required.
	Name string `json:"name,omitempty"`

	// What they may do: a role, or `all`. Required.
	Role string `json:"role,omitempty"`

	// The SHA-256 of the token that they send as `Authorization: Bearer`, in
	// hexadecimal digits; may be a placeholder. The token has to be long and
	// random. Either this or a certificate is required.
	Token string `json:"token,omitempty"`

	// The SHA-256 of the client certificate that they come with to Caddy's
	// remote admin endpoint, in hexadecimal digits.
	Certificate string `json:"certificate,omitempty"`

	token, certificate [sha256.Size]byte
}

const (
	readVerb    = "read"
	createVerb  = "create"
	replaceVerb = "replace"
	deleteVerb  = "delete"
	changeVerb  = "change"

	auditKind = "audit"
	exchanges = "exchanges"
	anything  = "all"
	nothing   = "none"
)

var verbs = []string{readVerb, createVerb, replaceVerb, deleteVerb, changeVerb}

// verbOf is what a request is likely to do, for whoever is refused before that
// is known.
func verbOf(method string) string {
	switch method {
	case http.MethodGet, http.MethodHead:
		return readVerb
	case http.MethodPost:
		return createVerb
	case http.MethodDelete:
		return deleteVerb
	}
	return replaceVerb
}

func kindNames() (names []string) {
	for _, k := range kinds {
		names = append(names, k.name())
	}
	return append(slices.Sorted(slices.Values(names)), auditKind, exchanges)
}

func (r Role) may(verb, kind string) bool {
	on := func(kinds []string) bool { return slices.Contains(kinds, kind) || slices.Contains(kinds, anything) }
	return on(r[verb]) || verb != readVerb && on(r[changeVerb])
}

// role finds a role by its name. It is nil for all.
func (a *App) role(name string) (Role, error) {
	switch r, defined := a.Roles[name]; {
	case name == anything:
		return nil, nil
	case name == nothing:
		return Role{}, nil
	case defined:
		return r, nil
	}
	known := append(slices.Sorted(maps.Keys(a.Roles)), anything, nothing)
	return nil, fmt.Errorf("role %q is not defined; expected %s", name, strings.Join(known, ", "))
}

// checkRoles looks at roles and operators as they are written.
func (a *App) checkRoles() error {
	for _, name := range slices.Sorted(maps.Keys(a.Roles)) {
		if name == anything || name == nothing || !validID(name) {
			return fmt.Errorf("%q cannot be the name of a role", name)
		}
		for verb, on := range a.Roles[name] {
			if !slices.Contains(verbs, verb) {
				return fmt.Errorf("role %q: unrecognized verb %q; expected %s", name, verb, strings.Join(verbs, ", "))
			}
			for _, kind := range on {
				if kind != anything && !slices.Contains(kindNames(), kind) {
					return fmt.Errorf("role %q: there is no kind %q; expected %s or all", name, kind, strings.Join(kindNames(), ", "))
				}
			}
		}
	}
	seen := map[string]bool{}
	for _, o := range a.Operators {
		switch _, err := a.role(o.Role); {
		case !validID(o.Name) || o.Name == "local":
			return fmt.Errorf("%q cannot be the name of an operator", o.Name)
		case seen[o.Name]:
			return fmt.Errorf("operator %q is defined twice", o.Name)
		case err != nil:
			return fmt.Errorf("operator %q: %w", o.Name, err)
		case o.Token == "" && o.Certificate == "":
			return fmt.Errorf("operator %q needs a token or a certificate to be known by", o.Name)
		}
		seen[o.Name] = true
	}
	for _, name := range []string{a.Local, a.Remote} {
		if _, err := a.role(name); name != "" && err != nil {
			return err
		}
	}
	return nil
}

// openRoles resolves what operators are known by, into fields that no
// configuration shows.
func (a *App) openRoles() error {
	if a.Local == "" {
		a.Local = anything
	}
	if a.Remote == "" {
		if a.Remote = anything; len(a.Operators) > 0 {
			a.Remote = nothing
		}
	}
	if err := a.checkRoles(); err != nil {
		return err
	}
	known := map[[sha256.Size]byte]string{}
	for _, o := range a.Operators {
		for _, by := range []struct {
			option, word string
			sum          *[sha256.Size]byte
		}{{"token", o.Token, &o.token}, {"certificate", o.Certificate, &o.certificate}} {
			if by.word == "" {
				continue
			}
			word, err := parse.Resolve(by.option, by.word)
			if err != nil {
				return fmt.Errorf("operator %q: %w", o.Name, err)
			}
			// What was written may be the token itself: it is not repeated.
			sum, err := hex.DecodeString(strings.ToLower(strings.TrimSpace(word)))
			if err != nil || len(sum) != sha256.Size {
				return fmt.Errorf("operator %q: token and certificate are written as their SHA-256, 64 hexadecimal digits", o.Name)
			}
			*by.sum = [sha256.Size]byte(sum)
			if other, taken := known[*by.sum]; taken {
				return fmt.Errorf("operators %q and %q are known by the same", other, o.Name)
			}
			known[*by.sum] = o.Name
		}
	}
	return nil
}

// caller is somebody at the admin endpoint.
type caller struct {
	name  string
	role  Role // nil: may do all
	store *store
	idle  bool // the configuration uses nothing of the kind
}

// caller finds out who asks. A token that nobody has is refused, whatever the
// connection may do without.
func (a *App) caller(r *http.Request, kind string) (caller, error) {
	c := caller{name: actor(r), store: a.store}
	certified := r.TLS != nil && len(r.TLS.PeerCertificates) > 0
	role := a.Local
	if certified {
		role = a.Remote
	}
	if values := r.Header["Authorization"]; len(values) > 0 && len(a.Operators) > 0 {
		scheme, token, _ := strings.Cut(values[0], " ")
		o := a.operator(strings.TrimSpace(token), func(o *Operator) *[sha256.Size]byte { return &o.token })
		if o == nil || len(values) > 1 || !strings.EqualFold(scheme, "Bearer") {
			a.store.refuse(c.name, verbOf(r.Method), kind, "", "the token is nobody's")
			return c, caddy.APIError{HTTPStatus: http.StatusUnauthorized, Err: errors.New("the token is no operator's")}
		}
		c.name, role = o.Name, o.Role
	} else if certified {
		o := a.operator(string(r.TLS.PeerCertificates[0].Raw), func(o *Operator) *[sha256.Size]byte { return &o.certificate })
		if o != nil {
			c.name, role = o.Name, o.Role
		}
	}
	var err error
	c.role, err = a.role(role)
	return c, err
}

// operator finds who is known by something.
func (a *App) operator(by string, sumOf func(*Operator) *[sha256.Size]byte) (match *Operator) {
	sum := sha256.Sum256([]byte(by))
	for _, o := range a.Operators {
		known := sumOf(o)
		if *known != [sha256.Size]byte{} && subtle.ConstantTimeCompare(known[:], sum[:]) == 1 {
			match = o
		}
	}
	return match
}

// MayRead refuses whom the roles of operators do not let read a kind. It is for
// whatever else tells of its objects on the admin endpoint.
func MayRead(r *http.Request, kind string) error { return mayDo(r, readVerb, kind) }

// MaySee is MayRead for what the gateway has seen of its callers.
func MaySee(r *http.Request) error { return mayDo(r, readVerb, exchanges) }

// MayForget refuses whom the roles do not let have that forgotten.
func MayForget(r *http.Request) error { return mayDo(r, deleteVerb, exchanges) }

func mayDo(r *http.Request, verb, kind string) error {
	a, err := running()
	if err != nil {
		return nil //nolint:nilerr // without live objects there are no operators
	}
	who, err := a.caller(r, kind)
	if err != nil {
		return err
	}
	if verb == readVerb && kind == exchanges && !who.able(verb, kind) { // a page asks again and again
		return caddy.APIError{HTTPStatus: http.StatusForbidden, Err: fmt.Errorf("%s may not read %s", who.name, kind)}
	}
	return who.may(verb, kind, "")
}

func (c caller) able(verb, kind string) bool { return c.role == nil || c.role.may(verb, kind) }

// may refuses what the caller may not do, and has it audited.
func (c caller) may(verb, kind, id string) error {
	if c.able(verb, kind) {
		return nil
	}
	c.store.refuse(c.name, verb, kind, id, "may not "+verb)
	return caddy.APIError{HTTPStatus: http.StatusForbidden, Err: fmt.Errorf("%s may not %s %s", c.name, verb, kind)}
}
