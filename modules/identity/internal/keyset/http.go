package keyset

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/gatehouse-caddy/gatehouse/modules/gate/fetch"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/jwt"
)

// maxDocument bounds what an issuer may send us.
const maxDocument = 1 << 20

// FromURL fetches a key set.
func FromURL(address string, skipped func([]string)) Fetch {
	return func(ctx context.Context) (*jwt.Set, error) {
		data, err := get(ctx, address)
		if err != nil {
			return nil, fmt.Errorf("fetching key set: %w", err)
		}
		set, left, err := jwt.ParseSet(data)
		if len(left) > 0 {
			skipped(left)
		}
		if err != nil {
			return nil, fmt.Errorf("key set at %q: %w", address, err)
		}
		return set, nil
	}
}

// FromDiscovery finds the key set by the issuer's metadata (OpenID Connect
// Discovery 1.0, section 4), which must name the same issuer.
func FromDiscovery(issuer string, skipped func([]string)) Fetch {
	return func(ctx context.Context) (*jwt.Set, error) {
		meta, err := Discover(ctx, issuer)
		if err != nil {
			return nil, err
		}
		if err := fetch.CheckNamed(issuer, meta.JWKS); err != nil {
			return nil, fmt.Errorf("discovery of %q: jwks_uri %w", issuer, err)
		}
		return FromURL(meta.JWKS, skipped)(ctx)
	}
}

// Metadata is what is used of an issuer's.
type Metadata struct {
	Issuer        string `json:"issuer"`
	JWKS          string `json:"jwks_uri"`
	Introspection string `json:"introspection_endpoint"`

	Authorization string   `json:"authorization_endpoint"`
	Token         string   `json:"token_endpoint"`
	EndSession    string   `json:"end_session_endpoint"`
	AuthMethods   []string `json:"token_endpoint_auth_methods_supported"`
	ISS           bool     `json:"authorization_response_iss_parameter_supported"`

	// Where clients are asked for a certificate (RFC 8705, section 5); what is
	// not here is the same for all.
	Aliases struct {
		Introspection string `json:"introspection_endpoint"`
		Token         string `json:"token_endpoint"`
	} `json:"mtls_endpoint_aliases"`
}

// Discover fetches an issuer's metadata, which must be its own. An issuer that
// has none for OpenID Connect may have some for OAuth (RFC 8414).
func Discover(ctx context.Context, issuer string) (meta Metadata, err error) {
	u, err := url.Parse(issuer)
	if err != nil {
		return meta, fmt.Errorf("discovery: %q is not a URL", issuer)
	}
	path := strings.TrimSuffix(u.EscapedPath(), "/")
	base := u.Scheme + "://" + u.Host
	address := base + path + "/.well-known/openid-configuration"
	data, err := get(ctx, address)
	if err != nil {
		var err2 error
		other := base + "/.well-known/oauth-authorization-server" + path
		if data, err2 = get(ctx, other); err2 != nil {
			return meta, fmt.Errorf("discovery: %w", err)
		}
		address = other
	}
	if err := json.Unmarshal(data, &meta); err != nil {
		return meta, fmt.Errorf("discovery at %q: %w", address, err)
	}
	if meta.Issuer != issuer {
		return meta, fmt.Errorf("discovery at %q names another issuer: %.200q", address, meta.Issuer)
	}
	return meta, nil
}

func get(ctx context.Context, address string) ([]byte, error) {
	return fetch.Get(ctx, address, "application/jwk-set+json, application/json", maxDocument)
}
