package resilience

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/resilience/internal/breaker"
)

func init() { caddy.RegisterModule(new(Transport)) }

// Transport sends requests to upstreams as Caddy's HTTP transport does, whose
// options it has too, and keeps failures of upstreams from spreading. Unlike
// there, a proxy named in the environment is not used unless network_proxy
// says so.
type Transport struct {
	reverseproxy.HTTPTransport

	// How long one try may wait for an upstream's response header, not counting
	// the time in which the client is waited for. gRPC is left to its own
	// deadlines. Default: 30s.
	TryTimeout caddy.Duration `json:"try_timeout,omitempty"`

	// How long all tries of a request may take together. Default: 60s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// When an upstream is left alone.
	Breaker Breaker `json:"breaker,omitzero"`

	// Which requests are tried again. How often is Caddy's lb_retries.
	Retry Retry `json:"retry,omitzero"`

	// Whether open breakers and deadlines are enforced: `enforce`, `shadow` or
	// `off`. Default: `enforce`.
	Mode gate.Mode `json:"mode,omitempty"`

	proxy   *reverseproxy.Handler
	targets targets
	budget  budget
	events  *caddyevents.App
	ctx     caddy.Context
	logger  *zap.Logger
	verbose bool // somebody may want to see the fields that were sent
}

// Breaker says when an upstream is left alone, and for how long.
type Breaker struct {
	// The share of failures at which the breaker opens, above 0 and at most 1.
	// Default: 0.5.
	Ratio float64 `json:"ratio,omitempty"`

	// How many results there must be in a window before the ratio counts.
	// Default: 20.
	Samples int `json:"samples,omitempty"`

	// The time that the ratio looks back at. Default: 10s.
	Window caddy.Duration `json:"window,omitempty"`

	// How many requests in a row open the breaker for which there was no
	// connection, or no answer in a time in which nobody was answered. Default: 5.
	Consecutive int `json:"consecutive,omitempty"`

	// How long the breaker is open the first time; each time that follows soon
	// is twice as long. Default: 10s.
	Open caddy.Duration `json:"open,omitempty"`

	// How long the breaker is open at most. Default: 5m.
	MaxOpen caddy.Duration `json:"max_open,omitempty"`

	// How many probes in a row must succeed to close the breaker. Default: 3.
	Probes int `json:"probes,omitempty"`

	// The status codes that are failures; 5 means all of 5xx. Default: 5.
	Statuses []int `json:"statuses,omitempty"`

	// What happens when every breaker is open and the upstreams can be reached,
	// but answer badly: `pass` sends requests on, since who provokes errors must
	// not be able to close the API for all, `refuse` answers 503. Default: `pass`.
	AllOpen string `json:"all_open,omitempty"`
}

// Retry says which requests are tried again.
type Retry struct {
	// Retries in flight as a share of all requests in flight, above 0 and at
	// most 1. Default: 0.2.
	Budget float64 `json:"budget,omitempty"`

	// How many retries may be in flight whatever the share is. Default: 3.
	AtLeast int `json:"at_least,omitempty"`

	// The largest request body that is kept to be sent again. Default: 64 KiB.
	Body int64 `json:"body,omitempty"`

	// The status codes of an upstream that are tried again; 5 means all of
	// 5xx. Default: 502, 503 and 504.
	Statuses []int `json:"statuses,omitempty"`
}

// CaddyModule returns the Caddy module information.
func (*Transport) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.reverse_proxy.transport.gatehouse",
		New: func() caddy.Module { return new(Transport) },
	}
}

// Provision fills in defaults and takes up the breakers of the upstreams.
func (t *Transport) Provision(ctx caddy.Context) error {
	t.defaults()
	if t.NetworkProxyRaw == nil && t.ForwardProxyURL == "" {
		t.NetworkProxyRaw = []byte(`{"from":"none"}`)
	}
	if err := t.HTTPTransport.Provision(ctx); err != nil {
		return err
	}
	proxy, err := proxyOf(ctx)
	if err != nil {
		return err
	}
	app, err := ctx.App("events")
	if err != nil {
		return err
	}
	t.proxy, t.events, t.ctx, t.logger = proxy, app.(*caddyevents.App), ctx, ctx.Logger()
	t.verbose = t.logger.Core().Enabled(zap.DebugLevel) || proxy.LoadBalancing != nil && len(proxy.LoadBalancing.RetryMatchRaw) > 0
	t.targets.settings = breaker.Settings{
		Ratio: t.Breaker.Ratio, Samples: t.Breaker.Samples, Window: time.Duration(t.Breaker.Window),
		Consecutive: t.Breaker.Consecutive, Open: time.Duration(t.Breaker.Open),
		MaxOpen: time.Duration(t.Breaker.MaxOpen), Probes: t.Breaker.Probes,
	}
	t.targets.failures = fmt.Sprint(t.Breaker.Statuses)
	for _, u := range proxy.Upstreams {
		t.targets.add(u.Dial, u.Dial)
	}
	return gate.RegisterMetrics(ctx, breakerState, breakersOpened, retries)
}

// proxyOf finds the reverse_proxy that a guest module is loaded for.
func proxyOf(ctx caddy.Context) (*reverseproxy.Handler, error) {
	for _, m := range ctx.Modules() {
		if h, ok := m.(*reverseproxy.Handler); ok {
			return h, nil
		}
	}
	return nil, errors.New("gatehouse can only be used in a reverse_proxy")
}

func (t *Transport) defaults() {
	b, r := &t.Breaker, &t.Retry
	orDefault(&t.TryTimeout, caddy.Duration(30*time.Second))
	orDefault(&t.Timeout, caddy.Duration(time.Minute))
	orDefault(&b.Ratio, 0.5)
	orDefault(&b.Samples, 20)
	orDefault(&b.Window, caddy.Duration(10*time.Second))
	orDefault(&b.Consecutive, 5)
	orDefault(&b.Open, caddy.Duration(10*time.Second))
	orDefault(&b.MaxOpen, max(b.Open, caddy.Duration(5*time.Minute)))
	orDefault(&b.Probes, 3)
	orDefault(&b.AllOpen, "pass")
	orDefault(&r.Budget, 0.2)
	orDefault(&r.AtLeast, 3)
	orDefault(&r.Body, 64<<10)
	if b.Statuses == nil {
		b.Statuses = []int{5}
	}
	if r.Statuses == nil {
		r.Statuses = []int{502, 503, 504}
	}
}

func orDefault[T comparable](to *T, value T) {
	var zero T
	if *to == zero {
		*to = value
	}
}

// Validate reports the first setting that makes no sense.
func (t *Transport) Validate() error {
	b, r := &t.Breaker, &t.Retry
	switch {
	case t.TryTimeout < 0 || t.Timeout < 0:
		return errors.New("try_timeout and timeout must be longer than nothing")
	case b.Ratio <= 0 || b.Ratio > 1:
		return fmt.Errorf("breaker ratio %g is not above 0 and at most 1", b.Ratio)
	case b.Samples < 1 || b.Consecutive < 1 || b.Probes < 1:
		return errors.New("breaker samples, consecutive and probes must be at least 1")
	case b.Window < caddy.Duration(10*time.Millisecond) || b.Open <= 0:
		return errors.New("breaker window must be at least 10ms, and open longer than nothing")
	case b.MaxOpen < b.Open:
		return errors.New("breaker max_open must not be less than open")
	case b.AllOpen != "pass" && b.AllOpen != "refuse":
		return fmt.Errorf("unrecognized all_open %q; expected pass or refuse", b.AllOpen)
	case r.Budget <= 0 || r.Budget > 1:
		return fmt.Errorf("retry budget %g is not above 0 and at most 1", r.Budget)
	case r.AtLeast < 0 || r.Body < 0:
		return errors.New("retry at_least and body must not be negative")
	}
	for _, s := range slices.Concat(b.Statuses, r.Statuses) {
		if !validStatus(s) {
			return fmt.Errorf("%d is neither a status code nor a class of them such as 5", s)
		}
	}
	return nil
}

func validStatus(s int) bool { return s >= 1 && s <= 5 || s >= 100 && s <= 599 }

func matches(status int, of []int) bool {
	for _, s := range of {
		if caddyhttp.StatusCodeMatches(status, s) {
			return true
		}
	}
	return false
}

// Cleanup gives the breakers back and closes idle connections.
func (t *Transport) Cleanup() error {
	t.targets.release()
	if t.Transport == nil {
		return nil // Provision failed early
	}
	return t.HTTPTransport.Cleanup()
}

// Interface guards
var (
	_ caddy.Provisioner         = (*Transport)(nil)
	_ caddy.Validator           = (*Transport)(nil)
	_ caddy.CleanerUpper        = (*Transport)(nil)
	_ reverseproxy.TLSTransport = (*Transport)(nil)
	_ reverseproxy.H2CTransport = (*Transport)(nil)
)
