package identity

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/jwt"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/keyset"
)

// devIdentifier is what tokens of a development issuer say in iss. The name
// ends in .invalid, so that it can never be a real issuer's.
func devIdentifier(name string) string { return "https://dev.gatehouse.invalid/" + name }

// devKeys loads the public key of a development issuer, and makes it first if
// there is none. It runs when a token has to be checked, never in Provision.
func devKeys(storage certmagic.Storage, name string) keyset.Fetch {
	return func(ctx context.Context) (*jwt.Set, error) {
		key, err := devKey(ctx, storage, name)
		if err != nil {
			return nil, err
		}
		return jwt.NewSet(keyID(key), &key.PublicKey), nil
	}
}

// devKey loads the private key, or makes it under a lock that the gateway and
// the command line share through the storage.
func devKey(ctx context.Context, storage certmagic.Storage, name string) (*ecdsa.PrivateKey, error) {
	path := "gatehouse/identity/dev/" + certmagic.StorageKeys.Safe(name) + ".pem"
	if key, err := loadKey(ctx, storage, path); !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err := storage.Lock(ctx, path); err != nil {
		return nil, fmt.Errorf("locking %q: %w", path, err)
	}
	defer func() { _ = storage.Unlock(context.WithoutCancel(ctx), path) }() // a lock that is left goes stale
	if key, err := loadKey(ctx, storage, path); !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	data := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	if err := storage.Store(ctx, path, data); err != nil {
		return nil, fmt.Errorf("storing %q: %w", path, err)
	}
	return key, nil
}

func loadKey(ctx context.Context, storage certmagic.Storage, path string) (*ecdsa.PrivateKey, error) {
	data, err := storage.Load(ctx, path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%q in the storage is no key; delete it to have a new one made", path)
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%q in the storage: %w", path, err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok || ec.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%q in the storage is not a P-256 key", path)
	}
	return ec, nil
}

func keyID(key *ecdsa.PrivateKey) string {
	point, _ := key.PublicKey.Bytes() // fails for curves that are not ours only
	sum := sha256.Sum256(point)
	return hex.EncodeToString(sum[:8])
}

// mint signs claims as the development issuer.
func mint(ctx context.Context, storage certmagic.Storage, i *Issuer, claims map[string]any, ttl time.Duration) (string, error) {
	key, err := devKey(ctx, storage, i.Name)
	if err != nil {
		return "", err
	}
	now := time.Now()
	claims["iss"] = devIdentifier(i.Name)
	claims["iat"], claims["exp"] = now.Unix(), now.Add(ttl).Unix()
	return sign(key, keyID(key), "at+jwt", claims)
}

// sign makes a token.
func sign(key *ecdsa.PrivateKey, id, typ string, claims map[string]any) (string, error) {
	header, err := json.Marshal(map[string]any{"alg": "ES256", "kid": id, "typ": typ})
	if err != nil {
		return "", err
	}
	body, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	b64 := base64.RawURLEncoding.EncodeToString
	signed := b64(header) + "." + b64(body)
	sum := sha256.Sum256([]byte(signed))
	r, s, err := ecdsa.Sign(rand.Reader, key, sum[:])
	if err != nil {
		return "", err
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	s.FillBytes(sig[32:])
	return signed + "." + b64(sig), nil
}
