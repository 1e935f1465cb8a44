// Package ocsp asks an authority's responder whether a certificate was revoked
// (RFC 6960), and remembers the answer for as long as the responder says.
package ocsp

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"syscall"
	"time"

	xocsp "golang.org/x/crypto/ocsp"

	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/memory"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/safe"
)

// Bounds of what is asked.
const (
	maxAnswer  = 64 << 10
	maxAsking  = 64 // questions on their way
	ahead      = 5 * time.Minute
	undated    = time.Minute // how long an answer is good that does not say so
	unknown    = 10 * time.Second
	firstPause = time.Second // after a failure; doubles with each that follows
	lastPause  = 30 * time.Second
)

// Status is what a responder says.
type Status uint8

// The statuses. The zero Status means that nobody knows.
const (
	Unknown Status = iota
	Good
	Revoked
)

var (
	// ErrNotAsked means that there is nobody who may be asked.
	ErrNotAsked = errors.New("the certificate names no responder that may be asked")
	errAway     = errors.New("the responder cannot be asked")
)

type answer struct {
	status Status
	until  time.Time
}

// Settings say who is asked.
type Settings struct {
	Responder string        // a URL; empty: the one that the certificate names
	Hosts     []string      // of the certificate's responders, with a port unless it is the usual
	Any       bool          // any host on the public internet
	Timeout   time.Duration // of a question, and of the request that waits for it
}

// Asker asks about certificates. It may be used concurrently.
type Asker struct {
	Settings
	client  *http.Client
	answers *memory.Memory[answer]

	mu      sync.Mutex
	flights map[string]*flight
	pauses  map[string]*pause // by host; as many as have failed
}

type flight struct {
	done   chan struct{}
	answer answer
	err    error
}

type pause struct {
	failures int
	until    time.Time
}

// maxPauses bounds the hosts whose failures are remembered.
const maxPauses = 1024

// New makes an Asker that remembers at least answers answers.
func New(s Settings, answers int) *Asker {
	dialer := &net.Dialer{Timeout: s.Timeout}
	tr := &http.Transport{Proxy: http.ProxyFromEnvironment, MaxIdleConnsPerHost: 4, IdleConnTimeout: time.Minute, DialContext: dialer.DialContext}
	if s.Any {
		// An authority chooses whom we ask: nobody on our own side.
		tr.Proxy, dialer.Control = nil, publicOnly
	}
	return &Asker{
		Settings: s, answers: memory.New[answer](answers), flights: map[string]*flight{}, pauses: map[string]*pause{},
		client: &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }},
	}
}

// Destruct closes what is kept open; a question ends by its deadline.
func (a *Asker) Destruct() error {
	a.client.CloseIdleConnections()
	return nil
}

// inside are addresses that look like those of the internet and are not: shared
// by a provider's customers, where some clouds tell their machines secrets, for
// tests and protocols, and those that stand for an IPv4 address of any kind.
var inside = []netip.Prefix{
	netip.MustParsePrefix("100.64.0.0/10"), netip.MustParsePrefix("192.0.0.0/24"), netip.MustParsePrefix("198.18.0.0/15"),
	netip.MustParsePrefix("0.0.0.0/8"), netip.MustParsePrefix("240.0.0.0/4"),
	netip.MustParsePrefix("::/96"), netip.MustParsePrefix("64:ff9b::/32"), netip.MustParsePrefix("2001::/32"),
	netip.MustParsePrefix("2002::/16"), netip.MustParsePrefix("fec0::/10"),
}

// publicOnly refuses to connect to addresses that are not of the internet at
// large. It sees the address after the name was looked up.
func publicOnly(_, address string, _ syscall.RawConn) error {
	at, err := netip.ParseAddrPort(address)
	ip := at.Addr().Unmap()
	if err != nil || !ip.IsGlobalUnicast() || ip.IsPrivate() || slices.ContainsFunc(inside, func(p netip.Prefix) bool { return p.Contains(ip) }) {
		return errors.New("the responder's address is not public")
	}
	return nil
}

// About returns what is known of a certificate: remembered, or asked now,
// however many requests carry it. It takes no longer than Timeout.
func (a *Asker) About(ctx context.Context, c, issuer *x509.Certificate, now time.Time) (Status, error) {
	if issuer == nil {
		return Unknown, ErrNotAsked
	}
	keyHash := sha256.Sum256(issuer.RawSubjectPublicKeyInfo)
	key := string(keyHash[:]) + string(c.SerialNumber.Bytes())
	known, ok := a.answers.Get(key)
	if ok && now.Before(known.until) {
		return known.status, nil
	}
	status, err := a.await(ctx, key, c, issuer, now)
	if err != nil && known.status == Revoked {
		return Revoked, nil // also when the answer has ended: it is not taken back by nobody
	}
	return status, err
}

// await asks, or waits for who has asked.
func (a *Asker) await(ctx context.Context, key string, c, issuer *x509.Certificate, now time.Time) (Status, error) {
	f, err := a.fly(key, c, issuer, now) //nolint:contextcheck // others wait for the same answer
	if err != nil {
		return Unknown, err
	}
	limit := time.NewTimer(a.Timeout)
	defer limit.Stop()
	select {
	case <-f.done:
		return f.answer.status, f.err
	case <-limit.C:
		return Unknown, errAway
	case <-ctx.Done():
		return Unknown, ctx.Err()
	}
}

// target is whom to ask about a certificate.
func (a *Asker) target(c *x509.Certificate) (address, host string, err error) {
	if a.Responder != "" {
		u, err := url.Parse(a.Responder)
		if err != nil {
			return "", "", ErrNotAsked
		}
		return a.Responder, u.Host, nil
	}
	for _, raw := range c.OCSPServer {
		u, err := url.Parse(raw)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
			continue
		}
		if a.Any || slices.Contains(a.Hosts, u.Host) {
			return raw, u.Host, nil
		}
	}
	return "", "", ErrNotAsked
}

// fly joins the question about a certificate, or begins it.
func (a *Asker) fly(key string, c, issuer *x509.Certificate, now time.Time) (*flight, error) {
	address, host, err := a.target(c)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if f := a.flights[key]; f != nil {
		return f, nil
	}
	if known, ok := a.answers.Get(key); ok && now.Before(known.until) { // it came while we looked
		f := &flight{done: make(chan struct{}), answer: known}
		close(f.done)
		return f, nil
	}
	if p := a.pauses[host]; p != nil && now.Before(p.until) {
		return nil, errAway
	}
	if len(a.flights) >= maxAsking {
		return nil, fmt.Errorf("%w: %d questions are on their way", errAway, maxAsking)
	}
	f := &flight{done: make(chan struct{})}
	a.flights[key] = f
	go a.run(f, key, address, host, c, issuer, now)
	return f, nil
}

func (a *Asker) run(f *flight, key, address, host string, c, issuer *x509.Certificate, now time.Time) {
	// Not a request's context: others wait for the same answer.
	ctx, cancel := context.WithTimeout(context.Background(), a.Timeout)
	defer cancel()
	got, err := safe.Call(func() (answer, error) { return a.ask(ctx, address, c, issuer, now) })

	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.flights, key)
	if f.err = err; err != nil {
		p := a.pauses[host]
		if p == nil {
			if len(a.pauses) >= maxPauses {
				clear(a.pauses)
			}
			p = new(pause)
			a.pauses[host] = p
		}
		p.until = now.Add(min(firstPause<<min(p.failures, 5), lastPause))
		p.failures++
	} else {
		delete(a.pauses, host)
		f.answer = got
		a.answers.Put(key, got)
	}
	close(f.done)
}

func (a *Asker) ask(ctx context.Context, address string, c, issuer *x509.Certificate, now time.Time) (answer, error) {
	question, err := xocsp.CreateRequest(c, issuer, nil)
	if err != nil {
		return answer{}, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(question))
	if err != nil {
		return answer{}, errors.New("the responder's URL cannot be asked")
	}
	req.Header.Set("Content-Type", "application/ocsp-request")
	req.Header.Set("Accept", "application/ocsp-response")
	resp, err := a.client.Do(req)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // its own words hold the whole URL
		}
		return answer{}, fmt.Errorf("%w: %w", errAway, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return answer{}, fmt.Errorf("the responder answered %s", resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil || len(data) > maxAnswer {
		return answer{}, errors.New("the responder's answer is cut short or longer than 64 KiB")
	}
	return read(data, c, issuer, now)
}

// read checks an answer. The library checks that the issuer has signed it, or
// has signed the certificate that did; that this is a certificate for signing
// answers is left to us. Without it, every client could answer for all others.
func read(data []byte, c, issuer *x509.Certificate, now time.Time) (answer, error) {
	r, err := xocsp.ParseResponseForCert(data, c, issuer)
	if err != nil {
		return answer{}, err
	}
	if by := r.Certificate; by != nil && !bytes.Equal(by.RawSubjectPublicKeyInfo, issuer.RawSubjectPublicKeyInfo) {
		if !slices.Contains(by.ExtKeyUsage, x509.ExtKeyUsageOCSPSigning) {
			return answer{}, errors.New("the answer is signed by a certificate that is not for that")
		}
		if now.Before(by.NotBefore.Add(-ahead)) || now.After(by.NotAfter) {
			return answer{}, errors.New("the answer is signed by a certificate that is not valid now")
		}
	}
	until := r.NextUpdate
	if until.IsZero() {
		until = r.ThisUpdate.Add(ahead) // there is always a newer answer
	}
	if now.Add(ahead).Before(r.ThisUpdate) || !now.Before(until) {
		return answer{}, errors.New("the answer is too old, or from the future")
	}
	if r.NextUpdate.IsZero() {
		until = now.Add(undated)
	}
	switch r.Status {
	case xocsp.Good:
		return answer{Good, until}, nil
	case xocsp.Revoked:
		return answer{Revoked, until}, nil
	}
	return answer{Unknown, now.Add(unknown)}, nil
}
