// Command caddy is Caddy with the whole gateway suite and mholt/caddy-ratelimit.
package main

import (
	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	_ "github.com/caddyserver/caddy/v2/modules/standard"
	_ "github.com/mholt/caddy-ratelimit"

	_ "github.com/gatehouse-caddy/gatehouse"
	_ "github.com/gatehouse-caddy/gatehouse/modules/contract/diff" // caddy gatehouse contract diff
)

func main() { caddycmd.Main() }
