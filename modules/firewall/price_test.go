package firewall

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/firewall/internal/waf"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// BenchmarkPeek is what an upload of 10 MiB costs on its way to the upstream,
// with a look at its head and without.
func BenchmarkPeek(b *testing.B) {
	data := bytes.Repeat([]byte("\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"), 10<<20/16)
	for _, look := range []bool{false, true} {
		b.Run(map[bool]string{false: "without", true: "with"}[look], func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				r := &http.Request{Header: http.Header{}, Body: io.NopCloser(bytes.NewReader(data)), ContentLength: int64(len(data))}
				if look {
					if _, err := peek(&gate.Exchange{}, r, false); err != nil {
						b.Fatal(err)
					}
				}
				_, _ = io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{r.Body}, make([]byte, 32<<10))
			}
		})
	}
}

// BenchmarkFirewall is the price of the stage for small requests, of which there
// are most, and for an image.
func BenchmarkFirewall(b *testing.B) {
	engine, err := waf.Compile(&waf.Settings{CRS: true, Paranoia: 1, Threshold: 5, Arguments: 1000, MaxBody: 128 << 10})
	if err != nil {
		b.Fatal(err)
	}
	h := &Handler{MaxBody: 128 << 10, Oversize: "refuse", Arguments: 1000, waf: engine, logger: zap.NewNop()}
	pass := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })
	for _, c := range []struct{ name, method, contentType, body string }{
		{"get", "GET", "", ""},
		{"json", "POST", "application/json", `{"customer":"Ann O'Neil","items":[{"sku":"SKU-1","quantity":2}],"note":"leave it at the door"}`},
		{"image", "PUT", "image/png", "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR"},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r := httptest.NewRequestWithContext(b.Context(), c.method, "/orders?page=2", bytes.NewReader([]byte(c.body)))
				if c.contentType != "" {
					r.Header.Set("Content-Type", c.contentType)
				}
				w := httptest.NewRecorder()
				r = caddyhttp.PrepareRequest(r, caddy.NewReplacer(), w, nil)
				if err := h.ServeHTTP(w, r, pass); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
