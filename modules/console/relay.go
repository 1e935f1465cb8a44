package console

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"

	"github.com/gatehouse-caddy/gatehouse/modules/registry"
)

// show passes on what the console's page asks for, and nothing else of the
// admin endpoint.
func show(ctx context.Context, client *registry.Client, out io.Writer, listen string) error {
	address, err := client.Endpoint()
	if err != nil {
		return err
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", listen)
	if err != nil {
		return fmt.Errorf("listening: %w", err)
	}
	own := ln.Addr().(*net.TCPAddr)
	if !own.IP.IsLoopback() {
		_ = ln.Close()
		return fmt.Errorf("%s can be reached from other machines; listen on localhost and use a tunnel", listen)
	}
	pass := newDoor(own.Port)
	srv := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Another site's page must not get at this under a name of its own.
		host, port, _ := net.SplitHostPort(r.Host)
		if port != strconv.Itoa(own.Port) || host != "localhost" && host != own.IP.String() {
			http.Error(w, "this console answers to localhost only", http.StatusForbidden)
			return
		}
		if pass.lets(w, r) {
			relay(w, r, address)
		}
	})}
	go func() {
		<-ctx.Done()
		_ = srv.Close()
	}()
	if _, err := fmt.Fprintf(out, "http://localhost:%d%sconsole?%s=%s\n", own.Port, prefix, keyParam, pass.key); err != nil {
		return err
	}
	if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// keyParam is where the printed address has its key.
const keyParam = "key"

// door lets in the browser of whoever has seen the printed address. The relay
// asks with the operator's token, and any user of the machine can connect to it.
type door struct {
	key    string // of the address
	cookie string // its name; browsers send cookies to every port of a host
	ticket string // what the cookie holds

	used atomic.Bool
}

func newDoor(port int) *door {
	return &door{key: rand.Text(), ticket: rand.Text(), cookie: "gatehouse_console_" + strconv.Itoa(port)}
}

// lets reports whether the request may pass. It has answered otherwise: the key
// is good once, for a cookie, and leaves the address bar and the history.
func (d *door) lets(w http.ResponseWriter, r *http.Request) bool {
	let := false
	for _, c := range r.CookiesNamed(d.cookie) {
		let = equal(c.Value, d.ticket) || let
	}
	query := r.URL.Query()
	key := query.Get(keyParam)
	if key == "" && let {
		return true
	}
	header := w.Header()
	header.Set("Cache-Control", "no-store")
	header.Set("Referrer-Policy", "no-referrer")
	if !let {
		if r.Method != http.MethodGet || !equal(key, d.key) || !d.used.CompareAndSwap(false, true) {
			http.Error(w, "the address that the command printed lets one browser in, once; run it again for another", http.StatusForbidden)
			return false
		}
		http.SetCookie(w, &http.Cookie{Name: d.cookie, Value: d.ticket, Path: prefix, HttpOnly: true, SameSite: http.SameSiteStrictMode}) //nolint:gosec // not Secure: this is the loopback interface, without TLS
	}
	header.Set("Location", prefix+"console")
	w.WriteHeader(http.StatusSeeOther)
	return false
}

func equal(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// relay answers with what the admin endpoint answers.
func relay(w http.ResponseWriter, r *http.Request, address string) {
	place := strings.TrimPrefix(r.URL.Path, prefix)
	part, _, _ := strings.Cut(place, "/")
	// One with dots in it would be another on the way.
	if r.Method != http.MethodGet || place == r.URL.Path || path.Clean(r.URL.Path) != r.URL.Path || part != "console" && part != "exchanges" && part != "overview" {
		http.NotFound(w, r)
		return
	}
	header := registry.Authorized()
	if id := r.Header.Get("Last-Event-ID"); id != "" {
		header.Set("Last-Event-ID", id)
	}
	resp, err := caddycmd.AdminAPIRequest(address, http.MethodGet, (&url.URL{Path: r.URL.Path, RawQuery: r.URL.RawQuery}).RequestURI(), header, nil)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer resp.Body.Close()
	stop := context.AfterFunc(r.Context(), func() { _ = resp.Body.Close() }) // ends a stream
	defer stop()
	for _, name := range []string{"Content-Type", "Content-Security-Policy", "Cache-Control", "X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy", "Cross-Origin-Opener-Policy", "Cross-Origin-Resource-Policy"} {
		if v := resp.Header.Get(name); v != "" {
			w.Header().Set(name, v)
		}
	}
	w.WriteHeader(resp.StatusCode)
	buf := make([]byte, 32<<10)
	for {
		n, err := resp.Body.Read(buf)
		if _, werr := w.Write(buf[:n]); werr != nil || err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
	}
}
