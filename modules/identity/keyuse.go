package identity

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/certmagic"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/registry"
)

func init() { caddy.RegisterModule(KeyUses{}) }

// keyUses knows when each key was last used, to the minute. Requests touch a
// number of their key's own; whoever asks or stores looks at all of them.
var keyUses = &useTable{byID: map[string]*keyUse{}, stored: map[string]time.Time{}, written: map[string]map[string]int64{}}

const (
	maxKeyUses  = 1 << 21 // ids; more are not remembered
	useGrain    = time.Minute
	usesPrefix  = "gatehouse/identity/uses"
	usesLook    = time.Second
	usesTimeout = 30 * time.Second
	usesLast    = 2 * time.Second // of a configuration that ends
)

type useTable struct {
	mu      sync.Mutex
	byID    map[string]*keyUse
	stored  map[string]time.Time        // when each storage was written to; there are few
	written map[string]map[string]int64 // and what
}

// keyUse is when a key was last used, in seconds.
type keyUse struct {
	at   atomic.Int64
	live bool // a live object, which may be deleted
}

// of finds the use of a key.
func (t *useTable) of(id string, live bool) *keyUse {
	t.mu.Lock()
	defer t.mu.Unlock()
	u := t.byID[id]
	if u == nil {
		u = new(keyUse)
		if len(t.byID) < maxKeyUses {
			t.byID[id] = u
		}
	}
	u.live = live
	return u
}

// retain forgets live keys that are no more.
func (t *useTable) retain(all map[string]*keyEntry) {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps.DeleteFunc(t.byID, func(id string, u *keyUse) bool { return u.live && all[id] == nil })
}

// touch is all that a request does.
func (u *keyUse) touch(now time.Time) {
	if u == nil {
		return
	}
	s := now.Unix()
	if last := u.at.Load(); s-last >= int64(useGrain/time.Second) {
		u.at.CompareAndSwap(last, s)
	}
}

// snapshot lists the keys that were used.
func (t *useTable) snapshot() map[string]int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make(map[string]int64, len(t.byID))
	for id, u := range t.byID {
		if at := u.at.Load(); at > 0 {
			all[id] = at
		}
	}
	return all
}

// learn takes over what others have stored.
func (t *useTable) learn(all map[string]int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for id, at := range all {
		if u := t.byID[id]; u != nil && at > u.at.Load() {
			u.at.Store(at)
		}
	}
}

// follow keeps uses in the storage, which is written to at most once a minute.
func (t *useTable) follow(ctx context.Context, storage certmagic.Storage, name string, logger *zap.Logger) {
	tick := time.NewTicker(usesLook)
	defer tick.Stop()
	for failing := false; ; {
		if t.due(name) {
			err := t.exchange(ctx, storage, name)
			if err != nil && !failing && ctx.Err() == nil {
				logger.Warn("when keys were last used cannot be stored; it is tried again", zap.Error(err))
			}
			failing = err != nil
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (t *useTable) due(name string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if time.Since(t.stored[name]) < useGrain {
		return false
	}
	t.stored[name] = time.Now()
	return true
}

// exchange reads what other nodes have stored and stores what this one knows.
func (t *useTable) exchange(ctx context.Context, storage certmagic.Storage, name string) error {
	ctx, cancel := context.WithTimeout(ctx, usesTimeout)
	defer cancel()
	files, err := storage.List(ctx, usesPrefix, false)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for _, key := range files {
		data, err := storage.Load(ctx, key)
		if err != nil {
			return err
		}
		var all map[string]int64
		if json.Unmarshal(data, &all) == nil { // what cannot be read is written anew
			t.learn(all)
		}
	}
	return t.store(ctx, storage, name)
}

// store writes what this node knows, if that is news.
func (t *useTable) store(ctx context.Context, storage certmagic.Storage, name string) error {
	now := t.snapshot()
	t.mu.Lock()
	same := maps.Equal(now, t.written[name])
	t.mu.Unlock()
	if same {
		return nil
	}
	node, err := caddy.InstanceID()
	if err != nil {
		return err
	}
	data, err := json.Marshal(now)
	if err != nil {
		return err
	}
	if err := storage.Store(ctx, usesPrefix+"/"+node.String()+".json", data); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.written[name] = now
	return nil
}

// last stores what would be lost with the process. It waits for a moment only.
func (t *useTable) last(storage certmagic.Storage, name string, logger *zap.Logger) {
	ctx, cancel := context.WithTimeout(context.Background(), usesLast)
	defer cancel()
	if err := t.store(ctx, storage, name); err != nil {
		logger.Warn("when keys were last used is not stored; the last minute is missing", zap.Error(err))
	}
}

// KeyUses shows on Caddy's admin endpoint when keys were last used:
//
//	GET /gatehouse/key_uses[?after=<id>]
type KeyUses struct{}

// CaddyModule returns the Caddy module information.
func (KeyUses) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.gatehouse_key_uses",
		New: func() caddy.Module { return new(KeyUses) },
	}
}

// Routes implements caddy.AdminRouter.
func (KeyUses) Routes() []caddy.AdminRoute {
	return []caddy.AdminRoute{{Pattern: "/gatehouse/key_uses", Handler: caddy.AdminHandlerFunc(serveKeyUses)}}
}

const maxUsesPage = 1000

func serveKeyUses(w http.ResponseWriter, r *http.Request) error {
	if r.Method != http.MethodGet {
		w.Header().Set("Allow", "GET")
		return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Message: "use GET"}
	}
	if err := registry.MayRead(r, "keys"); err != nil {
		return err
	}
	all, after := keyUses.snapshot(), r.URL.Query().Get("after")
	page := struct {
		Uses map[string]time.Time `json:"uses"`
		Next string               `json:"next,omitempty"`
	}{Uses: map[string]time.Time{}}
	ids := slices.DeleteFunc(slices.Sorted(maps.Keys(all)), func(id string) bool { return strings.Compare(id, after) <= 0 })
	for _, id := range ids[:min(len(ids), maxUsesPage)] {
		page.Uses[id] = time.Unix(all[id], 0).UTC()
	}
	if len(ids) > maxUsesPage {
		page.Next = ids[maxUsesPage-1]
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(page)
}

// honey tells of keys that nobody should have.
type honey struct {
	events *caddyevents.App
	ctx    caddy.Context
	caught chan map[string]any
}

// maxCaught bounds the events that wait to be told; what comes on top is
// counted and in the decision log only.
const maxCaught = 64

var honeyKeys = prometheus.NewCounter(prometheus.CounterOpts{
	Name: "gatehouse_identity_honey_keys_total",
	Help: "Requests that carried a key which nobody should have.",
})

func newHoney(ctx caddy.Context) (*honey, error) {
	app, err := ctx.App("events")
	if err != nil {
		return nil, err
	}
	return &honey{app.(*caddyevents.App), ctx, make(chan map[string]any, maxCaught)}, nil
}

// caughtBy counts and tells, without keeping the request: it must take as long
// as for any unknown key.
func (y *honey) caughtBy(r *http.Request, id string) {
	honeyKeys.Inc()
	if y == nil {
		return
	}
	address, _ := caddyhttp.GetVar(r.Context(), caddyhttp.ClientIPVarKey).(string)
	select {
	case y.caught <- map[string]any{"key": id, "address": address, "method": r.Method, "host": r.Host, "path": r.URL.Path}:
	default:
	}
}

// tell emits events until the configuration ends.
func (y *honey) tell() {
	for {
		select {
		case <-y.ctx.Done():
			return
		case data := <-y.caught:
			y.events.Emit(y.ctx, "gatehouse_honey_key", data)
		}
	}
}

// Interface guards
var _ caddy.AdminRouter = KeyUses{}
