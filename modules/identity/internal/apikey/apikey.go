// Package apikey knows how our API keys are written: a prefix that scanners for
// leaked secrets can find, 160 random bits, and a checksum that tells a
// mistyped or made-up key from one that may exist.
package apikey

import (
	"crypto/rand"
	"fmt"
	"hash/crc32"
	"strings"
)

const (
	prefix   = "gh_"
	alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	length   = 32
)

// Pattern is a regular expression that finds keys in text; it is documented for
// secret scanners, and must not change.
const Pattern = `\bgh_[0-9a-hjkmnp-tv-z]{32}_[0-9a-f]{8}\b`

// New makes a key.
func New() string {
	var raw [length]byte
	_, _ = rand.Read(raw[:]) // never fails, by its contract
	for i := range raw {
		raw[i] = alphabet[raw[i]&31]
	}
	return prefix + string(raw[:]) + "_" + checksum(string(raw[:]))
}

func checksum(random string) string { return fmt.Sprintf("%08x", crc32.ChecksumIEEE([]byte(random))) }

// MayExist is false for what begins like a key of ours and is none: it need not
// be looked up. Keys that others have made are not judged.
func MayExist(key string) bool {
	rest, ours := strings.CutPrefix(key, prefix)
	if !ours {
		return true
	}
	random, sum, _ := strings.Cut(rest, "_")
	return len(random) == length && sum == checksum(random)
}
