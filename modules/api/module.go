package api

import (
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"sync/atomic"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/registry"
)

func init() {
	caddy.RegisterModule(new(Handler))
	caddy.RegisterModule(new(Drain))
	caddy.RegisterModule(new(Headroom))
	caddy.RegisterModule(new(Proxies))
}

// Handler stands around everything that an API consists of.
//
// With `errors site` these placeholders are set for the site's handle_errors:
//
// Placeholder | Description
// ------------|------------
// `{gatehouse.reason}` | Why the request was refused, e.g. `quota.exhausted`
// `{gatehouse.detail}` | One sentence for the client
// `{gatehouse.request_id}` | The request's id
type Handler struct {
	// The API's name: letters, digits, `.`, `_` and `-`. It labels logs,
	// metrics and quotas. Required.
	Name string `json:"name,omitempty"`

	// Who answers for the API, for logs and the catalog.
	Owner string `json:"owner,omitempty"`

	// What the API is for, in one sentence, for the catalog.
	Description string `json:"description,omitempty"`

	// Who writes refusals: `problem` answers them as RFC 9457 problem
	// documents, `site` hands them to the site's handle_errors.
	// Default: `problem`.
	Errors string `json:"errors,omitempty"`

	// What happens to 5xx answers of the upstream: `mask` keeps the status and
	// replaces the body by a problem, `pass` leaves them as they are.
	// Default: `mask`.
	UpstreamErrors string `json:"upstream_errors,omitempty"`

	// Which requests leave a decision log entry: `all`, `denied` or `off`.
	// Denied includes what shadow mode would have denied. Default: `all`.
	Log string `json:"log,omitempty"`

	// The prefix of a problem's `type`; the reason is appended. Leave it alone
	// unless you publish your own description of each reason there.
	// Default: this project's list of reasons.
	ProblemType string `json:"problem_type,omitempty"`

	// The handlers of the API, in the order they run.
	Routes caddyhttp.RouteList `json:"routes,omitempty"`

	chain     caddyhttp.Handler
	owners    []gate.Owner
	logger    *zap.Logger
	decisions *zap.Logger
	modes     registry.Live[map[string]gate.LiveModes]
	drain     *Drain
	counted   bool
	spotted   atomic.Bool // an untrusted proxy, of which the log knows
}

// CaddyModule returns the Caddy module information.
func (*Handler) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "http.handlers.gatehouse_api",
		New: func() caddy.Module { return new(Handler) },
	}
}

// Provision fills in defaults and compiles the chain.
func (h *Handler) Provision(ctx caddy.Context) error {
	if h.Errors == "" {
		h.Errors = "problem"
	}
	if h.UpstreamErrors == "" {
		h.UpstreamErrors = "mask"
	}
	if h.Log == "" {
		h.Log = "all"
	}
	if h.ProblemType == "" {
		h.ProblemType = gate.DefaultProblemType
	}
	h.logger = ctx.Logger()
	h.decisions = h.logger.Named("decision").WithOptions(zap.WithCaller(false), zap.AddStacktrace(zap.PanicLevel))
	if err := gate.RegisterMetrics(ctx, dropped); err != nil {
		return err
	}
	var err error
	if h.modes, err = modes.Open(ctx); err != nil {
		return err
	}
	if _, err := ctx.App("gatehouse_headroom"); err != nil {
		return err
	}
	app, err := ctx.App("gatehouse_drain")
	if err != nil {
		return err
	}
	h.drain = app.(*Drain)
	if server, ok := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server); ok {
		h.drain.watch(server)
	}
	for stage, mode := range h.modes.Load()[h.Name] {
		h.logger.Warn("the mode of a stage is set over the admin API, whatever the configuration says", zap.String("api", h.Name), zap.Stringer("stage", stage), zap.Stringer("mode", mode))
	}
	known, _ := running.LoadOrStore(h.Name, new(standing))
	h.counted = true
	if err := h.Routes.Provision(ctx); err != nil {
		return fmt.Errorf("setting up api %q: %w", h.Name, err)
	}
	known.(*standing).add(h.Routes)
	about := &gate.Description{API: h.Name, Owner: h.Owner, Text: h.Description, ProblemType: h.ProblemType, Stages: []gate.Stage{gate.API}}
	gate.Visit(h.Routes, func(m caddyhttp.MiddlewareHandler) {
		if o, ok := m.(gate.Owner); ok {
			h.owners = append(h.owners, o)
		}
		if proxy, ok := m.(*reverseproxy.Handler); ok {
			if t, ok := proxy.Transport.(gate.Describer); ok {
				t.Describe(about)
			}
		}
	})
	if err := gate.Introduce(h.Routes, about); err != nil {
		return fmt.Errorf("setting up api %q: %w", h.Name, err)
	}
	h.chain = h.compile(ctx)
	return nil
}

// Inner is the API's chain.
func (h *Handler) Inner() caddyhttp.RouteList { return h.Routes }

// compile links the handlers once. Caddy links those of a route anew for each
// request, which only a route with a matcher needs, or a server that traces
// handlers in its log.
func (h *Handler) compile(ctx caddy.Context) caddyhttp.Handler {
	server, _ := ctx.Value(caddyhttp.ServerCtxKey).(*caddyhttp.Server)
	traced := server != nil && server.Logs != nil && server.Logs.Trace
	var next caddyhttp.Handler = caddyhttp.HandlerFunc(unmatched)
	for i, route := range slices.Backward(h.Routes) {
		if traced || len(route.MatcherSets) > 0 || route.Group != "" || route.Terminal {
			next = h.Routes[i : i+1].Compile(next)
			continue
		}
		for _, handler := range slices.Backward(route.Handlers) {
			next = link{handler, next}
		}
	}
	return next
}

// link is a handler that knows the next one.
type link struct {
	caddyhttp.MiddlewareHandler
	next caddyhttp.Handler
}

func (l link) ServeHTTP(w http.ResponseWriter, r *http.Request) error {
	return l.MiddlewareHandler.ServeHTTP(w, r, l.next)
}

// Cleanup takes the API out of those that run, and has its entries written
// while its log is open.
func (h *Handler) Cleanup() error {
	if !h.counted {
		return nil
	}
	h.counted = false
	Flush()
	_, err := running.Delete(h.Name)
	return err
}

// unmatched ends every chain: without it Caddy would answer 200 with nothing.
func unmatched(http.ResponseWriter, *http.Request) error {
	return gate.Deny(&gate.Denial{Reason: gate.APIUnmatched})
}

var validName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)

// Validate reports the first setting that makes no sense.
func (h *Handler) Validate() error {
	switch {
	case h.Name == "":
		return errors.New("an api needs a name")
	case !validName.MatchString(h.Name):
		return fmt.Errorf("api name %q must be at most 64 letters, digits, dots, underscores and hyphens", h.Name)
	case h.Errors != "problem" && h.Errors != "site":
		return fmt.Errorf("unrecognized errors %q; expected problem or site", h.Errors)
	case h.UpstreamErrors != "mask" && h.UpstreamErrors != "pass":
		return fmt.Errorf("unrecognized upstream_errors %q; expected mask or pass", h.UpstreamErrors)
	case h.Log != "all" && h.Log != "denied" && h.Log != "off":
		return fmt.Errorf("unrecognized log %q; expected all, denied or off", h.Log)
	}
	return nil
}

// Interface guards
var (
	_ caddy.Provisioner           = (*Handler)(nil)
	_ caddy.Validator             = (*Handler)(nil)
	_ caddy.CleanerUpper          = (*Handler)(nil)
	_ caddyhttp.MiddlewareHandler = (*Handler)(nil)
	_ gate.Container              = (*Handler)(nil)
)
