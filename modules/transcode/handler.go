package transcode

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/transcode/internal/descset"
)

// ServeHTTP gives next the gRPC call that the request means.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	ex, mode := gate.Enter(r, gate.Transcode, h.Mode)
	if mode == gate.Off {
		return next.ServeHTTP(w, r)
	}
	protocol := gate.ProtocolOf(r)
	path, known := r.URL.Path, false
	if protocol != gate.HTTP {
		known = h.set.Methods[path] != nil
	} else if h.set.Reachable(path) {
		path, known = h.set.Canonical(r.URL.EscapedPath())
	}
	if !known {
		return h.unmatched(ex, w, r, next)
	}
	if protocol == gate.GRPC && native(r) { // what the service speaks anyway
		m := h.set.Methods[path]
		denial := astray(ex, r, m)
		if r.Method != http.MethodPost { // what was decided by the HTTP method is not about a call
			denial = &gate.Denial{Reason: gate.TranscodeUnknownMethod, Header: http.Header{"Allow": {http.MethodPost}}}
		}
		if denial != nil {
			return ex.Conclude(w, r, gate.Transcode, gate.Enforce, string(m.FullName()), denial, gate.Now())
		}
		return next.ServeHTTP(w, r)
	}
	c := &call{h: h, w: w, r: r, next: next, ex: ex, began: gate.Now(), protocol: protocol}
	return c.serve(path)
}

// astray refuses a call of another method than the operation describes that a
// contract has named: what the stages before have decided is about that one.
func astray(ex *gate.Exchange, r *http.Request, m *descset.Method) *gate.Denial {
	op := ex.Operation
	if op == nil || m.Is(r.Method, r.URL.EscapedPath(), op.Path) {
		return nil
	}
	if r.Context().Value(callKey{}) != nil {
		return nil // another transcode has asked this, and made the call
	}
	return &gate.Denial{Reason: gate.TranscodeUnmatched, Err: fmt.Errorf("the contract takes it for %s, but %s %s does not describe this method, or more than it", op.ID, op.Method, op.Path)}
}

// unmatched is the end of a request that no method answers.
func (h *Handler) unmatched(ex *gate.Exchange, w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if h.Unmatched == "refuse" {
		return ex.Conclude(w, r, gate.Transcode, gate.Enforce, "", &gate.Denial{Reason: gate.TranscodeUnmatched}, gate.Now())
	}
	return next.ServeHTTP(w, r)
}

// native reports whether a gRPC call needs no translation.
func native(r *http.Request) bool {
	return !strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc+json")
}

type callKey struct{}

// serve has the library translate a copy of the request, so that whatever it
// does to it before the method is known leaves no trace.
func (c *call) serve(path string) error {
	rq := c.r.Clone(context.WithValue(c.r.Context(), callKey{}, c))
	rq.URL.Path, rq.URL.RawPath = path, ""
	if rq.Body == nil {
		rq.Body = http.NoBody
	}
	c.source = &source{call: c, ReadCloser: rq.Body}
	rq.Body = c.source
	c.smooth(rq)
	c.run(rq)
	return c.end()
}

// smooth takes away differences between clients that the library trips over.
func (c *call) smooth(rq *http.Request) {
	ct := rq.Header.Get("Content-Type")
	switch c.protocol {
	case gate.HTTP, gate.Connect:
		for name := range rq.Header {
			if strings.HasPrefix(name, "Grpc-") { // the service would take it for the gateway's word
				delete(rq.Header, name)
			}
		}
		if kind, params, err := mime.ParseMediaType(ct); err == nil && kind == "application/json" && (params["charset"] == "" || strings.EqualFold(params["charset"], "utf-8")) {
			rq.Header["Content-Type"] = []string{kind}
		}
		if c.protocol == gate.HTTP {
			delete(rq.Header, "Accept-Encoding") // encode compresses for everything
		}
	case gate.GRPCWeb:
		if rest, ok := strings.CutPrefix(ct, "application/grpc-web-text"); ok {
			c.text = true
			rq.Header["Content-Type"] = []string{"application/grpc-web" + rest}
			rq.Body = plain{base64.NewDecoder(base64.StdEncoding, c.source), c.source}
			rq.ContentLength = -1
		}
	case gate.GRPC, gate.ConnectStream:
	}
}

// plain is a body that was in base64.
type plain struct {
	io.Reader
	io.Closer
}

// Describe tells consumers what they may be refused.
func (h *Handler) Describe(d *gate.Description) { d.MayRefuse(h.Mode, gate.Transcode) }
