package api

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// renderGRPC answers in the way gRPC clients read: a 200 whose header block
// says what happened ("Trailers-Only").
func renderGRPC(w http.ResponseWriter, r *http.Request, status int, d *gate.Denial) {
	header := w.Header()
	header["Content-Type"] = []string{contentType(r)}
	header["Grpc-Status"] = []string{strconv.Itoa(int(rpcCode(status)))}
	header["Grpc-Message"] = []string{grpcMessage(d)}
	w.WriteHeader(http.StatusOK)
}

// contentType is the client's own, by which it reads the answer.
func contentType(r *http.Request) string {
	ct, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	return ct
}

// grpcMessage is the sentence as gRPC's header fields carry it.
func grpcMessage(d *gate.Denial) string {
	return strings.ReplaceAll(url.QueryEscape(d.Sentence()), "+", " ")
}

// renderGRPCWeb puts the outcome at the end of an otherwise empty body. A
// script may read that from another origin, unlike header fields.
func renderGRPCWeb(w http.ResponseWriter, r *http.Request, status int, d *gate.Denial) {
	const trailer = 0x80
	end := frame(trailer, "grpc-status: "+strconv.Itoa(int(rpcCode(status)))+"\r\ngrpc-message: "+grpcMessage(d)+"\r\n")
	ct := contentType(r)
	if strings.HasPrefix(ct, "application/grpc-web-text") {
		end = base64.StdEncoding.AppendEncode(nil, end)
	}
	w.Header()["Content-Type"] = []string{ct}
	writeRPC(w, http.StatusOK, end)
}

// connectError is an error as clients of the Connect protocol read it.
type connectError struct {
	Code    string `json:"code"`
	Message string `json:"message,omitempty"`
}

func connectErrorOf(status int, d *gate.Denial) connectError {
	return connectError{rpcCode(status).Connect(), d.Sentence()}
}

func renderConnect(w http.ResponseWriter, status int, d *gate.Denial) {
	body, err := json.Marshal(connectErrorOf(status, d))
	if err != nil { // strings cannot fail; clients go by the status then
		body = nil
	}
	w.Header()["Content-Type"] = []string{"application/json"}
	writeRPC(w, status, body)
}

// renderConnectStream ends a stream before its first message.
func renderConnectStream(w http.ResponseWriter, r *http.Request, status int, d *gate.Denial) {
	const end = 0x02
	body, err := json.Marshal(map[string]connectError{"error": connectErrorOf(status, d)})
	if err != nil { // strings cannot fail
		body = nil
	}
	w.Header()["Content-Type"] = []string{contentType(r)}
	writeRPC(w, http.StatusOK, frame(end, string(body)))
}

// frame puts a message into the envelope that all of these protocols share.
func frame(flags byte, message string) []byte {
	f := make([]byte, 0, 5+len(message))
	f = append(f, flags)
	f = binary.BigEndian.AppendUint32(f, uint32(len(message))) //nolint:gosec // a sentence
	return append(f, message...)
}

func writeRPC(w http.ResponseWriter, status int, body []byte) {
	header := w.Header()
	header["Content-Length"] = []string{strconv.Itoa(len(body))}
	header["Cache-Control"] = []string{"no-store"}
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that went away is no error of ours
}

// rpcCode is the code that a client of gRPC or its kin should see for an HTTP
// status.
func rpcCode(status int) gate.Code {
	switch status {
	case http.StatusBadRequest, http.StatusUnsupportedMediaType, http.StatusRequestEntityTooLarge:
		return 3 // INVALID_ARGUMENT
	case http.StatusUnauthorized:
		return 16 // UNAUTHENTICATED
	case http.StatusForbidden:
		return 7 // PERMISSION_DENIED
	case http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
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
