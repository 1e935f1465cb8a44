package identity

import (
	"net/http"
	"strings"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// facts are what the upstream can be told about a principal, by their names in
// the configuration, and the headers that tell them.
var facts = [...]struct{ name, header string }{
	{"subject", gate.Asserted + "Subject"},
	{"client", gate.Asserted + "Client"},
	{"tenant", gate.Asserted + "Tenant"},
	{"plan", gate.Asserted + "Plan"},
	{"roles", gate.Asserted + "Roles"},
	{"scopes", gate.Asserted + "Scopes"},
	{"issuer", gate.Asserted + "Issuer"},
	{"method", gate.Asserted + "Method"},
}

// tellNone stands alone where the upstream is told nothing.
const tellNone = "none"

func factNames() []string {
	names := make([]string, len(facts))
	for i, f := range facts {
		names[i] = f.name
	}
	return names
}

// usual is what the upstream is told by default. Caddy's proxy clones, logs,
// sorts and writes each header, which is most of what identity costs (bench), and
// so it is what nearly every backend asks for, and, where there are several ways to prove it, which way it was: two issuers may
// mean different people by the same subject.
func (h *Handler) usual() []string {
	ways := len(h.Issuers)
	for _, way := range []bool{h.Keys, h.MTLS != nil, h.Session != nil} {
		if way {
			ways++
		}
	}
	told := []string{"subject", "client", "tenant", "roles", "scopes"}
	if ways > 1 {
		told = append(told, "issuer", "method")
	}
	return told
}

// prove makes a principal ready to be used by many requests.
func prove(p *gate.Principal) *proven {
	return &proven{principal: p, userID: p.Subject, values: [...]string{
		printable(p.Subject, ""), printable(p.Client, ""), printable(p.Tenant, ""), printable(p.Plan, ""),
		join(p.Roles), join(p.Scopes), printable(p.Issuer, ""), p.Method.String(),
	}}
}

// become makes who asks known to the stages and to the upstream. Whoever a
// handler before has told of is forgotten: no two make one.
func (v *proven) become(ex *gate.Exchange, h http.Header, told []int) {
	if ex.Principal != nil {
		for _, f := range facts {
			delete(h, f.header)
		}
	}
	ex.Principal = v.principal
	v.assert(h, told)
}

// assert tells the upstream who asks, by the facts' indexes. The one allocation gives each request
// values of its own: Caddy's request_header replaces text inside the slice it
// finds, and would otherwise change who all later requests are said to be from.
func (v *proven) assert(h http.Header, told []int) {
	values := make([]string, len(told))
	for i, f := range told {
		if values[i] = v.values[f]; values[i] != "" {
			h[facts[f].header] = values[i : i+1 : i+1] // no spare capacity: appending makes a copy
		}
	}
}

func join(items []string) string {
	safe := make([]string, len(items))
	for i, item := range items {
		safe[i] = printable(item, " ")
	}
	return strings.Join(safe, " ")
}

// printable writes a text from a token so that it can stand in a header field
// and means one thing only: what is not printable ASCII, the percent sign, the
// list separator, and spaces at the ends, which HTTP would trim, are
// percent-encoded (RFC 3986, section 2.1).
func printable(s, separator string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	first := len(s) - len(strings.TrimLeft(s, " "))
	last := len(strings.TrimRight(s, " "))
	for i, c := range []byte(s) {
		if c < ' ' || c > '~' || c == '%' || i < first || i >= last || strings.IndexByte(separator, c) >= 0 {
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}
