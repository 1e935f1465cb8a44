package clientauth

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes of the algorithms
	_ "crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/lestrrat-go/jwx/v2/jwk"
)

const (
	assertionType = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

	// lifetime of an assertion. It is used at once; this is for clocks.
	lifetime = time.Minute
)

// Assertion signs who the client is, anew for each question, for audience alone
// (RFC 7523, section 3). The file has a private key in PEM or as a JWK; kid
// may be empty, and is then the JWK's, if that has one.
func Assertion(id, audience, file, kid string, clock Clock) (*Client, error) {
	keys := &watched[*signing]{clock: clock, files: []string{file}, words: []string{"key"}, build: func(contents [][]byte) (*signing, error) {
		k, err := parseKey(contents[0])
		if err != nil {
			return nil, fmt.Errorf("key %q: %w", file, err)
		}
		if kid != "" {
			k.kid = kid
		}
		return k, nil
	}}
	if err := keys.open(); err != nil {
		return nil, err
	}
	return &Client{ID: id, prove: func(form url.Values, _ http.Header) error {
		signed, err := keys.get().assert(id, audience, clock.Now())
		if err != nil {
			return err
		}
		form.Set("client_assertion_type", assertionType)
		form.Set("client_assertion", signed)
		return nil
	}}, nil
}

// signing is a key with the one algorithm it signs by.
type signing struct {
	private  crypto.Signer
	alg, kid string
}

// hashes of the algorithms; Ed25519 has its own.
var hashes = map[string]crypto.Hash{
	"RS256": crypto.SHA256, "RS384": crypto.SHA384, "RS512": crypto.SHA512,
	"PS256": crypto.SHA256, "PS384": crypto.SHA384, "PS512": crypto.SHA512,
	"ES256": crypto.SHA256, "ES384": crypto.SHA384, "ES512": crypto.SHA512,
	"EdDSA": 0,
}

// parseKey reads a private key. Its errors say nothing of what stands there.
func parseKey(data []byte) (*signing, error) {
	text := strings.TrimSpace(string(data))
	k := new(signing)
	var raw any
	var alg string
	if strings.HasPrefix(text, "{") {
		parsed, err := jwk.ParseKey([]byte(text))
		if err != nil {
			return nil, errors.New("not a JWK")
		}
		if use := parsed.KeyUsage(); use != "" && use != "sig" {
			return nil, errors.New("the JWK is not for signatures")
		}
		if err := parsed.Raw(&raw); err != nil {
			return nil, errors.New("not a JWK that can be read")
		}
		k.kid, alg = parsed.KeyID(), parsed.Algorithm().String()
	} else {
		var err error
		if raw, err = parsePEM([]byte(text)); err != nil {
			return nil, err
		}
	}
	var algs []string // what the key can do, the default first
	switch p := raw.(type) {
	case *rsa.PrivateKey:
		if p.N.BitLen() < 2048 || p.N.BitLen() > 8192 || p.Validate() != nil {
			return nil, errors.New("an RSA key must be sound, and of 2048 to 8192 bits")
		}
		k.private, algs = p, []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
	case *ecdsa.PrivateKey:
		if _, err := p.ECDH(); err != nil {
			return nil, errors.New("the EC key is not sound, or of a curve that is not accepted")
		}
		k.private = p
		switch p.Curve {
		case elliptic.P256():
			algs = []string{"ES256"}
		case elliptic.P384():
			algs = []string{"ES384"}
		case elliptic.P521():
			algs = []string{"ES512"}
		}
	case ed25519.PrivateKey:
		k.private, algs = p, []string{"EdDSA"}
	default:
		return nil, errors.New("not a private key of RSA, EC or Ed25519")
	}
	if alg == "Ed25519" {
		alg = "EdDSA"
	}
	if alg == "" {
		alg = algs[0]
	}
	if !slices.Contains(algs, alg) {
		return nil, fmt.Errorf("alg %.32q does not fit the key", alg)
	}
	k.alg = alg
	return k, nil
}

func parsePEM(data []byte) (any, error) {
	block, rest := pem.Decode(data)
	if block != nil && block.Type == "EC PARAMETERS" { // OpenSSL writes it before the key
		block, rest = pem.Decode(rest)
	}
	if block == nil {
		return nil, errors.New("it is neither PEM nor a JWK")
	}
	if len(strings.TrimSpace(string(rest))) > 0 {
		return nil, fmt.Errorf("line %d: there is something behind the key", 1+strings.Count(string(data[:len(data)-len(strings.TrimSpace(string(rest)))]), "\n"))
	}
	var key any
	var err error
	switch block.Type {
	case "PRIVATE KEY":
		key, err = x509.ParsePKCS8PrivateKey(block.Bytes)
	case "RSA PRIVATE KEY":
		key, err = x509.ParsePKCS1PrivateKey(block.Bytes)
	case "EC PRIVATE KEY":
		key, err = x509.ParseECPrivateKey(block.Bytes)
	case "ENCRYPTED PRIVATE KEY":
		return nil, errors.New("the key is encrypted; store it without a passphrase, for this user alone")
	default:
		return nil, fmt.Errorf("PEM of %.32q is not a private key", block.Type)
	}
	if err != nil {
		return nil, errors.New("the PEM cannot be read as a private key")
	}
	return key, nil
}

// assert makes an assertion (RFC 7523, section 3; OpenID Connect Core 1.0,
// section 9).
func (k *signing) assert(id, audience string, now time.Time) (string, error) {
	header := map[string]string{"alg": k.alg, "typ": "JWT"}
	if k.kid != "" {
		header["kid"] = k.kid
	}
	head, err := json.Marshal(header)
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(map[string]any{
		"iss": id, "sub": id, "aud": audience, "jti": rand.Text(),
		"iat": now.Unix(), "exp": now.Add(lifetime).Unix(),
	})
	if err != nil {
		return "", err
	}
	signed := base64.RawURLEncoding.EncodeToString(head) + "." + base64.RawURLEncoding.EncodeToString(body)
	sig, err := k.sign([]byte(signed))
	if err != nil {
		return "", errors.New("the key cannot sign")
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(sig), nil
}

func (k *signing) sign(data []byte) ([]byte, error) {
	hash := hashes[k.alg]
	if hash != 0 {
		h := hash.New()
		_, _ = h.Write(data)
		data = h.Sum(nil)
	}
	switch p := k.private.(type) {
	case *ecdsa.PrivateKey: // both numbers at full length (RFC 7518, section 3.4)
		r, s, err := ecdsa.Sign(rand.Reader, p, data)
		if err != nil {
			return nil, err
		}
		size := (p.Curve.Params().BitSize + 7) / 8
		sig := make([]byte, 2*size)
		r.FillBytes(sig[:size])
		s.FillBytes(sig[size:])
		return sig, nil
	case *rsa.PrivateKey:
		if strings.HasPrefix(k.alg, "PS") {
			return rsa.SignPSS(rand.Reader, p, hash, data, &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		}
	}
	return k.private.Sign(rand.Reader, data, hash)
}
