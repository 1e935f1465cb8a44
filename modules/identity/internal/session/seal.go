package session

import (
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"golang.org/x/crypto/chacha20poly1305"
)

// Times of keys.
const (
	// RotateEvery is how old the newest key gets before another is made.
	RotateEvery = 7 * 24 * time.Hour

	// spread is how long a new key waits for every node to have read it before
	// anything is sealed with it.
	spread = 3 * time.Minute

	// MaxLifetime bounds sessions, and with them how long a key has to be kept.
	MaxLifetime = 30 * 24 * time.Hour
)

// ErrSealed means that a text was not sealed by us, for this purpose.
var ErrSealed = errors.New("not sealed by this gateway for this purpose")

// Key is a secret that others are derived from.
type Key struct {
	ID     string    `json:"id"`
	Secret []byte    `json:"secret"`
	Made   time.Time `json:"made"`
}

// Ring is the keys there are, oldest first. It does not change.
type Ring struct {
	Keys []Key `json:"keys"`
}

const (
	idBytes  = 4
	keyBytes = 32
)

// ReadRing reads a ring as it is kept.
func ReadRing(data []byte) (*Ring, error) {
	r := new(Ring)
	if err := json.Unmarshal(data, r); err != nil || len(r.Keys) == 0 {
		return nil, errors.New("no ring of keys")
	}
	for _, k := range r.Keys {
		if id, err := hex.DecodeString(k.ID); err != nil || len(id) != idBytes || len(k.Secret) != keyBytes {
			return nil, errors.New("a key of the ring is damaged")
		}
	}
	return r, nil
}

// Rotated returns the ring with a new key, if it is time for one, and without
// those that nothing can be sealed with any more. A nil ring gets its first.
func (r *Ring) Rotated(now time.Time) (next *Ring, changed bool) {
	next = new(Ring)
	if r != nil {
		for i, k := range r.Keys {
			// A key is used until its successor is.
			last := i == len(r.Keys)-1
			if last || now.Sub(r.Keys[i+1].Made) <= MaxLifetime+spread+time.Hour {
				next.Keys = append(next.Keys, k)
			}
		}
		changed = len(next.Keys) != len(r.Keys)
		if newest := r.Keys[len(r.Keys)-1]; now.Sub(newest.Made) < RotateEvery {
			return next, changed
		}
	}
	var id [idBytes]byte
	secret := make([]byte, keyBytes)
	_, _ = rand.Read(id[:]) // never fails, by its contract
	_, _ = rand.Read(secret)
	next.Keys = append(next.Keys, Key{hex.EncodeToString(id[:]), secret, now})
	return next, true
}

// current is the newest key that every node has.
func (r *Ring) current(now time.Time) *Key {
	for i := len(r.Keys) - 1; i > 0; i-- {
		if now.Sub(r.Keys[i].Made) >= spread {
			return &r.Keys[i]
		}
	}
	return &r.Keys[0]
}

// derive makes the key of a purpose, so that what is sealed for one can never
// be opened for another.
func (k *Key) derive(purpose string) cipher.AEAD {
	key, err := hkdf.Key(sha256.New, k.Secret, nil, "gatehouse session 1: "+purpose, chacha20poly1305.KeySize)
	if err != nil {
		panic(err) // the length is right
	}
	aead, err := chacha20poly1305.NewX(key)
	if err != nil {
		panic(err) // the length is right
	}
	return aead
}

var encoding = base64.RawURLEncoding.Strict()

// Seal makes a text of data that only this gateway can read, and only for the
// same purpose and bound to the same things. The text goes into a cookie.
func (r *Ring) Seal(purpose, bound string, data []byte, now time.Time) string {
	k := r.current(now)
	id, _ := hex.DecodeString(k.ID)
	aead := k.derive(purpose)
	out := make([]byte, idBytes+aead.NonceSize(), idBytes+aead.NonceSize()+len(data)+aead.Overhead())
	copy(out, id)
	_, _ = rand.Read(out[idBytes:]) // 24 bytes: no two are alike, however many are sealed
	out = aead.Seal(out, out[idBytes:], data, []byte(bound))
	return encoding.EncodeToString(out)
}

// Open returns what was sealed.
func (r *Ring) Open(purpose, bound, text string) ([]byte, error) {
	raw, err := encoding.DecodeString(text)
	if err != nil || len(raw) < idBytes+chacha20poly1305.NonceSizeX {
		return nil, ErrSealed
	}
	id := hex.EncodeToString(raw[:idBytes])
	i := slices.IndexFunc(r.Keys, func(k Key) bool { return k.ID == id })
	if i < 0 {
		return nil, ErrSealed
	}
	aead := r.Keys[i].derive(purpose)
	nonce, sealed := raw[idBytes:idBytes+aead.NonceSize()], raw[idBytes+aead.NonceSize():]
	data, err := aead.Open(nil, nonce, sealed, []byte(bound))
	if err != nil {
		return nil, ErrSealed
	}
	return data, nil
}
