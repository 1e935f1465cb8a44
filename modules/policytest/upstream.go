package policytest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"reflect"
	"strconv"
	"strings"
	"sync"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp/reverseproxy"
)

// upstream answers for everything behind the gateway: an HTTP server, 1.1 and
// 2, that is reached over pipes in memory.
type upstream struct {
	set    *descriptors
	server *http.Server
	conns  chan net.Conn
	done   chan struct{}
	idle   []*http.Transport

	mu      sync.Mutex
	answers []*answer
	next    int // the answer of the next call
	calls   []*call
	wrong   error // an answer that could not be given
}

// call is what the upstream got.
type call struct {
	method, path, to string
	header           http.Header
	host             string
	body             []byte
	json             any
}

func (c *call) values(name string) []string {
	if strings.EqualFold(name, "Host") {
		return []string{c.host}
	}
	return c.header.Values(name)
}

func newUpstream(set *descriptors) *upstream {
	u := &upstream{set: set, conns: make(chan net.Conn), done: make(chan struct{})}
	u.server = &http.Server{ //nolint:gosec // no stranger reaches it: its connections are pipes
		Handler: u, Protocols: new(http.Protocols),
		ErrorLog: log.New(io.Discard, "", 0),
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, dialled{}, c.(*pipe).to)
		},
	}
	u.server.Protocols.SetHTTP1(true)
	u.server.Protocols.SetUnencryptedHTTP2(true)
	go func() { _ = u.server.Serve(u) }() // until close
	return u
}

// dialled is where a request has the address that the gateway dialled.
type dialled struct{}

type pipe struct {
	net.Conn
	to string
}

// take makes a transport dial here. It reports false for one that it does not
// know how to.
func (u *upstream) take(rt http.RoundTripper) bool {
	// Caddy's transport and what embeds it show the standard library's.
	v := reflect.Indirect(reflect.ValueOf(rt))
	if v.Kind() != reflect.Struct {
		return false
	}
	field := v.FieldByName("Transport")
	if !field.IsValid() {
		return false
	}
	t, ok := reflect.TypeAssert[*http.Transport](field)
	if !ok || t == nil {
		return false
	}
	t.DialContext = u.dial
	t.DialTLSContext = u.dial // what the upstream's certificate says is not tested
	t.Proxy = nil
	t.DisableKeepAlives = t.Protocols == nil
	u.idle = append(u.idle, t)
	return true
}

func (u *upstream) dial(ctx context.Context, _, address string) (net.Conn, error) {
	if di, ok := reverseproxy.GetDialInfo(ctx); ok {
		address = di.Address
	}
	u.mu.Lock()
	if a := u.current(); a != nil && a.unreachable {
		u.next++
		u.calls = append(u.calls, &call{to: address})
		u.mu.Unlock()
		return nil, reverseproxy.NewDialError(errors.New("the case says that the upstream is unreachable"))
	}
	u.mu.Unlock()
	here, there := net.Pipe()
	select {
	case u.conns <- &pipe{there, address}:
		return here, nil
	case <-u.done:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accept makes the upstream a listener for its own server.
func (u *upstream) Accept() (net.Conn, error) {
	select {
	case c := <-u.conns:
		return c, nil
	case <-u.done:
		return nil, net.ErrClosed
	}
}

// Close is for the server; close ends the upstream.
func (*upstream) Close() error { return nil }

// Addr names the listener.
func (*upstream) Addr() net.Addr { return &net.UnixAddr{Name: "upstream", Net: "pipe"} }

func (u *upstream) close() {
	close(u.done)
	for _, t := range u.idle {
		t.CloseIdleConnections()
	}
	_ = u.server.Close()
}

// expect makes the upstream ready for one request of a client.
func (u *upstream) expect(answers []*answer) {
	for _, t := range u.idle {
		t.CloseIdleConnections() // a new request dials, so that it can fail to
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.answers, u.next, u.calls, u.wrong = answers, 0, nil, nil
}

func (u *upstream) got() ([]*call, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.calls, u.wrong
}

// current is the answer of the next call; the last one is for all that follow.
func (u *upstream) current() *answer {
	if len(u.answers) == 0 {
		return nil
	}
	return u.answers[min(u.next, len(u.answers)-1)]
}

// ServeHTTP keeps the request and gives the answer.
func (u *upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		panic(http.ErrAbortHandler)
	}
	c := &call{method: r.Method, path: r.RequestURI, header: r.Header, host: r.Host, body: body}
	c.to, _ = r.Context().Value(dialled{}).(string)
	u.mu.Lock()
	a := u.current()
	u.next++
	u.calls = append(u.calls, c)
	u.mu.Unlock()
	if strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") {
		c.json = u.set.request(r.URL.Path, body)
	} else if v, err := decodeJSON(body); err == nil {
		c.json = v
	}
	switch {
	case a == nil || a.unreachable:
		panic(http.ErrAbortHandler)
	case a.call != nil:
		err = u.answerCall(w, r, a.call)
	default:
		a.write(w)
	}
	if err != nil {
		u.mu.Lock()
		u.wrong = err
		u.mu.Unlock()
		panic(http.ErrAbortHandler)
	}
}

func (a *answer) write(w http.ResponseWriter) {
	for _, h := range a.headers {
		w.Header()[http.CanonicalHeaderKey(h.name)] = h.values
	}
	w.WriteHeader(a.status)
	_, _ = w.Write(a.body) // who goes away is seen at the other end
}

// answerCall says it in gRPC.
func (u *upstream) answerCall(w http.ResponseWriter, r *http.Request, a *callAnswer) error {
	var body bytes.Buffer
	for _, m := range a.messages {
		data, err := u.set.response(r.URL.Path, m)
		if err != nil {
			return err
		}
		body.Write(data)
	}
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status, Grpc-Message")
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(body.Bytes())
	w.Header().Set("Grpc-Status", strconv.Itoa(a.code))
	if a.detail != "" {
		w.Header().Set("Grpc-Message", a.detail)
	}
	return nil
}
