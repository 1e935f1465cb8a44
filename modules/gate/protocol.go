package gate

import (
	"net/http"
	"strconv"
	"strings"
)

// Protocol is how a client speaks, which is how it must be answered.
type Protocol uint8

// The protocols.
const (
	// HTTP is everything that is none of the others.
	HTTP Protocol = iota
	// GRPC needs HTTP/2; the outcome of a call is in trailers.
	GRPC
	// GRPCWeb is for browsers; the outcome is the end of the body.
	GRPCWeb
	// Connect is the Connect protocol with one message each way.
	Connect
	// ConnectStream is the Connect protocol with streams.
	ConnectStream
)

var protocolNames = [...]string{"http", "grpc", "grpc_web", "connect", "connect_stream"}

func (p Protocol) String() string { return protocolNames[p] }

// Framed reports whether bodies are messages in envelopes, whatever the
// content type says of the messages.
func (p Protocol) Framed() bool { return p != HTTP && p != Connect }

// IsType reports whether a content type is the named one, of messages of whatever
// kind.
func IsType(ct, name string) bool {
	if !begins(ct, name) {
		return false
	}
	rest := ct[len(name):]
	return rest == "" || rest[0] == '+' || rest[0] == ';' || rest[0] == ' '
}

// begins takes no notice of capitals, as services do not (RFC 9110, section 8.3.1).
func begins(ct, name string) bool {
	return len(ct) >= len(name) && strings.EqualFold(ct[:len(name)], name)
}

// ProtocolOf tells how the client of a request speaks.
func ProtocolOf(r *http.Request) Protocol {
	ct := ""
	if v := r.Header["Content-Type"]; len(v) > 0 {
		ct = v[0]
	}
	switch {
	case IsType(ct, "application/grpc-web"), IsType(ct, "application/grpc-web-text"):
		return GRPCWeb
	case IsType(ct, "application/grpc"):
		return GRPC
	case begins(ct, "application/connect+"):
		return ConnectStream
	}
	if v := r.Header["Connect-Protocol-Version"]; len(v) > 0 && v[0] == "1" {
		return Connect
	}
	if r.Method == http.MethodGet && strings.Contains(r.URL.RawQuery, "connect=v1") && r.URL.Query().Get("connect") == "v1" {
		return Connect
	}
	return HTTP
}

// Code is how a call of gRPC ended, and of its kin.
type Code uint8

var codes = [...]struct {
	name   string
	status int
}{
	{"OK", 200},
	{"CANCELLED", 499},
	{"UNKNOWN", 500},
	{"INVALID_ARGUMENT", 400},
	{"DEADLINE_EXCEEDED", 504},
	{"NOT_FOUND", 404},
	{"ALREADY_EXISTS", 409},
	{"PERMISSION_DENIED", 403},
	{"RESOURCE_EXHAUSTED", 429},
	{"FAILED_PRECONDITION", 400},
	{"ABORTED", 409},
	{"OUT_OF_RANGE", 400},
	{"UNIMPLEMENTED", 501},
	{"INTERNAL", 500},
	{"UNAVAILABLE", 503},
	{"DATA_LOSS", 500},
	{"UNAUTHENTICATED", 401},
}

// ParseCode reads a code as it stands in a header field. What is no code is
// UNKNOWN, as gRPC has it.
func ParseCode(s string) Code {
	n, err := strconv.ParseUint(s, 10, 32)
	if err != nil || n >= uint64(len(codes)) {
		return 2
	}
	return Code(n)
}

// String is the code's name in gRPC.
func (c Code) String() string { return codes[c].name }

// Connect is the code's name in the Connect protocol.
func (c Code) Connect() string {
	if c == 1 {
		return "canceled"
	}
	return strings.ToLower(codes[c].name)
}

// Status is the HTTP status that goes with the code (google.rpc.Code).
func (c Code) Status() int { return codes[c].status }
