package canary

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/canary/internal/release"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/registry"
)

func init() { caddy.RegisterModule(new(Handler)) }

// Handler gives a new release of an API a share of the callers, compares it
// with the stable release, which is what follows, and takes the callers back
// when it does worse.
//
// Placeholder | Description
// ------------|------------
// `{gatehouse.release}` | The release's name, while it answers
type Handler struct {
	// The name of the release. Required; `stable` is what the others are called.
	Release string `json:"release,omitempty"`

	// What the release belongs to: weights of one name add up to at most 100,
	// and the live object of the release is `<name>.<release>`. The api
	// directive gives its own name. Default: empty.
	Name string `json:"name,omitempty"`

	// The percentage of callers that are on the release, until an operator sets
	// another as a live object. Default: 0, which leaves it to those who ask
	// for the release by force.
	Weight float64 `json:"weight,omitempty"`

	// Who stays on the release: a `principal`, or, not proven, an address; a
	// principal or else a `cookie`; or an `address`, whoever is proven.
	// Default: `principal`.
	Sticky string `json:"sticky,omitempty"`

	// The name of the cookie. Default: `gatehouse_canary`.
	Cookie string `json:"cookie,omitempty"`

	// How a request asks for a release by force. Default: it cannot.
	Force *Force `json:"force,omitempty"`

	// When the callers are taken back.
	Rollback Rollback `json:"rollback,omitzero"`

	// Whether the release gets its callers: `enforce`, `shadow`, which records
	// who it would be, or `off`. Default: `enforce`.
	Mode gate.Mode `json:"mode,omitempty"`

	// The handlers of the release, in the order they run.
	Routes caddyhttp.RouteList `json:"routes,omitempty"`

	id       string // of the live object
	seed     release.Point
	chain    caddyhttp.Handler
	state    *state
	watch    *watch
	watchKey watchKey
	live     registry.Live[map[string]*override]
	writer   registry.Writer
	events   *caddyevents.App
	ctx      caddy.Context
	logger   *zap.Logger
	rule     [4]string // by choice
	own      [3]prometheus.Counter
	stable   [3]prometheus.Counter
	opened   bool
}

// Force says how a request asks for a release.
type Force struct {
	// The header field. What says something else than the value below is for
	// another release, or for the stable one.
	Header string `json:"header,omitempty"`

	// What it must say for this release. Default: the name of the release.
	Value string `json:"value,omitempty"`
}

// Rollback says when a release is worse than the stable one.
type Rollback struct {
	// By how many percentage points the share of failures may exceed the stable
	// one's. Default: 5.
	Errors float64 `json:"errors,omitempty"`

	// How many times the stable one's 95th percentile of the time to the
	// response header may be; 10 milliseconds more are always allowed.
	// Default: 1.5.
	Latency float64 `json:"latency,omitempty"`

	// How many results there must be of both in a window. Default: 100.
	Samples int `json:"samples,omitempty"`

	// The time that is looked back at. Default: 1m.
	Window caddy.Duration `json:"window,omitempty"`

	// Whether the callers are taken back: `enforce`, `shadow`, which only tells
	// of it, or `off`. Default: `enforce`.
	Mode gate.Mode `json:"mode,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.gatehouse_canary",
		New: func() caddy.Module { return new(Handler) },
	}
}

const (
	stableName    = "stable"
	defaultCookie = "gatehouse_canary"
	maxSamples    = 100_000
)

var stickies = []string{"principal", "cookie", "address"}

// Provision fills in defaults, compiles the release's handlers and takes up
// what is known of the release.
func (h *Handler) Provision(ctx caddy.Context) error {
	h.defaults()
	if err := h.check(); err != nil {
		return fmt.Errorf("canary %q: %w", h.Release, err)
	}
	h.id = h.Release
	if h.Name != "" {
		h.id = h.Name + "." + h.Release
	}
	h.ctx, h.logger = ctx, ctx.Logger()
	h.seed = release.Start.Add(h.Release)
	h.rule = [4]string{passed: stableName, taken: h.Release, forced: h.Release + ", forced", refused: stableName + ", forced"}
	if err := h.meter(ctx); err != nil {
		return err
	}
	var err error
	if h.live, err = canaries.Open(ctx); err != nil {
		return err
	}
	if h.writer, err = canaries.Writer(ctx); err != nil {
		return err
	}
	app, err := ctx.App("events")
	if err != nil {
		return err
	}
	h.events = app.(*caddyevents.App)
	if err := h.Routes.Provision(ctx); err != nil {
		return fmt.Errorf("setting up release %q: %w", h.Release, err)
	}
	h.chain = h.Routes.Compile(caddyhttp.HandlerFunc(unanswered))
	h.open()
	weights.WithLabelValues(h.Name, h.Release).Set(h.effective(h.live.Load()[h.id]))
	switch o := h.live.Load()[h.id]; {
	case o == nil:
	case o.RolledBack != nil && *o.Weight == 0:
		h.logger.Warn("a release is rolled back and gets no callers until its weight is set",
			zap.String("api", h.Name), zap.String("release", h.Release), zap.Time("since", o.RolledBack.At))
	case *o.Weight != h.Weight:
		h.logger.Warn("the weight of a release is set over the admin API, whatever the configuration says",
			zap.String("api", h.Name), zap.String("release", h.Release), zap.Float64("weight", *o.Weight), zap.Float64("configured", h.Weight))
	}
	return nil
}

func (h *Handler) defaults() {
	b := &h.Rollback
	orDefault(&h.Sticky, "principal")
	orDefault(&h.Cookie, defaultCookie)
	orDefault(&b.Errors, 5)
	orDefault(&b.Latency, 1.5)
	orDefault(&b.Samples, 100)
	orDefault(&b.Window, caddy.Duration(time.Minute))
	if h.Force != nil {
		h.Force.Header = http.CanonicalHeaderKey(h.Force.Header)
		orDefault(&h.Force.Value, h.Release)
	}
}

func orDefault[T comparable](to *T, value T) {
	var zero T
	if *to == zero {
		*to = value
	}
}

var (
	// validRelease has no dot: in the id of a live object, what is behind the
	// last one is the release.
	validRelease = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$`)
	validName    = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._-]{0,63})?$`)
	validToken   = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$") // RFC 9110, section 5.6.2
)

// check reports the first setting that makes no sense.
func (h *Handler) check() error {
	b := &h.Rollback
	switch {
	case !validRelease.MatchString(h.Release):
		return errors.New("a release needs a name of at most 63 letters, digits, underscores and hyphens")
	case strings.EqualFold(h.Release, stableName):
		return errors.New("stable is the name of what follows")
	case !validName.MatchString(h.Name):
		return fmt.Errorf("name %q must be at most 64 letters, digits, dots, underscores and hyphens", h.Name)
	case !(h.Weight >= 0 && h.Weight <= 100):
		return fmt.Errorf("weight %g is not from 0 to 100", h.Weight)
	case !slices.Contains(stickies, h.Sticky):
		return fmt.Errorf("unrecognized sticky %q; expected %s", h.Sticky, strings.Join(stickies, ", "))
	case !validToken.MatchString(h.Cookie):
		return fmt.Errorf("%q cannot be the name of a cookie", h.Cookie)
	case h.Force != nil && !validToken.MatchString(h.Force.Header):
		return fmt.Errorf("force: %q cannot be the name of a header field", h.Force.Header)
	case h.Force != nil && strings.EqualFold(h.Force.Value, stableName):
		return errors.New("force: stable asks for what follows")
	case !(b.Errors > 0 && b.Errors <= 100):
		return fmt.Errorf("rollback: errors %g is not above 0 and at most 100", b.Errors)
	case !(b.Latency > 1 && b.Latency <= 1000):
		return fmt.Errorf("rollback: latency %g is not above 1 and at most 1000", b.Latency)
	case b.Samples < 1 || b.Samples > maxSamples:
		return fmt.Errorf("rollback: samples %d is not from 1 to %d", b.Samples, maxSamples)
	case b.Window < caddy.Duration(time.Second) || b.Window > caddy.Duration(24*time.Hour):
		return errors.New("rollback: window must be from 1s to 24h")
	case len(h.Routes) == 0:
		return errors.New("a release needs handlers of its own; a reverse_proxy is the least")
	}
	return nil
}

// unanswered ends the release's own handlers: without it Caddy would answer
// 200 with nothing.
func unanswered(_ http.ResponseWriter, r *http.Request) error {
	denial := &gate.Denial{Reason: gate.APIUnmatched}
	if ex := gate.Of(r); ex.API == "" {
		ex.Publish(r, denial)
	}
	return gate.Deny(denial)
}

// Cleanup gives back what is known of the release.
func (h *Handler) Cleanup() error {
	return h.close()
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
)
