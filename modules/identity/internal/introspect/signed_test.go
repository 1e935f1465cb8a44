package introspect

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/clientauth"
)

// TestSigned: a signed answer is asked for, and nothing else is taken.
func TestSigned(t *testing.T) {
	var kind, body string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Accept") != "application/token-introspection+jwt" {
			t.Errorf("asked for %q", r.Header.Get("Accept"))
		}
		w.Header().Set("Content-Type", kind)
		_, _ = io.WriteString(w, body)
	}))
	defer srv.Close()
	ask := Endpoint(srv.URL, clientauth.Basic("gateway", "secret"), func(_ context.Context, answer string) (map[string]any, error) {
		switch answer {
		case "yes":
			return map[string]any{"active": true}, nil
		case "no":
			return map[string]any{"active": false}, nil
		case "hm":
			return map[string]any{}, nil
		}
		return nil, errors.New("forged")
	})
	for _, c := range []struct{ kind, body, want string }{
		{signedAnswer, "yes", "yes"},
		{"Application/Token-Introspection+JWT; charset=utf-8", "yes", "yes"},
		{signedAnswer, "no", "no"},
		{signedAnswer, "hm", "without active"},
		{signedAnswer, "x", "cannot be accepted: forged"},
		{signedAnswer, `{"active":true}`, "cannot be accepted: forged"},
		{plainAnswer, `{"active":true}`, "plain JSON"},
		{plainAnswer, "yes", "plain JSON"},
		{"application/jwt", "yes", "something else"},
		{"", "yes", "something else"},
	} {
		kind, body = c.kind, c.body
		claims, err := ask(t.Context(), "tok")
		switch c.want {
		case "yes":
			if err != nil || claims == nil {
				t.Errorf("%s %s: %v, %v", c.kind, c.body, claims, err)
			}
		case "no":
			if err != nil || claims != nil {
				t.Errorf("%s %s: %v, %v", c.kind, c.body, claims, err)
			}
		default:
			if err == nil || claims != nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s %s: %v, %v; want %q", c.kind, c.body, claims, err, c.want)
			}
		}
	}
}
