package contract

import (
	"fmt"
	"io"
	"math/rand/v2"
	"mime"
	"net/http"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/members"
	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/schema"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/gate/strictjson"
)

// responseSpec is what an operation says of one of its answers.
type responseSpec struct {
	status string // 200, 2XX or DEFAULT
	types  []responseType
}

type responseType struct {
	mediaType
	members *members.Shape
}

// lifetime holds the header fields that tell consumers of an operation's end.
type lifetime struct {
	deprecation string // RFC 9745
	sunset      string // RFC 8594
}

// tap sees an answer on its way and lets it pass untouched: every write goes on
// before it is copied. What it copies is bounded.
type tap struct {
	*caddyhttp.ResponseWriterWrapper
	h      *Handler
	op     *operation // nil: the contract does not know what was asked
	head   bool
	status int
	spec   *responseType // set while the body is copied
	body   []byte
	result string // why the body was not looked at
	typ    string // the answer's content type
}

// serve lets the handlers behind answer, and looks at what they answer where
// that was asked for.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request, ex *gate.Exchange, op *operation, answer func(http.ResponseWriter) error) error {
	if h.Responses != shadow && (op == nil || op.lifetime == (lifetime{})) {
		return answer(w)
	}
	t := &tap{ResponseWriterWrapper: &caddyhttp.ResponseWriterWrapper{ResponseWriter: w}, h: h, op: op, head: r.Method == http.MethodHead}
	err := answer(t)
	if err == nil && h.Responses == shadow && t.status != 0 {
		t.look(ex.API, r)
	}
	return err
}

// WriteHeader notes the status and decides whether the body is looked at.
func (t *tap) WriteHeader(status int) {
	if status >= 200 && t.status == 0 {
		t.status = status
		t.announce()
		if t.h.Responses == shadow {
			t.choose()
		}
	}
	t.ResponseWriterWrapper.WriteHeader(status)
}

// announce tells when the operation was deprecated and when it will be gone,
// unless the upstream says so itself.
func (t *tap) announce() {
	if t.op == nil {
		return
	}
	header := t.Header()
	if d := t.op.lifetime.deprecation; d != "" && header["Deprecation"] == nil {
		header["Deprecation"] = []string{d}
	}
	if s := t.op.lifetime.sunset; s != "" && header["Sunset"] == nil {
		header["Sunset"] = []string{s}
	}
}

// The ends that looking at an answer can come to, as the metric names them.
const (
	checked    = "checked"
	noBody     = "no_body"
	notJSON    = "not_json"
	encoded    = "encoded"
	tooLarge   = "too_large"
	notSampled = "not_sampled"
	busy       = "busy"
	failed     = "failed"
)

// choose decides whether the body is copied.
func (t *tap) choose() {
	header := t.Header()
	t.typ = header.Get("Content-Type")
	t.result = noBody
	if t.op == nil || t.head || t.status == http.StatusNoContent || t.status == http.StatusNotModified {
		return
	}
	spec := t.op.response(t.status)
	if spec == nil {
		return
	}
	typ := spec.find(t.typ)
	switch length, _ := strconv.ParseInt(header.Get("Content-Length"), 10, 64); {
	case typ == nil || typ.schema == nil && typ.members == nil:
		t.result = notJSON
	case header.Get("Content-Encoding") != "":
		t.result = encoded
	case length > t.h.MaxBody:
		t.result = tooLarge
	case t.h.ResponseSample < 1 && rand.Float64() >= t.h.ResponseSample: //nolint:gosec // a sample, not a secret
		t.result = notSampled
	default:
		t.result, t.spec = checked, typ
	}
}

// Write passes the bytes on and keeps a copy.
func (t *tap) Write(b []byte) (int, error) {
	if t.status == 0 {
		t.WriteHeader(http.StatusOK)
	}
	n, err := t.ResponseWriterWrapper.Write(b)
	if t.spec != nil {
		if int64(len(t.body)+n) > t.h.MaxBody {
			t.spec, t.body, t.result = nil, nil, tooLarge
		} else {
			t.body = append(t.body, b[:n]...)
		}
	}
	return n, err
}

// ReadFrom keeps the server's fast path where nothing is copied.
func (t *tap) ReadFrom(src io.Reader) (int64, error) {
	if t.status == 0 {
		t.WriteHeader(http.StatusOK)
	}
	if t.spec != nil {
		return io.Copy(struct{ io.Writer }{t}, src)
	}
	return t.ResponseWriterWrapper.ReadFrom(src)
}

// FlushError is what http.ResponseController looks for.
func (t *tap) FlushError() error {
	if t.status == 0 {
		t.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(t.ResponseWriter).Flush()
}

// looking bounds how many answers are looked at at once. The client has its
// answer by then, and what there is no time for is counted and left.
var looking = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))

// look compares the answer with the contract.
func (t *tap) look(api string, r *http.Request) {
	if t.op == nil {
		// What strangers try says nothing; what the backend answers is there.
		if t.status < 400 {
			t.h.drifted(drift{API: api, Kind: driftPath, Where: r.Method + " " + pathShape(r.URL.Path), Status: t.status})
		}
		return
	}
	d := drift{API: api, Operation: t.op.ID, Status: t.status}
	spec := t.op.response(t.status)
	switch {
	case t.op.responses == nil: // the contract says nothing of answers
	case spec == nil:
		d.Kind = driftStatus
		t.h.drifted(d)
	case len(spec.types) > 0 && t.typ != "" && spec.find(t.typ) == nil:
		d.Kind, d.Detail = driftType, mediaOf(t.typ)
		t.h.drifted(d)
	}
	if t.spec == nil || len(t.body) == 0 {
		lookedAt.WithLabelValues(api, t.result).Inc()
		return
	}
	select {
	case looking <- struct{}{}:
	default:
		lookedAt.WithLabelValues(api, busy).Inc()
		return
	}
	go func() {
		defer func() { <-looking }()
		result := failed
		defer func() {
			if p := recover(); p != nil {
				t.h.logger.Error("a response could not be validated", zap.String("operation", d.Operation), zap.Any("panic", p))
			}
			lookedAt.WithLabelValues(api, result).Inc()
		}()
		t.compare(d)
		result = checked
	}()
}

// compare counts what is wrong with the body, without its values.
func (t *tap) compare(d drift) {
	value, err := strictjson.Decode(t.body, strictjson.Limits{})
	if err != nil {
		d.Kind, d.Detail = driftMalformed, "is not acceptable JSON"
		t.h.drifted(d)
		return
	}
	if t.spec.schema != nil {
		for _, v := range t.spec.schema.Validate(value) {
			d.Kind, d.Where, d.Detail = driftSchema, anyElement(v.Pointer), v.Detail
			t.h.drifted(d)
		}
	}
	if t.spec.members == nil {
		return
	}
	for _, where := range t.spec.members.Unknown(value, schema.MaxViolations) {
		d.Kind, d.Where, d.Detail = driftMember, where, ""
		t.h.drifted(d)
	}
}

// response finds what is said of a status: itself, its class, or all.
func (o *operation) response(status int) *responseSpec {
	exact := strconv.Itoa(status)
	for _, want := range [...]string{exact, exact[:1] + "XX", "DEFAULT"} {
		for i := range o.responses {
			if o.responses[i].status == want {
				return &o.responses[i]
			}
		}
	}
	return nil
}

func (s *responseSpec) find(contentType string) *responseType {
	media, params, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil
	}
	for i := range s.types {
		if !s.types[i].covers(media, params) {
			continue
		}
		if !isJSON(media) {
			return &responseType{} // documented, and nothing we could read
		}
		return &s.types[i]
	}
	return nil
}

func mediaOf(contentType string) string {
	media, _, err := mime.ParseMediaType(contentType)
	if err != nil || len(media) > 100 {
		return "a content type that is none"
	}
	return media
}

// anyElement writes the indexes of a pointer as *, since one fault in a list is
// one finding, however many elements have it.
func anyElement(pointer string) string {
	tokens := strings.Split(pointer, "/")
	for i, token := range tokens {
		if _, err := strconv.ParseUint(token, 10, 64); err == nil {
			tokens[i] = "*"
		}
	}
	return strings.Join(tokens, "/")
}

// pathShape writes what looks like an identifier as *, for the same reason.
func pathShape(path string) string {
	tokens := strings.Split(path, "/")
	for i, token := range tokens {
		digits := strings.ContainsAny(token, "0123456789")
		if digits && (len(token) >= 8 || strings.Trim(token, "0123456789") == "") || len(token) > 32 {
			tokens[i] = "*"
		}
	}
	return strings.Join(tokens, "/")
}

// lifetimeOf writes the header fields for two dates.
func lifetimeOf(deprecated, sunset time.Time) (l lifetime) {
	if !deprecated.IsZero() {
		l.deprecation = fmt.Sprintf("@%d", deprecated.Unix())
	}
	if !sunset.IsZero() {
		l.sunset = sunset.UTC().Format(http.TimeFormat)
	}
	return l
}

// Interface guards
var (
	_ http.ResponseWriter = (*tap)(nil)
	_ io.ReaderFrom       = (*tap)(nil)
)
