package firewall

import (
	"errors"
	"fmt"
	"mime"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/firewall/internal/waf"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// ServeHTTP passes a request that the rules find harmless.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	ex, mode := gate.Enter(r, gate.Firewall, h.Mode)
	if mode == gate.Off {
		return next.ServeHTTP(w, r)
	}
	began := gate.Now()

	rule, denial := h.decide(ex, r)
	if denial != nil && denial.Reason == gate.FirewallFailed {
		h.logger.Error("inspection failed", zap.String("request_id", ex.ID), zap.Error(denial.Err))
		if h.OnError == gate.Open {
			ex.LetPass(gate.Firewall, mode, rule, denial.Reason, began)
			return next.ServeHTTP(w, r)
		}
		// fail closed: a request that was not inspected is not harmless
	}
	if err := ex.Conclude(w, r, gate.Firewall, mode, rule, denial, began); err != nil {
		return err
	}
	return next.ServeHTTP(w, r)
}

// decide makes what is inspected out of the request and asks the engine.
func (h *Handler) decide(ex *gate.Exchange, r *http.Request) (rule string, _ *gate.Denial) {
	req, rule, denial := h.request(ex, r)
	if denial != nil {
		return rule, denial
	}
	v, err := h.inspect(req)
	if err != nil {
		return "", &gate.Denial{Reason: gate.FirewallFailed, Err: err}
	}
	switch v.Kind {
	case waf.Attack:
		return v.Rules, &gate.Denial{Reason: gate.FirewallAttack, Err: errors.New(v.Log)}
	case waf.TooManyArguments:
		return v.Rules, &gate.Denial{Reason: gate.FirewallArgumentLimit, Err: errors.New(v.Log)}
	case waf.Unreadable:
		return v.Rules, &gate.Denial{Reason: gate.FirewallBodyUnreadable, Err: errors.New(v.Log)}
	case waf.Clean:
	}
	return "", nil
}

// request is what the rules see of a request, or why it cannot be inspected.
func (h *Handler) request(ex *gate.Exchange, r *http.Request) (_ *waf.Request, rule string, _ *gate.Denial) {
	contentType, inspect := classify(r.Header.Get("Content-Type"))
	req := &waf.Request{
		Client: ex.Client, Method: r.Method, URI: r.URL.RequestURI(), Proto: r.Proto, Host: r.Host,
		Headers: headers(ex, r, contentType),
	}
	if !inspect {
		return req, "", nil
	}
	body, err := ex.Body(r, h.MaxBody)
	switch {
	case err == nil:
		req.Body = body
	case !errors.Is(err, gate.ErrBodyTooLarge):
		return nil, "body", &gate.Denial{Reason: gate.FirewallBodyUnreadable, Err: err}
	case h.Oversize == "refuse":
		return nil, "max_body", &gate.Denial{Reason: gate.FirewallBodyTooLarge, Err: err}
	}
	return req, "", nil
}

// inspect keeps a panic of the engine from looking like a failure elsewhere.
func (h *Handler) inspect(req *waf.Request) (v waf.Verdict, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the engine panicked: %v", p)
		}
	}()
	return h.waf.Inspect(req)
}

// headers lists what the rules see: all the client sent but Host, which has a
// place of its own, a credential that was already proven genuine, and what the
// gateway itself has put there for the upstream.
func headers(ex *gate.Exchange, r *http.Request, contentType string) []waf.Header {
	list := make([]waf.Header, 0, len(r.Header)+1)
	for name, values := range r.Header {
		switch {
		case name == "Authorization" && ex.Principal != nil && ex.Principal.Method == gate.Bearer:
		case name == gate.RequestIDHeader || strings.HasPrefix(name, gate.Asserted):
		case name == "Content-Type" && len(values) == 1:
			list = append(list, waf.Header{Name: name, Values: []string{contentType}})
		default:
			list = append(list, waf.Header{Name: name, Values: values})
		}
	}
	if r.TransferEncoding != nil { // Go's server takes it out of the header
		list = append(list, waf.Header{Name: "Transfer-Encoding", Values: r.TransferEncoding})
	}
	return list
}

// classify says whether the rules understand bodies of a content type, and by
// which name they know it: they tell types apart by a short list, on which
// application/vnd.example+json is a stranger. Types that are not on our lists
// keep their name, and the Core Rule Set refuses them.
func classify(contentType string) (name string, inspect bool) {
	if contentType == "" {
		return "", true // whatever it is, it may be a form
	}
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return contentType, true
	}
	switch {
	case media == "application/json", strings.HasSuffix(media, "+json"), media == "application/x-ndjson":
		return withCharset("application/json", params), true
	case media == "application/xml", media == "text/xml", strings.HasSuffix(media, "+xml"):
		return withCharset("application/xml", params), true
	case media == "application/x-www-form-urlencoded", media == "multipart/form-data", media == "text/plain":
		return contentType, true
	}
	for _, prefix := range binary {
		if strings.HasPrefix(media, prefix) {
			return "application/octet-stream", false
		}
	}
	return contentType, true
}

// binary are the types whose bodies mean nothing to the rules, and would cost
// seconds and gigabytes.
var binary = []string{
	"application/octet-stream", "application/grpc", "application/protobuf", "application/x-protobuf",
	"application/pdf", "application/zip", "application/gzip", "application/x-tar", "application/cbor", "application/msgpack",
	"image/", "audio/", "video/", "font/",
}

func withCharset(media string, params map[string]string) string {
	if c, ok := params["charset"]; ok {
		return media + "; charset=" + c
	}
	return media
}

// Describe tells that the stage may refuse, and nothing of what it looks for.
func (h *Handler) Describe(d *gate.Description) { d.MayRefuse(h.Mode, gate.Firewall) }
