package guard

import (
	"errors"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/gate/strictjson"
	"github.com/gatehouse-caddy/gatehouse/modules/guard/internal/canon"
)

// checks are made in this order: what costs least comes first. One that would
// change the request does so only when it is enforced.
var checks = [checkCount]func(h *Handler, ex *gate.Exchange, r *http.Request, enforce bool) *gate.Denial{
	pathCheck:            (*Handler).path,
	urlCheck:             (*Handler).url,
	queryCheck:           (*Handler).query,
	headersCheck:         (*Handler).headers,
	framingCheck:         (*Handler).framing,
	earlyDataCheck:       (*Handler).earlyData,
	contentTypeCheck:     (*Handler).contentType,
	contentEncodingCheck: (*Handler).contentEncoding,
	bodyCheck:            (*Handler).body,
	overrideCheck:        (*Handler).override,
	jsonCheck:            (*Handler).json,
}

// ServeHTTP passes a request that is well formed.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	ex, mode := gate.Enter(r, gate.Guard, h.Mode)
	if mode == gate.Off {
		return next.ServeHTTP(w, r)
	}
	began := gate.Now()
	for c, look := range checks {
		m := mode
		if own := h.modes[c]; own != nil && m == gate.Enforce {
			m = *own
		}
		if m == gate.Off {
			continue
		}
		if d := look(h, ex, r, m == gate.Enforce); d != nil {
			if err := ex.Conclude(w, r, gate.Guard, m, checkNames[c], d, began); err != nil {
				return err
			}
		}
	}
	if err := ex.Conclude(w, r, gate.Guard, mode, "", nil, began); err != nil {
		return err
	}
	return next.ServeHTTP(w, r)
}

// path gives the path its canonical form, in place: a copy of the request
// would not be seen by placeholders and error routes.
func (h *Handler) path(_ *gate.Exchange, r *http.Request, enforce bool) *gate.Denial {
	sent := r.URL.EscapedPath()
	if sent == "*" && r.Method == http.MethodOptions {
		return nil // RFC 9112, section 3.2.4
	}
	canonical, fault := canon.Path(sent, h.EncodedSlash, h.Semicolon)
	switch {
	case fault != "":
		return &gate.Denial{Reason: gate.GuardPath, Detail: "The path has " + fault + "."}
	case canonical == sent:
		return nil
	case h.Path == "refuse":
		return &gate.Denial{Reason: gate.GuardPath, Detail: "The path is not in its canonical form."}
	}
	if !enforce {
		return nil
	}
	decoded, err := url.PathUnescape(canonical)
	if err != nil {
		return &gate.Denial{Reason: gate.GuardPath, Err: err}
	}
	r.URL.Path, r.URL.RawPath = decoded, canonical
	r.RequestURI = r.URL.RequestURI()
	return nil
}

func (h *Handler) url(_ *gate.Exchange, r *http.Request, _ bool) *gate.Denial {
	if len(r.URL.Path) > h.MaxURL || len(r.URL.RawPath) > h.MaxURL || len(r.URL.Path)+len(r.URL.RawQuery) > h.MaxURL {
		return &gate.Denial{Reason: gate.GuardURL}
	}
	return nil
}

func (h *Handler) query(_ *gate.Exchange, r *http.Request, _ bool) *gate.Denial {
	switch n, fault := canon.Query(r.URL.RawQuery); {
	case fault != "":
		return &gate.Denial{Reason: gate.GuardQuery, Detail: "The query has " + fault + "."}
	case n > h.MaxQuery:
		return &gate.Denial{Reason: gate.GuardQuery}
	}
	return nil
}

func (h *Handler) headers(_ *gate.Exchange, r *http.Request, _ bool) *gate.Denial {
	n := 0
	for _, values := range r.Header {
		n += len(values)
	}
	if n > h.MaxHeaders {
		return &gate.Denial{Reason: gate.GuardHeaders}
	}
	return nil
}

// single are header fields of which a second one makes the request mean two
// things. Go's server refuses those that frame the body.
var single = [...]string{"Content-Type", "Content-Encoding", "Authorization", "Origin"}

// confusable are header fields that mean something to everybody. A program that
// takes an underscore for a hyphen, as CGI and its descendants do, would take one
// that nobody here has looked at for it. Those by which proxies say who the client
// is are gone already.
var confusable = [...]string{"content-length", "content-type", "content-encoding", "transfer-encoding", "x-request-id", "x-api-key"}

func (*Handler) framing(_ *gate.Exchange, r *http.Request, _ bool) *gate.Denial {
	refuse := func(detail string) *gate.Denial {
		return &gate.Denial{Reason: gate.GuardFraming, Detail: detail}
	}
	if r.Method == http.MethodConnect || r.Method == http.MethodTrace || r.Method == "TRACK" || strings.Trim(r.Method, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") != "" {
		return refuse("The method is none that is used here.") // Caddy's proxy makes a GET of CONNECT; small letters are the same method for some
	}
	if strings.ContainsAny(r.Host, "/\\@?#% \t,") {
		return refuse("The Host is none.")
	}
	for name := range r.Header {
		if strings.IndexByte(name, '_') >= 0 && slices.ContainsFunc(confusable[:], func(o string) bool { return gate.Alike(name, o) }) {
			return refuse("The field " + name + " can be taken for another.")
		}
	}
	for _, name := range single {
		if len(r.Header[name]) > 1 {
			return refuse("The field " + name + " stands twice.")
		}
	}
	if ct := r.Header["Content-Type"]; len(ct) > 0 && ct[0] != "" && ct[0] != "application/json" && hasBody(r) {
		if _, _, err := mime.ParseMediaType(ct[0]); err != nil { // the body would be of no type here, and of one there
			return refuse("The Content-Type is none.")
		}
	}
	if len(r.TransferEncoding) > 0 && (r.ProtoMajor != 1 || r.ProtoMinor == 0) {
		return refuse("HTTP/1.0 knows no transfer coding.")
	}
	return nil
}

// earlyData refuses what came with a handshake that is not over, or did at a proxy
// in front, unless it can do no harm twice: whoever records such a request can
// send it again (RFC 8470). A client sends it anew when the handshake is done.
func (*Handler) earlyData(_ *gate.Exchange, r *http.Request, _ bool) *gate.Denial {
	early := r.TLS != nil && !r.TLS.HandshakeComplete || slices.Contains(r.Header["Early-Data"], "1")
	if !early || r.Method == http.MethodGet || r.Method == http.MethodHead || r.Method == http.MethodOptions {
		return nil
	}
	return &gate.Denial{Reason: gate.GuardEarlyData}
}

// hasBody is also true of a chunked body that turns out empty.
func hasBody(r *http.Request) bool {
	return r.ContentLength != 0 && r.Body != nil && r.Body != http.NoBody
}

func (h *Handler) contentType(_ *gate.Exchange, r *http.Request, _ bool) *gate.Denial {
	if !hasBody(r) {
		return nil
	}
	if ct := r.Header.Get("Content-Type"); strings.IndexByte(ct, ';') >= 0 {
		if _, params, err := mime.ParseMediaType(ct); err == nil && !likeASCII(params["charset"]) {
			return &gate.Denial{Reason: gate.GuardContentType, Detail: "The charset is none that is used here."}
		}
	}
	if len(h.ContentTypes) == 0 {
		return nil
	}
	kind := mediaType(r)
	for _, t := range h.ContentTypes {
		if matches(t, kind) {
			return nil
		}
	}
	return &gate.Denial{Reason: gate.GuardContentType}
}

// likeASCII reports the charsets in which what is written in ASCII is that, as all
// who look at bodies take for granted. In EBCDIC, UTF-7 or UTF-16 an attack, or the
// member of a form, is not what it seems.
func likeASCII(charset string) bool {
	charset = strings.ToLower(charset)
	switch charset {
	case "", "utf-8", "utf8", "us-ascii", "ascii":
		return true
	}
	return strings.HasPrefix(charset, "iso-8859-") || strings.HasPrefix(charset, "windows-125")
}

// mediaType is the content type without parameters, or empty.
func mediaType(r *http.Request) string {
	v := r.Header.Get("Content-Type")
	if v == "" || v == "application/json" {
		return v
	}
	kind, _, err := mime.ParseMediaType(v)
	if err != nil {
		return ""
	}
	return kind
}

func matches(pattern, kind string) bool {
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok {
		return strings.HasPrefix(kind, prefix)
	}
	return pattern == kind
}

// limit is how long the body may be.
func (h *Handler) limit(r *http.Request) int64 {
	if len(h.MaxBodyOf) > 0 {
		kind := mediaType(r)
		if n, ok := h.MaxBodyOf[kind]; ok {
			return n
		}
		if main, _, ok := strings.Cut(kind, "/"); ok {
			if n, ok := h.MaxBodyOf[main+"/*"]; ok {
				return n
			}
		}
	}
	return h.MaxBody
}

// body bounds what the client sends, and what comes out of it.
func (h *Handler) body(_ *gate.Exchange, r *http.Request, enforce bool) *gate.Denial {
	if !hasBody(r) {
		return nil
	}
	limit := h.limit(r)
	if r.ContentLength > limit {
		return &gate.Denial{Reason: gate.GuardBodyTooLarge}
	}
	if _, already := r.Body.(*bounded); r.ContentLength < 0 && !already && enforce {
		r.Body = &bounded{ReadCloser: r.Body, left: limit}
	}
	return nil
}

// json reads a JSON body in the only way there is to read it, and leaves the
// value for the contract.
func (h *Handler) json(ex *gate.Exchange, r *http.Request, enforce bool) *gate.Denial {
	if !hasBody(r) {
		return nil
	}
	if kind := mediaType(r); kind != "application/json" && (!strings.HasSuffix(kind, "+json") || gate.ProtocolOf(r).Framed()) {
		return nil
	}
	data, denial := h.whole(ex, r, enforce)
	if denial != nil || len(data) == 0 {
		return denial
	}
	value, err := strictjson.Decode(data, h.limits)
	if err != nil {
		d := &gate.Denial{Reason: gate.GuardJSON, Err: err}
		if bad, ok := errors.AsType[*strictjson.Error](err); ok {
			d.Fields = []gate.FieldError{{Pointer: "#", Detail: bad.Error()}}
		}
		return d
	}
	if h.common {
		ex.Decoded = value
	}
	return nil
}

// whole is the body, or why there is none to look at. In shadow an encoding stays
// on, and nothing is said of what it hides.
func (h *Handler) whole(ex *gate.Exchange, r *http.Request, enforce bool) ([]byte, *gate.Denial) {
	data, err := ex.Body(r, h.limit(r))
	var denial *gate.Denial
	switch {
	case errors.As(err, &denial):
		return nil, denial
	case errors.Is(err, gate.ErrBodyTooLarge):
		return nil, &gate.Denial{Reason: gate.GuardBodyTooLarge}
	case errors.Is(err, gate.ErrBodyEncoded) && !enforce:
		return nil, nil
	case err != nil:
		return nil, &gate.Denial{Reason: gate.GuardBodyUnreadable, Err: err}
	}
	return data, nil
}

// Describe tells that the stage may refuse, and nothing of what it looks for.
func (h *Handler) Describe(d *gate.Description) { d.MayRefuse(h.Mode, gate.Guard) }
