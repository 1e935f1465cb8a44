package api

import (
	"maps"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// render answers the request with its denial, in the protocol of its client.
func (w *response) render(status int, d *gate.Denial) {
	w.setHeaders(d)
	out, r := w.ResponseWriter, w.r
	switch gate.ProtocolOf(r) {
	case gate.GRPC:
		renderGRPC(out, r, status, d)
	case gate.GRPCWeb:
		renderGRPCWeb(out, r, status, d)
	case gate.Connect:
		renderConnect(out, status, d)
	case gate.ConnectStream:
		renderConnectStream(out, r, status, d)
	default:
		w.ex.Problem(status, d).Write(out, r)
	}
}

// ofBody are fields that say something of a body that will not come, or of where
// another one is.
var ofBody = [...]string{
	"Content-Length", "Content-Encoding", "Content-Range", "Etag", "Last-Modified", "Accept-Ranges", "Trailer", "Location", "Set-Cookie",
	"Content-Disposition", "Content-Language", "Content-Location", "Content-Digest", "Repr-Digest", "Digest", "Content-Md5", "Link", "Refresh",
}

// setHeaders takes out what a handler had prepared for its own answer, and puts
// in what the denial asks for.
func (w *response) setHeaders(d *gate.Denial) {
	header := w.Header()
	for _, name := range ofBody {
		delete(header, name)
	}
	maskHeader(header, nil)
	header[gate.RequestIDHeader] = w.ids
	maps.Copy(header, d.Header)
}
