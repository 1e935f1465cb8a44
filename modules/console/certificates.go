package console

import (
	"cmp"
	"math"
	"slices"
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

// certificates lists what Caddy would present for the names that its servers
// serve and its certificate automation manages, the first to expire first.
// Those issued on demand for names that no configuration has are not listed.
func certificates(ctx caddy.Context) []certificate {
	list, seen := []certificate{}, map[string]bool{}
	for _, name := range names(ctx) {
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
