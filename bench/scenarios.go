package main

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"strings"
	"time"
)

//go:embed order1k.json
var order1k string

//go:embed orders64k.json
var orders64k string

//go:embed orders.openapi.yaml
var contract string

// descriptors is the set of orders.proto; orders.proto says what made it.
//
//go:embed orders.binpb
var descriptors []byte

// scenario is a name, global options and a site, divided by a line of dashes. A
// comment `# env NAME=value` is for the process.
type scenario struct{ name, caddyfile string }

// set is scenarios that get the same request; the first two are plain Caddy.
type set struct {
	name      string
	request   string
	conns     int
	scenarios []scenario
}

const (
	plain = "---\nreverse_proxy UPSTREAM"

	// told is what of the gateway's cost is that of its headers: proxying,
	// logging and writing them is Caddy's own work.
	told = "---\n" + `route {
	request_header X-Request-Id rmtbjkqrxcg6e0g4tc60y04v
	request_header X-Gatehouse-Subject user-8f14e45f
	request_header X-Gatehouse-Tenant acme
	request_header X-Gatehouse-Roles "user admin"
	request_header X-Gatehouse-Scopes "orders:read orders:write"
	header >X-Request-Id rmtbjkqrxcg6e0g4tc60y04v
	header Ratelimit "\"free\";r=99999999;t=1"
	header Ratelimit-Policy "\"free\";q=100000000;w=60"
	reverse_proxy UPSTREAM
}`

	globals = `identity {
	issuer main https://id.example.com {
		jwks jwks.json
		audience orders-api
	}
}
quota {
	plan free 100000000/m burst 100000000
}
`
)

func api(directives ...string) string {
	return globals + "---\napi orders {\n" + strings.Join(directives, "\n") + "\nreverse_proxy UPSTREAM\n}"
}

func sets(token string) []set {
	const (
		identity = "identity main"
		quota    = "quota per tenant"
		routing  = "contract orders.openapi.yaml"
		scopes   = "require scope orders:read"
	)
	headers := "Host: shop.example.com\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nAccept: application/json\r\nAccept-Language: en-US,en;q=0.9\r\nAuthorization: Bearer " + token + "\r\n"
	get := "GET /orders?page=2&limit=50&sort=createdAt&status=pending&q=desk+lamp HTTP/1.1\r\n" + headers + "\r\n"
	post := func(path, body string) string {
		return fmt.Sprintf("POST %s HTTP/1.1\r\n%sContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", path, headers, len(body), body)
	}
	return []set{
		{"GET, a token seen before", get, 0, []scenario{
			{"plain Caddy", plain},
			{"plain Caddy again", plain},
			{"plain Caddy that collects half as often", plain + "\n# env GOGC=200"},
			{"plain Caddy that sets as many headers", told},
			{"api, no log", api("log denied")},
			{"api, no log, console off", "console off\n" + api("log denied")},
			{"api identity, no log", api("log denied", identity)},
			{"api resource identity, no log", api("log denied", "resource https://api.example.com", identity)},
			{"api identity, with sessions, no log", strings.Replace(api("log denied", identity+" {\nsession main\n}"), "audience orders-api", "audience orders-api\nlogin {\nclient_id portal\n}", 1)},
			{"api identity require, no log", api("log denied", identity, scopes)},
			{"all but firewall and schema, no log", api("log denied", identity, scopes, quota)},
			{"all but firewall and schema, no log, headroom off", "headroom off\n" + api("log denied", identity, scopes, quota)},
			{"all but firewall and schema", api(identity, scopes, quota)},
			{"contract, identity, require, input, quota", api(routing, identity, quota)},
			{"the same, responses compared as well", api(routing+" {\nresponses shadow\n}", identity, quota)},
		}},
		{"GET, one stage more than api", get, 0, []scenario{
			{"plain Caddy", plain},
			{"plain Caddy again", plain},
			{"api with Caddy's own transport", strings.Replace(api("log denied"), "reverse_proxy UPSTREAM", "reverse_proxy UPSTREAM {\ntransport http\n}", 1)},
			{"api", api("log denied")},
			{"guard", api("log denied", "guard")},
			{"reputation", api("log denied", "reputation {\ndeny 192.0.2.0/24 2001:db8::/32\n}")},
			{"reputation with 1,500 bots", "reputation {\nbots bots.json\n}\n" + api("log denied", "reputation")},
			{"identity", api("log denied", identity)},
			{"identity, tell jwt", api("log denied", identity+" {\ntell jwt {\naudience orders-backend\n}\n}")},
			{"quota", api("log denied", "quota per address 100000000/m burst 100000000")},
			{"quota shared by a cluster", "cluster unix://REDIS\n" + api("log denied", "quota per address 100000000/m burst 100000000")},
			{"canary", api("log denied", "canary next {\nweight 5%\nreverse_proxy UPSTREAM\n}")},
			{"catalog", api("log denied", "catalog")},
			{"every stage off", api("log off", identity+" {\nmode off\n}", scopes+" {\nmode off\n}", quota+" {\nmode off\n}", "firewall {\nmode off\n}")},
		}},
		{"GET of REST before a gRPC service", "GET /v1/orders/7 HTTP/1.1\r\n" + headers + "\r\n", 0, []scenario{
			{"plain Caddy before the same as REST", plain},
			{"the same again", plain},
			{"transcode", "---\napi orders {\nlog denied\ntranscode orders.binpb\nreverse_proxy h2c://UPSTREAM\n}"},
		}},
		{"POST 1 KB of JSON", post("/orders", order1k), 0, []scenario{
			{"plain Caddy", plain},
			{"plain Caddy again", plain},
			{"contract, identity, require, quota, input", api(routing, identity, quota)},
			{"guard as well", api("guard", routing, identity, quota)},
		}},
		{"Firewall, GET with five parameters", get, 4, []scenario{
			{"plain Caddy", plain},
			{"plain Caddy again", plain},
			{"firewall", api("firewall")},
		}},
		{"Firewall, POST 1 KB of JSON", post("/orders", order1k), 4, []scenario{
			{"plain Caddy", plain},
			{"plain Caddy again", plain},
			{"firewall", api("firewall")},
		}},
		{"Firewall, POST 64 KB of JSON", post("/orders/batch", orders64k), 2, []scenario{
			{"plain Caddy", plain},
			{"plain Caddy again", plain},
			{"firewall", api("firewall {\narguments 10000\n}")},
		}},
	}
}

// writeFiles puts the contract and a key set where the gateways look for them
// and returns a token that they accept.
func writeFiles(dir string) (token string, err error) {
	if err := os.WriteFile(join(dir, "orders.openapi.yaml"), []byte(contract), 0o600); err != nil {
		return "", err
	}
	bots := make([]map[string]string, 1500) // as many as crawler-user-agents lists
	for i := range bots {
		bots[i] = map[string]string{"pattern": fmt.Sprintf(`Crawler%d\/`, i)}
	}
	data, err := json.Marshal(bots)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(join(dir, "bots.json"), data, 0o600); err != nil {
		return "", err
	}
	if err := os.WriteFile(join(dir, "orders.binpb"), descriptors, 0o600); err != nil {
		return "", err
	}
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return "", err
	}
	b64 := base64.RawURLEncoding.EncodeToString
	set := map[string]any{"keys": []any{map[string]any{
		"kty": "RSA", "kid": "k1", "alg": "RS256", "use": "sig",
		"n": b64(key.N.Bytes()), "e": b64(big.NewInt(int64(key.E)).Bytes()),
	}}}
	data, err = json.Marshal(set)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(join(dir, "jwks.json"), data, 0o600); err != nil {
		return "", err
	}
	now := time.Now()
	claims, err := json.Marshal(map[string]any{
		"iss": "https://id.example.com", "aud": []string{"orders-api"}, "sub": "user-8f14e45f", "tenant": "acme", "plan": "free",
		"exp": now.Add(24 * time.Hour).Unix(), "nbf": now.Add(-time.Minute).Unix(), "iat": now.Add(-time.Minute).Unix(),
		"jti": "6d1f2f52-6b2e-4f2e-9a37-7f1f4a6a2c11", "roles": []string{"user", "admin"}, "scope": "orders:read orders:write",
	})
	if err != nil {
		return "", err
	}
	signed := b64([]byte(`{"alg":"RS256","kid":"k1","typ":"JWT"}`)) + "." + b64(claims)
	sum := sha256.Sum256([]byte(signed))
	sig, err := rsa.SignPKCS1v15(rand.Reader, key, crypto.SHA256, sum[:])
	return signed + "." + b64(sig), err
}
