package integration

import (
	"net/http"
	"testing"

	"github.com/gatehouse-caddy/gatehouse/modules/transcode/transcodetest"
)

func TestTranscodeREST(t *testing.T) {
	shop := transcodetest.New(t).Serve(t)
	gw := prepare(t)
	gw.write(t, "shop.binpb", string(shop.Set))
	if err := gw.load("", "api shop {\ntranscode shop.binpb\nreverse_proxy h2c://"+shop.Addr+"\n}"); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method, path, body string
	}{
		{"GET", "/v1/orders/a%2Fb", ""},
		{"GET", "/v1/orders/a:b", ""},
		{"GET", "/v1/customers/c%2525/orders/7", ""},
		{"GET", "/v1/orders?pageSize=7&tags=a&tags=b&filter.customer=ann&state=OPEN", ""},
		{"POST", "/v1/customers/ann/orders?dryRun=true", `{"quantity":"7","note":"hi"}`},
		{"POST", "/v1/orders/7:cancel", ``},
		{"POST", "/v1/orders/7:cancel", `{"why":"because"}`},
		{"GET", "/v1/orders:export", ""},
		{"GET", "/v1/orders/missing", ""},
		{"GET", "/v1/orders/invalid", ""},
		{"GET", "/v1/orders/exhausted", ""},
		{"GET", "/v1/orders/broken", ""},
		{"GET", "/v1/orders/unknown", ""},
		{"GET", "/v1/orders/7?size=many", ""},
		{"GET", "/v1/orders/7?what=1", ""},
		{"DELETE", "/v1/orders/7", ""},
		{"GET", "/v1/orders/7:watch", ""},
		{"POST", "/v1/orders/7:cancel", `{"why":"because"`},
		{"POST", "/v1/orders/7:cancel", `{"whi":"because"}`},
		{"POST", "/v1/orders/7:cancel", `{"why":12345}`},
		{"GET", "/v1/orders/large?size=5000000", ""},
		{"GET", "/v2/orders/7", ""},
		{"GET", "/v1/nothing", ""},
	} {
		a := gw.do(t, c.method, c.path, http.Header{}, c.body)
		t.Log(c.method, c.path, c.body, "->", a.status, a.header.Get("Content-Type"), a.body[:min(len(a.body), 400)], a.header)
	}
	for _, e := range gw.decisions(t) {
		t.Log(e["path"], e["operation"], e["verdict"], e["reason"], e["error"], e["stages"])
	}
}
