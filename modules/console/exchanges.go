package console

import (
	"encoding/json"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// exchange is a record as the admin API shows it.
type exchange struct {
	ID         string    `json:"id"`
	Seq        uint64    `json:"seq"`  // counts those of this process
	Time       time.Time `json:"time"` // when it began
	API        string    `json:"api,omitempty"`
	Operation  string    `json:"operation,omitempty"`
	Method     string    `json:"method"`
	Path       string    `json:"path"`
	Status     int       `json:"status"`
	Verdict    string    `json:"verdict"` // the worst of all stages
	Reason     string    `json:"reason,omitempty"`
	Sentence   string    `json:"sentence,omitempty"`
	Detail     string    `json:"detail,omitempty"` // what the client was told beside the sentence
	Error      string    `json:"error,omitempty"`  // what the client was not told
	Faults     []string  `json:"faults,omitempty"`
	ClientIP   string    `json:"client_ip,omitempty"`
	Country    string    `json:"country,omitempty"`
	ASN        uint32    `json:"asn,omitempty"`
	Bot        string    `json:"bot,omitempty"`
	UserAgent  string    `json:"user_agent,omitempty"`
	Principal  string    `json:"principal,omitempty"`
	Client     string    `json:"client,omitempty"`
	Tenant     string    `json:"tenant,omitempty"`
	Plan       string    `json:"plan,omitempty"`
	Issuer     string    `json:"issuer,omitempty"`
	Proof      string    `json:"proof,omitempty"` // how the principal was proven
	Upstream   string    `json:"upstream,omitempty"`
	TraceID    string    `json:"trace_id,omitempty"`
	DurationUs int64     `json:"duration_us"`
	Dropped    int       `json:"decisions_dropped,omitempty"`
	Stages     []stage   `json:"stages"`
}

// stage is a decision as the admin API shows it.
type stage struct {
	Stage    string `json:"stage"`
	Verdict  string `json:"verdict"`
	Reason   string `json:"reason,omitempty"`
	Sentence string `json:"sentence,omitempty"`
	Rule     string `json:"rule,omitempty"`
	Mode     string `json:"mode"`
	AtUs     int64  `json:"at_us"` // when it began, counted from the Exchange's beginning
	Us       int64  `json:"us"`
}

func view(rec *gate.Record) *exchange {
	p := &rec.Principal
	e := &exchange{
		ID: rec.ID, Seq: rec.Seq, Time: rec.Began.UTC(), API: rec.API, Operation: rec.Operation,
		Method: rec.Method, Path: rec.Path, Status: rec.Status, Verdict: worst(rec).String(),
		Reason: rec.Reason.String(), Sentence: rec.Reason.Title(), Detail: rec.Detail, Error: rec.Err,
		Country: rec.Origin.Country, ASN: rec.Origin.ASN, Bot: rec.Origin.Bot, UserAgent: rec.UserAgent,
		Principal: p.Subject, Client: p.Client, Tenant: p.Tenant, Plan: p.Plan, Issuer: p.Issuer, Proof: p.Method.String(),
		Upstream: rec.Upstream, TraceID: rec.TraceID,
		DurationUs: rec.Took.Microseconds(), Dropped: rec.Dropped, Stages: make([]stage, len(rec.Decisions)),
	}
	if rec.Client.IsValid() {
		e.ClientIP = rec.Client.String()
	}
	if rec.Faults != "" {
		e.Faults = strings.Split(rec.Faults, "\n")
	}
	for i := range rec.Decisions {
		d := &rec.Decisions[i]
		e.Stages[i] = stage{
			d.Stage.String(), d.Verdict.String(), d.Reason.String(), d.Reason.Title(), d.Rule, d.Mode.String(),
			max(d.At.Microseconds(), 0), d.Took.Microseconds(),
		}
	}
	return e
}

// worst is the verdict that an operator should see first.
func worst(rec *gate.Record) gate.Verdict {
	if rec.Reason != gate.None {
		return gate.Denied
	}
	v := gate.Allowed
	for i := range rec.Decisions {
		v = max(v, rec.Decisions[i].Verdict)
	}
	return v
}

// filter says which records are asked for. Stage, reason and verdict are asked
// of one and the same decision.
type filter struct {
	api, principal, tenant, client string
	operation, method, path, ip    string
	stage, reason, verdict, status int // -1: any; a status below 10 is a class
	since                          time.Time
	limit                          int
}

// asks lists what a query may say.
var asks = []string{"api", "client", "client_ip", "limit", "method", "operation", "path", "principal", "reason", "since", "stage", "status", "tenant", "verdict"}

const (
	maxLimit     = 1000
	defaultLimit = 100
)

// parseFilter reads a query. What it does not know is an error: a filter that
// is ignored would show what was not asked for.
func parseFilter(q url.Values, now time.Time) (f filter, err error) {
	f = filter{stage: -1, reason: -1, verdict: -1, status: -1, limit: defaultLimit}
	for name, values := range q {
		if !slices.Contains(asks, name) {
			return f, badRequest("unknown filter %q; known are %s", short(name), strings.Join(asks, ", "))
		}
		if len(values) != 1 {
			return f, badRequest("%s may be given once", name)
		}
		v := values[0]
		if v == "" {
			continue // as a form sends it
		}
		switch name {
		case "api":
			f.api = v
		case "client":
			f.client = v
		case "client_ip":
			f.ip = v
		case "method":
			f.method = v
		case "operation":
			f.operation = v
		case "path":
			f.path = v
		case "principal":
			f.principal = v
		case "tenant":
			f.tenant = v
		case "stage":
			s, ok := gate.StageOf(v)
			if !ok {
				return f, badRequest("there is no stage %q", short(v))
			}
			f.stage = int(s)
		case "reason":
			f.reason = slices.IndexFunc(gate.Reasons(), func(r gate.Reason) bool { return r.String() == v })
			if f.reason++; f.reason == 0 { // the list leaves None out
				return f, badRequest("there is no reason %q; docs/reasons.md lists them", short(v))
			}
		case "verdict":
			f.verdict = slices.IndexFunc(verdicts, func(w gate.Verdict) bool { return w.String() == v })
			if f.verdict < 0 {
				return f, badRequest("verdict %q is not allow, deny, would_deny or undecided", short(v))
			}
		case "status":
			n, err := strconv.Atoi(strings.TrimSuffix(v, "xx"))
			if class := strings.HasSuffix(v, "xx"); err != nil || class && (n < 1 || n > 5) || !class && (n < 100 || n > 999) {
				return f, badRequest("status %q is neither a code such as 403 nor a class such as 4xx", short(v))
			}
			f.status = n
		case "since":
			if f.since, err = parseSince(v, now); err != nil {
				return f, err
			}
		case "limit":
			if f.limit, err = strconv.Atoi(v); err != nil || f.limit < 1 || f.limit > maxLimit {
				return f, badRequest("limit %q is not a number from 1 to %d", short(v), maxLimit)
			}
		}
	}
	return f, nil
}

var verdicts = []gate.Verdict{gate.Allowed, gate.Denied, gate.WouldDeny, gate.Undecided}

func parseSince(v string, now time.Time) (time.Time, error) {
	if t, err := time.Parse(time.RFC3339, v); err == nil {
		return t, nil
	}
	d, err := caddy.ParseDuration(v)
	if err != nil || d <= 0 {
		return now, badRequest("since %q is neither a duration such as 5m nor a time such as 2027-01-01T00:00:00Z", short(v))
	}
	return now.Add(-d), nil
}

// short keeps an answer to nonsense from being as long as the nonsense.
func short(s string) string {
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}

func (f *filter) match(rec *gate.Record) bool {
	is := func(want, got string) bool { return want == "" || want == got }
	switch p := &rec.Principal; {
	case !is(f.api, rec.API), !is(f.operation, rec.Operation), !is(f.method, rec.Method),
		!is(f.principal, p.Subject), !is(f.tenant, p.Tenant), !is(f.client, p.Client),
		!strings.HasPrefix(rec.Path, f.path),
		f.ip != "" && f.ip != rec.Client.String(),
		f.status >= 0 && f.status != rec.Status && f.status != rec.Status/100,
		rec.Began.Add(rec.Took).Before(f.since):
		return false
	}
	switch {
	case f.stage < 0 && f.reason < 0 && f.verdict < 0:
		return true
	case f.stage < 0 && f.verdict == int(gate.Allowed) && f.reason < 0:
		return rec.Plain() // of a whole Exchange: nobody objected
	case f.stage < 0 && rec.Reason != gate.None && f.fits(gate.Denied, rec.Reason):
		return true // also what Caddy's proxy refused after the stages
	}
	for i := range rec.Decisions {
		d := &rec.Decisions[i]
		if (f.stage < 0 || f.stage == int(d.Stage)) && f.fits(d.Verdict, d.Reason) {
			return true
		}
	}
	return false
}

func (f *filter) fits(v gate.Verdict, r gate.Reason) bool {
	return (f.verdict < 0 || f.verdict == int(v)) && (f.reason < 0 || f.reason == int(r))
}

// errOff answers for a console that remembers nothing.
var errOff = caddy.APIError{HTTPStatus: http.StatusNotFound, Message: "no Exchange is remembered: the configuration says console off"}

func serveList(w http.ResponseWriter, r *http.Request) error {
	if gate.RecentKept() == 0 {
		return errOff
	}
	f, err := parseFilter(r.URL.Query(), time.Now())
	if err != nil {
		return err
	}
	page := struct {
		Exchanges []*exchange `json:"exchanges"`
		Next      string      `json:"next"`     // what a stream's `after` goes on from
		Searched  int         `json:"searched"` // how many were looked at
		More      bool        `json:"more"`     // there are others that the limit left out
	}{Exchanges: []*exchange{}, Next: cursorID(gate.CursorNow())}
	for rec := range gate.Recent() {
		page.Searched++
		if !f.match(rec) {
			continue
		}
		if len(page.Exchanges) == f.limit {
			page.More = true
			break
		}
		page.Exchanges = append(page.Exchanges, view(rec))
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(page)
}

var validID = regexp.MustCompile(`^[A-Za-z0-9._-]{1,128}$`)

func serveOne(w http.ResponseWriter, r *http.Request) error {
	id := strings.TrimPrefix(r.URL.Path, prefix+"exchanges/")
	switch {
	case gate.RecentKept() == 0:
		return errOff
	case !validID.MatchString(id):
		return badRequest("%q is no request id: at most 128 letters, digits, dots, underscores and hyphens", short(id))
	}
	rec := gate.FindRecent(id)
	if rec == nil {
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Message: "no Exchange with the request id " + id + " is remembered; it may be too old, or of another gateway"}
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(view(rec))
}
