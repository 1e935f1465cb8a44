package api

import (
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

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

	status int  // as the chain said; 0 while it has not
	held   int  // the 5xx that was held back, or 0
	wrote  bool // the header is on its way to the client
	mute   bool // the body is not for the client
	grpc   bool
}

// Unwrap lets http.ResponseController hijack and set deadlines.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }

func (w *response) WriteHeader(status int) {
	if status >= 100 && status < 200 && status != http.StatusSwitchingProtocols {
		header := w.Header()
		maskHeader(header, w.ex.Given)
		header[gate.RequestIDHeader] = w.ids
		w.ResponseWriter.WriteHeader(status)
		return
	}
	if w.wrote || w.held != 0 {
		return
	}
	header := w.Header()
	w.status, w.grpc = status, strings.HasPrefix(header.Get("Content-Type"), "application/grpc")
	if status >= 500 && w.mask && !w.grpc {
		w.held = status
		return
	}
	w.wrote = true
	maskHeader(header, w.ex.Given)
	header[gate.RequestIDHeader] = w.ids
	if _, ok := header["Location"]; ok {
		w.maskLocation(header)
	}
	if !w.grpc {
		delete(header, "Trailer")
	}
	if status != http.StatusSwitchingProtocols {
		w.drain.ask(w.r, header)
	}
	w.ResponseWriter.WriteHeader(status)
}

func (w *response) Write(b []byte) (int, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.held != 0 || w.mute {
		return len(b), nil
	}
	return w.ResponseWriter.Write(b)
}

// ReadFrom keeps the server's fast path for files.
func (w *response) ReadFrom(src io.Reader) (int64, error) {
	if w.status == 0 {
		w.WriteHeader(http.StatusOK)
	}
	if w.held != 0 || w.mute {
		return io.Copy(io.Discard, src)
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
		if rest, ok := strings.CutPrefix(name, http.TrailerPrefix); ok && (!w.grpc && !strings.HasPrefix(rest, "Grpc-") || telltale(rest)) {
			delete(header, name)
		}
	}
}

// telltales are header fields that only say what the backend is made of.
var telltales = [...]string{
	"Server", "Via", "X-Powered-By", "X-Aspnet-Version", "X-Aspnetmvc-Version",
	"X-Backend-Server", "X-Generator", "X-Runtime", "X-Served-By", "X-Upstream",
}

// maskHeader also takes out what is the gateway's alone to say: an upstream has
// no word in who the caller is, nor in the sessions of any API of the host,
// whose cookies are none but those given.
func maskHeader(h http.Header, given []string) {
	for _, name := range telltales {
		delete(h, name)
	}
	for name := range h {
		if strings.HasPrefix(name, gate.Asserted) {
			delete(h, name)
		}
	}
	if foreign := func(line string) bool { return gate.OfSession(line) && !slices.Contains(given, line) }; slices.ContainsFunc(h["Set-Cookie"], foreign) {
		if kept := slices.DeleteFunc(slices.Clone(h["Set-Cookie"]), foreign); len(kept) > 0 {
			h["Set-Cookie"] = kept
		} else {
			delete(h, "Set-Cookie")
		}
	}
}

func telltale(name string) bool {
	for _, t := range telltales {
		if t == name {
			return true
		}
	}
	return false
}

// maskLocation makes a redirect to the upstream's own address relative. The
// body goes with it, since it usually repeats the address.
func (w *response) maskLocation(header http.Header) {
	repl, ok := w.r.Context().Value(caddy.ReplacerCtxKey).(*caddy.Replacer)
	if !ok {
		return
	}
	upstream, _ := repl.GetString("http.reverse_proxy.upstream.hostport")
	target, err := url.Parse(header.Get("Location"))
	if err != nil || upstream == "" || target.Host == "" || !strings.EqualFold(target.Host, upstream) {
		return
	}
	target.Scheme, target.Host, target.User = "", "", nil
	if !strings.HasPrefix(target.Path, "/") || strings.HasPrefix(target.Path, "//") {
		target.Path = "/" + strings.TrimLeft(target.Path, "/") // never another authority
	}
	header.Set("Location", target.String())
	w.mute = true
	header.Set("Content-Length", "0")
	for _, name := range []string{"Content-Type", "Content-Encoding"} {
		delete(header, name)
	}
}
