package firewall

import (
	"bytes"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strings"

	"github.com/gatehouse-caddy/gatehouse/modules/firewall/internal/reading"
	"github.com/gatehouse-caddy/gatehouse/modules/firewall/internal/waf"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// request is what the rules see of a request, or why it cannot be inspected.
func (h *Handler) request(ex *gate.Exchange, r *http.Request) (_ *waf.Request, rule string, _ *gate.Denial) {
	contentType, as := classify(r.Header.Get("Content-Type"))
	req := &waf.Request{Client: ex.Client, Method: r.Method, URI: r.URL.RequestURI(), Proto: r.Proto, Host: r.Host, Values: valuesOf(ex, r.URL.Path)}
	if as == unread && !stream(r) {
		encoding := strings.Join(r.Header["Content-Encoding"], ",")
		if strings.EqualFold(encoding, "identity") {
			encoding = ""
		}
		head, err := peek(ex, r, encoding != "")
		if err == nil && len(head) > 0 && encoding != "" && reading.Hides(head, encoding) {
			err = gate.ErrBodyEncoded
		}
		if err != nil {
			return nil, "body", &gate.Denial{Reason: gate.FirewallBodyUnreadable, Err: err}
		}
		if len(head) > 0 && encoding == "" && reading.Sniff(head) != reading.Binary {
			contentType, as = "text/plain", asText // whatever it says it is
		}
	}
	if as != unread {
		body, err := ex.Body(r, h.MaxBody)
		switch {
		case err == nil:
			if contentType, req.Body, err = h.read(contentType, as, body); err != nil {
				rule, denial := unreadable(err)
				return nil, rule, denial
			}
		case !errors.Is(err, gate.ErrBodyTooLarge):
			return nil, "body", &gate.Denial{Reason: gate.FirewallBodyUnreadable, Err: err}
		case h.Oversize == "refuse":
			return nil, "max_body", &gate.Denial{Reason: gate.FirewallBodyTooLarge, Err: err}
		}
	}
	req.Headers = headers(ex, r, contentType)
	return req, "", nil
}

// format is how a body is read for the rules.
type format uint8

const (
	unread format = iota // unless it is text
	asIs                 // Coraza's own parsers see what others see
	asXML
	asForm // or as what it looks like: who takes JSON often does not mind the type
	asText // the same
)

// classify says how the rules are shown bodies of a content type, and by which
// name they know it: they tell types apart by a short list, on which
// application/vnd.example+json is a stranger. Types that are not on our lists
// keep their name, and the Core Rule Set refuses them.
func classify(contentType string) (name string, _ format) {
	if contentType == "" {
		return "", asForm
	}
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return contentType, asIs
	}
	switch {
	case media == "application/json", strings.HasSuffix(media, "+json"), media == "application/x-ndjson":
		return withCharset("application/json", params), asIs
	case media == "application/xml", media == "text/xml", strings.HasSuffix(media, "+xml"):
		return withCharset("application/xml", params), asXML
	case media == "application/x-www-form-urlencoded":
		return contentType, asForm
	case media == "text/plain":
		return contentType, asText
	}
	for _, prefix := range binary {
		if strings.HasPrefix(media, prefix) {
			return "application/octet-stream", unread
		}
	}
	return contentType, asIs
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

// read makes of a body what the rules see, and tells the type of that. An error
// that is a *xml.SyntaxError means XML that is not well formed.
func (h *Handler) read(contentType string, as format, body []byte) (string, []byte, error) {
	if len(body) == 0 || as == asIs {
		return contentType, body, nil
	}
	if as == asXML {
		text, err := reading.Document(body, h.Arguments)
		return contentType, text, err
	}
	switch reading.Sniff(body) {
	case reading.Wide:
		return "", nil, reading.ErrEncoding
	case reading.XML:
		text, err := reading.Document(body, h.Arguments)
		var malformed *xml.SyntaxError
		switch {
		case err == nil:
			return "application/xml", text, nil
		case errors.As(err, &malformed), errors.Is(err, reading.ErrDoctype) && reading.IsPage(body):
			// text that begins with <
		default:
			return "", nil, err
		}
	case reading.JSON:
		if values, ok := reading.Values(body); ok {
			return "application/json", values, nil
		}
		// text that begins with a bracket
	case reading.Text, reading.Binary:
	}
	body = reading.Unescape(body)
	if as == asForm {
		return contentType, body, nil
	}
	return "application/json", reading.Prose(body), nil
}

// unreadable is the denial of a body that could not be read.
func unreadable(err error) (rule string, _ *gate.Denial) {
	d := &gate.Denial{Reason: gate.FirewallBodyUnreadable, Err: err}
	var malformed *xml.SyntaxError
	switch {
	case errors.Is(err, reading.ErrTooMany):
		d.Reason = gate.FirewallArgumentLimit
		return "arguments", d
	case errors.Is(err, reading.ErrDoctype):
		return "doctype", d
	case errors.Is(err, reading.ErrEncoding):
		return "encoding", d
	case errors.As(err, &malformed):
		// The parser's own words may repeat what was sent.
		d.Err = fmt.Errorf("the XML is not well formed in line %d", malformed.Line)
	case !errors.Is(err, reading.ErrTooDeep):
		d.Err = errors.New("the XML cannot be read")
	}
	return "xml", d
}

// peek returns how a body begins and leaves it to be read from its start. It
// waits no longer than it takes to tell text from what is not, which takes more
// of a body that is encoded.
func peek(ex *gate.Exchange, r *http.Request, encoded bool) ([]byte, error) {
	if known, ok := ex.Hold(r, 0); ok { // an earlier stage has read it
		return known[:min(len(known), reading.Head)], nil
	}
	head := make([]byte, 0, reading.Head)
	for len(head) < cap(head) {
		n, err := r.Body.Read(head[len(head):cap(head)])
		head = head[:len(head)+n]
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		if !encoded && reading.Decided(head) && reading.Sniff(head) == reading.Binary {
			break
		}
	}
	r.Body = &peeked{Reader: io.MultiReader(bytes.NewReader(head), r.Body), Closer: r.Body}
	return head, nil
}

type peeked struct {
	io.Reader
	io.Closer
}

// stream reports whether a request is a call of gRPC that may wait for its
// answer before it says anything. Waiting for its first bytes would stop both.
func stream(r *http.Request) bool {
	t := r.Header.Get("Content-Type")
	return r.ProtoMajor >= 2 && r.ContentLength < 0 && strings.HasPrefix(t, "application/grpc") && !strings.HasPrefix(t, "application/grpc-web")
}

// frames are the bytes of such a call. They are looked at as they pass: what
// does not begin as a message of gRPC does goes no further.
type frames struct {
	io.ReadCloser
	at int // how many bytes went by, while it matters
}

// mostOfFrame bounds the two first bytes of a message: whether it is compressed,
// and the first of four that tell its length, which is 128 MiB at most.
var mostOfFrame = [2]byte{1, 7}

func (f *frames) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	for i := 0; i < n && f.at < len(mostOfFrame); i, f.at = i+1, f.at+1 {
		if p[i] > mostOfFrame[f.at] {
			return 0, gate.Deny(&gate.Denial{Reason: gate.FirewallBodyUnreadable, Err: errors.New("the body is no message of gRPC")})
		}
	}
	return n, err
}
