package registry

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/cluster"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

func init() { caddy.RegisterModule(new(App)) }

// App keeps live objects in Caddy's storage and follows what other nodes write
// there.
type App struct {
	// How often the storage is asked whether another node changed something.
	// A change made on this node takes effect at once, and with a cluster the
	// others are told of it. Default: 5s.
	Poll caddy.Duration `json:"poll,omitempty"`

	// A folder of this node's own, in which what the storage has is kept as
	// well, so that the gateway can start while the storage is away. Changes
	// that it then has not heard of, revocations among them, are not in effect
	// until the storage is back. Default: none, and it does not start.
	Copy string `json:"copy,omitempty"`

	// How old the copy may be that the gateway starts with. Default: 24h.
	CopyMaxAge caddy.Duration `json:"copy_max_age,omitempty"`

	// What operators may do, by names that they are given.
	// The name `all` is taken for everything, and `none` for nothing.
	Roles map[string]Role `json:"roles,omitempty"`

	// Who may come with a token or certificate of their own.
	Operators []*Operator `json:"operators,omitempty"`

	// The role of who comes to the local admin endpoint without a token.
	// Default: `all`, as Caddy's own endpoints have it.
	Local string `json:"local,omitempty"`

	// The role of who comes to the remote admin endpoint with a certificate
	// that Caddy lets in and no operator has. Default: `none` if there are
	// operators, else `all`.
	Remote string `json:"remote,omitempty"`

	store   *store
	key     string
	logger  *zap.Logger
	link    *cluster.Link // nil for a gateway alone
	notices notices
	used    sync.Map // the kinds that this configuration uses
	stop    context.CancelFunc
	done    sync.WaitGroup
}

// stores are kept over reloads, one for each storage.
var stores = caddy.NewUsagePool()

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "gatehouse_registry",
		New: func() caddy.Module { return new(App) },
	}
}

// readTimeout bounds the first reading, so that a dead storage is an error
// rather than a configuration that hangs.
const readTimeout = time.Minute

// Provision reads what is stored. It is an error if that cannot be done and
// nothing is remembered, nor kept in a copy: without them, a key that was
// revoked would be back.
func (a *App) Provision(ctx caddy.Context) error {
	if a.Poll == 0 {
		a.Poll = caddy.Duration(5 * time.Second)
	}
	if a.CopyMaxAge == 0 {
		a.CopyMaxAge = caddy.Duration(24 * time.Hour)
	}
	if err := gate.RegisterMetrics(ctx, objectsHeld, changes, failures, noticed, staleness); err != nil {
		return err
	}
	if err := a.openRoles(); err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	var err error
	if a.link, err = cluster.Of(ctx); err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	a.notices.wake = make(chan struct{}, 1)
	a.logger = ctx.Logger()
	storage := ctx.Storage()
	// A storage that has no name of its own is told by its settings.
	a.key = fmt.Sprintf("%T %v", storage, storage)
	v, _, err := stores.LoadOrNew(a.key, func() (caddy.Destructor, error) {
		timeout, cancel := context.WithTimeout(ctx, readTimeout)
		defer cancel()
		return openStore(timeout, storage, a.logger, a.Copy, time.Duration(a.CopyMaxAge))
	})
	if err != nil {
		return fmt.Errorf("registry: %w", err)
	}
	a.store = v.(*store)
	return nil
}

// Validate looks at the settings.
func (a *App) Validate() error {
	if a.Poll < caddy.Duration(100*time.Millisecond) {
		return errors.New("registry: poll must be at least 100ms")
	}
	if a.CopyMaxAge < 0 {
		return errors.New("registry: copy_max_age must be more than 0")
	}
	return nil
}

// Start follows the storage.
func (a *App) Start() error {
	ctx, stop := context.WithCancel(context.Background())
	a.stop = stop
	a.store.serve(a, true)
	a.done.Go(func() { a.follow(ctx) })
	a.done.Go(func() { a.link.Listen(ctx, topic, a.notices.heard, a.notices.begin) })
	if a.Copy != "" {
		a.done.Go(func() { a.store.keepCopy(ctx, a.Copy) })
	}
	a.done.Go(func() {
		tick := time.NewTicker(time.Minute)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				a.store.sweep(ctx, time.Now())
			}
		}
	})
	return nil
}

// Stop ends what Start began.
func (a *App) Stop() error {
	if a.stop != nil {
		a.stop()
		a.store.serve(a, false)
		a.done.Wait()
	}
	return nil
}

// Cleanup gives the store back.
func (a *App) Cleanup() error {
	if a.store == nil {
		return nil
	}
	a.store = nil
	_, err := stores.Delete(a.key)
	return err
}

var (
	objectsHeld = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "gatehouse_registry_objects",
		Help: "Live objects by kind.",
	}, []string{"kind"})
	changes = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gatehouse_registry_changes_total",
		Help: "Changes of live objects made on this node, and what was refused to somebody.",
	}, []string{"kind", "action"})
	failures = prometheus.NewCounter(prometheus.CounterOpts{
		Name: "gatehouse_registry_read_failures_total",
		Help: "Times the storage of live objects could not be read.",
	})
)

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.Validator    = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
