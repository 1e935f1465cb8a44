package exchange

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/gate/strictjson"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/ask"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/clientauth"
)

const (
	grantType   = "urn:ietf:params:oauth:grant-type:token-exchange"
	accessToken = "urn:ietf:params:oauth:token-type:access_token" //nolint:gosec // the name of a type
	signedToken = "urn:ietf:params:oauth:token-type:jwt"          //nolint:gosec // the name of a type
	maxAnswer   = 64 << 10
	maxToken    = 8 << 10
)

// Client is who asks, and for what.
type Client struct {
	*clientauth.Client

	Audience, Resource, Scope []string
}

// Exchange puts the question to the token endpoint (RFC 8693, section 2.1).
func (c *Client) Exchange(ctx context.Context, address, token string) (Granted, error) {
	form := url.Values{
		"grant_type":    {grantType},
		"subject_token": {token}, "subject_token_type": {accessToken},
		"requested_token_type": {accessToken},
	}
	if len(c.Audience) > 0 {
		form["audience"] = c.Audience
	}
	if len(c.Resource) > 0 {
		form["resource"] = c.Resource
	}
	if len(c.Scope) > 0 {
		form.Set("scope", strings.Join(c.Scope, " "))
	}
	resp, err := c.Ask(ctx, address, "application/json", form)
	if err != nil {
		return Granted{}, fmt.Errorf("token exchange: %w", err)
	}
	defer resp.Body.Close()
	if media, _, err := mime.ParseMediaType(resp.Header.Get("Content-Type")); err != nil || media != "application/json" {
		if resp.StatusCode != http.StatusOK {
			return Granted{}, ask.Status("token exchange", resp.StatusCode, "")
		}
		return Granted{}, odd("something else than JSON")
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return Granted{}, fmt.Errorf("token exchange: %w", err)
	}
	return read(resp.StatusCode, data)
}

func odd(what string) error {
	return &ask.Odd{Err: errors.New("token exchange was answered with " + what)}
}

// read reads an answer (RFC 8693, section 2.2). What is neither clearly a token
// that can be sent as a bearer's nor clearly a refusal is an error.
func read(status int, data []byte) (g Granted, _ error) {
	if len(data) > maxAnswer {
		return g, odd("more than 64 KiB")
	}
	v, err := strictjson.Decode(data, strictjson.Limits{Depth: 16, Values: 2048})
	answer, ok := v.(map[string]any)
	if err != nil || !ok {
		return g, odd("JSON that cannot be read")
	}
	text := func(name string) string { s, _ := answer[name].(string); return s }
	switch refused := text("error"); {
	case status == http.StatusOK:
	case (status == http.StatusBadRequest || status == http.StatusForbidden) && ask.IsCode(refused) && !ask.Ours(refused):
		return Granted{Refused: refused}, nil
	default:
		return g, ask.Status("token exchange", status, refused)
	}
	token, issued := text("access_token"), text("issued_token_type")
	switch {
	case !sendable(token):
		return g, odd("no token that can be sent")
	case issued != accessToken && issued != signedToken:
		return g, odd("a token of another type than was asked for")
	case !strings.EqualFold(text("token_type"), "bearer"):
		return g, odd("a token that is no bearer token")
	}
	g.Token = token
	if v, there := answer["expires_in"]; there {
		n, _ := v.(json.Number)
		seconds, err := n.Int64()
		if err != nil || seconds < 1 {
			return Granted{}, odd("an expires_in that cannot be")
		}
		g.Life = min(time.Duration(min(seconds, 1<<31))*time.Second, 2*longest)
	}
	return g, nil
}

// sendable accepts what may stand behind Bearer (RFC 6750, section 2.1).
func sendable(token string) bool {
	if token == "" || len(token) > maxToken {
		return false
	}
	for _, c := range []byte(strings.TrimRight(token, "=")) {
		switch {
		case c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', strings.IndexByte("-._~+/", c) >= 0:
		default:
			return false
		}
	}
	return token[0] != '='
}
