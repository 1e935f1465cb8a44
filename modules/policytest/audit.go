package policytest

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// level is how much a finding matters; a lower one matters more.
type level uint8

const (
	isError level = iota
	isWarning
	isNote
)

var levelNames = [...]string{"error", "warning", "note"}

func (l level) String() string { return levelNames[l] }

// check is one thing that an audit looks for. Its number is never used again
// for anything else.
type check struct {
	id    string
	level level
	title string // what it is about, for who reads a list of checks
	run   func(*audit)
}

// finding is one place where a check found something.
type finding struct {
	check *check
	file  string
	line  int
	text  string
}

// audit is a configuration with its contracts, while checks look at it.
type audit struct {
	*config
	apis     []*api
	lines    []caddyfile.Token
	check    *check
	findings []finding
}

// api is an API with what stands in it, by handler.
type api struct {
	name     string
	line     int
	handlers map[string][]map[string]any
	contract *contract // nil: none that names operations
}

func newAudit(c *config) (*audit, error) {
	a := &audit{config: c}
	// A file in JSON has no such words; everything then stands on line 1.
	a.lines, _ = caddyfile.Tokenize(c.source, c.file)
	var err error
	servers, _ := dig(c.root, "apps", "http", "servers").(map[string]any)
	for _, name := range slices.Sorted(maps.Keys(servers)) {
		for _, route := range list(dig(servers[name], "routes")) {
			shared := map[string][]map[string]any{}
			var apis []map[string]any
			handlers(route, shared, func(o map[string]any) { apis = append(apis, o) })
			for _, o := range apis {
				err = errors.Join(err, a.add(o, shared))
			}
		}
	}
	return a, err
}

// add takes up an API. What stands around it in its site is for it too.
func (a *audit) add(o map[string]any, shared map[string][]map[string]any) (err error) {
	p := &api{name: str(o["name"]), handlers: map[string][]map[string]any{}}
	p.line = a.lineOfAPI(p.name)
	handlers(o["routes"], p.handlers, nil)
	for h, all := range shared {
		p.handlers[h] = append(p.handlers[h], all...)
	}
	for _, h := range p.handlers["gatehouse_contract"] {
		if file := str(h["file"]); file != "" {
			if p.contract, err = readContract(file); err != nil {
				return err
			}
		}
	}
	a.apis = append(a.apis, p)
	return nil
}

// handlers collects what stands in a JSON value by name, and hands on each API
// instead of going into it.
func handlers(v any, into map[string][]map[string]any, api func(map[string]any)) {
	switch v := v.(type) {
	case map[string]any:
		name := str(v["handler"])
		if name == "gatehouse_api" && api != nil {
			api(v)
			return
		}
		if name != "" {
			into[name] = append(into[name], v)
		}
		for _, member := range slices.Sorted(maps.Keys(v)) {
			handlers(v[member], into, api)
		}
	case []any:
		for _, item := range v {
			handlers(item, into, api)
		}
	}
}

// lineOf is the first line with these words, one behind the other. Where there
// is none, the words may come from a snippet's arguments: the last one counts,
// or else the first line of all.
func (a *audit) lineOf(words ...string) int {
	for i := range a.lines {
		if i+len(words) > len(a.lines) {
			break
		}
		found := true
		for j, w := range words {
			found = found && a.lines[i+j].Text == w
		}
		if found {
			return a.lines[i].Line
		}
	}
	last := words[len(words)-1]
	for _, t := range a.lines {
		if t.Text == last {
			return t.Line
		}
	}
	return 1
}

func (a *audit) found(line int, format string, args ...any) {
	a.foundIn(a.file, line, format, args...)
}

func (a *audit) foundIn(file string, line int, format string, args ...any) {
	f := finding{a.check, file, line, fmt.Sprintf(format, args...)}
	if !slices.Contains(a.findings, f) {
		a.findings = append(a.findings, f)
	}
}

// checks are all there are, by number.
var checks []*check

func init() { // not in the declaration: a check knows the audit, which lists checks
	checks = []*check{
		{"GH001", isError, "an operation is open to anybody, and neither the contract nor the configuration says so", openOperations},
		{"GH002", isWarning, "an API has no contract", noContract},
		{"GH003", isWarning, "an API has no quota", noQuota},
		{"GH004", isNote, "an API has no firewall", noFirewall},
		{"GH005", isWarning, "a stage refuses nobody", lenientStages},
		{"GH006", isNote, "the body of a writing operation has no bounds", openBodies},
		{"GH007", isWarning, "an upstream elsewhere is spoken to without TLS", plainUpstreams},
		{"GH008", isError, "the admin endpoint is open to the network", openAdmin},
		{"GH009", isWarning, "the client's address can be forged behind trusted proxies", laxProxies},
		{"GH010", isError, "a secret is written out", plainSecrets},
		{"GH011", isError, "an issuer for development is accepted where strangers come", devIssuers},
		{"GH012", isWarning, "callers may prove themselves in a way that no operation accepts", uselessProofs},
		{"GH013", isError, "a require asks for something of callers whom nobody has proven", lostRequires},
		{"GH014", isError, "callers are to be proven by certificates that nobody verifies", uselessCertificates},
		{"GH015", isWarning, "live objects can be changed from elsewhere without a token", openRegistry},
		{"GH016", isWarning, "an API has no guard", noGuard},
		{"GH017", isError, "the contract asks for credentials, and the configuration does not go by that", lostSecurity},
		{"GH018", isError, "a quota counts by what nobody has proven", lostQuotas},
		{"GH019", isNote, "two APIs have one name", namesakes},
		{"GH020", isError, "an API gets no request", deadAPIs},
	}
}

func openOperations(a *audit) {
	for _, p := range a.apis {
		proven := false
		for _, h := range p.handlers["gatehouse_identity"] {
			proven = proven || h["optional"] != true
		}
		if proven || p.contract == nil {
			continue
		}
		for _, op := range p.contract.operations {
			if !op.secured {
				a.foundIn(p.contract.name, op.line, "%s can be called by anybody: api %s proves nobody, and the contract has no security for it; write `security: []` if that is meant", op.id, p.name)
			}
		}
	}
}

func noContract(a *audit) {
	for _, p := range a.apis {
		named := slices.ContainsFunc(p.handlers["gatehouse_transcode"], func(h map[string]any) bool { return h["unmatched"] == "refuse" })
		if len(p.handlers["gatehouse_contract"]) == 0 && !named {
			a.found(p.line, "api %s has no contract, so that every path and every body reaches the backend", p.name)
		}
	}
}

func noQuota(a *audit) {
	for _, p := range a.apis {
		if len(p.handlers["gatehouse_quota"])+len(p.handlers["rate_limit"]) > 0 {
			continue
		}
		writing := 0
		if p.contract != nil {
			for _, op := range p.contract.operations {
				if op.writes() {
					writing++
				}
			}
		}
		a.found(p.line, "api %s has no quota: one caller may take all there is (%d writing operations)", p.name, writing)
	}
}

func noFirewall(a *audit) {
	for _, p := range a.apis {
		if len(p.handlers["gatehouse_firewall"]) == 0 {
			a.found(p.line, "api %s has no firewall", p.name)
		}
	}
}

func noGuard(a *audit) {
	for _, p := range a.apis {
		if len(p.handlers["gatehouse_guard"]) == 0 {
			a.found(p.line, "api %s has no guard: a path, query or body that programs read in different ways reaches the backend", p.name)
		}
	}
}

func lenientStages(a *audit) {
	// The directive authentication puts one that is off before Caddy's handler.
	meant := map[uintptr]bool{}
	walk(a.root, func(o map[string]any) {
		if all := list(o["handle"]); slices.ContainsFunc(all, func(h any) bool { return dig(h, "providers", "gatehouse") != nil }) {
			for _, h := range all {
				if dig(h, "handler") == "gatehouse_identity" {
					meant[reflect.ValueOf(h).Pointer()] = true
				}
			}
		}
		stage, ours := strings.CutPrefix(str(o["handler"]), "gatehouse_")
		if meant[reflect.ValueOf(o).Pointer()] {
			return
		}
		if !ours {
			if o["protocol"] != "gatehouse" {
				return
			}
			stage = "resilience"
		}
		for setting, name := range map[string]string{"mode": stage, "input_mode": "input"} {
			if mode := str(o[setting]); mode == "shadow" || mode == "off" {
				a.found(a.lineOf("mode", mode), "%s is in mode %s", name, mode)
			}
		}
	})
}

func openBodies(a *audit) {
	for _, p := range a.apis {
		if p.contract == nil {
			continue
		}
		for _, op := range p.contract.operations {
			if !op.writes() {
				continue
			}
			for _, schema := range op.bodies {
				b := &bounds{audit: a, op: op, seen: map[place]bool{}}
				b.look(schema, "#", false)
			}
		}
	}
}

// bounds looks through one body's schema.
type bounds struct {
	*audit
	op   *operation
	seen map[place]bool
}

func (b *bounds) look(p place, at string, composed bool) {
	p = p.follow()
	if p.node == nil || b.seen[p] || len(b.seen) > 10_000 {
		return
	}
	b.seen[p] = true
	has := func(word string) bool { _, ok := p.child(word); return ok }
	typ := p.text("type")
	if types, ok := p.child("type"); ok && typ == "" {
		types.items(func(t place) {
			if w := resolved(t.node).Value; w != "null" {
				typ = w
			}
		})
	}
	parts := has("allOf") || has("anyOf") || has("oneOf")
	switch {
	case (typ == "object" || typ == "" && has("properties")) && !parts && !composed:
		// Members that are only there under a schema are bounded by it.
		additional, there := p.child("additionalProperties")
		open := !there || resolved(additional.node).Value == "true"
		if open && p.text("unevaluatedProperties") != "false" {
			b.foundIn(p.file, p.line, "%s takes members that nobody described at %s; set additionalProperties: false", b.op.id, at)
		}
	case typ == "string" && !has("maxLength") && !has("pattern") && !has("enum") && !has("const") && !has("format"):
		b.foundIn(p.file, p.line, "%s takes a text of any length at %s; set maxLength", b.op.id, at)
	case typ == "array" && !has("maxItems"):
		b.foundIn(p.file, p.line, "%s takes a list of any length at %s; set maxItems", b.op.id, at)
	}
	if properties, ok := p.child("properties"); ok {
		properties.each(func(name string, s place) { b.look(s, at+"/"+name, false) })
	}
	for _, word := range []string{"items", "additionalProperties"} {
		if s, ok := p.child(word); ok {
			b.look(s, at+"/*", false)
		}
	}
	for _, word := range []string{"allOf", "anyOf", "oneOf"} {
		if s, ok := p.child(word); ok {
			// The parts of an allOf may be closed together only.
			s.items(func(s place) { b.look(s, at, word == "allOf") })
		}
	}
}

func plainUpstreams(a *audit) {
	walk(a.root, func(o map[string]any) {
		if o["handler"] != "reverse_proxy" || dig(o, "transport", "tls") != nil {
			return
		}
		for _, u := range list(o["upstreams"]) {
			dial := str(dig(u, "dial"))
			host, _, err := net.SplitHostPort(dial)
			if err != nil || nearby(host) {
				continue
			}
			a.found(a.lineMention(dial), "%s is not known to be in a private network, and what goes there is not encrypted; write https://", dial)
		}
	})
}

// nearby reports whether a host is one of a private network, or named as such
// ones are. A placeholder may be anything, and gets the benefit of the doubt.
func nearby(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.IsPrivate() || ip.IsLoopback() || ip.IsLinkLocalUnicast()
	}
	if !strings.Contains(host, ".") || strings.Contains(host, "{") || strings.Contains(host, "/") {
		return true
	}
	for _, zone := range []string{".internal", ".local", ".localhost", ".lan", ".intranet", ".svc", ".test", ".home.arpa"} {
		if strings.HasSuffix(host, zone) {
			return true
		}
	}
	return false
}

// lineMention is the first line with a word that has this in it.
func (a *audit) lineMention(text string) int {
	for _, t := range a.lines {
		if strings.Contains(t.Text, text) {
			return t.Line
		}
	}
	return 1
}

func openAdmin(a *audit) {
	listen := str(dig(a.root, "admin", "listen"))
	if dig(a.root, "admin", "disabled") == true || listen == "" || strings.HasPrefix(listen, "unix") || strings.HasPrefix(listen, "fd/") {
		return
	}
	host, _, err := net.SplitHostPort(strings.TrimPrefix(listen, "tcp/"))
	if err == nil && loopback(host) {
		return
	}
	a.found(a.lineOf("admin"), "the admin endpoint listens on %s without asking who calls; whoever reaches it can change everything", listen)
}

func loopback(host string) bool {
	if ip, err := netip.ParseAddr(host); err == nil {
		return ip.IsLoopback()
	}
	return host == "localhost" || strings.HasSuffix(host, ".localhost")
}

func laxProxies(a *audit) {
	servers, _ := dig(a.root, "apps", "http", "servers").(map[string]any)
	for _, s := range servers {
		strict := dig(s, "trusted_proxies_strict")
		if dig(s, "trusted_proxies") != nil && (strict == nil || fmt.Sprint(strict) == "0") {
			a.found(a.lineOf("trusted_proxies"), "trusted_proxies without trusted_proxies_strict takes the address that the client itself put first into X-Forwarded-For")
		}
	}
}

var (
	secretName = regexp.MustCompile(`(?i)(^|_)(password|passwd|secret|token|api_key|apikey|private_key|access_key|mac_key)$`)
	credential = regexp.MustCompile(`(?i)^(Authorization|Proxy-Authorization|X-Api-Key|Cookie)$`)
)

func plainSecrets(a *audit) {
	literal := func(v any) bool {
		s := str(v)
		// Placeholders are not the secret, and a hash of a password is none.
		return s != "" && !strings.Contains(s, "{") && !strings.HasPrefix(s, "$")
	}
	walk(a.root, func(o map[string]any) {
		for name, v := range o {
			if secretName.MatchString(name) && literal(v) {
				a.found(a.lineMention(str(v)), "%s is written out in the configuration, which the admin endpoint shows; write {env.NAME} or {file.PATH}", name)
			}
		}
		for _, op := range []string{"set", "add"} { // what headers are given; what is matched is no secret
			given, _ := o[op].(map[string]any)
			for name, values := range given {
				if credential.MatchString(name) && slices.ContainsFunc(list(values), literal) {
					a.found(a.lineOf(name), "a value of %s is written out in the configuration, which the admin endpoint shows; write {env.NAME} or {file.PATH}", name)
				}
			}
		}
	})
}

func devIssuers(a *audit) {
	dev := map[string]bool{}
	for _, i := range list(dig(a.root, "apps", "gatehouse_identity", "issuers")) {
		if dig(i, "dev") == true {
			dev[str(dig(i, "name"))] = true
		}
	}
	servers, _ := dig(a.root, "apps", "http", "servers").(map[string]any)
	for _, s := range servers {
		hidden := true // nobody elsewhere reaches what the server listens on
		for _, l := range list(dig(s, "listen")) {
			host, _, err := net.SplitHostPort(str(l))
			hidden = hidden && (strings.HasPrefix(str(l), "unix") || err == nil && loopback(host))
		}
		for _, r := range list(dig(s, "routes")) {
			route, _ := r.(map[string]any)
			hosts := hostsOf(route)
			if hidden || len(hosts) > 0 && !slices.ContainsFunc(hosts, func(h string) bool { return !loopback(h) }) {
				continue
			}
			walk(route, func(o map[string]any) {
				if o["handler"] != "gatehouse_identity" {
					return
				}
				for _, i := range list(o["issuers"]) {
					if dev[str(i)] {
						a.found(a.lineOf("issuer", str(i)), "issuer %s is for development, and %s accepts its tokens; whoever reads the storage can be anybody", str(i), orAny(hosts))
					}
				}
			})
		}
	}
}

func orAny(hosts []string) string {
	if len(hosts) == 0 {
		return "a site for any host"
	}
	return strings.Join(hosts, ", ")
}
