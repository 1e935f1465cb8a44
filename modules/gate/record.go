package gate

import (
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Record is what is left of an Exchange when it has ended: what the log writes
// and what is remembered for those who ask. It is its own, so that it may be
// read while the server reuses what the request was made of, and does not change
// once it is remembered. It takes 1 KB as a rule and some 12 KB at most, and has
// no credential, query, body or header in it but the User-Agent.
type Record struct {
	ID        string
	API       string // empty for a stage that stands alone
	Operation string
	Began     time.Time
	Took      time.Duration
	Method    string
	Path      string
	UserAgent string
	Client    netip.Addr
	Origin    Origin
	Principal Proven
	Upstream  string
	TraceID   string
	Status    int
	Reason    Reason // None: the request passed
	Detail    string // what the client was told
	Err       string // what the operator should know
	Faults    string // what was wrong where, one fault a line
	Decisions []Decision
	Dropped   int // decisions that did not fit

	Seq   uint64 // counts all that were remembered; 0: this one was not
	place uint64 // in its ring
}

// roomy is a Record with room for the decisions of a walk with all its stages.
type roomy struct {
	Record
	decisions [stageCount]Decision
}

// Proven is what a Record keeps of a Principal.
type Proven struct {
	Subject, Client, Tenant, Plan, Issuer string
	Method                                Method // 0: nobody was proven
}

// How many bytes of what a stranger may send are kept.
const (
	maxMethod = 32
	maxPath   = 2 << 10
	maxName   = 256
	maxRule   = 256
	maxDetail = 512
	maxErr    = 2 << 10
	maxFaults = 1 << 10
)

// Record describes the Exchange as it ends. A nil denial means that the request
// passed. All text that came with the request goes into one allocation.
func (ex *Exchange) Record(r *http.Request, status int, d *Denial) *Record {
	room := &roomy{Record: Record{
		API: ex.API, Began: ex.Began, Took: Since(ex.Began), Status: status,
		Client: ex.Client, Origin: ex.Origin, Dropped: ex.Dropped(),
	}}
	rec := &room.Record
	rec.Decisions = append(room.decisions[:0], ex.Decisions()...)
	if ex.Operation != nil {
		rec.Operation = ex.Operation.ID
	}
	ctx := r.Context()
	if repl, ok := ctx.Value(caddy.ReplacerCtxKey).(*caddy.Replacer); ok {
		rec.Upstream, _ = repl.GetString("http.reverse_proxy.upstream.hostport")
	}
	if vars, ok := ctx.Value(caddyhttp.VarsCtxKey).(map[string]any); ok {
		rec.TraceID, _ = vars["trace_id"].(string)
	}
	var agent string
	if a := r.Header["User-Agent"]; len(a) > 0 {
		agent = a[0]
	}
	var p Principal
	if ex.Principal != nil {
		p = *ex.Principal
		rec.Principal.Method = p.Method
	}
	keep(
		part{&rec.ID, ex.ID, 128}, part{&rec.Method, r.Method, maxMethod}, part{&rec.Path, r.URL.EscapedPath(), maxPath},
		part{&rec.UserAgent, agent, maxName}, part{&rec.Upstream, rec.Upstream, maxName},
		part{&rec.Principal.Subject, p.Subject, maxName}, part{&rec.Principal.Client, p.Client, maxName},
		part{&rec.Principal.Tenant, p.Tenant, maxName}, part{&rec.Principal.Plan, p.Plan, maxName},
		part{&rec.Principal.Issuer, p.Issuer, maxName},
	)
	for i := range rec.Decisions {
		if rule := &rec.Decisions[i].Rule; len(*rule) > maxRule {
			*rule = strings.Clone(cut(*rule, maxRule))
		}
	}
	if d != nil {
		rec.Reason = d.Reason
		rec.Detail, rec.Faults = strings.Clone(cut(d.Detail, maxDetail)), faults(d.Fields)
		if d.Err != nil {
			rec.Err = strings.Clone(cut(d.Err.Error(), maxErr))
		}
	}
	return rec
}

// part is one piece of text to be kept, and where.
type part struct {
	to   *string
	text string
	max  int
}

// keep copies the parts into one string that they share: what the request was
// made of can then be forgotten, however much that was.
func keep(parts ...part) {
	n := 0
	for i := range parts {
		parts[i].text = cut(parts[i].text, parts[i].max)
		n += len(parts[i].text)
	}
	var b strings.Builder
	b.Grow(n)
	for i := range parts {
		b.WriteString(parts[i].text)
	}
	all, at := b.String(), 0
	for _, p := range parts {
		*p.to = all[at : at+len(p.text)]
		at += len(p.text)
	}
}

// cut takes at most n bytes of a text, and no half character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func faults(fields []FieldError) string {
	var b strings.Builder
	for i, f := range fields {
		if b.Len() > maxFaults {
			b.WriteString("\nand " + strconv.Itoa(len(fields)-i) + " more")
			break
		}
		if i > 0 {
			b.WriteByte('\n')
		}
		if f.In != "" {
			b.WriteString(f.In + " " + cut(f.Name, maxName))
		} else {
			b.WriteString("body " + cut(f.Pointer, maxName))
		}
		b.WriteString(": " + cut(f.Detail, maxDetail))
	}
	return b.String()
}

// Plain reports whether every stage let the request pass and meant it.
func (rec *Record) Plain() bool {
	if rec.Reason != None {
		return false
	}
	for i := range rec.Decisions {
		if rec.Decisions[i].Verdict != Allowed {
			return false
		}
	}
	return true
}
