package console

import (
	"fmt"
	"net/http"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyevents"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/gate/latest"
	"github.com/gatehouse-caddy/gatehouse/modules/registry"
)

func init() {
	caddy.RegisterModule(new(App))
	caddy.RegisterModule(new(Admin))
}

// App says how much the console remembers. It need not be configured.
type App struct {
	// How many finished Exchanges that passed are remembered, and as many that
	// did not; at most 100000. Default: 1000.
	Keep int `json:"keep,omitempty"`

	// Remembers nothing, so that requests do not pay for it. Default: false.
	Off bool `json:"off,omitempty"`

	release func()
}

const (
	defaultKeep = 1000
	maxKeep     = 100_000
)

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "gatehouse_console",
		New: func() caddy.Module { return new(App) },
	}
}

// Provision fills in the default.
func (a *App) Provision(caddy.Context) error {
	if a.Keep == 0 {
		a.Keep = defaultKeep
	}
	return nil
}

// Validate looks at the settings.
func (a *App) Validate() error {
	if a.Keep < 1 || a.Keep > maxKeep {
		return fmt.Errorf("console: keep %d is not between 1 and %d", a.Keep, maxKeep)
	}
	return nil
}

// kept is how many Exchanges the configuration wants remembered.
var kept = latest.Of[int]{Changed: func(n *int) {
	if n == nil {
		n = new(defaultKeep)
	}
	gate.KeepRecent(*n)
}}

// Start makes the settings count. What is remembered stays, as far as it fits.
func (a *App) Start() error {
	n := a.Keep
	if a.Off {
		n = 0
	}
	a.release = kept.Claim(n)
	return nil
}

// Stop goes back to what others say, or the default.
func (a *App) Stop() error {
	if a.release != nil {
		a.release()
	}
	return nil
}

// Admin shows the console on Caddy's admin endpoint.
//
//	GET /gatehouse/exchanges          the last Exchanges, newest first
//	GET /gatehouse/exchanges/<id>     one of them
//	GET /gatehouse/exchanges/stream   what comes, as server-sent events
//	GET /gatehouse/overview           breakers, quotas, canaries, feeds, certificates
//	GET /gatehouse/console            a page that shows all of it
type Admin struct {
	gone <-chan struct{} // closed when the configuration is replaced
}

// CaddyModule returns the Caddy module information.
func (*Admin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.gatehouse_console",
		New: func() caddy.Module { return new(Admin) },
	}
}

// Provision has Exchanges remembered from now on: there is somebody to ask.
func (a *Admin) Provision(ctx caddy.Context) error {
	a.gone = ctx.Done()
	if asksOnDemand(ctx) {
		events, err := ctx.App("events")
		if err != nil {
			return err
		}
		if err := events.(*caddyevents.App).On("cached_managed_cert", a); err != nil {
			return err
		}
	}
	if kept.Load() == nil && gate.RecentKept() == 0 {
		gate.KeepRecent(defaultKeep)
	}
	return nil
}

const prefix = "/gatehouse/"

// Routes are the console's own places below /gatehouse/.
func (a *Admin) Routes() []caddy.AdminRoute {
	routes := []caddy.AdminRoute{
		{Pattern: prefix + "exchanges", Handler: get(seen(serveList))},
		{Pattern: prefix + "exchanges/", Handler: get(seen(serveOne))},
		{Pattern: prefix + "exchanges/stream", Handler: get(seen(a.serveStream))},
		{Pattern: prefix + "overview", Handler: get(seen(serveOverview))},
	}
	for _, asset := range assets {
		routes = append(routes, caddy.AdminRoute{Pattern: prefix + asset.path, Handler: get(asset.serve)})
	}
	return routes
}

// get answers methods that only look.
func get(serve caddy.AdminHandlerFunc) caddy.AdminHandler {
	return caddy.AdminHandlerFunc(func(w http.ResponseWriter, r *http.Request) error {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Message: "use GET"}
		}
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		return serve(w, r)
	})
}

// seen answers those whose role lets them see what the gateway has seen. The page
// itself tells nothing.
func seen(serve caddy.AdminHandlerFunc) caddy.AdminHandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) error {
		if err := registry.MaySee(r); err != nil {
			return err
		}
		return serve(w, r)
	}
}

func badRequest(format string, args ...any) error {
	return caddy.APIError{HTTPStatus: http.StatusBadRequest, Message: fmt.Sprintf(format, args...)}
}

// Interface guards
var (
	_ caddy.App         = (*App)(nil)
	_ caddy.Provisioner = (*App)(nil)
	_ caddy.Validator   = (*App)(nil)
	_ caddy.Provisioner = (*Admin)(nil)
	_ caddy.AdminRouter = (*Admin)(nil)

	_ caddyevents.Handler = (*Admin)(nil)
)
