package firewall

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/firewall/internal/desk"
	"github.com/gatehouse-caddy/gatehouse/modules/firewall/internal/waf"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// ServeHTTP passes a request that the rules find harmless.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	ex, mode := gate.Enter(r, gate.Firewall, h.Mode)
	if mode == gate.Off {
		return next.ServeHTTP(w, r)
	}
	began := gate.Now()

	patience := longest
	if mode != gate.Enforce {
		patience = 0 // nobody waits for what would be refused
	}
	rule, denial := h.decide(ex, r, patience)
	if denial != nil && denial.Reason == gate.FirewallFailed {
		h.logger.Error("inspection failed", zap.String("request_id", ex.ID), zap.Error(denial.Err))
		if h.OnError == gate.Open { // not for firewall.busy, which a caller can bring about
			ex.LetPass(gate.Firewall, mode, rule, denial.Reason, began)
			return next.ServeHTTP(w, r)
		}
		// fail closed: a request that was not inspected is not harmless
	}
	if err := ex.Conclude(w, r, gate.Firewall, mode, rule, denial, began); err != nil {
		return err
	}
	if mode == gate.Enforce && stream(r) && r.Body != nil {
		r.Body = &frames{ReadCloser: r.Body}
	}
	return next.ServeHTTP(w, r)
}

// decide makes what is inspected out of the request and asks the engine, when
// there is room for that.
func (h *Handler) decide(ex *gate.Exchange, r *http.Request, patience time.Duration) (rule string, _ *gate.Denial) {
	req, rule, denial := h.request(ex, r)
	if denial != nil {
		return rule, denial
	}
	if size := req.Size(); size > small {
		who := callerOf(ex)
		if err := work.Enter(r.Context(), who, size, patience); err != nil {
			return "", &gate.Denial{
				Reason: gate.FirewallBusy, Err: err,
				Header: http.Header{"Retry-After": {strconv.Itoa(int(longest / time.Second))}},
			}
		}
		defer work.Leave(who, size)
	}
	v, err := h.inspect(req)
	if err != nil {
		return "", &gate.Denial{Reason: gate.FirewallFailed, Err: err}
	}
	switch v.Kind {
	case waf.Attack:
		return v.Rules, &gate.Denial{Reason: gate.FirewallAttack, Err: errors.New(v.Log)}
	case waf.TooManyArguments:
		return v.Rules, &gate.Denial{Reason: gate.FirewallArgumentLimit, Err: errors.New(v.Log)}
	case waf.Unreadable:
		return v.Rules, &gate.Denial{Reason: gate.FirewallBodyUnreadable, Err: errors.New(v.Log)}
	case waf.Clean:
	}
	return "", nil
}

// valuesOf are the parts of the path that the rules look at as they do at those of
// a query: what the contract calls parameters, or without one, what no path
// consists of unless somebody has put it there. In a path alone, most rules look
// for nothing.
func valuesOf(ex *gate.Exchange, path string) (values []waf.Value) {
	if ex.Operation != nil {
		for _, p := range ex.Params {
			values = append(values, waf.Value{Name: p.Name, Text: p.Value})
		}
		return values
	}
	if !strings.ContainsAny(path, odd) {
		return nil
	}
	for segment := range strings.SplitSeq(path, "/") {
		if strings.ContainsAny(segment, odd) {
			values = append(values, waf.Value{Name: "path", Text: segment})
		}
	}
	return values
}

// odd are characters that names in a path do not have.
const odd = " \t\r\n\"'`<>()[]{}|&;$*\\"

// small is what is inspected at once, whatever else is: URL, fields and body of
// most requests. How many of them there may be is for quota to say.
const small = 4 << 10

// longest is how long a larger one waits for room. It is in memory meanwhile.
const longest = 5 * time.Second

// work bounds what is inspected at a time, by all handlers together: a body of
// 128 KiB takes a processor a second. Such bodies get half of the processors,
// of which half may be one caller's, so that small requests find some.
var work = func() *desk.Desk[caller] {
	room := 64 << 10 * runtime.GOMAXPROCS(0)
	return desk.New[caller](desk.Limits{Room: room, Share: room / 2, Waiting: 256, Queue: 32})
}()

// caller is for whom work is done: the tenant, or else the principal, or the
// customer's network.
type caller struct {
	tenant, issuer, subject, client string
	network                         netip.Prefix
}

func callerOf(ex *gate.Exchange) caller {
	if p := ex.Principal; p != nil {
		if p.Tenant != "" {
			return caller{tenant: p.Tenant}
		}
		return caller{issuer: p.Issuer, subject: p.Subject, client: p.Client}
	}
	return caller{network: ex.Customer()}
}

// inspect keeps a panic of the engine from looking like a failure elsewhere.
func (h *Handler) inspect(req *waf.Request) (v waf.Verdict, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the engine panicked: %v", p)
		}
	}()
	return h.waf.Inspect(req)
}

// headers lists what the rules see: all the client sent but Host, which has a
// place of its own, a credential that was already proven genuine, and what the
// gateway itself has put there for the upstream.
func headers(ex *gate.Exchange, r *http.Request, contentType string) []waf.Header {
	list := make([]waf.Header, 0, len(r.Header)+1)
	for name, values := range r.Header {
		switch {
		case name == "Authorization" && ex.Principal != nil && ex.Principal.Method == gate.Bearer:
		case name == gate.RequestIDHeader || strings.HasPrefix(name, gate.Asserted):
		case name == "Content-Type" && len(values) == 1:
			list = append(list, waf.Header{Name: name, Values: []string{contentType}})
		default:
			list = append(list, waf.Header{Name: name, Values: values})
		}
	}
	if r.TransferEncoding != nil { // Go's server takes it out of the header
		list = append(list, waf.Header{Name: "Transfer-Encoding", Values: r.TransferEncoding})
	}
	return list
}

// Describe tells that the stage may refuse, and nothing of what it looks for.
func (h *Handler) Describe(d *gate.Description) { d.MayRefuse(h.Mode, gate.Firewall) }
