package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/cluster"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/dpop"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/session"
)

// vault is what the sessions of one storage have in common: the keys that
// cookies are sealed with, and which sessions were ended. Both are kept in the
// storage, where other nodes and the next start find them.
type vault struct {
	storage certmagic.Storage
	logger  atomic.Pointer[zap.Logger]
	ring    atomic.Pointer[session.Ring] // nil until it was first needed
	ended   *session.Ended
	tokens  *dpop.Seen // logout tokens that were used
	logins  *dpop.Seen // states that came back

	mu     sync.Mutex
	closed time.Time // the storage is not asked before
	why    error

	failing sync.Map // by what, whether that was said

	told atomic.Int64 // the cluster's count of ends, as last seen
}

var vaults = caddy.NewUsagePool()

const (
	// maxEnded is how many ends are remembered, at some hundred bytes each.
	maxEnded = 1 << 16

	sessionsAt = "gatehouse/identity/sessions/"
	ringAt     = sessionsAt + "keys.json"
	endedAt    = sessionsAt + "ended"

	storageTime = 5 * time.Second // for one look at the storage
	lookTicks   = 2               // ticks: how often ends are looked for unless somebody tells of one
	ringEvery   = 60              // ticks: how often keys are looked at
)

// Destruct has nothing to stop: who follows the storage is the app.
func (*vault) Destruct() error { return nil }

// openVault finds what sessions have in common. Nothing is read.
func (a *App) openVault(ctx caddy.Context) (*vault, error) {
	if a.vault != nil {
		return a.vault, nil
	}
	storage := ctx.Storage()
	key := fmt.Sprintf("%T %v", storage, storage) // one without a name of its own is told by its settings
	v, _, err := vaults.LoadOrNew(key, func() (caddy.Destructor, error) {
		return &vault{
			storage: storage, ended: session.NewEnded(maxEnded),
			tokens: dpop.NewSeen(1<<16, 1<<16, 2*session.LogoutAge),
			logins: dpop.NewSeen(1<<16, 1<<16, session.LoginTime+time.Minute),
		}, nil
	})
	if err != nil {
		return nil, err
	}
	a.vault, a.vaultKey = v.(*vault), key
	a.vault.logger.Store(a.logger)
	return a.vault, nil
}

func (a *App) closeVault() {
	if a.vault != nil {
		_, _ = vaults.Delete(a.vaultKey) // Destruct cannot fail
		a.vault = nil
	}
}

// followSessions follows what other nodes do to sessions, if there are any here.
func (a *App) followSessions() (stop func()) {
	if a.vault == nil {
		return func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	done.Go(func() { a.vault.follow(ctx, a.link) })
	return func() {
		cancel()
		done.Wait()
	}
}

// follow looks at what other nodes have ended, until the context ends.
func (v *vault) follow(ctx context.Context, link *cluster.Link) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for n := 1; ; n++ {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if v.ring.Load() == nil {
			continue // nobody has needed it yet
		}
		if n%ringEvery == 0 {
			v.report("keys of sessions", v.look(ctx, v.readRing))
		}
		if n%lookTicks == 0 || v.hasNews(link) { //nolint:contextcheck // the link has a deadline of its own
			v.report("ends of sessions", v.look(ctx, v.readEnded))
		}
	}
}

func (v *vault) look(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, storageTime)
	defer cancel()
	return f(ctx)
}

// report says once that something cannot be read or stored, and that it can again.
func (v *vault) report(what string, err error) {
	failing := err != nil && !errors.Is(err, context.Canceled)
	was, known := v.failing.Swap(what, failing)
	switch {
	case was == failing || !known && !failing:
		return
	case failing:
		v.logger.Load().Error("the storage cannot be used; the last good copy decides on", zap.String("what", what), zap.Error(err))
	default:
		v.logger.Load().Info("the storage can be used again", zap.String("what", what))
	}
}

// ready returns the keys. The first time it reads them, or makes them, and
// which sessions were ended.
func (v *vault) ready(ctx context.Context, now time.Time) (*session.Ring, error) {
	if r := v.ring.Load(); r != nil {
		return r, nil
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if r := v.ring.Load(); r != nil {
		return r, nil
	}
	if now.Before(v.closed) {
		return nil, v.why
	}
	err := v.look(context.WithoutCancel(ctx), func(ctx context.Context) error {
		if err := v.readEnded(ctx); err != nil {
			return err
		}
		return v.readRing(ctx)
	})
	if err != nil {
		v.closed, v.why = now.Add(time.Second), fmt.Errorf("keys of sessions: %w", err)
		return nil, v.why
	}
	return v.ring.Load(), nil
}

// readRing reads the keys, and makes the first or the next when it is time,
// under a lock that nodes share.
func (v *vault) readRing(ctx context.Context) error {
	r, err := v.loadRing(ctx)
	if err != nil {
		return err
	}
	if next, changed := r.Rotated(time.Now()); !changed {
		v.ring.Store(next)
		return nil
	}
	if err := v.storage.Lock(ctx, ringAt); err != nil {
		return fmt.Errorf("locking %q: %w", ringAt, err)
	}
	defer func() { _ = v.storage.Unlock(context.WithoutCancel(ctx), ringAt) }() // a lock that is left goes stale
	if r, err = v.loadRing(ctx); err != nil {
		return err
	}
	next, changed := r.Rotated(time.Now())
	if changed {
		data, err := json.Marshal(next)
		if err != nil {
			return err
		}
		if err := v.storage.Store(ctx, ringAt, data); err != nil {
			return fmt.Errorf("storing %q: %w", ringAt, err)
		}
	}
	v.ring.Store(next)
	return nil
}

// loadRing returns nil where there is none yet.
func (v *vault) loadRing(ctx context.Context) (*session.Ring, error) {
	data, err := v.storage.Load(ctx, ringAt)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	r, err := session.ReadRing(data)
	if err != nil {
		return nil, fmt.Errorf("%q in the storage: %w; delete it to have a new one made, which ends all sessions", ringAt, err)
	}
	return r, nil
}

// readEnded reads the ends that are kept, by their names alone, takes away
// those that are over, and keeps those that could not be kept before.
func (v *vault) readEnded(ctx context.Context) error {
	now := time.Now()
	for _, e := range v.ended.Prune(now) {
		if err := v.keep(ctx, e); err != nil {
			return err
		}
	}
	names, err := v.storage.List(ctx, endedAt, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, name := range names {
		e, ok := session.ReadEnd(path.Base(name))
		switch {
		case !ok:
		case e.Until <= now.UnixMilli():
			_ = v.storage.Delete(ctx, name) // another node may have, and the next look will
		default:
			v.ended.Add(e, true)
		}
	}
	return nil
}

// end ends sessions at once here, and soon everywhere.
func (v *vault) end(ctx context.Context, link *cluster.Link, ends ...session.End) {
	for _, e := range ends {
		v.ended.Add(e, false)
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), storageTime)
	defer cancel()
	for i, e := range ends {
		if err := v.keep(ctx, e); err != nil {
			v.logger.Load().Error("the end of a session cannot be stored; it is tried again", zap.Int("sessions", len(ends)-i), zap.Error(err))
			break
		}
	}
	if link != nil {
		// Others look every few seconds anyhow.
		_, _ = link.Run(tellEnd, newsKey) //nolint:contextcheck // the link has a deadline of its own
	}
}

func (v *vault) keep(ctx context.Context, e session.End) error {
	err := v.storage.Store(ctx, path.Join(endedAt, e.String()), []byte{'\n'})
	if err == nil {
		v.ended.Kept(e)
	}
	return err
}

// The cluster's server counts ends, so that nodes know when to look.
var (
	tellEnd = cluster.NewScript(`return {redis.call('INCR', KEYS[1])}`)
	askEnds = cluster.NewScript(`return {tonumber(redis.call('GET', KEYS[1]) or 0)}`)
)

const newsKey = "sessions:ended"

func (v *vault) hasNews(link *cluster.Link) bool {
	if !link.Up() {
		return false
	}
	n, err := link.Run(askEnds, newsKey)
	if err != nil || len(n) != 1 || n[0] == v.told.Load() {
		return false
	}
	v.told.Store(n[0])
	return true
}
