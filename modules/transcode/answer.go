package transcode

import (
	"encoding/base64"
	"errors"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// down is where the proxy writes the answer of the service: into the library.
type down struct {
	call *call
	rw   http.ResponseWriter
	said bool // WriteHeader was called
}

// Header is the client's, as it is the library's.
func (d *down) Header() http.Header { return d.call.w.Header() }

// Unwrap lets http.ResponseController set deadlines.
func (d *down) Unwrap() http.ResponseWriter { return d.call.w }

func (d *down) WriteHeader(code int) {
	d.call.mu.Lock()
	defer d.call.mu.Unlock()
	d.writeHeader(code)
}

func (d *down) writeHeader(code int) {
	if code < 200 || d.said { // early hints are not for other protocols
		return
	}
	const canceled = 499 // what Caddy's proxy says when the call was cancelled
	if code == canceled && d.call.late() {
		d.call.refuse(&gate.Denial{Reason: gate.TranscodeTimeout})
		d.said, d.call.closed = true, true
		return
	}
	d.said, d.call.answered = true, true
	d.call.listen(code)
	d.rw.WriteHeader(code)
}

func (d *down) Write(p []byte) (int, error) {
	d.call.mu.Lock()
	defer d.call.mu.Unlock()
	d.writeHeader(http.StatusOK)
	n, err := d.rw.Write(p)
	if err != nil && d.call.lost == nil {
		d.call.over = true
	}
	return n, err
}

// FlushError sends a header that is there. Messages are sent as they are whole.
func (d *down) FlushError() error {
	d.call.mu.Lock()
	defer d.call.mu.Unlock()
	client{d.call}.Flush()
	return d.call.lost
}

// finish takes the end of the call from the trailers.
func (d *down) finish() {
	d.call.mu.Lock()
	defer d.call.mu.Unlock()
	d.call.answered = true
	d.call.listen(http.StatusOK)
}

// client is where the library writes what is for the client. Of what it says
// about the request we make a denial; a REST answer that is an error becomes a
// problem document.
type client struct{ *call }

// quiet reports whether what the library writes is not for the client.
func (c client) quiet() bool { return c.asking || c.closed }

// Header is not the client's while the library is quiet: the proxy may be
// writing to that.
func (c client) Header() http.Header {
	if !c.quiet() {
		return c.w.Header()
	}
	if c.said.header == nil {
		c.said.header = http.Header{}
	}
	return c.said.header
}

func (c client) WriteHeader(code int) {
	switch {
	case c.asking && c.said.status == 0:
		c.said.status = code
	case c.quiet() || c.wrote || c.held != 0:
	case code >= 400 && (c.protocol == gate.HTTP || c.protocol == gate.Connect && c.fault()):
		c.held = code
	default:
		c.wrote = true
		h := c.w.Header()
		if c.protocol == gate.GRPC && h["Grpc-Status-Details-Bin"] != nil { // to where the library sends the status
			h.Add("Trailer", "Grpc-Status-Details-Bin")
		}
		if c.text {
			h.Set("Content-Type", strings.Replace(h.Get("Content-Type"), "grpc-web", "grpc-web-text", 1))
		}
		c.w.WriteHeader(code)
	}
}

func (c client) Write(p []byte) (int, error) {
	switch {
	case c.asking:
		if c.said.status == 0 {
			c.said.status = http.StatusOK
		}
		c.said.add(p)
		return len(p), nil
	case c.quiet():
		return len(p), nil
	case c.held != 0:
		c.said.add(p)
		return len(p), nil
	}
	if !c.wrote {
		c.WriteHeader(http.StatusOK)
	}
	n := len(p)
	if c.text {
		p = base64.StdEncoding.AppendEncode(nil, p)
	}
	if err := c.outside(func() error { _, err := c.w.Write(p); return err }); err != nil {
		return 0, err
	}
	return n, nil
}

// Flush sends what was written.
func (c client) Flush() {
	if !c.quiet() && c.wrote {
		_ = c.outside(http.NewResponseController(c.w).Flush) // remembered
	}
}

// outside lets others into the library while the client takes what it gets.
func (c client) outside(write func() error) error {
	c.mu.Unlock()
	defer c.mu.Lock()
	err := write()
	if err != nil && !errors.Is(err, http.ErrNotSupported) {
		c.lost = err
	}
	return err
}

// outcome is how the service says that a call ended.
type outcome struct {
	code    gate.Code
	message string
	fields  []gate.FieldError
	retry   time.Duration
}

// listen reads the outcome, from header or trailers, and takes out of it what
// the library fails on: codes and details that do not exist.
func (c *call) listen(httpStatus int) {
	h := c.w.Header()
	for _, prefix := range []string{"", http.TrailerPrefix} {
		v := h[prefix+"Grpc-Status"]
		if len(v) == 0 {
			continue
		}
		o := &outcome{code: gate.ParseCode(v[0])}
		h[prefix+"Grpc-Status"] = []string{strconv.Itoa(int(o.code))}
		if m := h[prefix+"Grpc-Message"]; len(m) > 0 {
			var err error
			if o.message, err = url.PathUnescape(m[0]); err != nil {
				delete(h, prefix+"Grpc-Message")
			}
		}
		if b := h[prefix+"Grpc-Status-Details-Bin"]; len(b) > 0 && (!o.details(b[0]) || c.protocol == gate.HTTP) {
			delete(h, prefix+"Grpc-Status-Details-Bin")
		}
		c.outcome = o
		return
	}
	if httpStatus != http.StatusOK {
		c.outcome = &outcome{code: codeOf(httpStatus)}
	}
}

// codeOf is what an answer without a status of gRPC means (gRPC's
// http-grpc-status-mapping).
func codeOf(httpStatus int) gate.Code {
	switch httpStatus {
	case http.StatusBadRequest:
		return 13
	case http.StatusUnauthorized:
		return 16
	case http.StatusForbidden:
		return 7
	case http.StatusNotFound:
		return 12
	case http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return 14
	}
	return 2
}

// maxFields bounds what a client is told at once.
const maxFields = 32

// details reads the details of an error that have a place in a problem. It
// reports whether they go with the code.
func (o *outcome) details(encoded string) bool {
	data, err := connect.DecodeBinaryHeader(encoded)
	var s status.Status
	if err != nil || proto.Unmarshal(data, &s) != nil || s.GetCode() != int32(o.code) {
		return false
	}
	for _, a := range s.GetDetails() {
		var bad errdetails.BadRequest
		var retry errdetails.RetryInfo
		switch {
		case a.MessageIs(&bad) && a.UnmarshalTo(&bad) == nil:
			for _, v := range bad.GetFieldViolations() {
				if len(o.fields) < maxFields {
					o.fields = append(o.fields, gate.FieldError{Name: v.GetField(), Detail: v.GetDescription()})
				}
			}
		case a.MessageIs(&retry) && a.UnmarshalTo(&retry) == nil:
			o.retry = retry.GetRetryDelay().AsDuration()
		}
	}
	return true
}

// problem answers a REST client whose call did not succeed.
func (o *outcome) problem(c *call) {
	p := c.ex.Problem(o.code.Status(), &gate.Denial{Reason: gate.TranscodeUpstream, Detail: o.message, Fields: o.fields})
	p.Code = o.code.String()
	for i, e := range p.Errors {
		field, inBody := strings.CutPrefix(e.Name, c.method.Body+".")
		if c.method.Body == "*" {
			field, inBody = e.Name, true
		}
		if inBody {
			p.Errors[i].Pointer, p.Errors[i].Name = pointer(field), ""
		}
	}
	header := c.w.Header()
	maps.DeleteFunc(header, func(name string, _ []string) bool {
		return strings.HasPrefix(name, http.TrailerPrefix) || name == "Content-Encoding" || name == "Accept-Encoding"
	})
	if o.retry > 0 {
		header["Retry-After"] = []string{strconv.FormatInt(int64((o.retry+time.Second-1)/time.Second), 10)}
	}
	p.Write(c.w, c.r)
}

// pointer writes the path of a field, such as order.parts[0].unit_count, as a
// pointer into the JSON that the client sent.
func pointer(field string) string {
	p := []byte("#/")
	for i := 0; i < len(field); i++ {
		switch c := field[i]; {
		case c == '.' || c == '[':
			p = append(p, '/')
		case c == ']':
		case c == '_' && i+1 < len(field) && field[i+1] >= 'a' && field[i+1] <= 'z':
			i++
			p = append(p, field[i]-'a'+'A')
		default:
			p = append(p, c)
		}
	}
	return string(p)
}
