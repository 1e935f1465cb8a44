package console

import (
	"cmp"
	"context"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"
)

// certificate is one that Caddy has at hand for a name of the configuration.
type certificate struct {
	Names    []string  `json:"names"`
	Issuer   string    `json:"issuer"`
	NotAfter time.Time `json:"not_after"`
	DaysLeft float64   `json:"days_left"`
}

// maxNames bounds how many names are looked up, as many as there may be.
const maxNames = 1000

// onDemand are names that no configuration has, of certificates that Caddy took
// up while it ran. They outlive a reload, as its cache of certificates does.
var onDemand struct {
	sync.Mutex
	names map[string]bool
}

// asksOnDemand reports whether there may be certificates for names that are not
// in the configuration. Nobody listens to Caddy's events without: to tell a
// listener whose event it is, Caddy reads its whole tls app while that starts.
func asksOnDemand(ctx caddy.Context) bool {
	app, err := ctx.AppIfConfigured("tls")
	t, ok := app.(*caddytls.TLS)
	return err == nil && ok && t.Automation != nil && slices.ContainsFunc(t.Automation.Policies, func(p *caddytls.AutomationPolicy) bool { return p.OnDemand })
}

// Handle is told of each certificate that Caddy takes up.
func (*Admin) Handle(_ context.Context, e caddy.Event) error {
	sans, _ := e.Data["sans"].([]string)
	onDemand.Lock()
	defer onDemand.Unlock()
	if onDemand.names == nil {
		onDemand.names = make(map[string]bool)
	}
	if len(onDemand.names)+len(sans) > maxNames {
		for name := range onDemand.names {
			if len(caddytls.AllMatchingCertificates(name)) == 0 {
				delete(onDemand.names, name) // Caddy has dropped it
			}
		}
	}
	for _, name := range sans {
		if len(onDemand.names) < maxNames {
			onDemand.names[name] = true
		}
	}
	return nil
}

// certificates lists what Caddy would present for the names that its servers
// serve and its certificate automation manages, and what it took up on demand,
// the first to expire first.
func certificates(ctx caddy.Context) []certificate {
	list, seen := []certificate{}, map[string]bool{}
	onDemand.Lock()
	taken := slices.Collect(maps.Keys(onDemand.names))
	onDemand.Unlock()
	for _, name := range append(names(ctx), taken...) {
		for _, cert := range caddytls.AllMatchingCertificates(name) {
			leaf := cert.Leaf
			if leaf == nil || seen[cert.Hash()] {
				continue
			}
			seen[cert.Hash()] = true
			issuer := leaf.Issuer.CommonName
			if issuer == "" {
				issuer = leaf.Issuer.String()
			}
			left := time.Until(leaf.NotAfter).Hours() / 24
			list = append(list, certificate{cert.Names, issuer, leaf.NotAfter.UTC(), math.Floor(left*10) / 10})
		}
	}
	slices.SortFunc(list, func(a, b certificate) int { return a.NotAfter.Compare(b.NotAfter) })
	return list
}

// names are the host names of the configuration.
func names(ctx caddy.Context) []string {
	found := map[string]bool{}
	add := func(name string) {
		if len(found) < maxNames && name != "" {
			found[name] = true
		}
	}
	if app, err := ctx.AppIfConfigured("http"); err == nil {
		for _, server := range app.(*caddyhttp.App).Servers {
			for _, route := range server.Routes {
				for _, set := range route.MatcherSets {
					for _, m := range set {
						if hosts, ok := m.(*caddyhttp.MatchHost); ok {
							for _, h := range *hosts {
								add(h)
							}
						}
					}
				}
			}
		}
	}
	if app, err := ctx.AppIfConfigured("tls"); err == nil {
		if automation := app.(*caddytls.TLS).Automation; automation != nil {
			for _, policy := range automation.Policies {
				for _, name := range policy.Subjects() {
					add(name)
				}
			}
		}
	}
	out := make([]string, 0, len(found))
	for name := range found {
		out = append(out, name)
	}
	slices.SortFunc(out, cmp.Compare[string])
	return out
}
