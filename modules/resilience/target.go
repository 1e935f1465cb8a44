package resilience

import (
	"hash/maphash"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/resilience/internal/breaker"
)

// target is what is known of one upstream.
type target struct {
	*breaker.Breaker
	dial  string
	label string // in metrics; one for all upstreams that no configuration names

	last atomic.Pointer[string] // failure, for who is refused because of it
}

// maxFailure bounds what is remembered of a failure.
const maxFailure = 200

// remember keeps what the last failure was.
func (t *target) remember(res *http.Response, err error) {
	text := ""
	switch {
	case err != nil:
		text = strings.ToValidUTF8(err.Error(), "")
		text = text[:min(len(text), maxFailure)]
	case res != nil:
		text = "it answered " + strconv.Itoa(res.StatusCode)
	}
	t.last.Store(&text)
}

// failure is what the last one was.
func (t *target) failure() string {
	if last := t.last.Load(); last != nil {
		return *last
	}
	return "none is remembered"
}

// Destruct does nothing: requests may still be on their way.
func (*target) Destruct() error { return nil }

// pool keeps targets over reloads, refused ones included, for as long as a
// configuration has the upstream under the same settings.
var pool = caddy.NewUsagePool()

type poolKey struct {
	dial     string
	settings breaker.Settings
	failures string // what counts as one
}

// targets are the upstreams of one transport. Those of the configuration are
// there from the start; dynamic ones come as they are seen.
type targets struct {
	settings breaker.Settings
	failures string // the statuses that are failures

	mu       sync.RWMutex
	known    map[string]*target
	released bool
}

// maxTargets bounds how many upstreams have a breaker.
const maxTargets = 1024

// of finds the target of an upstream that has been chosen. It is nil when there
// are too many.
func (ts *targets) of(di reverseproxy.DialInfo) *target {
	if t := ts.look(di.Upstream); t != nil {
		return t
	}
	ts.mu.RLock()
	t := ts.known[di.Address]
	ts.mu.RUnlock()
	if t == nil {
		t = ts.add(di.Address, "dynamic")
	}
	return t
}

// look finds the target of an upstream that may be chosen. It is nil for one
// that was not used yet, or whose address is not known before it is used.
func (ts *targets) look(u *reverseproxy.Upstream) *target {
	if u == nil {
		return nil
	}
	ts.mu.RLock()
	defer ts.mu.RUnlock()
	return ts.known[u.Dial]
}

func (ts *targets) add(dial, label string) *target {
	if strings.Contains(dial, "{") {
		return nil // a placeholder stands for many upstreams
	}
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if t := ts.known[dial]; t != nil || ts.released {
		return t
	}
	if len(ts.known) >= maxTargets && !ts.evict() {
		return nil
	}
	v, _, err := pool.LoadOrNew(poolKey{dial, ts.settings, ts.failures}, func() (caddy.Destructor, error) {
		return &target{Breaker: breaker.New(ts.settings, gate.Now()), dial: dial, label: label}, nil
	})
	if err != nil {
		return nil // the constructor above does not fail
	}
	if ts.known == nil {
		ts.known = make(map[string]*target)
	}
	ts.known[dial] = v.(*target)
	return v.(*target)
}

// evict forgets a dynamic upstream with which all is well.
func (ts *targets) evict() bool {
	for dial, t := range ts.known {
		if t.label != dial && t.State() == breaker.Closed {
			delete(ts.known, dial)
			_, _ = pool.Delete(poolKey{dial, ts.settings, ts.failures}) // Destruct does not fail
			return true
		}
	}
	return false
}

var callerSeed = maphash.MakeSeed()

// callerOf is who asks, as far as breakers tell callers apart: a tenant, a
// subject, or a customer's network.
func callerOf(ex *gate.Exchange) uint64 {
	if ex == nil {
		return 0
	}
	p := ex.Principal
	switch {
	case p == nil:
		a := ex.Customer().Addr().As16()
		return maphash.Bytes(callerSeed, a[:])
	case p.Tenant != "":
		return maphash.String(callerSeed, p.Tenant)
	case p.Subject != "":
		return maphash.String(callerSeed, p.Issuer) ^ maphash.String(callerSeed, p.Subject)
	}
	return maphash.String(callerSeed, p.Issuer) ^ maphash.String(callerSeed, p.Client)
}

// release gives the targets back. Requests may still be on their way, and use
// those that are there, but take up no more.
func (ts *targets) release() {
	ts.mu.Lock()
	defer ts.mu.Unlock()
	if ts.released {
		return
	}
	for dial := range ts.known {
		_, _ = pool.Delete(poolKey{dial, ts.settings, ts.failures}) // Destruct does not fail
	}
	ts.released = true
}
