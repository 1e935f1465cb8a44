package integration

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/gatehouse-caddy/gatehouse/modules/transcode/transcodetest"
)

// TestTranscodeRefusals: every client learns in its own protocol that it is
// refused, and why.
func TestTranscodeRefusals(t *testing.T) {
	shop := transcodetest.New(t).Serve(t)
	global := h2c + "identity {\nissuer main dev\n}"
	gw := shopWith(t, shop.Shop, global, shopSite(shop, "", "identity main"))
	const sentence = "The request carries no credential."
	for name, options := range protocols {
		t.Run(name, func(t *testing.T) {
			client := gw.h2(t)
			_, err := shopCaller(shop, client, "Get", options...).CallUnary(t.Context(), connect.NewRequest(shop.Request(t, "Get", `id: "7"`)))
			e := new(connect.Error)
			if !errors.As(err, &e) || e.Code() != connect.CodeUnauthenticated || e.Message() != sentence {
				t.Errorf("unary: %v", err)
			}
			watch, err := shopCaller(shop, client, "Watch", options...).CallServerStream(t.Context(), connect.NewRequest(shop.Request(t, "Watch", `id: "7"`)))
			if err == nil {
				watch.Receive()
				err = watch.Err()
				watch.Close()
			}
			if !errors.As(err, &e) || e.Code() != connect.CodeUnauthenticated || e.Message() != sentence {
				t.Errorf("stream: %v", err)
			}
		})
	}
	err := gw.grpc(t).Invoke(t.Context(), "/shop.v1.Orders/Get", shop.Request(t, "Get", ""), dynamicpb.NewMessage(shop.Method("Get").Output()))
	if s := status.Convert(err); s.Code() != codes.Unauthenticated || s.Message() != sentence {
		t.Errorf("gRPC: %v", err)
	}
	if a := gw.get(t, "/v1/orders/7", nil); a.status != 401 || a.problem(t)["reason"] != "identity.missing" {
		t.Errorf("REST: %d %s", a.status, a.body)
	}
	body := base64.StdEncoding.EncodeToString([]byte("\x00\x00\x00\x00\x00"))
	a := gw.do(t, "POST", "/shop.v1.Orders/Get", http.Header{"Content-Type": {"application/grpc-web-text+proto"}}, body)
	end, err := base64.StdEncoding.DecodeString(a.body)
	if err != nil || a.status != 200 || a.header.Get("Content-Type") != "application/grpc-web-text+proto" || !strings.Contains(string(end), "grpc-status: 16\r\n") {
		t.Errorf("gRPC-Web as text: %d %v %q", a.status, a.header, end)
	}
	if n := shop.Calls.Load(); n != 0 {
		t.Errorf("the service was called %d times", n)
	}
}

// TestTranscodeBrokenUpload: what goes wrong in the middle of a stream must not
// look to the service like its end.
func TestTranscodeBrokenUpload(t *testing.T) {
	shop := transcodetest.New(t).Serve(t)
	gw := shopGateway(t, shop, "", "")
	frame := func(flag byte, text string) string {
		return string(binary.BigEndian.AppendUint32([]byte{flag}, uint32(len(text)))) + text
	}
	for name, bad := range map[string]string{
		"not JSON":        frame(0, `{"quantity":`),
		"unknown member":  frame(0, `{"quantitee":1}`),
		"wrong flag":      frame(7, `{}`),
		"cut":             frame(0, `{"quantity":"5"}`)[:9],
		"too large":       frame(0, `{"note":"`+strings.Repeat("x", 5<<20)+`"}`),
		"says it is vast": "\x00\xff\xff\xff\xff",
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequestWithContext(t.Context(), "POST", "http://localhost/shop.v1.Orders/Import", strings.NewReader(frame(0, `{"quantity":"1"}`)+bad))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/connect+json")
			res, err := gw.h2(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			body, err := io.ReadAll(res.Body)
			if err != nil || !strings.Contains(string(body), `"code":"invalid_argument"`) {
				t.Errorf("%d %q %v", res.StatusCode, body, err)
			}
		})
	}
	for _, d := range gw.decisions(t) {
		if r := d["reason"]; r != "transcode.malformed" && r != "transcode.message_too_large" {
			t.Errorf("%v", d)
		}
	}
}

func TestTranscodeDeadlines(t *testing.T) {
	shop := transcodetest.New(t).Serve(t)
	site := func(breaker string) string {
		return "api shop {\ntranscode shop.binpb {\ntimeout 300ms\n}\nreverse_proxy h2c://" + shop.Addr + " {\ntransport gatehouse {\nbreaker {\n" + breaker + "\n}\n}\n}\n}"
	}
	gw := shopWith(t, shop.Shop, h2c, site("consecutive 3\nsamples 5\nopen 1m"))
	for range 10 { // impatient clients open no breaker
		if a := gw.get(t, "/v1/orders/slow", http.Header{"X-Server-Timeout": {"0.01"}}); a.status != 504 || a.reason() != "transcode.timeout" {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
	if a := gw.get(t, "/v1/orders/7", nil); a.status != 200 {
		t.Errorf("after impatient clients: %d %s", a.status, a.body)
	}
	gw = shopWith(t, shop.Shop, h2c, site("consecutive 1000\nsamples 1003"))
	for name, c := range map[string]struct {
		header http.Header
		most   time.Duration
	}{
		"its own": {http.Header{"X-Server-Timeout": {"0.05"}}, 250 * time.Millisecond},
		"ours":    {nil, 2 * time.Second},
		"a later": {http.Header{"X-Server-Timeout": {"3600"}}, 2 * time.Second},
	} {
		began := time.Now()
		if a := gw.get(t, "/v1/orders/slow", c.header); a.status != 504 {
			t.Errorf("%s: %d %s", name, a.status, a.body)
		}
		if took := time.Since(began); took > c.most {
			t.Errorf("%s: after %s", name, took)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for name, options := range protocols {
		if strings.HasPrefix(name, "grpc ") {
			continue // in gRPC itself the client's deadline is the only one
		}
		_, err := shopCaller(shop, gw.h2(t), "Get", options...).CallUnary(ctx, connect.NewRequest(shop.Request(t, "Get", `id: "slow"`)))
		if connect.CodeOf(err) != connect.CodeDeadlineExceeded {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTranscodeBackendDown(t *testing.T) {
	shop := transcodetest.New(t).Serve(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := l.Addr().String()
	l.Close()
	site := "api shop {\nguard\ntranscode shop.binpb\nreverse_proxy h2c://%s h2c://%s {\nlb_policy %s\nlb_retries 2\ntransport gatehouse {\nbreaker {\nsamples %d\nconsecutive 1000\n}\n}\n}\n}"
	gw := shopWith(t, shop.Shop, h2c, fmt.Sprintf(site, dead, dead, "gatehouse", 1001))
	if a := gw.get(t, "/v1/orders/7", nil); a.status != 502 || a.problem(t)["reason"] != "resilience.unreachable" {
		t.Errorf("REST: %d %s", a.status, a.body)
	}
	for name, options := range protocols {
		_, err := shopCaller(shop, gw.h2(t), "Get", options...).CallUnary(t.Context(), connect.NewRequest(shop.Request(t, "Get", `id: "7"`)))
		if connect.CodeOf(err) != connect.CodeUnavailable || !strings.Contains(err.Error(), "could not be reached") {
			t.Errorf("%s: %v", name, err)
		}
	}
	// The guard has read the JSON; another upstream must get the message again,
	// not that.
	gw = shopWith(t, shop.Shop, h2c, fmt.Sprintf(site, dead, shop.Addr, "round_robin", 1002))
	for range 6 {
		a := gw.do(t, "POST", "/v1/orders/7:cancel", http.Header{"Content-Type": {"application/json"}}, `{"why":"late"}`)
		if a.status != 200 || !strings.Contains(a.body, `"note":"late"`) {
			t.Errorf("%d %s", a.status, a.body)
		}
	}
}

// TestTranscodeBrokenAnswers: whatever the service answers, a client of REST
// gets a whole answer.
func TestTranscodeBrokenAnswers(t *testing.T) {
	shop := transcodetest.New(t)
	for name, c := range map[string]struct {
		handler http.HandlerFunc
		status  int
	}{
		"no gRPC": {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }, 502},
		"nothing": {func(http.ResponseWriter, *http.Request) {}, 502},
		"a status of HTTP": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(403)
		}, 403},
		"no message": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
		}, 200},
		"no status": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			io.WriteString(w, "\x00\x00\x00\x00\x00")
		}, 502},
		"no Protobuf": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			io.WriteString(w, "\x00\x00\x00\x00\x02\xff\xff")
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
		}, 502},
		"an unknown flag": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			io.WriteString(w, "\x09\x00\x00\x00\x00")
			w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
		}, 502},
		"a vast message": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			io.WriteString(w, "\x00\xff\xff\xff\xff")
			for range 100 {
				if _, err := w.Write(make([]byte, 1<<16)); err != nil {
					return
				}
			}
		}, 502},
		"cut": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			io.WriteString(w, "\x00\x00\x00\x00\x20half")
			http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}, 502},
		"details that lie": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
			w.Header().Set("Grpc-Status", "5")
			w.Header().Set("Grpc-Message", "100%")
			w.Header().Set("Grpc-Status-Details-Bin", base64.StdEncoding.EncodeToString([]byte{8, 99}))
		}, 404},
	} {
		t.Run(name, func(t *testing.T) {
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			read := func(w http.ResponseWriter, r *http.Request) {
				io.Copy(io.Discard, r.Body)
				c.handler(w, r)
			}
			srv := &http.Server{Handler: http.HandlerFunc(read), Protocols: new(http.Protocols)}
			srv.Protocols.SetUnencryptedHTTP2(true)
			go srv.Serve(l)
			t.Cleanup(func() { srv.Close() })
			gw := shopGateway(t, &transcodetest.Server{Shop: shop, Addr: l.Addr().String()}, "", "")
			if a := gw.get(t, "/v1/orders/7", nil); a.status != c.status || a.status != 200 && a.problem(t)["reason"] == "" {
				t.Errorf("%d %s", a.status, a.body)
			}
			server := &transcodetest.Server{Shop: shop}
			for name, options := range protocols {
				ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
				_, err := shopCaller(server, gw.h2(t), "Get", options...).CallUnary(ctx, connect.NewRequest(shop.Request(t, "Get", "")))
				cancel()
				if c.status != 200 && err == nil || errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("%s: %v", name, err)
				}
			}
			for _, d := range gw.decisions(t) {
				if d["reason"] == "api.panic" {
					t.Errorf("%v", d)
				}
			}
		})
	}
}
