package resilience

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	_ "github.com/caddyserver/caddy/v2/modules/filestorage"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// nobody answers at once, without a network.
type nobody struct{}

func (nobody) RoundTrip(r *http.Request) (*http.Response, error) {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
}

// BenchmarkRoundTrip is what the stage adds to Caddy's own transport: the breaker,
// the budget of retries, the time that a try may take, and the decision.
func BenchmarkRoundTrip(b *testing.B) {
	config := new(caddy.Config)
	if err := json.Unmarshal(fmt.Appendf(nil, `{"admin":{"disabled":true},"storage":{"module":"file_system","root":%q}}`, b.TempDir()), config); err != nil {
		b.Fatal(err)
	}
	ctx, err := caddy.ProvisionContext(config)
	if err != nil {
		b.Fatal(err)
	}
	m, err := ctx.LoadModuleByID("http.handlers.reverse_proxy", json.RawMessage(`{"transport":{"protocol":"gatehouse"},"upstreams":[{"dial":"a.test:80"}]}`))
	if err != nil {
		b.Fatal(err)
	}
	h := m.(*reverseproxy.Handler)
	b.Cleanup(func() { _ = h.Cleanup() })
	t := h.Transport.(*Transport)
	t.Transport.RegisterProtocol("nobody", nobody{})
	for _, c := range []struct {
		name string
		by   http.RoundTripper
	}{{"Caddy", &t.HTTPTransport}, {"gatehouse", t}} {
		b.Run(c.name, func(b *testing.B) {
			dial := reverseproxy.DialInfo{Upstream: h.Upstreams[0], Network: "tcp", Address: "a.test:80", Host: "a.test", Port: "80"}
			base := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "nobody://a.test/", nil)
			base.Header["Accept"] = []string{"application/json"}
			base = caddyhttp.PrepareRequest(base, caddy.NewReplacer(), nil, nil)
			to := context.WithValue(base.Context(), caddy.CtxKey("reverse_proxy.dial_info"), dial)
			b.ReportAllocs()
			for b.Loop() {
				r := base.WithContext(context.WithValue(to, caddyhttp.VarsCtxKey, map[string]any{}))
				r.Header = base.Header.Clone()
				gate.Of(r)
				res, err := c.by.RoundTrip(r)
				if err != nil || res.StatusCode != http.StatusOK {
					b.Fatal(err)
				}
				_ = res.Body.Close()
			}
		})
	}
}
