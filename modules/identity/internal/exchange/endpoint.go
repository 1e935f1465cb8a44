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
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/gate/strictjson"
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
		return Granted{}, fmt.Errorf("token exchange was answered %s with something else than JSON", resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return Granted{}, fmt.Errorf("token exchange: %w", err)
	}
	return read(resp.StatusCode, data)
}

// ours are errors that say nothing of the caller's token: a refusal of one
// would be a refusal of all.
var ours = []string{"invalid_client", "unauthorized_client", "unsupported_grant_type", "server_error", "temporarily_unavailable"}

// read reads an answer (RFC 8693, section 2.2). What is neither clearly a token
// that can be sent as a bearer's nor clearly a refusal is an error.
func read(status int, data []byte) (g Granted, _ error) {
	if len(data) > maxAnswer {
		return g, errors.New("token exchange was answered with more than 64 KiB")
	}
	v, err := strictjson.Decode(data, strictjson.Limits{Depth: 16, Values: 2048})
	answer, ok := v.(map[string]any)
	if err != nil || !ok {
		return g, errors.New("token exchange was answered with JSON that cannot be read")
	}
	text := func(name string) string { s, _ := answer[name].(string); return s }
	switch refused := text("error"); {
	case status == http.StatusOK:
	case (status == http.StatusBadRequest || status == http.StatusForbidden) && isWord(refused) && !slices.Contains(ours, refused):
		return Granted{Refused: refused}, nil
	case isWord(refused):
		return g, fmt.Errorf("token exchange was answered %d %s", status, refused)
	default:
		return g, fmt.Errorf("token exchange was answered %d", status)
	}
	token, issued := text("access_token"), text("issued_token_type")
	switch {
	case !sendable(token):
		return g, errors.New("token exchange was answered without a token that can be sent")
	case issued != accessToken && issued != signedToken:
		return g, errors.New("token exchange was answered with a token of another type than was asked for")
	case !strings.EqualFold(text("token_type"), "bearer"):
		return g, errors.New("token exchange was answered with a token that is no bearer token")
	}
	g.Token = token
	if v, there := answer["expires_in"]; there {
		n, _ := v.(json.Number)
		seconds, err := n.Int64()
		if err != nil || seconds < 1 {
			return Granted{}, errors.New("token exchange was answered with an expires_in that cannot be")
		}
		g.Life = min(time.Duration(min(seconds, 1<<31))*time.Second, 2*longest)
	}
	return g, nil
}

// isWord accepts error codes as they are registered: nothing else of an answer
// gets into logs.
func isWord(s string) bool {
	return s != "" && len(s) <= 64 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyz_") == ""
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
