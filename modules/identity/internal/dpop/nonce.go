package dpop

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"time"
)

// KeySize is how long a key of Nonces is.
const KeySize = 32

// Nonces makes nonces (RFC 9449, section 8) and knows its own again without
// remembering any: each says when it was made, and carries a code that takes the
// key to make. Whoever has the same key knows the same nonces. It may be used
// concurrently.
type Nonces struct{ key [KeySize]byte }

// NewNonces makes nonces by a key.
func NewNonces(key [KeySize]byte) *Nonces { return &Nonces{key} }

const (
	timeSize  = 8
	nonceSize = timeSize + 16
)

// At is the nonce of now for proofs that may be age old. It changes four times
// within that, so that one is good for three quarters of age at least.
func (n *Nonces) At(now time.Time, age time.Duration) string {
	step := max(int64(age/time.Second)/4, 1)
	var raw [nonceSize]byte
	n.write(&raw, now.Unix()/step*step)
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

// Good reports whether a nonce is one that was made by the key at most age ago,
// as far as clocks that are apart by ahead can say.
func (n *Nonces) Good(nonce string, age, ahead time.Duration, now time.Time) bool {
	var raw, want [nonceSize]byte
	if len(nonce) != base64.RawURLEncoding.EncodedLen(nonceSize) {
		return false
	}
	if size, err := base64.RawURLEncoding.Strict().Decode(raw[:], []byte(nonce)); err != nil || size != nonceSize {
		return false
	}
	made := int64(binary.BigEndian.Uint64(raw[:timeSize])) //nolint:gosec // what is no time of ours has another code
	n.write(&want, made)
	if !hmac.Equal(raw[:], want[:]) {
		return false
	}
	old := now.Sub(time.Unix(made, 0))
	return old < age && old > -ahead
}

func (n *Nonces) write(raw *[nonceSize]byte, made int64) {
	binary.BigEndian.PutUint64(raw[:timeSize], uint64(made)) //nolint:gosec // read back the same way
	mac := hmac.New(sha256.New, n.key[:])
	_, _ = mac.Write([]byte("dpop nonce\x00"))
	_, _ = mac.Write(raw[:timeSize])
	copy(raw[timeSize:], mac.Sum(nil))
}
