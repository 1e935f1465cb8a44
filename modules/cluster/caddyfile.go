package cluster

import (
	"github.com/caddyserver/caddy/v2/caddyconfig"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
)

func init() { httpcaddyfile.RegisterGlobalOption("cluster", parseOption) }

// parseOption reads the global option. Syntax:
//
//	cluster <url> {
//	    username <name>
//	    password <placeholder>
//	    prefix   <text>
//	    timeout  <duration>
//	    nodes    <count>
//	}
func parseOption(d *caddyfile.Dispenser, existing any) (any, error) {
	d.Next() // consume the option's name
	if existing != nil {
		return nil, d.Err("the cluster option stands twice")
	}
	a := new(App)
	if !d.AllArgs(&a.URL) {
		return nil, d.Err("cluster needs the server's URL, for example redis://localhost:6379")
	}
	if err := spelled(d, secretless(a.URL, "")); err != nil {
		return nil, err
	}
	for d.NextBlock(0) {
		var err error
		switch opt := d.Val(); opt {
		case "username":
			err = parse.Text(d, &a.Username)
		case "password":
			if err = parse.Text(d, &a.Password); err == nil {
				err = spelled(d, secretless(a.URL, a.Password))
			}
		case "prefix":
			err = parse.Text(d, &a.Prefix)
		case "timeout":
			err = parse.Duration(d, &a.Timeout)
		case "nodes":
			err = parse.Count(d, &a.Nodes)
		default:
			err = parse.Unknown(d, "cluster option", opt, "username", "password", "prefix", "timeout", "nodes")
		}
		if err != nil {
			return nil, err
		}
	}
	return httpcaddyfile.App{Name: "gatehouse_cluster", Value: caddyconfig.JSON(a, nil)}, nil
}

// spelled gives an error its place in the Caddyfile.
func spelled(d *caddyfile.Dispenser, err error) error {
	if err == nil {
		return nil
	}
	return d.Err(err.Error())
}
