package guard

import (
	"compress/gzip"
	"compress/zlib"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/klauspost/compress/zstd"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// contentEncoding takes the encoding of the body off, so that what is checked
// is what is meant, and what the backend gets is what was checked. Nothing is
// read yet: the body is decoded as it is read, and bounded there.
func (h *Handler) contentEncoding(_ *gate.Exchange, r *http.Request, enforce bool) *gate.Denial {
	encoding := strings.ToLower(strings.TrimSpace(r.Header.Get("Content-Encoding")))
	if encoding == "" || encoding == "identity" || !hasBody(r) {
		return nil
	}
	open := decoders[encoding]
	if open == nil {
		return &gate.Denial{
			Reason: gate.GuardContentEncoding,
			Header: http.Header{"Accept-Encoding": {"gzip, deflate, zstd"}}, // RFC 9110, section 15.5.16
		}
	}
	limit := h.limit(r)
	if r.ContentLength > limit {
		return &gate.Denial{Reason: gate.GuardBodyTooLarge}
	}
	if !enforce {
		return nil
	}
	// Bounded on both sides: much can come out of little, and nothing out of much.
	sent := &bounded{ReadCloser: r.Body, left: limit}
	r.Body = &bounded{ReadCloser: &decoded{sent: sent, open: open}, left: limit}
	r.ContentLength = -1
	for _, name := range [...]string{"Content-Encoding", "Content-Length", "Content-Digest", "Repr-Digest", "Digest", "Content-Md5"} {
		delete(r.Header, name) // digests are of what was sent (RFC 9530, section 2), and were right
	}
	return nil
}

var decoders = map[string]func(io.Reader) (io.ReadCloser, error){
	"gzip":    func(src io.Reader) (io.ReadCloser, error) { return gzip.NewReader(src) },
	"x-gzip":  func(src io.Reader) (io.ReadCloser, error) { return gzip.NewReader(src) },
	"deflate": zlib.NewReader,
	"zstd": func(src io.Reader) (io.ReadCloser, error) {
		z, err := zstd.NewReader(src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(8<<20), zstd.WithDecoderMaxWindow(8<<20))
		if err != nil {
			return nil, err
		}
		return z.IOReadCloser(), nil
	},
}

// decoded opens its decoder at the first read, in the goroutine that reads.
type decoded struct {
	sent io.ReadCloser
	open func(io.Reader) (io.ReadCloser, error)
	from io.ReadCloser
	err  error
}

func (d *decoded) Read(p []byte) (int, error) {
	if d.from == nil && d.err == nil {
		d.from, d.err = d.open(d.sent)
	}
	if d.err != nil {
		return 0, unreadable(d.err)
	}
	n, err := d.from.Read(p)
	return n, unreadable(err)
}

// unreadable leaves alone what is no fault, and a denial from below.
func unreadable(err error) error {
	var denial *gate.Denial
	if err == nil || errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) || errors.As(err, &denial) {
		return err
	}
	return gate.Deny(&gate.Denial{Reason: gate.GuardBodyUnreadable, Err: err})
}

func (d *decoded) Close() error {
	if d.from != nil {
		return errors.Join(d.from.Close(), d.sent.Close())
	}
	return d.sent.Close()
}

// bounded ends a body of unknown length at its limit. Its error reaches the
// client as the denial that it is, through the proxy that reads.
type bounded struct {
	io.ReadCloser
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left < 0 {
		return 0, tooLarge()
	}
	if int64(len(p)) > b.left+1 {
		p = p[:b.left+1] // one more tells a body that just fits from one that does not
	}
	n, err := b.ReadCloser.Read(p)
	if b.left -= int64(n); b.left < 0 {
		return 0, tooLarge()
	}
	return n, err
}

func tooLarge() error { return gate.Deny(&gate.Denial{Reason: gate.GuardBodyTooLarge}) }
