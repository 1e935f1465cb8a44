package policytest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
	"github.com/caddyserver/caddy/v2/modules/caddytls"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/gate/rehearsal"
)

// outcome is what became of one request.
type outcome struct {
	refused  bool // the TLS handshake would fail
	aborted  bool // the connection was cut
	status   int
	header   http.Header // with trailers
	body     []byte
	reason   string
	exchange *gate.Exchange
	calls    []*call
}

// result is how a case went.
type result struct {
	*testCase
	at    *step // that failed; nil: none did
	nth   int   // of its requests
	diffs []difference
	last  *outcome
	took  time.Duration
}

// check looks for words that only the configuration can explain.
func (s *suite) check(c *config) error {
	r := reader{file: s.name}
	known := func(n *named, what string, words []string, none string) {
		switch {
		case n == nil || slices.Contains(words, n.value):
		case len(words) == 0:
			r.fail(n.line, "%s %q: %s", what, n.value, none)
		default:
			r.fail(n.line, "%s", parse.Misspelt(what, n.value, words...))
		}
	}
	seen := map[*caller]bool{}
	for _, tc := range s.cases {
		for _, st := range tc.steps {
			known(st.expect.operation, "operation", append(slices.Clone(c.known), noReason), "")
			if len(c.known) == 0 && st.expect.operation != nil {
				known(st.expect.operation, "operation", nil, "the configuration has no contract")
			}
			if st.as == nil || seen[st.as] {
				continue
			}
			seen[st.as] = true
			known(st.as.plan, "plan", c.plans, "the configuration defines no plans")
			known(st.as.issuer, "issuer", c.issuers, "the configuration defines no issuers")
			if st.as.issuer == nil && st.as.key == nil && st.as.certificate == nil && len(c.issuers) != 1 {
				r.fail(st.as.line, "the caller needs an issuer, a key or a certificate; issuers are %s", orNone(strings.Join(c.issuers, ", ")))
			}
		}
	}
	return r.err()
}

// play runs one case through a gateway of its own.
func (s *suite) play(c *config, tc *testCase) (res result, err error) {
	began := time.Now()
	res.testCase = tc
	rehearsal.Hold(tc.clock)
	defer rehearsal.Release()
	g, err := c.open()
	if err != nil {
		return res, err
	}
	defer g.close()
	defer func() { res.took = time.Since(began) }()
	for _, st := range tc.steps {
		rehearsal.Advance(st.advance)
		for n := range st.times {
			o, err := g.ask(st)
			if err != nil {
				return res, fmt.Errorf("%s:%d: %w", s.name, st.line, err)
			}
			if diffs := st.expect.compare(o); len(diffs) > 0 {
				res.at, res.nth, res.diffs, res.last = st, n+1, diffs, o
				return res, nil
			}
		}
	}
	return res, nil
}

// ask makes the request of a step.
func (g *gateway) ask(st *step) (*outcome, error) {
	server, host, err := g.find(st.site)
	if err != nil {
		return nil, err
	}
	o := new(outcome)
	r, err := st.request.build(host, st.from)
	if err != nil {
		return nil, err
	}
	if secure := len(server.TLSConnPolicies) > 0; secure {
		name := host
		if h, _, err := net.SplitHostPort(host); err == nil {
			name = h
		}
		r.TLS = &tls.ConnectionState{Version: tls.VersionTLS13, HandshakeComplete: true, ServerName: name}
		if demands(server.TLSConnPolicies, name) && (st.as == nil || st.as.certificate == nil) {
			o.refused = true
			return o, nil
		}
	}
	if err := g.authorize(r, st.as); err != nil {
		return nil, err
	}
	g.upstream.expect(st.upstream)
	w := &recorder{header: http.Header{}}
	r = r.WithContext(contextWith(&o.exchange))
	o.aborted = serve(server, w, r)
	o.status, o.header, o.body = w.result()
	if o.calls, err = g.upstream.got(); err != nil {
		return nil, err
	}
	o.reason = o.why()
	return o, nil
}

// serve reports whether the connection was cut.
func serve(server http.Handler, w http.ResponseWriter, r *http.Request) (aborted bool) {
	defer func() {
		switch p := recover(); p {
		case nil:
		case http.ErrAbortHandler:
			aborted = true
		default:
			panic(p)
		}
	}()
	server.ServeHTTP(w, r)
	return false
}

// build makes the request as a server would have read it.
func (q *request) build(host string, from netip.Addr) (*http.Request, error) {
	u, err := url.ParseRequestURI(q.path)
	if err != nil {
		return nil, fmt.Errorf("path %q is none that a server would read: %w", q.path, err)
	}
	r := &http.Request{
		Method: q.method, URL: u, RequestURI: q.path, Host: host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: http.NoBody,
		RemoteAddr: netip.AddrPortFrom(from, 40000).String(),
	}
	for _, h := range q.headers {
		if strings.EqualFold(h.name, "Host") {
			r.Host = h.values[0]
			continue
		}
		r.Header[http.CanonicalHeaderKey(h.name)] = append(r.Header[http.CanonicalHeaderKey(h.name)], h.values...)
	}
	if len(q.body) > 0 {
		r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(q.body)), int64(len(q.body))
		r.Header.Set("Content-Length", strconv.Itoa(len(q.body)))
	}
	return r, nil
}

// authorize gives the request what proves its caller.
func (g *gateway) authorize(r *http.Request, c *caller) error {
	switch {
	case c == nil:
		return nil
	case c.certificate != nil:
		if r.TLS == nil {
			return errors.New("the site has no TLS, so nobody shows it a certificate")
		}
		cert := g.certs[c]
		if cert == nil {
			var err error
			if cert, err = c.certificate.make(); err != nil {
				return err
			}
			g.certs[c] = cert
		}
		r.TLS.PeerCertificates = []*x509.Certificate{cert}
		r.TLS.VerifiedChains = [][]*x509.Certificate{{cert}}
		return nil
	case g.mint == nil:
		return errors.New("the configuration has no global option identity, so that nobody can prove anything")
	}
	secret, ok := g.tokens[c]
	if !ok {
		var err error
		if secret, err = g.secret(c); err != nil {
			return err
		}
		g.tokens[c] = secret
	}
	if c.key != nil {
		r.Header.Set(g.config.keyHeader(), secret)
		return nil
	}
	r.Header.Set("Authorization", "Bearer "+secret)
	return nil
}

func (g *gateway) secret(c *caller) (string, error) {
	if c.key != nil {
		return g.key(c.key.value, c.facts)
	}
	now := gate.Now()
	claims := map[string]any{"iat": now.Unix(), "exp": now.Add(c.expires).Unix()}
	if c.notBefore != 0 {
		claims["nbf"] = now.Add(c.notBefore).Unix()
	}
	if c.audience != nil {
		claims["aud"] = c.audience
	}
	maps.Copy(claims, c.claims)
	issuer := ""
	switch {
	case c.issuer != nil:
		issuer = c.issuer.value
	case len(g.config.issuers) > 0:
		issuer = g.config.issuers[0]
	}
	return g.mint(issuer, c.facts, claims, c.forged)
}

// keyHeader is where the configuration takes API keys from.
func (c *config) keyHeader() string {
	name := "X-API-Key"
	walk(c.root, func(o map[string]any) {
		if h := str(o["key_header"]); o["handler"] == "gatehouse_identity" && h != "" {
			name = h
		}
	})
	return name
}

type clientCertificate = x509.Certificate

// make makes a certificate that nobody but the one who asks has signed.
func (c *certificate) make() (*clientCertificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: c.name}}
	if c.uri != "" {
		u, err := url.Parse(c.uri)
		if err != nil {
			return nil, err
		}
		template.URIs = []*url.URL{u}
	}
	if c.dns != "" {
		template.DNSNames = []string{c.dns}
	}
	if c.email != "" {
		template.EmailAddresses = []string{c.email}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// demands reports whether the site lets nobody in without a client certificate.
// Caddy takes the first policy whose matchers fit.
func demands(policies caddytls.ConnectionPolicies, name string) bool {
	for _, p := range policies {
		fits := len(p.MatchersRaw) == 0
		if raw, ok := p.MatchersRaw["sni"]; ok {
			var names []string
			if json.Unmarshal(raw, &names) == nil {
				_, parent, _ := strings.Cut(name, ".")
				fits = slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, name) || strings.EqualFold(n, "*."+parent) })
			}
		}
		if fits {
			auth := p.ClientAuthentication
			return auth != nil && auth.Active() && auth.Mode != "request" && auth.Mode != "verify_if_given"
		}
	}
	return false
}

// recorder is the client's end of a response.
type recorder struct {
	header http.Header
	sent   http.Header
	status int
	body   bytes.Buffer
}

func (w *recorder) Header() http.Header { return w.header }

func (w *recorder) WriteHeader(status int) {
	if status >= 100 && status < 200 || w.status != 0 {
		return
	}
	w.status, w.sent = status, w.header.Clone()
}

func (w *recorder) Write(b []byte) (int, error) {
	w.WriteHeader(http.StatusOK)
	return w.body.Write(b)
}

// The rest of what Caddy asks of a connection.

func (w *recorder) Flush()                         { w.WriteHeader(http.StatusOK) }
func (*recorder) SetReadDeadline(time.Time) error  { return nil }
func (*recorder) SetWriteDeadline(time.Time) error { return nil }
func (*recorder) EnableFullDuplex() error          { return nil }

// result is what was sent, trailers among the header fields.
func (w *recorder) result() (int, http.Header, []byte) {
	w.WriteHeader(http.StatusOK)
	for _, list := range w.sent["Trailer"] {
		for name := range strings.SplitSeq(list, ",") {
			name = http.CanonicalHeaderKey(strings.TrimSpace(name))
			if v, ok := w.header[name]; ok {
				w.sent[name] = v
			}
		}
	}
	for name, v := range w.header {
		if rest, ok := strings.CutPrefix(name, http.TrailerPrefix); ok {
			w.sent[http.CanonicalHeaderKey(rest)] = v
		}
	}
	return w.status, w.sent, w.body.Bytes()
}

// said is the status, or that there was none.
func (o *outcome) said() string {
	if o.aborted {
		return "a connection that was cut"
	}
	return strconv.Itoa(o.status)
}

// why is the reason of a refusal, or the one that a problem of ours names.
func (o *outcome) why() string {
	if o.exchange != nil {
		decisions := o.exchange.Decisions()
		for _, d := range slices.Backward(decisions) {
			if d.Verdict == gate.Denied {
				return d.Reason.String()
			}
		}
	}
	var p struct {
		Reason string `json:"reason"`
	}
	if strings.HasPrefix(o.header.Get("Content-Type"), "application/problem+json") && json.Unmarshal(o.body, &p) == nil {
		return p.Reason
	}
	return ""
}

func (o *outcome) operation() string {
	if o.exchange == nil || o.exchange.Operation == nil {
		return ""
	}
	return o.exchange.Operation.ID
}

func (o *outcome) release() string {
	if o.exchange == nil {
		return ""
	}
	return o.exchange.Release.Name
}

func (o *outcome) principal() *gate.Principal {
	if o.exchange == nil {
		return nil
	}
	return o.exchange.Principal
}

func (o *outcome) wouldDeny() (reasons []string) {
	reasons = []string{}
	if o.exchange != nil {
		for _, d := range o.exchange.Decisions() {
			if d.Verdict == gate.WouldDeny {
				reasons = append(reasons, d.Reason.String())
			}
		}
	}
	return reasons
}

func (o *outcome) json() any {
	v, err := decodeJSON(o.body)
	if err != nil {
		return nil
	}
	return v
}

// Interface guards
var (
	_ http.Flusher                = (*recorder)(nil)
	_ caddyhttp.MiddlewareHandler = tap{}
)
