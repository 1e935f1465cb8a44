package api

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Drain is how a configuration ends that another one takes the place of. When
// Go's server stops, it closes what connections it has, with or without a
// request on its way to it. So for a moment before, while old and new
// configuration both serve, the old one asks the clients of HTTP/1 in every
// answer to go on with another connection. HTTP/2 and 3 need no such time: they
// say themselves which request was the last that counted.
type Drain struct {
	// How long both configurations serve. A client whose connection was idle
	// for all of it, and that sends in the instant of the close, must still send
	// again. At most 1m. Default: 250ms.
	Wait caddy.Duration `json:"wait,omitempty"`

	// Lets the old configuration end at once. Default: false.
	Off bool `json:"off,omitempty"`

	open   atomic.Int64 // connections of the servers that have an API
	until  atomic.Int64 // when to stop to ask, in Unix nanoseconds; 0 before it began
	hooked map[*caddyhttp.Server]bool
}

const (
	defaultDrain = 250 * time.Millisecond
	maxDrain     = time.Minute

	// resume is how much longer the old one asks, so that Caddy has the time to
	// stop it. Where that fails it goes on as before.
	resume = time.Second
)

// serving is what the running configuration drains by.
var serving atomic.Pointer[Drain]

// CaddyModule returns the Caddy module information.
func (*Drain) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "gatehouse_drain",
		New: func() caddy.Module { return new(Drain) },
	}
}

// Provision fills in the default, and waits for all of the configuration to
// have started, which is when Caddy is about to stop the one before.
func (d *Drain) Provision(ctx caddy.Context) error {
	d.hooked = map[*caddyhttp.Server]bool{}
	if d.Wait == 0 {
		d.Wait = caddy.Duration(defaultDrain)
	}
	events, err := ctx.App("events")
	if err != nil {
		return err
	}
	return events.(*caddyevents.App).On("started", d)
}

// Validate looks at the settings.
func (d *Drain) Validate() error {
	if d.Wait < 0 || time.Duration(d.Wait) > maxDrain {
		return fmt.Errorf("drain: %v is not between 0 and %v", time.Duration(d.Wait), maxDrain)
	}
	return nil
}

// watch counts the connections of a server.
func (d *Drain) watch(s *caddyhttp.Server) {
	if s == nil || d.hooked[s] {
		return
	}
	d.hooked[s] = true
	s.RegisterConnState(func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			d.open.Add(1)
		case http.StateClosed, http.StateHijacked:
			d.open.Add(-1)
		case http.StateActive, http.StateIdle:
		}
	})
}

// Start does nothing: others may still fail to.
func (*Drain) Start() error { return nil }

// Handle holds up the end of the configuration before.
func (d *Drain) Handle(context.Context, caddy.Event) error {
	old := serving.Swap(d)
	if old == nil || old == d || d.Off {
		return nil // old is d where another module says that something has started
	}
	end := time.Now().Add(time.Duration(d.Wait))
	old.until.Store(end.Add(resume).UnixNano())
	for old.open.Load() > 0 && time.Now().Before(end) {
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

// Stop forgets a configuration that none takes the place of.
func (d *Drain) Stop() error {
	serving.CompareAndSwap(d, nil)
	return nil
}

// ask makes an answer the last of its connection while the configuration ends.
func (d *Drain) ask(r *http.Request, header http.Header) {
	if until := d.until.Load(); until != 0 && r.ProtoMajor == 1 && time.Now().UnixNano() < until {
		header["Connection"] = []string{"close"}
	}
}

var (
	_ caddy.App         = (*Drain)(nil)
	_ caddy.Provisioner = (*Drain)(nil)
	_ caddy.Validator   = (*Drain)(nil)

	_ caddyevents.Handler = (*Drain)(nil)
)
