package policytest

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strings"
)

// lostRequires finds requires that ask for something of a caller whom nobody has
// proven: each request is refused there.
func lostRequires(a *audit) {
	a.inOrder("gatehouse_require", func(h map[string]any, proven bool) {
		if asked := askedOf(h); asked != nil && !proven {
			a.found(a.lineOf(asked...), "require %s stands where no identity has proven anybody, and refuses every request; write identity before it", strings.Join(asked, " "))
		}
	})
}

// inOrder calls look with each handler of a name, and whether callers may be
// proven where it stands.
func (a *audit) inOrder(handler string, look func(h map[string]any, proven bool)) {
	servers, _ := dig(a.root, "apps", "http", "servers").(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		server, _ := servers[name].(map[string]any)
		w := &walked{handler: handler, look: look, named: dig(server, "named_routes")}
		w.routes(list(server["routes"]), false, 0)
	}
}

// walked follows the handlers of a server in the order of a request.
type walked struct {
	handler string
	look    func(h map[string]any, proven bool)
	named   any
}

// maxNesting bounds routes in routes; a named one may invoke itself.
const maxNesting = 64

// routes goes through a list and reports whether callers may be proven behind it.
// Matchers are not read: an identity for some requests counts for all.
func (w *walked) routes(all []any, proven bool, depth int) bool {
	if depth > maxNesting {
		return true
	}
	groups := map[string]bool{} // what was known before the first route of a group
	for _, r := range all {
		before := proven
		if group := str(dig(r, "group")); group != "" { // of which one route answers
			if known, seen := groups[group]; seen {
				before = known
			} else {
				groups[group] = proven
			}
		}
		after := w.handlers(list(dig(r, "handle")), before, depth)
		if dig(r, "terminal") != true {
			proven = proven || after
		}
	}
	return proven
}

func (w *walked) handlers(all []any, proven bool, depth int) bool {
	for _, v := range all {
		h, _ := v.(map[string]any)
		switch str(h["handler"]) {
		case "gatehouse_identity":
			proven = proven || h["mode"] != "off"
		case "authentication":
			proven = proven || dig(h, "providers", "gatehouse") != nil
		case w.handler:
			w.look(h, proven)
		case "invoke":
			proven = w.routes([]any{dig(w.named, str(h["name"]))}, proven, depth+1)
		}
		// Whatever has routes of its own passes requests on to them.
		inside := proven
		for _, member := range slices.Sorted(maps.Keys(h)) {
			inside = w.below(h[member], inside, depth+1)
		}
		if h["handler"] != "gatehouse_api" { // behind which nothing comes
			proven = inside
		}
	}
	return proven
}

// below finds lists of routes in the settings of a handler.
func (w *walked) below(v any, proven bool, depth int) bool {
	if depth > maxNesting {
		return true
	}
	switch v := v.(type) {
	case []any:
		if slices.ContainsFunc(v, func(r any) bool { return dig(r, "handle") != nil }) {
			return w.routes(v, proven, depth+1)
		}
		for _, item := range v {
			proven = w.below(item, proven, depth+1)
		}
	case map[string]any:
		for _, member := range slices.Sorted(maps.Keys(v)) {
			proven = w.below(v[member], proven, depth+1)
		}
	}
	return proven
}

// askedOf is what a require asks of the caller itself, as a Caddyfile writes it. An
// expression, and the contract's security, may let anonymous callers pass.
func askedOf(h map[string]any) []string {
	if h["mode"] == "off" {
		return nil
	}
	for _, c := range []struct{ member, word string }{{"scopes", "scope"}, {"roles", "role"}, {"acr", "acr"}} {
		if values := list(h[c.member]); len(values) > 0 {
			return []string{c.word, str(values[0])}
		}
	}
	if h["max_age"] != nil {
		return []string{"max_age"}
	}
	return nil
}

// uselessCertificates finds places that would prove callers by certificates which
// nobody asks for, or nobody verifies.
func uselessCertificates(a *audit) {
	servers, _ := dig(a.root, "apps", "http", "servers").(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		server, _ := servers[name].(map[string]any)
		for _, r := range list(server["routes"]) {
			route, _ := r.(map[string]any)
			wants, own := certificatesIn(route)
			if !wants {
				continue
			}
			hosts := hostsOf(route)
			if why := verification(list(server["tls_connection_policies"]), hosts, own); why != "" {
				a.found(a.lineOf("mtls"), "mtls is to prove callers of %s, and %s", orAny(hosts), why)
			}
		}
	}
}

// certificatesIn reports whether a handler of a route takes certificates, and
// whether all of them bring the authorities to verify them by.
func certificatesIn(route map[string]any) (wants, own bool) {
	own = true
	walk(route, func(o map[string]any) {
		if p := dig(o, "providers", "gatehouse"); o["handler"] == "authentication" && p != nil {
			o, _ = p.(map[string]any)
		} else if o["handler"] != "gatehouse_identity" || o["mode"] == "off" {
			return
		}
		if mtls := o["mtls"]; mtls != nil {
			wants = true
			own = own && dig(mtls, "trust_pool") != nil
		}
	})
	return wants, own
}

// verification says what is wrong with how certificates of a site's clients come
// about; empty: nothing. own: who takes them verifies them.
func verification(policies []any, hosts []string, own bool) string {
	if len(hosts) == 0 {
		hosts = []string{""}
	}
	worst := ""
	for _, host := range hosts {
		why := "its site has no client_auth, so that no client is asked for a certificate; give its tls a client_auth"
		for _, p := range policies {
			if !speaksFor(p, host) {
				continue
			}
			if auth := dig(p, "client_authentication"); auth != nil {
				why = unverified(auth, own)
			}
			if why == "" || host != "" { // the first that fits decides
				break
			}
		}
		if why == "" && host == "" {
			return ""
		}
		if why != "" {
			worst = why
		}
	}
	return worst
}

// unverified says why the mode of a client_auth proves nobody.
func unverified(auth any, own bool) string {
	mode := str(dig(auth, "mode"))
	trusts := dig(auth, "ca") != nil || dig(auth, "trusted_ca_certs") != nil || dig(auth, "trusted_ca_certs_pem_files") != nil
	switch {
	case own:
		return ""
	case mode == "request", mode == "require":
	case mode == "" && !trusts:
		mode = "require, the default without a trust_pool"
	default:
		return ""
	}
	return fmt.Sprintf("the mode of its client_auth is %s: certificates are not verified, and prove nobody; write require_and_verify or verify_if_given and a trust_pool, or give mtls a trust_pool of its own", mode)
}

// speaksFor reports whether a connection policy is for a host; the empty host is
// any.
func speaksFor(policy any, host string) bool {
	names := list(dig(policy, "match", "sni"))
	if len(names) == 0 || host == "" {
		return true
	}
	return slices.ContainsFunc(names, func(v any) bool {
		name := str(v)
		if strings.EqualFold(name, host) {
			return true
		}
		zone, wild := strings.CutPrefix(name, "*.")
		_, parent, _ := strings.Cut(host, ".")
		return wild && strings.EqualFold(zone, parent)
	})
}

// openRegistry finds an admin endpoint that others than this machine reach, while
// who comes without a token may do all with live objects, and see all decisions.
func openRegistry(a *audit) {
	if dig(a.root, "admin", "disabled") == true {
		return
	}
	if local := str(dig(a.root, "apps", "gatehouse_registry", "local")); local != "" && local != "all" {
		return
	}
	reached := ""
	if listen := str(dig(a.root, "admin", "listen")); listen != "" && !strings.HasPrefix(listen, "unix") && !strings.HasPrefix(listen, "fd/") {
		if host, _, err := net.SplitHostPort(strings.TrimPrefix(listen, "tcp/")); err != nil || !loopback(host) {
			reached = "listens on " + listen
		}
	}
	for _, o := range list(dig(a.root, "admin", "origins")) {
		if origin := str(o); reached == "" && origin != "" && !localOrigin(origin) {
			reached = "answers to the origin " + origin
		}
	}
	if reached == "" {
		return
	}
	a.found(a.lineOf("admin"), "the admin endpoint %s, and whoever reaches it may change keys and revocations, switch stages off and see who asked for what; write registry { operator …; local none }", reached)
}

// localOrigin reports whether an origin, which may be a host alone, is of this
// machine.
func localOrigin(origin string) bool {
	if u, err := url.Parse(origin); err == nil && u.Host != "" {
		return loopback(u.Hostname())
	}
	if host, _, err := net.SplitHostPort(origin); err == nil {
		return loopback(host)
	}
	return loopback(strings.Trim(origin, "[]"))
}
