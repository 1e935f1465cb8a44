package api

import (
	"fmt"

	"github.com/caddyserver/caddy/v2"

	"github.com/gatehouse-caddy/gatehouse/modules/api/internal/headroom"
	"github.com/gatehouse-caddy/gatehouse/modules/gate/latest"
)

// Headroom is how far the memory of a process with an API in it grows between
// two garbage collections: by this much, or to twice of what is live, whichever
// is more. Go's own rule, the second alone, has a small gateway collect some dozens of
// times a second. GOGC in the environment and GOMEMLIMIT have the last word.
type Headroom struct {
	// How many bytes. At most 1 GiB. Default: 64 MiB.
	Size int64 `json:"size,omitempty"`

	// Leaves all to Go's own rule. Default: false.
	Off bool `json:"off,omitempty"`

	release func()
}

const (
	defaultHeadroom = 64 << 20
	maxHeadroom     = 1 << 30
)

var wanted = latest.Of[int64]{Changed: headroom.Want}

// CaddyModule returns the Caddy module information.
func (*Headroom) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "gatehouse_headroom",
		New: func() caddy.Module { return new(Headroom) },
	}
}

// Provision fills in the default.
func (h *Headroom) Provision(caddy.Context) error {
	if h.Size == 0 {
		h.Size = defaultHeadroom
	}
	return nil
}

// Validate looks at the settings.
func (h *Headroom) Validate() error {
	if h.Size < 1 || h.Size > maxHeadroom {
		return fmt.Errorf("headroom: %d is not between 1 and %d bytes", h.Size, maxHeadroom)
	}
	return nil
}

// Start asks for it. The configuration before has not let go of its own yet.
func (h *Headroom) Start() error {
	if !h.Off {
		h.release = wanted.Claim(h.Size)
	}
	return nil
}

// Stop lets go of it.
func (h *Headroom) Stop() error {
	if h.release != nil {
		h.release()
	}
	return nil
}

// Interface guards
var (
	_ caddy.App         = (*Headroom)(nil)
	_ caddy.Provisioner = (*Headroom)(nil)
	_ caddy.Validator   = (*Headroom)(nil)
)
