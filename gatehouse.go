// Package gatehouse brings the whole suite into a Caddy build: blank-import it,
// or build with `xcaddy build --with github.com/gatehouse-caddy/gatehouse`.
//
// Every stage can be had alone by importing its package instead.
package gatehouse

import (
	_ "github.com/gatehouse-caddy/gatehouse/modules/api"
	_ "github.com/gatehouse-caddy/gatehouse/modules/canary"
	_ "github.com/gatehouse-caddy/gatehouse/modules/catalog"
	_ "github.com/gatehouse-caddy/gatehouse/modules/cluster"
	_ "github.com/gatehouse-caddy/gatehouse/modules/console"
	_ "github.com/gatehouse-caddy/gatehouse/modules/contract"
	_ "github.com/gatehouse-caddy/gatehouse/modules/firewall"
	_ "github.com/gatehouse-caddy/gatehouse/modules/guard"
	_ "github.com/gatehouse-caddy/gatehouse/modules/identity"
	_ "github.com/gatehouse-caddy/gatehouse/modules/policytest"
	_ "github.com/gatehouse-caddy/gatehouse/modules/quota"
	_ "github.com/gatehouse-caddy/gatehouse/modules/registry"
	_ "github.com/gatehouse-caddy/gatehouse/modules/reputation"
	_ "github.com/gatehouse-caddy/gatehouse/modules/require"
	_ "github.com/gatehouse-caddy/gatehouse/modules/resilience"
	_ "github.com/gatehouse-caddy/gatehouse/modules/transcode"
)
