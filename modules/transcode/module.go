package transcode

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"os"
	"time"

	"connectrpc.com/vanguard"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/transcode/internal/descset"
)

func init() { caddy.RegisterModule(new(Handler)) }

// Handler lets clients of REST, gRPC-Web and Connect call a gRPC service.
type Handler struct {
	// The file with the descriptors of the services and everything they import,
	// as `protoc --include_imports --descriptor_set_out` or `buf build` write it.
	// Required.
	File string `json:"file,omitempty"`

	// What the file held when a Caddyfile was adapted, so that a reload sees a
	// change of it alone. Nothing else looks at it. Default: empty.
	Digest string `json:"digest,omitempty"`

	// The full names of the services that may be called, such as
	// `shop.v1.Orders`. Default: all that the file describes.
	Services []string `json:"services,omitempty"`

	// The largest message of a request or an answer that is translated, in
	// bytes, as it is sent and as it is after decompression. Messages of streams
	// whose encoding stays the same are not measured. Default: 4 MiB.
	MaxMessage int64 `json:"max_message,omitempty"`

	// How long a call with one message each way may take if the client sets no
	// deadline, or a later one. Calls in gRPC itself and streams have the
	// deadline that their client sets. Default: 60s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// What happens to a request that no method of the services answers: `pass`
	// lets it go on as it is, `refuse` answers 404, also to gRPC.
	// Default: `pass`.
	Unmatched string `json:"unmatched,omitempty"`

	// What happens to JSON members and query parameters that a method does not
	// know: `refuse` answers 400, `ignore` leaves them out. Default: `refuse`.
	UnknownFields string `json:"unknown_fields,omitempty"`

	// `enforce` translates, `off` lets every request go on as it is. There is no
	// shadow: a message is translated or it is not. Default: `enforce`.
	Mode gate.Mode `json:"mode,omitempty"`

	set        *descset.Set
	operations map[string]*gate.Operation // by the method's path
	transcoder http.Handler
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.gatehouse_transcode",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision fills in defaults and reads the descriptors.
func (h *Handler) Provision(ctx caddy.Context) error {
	if h.MaxMessage == 0 {
		h.MaxMessage = 4 << 20
	}
	if h.Timeout == 0 {
		h.Timeout = caddy.Duration(time.Minute)
	}
	if h.Unmatched == "" {
		h.Unmatched = "pass"
	}
	if h.UnknownFields == "" {
		h.UnknownFields = "refuse"
	}
	if err := h.check(); err != nil { // before it is built upon
		return err
	}
	if err := gate.RegisterMetrics(ctx, calls); err != nil {
		return err
	}
	data, err := os.ReadFile(h.File)
	if err != nil {
		return fmt.Errorf("transcode: reading descriptors: %w", err)
	}
	if h.set, err = descset.Read(data, h.Services); err != nil {
		return fmt.Errorf("transcode: %q %w", h.File, err)
	}
	return h.build()
}

// check reports the first setting that makes no sense.
func (h *Handler) check() error {
	switch {
	case h.File == "":
		return errors.New("transcode: a file with descriptors is required")
	case h.MaxMessage < 1 || h.MaxMessage > math.MaxInt32:
		return fmt.Errorf("transcode: max_message must be 1 byte at least and 2 GiB at most, not %d", h.MaxMessage)
	case h.Timeout < 0:
		return errors.New("transcode: timeout must not be negative")
	case h.Unmatched != "pass" && h.Unmatched != "refuse":
		return fmt.Errorf("transcode: unrecognized unmatched %q; expected pass or refuse", h.Unmatched)
	case h.UnknownFields != "refuse" && h.UnknownFields != "ignore":
		return fmt.Errorf("transcode: unrecognized unknown_fields %q; expected refuse or ignore", h.UnknownFields)
	case h.Mode == gate.Shadow:
		return errNoShadow
	}
	return nil
}

var errNoShadow = errors.New("transcode: there is no mode shadow, because a message is translated or it is not; expected enforce or off")

// build sets the library up for gRPC with Protobuf and no compression, which
// every service understands.
func (h *Handler) build() error {
	h.operations = make(map[string]*gate.Operation, len(h.set.Methods))
	for path, m := range h.set.Methods {
		h.operations[path] = &gate.Operation{ID: string(m.FullName()), Method: http.MethodPost, Path: path}
	}
	services := make([]*vanguard.Service, len(h.set.Services))
	for i, svc := range h.set.Services {
		services[i] = vanguard.NewServiceWithSchema(svc, http.HandlerFunc(backend))
	}
	ignore := h.UnknownFields == "ignore"
	json := newJSON(h.set, ignore)
	t, err := vanguard.NewTranscoder(
		services,
		vanguard.WithCodec(func(vanguard.TypeResolver) vanguard.Codec { return json }),
		vanguard.WithCompression(vanguard.CompressionGzip, newGzip, newGunzip(h.MaxMessage)),
		vanguard.WithUnknownHandler(http.HandlerFunc(unknown)),
		vanguard.WithDefaultServiceOptions(
			vanguard.WithTargetProtocols(vanguard.ProtocolGRPC),
			vanguard.WithTargetCodecs(vanguard.CodecProto),
			vanguard.WithNoTargetCompression(),
			vanguard.WithTypeResolver(h.set),
			vanguard.WithMaxMessageBufferBytes(uint32(h.MaxMessage)), //nolint:gosec // checked above
			vanguard.WithRESTUnmarshalOptions(vanguard.RESTUnmarshalOptions{DiscardUnknownQueryParams: ignore}),
		),
	)
	if err != nil {
		return fmt.Errorf("transcode: %q: %w", h.File, err)
	}
	h.transcoder = t
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ caddyfile.Unmarshaler       = (*Handler)(nil)
)
