package integration

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// raw is a client that sends one request after another on a connection that it
// keeps, and none of them twice.
type raw struct {
	dial func() (net.Conn, error)
	conn net.Conn
	br   *bufio.Reader
	sent int // on this connection
}

// post reports whether the request was answered; lost tells that it was not,
// on a connection that the gateway had left open.
func (c *raw) post() (answered, lost bool) {
	if c.conn == nil {
		conn, err := c.dial()
		if err != nil {
			return false, false
		}
		c.conn, c.br, c.sent = conn, bufio.NewReader(conn), 0
	}
	_ = c.conn.SetDeadline(time.Now().Add(30 * time.Second))
	_, err := io.WriteString(c.conn, "POST /orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nhi")
	if err == nil {
		var res *http.Response
		if res, err = http.ReadResponse(c.br, nil); err == nil {
			_, err = io.Copy(io.Discard, res.Body)
			c.sent++
			if err == nil && !res.Close {
				return res.StatusCode == 200, false
			}
			c.close()
			return err == nil && res.StatusCode == 200, err != nil
		}
	}
	kept := c.sent > 0
	c.close()
	return false, kept
}

func (c *raw) close() {
	if c.conn != nil {
		_ = c.conn.Close()
		c.conn = nil
	}
}

// TestDrain: a reload loses no request on a connection that is kept alive, not
// even one that its client cannot send again; neither does one that is refused.
func TestDrain(t *testing.T) {
	_, port := freePorts(t)
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	for _, tc := range []struct {
		name, site string
		dial       func() (net.Conn, error)
	}{
		{"plain", "http://localhost:%d {", func() (net.Conn, error) { return net.Dial("tcp", addr) }},
		{"TLS", "https://localhost:%d {\n tls DIR/cert.pem DIR/key.pem", func() (net.Conn, error) {
			return tls.Dial("tcp", addr, &tls.Config{ServerName: "localhost", NextProtos: []string{"http/1.1"}, InsecureSkipVerify: true})
		}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			up := newUpstream(t)
			gw := prepare(t)
			(&clientAuth{gateway: gw}).serve(t, 1)
			load := func(line string) error {
				return gw.loadFile(gw.caddyfile("", "respond ok") + fmt.Sprintf(strings.ReplaceAll(tc.site, "DIR", gw.dir)+"\n bind 127.0.0.1\n api orders {\n %s\n reverse_proxy %s\n}\n}\n", port, line, up.addr()))
			}
			if err := load(""); err != nil {
				t.Fatal(err)
			}
			eventually(t, "the gateway to serve", func() bool {
				c := &raw{dial: tc.dial}
				ok, _ := c.post()
				return ok
			})
			var stop atomic.Bool
			var answered, lost, dropped atomic.Int64
			var wg sync.WaitGroup
			for range 6 {
				wg.Go(func() {
					c := &raw{dial: tc.dial}
					for !stop.Load() {
						ok, gone := c.post()
						switch {
						case ok:
							answered.Add(1)
						case gone:
							lost.Add(1)
						default:
							dropped.Add(1) // a connection that was being opened
						}
					}
					c.close()
				})
			}
			for i := range 20 {
				if err := load(fmt.Sprintf("owner team-%d", i)); err != nil {
					t.Error(err)
				}
				if i%5 == 4 && load("contract "+gw.dir+"/missing.yaml") == nil {
					t.Error("a contract that is not there is loaded")
				}
			}
			stop.Store(true)
			wg.Wait()
			t.Logf("%d answered, %d lost on kept connections, %d not opened", answered.Load(), lost.Load(), dropped.Load())
			if lost.Load() > 0 || answered.Load() < 200 {
				t.Errorf("%d requests are lost, and %d were answered", lost.Load(), answered.Load())
			}
		})
	}
}
