package identity

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/gate/fetch"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/keyset"
)

// endpoint is where an issuer is asked: as configured, or as its metadata says,
// which is read when it is first needed and from time to time after.
type endpoint struct {
	issuer, configured string
	what               string // its name in the metadata
	of                 func(*keyset.Metadata) string

	mu    sync.Mutex
	found string
	until time.Time // found is asked before
}

const (
	// endpointKept is how long an issuer's metadata is believed.
	endpointKept = 10 * time.Minute

	// endpointTried is how long an endpoint is asked on while the metadata cannot
	// be read.
	endpointTried = 30 * time.Second
)

// find returns the address. One request at a time reads the metadata; what was
// found before is good until then, and while the metadata cannot be read.
func (e *endpoint) find(ctx context.Context) (string, error) {
	if e.configured != "" {
		return e.configured, nil
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	now := gate.Now()
	if e.found != "" && now.Before(e.until) {
		return e.found, nil
	}
	address, err := e.read(ctx)
	switch {
	case err == nil:
		e.found, e.until = address, now.Add(endpointKept)
	case e.found == "":
		return "", err
	default:
		e.until = now.Add(endpointTried)
	}
	return e.found, nil
}

func (e *endpoint) read(ctx context.Context) (string, error) {
	meta, err := keyset.Discover(ctx, e.issuer)
	if err != nil {
		return "", err
	}
	address := e.of(&meta)
	if err := fetch.CheckNamed(e.issuer, address); err != nil {
		return "", fmt.Errorf("discovery of %q: %s %w", e.issuer, e.what, err)
	}
	return address, nil
}

// failed has the metadata read again before the endpoint is asked next: it may
// have moved.
func (e *endpoint) failed() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.until = time.Time{}
}
