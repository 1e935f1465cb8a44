package api

import (
	"maps"
	"net/http"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// render answers a request with its denial, in the protocol of its client.
func (h *Handler) render(w http.ResponseWriter, r *http.Request, ex *gate.Exchange, status int, d *gate.Denial) {
	setHeaders(w, d, []string{ex.ID})
	switch gate.ProtocolOf(r) {
	case gate.GRPC:
		renderGRPC(w, r, status, d)
	case gate.GRPCWeb:
		renderGRPCWeb(w, r, status, d)
	case gate.Connect:
		renderConnect(w, status, d)
	case gate.ConnectStream:
		renderConnectStream(w, r, status, d)
	default:
		ex.Problem(status, d).Write(w, r)
	}
}

// setHeaders takes out what a handler had prepared for a body that will not
// come, and puts in what the denial asks for.
func setHeaders(w http.ResponseWriter, d *gate.Denial, ids []string) {
	header := w.Header()
	for _, name := range []string{"Content-Length", "Content-Encoding", "Content-Range", "Etag", "Last-Modified", "Accept-Ranges", "Trailer", "Location", "Set-Cookie"} {
		delete(header, name)
	}
	maskHeader(header, nil)
	header[gate.RequestIDHeader] = ids
	maps.Copy(header, d.Header)
}
