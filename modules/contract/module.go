package contract

import (
	"errors"
	"fmt"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

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

	// The path in front of the document's. Default: those of its servers.
	BasePath string `json:"base_path,omitempty"`

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
	if err := gate.RegisterMetrics(ctx); err != nil {
		return err
	}
	if (h.File == "") == (h.Schema == "") {
		return errors.New("contract: either file or schema is required")
	}
	name, plain := h.File, false
	if h.Schema != "" {
		name, plain = h.Schema, true
	}
	c, key, err := acquire(name, h.BasePath, plain)
	if err != nil {
		return fmt.Errorf("contract: %w", err)
	}
	h.contract, h.key = c, key
	return nil
}

// Validate reports the first setting that makes no sense.
func (h *Handler) Validate() error {
	if h.MaxBody < 1 {
		return errors.New("contract max_body must be at least 1 byte")
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
