// Package order gives every directive of the suite its place among Caddy's.
//
// The places are written once, here, because Caddy keeps none between plugins.
// The package knows names only and imports no stage; each stage registers its
// own parser and imports this package, so that a stage compiled alone keeps
// its place.
package order

import (
	"slices"

	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
)

// The directives in the order of the walk, outermost first.
var (
	// beforeRedir comes first: checks that need no caller, on the request as it
	// was sent, before anything rewrites it. catalog answers before the contract
	// refuses its path and before anybody has to prove who they are: it is for
	// those who have no credential yet. So does resource. jwks is for upstreams,
	// in the same place.
	beforeRedir = []string{"reputation", "guard", "catalog", "resource", "jwks", "contract"}

	// afterBasicAuth comes once a caller may be known. rate_limit of
	// caddy-ratelimit anchors before basic_auth and so stands in front.
	afterBasicAuth = []string{"authentication", "identity", "require", "quota", "input", "firewall", "canary"}

	// beforeHandle holds what routes to a whole API.
	beforeHandle = []string{"api"}

	// beforeProxy comes last: what it does to a request is for the upstream alone.
	beforeProxy = []string{"transcode"}
)

func init() {
	for _, name := range beforeRedir {
		httpcaddyfile.RegisterDirectiveOrder(name, httpcaddyfile.Before, "redir")
	}
	for _, name := range slices.Backward(afterBasicAuth) { // each is put right behind the anchor
		httpcaddyfile.RegisterDirectiveOrder(name, httpcaddyfile.After, "basic_auth")
	}
	for _, name := range beforeHandle {
		httpcaddyfile.RegisterDirectiveOrder(name, httpcaddyfile.Before, "handle")
	}
	for _, name := range beforeProxy {
		httpcaddyfile.RegisterDirectiveOrder(name, httpcaddyfile.Before, "reverse_proxy")
	}
}

// Stages lists the directives that may stand in an api block, outermost first.
func Stages() []string {
	return slices.Concat(beforeRedir, afterBasicAuth, beforeProxy)
}
