package policytest

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig"
)

// config is a configuration as Caddy has adapted it, with what tests and audits
// ask about it.
type config struct {
	file   string
	source []byte
	root   map[string]any

	issuers []string
	plans   []string
	sites   []site
	set     *descriptors // of the services that transcode knows
	known   []string     // the names of all operations
}

// site is a host that a server has routes for. A server may have several.
type site struct {
	server string
	host   string // empty: any
	ports  []string
	ours   bool // a stage of ours stands in it
	api    bool // an api does
}

// readConfig adapts a configuration. What comes of it is Caddy's JSON, whatever
// the file was written in. Without the name of an adapter, it is a Caddyfile unless it
// is called .json.
func readConfig(file, adapter string) (*config, error) {
	source, err := os.ReadFile(file) //nolint:gosec // the operator's own file
	if err != nil {
		return nil, err
	}
	raw := source
	if adapter == "" && filepath.Ext(file) != ".json" {
		adapter = "caddyfile"
	}
	if adapter != "" {
		a := caddyconfig.GetAdapter(adapter)
		if a == nil {
			return nil, fmt.Errorf("--adapter: there is no adapter %q in this build of Caddy", adapter)
		}
		if raw, _, err = a.Adapt(source, map[string]any{"filename": file}); err != nil {
			return nil, fmt.Errorf("adapting %s: %w", file, err)
		}
	}
	root, err := decodeJSON(raw)
	if err != nil {
		return nil, fmt.Errorf("reading %s: %w", file, err)
	}
	c := &config{file: file, source: source}
	c.root, _ = root.(map[string]any)
	c.issuers = names(dig(c.root, "apps", "gatehouse_identity", "issuers"))
	c.plans = names(dig(c.root, "apps", "gatehouse_quota", "plans"))
	c.findSites()
	return c, c.learn()
}

// learn reads what the contracts and descriptors call the operations.
func (c *config) learn() (err error) {
	var sets []string
	walk(c.root, func(o map[string]any) {
		switch o["handler"] {
		case "gatehouse_contract":
			if file := str(o["file"]); file != "" {
				doc, e := readContract(file)
				if e != nil {
					err = errors.Join(err, e)
					return
				}
				for _, op := range doc.operations {
					c.known = append(c.known, op.id)
				}
			}
		case "gatehouse_transcode":
			if file := str(o["file"]); !slices.Contains(sets, file) {
				sets = append(sets, file)
			}
		}
	})
	if err != nil {
		return err
	}
	if c.set, err = readDescriptors(sets); err != nil {
		return err
	}
	c.known = append(c.known, c.set.methods()...)
	slices.Sort(c.known)
	c.known = slices.Compact(c.known)
	return nil
}

func (c *config) findSites() {
	servers, _ := dig(c.root, "apps", "http", "servers").(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		server, _ := servers[name].(map[string]any)
		var ports []string
		for _, l := range list(server["listen"]) {
			if _, port, err := net.SplitHostPort(str(l)); err == nil {
				ports = append(ports, port)
			}
		}
		for _, r := range list(server["routes"]) {
			route, _ := r.(map[string]any)
			s := site{server: name, ports: ports}
			walk(route, func(o map[string]any) {
				handler := str(o["handler"])
				s.ours = s.ours || strings.HasPrefix(handler, "gatehouse_")
				s.api = s.api || handler == "gatehouse_api"
			})
			hosts := []string{""}
			if of := hostsOf(route); len(of) > 0 {
				hosts = of
			}
			for n, host := range hosts {
				// Of several names of one site, the first stands for it.
				c.sites = append(c.sites, site{server: name, host: host, ports: ports, ours: s.ours && n == 0, api: s.api && n == 0})
			}
		}
	}
}

func hostsOf(route map[string]any) (hosts []string) {
	for _, m := range list(route["match"]) {
		for _, h := range list(dig(m, "host")) {
			hosts = append(hosts, str(h))
		}
	}
	return hosts
}

// walk visits every object of a JSON value, in a fixed order.
func walk(v any, visit func(map[string]any)) {
	switch v := v.(type) {
	case map[string]any:
		visit(v)
		for _, name := range slices.Sorted(maps.Keys(v)) {
			walk(v[name], visit)
		}
	case []any:
		for _, item := range v {
			walk(item, visit)
		}
	}
}

func dig(v any, path ...string) any {
	for _, name := range path {
		o, _ := v.(map[string]any)
		v = o[name]
	}
	return v
}

func str(v any) string {
	s, _ := v.(string)
	return s
}

func list(v any) []any {
	l, _ := v.([]any)
	return l
}

func names(v any) (all []string) {
	for _, item := range list(v) {
		all = append(all, str(dig(item, "name")))
	}
	return all
}

// rehearsed is the configuration without what reaches outside: a copy, since
// provisioning takes it apart.
func (c *config) rehearsed() (apps map[string]json.RawMessage, proxies int, err error) {
	copied, err := decodeJSON(marshal(c.root["apps"]))
	if err != nil {
		return nil, 0, err
	}
	all, _ := copied.(map[string]any)
	delete(all, "gatehouse_cluster") // a test is one node
	if events, ok := all["events"].(map[string]any); ok {
		delete(events, "subscriptions") // which may run programs
	}
	walk(all, func(o map[string]any) {
		if handlers, ok := o["handle"].([]any); ok { // tracing exports what it sees
			o["handle"] = slices.DeleteFunc(handlers, func(h any) bool { return str(dig(h, "handler")) == "tracing" })
		}
		if mtls, ok := o["mtls"].(map[string]any); ok { // a case is of no authority that could be asked
			delete(mtls, "revocation")
			delete(mtls, "trust_pool")
		}
		if o["handler"] != "reverse_proxy" {
			return
		}
		proxies++
		if e := inProcess(o); e != nil {
			err = errors.Join(err, e)
		}
	})
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", c.file, err)
	}
	servers, _ := dig(all, "http", "servers").(map[string]any)
	for _, s := range servers {
		server, _ := s.(map[string]any)
		tap := map[string]any{"handle": []any{map[string]any{"handler": tapName}}}
		server["routes"] = append([]any{tap}, list(server["routes"])...)
	}
	apps = make(map[string]json.RawMessage, len(all))
	for name, app := range all {
		apps[name] = marshal(app)
	}
	return apps, proxies, nil
}

// inProcess takes out of a reverse_proxy what would dial by itself, or dial in
// a way that an upstream in memory does not understand.
func inProcess(proxy map[string]any) error {
	if checks, ok := proxy["health_checks"].(map[string]any); ok {
		delete(checks, "active")
	}
	if source, ok := proxy["dynamic_upstreams"].(map[string]any); ok {
		delete(proxy, "dynamic_upstreams")
		name := str(source["name"])
		if name == "" {
			name = "dynamic"
		}
		proxy["upstreams"] = []any{map[string]any{"dial": name + ":80"}}
	}
	transport, ok := proxy["transport"].(map[string]any)
	if !ok {
		return nil
	}
	switch p := str(transport["protocol"]); p {
	case "http", "gatehouse":
	default:
		return fmt.Errorf("a reverse_proxy has the transport %q, which a test cannot answer for; only http and gatehouse", p)
	}
	delete(transport, "proxy_protocol")
	if versions := list(transport["versions"]); len(versions) == 1 && versions[0] == "3" {
		delete(transport, "versions")
	}
	return nil
}
