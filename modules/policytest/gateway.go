package policytest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// gateway is a configuration that was provisioned and not started.
type gateway struct {
	config   *config
	http     *caddyhttp.App
	mint     func(issuer string, facts, claims map[string]any, forged bool) (string, error)
	key      func(id string, facts map[string]any) (string, error)
	upstream *upstream
	tokens   map[*caller]string // made once in a case
	certs    map[*caller]*clientCertificate
	stop     func()
}

// open provisions the configuration. Its modules belong to a context of their
// own, because nobody else would clean them up.
func (c *config) open() (_ *gateway, err error) {
	registerTap()
	apps, proxies, err := c.rehearsed()
	if err != nil {
		return nil, err
	}
	ctx, cfg, stop, err := emptyContext()
	if err != nil {
		return nil, err
	}
	g := &gateway{config: c, stop: stop, tokens: map[*caller]string{}, certs: map[*caller]*clientCertificate{}}
	defer func() {
		if err != nil {
			g.close()
			err = fmt.Errorf("%s: %w", c.file, err)
		}
	}()
	cfg.AppsRaw = apps
	for _, name := range slices.Sorted(maps.Keys(apps)) {
		if _, err := ctx.App(name); err != nil {
			return nil, err
		}
	}
	app, err := ctx.App("http")
	if err != nil {
		return nil, err
	}
	g.http = app.(*caddyhttp.App)
	g.upstream = newUpstream(c.set)
	if found := g.reach(); found < proxies {
		return nil, fmt.Errorf("of %d reverse_proxy handlers only %d can be answered for in process; the others stand in a handler that hides them", proxies, found)
	}
	return g, g.rehearse(ctx)
}

// emptyContext is one without apps, that says nothing and whose storage is a
// folder that goes away with it.
func emptyContext() (ctx caddy.Context, cfg *caddy.Config, stop func(), err error) {
	dir, err := os.MkdirTemp("", "gatehouse-test-")
	if err != nil {
		return ctx, nil, nil, err
	}
	cfg = &caddy.Config{
		Admin:      &caddy.AdminConfig{Disabled: true},
		Logging:    &caddy.Logging{Logs: map[string]*caddy.CustomLog{"default": {BaseLog: caddy.BaseLog{Level: "FATAL"}}}},
		StorageRaw: marshal(map[string]any{"module": "file_system", "root": dir}),
	}
	base, err := caddy.ProvisionContext(cfg)
	if err != nil {
		_ = os.RemoveAll(dir)
		return ctx, nil, nil, err
	}
	ctx, cancel := caddy.NewContext(base)
	return ctx, cfg, func() {
		cancel()
		_ = os.RemoveAll(dir)
	}, nil
}

// rehearse gives identity the keys that the callers of cases are proven by.
func (g *gateway) rehearse(ctx caddy.Context) (err error) {
	app, err := ctx.AppIfConfigured("gatehouse_identity")
	if errors.Is(err, caddy.ErrNotConfigured) {
		return nil
	} else if err != nil {
		return err
	}
	identity, ok := app.(interface {
		Rehearse() (func(string, map[string]any, map[string]any, bool) (string, error), func(string, map[string]any) (string, error), error)
	})
	if !ok {
		return errors.New("the identity app cannot be rehearsed with")
	}
	g.mint, g.key, err = identity.Rehearse()
	return err
}

func (g *gateway) close() {
	if g.upstream != nil {
		g.upstream.close()
	}
	g.stop()
}

// reach replaces how every proxy dials, and counts them. It looks through what
// handlers show of themselves, as Caddy's own do of their routes.
func (g *gateway) reach() int {
	found := map[*reverseproxy.Handler]bool{}
	seen := map[uintptr]bool{}
	var look func(v reflect.Value)
	look = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Interface:
			look(v.Elem())
		case reflect.Pointer:
			if v.IsNil() || seen[v.Pointer()] {
				return
			}
			seen[v.Pointer()] = true
			if proxy, ok := reflect.TypeAssert[*reverseproxy.Handler](v); ok && g.upstream.take(proxy.Transport) {
				found[proxy] = true
			}
			look(v.Elem())
		case reflect.Struct:
			for i := range v.NumField() {
				if v.Type().Field(i).IsExported() {
					look(v.Field(i))
				}
			}
		case reflect.Slice, reflect.Array:
			for i := range v.Len() {
				look(v.Index(i))
			}
		case reflect.Map:
			for _, key := range v.MapKeys() {
				look(v.MapIndex(key))
			}
		default:
		}
	}
	for _, s := range g.http.Servers {
		look(reflect.ValueOf(s.Routes))
		look(reflect.ValueOf(s.NamedRoutes))
		look(reflect.ValueOf(s.Errors))
	}
	return len(found)
}

// find chooses the server and the host of a site, the way a client does: by
// what stands in its URL.
func (g *gateway) find(s *named) (*caddyhttp.Server, string, error) {
	c := g.config
	if s == nil {
		return g.only()
	}
	scheme, rest, ok := strings.Cut(s.value, "://")
	if !ok {
		scheme, rest = "", s.value
	}
	host, port, err := net.SplitHostPort(rest)
	if err != nil {
		host, port = strings.Trim(rest, "[]"), ""
	}
	for _, exact := range []bool{true, false} {
		for _, at := range c.sites {
			server := g.http.Servers[at.server]
			secure := len(server.TLSConnPolicies) > 0
			switch {
			case port != "" && !slices.Contains(at.ports, port),
				scheme == "https" && !secure, scheme == "http" && secure,
				!at.answers(host, exact):
				continue
			}
			return server, rest, nil
		}
	}
	return nil, "", fmt.Errorf("no site answers to %q; there is %s", s.value, c.siteNames(func(site) bool { return true }))
}

// answers reports whether a site is for a host.
func (s site) answers(host string, exact bool) bool {
	if exact {
		return strings.EqualFold(s.host, host)
	}
	_, parent, _ := strings.Cut(host, ".")
	return s.host == "" || strings.EqualFold(s.host, "*."+parent)
}

// only is the one site that can be meant when none is named.
func (g *gateway) only() (*caddyhttp.Server, string, error) {
	for _, wanted := range []func(site) bool{
		func(s site) bool { return s.api },
		func(s site) bool { return s.ours },
		func(site) bool { return true },
	} {
		var at []site
		for _, s := range g.config.sites {
			if wanted(s) && !slices.ContainsFunc(at, func(o site) bool { return o.server == s.server && o.host == s.host }) {
				at = append(at, s)
			}
		}
		switch {
		case len(at) == 0:
			continue
		case len(at) > 1 || strings.Contains(at[0].host, "*"):
			return nil, "", fmt.Errorf("site is needed, to say which of %s is asked", g.config.siteNames(wanted))
		}
		host := at[0].host
		if host == "" {
			host = "localhost"
		}
		server := g.http.Servers[at[0].server]
		if ports := at[0].ports; len(ports) > 0 && ports[0] != "443" && ports[0] != "80" {
			host = net.JoinHostPort(host, ports[0])
		}
		return server, host, nil
	}
	return nil, "", errors.New("the configuration has no site")
}

func (c *config) siteNames(of func(site) bool) string {
	var all []string
	for _, s := range c.sites {
		name := s.host
		if name == "" {
			name = ":" + strings.Join(s.ports, ", :")
		}
		if of(s) && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	slices.Sort(all)
	return strings.Join(all, ", ")
}

// tapName is a handler that exists while a policy test runs. It does nothing
// but leave the Exchange of a request with whoever made the request.
const tapName = "gatehouse_policytest"

type tap struct{}

// tapKey is where the request carries what the tap fills in.
type tapKey struct{}

// CaddyModule returns the Caddy module information.
func (tap) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{ID: "http.handlers." + tapName, New: func() caddy.Module { return new(tap) }}
}

func (tap) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	if at, ok := r.Context().Value(tapKey{}).(**gate.Exchange); ok {
		defer func() { *at = gate.Of(r) }() // also after a panic
	}
	return next.ServeHTTP(w, r)
}

// registerTap makes the tap known to Caddy, no earlier than it is needed: in a
// gateway that serves, no configuration can name it.
var registerTap = sync.OnceFunc(func() { caddy.RegisterModule(tap{}) })

// keep holds what is dear to make, rules and contracts, between the cases of a
// configuration. What requests leave behind is not kept.
func (c *config) keep() (release func(), err error) {
	ctx, _, stop, err := emptyContext()
	if err != nil {
		return nil, err
	}
	walk(c.root, func(o map[string]any) {
		name := str(o["handler"])
		if err != nil || name != "gatehouse_firewall" && name != "gatehouse_contract" {
			return
		}
		settings := maps.Clone(o)
		delete(settings, "handler")
		_, err = ctx.LoadModuleByID("http.handlers."+name, marshal(settings))
	})
	if err != nil {
		stop()
		return nil, fmt.Errorf("%s: %w", c.file, err)
	}
	return stop, nil
}

// contextWith hands the tap a place for the Exchange.
func contextWith(at **gate.Exchange) context.Context {
	return context.WithValue(context.Background(), tapKey{}, at)
}
