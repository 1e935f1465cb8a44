package canary

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/canary/internal/release"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/registry"
)

// override is a live object of the kind canaries. Its id is the name of an API,
// a dot and the name of a release: orders.next.
type override struct {
	// The percentage of callers, in the place of the configured one. Required.
	Weight *float64 `json:"weight"`

	// What the gateway writes when it takes the callers back. It is there to be
	// read; the weight is what counts.
	RolledBack *rolledBack `json:"rolled_back,omitempty"`

	text string // in one form, to compare it
}

// rolledBack is why, and what there was to see.
type rolledBack struct {
	At     time.Time `json:"at"`
	Why    string    `json:"why"`
	Weight float64   `json:"weight"`
	Canary figures   `json:"canary"`
	Stable figures   `json:"stable"`
}

type figures struct {
	Results  int   `json:"results"`
	Failures int   `json:"failures"`
	P95      int64 `json:"p95_ms"`
}

func figuresOf(f release.Figures) figures {
	return figures{f.Results, f.Failures, f.Latency.Milliseconds()}
}

var canaries = registry.NewKind(registry.Kind[*override, map[string]*override]{
	Name:  "canaries",
	Read:  func(_ string, value json.RawMessage) (*override, error) { return readOverride(value) },
	Admit: admit,
	Index: func(all map[string]*override) map[string]*override { return all },
})

func readOverride(value json.RawMessage) (*override, error) {
	o := new(override)
	if err := registry.Strict(value, o); err != nil {
		return nil, err
	}
	switch {
	case o.Weight == nil:
		return nil, errors.New("weight is required: the percentage of callers, from 0 to 100")
	case !(*o.Weight >= 0 && *o.Weight <= 100):
		return nil, fmt.Errorf("weight %g is not from 0 to 100", *o.Weight)
	}
	text, err := json.Marshal(o)
	o.text = string(text)
	return o, err
}

func (o *override) same(as *override) bool {
	return o == as || o != nil && as != nil && o.text == as.text
}

// serving holds the handlers of the running configuration.
var serving = struct {
	sync.Mutex
	handlers map[*Handler]struct{}
}{handlers: map[*Handler]struct{}{}}

// admit refuses a weight for a release that is not there, and one that is more
// than others leave.
func admit(id string, o *override) error {
	serving.Lock()
	defer serving.Unlock()
	var of *Handler
	for h := range serving.handlers {
		if h.id == id {
			of = h
		}
	}
	if of == nil {
		return fmt.Errorf("no release %q is running; an id is <api>.<release>", id)
	}
	others := map[string]float64{}
	for h := range serving.handlers {
		if h.Name == of.Name && h.Name != "" && h.id != id { // without a name, nothing says what belongs together
			others[h.id] = h.effective(h.live.Load()[h.id])
		}
	}
	sum := 0.0
	for _, weight := range others {
		sum += weight
	}
	if sum+*o.Weight > 100 && *o.Weight > of.effective(of.live.Load()[id]) {
		return fmt.Errorf("weight %g is more than the other releases of %q leave, which have %g of 100; lower one of them first", *o.Weight, of.Name, sum)
	}
	return nil
}

// state is what is known of a release on this node, whatever its settings are.
type state struct {
	api, release string
	stopped      atomic.Pointer[stop]
}

// Destruct implements caddy.Destructor.
func (s *state) Destruct() error {
	weights.DeleteLabelValues(s.api, s.release)
	return nil
}

// stop holds while the live object is what it was: a rollback takes effect
// here before it is stored, and even if it cannot be.
type stop struct {
	before *override
	object json.RawMessage
	next   atomic.Int64 // when to try to store it, in nanoseconds since the epoch
}

// watch compares a release with the stable one under certain settings.
type watch struct {
	*release.Comparison
	of atomic.Pointer[override] // the live object that the results are of
}

// Destruct implements caddy.Destructor.
func (*watch) Destruct() error { return nil }

type watchKey struct {
	id       string
	settings release.Settings
}

// What outlives reloads.
var (
	states  = caddy.NewUsagePool()
	watches = caddy.NewUsagePool()
)

// open takes up what is known of the release.
func (h *Handler) open() {
	b := &h.Rollback
	h.watchKey = watchKey{h.id, release.Settings{Errors: b.Errors / 100, Latency: b.Latency, Samples: b.Samples, Window: time.Duration(b.Window)}}
	s, _ := states.LoadOrStore(h.id, &state{api: h.Name, release: h.Release})
	h.state = s.(*state)
	w, _, _ := watches.LoadOrNew(h.watchKey, func() (caddy.Destructor, error) { // does not fail
		return &watch{Comparison: release.New(h.watchKey.settings, gate.Now())}, nil
	})
	h.watch = w.(*watch)
	serving.Lock()
	defer serving.Unlock()
	serving.handlers[h] = struct{}{}
	h.opened = true
}

// close gives back what open took. Requests may still be on their way and use it.
func (h *Handler) close() error {
	if !h.opened {
		return nil
	}
	h.opened = false
	serving.Lock()
	delete(serving.handlers, h)
	serving.Unlock()
	_, err := states.Delete(h.id)
	_, more := watches.Delete(h.watchKey)
	return errors.Join(err, more)
}

// weight is the percentage of callers that are on the release now.
func (h *Handler) weight(now time.Time) float64 {
	o := h.live.Load()[h.id]
	if s := h.state.stopped.Load(); s != nil {
		if s.before.same(o) {
			h.store(s, now)
			return 0
		}
		h.state.stopped.CompareAndSwap(s, nil)
	}
	if old := h.watch.of.Load(); !old.same(o) && h.watch.of.CompareAndSwap(old, o) {
		h.watch.Reset() // what was there under another weight, perhaps before it was put right, is over
		weights.WithLabelValues(h.Name, h.Release).Set(h.effective(o))
	}
	return h.effective(o)
}

// effective is the weight with a certain live object, which may be nil.
func (h *Handler) effective(o *override) float64 {
	switch s := h.state.stopped.Load(); {
	case s != nil && s.before.same(o):
		return 0
	case o != nil:
		return *o.Weight
	}
	return h.Weight
}

// judge takes the callers back if the release is worse.
func (h *Handler) judge(ex *gate.Exchange, now time.Time) {
	if h.Rollback.Mode == gate.Off {
		return
	}
	f, worse := h.watch.Judge(now)
	if !worse {
		return
	}
	o := h.live.Load()[h.id]
	weight := h.effective(o)
	if weight == 0 {
		return // requests from before it was taken back
	}
	why := &rolledBack{At: now.UTC(), Why: f.Why, Weight: weight, Canary: figuresOf(f.Canary), Stable: figuresOf(f.Stable)}
	if h.Rollback.Mode == gate.Enforce {
		object, err := json.Marshal(override{Weight: new(float64), RolledBack: why})
		if err != nil {
			return // numbers and words cannot fail
		}
		s := &stop{before: o, object: object}
		if !h.state.stopped.CompareAndSwap(nil, s) {
			return
		}
		weights.WithLabelValues(h.Name, h.Release).Set(0)
		h.store(s, now)
	}
	h.watch.Reset()
	h.tell(ex, why, now)
}

// tell everybody: the record of the request that it was noticed at, the log,
// the metrics, and who listens to events.
func (h *Handler) tell(ex *gate.Exchange, why *rolledBack, now time.Time) {
	_ = ex.Decide(gate.Canary, h.Rollback.Mode, h.Release+" rolled back: "+why.Why, nil, now) // refuses nothing
	rolledBacks.WithLabelValues(h.Name, h.Release, why.Why, h.Rollback.Mode.String()).Inc()
	says := "a release does worse than the stable one; its callers go back"
	if h.Rollback.Mode == gate.Shadow {
		says = "a release does worse than the stable one, and would be rolled back"
	}
	h.logger.Error(says, zap.String("api", h.Name), zap.String("release", h.Release), zap.Any("rolled_back", why), zap.String("request_id", ex.ID))
	data := map[string]any{
		"api": h.Name, "release": h.Release, "why": why.Why, "mode": h.Rollback.Mode.String(), "weight": why.Weight,
		"canary_results": why.Canary.Results, "canary_failures": why.Canary.Failures, "canary_p95_ms": why.Canary.P95,
		"stable_results": why.Stable.Results, "stable_failures": why.Stable.Failures, "stable_p95_ms": why.Stable.P95,
	}
	// Handlers of events may take their time, which is not the request's.
	go h.events.Emit(h.ctx, "gatehouse_canary_rolled_back", data)
}

const (
	storeTimeout = 10 * time.Second
	storeEvery   = 15 * time.Second // longer than one try
)

var errChanged = errors.New("an operator has set another weight meanwhile")

// store writes a rollback where other nodes and a restart find it. While that
// fails, requests that come later try again: nothing has to run for it.
func (h *Handler) store(s *stop, now time.Time) {
	next := s.next.Load()
	if now.UnixNano() < next || !s.next.CompareAndSwap(next, now.Add(storeEvery).UnixNano()) {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(h.ctx, storeTimeout)
		defer cancel()
		err := h.writer.Change(ctx, h.id, "gatehouse canary", func(old json.RawMessage) (json.RawMessage, error) {
			if !s.replaces(old) {
				return nil, errChanged
			}
			return s.object, nil
		})
		if err != nil && !errors.Is(err, errChanged) && h.ctx.Err() == nil {
			h.logger.Error("a rollback cannot be stored; it holds on this node until it can", zap.String("release", h.id), zap.Error(err))
		}
	}()
}

// replaces reports whether the stored object is the one that the rollback is
// for. One that cannot be read had no effect.
func (s *stop) replaces(old json.RawMessage) bool {
	if old == nil {
		return s.before == nil
	}
	o, err := readOverride(old)
	if err != nil {
		return s.before == nil
	}
	return s.before.same(o)
}
