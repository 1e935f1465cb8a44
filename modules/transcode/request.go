package transcode

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"connectrpc.com/connect"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// envelope is what stands before each message: a flag and a length.
const envelope = 5

// request makes the body of the call. One message is read as a whole, so that
// nothing reaches the service of a request that is none, and the proxy may send
// it again. A stream is translated while the proxy reads it.
func (c *call) request(q *http.Request) *gate.Denial {
	query, err := url.ParseQuery(c.r.URL.RawQuery)
	if err != nil { // the library leaves out what is wrong with it
		return &gate.Denial{Reason: gate.TranscodeMalformed, Detail: "The query cannot be read.", Err: err}
	}
	if c.protocol == gate.HTTP && c.method != nil && len(query) > 0 {
		if key, again := c.method.Again(c.r.Method, c.r.URL.Path, query); again {
			return &gate.Denial{Reason: gate.TranscodeMalformed, Fields: []gate.FieldError{{In: "query", Name: key, Detail: "says again what the request says already"}}}
		}
	}
	if c.method.IsStreamingClient() && c.protocol.Framed() {
		c.ex.SetStream(q, &uplink{c, q.Body})
		return nil
	}
	var buf bytes.Buffer
	buf.Grow(int(min(max(c.r.ContentLength, 0), c.h.MaxMessage)) + bytes.MinRead + envelope)
	_, err = buf.ReadFrom(io.LimitReader(q.Body, c.h.MaxMessage+envelope+1))
	_ = q.Body.Close() // gives the library's buffers back; the client's body stays open
	switch {
	case err != nil:
		return c.unreadable(err)
	case c.said.status != 0:
		return c.said.denial(c.r)
	case int64(buf.Len()) > c.h.MaxMessage+envelope:
		return tooLarge()
	}
	data := buf.Bytes()
	if len(data) == 0 && !c.protocol.Framed() {
		data = make([]byte, envelope) // no body is a message without members
	}
	q.Body = c.source.ReadCloser
	c.ex.SetBody(q, data)
	return nil
}

func tooLarge() *gate.Denial { return &gate.Denial{Reason: gate.TranscodeTooLarge} }

// unreadable says why the request cannot be read: because of a stage before, of
// the connection, or of what it is.
func (c *call) unreadable(err error) *gate.Denial {
	var denial *gate.Denial
	switch {
	case errors.As(err, &denial):
		return denial
	case c.source.err != nil:
		return &gate.Denial{Reason: gate.TranscodeBodyUnreadable, Err: c.source.err}
	case connect.CodeOf(err) == connect.CodeResourceExhausted:
		return tooLarge()
	}
	return &gate.Denial{Reason: gate.TranscodeMalformed, Err: err}
}

// source is the client's body as the library reads it. Others may be inside
// the library while the client is waited for.
type source struct {
	call *call
	io.ReadCloser
	err error // why there is no more of it, unless that is its end
}

func (s *source) Read(p []byte) (int, error) {
	asking := s.call.asking
	s.call.asking = false
	s.call.mu.Unlock()
	defer func() {
		s.call.mu.Lock()
		s.call.asking = asking
	}()
	n, err := s.ReadCloser.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// Close does nothing: the server closes what it opened.
func (*source) Close() error { return nil }

// uplink is a stream of the client's as the proxy reads it. Where the library
// finds fault with a message, the stream breaks off: an end would tell the
// service that this was all.
type uplink struct {
	call *call
	from io.ReadCloser
}

func (u *uplink) Read(p []byte) (int, error) {
	c := u.call
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0, http.ErrBodyReadAfterClose
	}
	c.asking = true
	n, err := u.from.Read(p)
	c.asking = false
	var denial *gate.Denial
	switch {
	case c.closed:
		return 0, http.ErrBodyReadAfterClose
	case c.said.status != 0:
		denial = c.said.denial(c.r)
	case err != nil && !errors.Is(err, io.EOF):
		denial = c.unreadable(err)
	case n > 0:
		return n, nil // the library says after each empty message that it was the last
	default:
		return n, err
	}
	c.refuse(denial)
	return 0, gate.Deny(denial)
}

// Close leaves the library's reader alone, which may be waiting for the client.
func (*uplink) Close() error { return nil }

// said is what the library wrote about a request, in the client's protocol.
type said struct {
	header http.Header
	status int
	body   []byte
}

func (s *said) add(p []byte) {
	const enough = 4 << 10 // for an error message
	s.body = append(s.body, p[:min(len(p), max(enough-len(s.body), 0))]...)
}

// text is the library's own words.
func (s *said) text() string {
	if m := s.header.Get("Grpc-Message"); m != "" {
		if plain, err := url.PathUnescape(m); err == nil {
			return plain
		}
	}
	body := s.body
	if len(body) > envelope && body[0] < ' ' {
		body = body[envelope:]
	}
	var doc struct {
		Message string
		Error   struct{ Message string }
	}
	if json.Unmarshal(body, &doc) == nil {
		return doc.Message + doc.Error.Message
	}
	return strings.TrimSpace(string(body))
}

var (
	badParameter     = regexp.MustCompile(`^invalid parameter "([^"]{1,128})"(?: value for type "?(\w+))?`)
	unknownParameter = regexp.MustCompile(`in field path "([^"]{1,128})"`)
)

// denial says in our words what the library said. Its own quote the request.
func (s *said) denial(r *http.Request) *gate.Denial {
	switch s.status {
	case http.StatusMethodNotAllowed:
		return &gate.Denial{Reason: gate.TranscodeUnknownMethod, Header: http.Header{"Allow": s.header["Allow"]}}
	case http.StatusUnsupportedMediaType:
		return &gate.Denial{Reason: gate.TranscodeContentType, Err: errors.New(s.text())}
	case http.StatusHTTPVersionNotSupported:
		return &gate.Denial{Reason: gate.TranscodeHTTPVersion}
	}
	d := &gate.Denial{Reason: gate.TranscodeMalformed}
	text := s.text()
	bad, unknown := badParameter.FindStringSubmatch(text), unknownParameter.FindStringSubmatch(text)
	switch {
	case strings.HasPrefix(text, isSaid):
		d.Detail = text
	case bad != nil && bad[2] != "":
		d.Fields = []gate.FieldError{{In: place(r, bad[1]), Name: bad[1], Detail: "is not of type " + bad[2]}}
	case bad != nil:
		d.Fields = []gate.FieldError{{In: place(r, bad[1]), Name: bad[1], Detail: "is not a value it may have"}}
	case unknown != nil:
		d.Fields = []gate.FieldError{{In: "query", Name: unknown[1], Detail: "is no parameter of the method"}}
	case strings.HasPrefix(text, "request should have no body"):
		d.Detail = "The method takes no request body here."
	case strings.HasPrefix(text, "max buffer size"), strings.HasPrefix(text, "content length"), text == errInflated.Error():
		return tooLarge()
	default:
		d.Err = fmt.Errorf("translating the request: %s", text)
	}
	return d
}

// place is where a parameter came from. A query may write the names of fields
// in either of two ways.
func place(r *http.Request, name string) string {
	same := func(a string) string { return strings.ToLower(strings.ReplaceAll(a, "_", "")) }
	for key := range r.URL.Query() {
		if same(key) == same(name) {
			return "query"
		}
	}
	return "path"
}
