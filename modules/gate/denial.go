package gate

import (
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Denial turns a request away.
type Denial struct {
	Reason Reason       // stable, machine-readable
	Detail string       // one sentence for the client; no internals. Default: the reason's title
	Fields []FieldError // what is wrong where, for the client; may be nil
	Err    error        // what happened, for the log; may be nil
	Header http.Header  // set on the response, e.g. Retry-After; may be nil
}

// FieldError is one thing wrong with one part of a request. Values sent by the
// client are never echoed in it.
type FieldError struct {
	// JSON Pointer (RFC 6901) into the body as a URI fragment, e.g. "#/items/0/sku".
	Pointer string `json:"pointer,omitempty"`
	// Where a parameter is: path, query, header or cookie; empty for the body.
	In string `json:"in,omitempty"`
	// The parameter's name; empty for the body.
	Name string `json:"name,omitempty"`
	// What is wrong, in one sentence.
	Detail string `json:"detail"`
}

// Error returns the operator's view of the denial.
func (d *Denial) Error() string {
	if d.Err != nil {
		return d.Reason.String() + ": " + d.Err.Error()
	}
	return d.Reason.String()
}

// Unwrap gives errors.Is and errors.As access to the cause.
func (d *Denial) Unwrap() error { return d.Err }

// Deny wraps d for the handler chain. Return the result as it is: Caddy looks
// for a HandlerError by value, and one wrapped in another error is answered
// with a 500, or even a 200, as soon as the site has error routes.
func Deny(d *Denial) error {
	return caddyhttp.HandlerError{StatusCode: d.Reason.Status(), Err: d}
}
