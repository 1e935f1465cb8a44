package integration

import (
	"bytes"
	"compress/gzip"
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

	"connectrpc.com/connect"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/gatehouse-caddy/gatehouse/modules/transcode/transcodetest"
)

// h2c lets clients of gRPC in.
const h2c = "servers {\nprotocols h1 h2c\n}\n"

// shopGateway is a gateway before the shop; more goes into its api, before the
// proxy, and transcode takes options.
func shopGateway(t testing.TB, shop *transcodetest.Server, options, more string) *gateway {
	t.Helper()
	return shopWith(t, shop.Shop, h2c, shopSite(shop, options, more))
}

func shopSite(shop *transcodetest.Server, options, more string) string {
	return fmt.Sprintf("api shop {\ntranscode shop.binpb {\n%s\n}\n%s\nreverse_proxy h2c://%s\n}", options, more, shop.Addr)
}

// shopWith is a gateway with the shop's descriptors at hand.
func shopWith(t testing.TB, shop *transcodetest.Shop, global, site string) *gateway {
	t.Helper()
	gw := prepare(t)
	gw.write(t, "shop.binpb", string(shop.Set))
	if err := gw.load(global, site); err != nil {
		t.Fatal(err)
	}
	return gw
}

// h2 is a client that speaks HTTP/2 in clear, as gRPC does.
func (g *gateway) h2(t testing.TB) *http.Client {
	tr := &http.Transport{Protocols: new(http.Protocols), DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", g.sock)
	}}
	tr.Protocols.SetUnencryptedHTTP2(true)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// grpc is a client of gRPC itself.
func (g *gateway) grpc(t testing.TB) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+g.sock, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("localhost"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

type shopClient = connect.Client[dynamicpb.Message, dynamicpb.Message]

// shopCaller is a real client of the Connect or gRPC-Web protocol.
func shopCaller(shop *transcodetest.Server, c *http.Client, method string, options ...connect.ClientOption) *shopClient {
	m := shop.Method(method)
	return connect.NewClient[dynamicpb.Message, dynamicpb.Message](c, "http://localhost/shop.v1.Orders/"+method, append(options,
		connect.WithSchema(m),
		connect.WithResponseInitializer(func(_ connect.Spec, msg any) error {
			if d, ok := msg.(*dynamicpb.Message); ok {
				*d = *dynamicpb.NewMessage(m.Output())
			}
			return nil
		}))...)
}

func TestTranscodeREST(t *testing.T) {
	shop := transcodetest.New(t).Serve(t)
	gw := shopGateway(t, shop, "max_message 64KiB", "")
	order := func(fields string) string {
		all := map[string]string{"id": `""`, "customer": `""`, "quantity": `"0"`, "note": `""`, "state": `"STATE_UNSPECIFIED"`, "parts": "[]"}
		for f := range strings.SplitSeq(fields, " ") {
			name, value, _ := strings.Cut(f, "=")
			all[name] = value
		}
		return fmt.Sprintf(`{"id":%s,"customer":%s,"quantity":%s,"note":%s,"state":%s,"parts":%s}`, all["id"], all["customer"], all["quantity"], all["note"], all["state"], all["parts"])
	}
	for _, c := range []struct {
		name, method, path, body string
		status                   int
		want                     string // the body, or what a problem's must contain
	}{
		{"a path parameter", "GET", "/v1/orders/7", "", 200, order(`id="7"`)},
		{"an escaped slash is data", "GET", "/v1/orders/a%2Fb", "", 200, order(`id="a/b"`)},
		{"a colon is data where no verb follows", "GET", "/v1/orders/urn:7", "", 200, order(`id="urn:7"`)},
		{"a path is unescaped once", "GET", "/v1/customers/50%2525/orders/7", "", 200, order(`id="customers/50%25/orders/7"`)},
		{"query parameters", "GET", "/v1/orders?pageSize=7&tags=a&tags=b&filter.customer=ann&state=OPEN", "", 200, `page_size:7`},
		{"a field as the body", "POST", "/v1/customers/ann/orders?dryRun=true", `{"quantity":"7","note":"hi"}`, 200, order(`id="new" customer="ann" quantity="7" note="hi"`)},
		{"all of the body", "POST", "/v1/orders/7:cancel", `{"why":"late"}`, 200, order(`id="7" note="late"`)},
		{"no body is an empty message", "POST", "/v1/orders/7:cancel", "", 200, order(`id="7"`)},
		{"what is no JSON", "GET", "/v1/orders:export", "", 200, "id,quantity\na,1\n"},

		{"not found", "GET", "/v1/orders/missing", "", 404, `"detail":"there is no order 100% like \"missing\"","instance"`},
		{"not valid", "GET", "/v1/orders/invalid", "", 400, `"code":"INVALID_ARGUMENT","errors":[{"name":"order.parts[0].unit_count","detail":"is too small"}]`},
		{"come back later", "GET", "/v1/orders/exhausted", "", 429, `"reason":"transcode.upstream","code":"RESOURCE_EXHAUSTED"`},
		{"5xx is masked", "GET", "/v1/orders/broken", "", 500, `"reason":"api.upstream_failed"`},
		{"a code that does not exist", "GET", "/v1/orders/unknown", "", 500, `"reason":"api.upstream_failed"`},

		{"a wrong query parameter", "GET", "/v1/orders?page_size=many", "", 400, `"reason":"transcode.malformed","errors":[{"in":"query","name":"page_size"`},
		{"an unknown query parameter", "GET", "/v1/orders/7?what=1", "", 400, `"errors":[{"in":"query","name":"what"`},
		{"a query that cannot be read", "GET", "/v1/orders/7?size=%zz", "", 400, `"detail":"The query cannot be read."`},
		{"a wrong path", "GET", "/v1/orders/%FF", "", 400, `"reason":"transcode.malformed"`},
		{"cut JSON", "POST", "/v1/orders/7:cancel", `{"why":"late"`, 400, `"detail":"The JSON is not well formed`},
		{"an unknown member", "POST", "/v1/orders/7:cancel", `{"secret":"hunter2"}`, 400, `"detail":"The JSON has a member that the message does not know (line 1:2)."`},
		{"a member twice", "POST", "/v1/orders/7:cancel", `{"why":"a","why":"b"}`, 400, `"detail":"The JSON has a member twice (line 1:12)."`},
		{"a wrong type", "POST", "/v1/orders/7:cancel", `{"why":1234567}`, 400, `"detail":"The JSON has a wrong value for why (line 1:8)."`},
		{"nested too deep", "POST", "/v1/orders/7:cancel", strings.Repeat(`{"order":{"parts":[`, 1) + strings.Repeat(`{"parts":[`, 200) + strings.Repeat("]}", 200) + "]}}", 400, `"detail":"The JSON is nested too deep`},
		{"a body where none belongs", "GET", "/v1/orders/7", `{"id":"8"}`, 400, `"detail":"The method takes no request body here."`},
		{"a method the path does not have", "DELETE", "/v1/orders/7", "", 405, `"reason":"transcode.unknown_method"`},
		{"a stream over REST", "GET", "/v1/orders/7:watch", "", 415, `"reason":"transcode.content_type"`},
		{"a large request", "POST", "/v1/orders/7:cancel", `{"why":"` + strings.Repeat("x", 1<<16) + `"}`, 413, `"reason":"transcode.message_too_large"`},
		{"a large answer", "GET", "/v1/orders/large?size=70000", "", 502, `"reason":"transcode.answer"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			before := shop.Calls.Load()
			a := gw.do(t, c.method, c.path, http.Header{"Content-Type": {"application/json;charset=UTF-8"}}, c.body)
			a.body = strings.ReplaceAll(a.body, `, "`, `,"`) // protojson varies it on purpose
			if a.status != c.status || a.status != 200 && a.problem(t)["status"] != float64(c.status) || !strings.Contains(a.body, c.want) {
				t.Errorf("%d %s, want %d and %s", a.status, a.body, c.status, c.want)
			}
			if all := fmt.Sprint(a); strings.Contains(all, "secret-backend") || strings.Contains(all, "hunter2") || strings.Contains(all, "1234567") {
				t.Errorf("the answer tells too much: %s", all)
			}
			if refused := strings.Contains(a.body, `"reason":"transcode.`) && !strings.Contains(a.body, "upstream") && c.status != 502; refused && shop.Calls.Load() != before {
				t.Error("the service was called")
			}
		})
	}
	if a := gw.get(t, "/v1/orders/exhausted", nil); a.header.Get("Retry-After") != "2" {
		t.Errorf("Retry-After %q", a.header.Get("Retry-After"))
	}
	if a := gw.do(t, "DELETE", "/v1/orders/7", nil, ""); a.header.Get("Allow") != "GET" {
		t.Errorf("Allow %q", a.header.Get("Allow"))
	}
	for _, d := range gw.decisions(t) {
		if all := fmt.Sprint(d); strings.Contains(all, "hunter2") || strings.Contains(all, "1234567") {
			t.Errorf("logged: %s", all)
		}
	}
	first := gw.decisions(t)[0]
	if first["operation"] != "shop.v1.Orders.Get" || first["path"] != "/v1/orders/7" || first["method"] != "GET" || first["verdict"] != "allow" {
		t.Errorf("the first entry is %v", first)
	}
}

func TestTranscodeCompressedRequests(t *testing.T) {
	shop := transcodetest.New(t).Serve(t)
	gw := shopGateway(t, shop, "max_message 64KiB", "")
	post := func(text string) answer {
		var zipped bytes.Buffer
		z := gzip.NewWriter(&zipped)
		io.WriteString(z, text)
		z.Close()
		return gw.do(t, "POST", "/v1/orders/7:cancel", http.Header{"Content-Encoding": {"gzip"}}, zipped.String())
	}
	if a := post(`{"why":"packed"}`); a.status != 200 || !strings.Contains(a.body, "packed") {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := post(`{"why":"` + strings.Repeat("x", 10<<20) + `"}`); a.status != 413 || a.reason() != "transcode.message_too_large" {
		t.Errorf("ten megabytes out of ten kilobytes: %d %s", a.status, a.body)
	}
}

func TestTranscodeUnmatched(t *testing.T) {
	shop := transcodetest.New(t).Serve(t)
	files := newBackend(t, nil)
	site := "api shop {\ntranscode shop.binpb {\n%s\n}\n@rpc path /shop.v1.*\nreverse_proxy @rpc h2c://" + shop.Addr + "\nreverse_proxy " + files.addr() + "\n}"
	gw := shopWith(t, shop.Shop, h2c, fmt.Sprintf(site, "unmatched pass"))
	if a := gw.get(t, "/v1/orders/7", nil); a.status != 200 || !strings.Contains(a.body, `"id":"7"`) {
		t.Errorf("matchers do not see the call: %d %s", a.status, a.body)
	}
	for _, path := range []string{"/index.html", "/v1/nothing?x=%zz", "/v1/orders/?x=%zz", "/v1/orders/", "/v1//orders", "/", "/v1/orders/7:undo/x"} {
		if a := gw.do(t, "POST", path, nil, "data"); a.status != 200 || a.body != `{"ok":true}` {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
		if r, body := files.got(); r.URL.RequestURI() != path || body != "data" {
			t.Errorf("%s reached the upstream as %s with %q", path, r.URL.RequestURI(), body)
		}
	}
	gw = shopWith(t, shop.Shop, h2c, fmt.Sprintf(site, "unmatched refuse\nservices shop.v1.Orders"))
	for _, path := range []string{"/index.html", "/v1/nothing", "/v1/orders/"} {
		if a := gw.get(t, path, nil); a.status != 404 || a.reason() != "transcode.unmatched" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	err := gw.grpc(t).Invoke(t.Context(), "/shop.v1.Other/Get", shop.Request(t, "Get", ""), dynamicpb.NewMessage(shop.Method("Get").Output()))
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("a service that is not in the set: %v", err)
	}
}

// protocols are the clients that are not REST.
var protocols = map[string][]connect.ClientOption{
	"connect proto":  nil,
	"connect json":   {connect.WithProtoJSON()},
	"connect get":    {connect.WithHTTPGet()},
	"grpc-web proto": {connect.WithGRPCWeb()},
	"grpc-web json":  {connect.WithGRPCWeb(), connect.WithProtoJSON()},
	"grpc-web gzip":  {connect.WithGRPCWeb(), connect.WithSendGzip()},
	"connect gzip":   {connect.WithSendGzip()},
	"grpc proto":     {connect.WithGRPC()},
	"grpc json":      {connect.WithGRPC(), connect.WithProtoJSON()},
}

func TestTranscodeProtocols(t *testing.T) {
	shop := transcodetest.New(t).Serve(t)
	gw := shopGateway(t, shop, "", "")
	for name, options := range protocols {
		t.Run(name, func(t *testing.T) {
			client := gw.h2(t)
			get := shopCaller(shop, client, "Get", options...)
			res, err := get.CallUnary(t.Context(), connect.NewRequest(shop.Request(t, "Get", `id: "7"`)))
			if err != nil {
				t.Fatalf("unary: %v", err)
			}
			if id := transcodetest.Get(res.Msg, "id"); id != "7" {
				t.Errorf("unary: id %q", id)
			}

			for id, want := range map[string]connect.Code{"missing": connect.CodeNotFound, "invalid": connect.CodeInvalidArgument} {
				_, err = get.CallUnary(t.Context(), connect.NewRequest(shop.Request(t, "Get", "id: \""+id+"\"")))
				e := new(connect.Error)
				if !errors.As(err, &e) || e.Code() != want {
					t.Errorf("%s: %v", id, err)
					continue
				}
				if id == "missing" && e.Message() != `there is no order 100% like "missing"` {
					t.Errorf("message %q", e.Message())
				}
				if id == "invalid" {
					if len(e.Details()) != 1 {
						t.Errorf("%d details", len(e.Details()))
					} else if v, err := e.Details()[0].Value(); err != nil || v.(*errdetails.BadRequest).GetFieldViolations()[0].GetDescription() != "is too small" {
						t.Errorf("details %v %v", v, err)
					}
				}
			}

			// The first message comes while the service holds the stream open.
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			watch, err := shopCaller(shop, client, "Watch", options...).CallServerStream(ctx, connect.NewRequest(shop.Request(t, "Watch", `id: "slow"`)))
			if err != nil {
				t.Fatalf("server stream: %v", err)
			}
			if !watch.Receive() || transcodetest.Get(watch.Msg(), "id") != "slow" {
				t.Errorf("server stream: %v", watch.Err())
			}
			cancel()
			watch.Close()

			watch, err = shopCaller(shop, client, "Watch", options...).CallServerStream(t.Context(), connect.NewRequest(shop.Request(t, "Watch", `id: "partial"`)))
			if err != nil {
				t.Fatalf("server stream: %v", err)
			}
			n := 0
			for watch.Receive() {
				n++
			}
			if n != 2 || connect.CodeOf(watch.Err()) != connect.CodeAborted {
				t.Errorf("partial stream: %d messages, then %v", n, watch.Err())
			}
			watch.Close()

			upload := shopCaller(shop, client, "Import", options...).CallClientStream(t.Context())
			for i := range 3 {
				if err := upload.Send(shop.Request(t, "Import", fmt.Sprintf("quantity: %d", i))); err != nil {
					t.Fatal(err)
				}
			}
			list, err := upload.CloseAndReceive()
			if err != nil {
				t.Fatalf("client stream: %v", err)
			}
			if n := list.Msg.Get(list.Msg.Descriptor().Fields().ByName("orders")).List().Len(); n != 3 {
				t.Errorf("client stream: %d orders", n)
			}

			echo := shopCaller(shop, client, "Echo", options...).CallBidiStream(t.Context())
			for i := range 3 { // each is answered before the next is sent
				if err := echo.Send(shop.Request(t, "Echo", fmt.Sprintf("quantity: %d", i))); err != nil {
					t.Fatal(err)
				}
				msg, err := echo.Receive()
				if err != nil {
					t.Fatalf("both ways: %v", err)
				}
				if q := transcodetest.Get(msg, "quantity"); q != int64(i) {
					t.Errorf("both ways: %v, want %d", q, i)
				}
			}
			echo.CloseRequest()
			if _, err := echo.Receive(); !errors.Is(err, io.EOF) {
				t.Errorf("both ways: the end is %v", err)
			}
			echo.CloseResponse()
		})
	}
	for _, d := range gw.decisions(t) {
		if d["verdict"] != "allow" {
			t.Errorf("%v", d)
		}
	}
}

// TestTranscodeLongUpload: what comes to more than max_message in many messages
// is none of its business.
func TestTranscodeLongUpload(t *testing.T) {
	shop := transcodetest.New(t).Serve(t)
	gw := shopGateway(t, shop, "max_message 32KiB", "")
	for name, options := range protocols {
		upload := shopCaller(shop, gw.h2(t), "Import", options...).CallClientStream(t.Context())
		note := strings.Repeat("n", 10_000)
		for range 100 {
			if err := upload.Send(shop.Request(t, "Import", "note: \""+note+"\"")); err != nil {
				t.Fatal(err)
			}
		}
		// The answer is large too: those that must be held are refused.
		if _, err := upload.CloseAndReceive(); err != nil && connect.CodeOf(err) != connect.CodeResourceExhausted {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestTranscodeNativeGRPC(t *testing.T) {
	shop := transcodetest.New(t).Serve(t)
	gw := shopGateway(t, shop, "max_message 1KiB\nunmatched refuse", "")
	conn := gw.grpc(t)
	out := dynamicpb.NewMessage(shop.Method("Get").Output())
	if err := conn.Invoke(t.Context(), "/shop.v1.Orders/Get", shop.Request(t, "Get", `id: "large" size: 100000`), out); err != nil {
		t.Fatal(err)
	}
	if n := len(transcodetest.Get(out, "note").(string)); n != 100_000 {
		t.Errorf("a note of %d bytes", n)
	}
	err := conn.Invoke(t.Context(), "/shop.v1.Orders/Get", shop.Request(t, "Get", `id: "invalid"`), out)
	if s := status.Convert(err); s.Code() != codes.InvalidArgument || len(s.Details()) != 1 {
		t.Errorf("%v %v", err, s.Details())
	}
	stream, err := conn.NewStream(t.Context(), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/shop.v1.Orders/Echo")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if err := stream.SendMsg(shop.Request(t, "Echo", fmt.Sprintf("quantity: %d", i))); err != nil {
			t.Fatal(err)
		}
		if err := stream.RecvMsg(out); err != nil {
			t.Fatal(err)
		}
	}
	stream.CloseSend()
	if err := stream.RecvMsg(out); !errors.Is(err, io.EOF) {
		t.Error(err)
	}
}

func TestTranscodeGRPCWebText(t *testing.T) {
	shop := transcodetest.New(t).Serve(t)
	gw := shopGateway(t, shop, "", "")
	order := "\x0a\x017" // id: "7"
	frame := "\x00\x00\x00\x00\x03" + order
	a := gw.do(t, "POST", "/shop.v1.Orders/Watch", http.Header{"Content-Type": {"application/grpc-web-text"}}, base64.StdEncoding.EncodeToString([]byte(frame)))
	if a.status != 200 || a.header.Get("Content-Type") != "application/grpc-web-text+proto" {
		t.Fatalf("%d %v %s", a.status, a.header, a.body)
	}
	var body []byte
	for rest := a.body; rest != ""; { // pieces, each padded
		n := strings.IndexByte(rest, '=')
		for n >= 0 && n < len(rest) && rest[n] == '=' {
			n++
		}
		if n < 0 {
			n = len(rest)
		}
		piece, err := base64.StdEncoding.DecodeString(rest[:n])
		if err != nil {
			t.Fatalf("%v in %q", err, a.body)
		}
		body, rest = append(body, piece...), rest[n:]
	}
	n := 0
	for len(body) >= 5 && body[0] == 0 {
		body = body[5+binary.BigEndian.Uint32(body[1:]):]
		n++
	}
	if n != 3 || len(body) < 5 || body[0] != 0x80 || !strings.Contains(string(body), "Grpc-Status: 0\r\n") {
		t.Errorf("%d messages, then %q", n, body)
	}
}

// TestTranscodeAlone: without an api, refusals are the site's to answer.
func TestTranscodeAlone(t *testing.T) {
	shop := transcodetest.New(t).Serve(t)
	gw := shopWith(t, shop.Shop, "", "transcode shop.binpb\nreverse_proxy h2c://"+shop.Addr+"\nhandle_errors {\nrespond \"{http.error.status_code} {gatehouse.reason} {http.request.method} {http.request.uri}\"\n}")
	if a := gw.do(t, "POST", "/v1/orders/7:cancel", nil, "{"); a.status != 400 || a.body != "400 transcode.malformed POST /v1/orders/7:cancel" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := gw.get(t, "/v1/orders/7", nil); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := gw.get(t, "/v1/orders/broken", nil); a.status != 500 || a.problem(t)["code"] != "INTERNAL" {
		t.Errorf("%d %s", a.status, a.body)
	}
}

// TestTranscodeContract: an OpenAPI document of the REST face stands before it.
func TestTranscodeContract(t *testing.T) {
	shop := transcodetest.New(t).Serve(t)
	gw := prepare(t)
	gw.write(t, "shop.binpb", string(shop.Set))
	gw.write(t, "shop.openapi.yaml", `
openapi: 3.1.0
info: {title: Shop, version: "1"}
paths:
  /v1/orders/{id}:
    get:
      operationId: getOrder
      parameters:
        - {name: id, in: path, required: true, schema: {type: string, maxLength: 5}}
      responses: {"200": {description: the order}}
`)
	if err := gw.load(h2c, shopSite(shop, "", "contract shop.openapi.yaml")); err != nil {
		t.Fatal(err)
	}
	if a := gw.get(t, "/v1/orders/7", nil); a.status != 200 {
		t.Errorf("%d %s", a.status, a.body)
	}
	if a := gw.get(t, "/v1/orders/123456", nil); a.status != 400 || a.reason() != "input.parameters" {
		t.Errorf("%d %s", a.status, a.body)
	}
	if op := gw.decisions(t)[0]["operation"]; op != "getOrder" {
		t.Errorf("operation %v", op)
	}
}

// TestTranscodeOtherMethod: the contract's operation seems to take a path that is
// another method's. What was decided is not about that one, so it is not called.
func TestTranscodeOtherMethod(t *testing.T) {
	shop := transcodetest.New(t).Serve(t)
	gw := prepare(t)
	gw.write(t, "shop.binpb", string(shop.Set))
	gw.write(t, "shop.openapi.yaml", `
openapi: 3.1.0
info: {title: Shop, version: "1"}
servers: [{url: https://shop.example.com/v1}]
paths:
  /orders/{id}:
    get: {operationId: getOrder, responses: {"200": {description: ok}}}
    post: {operationId: touchOrder, requestBody: {content: {"*/*": {}}}, responses: {"200": {description: ok}}}
  /{kind}:
    get: {operationId: list, responses: {"200": {description: ok}}}
  /customers/{customer}/orders/{order}:
    get: {operationId: getCustomersOrder, responses: {"200": {description: ok}}}
`)
	gw.write(t, "calls.openapi.yaml", `
openapi: 3.1.0
info: {title: Shop, version: "1"}
paths:
  /shop.v1.Orders/Get:
    post: {operationId: get, requestBody: {content: {"*/*": {}}}, responses: {"200": {description: ok}}}
  /{package}/{method}:
    post: {operationId: other, requestBody: {content: {"*/*": {}}}, responses: {"200": {description: ok}}}
`)
	if err := gw.load(h2c, "handle /v1/* {\n"+shopSite(shop, "", "contract shop.openapi.yaml")+"\n}\nhandle {\n"+
		strings.Replace(shopSite(shop, "", "contract calls.openapi.yaml"), "api shop", "api calls", 1)+"\n}"); err != nil {
		t.Fatal(err)
	}
	for _, target := range []string{"/v1/orders/7", "/v1/customers/ann/orders/7"} {
		if a := gw.get(t, target, nil); a.status != 200 {
			t.Errorf("%s: %d %s", target, a.status, a.body)
		}
	}
	before := shop.Calls.Load()
	json, web := http.Header{"Content-Type": {"application/json"}}, http.Header{"Content-Type": {"application/grpc-web+proto"}}
	for _, c := range []struct {
		method, target, body string
		header               http.Header
	}{
		{"POST", "/v1/orders/7:cancel", "{}", json},
		{"POST", "/v1/orders/7%3Acancel", "{}", json},
		{"GET", "/v1/orders", "", nil},
		{"POST", "/shop.v1.Orders/Cancel", "\x00\x00\x00\x00\x00", web},
	} {
		a := gw.do(t, c.method, c.target, c.header, c.body)
		if c.body != "\x00\x00\x00\x00\x00" && a.status != 404 && a.status != 405 {
			t.Errorf("%s %s: %d %s", c.method, c.target, a.status, a.body)
		}
	}
	conn := gw.grpc(t)
	err := conn.Invoke(t.Context(), "/shop.v1.Orders/Cancel", shop.Request(t, "Cancel", ""), dynamicpb.NewMessage(shop.Method("Cancel").Output()))
	if status.Code(err) != codes.Unimplemented {
		t.Errorf("gRPC: %v", err)
	}
	if n := shop.Calls.Load(); n != before {
		t.Errorf("%d calls reached the service", n-before)
	}
	d := gw.decisions(t)
	if last := d[len(d)-1]; last["reason"] != "transcode.unmatched" || last["operation"] != "other" || last["verdict"] != "deny" {
		t.Errorf("decided %v", last)
	}
	if err := conn.Invoke(t.Context(), "/shop.v1.Orders/Get", shop.Request(t, "Get", `id: "7"`), dynamicpb.NewMessage(shop.Method("Get").Output())); err != nil {
		t.Errorf("gRPC, as described: %v", err)
	}
}

// TestTranscodeOnlyPOST: a call of gRPC and its kin is a POST. What is allowed by
// its method would otherwise let calls pass that write.
func TestTranscodeOnlyPOST(t *testing.T) {
	shop := transcodetest.New(t).Serve(t)
	gw := shopGateway(t, shop, "", "@write method POST\nrequire @write cel false")
	before := shop.Calls.Load()
	for _, ct := range []string{"application/grpc", "application/grpc+proto", "application/grpc+json", "application/grpc-web", "application/grpc-web-text", "application/connect+proto", "application/proto"} {
		for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "QUERY"} {
			req, err := http.NewRequestWithContext(t.Context(), method, "http://localhost/shop.v1.Orders/Cancel", bytes.NewReader(make([]byte, 5)))
			if err != nil {
				t.Fatal(err)
			}
			req.Header = http.Header{"Content-Type": {ct}, "Te": {"trailers"}, "Connect-Protocol-Version": {"1"}}
			resp, err := gw.h2(t).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			d := gw.decisions(t)
			if last := d[len(d)-1]; last["reason"] != "transcode.unknown_method" || resp.Header.Get("Allow") != "POST" {
				t.Errorf("%s %s: %v, allow %q", method, ct, last, resp.Header.Get("Allow"))
			}
		}
	}
	if n := shop.Calls.Load(); n != before {
		t.Errorf("%d calls reached the service", n-before)
	}
}

// TestTranscodeDescriptors: what is wrong with a file is found when the
// configuration is loaded, and named.
func TestTranscodeDescriptors(t *testing.T) {
	gw := prepare(t)
	shop := transcodetest.New(t)
	gw.write(t, "shop.binpb", string(shop.Set))
	gw.write(t, "shop.proto", transcodetest.Source())
	for name, c := range map[string]struct{ file, options, want string }{
		"absent":           {"none.binpb", "", "none.binpb: no such file"},
		"a source":         {"shop.proto", "", `shop.proto" is no descriptor set`},
		"unknown service":  {"shop.binpb", "services shop.v1.Order", `describes no service "shop.v1.Order"; it has shop.v1.Orders`},
		"too large a size": {"shop.binpb", "max_message 3GiB", "max_message must be"},
	} {
		err := gw.load("", "transcode "+c.file+" {\n"+c.options+"\n}\nrespond ok")
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

// TestTranscodeNeedsHTTP2: a stream both ways does not fit into HTTP/1.
func TestTranscodeNeedsHTTP2(t *testing.T) {
	shop := transcodetest.New(t).Serve(t)
	gw := shopGateway(t, shop, "", "")
	before := shop.Calls.Load()
	a := gw.do(t, "POST", "/shop.v1.Orders/Echo", http.Header{"Content-Type": {"application/connect+json"}}, "\x00\x00\x00\x00\x02{}")
	d := gw.decisions(t)
	if last := d[len(d)-1]; last["reason"] != "transcode.http_version" || last["verdict"] != "deny" || shop.Calls.Load() != before {
		t.Errorf("%d %q, decided %v", a.status, a.body, last)
	}
}

// TestTranscodeSaidAgain: what a stage has seen in the path cannot be another
// thing for the service, by a query that says it again.
func TestTranscodeSaidAgain(t *testing.T) {
	shop := transcodetest.New(t).Serve(t)
	gw := shopGateway(t, shop, "", "@seven path /v1/orders/7\nrequire @seven cel true")
	if a := gw.get(t, "/v1/orders/7?size=3", nil); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	for _, target := range []string{"/v1/orders/7?id=8", "/v1/orders/7?id=", "/v1/orders/7?size=3&size=4", "/v1/orders?page_size=1&pageSize=99"} {
		if a := gw.get(t, target, nil); a.reason() != "transcode.malformed" {
			t.Errorf("%s: %d %s", target, a.status, a.body)
		}
	}
	if a := gw.do(t, "POST", "/v1/customers/ann/orders?customer=bob", http.Header{"Content-Type": {"application/json"}}, `{"quantity":"1"}`); a.reason() != "transcode.malformed" {
		t.Errorf("%d %s", a.status, a.body)
	}
}
