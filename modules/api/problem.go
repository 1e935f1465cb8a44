package api

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// problem is a Denial as the client sees it (RFC 9457).
type problem struct {
	Type     string            `json:"type"`
	Title    string            `json:"title"`
	Status   int               `json:"status"`
	Detail   string            `json:"detail,omitempty"`
	Instance string            `json:"instance"`
	Reason   string            `json:"reason"`
	Errors   []gate.FieldError `json:"errors,omitempty"`
}

// render answers a request with its denial.
func (h *Handler) render(w http.ResponseWriter, r *http.Request, ex *gate.Exchange, status int, d *gate.Denial) {
	setHeaders(w, d, []string{ex.ID})
	if isGRPC(r.Header) {
		renderGRPC(w, status, d)
		return
	}
	p := problem{
		Type:     h.ProblemType + d.Reason.String(),
		Title:    d.Reason.Title(),
		Status:   status,
		Detail:   d.Detail,
		Instance: "urn:request:" + ex.ID,
		Reason:   d.Reason.String(),
		Errors:   d.Fields,
	}
	body, err := json.Marshal(p)
	if err != nil { // strings and numbers cannot fail; an empty body is still an answer
		body = nil
	}
	header := w.Header()
	header["Content-Type"] = []string{"application/problem+json"}
	header["Content-Length"] = []string{strconv.Itoa(len(body))}
	header["Cache-Control"] = []string{"no-store"}
	header["X-Content-Type-Options"] = []string{"nosniff"}
	w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // a client that went away is no error of ours
	}
}

// setHeaders takes out what a handler had prepared for a body that will not
// come, and puts in what the denial asks for.
func setHeaders(w http.ResponseWriter, d *gate.Denial, ids []string) {
	header := w.Header()
	for _, name := range []string{"Content-Length", "Content-Encoding", "Content-Range", "Etag", "Last-Modified", "Accept-Ranges", "Trailer", "Location", "Set-Cookie"} {
		delete(header, name)
	}
	maskHeader(header)
	header[gate.RequestIDHeader] = ids
	maps.Copy(header, d.Header)
}

func isGRPC(h http.Header) bool {
	ct := h.Get("Content-Type")
	return strings.HasPrefix(ct, "application/grpc") && !strings.HasPrefix(ct, "application/grpc-web")
}

// renderGRPC answers in the way gRPC clients read: a 200 whose header block
// says what happened ("Trailers-Only").
func renderGRPC(w http.ResponseWriter, status int, d *gate.Denial) {
	header := w.Header()
	header["Content-Type"] = []string{"application/grpc"}
	header["Grpc-Status"] = []string{strconv.Itoa(grpcStatus(status))}
	header["Grpc-Message"] = []string{strings.ReplaceAll(url.QueryEscape(d.Sentence()), "+", " ")}
	w.WriteHeader(http.StatusOK)
}

// grpcStatus is the code a gRPC client should see for an HTTP status.
func grpcStatus(status int) int {
	switch status {
	case http.StatusBadRequest, http.StatusUnsupportedMediaType, http.StatusRequestEntityTooLarge:
		return 3 // INVALID_ARGUMENT
	case http.StatusUnauthorized:
		return 16 // UNAUTHENTICATED
	case http.StatusForbidden:
		return 7 // PERMISSION_DENIED
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return 12 // UNIMPLEMENTED
	case http.StatusTooManyRequests:
		return 8 // RESOURCE_EXHAUSTED
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return 14 // UNAVAILABLE
	case http.StatusGatewayTimeout:
		return 4 // DEADLINE_EXCEEDED
	}
	return 13 // INTERNAL
}
