package integration

import (
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

const askedGlobals = "identity {\nissuer main %s {\naudience orders-api\nintrospect {\nclient_id gateway\nclient_secret {env.INTROSPECTION_SECRET}\n}\n}\n}"

// TestEndpointMoves: an issuer may move the endpoint that it is asked at, and is
// found again without a reload.
func TestEndpointMoves(t *testing.T) {
	var where atomic.Value
	where.Store("/a")
	var iss *httptest.Server
	iss = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		switch r.URL.Path {
		case where.Load():
			_, _ = fmt.Fprint(w, `{"active":true,"sub":"ann","aud":"orders-api"}`)
		case "/.well-known/openid-configuration":
			_, _ = fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":"%s/k","introspection_endpoint":"%s%s"}`, iss.URL, iss.URL, iss.URL, where.Load())
		default:
			w.WriteHeader(http.StatusNotFound)
		}
	}))
	defer iss.Close()
	t.Setenv("INTROSPECTION_SECRET", "s3cret")
	gw := start(t, fmt.Sprintf(askedGlobals, iss.URL), "api demo {\nidentity main\nrespond ok\n}")
	if a := gw.get(t, "/", bearer("one")); a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	where.Store("/b")
	if a := gw.get(t, "/", bearer("two")); a.reason() != "identity.unavailable" {
		t.Errorf("at the old place: %d %s", a.status, a.body)
	}
	n := 0
	eventually(t, "the new place to be found", func() bool {
		n++
		return gw.get(t, "/", bearer(fmt.Sprint("three", n))).status == 200
	})
}

// TestIssuerNamesNoNeighbour: an issuer far away, which may have been taken over,
// cannot send the gateway to what listens on the gateway's own machine.
func TestIssuerNamesNoNeighbour(t *testing.T) {
	var asked atomic.Int64
	neighbour := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer neighbour.Close()
	var iss *httptest.Server
	redirect := false
	iss = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if redirect {
			http.Redirect(w, r, neighbour.URL, http.StatusFound)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"issuer":%q,"jwks_uri":%q,"introspection_endpoint":%q}`, iss.URL, neighbour.URL+"/keys", neighbour.URL+"/stop")
	}))
	defer iss.Close()
	name := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: iss.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SSL_CERT_FILE", name)
	t.Setenv("INTROSPECTION_SECRET", "s3cret")
	gw := prepare(t)
	gw.process(t, gw.caddyfile(fmt.Sprintf(askedGlobals, iss.URL), "api demo {\nidentity main\nrespond ok\n}"))
	signed := newIssuer(t, "k1").token(t, map[string]any{"iss": iss.URL})
	for _, redirect = range []bool{false, true} {
		for _, token := range []string{fmt.Sprint("opaque", redirect), signed} {
			if a := gw.get(t, "/", bearer(token)); a.reason() != "identity.unavailable" {
				t.Errorf("%d %s", a.status, a.body)
			}
		}
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("the neighbour was asked %d times", n)
	}
	if !strings.Contains(gw.log(t), "must be https, as what names it") {
		t.Error("the log does not say why")
	}
}
