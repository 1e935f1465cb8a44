package contract

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/route"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// ServeHTTP finds the operation and, unless that is left to a later handler,
// validates the input.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	ex, mode := gate.Enter(r, gate.Contract, h.Mode)
	if mode == gate.Off {
		return next.ServeHTTP(w, r)
	}
	if ex.Own {
		ex.Later = page{mode}
		return next.ServeHTTP(w, r)
	}
	c := &check{limit: h.MaxBody, mode: h.InputMode, refuseUnknown: h.UnknownQuery == "refuse"}
	if h.contract.schema != nil {
		c.body = h.contract.schema
	} else {
		began := gate.Now()
		op, params, denial := h.match(r)
		if op != nil {
			ex.Operation = &op.Operation
			ex.Params = params
			c.op, c.body = op, op.body
		} else {
			ex.Otherwise = h.contract.otherwise
		}
		rule := ""
		if op != nil {
			rule = op.ID
		}
		if err := ex.Conclude(w, r, gate.Contract, mode, rule, denial, began); err != nil {
			return err
		}
	}
	return h.serve(w, r, ex, c.op, func(w http.ResponseWriter) error {
		switch {
		case c.op == nil && c.body == nil: // shadow: nothing is known to validate by
		case h.DeferInput:
			ex.Later = c
		default:
			return c.serve(ex, w, r, next)
		}
		return next.ServeHTTP(w, r)
	})
}

var errSlash = errors.New("an encoded slash or backslash stands in a segment of the path, which a backend may take for another; encoded_slash lets a slash be part of a value")

// match looks the operation up by the path as it was sent.
func (h *Handler) match(r *http.Request) (*operation, []gate.Param, *gate.Denial) {
	path := r.URL.EscapedPath()
	denial := &gate.Denial{Reason: gate.ContractUnknownPath}
	for _, base := range h.contract.bases {
		rest, ok := strings.CutPrefix(path, base)
		if !ok || rest == "" && base != "" || rest != "" && rest[0] != '/' {
			continue
		}
		var buf [8]route.Match
		op, found, allow, result := h.contract.router.Find(r.Method, rest, h.EncodedSlash, buf[:0])
		switch result {
		case route.NoPath:
			continue
		case route.Slash:
			denial.Err = errSlash
			continue
		case route.Alike:
			denial.Err = fmt.Errorf("it differs from %s only by capitals, by what stands behind a semicolon, by dots and spaces at the end, or by an ending such as .json, and a backend may take it for that", allow)
			continue
		case route.NoMethod:
			return nil, nil, &gate.Denial{
				Reason: gate.ContractUnknownMethod,
				Header: http.Header{"Allow": {allow}},
			}
		case route.Found:
		}
		if len(found) == 0 {
			return op, nil, nil
		}
		params := make([]gate.Param, len(found))
		for i, m := range found {
			params[i] = gate.Param(m)
		}
		return op, params, nil
	}
	return nil, nil, denial
}

// page is a request for one of the gateway's own pages, which identity answers
// before input. One that it left to others is for nobody.
type page struct{ mode gate.Mode }

var errPage = errors.New("it is a page of the gateway's sessions, and no identity answers for it here: a matcher may leave it out")

// ServeHTTP validates the input of the operation that was found.
func (*Input) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	ex := gate.Of(r)
	switch later := ex.Later.(type) {
	case *check:
		return later.serve(ex, w, r, next)
	case page:
		denial := &gate.Denial{Reason: gate.ContractUnknownPath, Err: errPage}
		if err := ex.Conclude(w, r, gate.Contract, later.mode, "", denial, gate.Now()); err != nil {
			return err
		}
	}
	return next.ServeHTTP(w, r)
}
