package integration

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"
)

// issuer signs tokens as a real one would; its key set is a file or a URL.
type issuer struct {
	kid string
	key *ecdsa.PrivateKey
}

func newIssuer(t testing.TB, kid string) *issuer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{kid, key}
}

var b64 = base64.RawURLEncoding.EncodeToString

// jwks is the issuer's key set (RFC 7517).
func (i *issuer) jwks() string {
	point, err := i.key.PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	return fmt.Sprintf(`{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","kid":%q,"x":%q,"y":%q}]}`,
		i.kid, b64(point[1:33]), b64(point[33:]))
}

// sign makes a token of any header and claims, good or bad.
func (i *issuer) sign(t testing.TB, header, claims map[string]any) string {
	t.Helper()
	h, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	c, err := json.Marshal(claims)
	if err != nil {
		t.Fatal(err)
	}
	signed := b64(h) + "." + b64(c)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, i.key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return signed + "." + b64(sig)
}

// token makes a good token, with some claims changed; nil takes one out.
func (i *issuer) token(t testing.TB, change map[string]any) string {
	t.Helper()
	now := time.Now().Unix()
	claims := map[string]any{
		"iss": "https://id.test", "aud": "orders-api", "sub": "ann", "tenant": "acme",
		"iat": now - 10, "exp": now + 600, "scope": "orders:read orders:write",
	}
	maps.Copy(claims, change)
	maps.DeleteFunc(claims, func(_ string, v any) bool { return v == nil })
	return i.sign(t, map[string]any{"alg": "ES256", "kid": i.kid, "typ": "at+jwt"}, claims)
}

// bearer is the header that carries a token.
func bearer(token string) http.Header {
	return http.Header{"Authorization": {"Bearer " + token}}
}

// with adds name and value to a copy of h.
func with(h http.Header, name, value string) http.Header {
	h = h.Clone()
	if h == nil {
		h = http.Header{}
	}
	h.Add(name, value)
	return h
}

const walkContract = `
openapi: 3.0.3
info: {title: Orders, version: "1"}
security: [{login: ["orders:read"]}]
paths:
  /orders:
    get:
      operationId: listOrders
      parameters: [{name: limit, in: query, schema: {type: integer, maximum: 100}}]
      responses: {"200": {description: ok}}
    post:
      operationId: createOrder
      security: [{login: ["orders:write"]}]
      requestBody:
        required: true
        content:
          application/json:
            schema:
              type: object
              required: [sku]
              properties: {sku: {type: string}, quantity: {type: integer, minimum: 1}}
      responses: {"200": {description: ok}}
  /orders/{id}:
    delete:
      operationId: deleteOrder
      security: [{login: ["orders:admin"]}]
      responses: {"204": {description: ok}}
  /health:
    get:
      operationId: health
      security: []
      responses: {"200": {description: ok}}
components:
  securitySchemes:
    login: {type: oauth2, flows: {clientCredentials: {tokenUrl: "https://id.test/token", scopes: {}}}}
`

const walkGlobals = `
	identity {
		issuer main https://id.test {
			jwks %s/jwks.json
			audience orders-api
		}
	}
	quota {
		plan free 1000/h
		plan tiny 2/h
		default free
	}
`

// walkSite is every stage in front of the backend.
const walkSite = `
	api orders {
		contract %[1]s/orders.yaml
		identity main
		quota per tenant
		firewall
		%[3]s
		reverse_proxy %[2]s
	}
`

// walk is a gateway with every stage, its issuer and its backend.
type walk struct {
	*gateway
	*issuer
	backend *backend
}

func startWalk(t testing.TB, more string) *walk {
	t.Helper()
	w := &walk{prepare(t), newIssuer(t, "k1"), newBackend(t, nil)}
	w.write(t, "jwks.json", w.jwks())
	w.write(t, "orders.yaml", walkContract)
	if err := w.reload(more); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *walk) reload(more string) error {
	return w.load(fmt.Sprintf(walkGlobals, w.dir), fmt.Sprintf(walkSite, w.dir, w.backend.addr(), more))
}

// TestWalk sends requests through the whole house.
func TestWalk(t *testing.T) {
	w := startWalk(t, "")
	ann := bearer(w.token(t, nil))
	for _, tc := range []struct {
		name, method, path string
		header             http.Header
		body               string
		status             int
		reason             string
	}{
		{"a good request", "GET", "/orders?limit=5", ann, "", 200, ""},
		{"again, with the token remembered", "GET", "/orders", ann, "", 200, ""},
		{"a good body", "POST", "/orders", with(ann, "Content-Type", "application/json"), `{"sku":"a","quantity":1}`, 200, ""},
		{"an operation for everybody", "GET", "/health", nil, "", 200, ""},
		{"nobody", "GET", "/orders", nil, "", 401, "identity.missing"},
		{"no scope", "DELETE", "/orders/1", ann, "", 403, "require.scope"},
		{"no path", "GET", "/nowhere", ann, "", 404, "contract.unknown_path"},
		{"no method", "PUT", "/orders", ann, "", 405, "contract.unknown_method"},
		{"a bad parameter", "GET", "/orders?limit=500", ann, "", 400, "input.parameters"},
		{"a bad body", "POST", "/orders", with(ann, "Content-Type", "application/json"), `{"sku":1}`, 400, "input.body"},
		{"not JSON", "POST", "/orders", with(ann, "Content-Type", "application/json"), `{"sku":1,}`, 400, "input.malformed"},
		{"a body of another kind", "POST", "/orders", with(ann, "Content-Type", "text/csv"), `a,b`, 415, "input.content_type"},
		{"an attack", "GET", "/orders?x=1%27%20UNION%20SELECT%20password%20FROM%20users--", ann, "", 403, "firewall.attack"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := w.do(t, tc.method, tc.path, tc.header, tc.body)
			if a.status != tc.status || a.reason() != tc.reason {
				t.Errorf("%d %s, want %d %s", a.status, a.body, tc.status, tc.reason)
			}
			if tc.reason != "" {
				a.problem(t)
			}
		})
	}

	w.get(t, "/orders", with(ann, "X-Gatehouse-Subject", "mallory"))
	if r, _ := w.backend.got(); r.Header.Get("X-Gatehouse-Subject") != "ann" || r.Header.Get("X-Gatehouse-Tenant") != "acme" {
		t.Errorf("the backend was told %v", r.Header)
	}
	entry := w.decisions(t)[0]
	var walked []string
	for _, s := range entry["stages"].([]any) {
		walked = append(walked, s.(map[string]any)["stage"].(string))
	}
	if got := strings.Join(walked, " "); got != "contract identity require quota input firewall resilience api" {
		t.Errorf("the walk was %s", got)
	}
	if entry["operation"] != "listOrders" || entry["principal"] != "ann" || entry["tenant"] != "acme" {
		t.Errorf("entry %v", entry)
	}
}
