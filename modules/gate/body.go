package gate

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
)

// What Body may return beside the error of a broken connection.
var (
	// ErrBodyTooLarge means the body is longer than the stage wanted to read.
	ErrBodyTooLarge = errors.New("request body is larger than the limit")
	// ErrBodyEncoded means a Content-Encoding hides what the body says.
	ErrBodyEncoded = errors.New("request body has a content encoding")
)

// body is the request body as far as the stages have read it.
type body struct {
	data  []byte
	whole bool  // data is all there is
	err   error // reading failed for good
}

// Body returns the whole request body if it is at most limit bytes long. The
// first stage that asks reads it; the others and the upstream get the same
// bytes again. After any error but a broken connection, the upstream can still
// read the body from its start.
func (ex *Exchange) Body(r *http.Request, limit int64) ([]byte, error) {
	b := &ex.body
	if b.err != nil {
		return nil, b.err
	}
	if enc := strings.Join(r.Header["Content-Encoding"], ","); enc != "" && !strings.EqualFold(enc, "identity") {
		return nil, ErrBodyEncoded
	}
	if r.Body == nil || r.Body == http.NoBody {
		b.whole = true
	}
	if !b.whole {
		if r.ContentLength > limit {
			return nil, ErrBodyTooLarge
		}
		ex.read(r, limit)
		if b.err != nil {
			return nil, b.err
		}
	}
	if !b.whole || int64(len(b.data)) > limit {
		return nil, ErrBodyTooLarge
	}
	return b.data, nil
}

// Hold returns the whole body for one who has to send it again, whatever it
// is encoded as. A body that is longer than limit, or of unknown length and
// not read yet, is not held and stays as it is.
func (ex *Exchange) Hold(r *http.Request, limit int64) ([]byte, bool) {
	b := &ex.body
	switch {
	case r.Body == nil || r.Body == http.NoBody || b.whole:
		return b.data, true
	case b.err != nil || len(b.data) > 0 || r.ContentLength <= 0 || r.ContentLength > limit:
		return nil, false
	}
	ex.read(r, limit)
	return b.data, b.err == nil && b.whole
}

// SetBody gives the request another body, known as a whole, which is what later
// stages and the upstream get, and get again.
func (ex *Exchange) SetBody(r *http.Request, data []byte) {
	var closer io.Closer = http.NoBody
	if r.Body != nil {
		closer = r.Body
	}
	ex.body = body{data: data, whole: true}
	r.Body = &replay{Reader: bytes.NewReader(data), Closer: closer, rest: http.NoBody}
	r.ContentLength = int64(len(data))
}

// SetStream gives the request another body of which nothing is known yet.
func (ex *Exchange) SetStream(r *http.Request, stream io.ReadCloser) {
	ex.body = body{}
	r.Body, r.ContentLength = stream, -1
}

// read fetches up to one byte more than limit, which tells a body that just
// fits from one that does not, and puts everything back for the next reader.
func (ex *Exchange) read(r *http.Request, limit int64) {
	b := &ex.body
	var rest io.Reader = r.Body
	if p, ok := r.Body.(*replay); ok {
		rest = p.rest // an earlier stage read data and put it back
	} else {
		b.data = nil // and somebody put a reader around it, which begins with data
	}
	if room := limit + 1 - int64(len(b.data)); room > 0 {
		more, err := readAtMost(rest, room, r.ContentLength, b.data)
		b.data = more
		switch {
		case err != nil:
			b.err = err
		case int64(len(more)) <= limit:
			b.whole = true
		}
	}
	closer := io.Closer(r.Body)
	if p, ok := r.Body.(*replay); ok {
		closer = p.Closer
	}
	p := &replay{rest: rest, Closer: closer}
	if b.whole {
		p.Reader = bytes.NewReader(b.data)
		r.ContentLength = int64(len(b.data)) // now known, also for a chunked body
	} else {
		p.Reader = io.MultiReader(bytes.NewReader(b.data), rest)
	}
	r.Body = p
}

// readAtMost appends up to n bytes of src to buf; hint is the expected length
// or negative.
func readAtMost(src io.Reader, n, hint int64, buf []byte) ([]byte, error) {
	if hint < 0 || hint > n {
		hint = min(n, 4096)
	}
	if buf == nil {
		buf = make([]byte, 0, hint+1) // one more, so that EOF needs no growth
	}
	for end := len(buf) + int(n); len(buf) < end; {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		m, err := src.Read(buf[len(buf):min(cap(buf), end)])
		buf = buf[:len(buf)+m]
		if errors.Is(err, io.EOF) {
			return buf, nil
		}
		if err != nil {
			return buf, err
		}
	}
	return buf, nil
}

// replay gives the upstream what the stages have read, then the rest.
type replay struct {
	io.Reader
	io.Closer
	rest io.Reader
}
