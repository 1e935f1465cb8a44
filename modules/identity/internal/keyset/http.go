package keyset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/jwt"
)

// maxDocument bounds what an issuer may send us.
const maxDocument = 1 << 20

// client keeps no connections: fetches are minutes apart.
var client = &http.Client{Transport: &http.Transport{
	Proxy:             http.ProxyFromEnvironment,
	DisableKeepAlives: true,
	ForceAttemptHTTP2: true,
}, CheckRedirect: func(r *http.Request, via []*http.Request) error {
	if len(via) > 3 {
		return errors.New("more than three redirects")
	}
	return CheckURL(r.URL.String())
}}

// CheckURL accepts https, and http to this machine only: whoever can change
// the keys on their way can be anybody.
func CheckURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return fmt.Errorf("%q is not a URL", raw)
	}
	if u.Scheme == "https" {
		return nil
	}
	host := u.Hostname()
	ip := net.ParseIP(host)
	if u.Scheme == "http" && (host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()) {
		return nil
	}
	return fmt.Errorf("%q must be https; http is accepted for this machine only", raw)
}

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
		if err := CheckURL(meta.JWKS); err != nil {
			return nil, fmt.Errorf("discovery at %q: jwks_uri %w", address, err)
		}
		return FromURL(meta.JWKS, skipped)(ctx)
	}
}

func get(ctx context.Context, address string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", address, resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxDocument+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxDocument {
		return nil, fmt.Errorf("%s answered with more than 1 MiB", address)
	}
	return data, nil
}
