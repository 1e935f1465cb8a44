package gate

import (
	"encoding/json"
	"net/http"
	"strconv"
)

// DefaultProblemType is the usual prefix of a problem's type.
const DefaultProblemType = "https://github.com/gatehouse-caddy/gatehouse/blob/main/docs/reasons.md#"

// Problem is a Denial as the client sees it (RFC 9457).
type Problem struct {
	Type     string       `json:"type"`
	Title    string       `json:"title"`
	Status   int          `json:"status"`
	Detail   string       `json:"detail,omitempty"`
	Instance string       `json:"instance"`
	Reason   string       `json:"reason"`
	Code     string       `json:"code,omitempty"` // gRPC's name for what went wrong, where a service said it
	Errors   []FieldError `json:"errors,omitempty"`
}

// Problem describes a denial to the client.
func (ex *Exchange) Problem(status int, d *Denial) *Problem {
	prefix := ex.ProblemType
	if prefix == "" {
		prefix = DefaultProblemType
	}
	return &Problem{
		Type:     prefix + d.Reason.String(),
		Title:    d.Reason.Title(),
		Status:   status,
		Detail:   d.Detail,
		Instance: "urn:request:" + ex.ID,
		Reason:   d.Reason.String(),
		Errors:   d.Fields,
	}
}

// Write answers the request with the problem.
func (p *Problem) Write(w http.ResponseWriter, r *http.Request) {
	body, err := json.Marshal(p)
	if err != nil { // strings and numbers cannot fail; an empty body is still an answer
		body = nil
	}
	header := w.Header()
	header["Content-Type"] = []string{"application/problem+json"}
	header["Content-Length"] = []string{strconv.Itoa(len(body))}
	header["Cache-Control"] = []string{"no-store"}
	header["X-Content-Type-Options"] = []string{"nosniff"}
	w.WriteHeader(p.Status)
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // a client that went away is no error of ours
	}
}
