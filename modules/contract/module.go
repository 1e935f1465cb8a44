package contract

import (
	"errors"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

func init() {
	caddy.RegisterModule(new(Handler))
	caddy.RegisterModule(new(Input))
}

// Handler finds which operation of the contract a request asks for.
type Handler struct {
	// The OpenAPI document, 3.0 or newer, in YAML or JSON.
	File string `json:"file,omitempty"`

	// A JSON Schema for the bodies of this route, instead of a document:
	// drafts 4, 6, 7, 2019-09 and 2020-12.
	Schema string `json:"schema,omitempty"`

	// What the file and those it refers to held when a Caddyfile was adapted, so that a reload sees a
	// change of files alone. Nothing else looks at it. Default: empty.
	Digest string `json:"digest,omitempty"`

	// The path in front of the document's. Default: those of its servers.
	BasePath string `json:"base_path,omitempty"`

	// Lets a path parameter have an encoded slash in its value.
	// Many backends decode a path before they route it: with `/orders/{id}` and
	// `/orders/{id}/refund`, they take `/orders/1%2Frefund` for the second.
	// Default: false, such a path is unknown.
	EncodedSlash bool `json:"encoded_slash,omitempty"`

	// How many bytes a body that is validated may have. Default: 1048576.
	MaxBody int64 `json:"max_body,omitempty"`

	// Leaves validation to a gatehouse_input handler later in the chain.
	// Default: false, validation follows at once.
	DeferInput bool `json:"defer_input,omitempty"`

	// Whether unknown paths and methods are refused: `enforce`, `shadow` or
	// `off`, which also validates nothing. Default: `enforce`.
	Mode gate.Mode `json:"mode,omitempty"`

	// Whether input that does not match is refused: `enforce`, `shadow` or
	// `off`. Default: `enforce`.
	InputMode gate.Mode `json:"input_mode,omitempty"`

	// What becomes of members of the query that the operation does not
	// document: `refuse` makes them a 400, `pass` leaves them to the backend.
	// Default: `pass`.
	UnknownQuery string `json:"unknown_query,omitempty"`

	// Whether responses are compared with the contract: `shadow` counts where
	// they differ, `off` does not look. They are never refused or held back.
	// Default: `off`.
	Responses string `json:"responses,omitempty"`

	// The part of the responses whose bodies are looked at, from above 0 to 1.
	// Status and content type always are. Default: 1.
	ResponseSample float64 `json:"response_sample,omitempty"`

	logger   *zap.Logger
	contract *compiledContract
	key      string // of the contract that Cleanup gives back
}

// Input validates the parameters and the body of the operation that a
// gatehouse_contract handler earlier in the chain has found.
type Input struct{}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.gatehouse_contract",
		New: func() caddy.Module { return new(Handler) },
	}
}

// CaddyModule returns the Caddy module information.
func (*Input) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.gatehouse_input",
		New: func() caddy.Module { return new(Input) },
	}
}

// Provision compiles the contract, or takes the compiled one of another
// handler.
func (h *Handler) Provision(ctx caddy.Context) error {
	if h.MaxBody == 0 {
		h.MaxBody = 1 << 20
	}
	if h.UnknownQuery == "" {
		h.UnknownQuery = "pass"
	}
	if h.Responses == "" {
		h.Responses = "off"
	}
	if h.ResponseSample == 0 {
		h.ResponseSample = 1
	}
	h.logger = ctx.Logger()
	if err := gate.RegisterMetrics(ctx, driftTotal, lookedAt); err != nil {
		return err
	}
	if (h.File == "") == (h.Schema == "") {
		return errors.New("contract: either file or schema is required")
	}
	name, plain := h.File, false
	if h.Schema != "" {
		name, plain = h.Schema, true
	}
	c, key, err := acquire(name, h.BasePath, plain, h.Responses == shadow)
	if err != nil {
		return fmt.Errorf("contract: %w", err)
	}
	h.contract, h.key = c, key
	c.unknown.log(h.logger)
	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok && !h.DeferInput && h.Mode != gate.Off && c.asks != "" && unasked(server.Routes, h.File) {
		h.logger.Warn("the contract asks for credentials, and nothing here looks at that; write require behind it, or use api", zap.String("contract", c.asks))
	}
	return nil
}

// shadow is the one way of looking at responses: they are on their way already.
const shadow = "shadow"

// Validate reports the first setting that makes no sense.
func (h *Handler) Validate() error {
	if h.MaxBody < 1 {
		return errors.New("contract max_body must be at least 1 byte")
	}
	if h.UnknownQuery != "pass" && h.UnknownQuery != "refuse" {
		return fmt.Errorf("unrecognized unknown_query %q; expected refuse or pass", h.UnknownQuery)
	}
	if h.Schema != "" && h.EncodedSlash {
		return errors.New("contract: a schema says nothing of paths")
	}
	if h.Schema != "" && h.UnknownQuery == "refuse" {
		return errors.New("contract: a schema says nothing of queries")
	}
	if h.Responses != shadow && h.Responses != "off" {
		return fmt.Errorf("unrecognized responses %q; expected shadow or off", h.Responses)
	}
	if h.Schema != "" && h.Responses == shadow {
		return errors.New("contract: a schema says nothing of responses")
	}
	if !(h.ResponseSample > 0 && h.ResponseSample <= 1) {
		return fmt.Errorf("contract response_sample %g is not above 0 and at most 1", h.ResponseSample)
	}
	if h.BasePath != "" && h.BasePath[0] != '/' {
		return fmt.Errorf("contract base_path %q does not begin with a slash", h.BasePath)
	}
	return nil
}

// Cleanup gives the contract back. Requests may still be on their way through
// it, so what they read stays as it is.
func (h *Handler) Cleanup() error {
	if h.key == "" {
		return nil
	}
	key := h.key
	h.key = ""
	_, err := contracts.Delete(key)
	return err
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddyfile.Unmarshaler       = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Input)(nil)
	_ caddyfile.Unmarshaler       = (*Input)(nil)
)
