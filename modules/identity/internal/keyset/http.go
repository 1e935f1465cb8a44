package keyset

import (
	"context"
	"encoding/json"
	"fmt"
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
		address := strings.TrimSuffix(issuer, "/") + "/.well-known/openid-configuration"
		data, err := get(ctx, address)
		if err != nil {
			return nil, fmt.Errorf("discovery: %w", err)
		}
		var meta struct {
			Issuer string `json:"issuer"`
			JWKS   string `json:"jwks_uri"`
		}
		if err := json.Unmarshal(data, &meta); err != nil {
			return nil, fmt.Errorf("discovery at %q: %w", address, err)
		}
		if meta.Issuer != issuer {
			return nil, fmt.Errorf("discovery at %q names another issuer: %.200q", address, meta.Issuer)
		}
		if err := fetch.CheckURL(meta.JWKS); err != nil {
			return nil, fmt.Errorf("discovery at %q: jwks_uri %w", address, err)
		}
		return FromURL(meta.JWKS, skipped)(ctx)
	}
}

func get(ctx context.Context, address string) ([]byte, error) {
	return fetch.Get(ctx, address, "application/jwk-set+json, application/json", maxDocument)
}
