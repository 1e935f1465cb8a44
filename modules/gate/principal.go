package gate

import (
	"slices"
	"time"
)

// Method is how a principal was proven.
type Method uint8

// The methods.
const (
	Bearer Method = iota + 1
	APIKey
	MutualTLS
	Session
)

var methodNames = [...]string{"", "bearer", "api_key", "mtls", "session"}

func (m Method) String() string { return methodNames[m] }

// Principal is who asks, as proven. It is immutable once made, because the
// stages of many requests share one.
type Principal struct {
	Subject string   // who, within its issuer
	Client  string   // the application that asks: client_id, azp or the key's id
	Tenant  string   // the customer it belongs to
	Plan    string   // what that tenant subscribed to
	Roles   []string // what it is
	Scopes  []string // what it may do
	Issuer  string   // the name of the issuer in our configuration
	Method  Method   // how it was proven

	// How, and when, the subject has shown the issuer who it is; empty and zero
	// where a token does not say.
	ACR      string
	AuthTime time.Time

	// Claims as they were proven, for policy expressions; nil for keys.
	Claims map[string]any
}

// HasScope reports whether the principal was granted scope.
func (p *Principal) HasScope(scope string) bool { return slices.Contains(p.Scopes, scope) }

// HasRole reports whether the principal has role.
func (p *Principal) HasRole(role string) bool { return slices.Contains(p.Roles, role) }

// Operation is one thing that can be asked of an API. It is immutable.
type Operation struct {
	ID     string // operationId, or "METHOD /path" where the contract gives none
	Method string
	Path   string // the path template, e.g. /orders/{id}

	// Security says which proofs the contract asks for: any one Alternative
	// will do. Nil means the contract says nothing; empty, or an Alternative
	// without schemes, that anonymous callers may pass.
	Security []Alternative

	Authentication Authentication // of the caller, as the contract asks for
}

// Anonymous reports whether the contract says that callers without a
// credential may pass.
func (o *Operation) Anonymous() bool {
	if o == nil || o.Security == nil {
		return false
	}
	for _, alt := range o.Security {
		if len(alt) == 0 {
			return true
		}
	}
	return len(o.Security) == 0
}

// Alternative is a set of schemes that must all be satisfied.
type Alternative []Scheme

// Scheme is one security scheme of a contract with the scopes it asks for.
type Scheme struct {
	Name   string   // its name in the contract
	Type   string   // OpenAPI's type: http, apiKey, oauth2, openIdConnect or mutualTLS
	HTTP   string   // for type http: bearer, basic …
	Scopes []string // all of them are needed
}

// Param is one path parameter of a request, decoded once.
type Param struct{ Name, Value string }
