package api

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// response stands between the chain and the client. It takes out what shows
// how the backend is built, and holds back 5xx answers, so that a problem can
// take their place. All else passes untouched: streams, upgrades, trailers of
// gRPC.
type response struct {
	http.ResponseWriter
	r     *http.Request
	ex    *gate.Exchange
	drain *Drain
	ids   []string
	mask  bool // hold 5xx back

	status    int   // as the chain said; 0 while it has not
	held      int   // the 5xx that was held back, or 0
	why       error // it was, where it is no plain 5xx
	hints     int   // interim answers that were passed on
	swallowed int   // bytes of a body that nobody gets
	wrote     bool  // the header is on its way to the client, or the connection is not ours
	mute      bool  // the body is not for the client
	grpc      bool
}

// maxHints bounds the interim answers of one request: an upstream may send them
// for ever, and each is flushed.
const maxHints = 8

// Unwrap lets http.ResponseController hijack and set deadlines.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Hijack is for what takes the connection over without a word.
func (w *response) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, buf, err := http.NewResponseController(w.ResponseWriter).Hijack()
	w.wrote = w.wrote || err == nil
	return conn, buf, err
}

func (w *response) WriteHeader(status int) {
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		w.hint(status)
		return
	}
	if w.wrote || w.held != 0 {
		return
	}
	header := w.Header()
	size := maskHeader(header, w.ex.Given)
	w.status, w.grpc = status, isGRPC(header) && gate.ProtocolOf(w.r) == gate.GRPC
	switch {
	case status < 100 || status > 599:
		w.held, w.why = http.StatusBadGateway, errStatus
	case size > maxHeader:
		clear(header) // it is not for those who ask, whoever answers now
		w.held, w.why = http.StatusBadGateway, errLargeHeader
	case status >= 500 && w.mask && !w.grpc:
		w.held = status
	}
	if w.held != 0 {
		return
	}
	w.wrote = true
	header[gate.RequestIDHeader] = w.ids
	if w.maskAddress(header) { // the body usually repeats the address
		w.mute = true
		header["Content-Length"] = []string{"0"}
		delete(header, "Content-Type")
		delete(header, "Content-Encoding")
	}
	if trailer := header["Trailer"]; trailer != nil {
		w.maskTrailer(header, trailer)
	}
	if status != http.StatusSwitchingProtocols {
		w.drain.ask(w.r, header)
	}
	w.ResponseWriter.WriteHeader(status)
}

// hint passes an interim answer on. It runs while the proxy still waits for the
// upstream. Clients of HTTP/1.0 know of none (RFC 9110, section 15.2).
func (w *response) hint(status int) {
	header := w.Header()
	if size := maskHeader(header, w.ex.Given); w.hints >= maxHints || size > maxHeader || !w.r.ProtoAtLeast(1, 1) {
		return
	}
	w.hints++
	w.maskAddress(header)
	header[gate.RequestIDHeader] = w.ids
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.held != 0 || w.mute {
		return w.swallow(len(b))
	}
	return w.ResponseWriter.Write(b)
}

// maxSwallowed bounds what is read of a body that nobody gets. To its end, as a
// rule, so that the connection to the upstream can be used again.
const maxSwallowed = 256 << 10

var errSwallowed = errors.New("the answer is not for the client, and longer than 256 KiB")

// swallow ends a body without end, behind which the client would wait for ever.
func (w *response) swallow(n int) (int, error) {
	if w.swallowed += n; w.swallowed > maxSwallowed {
		return 0, errSwallowed
	}
	return n, nil
}

// ReadFrom keeps the server's fast path for files.
func (w *response) ReadFrom(src io.Reader) (int64, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.held != 0 || w.mute {
		return io.Copy(struct{ io.Writer }{w}, src)
	}
	if rf, ok := w.ResponseWriter.(io.ReaderFrom); ok {
		return rf.ReadFrom(src)
	}
	return io.Copy(struct{ io.Writer }{w.ResponseWriter}, src)
}

// FlushError is what http.ResponseController looks for. A held answer must not
// be flushed: that would send a 200 in its place.
func (w *response) FlushError() error {
	if w.held != 0 {
		return nil
	}
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(w.ResponseWriter).Flush()
}

// dropTrailers takes out the trailers that were not announced, which travel in
// the header map under a prefix. gRPC's carry the outcome of the call.
func (w *response) dropTrailers() {
	header := w.Header()
	if _, sized := header["Content-Length"]; sized && w.r.ProtoMajor == 1 {
		return // trailers need a chunked body
	}
	for name := range header {
		if rest, ok := strings.CutPrefix(name, http.TrailerPrefix); ok && (!w.grpc && !strings.HasPrefix(rest, "Grpc-") || !mayTrail(rest)) {
			delete(header, name)
		}
	}
}

// maskTrailer keeps those announced trailers that a client of gRPC may see. What
// is not announced when the header goes out is not sent at the end.
func (w *response) maskTrailer(header http.Header, lines []string) {
	delete(header, "Trailer")
	if !w.grpc {
		return
	}
	var kept []string
	for _, line := range lines {
		for name := range strings.SplitSeq(line, ",") {
			if name = http.CanonicalHeaderKey(strings.Trim(name, " \t")); name != "" && mayTrail(name) {
				kept = append(kept, name)
			}
		}
	}
	if len(kept) > 0 {
		header["Trailer"] = []string{strings.Join(kept, ", ")}
	}
}
