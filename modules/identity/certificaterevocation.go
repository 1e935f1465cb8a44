package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/caddy/v2/caddyconfig/httpcaddyfile"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/crl"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/ocsp"
)

// Revocation knows which client certificates were revoked: by a list that their
// authority publishes (CRL, RFC 5280), or by asking it (OCSP, RFC 6960).
type Revocation struct {
	// The name that routes ask by. Required.
	Name string `json:"name,omitempty"`

	// A file or URL with a list, DER or PEM. http will do, since lists are
	// signed. Delta and indirect lists are refused.
	CRL string `json:"crl,omitempty"`

	// A PEM file with the authorities that may have signed the list. It is read
	// again whenever the list is. Required for a list.
	CA string `json:"ca,omitempty"`

	// How often the list is looked for. Default: 1m for a file, 10m for a URL.
	Refresh caddy.Duration `json:"refresh,omitempty"`

	// The largest list, in bytes. Default: 64 MiB, which is more than a million
	// entries.
	MaxSize int64 `json:"max_size,omitempty"`

	// Whether the authority's responder is asked. Default: false.
	OCSP bool `json:"ocsp,omitempty"`

	// The responder's URL. Default: the one that the certificate names.
	Responder string `json:"responder,omitempty"`

	// The responders that certificates may name, with the port unless it is the
	// usual one; `any` alone means any on public addresses. A certificate's
	// content is its authority's choice, and without this nobody is asked who is
	// not configured. Default: none.
	Hosts []string `json:"hosts,omitempty"`

	// How long a request waits for an answer at most, up to 10s. Default: 1s.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// What happens to certificates of which this one does not know and no
	// other does: `closed` refuses them with 503, `open` lets them pass.
	// Default: `closed`.
	OnError gate.OnError `json:"on_error,omitempty"`

	key   revocationKey
	list  *crl.Source
	asker *ocsp.Asker
}

// revocationKey is all that shapes what is shared.
type revocationKey struct {
	name, crl, ca    string
	refresh          caddy.Duration
	maxSize          int64
	responder, hosts string
	timeout          caddy.Duration
}

// statuses keep lists and answers over reloads.
var statuses = caddy.NewUsagePool()

var (
	revocationAnswers = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gatehouse_identity_revocation_total",
		Help: "What was said of client certificates: good, revoked or unknown.",
	}, []string{"source", "result"})
	crlEntries = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "gatehouse_identity_crl_entries",
		Help: "Certificates on a revocation list.",
	}, []string{"source"})
	crlNextUpdate = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "gatehouse_identity_crl_next_update_timestamp_seconds",
		Help: "When a revocation list ends, as it says itself.",
	}, []string{"source"})
	crlFailures = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "gatehouse_identity_crl_failures_total",
		Help: "Times a revocation list could not be had or was refused.",
	}, []string{"source"})
)

// maxStatuses is how many answers of a responder are remembered at least.
const maxStatuses = 1 << 16

const (
	anyHost       = "any"
	longestAnswer = 10 * time.Second
)

func (v *Revocation) validate() error {
	switch {
	case v.OCSP == (v.CRL != ""):
		return errors.New("either crl or ocsp is needed")
	case v.Refresh < 0 || v.MaxSize < 0 || v.Timeout < 0 || v.Timeout > caddy.Duration(longestAnswer):
		return fmt.Errorf("refresh and max_size must not be negative, and timeout at most %v", longestAnswer)
	case !v.OCSP && v.CA == "":
		return errors.New("a list needs ca: a PEM file with the authorities that may have signed it")
	case v.OCSP && v.Responder == "" && len(v.Hosts) == 0:
		return errors.New("ocsp needs a URL, or hosts: whom certificates may name, or any; their content is their authority's choice")
	case slices.Contains(v.Hosts, anyHost) && len(v.Hosts) > 1:
		return errors.New("hosts any stands alone")
	}
	for _, raw := range []string{v.Responder, v.CRL} {
		if raw == "" || raw == v.CRL && !strings.Contains(raw, "://") {
			continue
		}
		if u, err := url.Parse(raw); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			return errors.New("the URL must be http or https")
		}
	}
	return nil
}

func (a *App) provisionRevocation() error {
	for n, v := range a.Revocation {
		if v.Name == "" || slices.ContainsFunc(a.Revocation[:n], func(other *Revocation) bool { return other.Name == v.Name }) {
			return fmt.Errorf("revocation %q needs a name of its own", v.Name)
		}
		if err := v.provision(); err != nil {
			return fmt.Errorf("revocation %q: %w", v.Name, err)
		}
	}
	return nil
}

// provision takes what is shared. Nothing is read or asked yet.
func (v *Revocation) provision() error {
	if err := v.validate(); err != nil {
		return err
	}
	if v.Refresh == 0 {
		v.Refresh = caddy.Duration(time.Minute)
		if strings.Contains(v.CRL, "://") {
			v.Refresh = caddy.Duration(10 * time.Minute)
		}
	}
	if v.MaxSize == 0 {
		v.MaxSize = 64 << 20
	}
	if v.Timeout == 0 {
		v.Timeout = caddy.Duration(time.Second)
	}
	key := revocationKey{v.Name, v.CRL, v.CA, v.Refresh, v.MaxSize, v.Responder, strings.Join(v.Hosts, " "), v.Timeout}
	shared, _, err := statuses.LoadOrNew(key, func() (caddy.Destructor, error) {
		if v.OCSP {
			s := ocsp.Settings{Responder: v.Responder, Hosts: v.Hosts, Any: slices.Contains(v.Hosts, anyHost), Timeout: time.Duration(v.Timeout)}
			return ocsp.New(s, maxStatuses), nil
		}
		_, _, err := crlNames.LoadOrNew(v.Name, func() (caddy.Destructor, error) { return crlName(v.Name), nil })
		if err != nil {
			return nil, err
		}
		return crl.NewSource(crl.From(v.CRL, v.CA, v.MaxSize), time.Duration(v.Refresh), reporter(v.Name)), nil
	})
	if err != nil {
		return err
	}
	v.key = key
	v.list, _ = shared.(*crl.Source)
	v.asker, _ = shared.(*ocsp.Asker)
	return nil
}

// reporter tells of a list in metrics, and in the log when it begins or ceases
// to fail.
func reporter(name string) func(*crl.List, error) {
	var failing atomic.Bool
	return func(l *crl.List, err error) {
		logger := caddy.Log().Named("gatehouse_identity")
		if l != nil {
			crlEntries.WithLabelValues(name).Set(float64(l.Entries))
			crlNextUpdate.WithLabelValues(name).Set(float64(l.NextUpdate.Unix()))
		}
		if err != nil {
			crlFailures.WithLabelValues(name).Inc()
		}
		switch was := failing.Swap(err != nil); {
		case err != nil && !was:
			logger.Error("a revocation list cannot be used; the last good one serves on until it ends", zap.String("source", name), zap.Error(err))
		case err == nil && was:
			logger.Info("a revocation list can be used again", zap.String("source", name))
		}
	}
}

// crlNames are those of the lists that are followed: the last one of a name takes
// what metrics say of it along, or an alarm about its end would go on for ever.
var crlNames = caddy.NewUsagePool()

type crlName string

// Destruct implements caddy.Destructor.
func (n crlName) Destruct() error {
	crlEntries.DeleteLabelValues(string(n))
	crlNextUpdate.DeleteLabelValues(string(n))
	return nil
}

func (v *Revocation) start() {
	if v.list != nil {
		v.list.Start()
	}
}

func (v *Revocation) cleanup() {
	if v.list != nil || v.asker != nil {
		if gone, _ := statuses.Delete(v.key); gone && v.list != nil {
			_, _ = crlNames.Delete(v.Name) // Destruct cannot fail
		}
	}
}

// findRevocation finds those whom a route asks.
func (m *MTLS) findRevocation(ctx caddy.Context, app *App) error {
	for _, name := range m.Revocation {
		i := slices.IndexFunc(app.Revocation, func(v *Revocation) bool { return v.Name == name })
		if i < 0 {
			return fmt.Errorf("mtls revocation %q is not defined", name)
		}
		m.asked = append(m.asked, app.Revocation[i])
	}
	return gate.RegisterMetrics(ctx, revocationAnswers, crlEntries, crlNextUpdate, crlFailures)
}

// revoked asks in order; the first that knows decides. If none does, one that
// is closed refuses.
func (m *MTLS) revoked(ctx context.Context, chain []*x509.Certificate, now time.Time) *gate.Denial {
	var issuer *x509.Certificate
	if len(chain) > 1 {
		issuer = chain[1]
	}
	var closed *gate.Denial
	for _, v := range m.asked {
		status, err := v.status(ctx, chain[0], issuer, now)
		switch status {
		case ocsp.Good:
			revocationAnswers.WithLabelValues(v.Name, "good").Inc()
			return nil
		case ocsp.Revoked:
			revocationAnswers.WithLabelValues(v.Name, "revoked").Inc()
			return refuseCertificate(gate.IdentityCertificateRevoked, "revocation "+v.Name, fmt.Errorf("%s, serial number %x", naming(chain[0]), chain[0].SerialNumber))
		case ocsp.Unknown: // another may know
		}
		revocationAnswers.WithLabelValues(v.Name, "unknown").Inc()
		if v.OnError == gate.Closed && closed == nil {
			// fail closed: a certificate of which nobody knows may be one that was stolen
			closed = refuseCertificate(gate.IdentityRevocationUnknown, "revocation "+v.Name, err)
			closed.Header = map[string][]string{"Retry-After": {"5"}}
		}
	}
	return closed
}

var (
	errNoList     = errors.New("there is no list yet")
	errStaleList  = errors.New("the list has ended")
	errOtherList  = errors.New("the list is not about certificates of this authority")
	errUnanswered = errors.New("the responder does not know the certificate")
)

// status is what one of those who are asked knows.
func (v *Revocation) status(ctx context.Context, c, issuer *x509.Certificate, now time.Time) (ocsp.Status, error) {
	if v.asker != nil {
		status, err := v.asker.About(ctx, c, issuer, now)
		if status == ocsp.Unknown && err == nil {
			err = errUnanswered
		}
		return status, err
	}
	l := v.list.Load(ctx)
	switch {
	case l == nil:
		return ocsp.Unknown, errNoList
	case !l.Covers(c, issuer):
		return ocsp.Unknown, errOtherList
	case l.Revoked(c.SerialNumber):
		return ocsp.Revoked, nil // also when the list has ended: it is not taken back
	case !l.Fresh(now):
		return ocsp.Unknown, errStaleList
	}
	return ocsp.Good, nil
}

// unmarshalRevocation reads the option. Syntax:
//
//	revocation <name> crl <file|url> {
//	    ca       <file>
//	    refresh  <duration>
//	    max_size <size>
//	    on_error closed|open
//	}
//	revocation <name> ocsp [<url>] {
//	    hosts    <host...>|any
//	    timeout  <duration>
//	    on_error closed|open
//	}
func (a *App) unmarshalRevocation(d *caddyfile.Dispenser) error {
	v := new(Revocation)
	args := d.RemainingArgs()
	if len(args) < 2 || len(args) > 3 {
		return d.ArgErr()
	}
	if v.Name = args[0]; slices.ContainsFunc(a.Revocation, func(other *Revocation) bool { return other.Name == v.Name }) {
		return d.Errf("revocation %q is defined twice", v.Name)
	}
	known := []string{"ca", "refresh", "max_size", "on_error"}
	switch {
	case args[1] == "crl" && len(args) == 3:
		if v.CRL = args[2]; !strings.Contains(v.CRL, "://") {
			v.CRL = parse.File(d, v.CRL)
		}
	case args[1] == "crl":
		return d.ArgErr()
	case args[1] == "ocsp":
		v.OCSP, known = true, []string{"hosts", "timeout", "on_error"}
		if len(args) == 3 {
			v.Responder = args[2]
		}
	default:
		return parse.Unknown(d, "kind of revocation", args[1], "crl", "ocsp")
	}
	line := *d // for errors of the whole option
	for nesting := d.Nesting(); d.NextBlock(nesting); {
		opt := d.Val()
		if !slices.Contains(known, opt) {
			return parse.Unknown(d, "revocation option", opt, known...)
		}
		var err error
		switch opt {
		case "ca":
			err = parse.FileName(d, &v.CA)
		case "refresh":
			err = parse.Duration(d, &v.Refresh)
		case "max_size":
			err = parse.Size(d, &v.MaxSize)
		case "hosts":
			err = parse.Words(d, &v.Hosts)
		case "timeout":
			err = parse.Duration(d, &v.Timeout)
		case "on_error":
			err = parse.Into(d, &v.OnError)
		}
		if err != nil {
			return err
		}
	}
	if err := v.validate(); err != nil {
		return line.Errf("revocation %q: %v", v.Name, err)
	}
	a.Revocation = append(a.Revocation, v)
	return nil
}

// checkRevocation finds names that nobody defined, on the line of the directive.
func (h *Handler) checkRevocation(helper httpcaddyfile.Helper, a *App) error {
	if h.MTLS == nil {
		return nil
	}
	known := make([]string, 0, len(a.Revocation))
	for _, v := range a.Revocation {
		known = append(known, v.Name)
	}
	for _, name := range h.MTLS.Revocation {
		if !slices.Contains(known, name) {
			if len(known) == 0 {
				return helper.Errf("revocation %q is not defined; define it in the global options: identity { revocation %s crl <file|url> { … } }", name, name)
			}
			return parse.Unknown(helper.Dispenser, "revocation", name, known...)
		}
	}
	return nil
}
