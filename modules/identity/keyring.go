package identity

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/gate/strictjson"
)

// keyring holds API keys by the SHA-256 of each. A key is long and random, so
// a fast hash keeps it safe at rest.
type keyring struct {
	byHash map[[sha256.Size]byte]*keyEntry
}

type keyEntry struct {
	hash    [sha256.Size]byte
	who     *proven
	expires time.Time // zero: never
}

// apiKey is one entry of a file of keys.
type apiKey struct {
	ID      string    `json:"id"`
	SHA256  string    `json:"sha256"`
	Subject string    `json:"subject,omitempty"`
	Tenant  string    `json:"tenant,omitempty"`
	Plan    string    `json:"plan,omitempty"`
	Roles   []string  `json:"roles,omitempty"`
	Scopes  []string  `json:"scopes,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
}

var members = []string{"id", "sha256", "subject", "tenant", "plan", "roles", "scopes", "expires"}

// start finds the next entry behind offset.
func start(data []byte, offset int) int {
	return offset + max(bytes.IndexByte(data[offset:], '{'), 0)
}

// readKeys reads a file of keys: a JSON array of entries.
func readKeys(name string) (*keyring, error) {
	data, err := os.ReadFile(name) //nolint:gosec // the operator's own file
	if err != nil {
		return nil, fmt.Errorf("reading keys: %w", err)
	}
	at := func(offset int, err error) error {
		return fmt.Errorf("%s:%d: %w", name, 1+bytes.Count(data[:offset], []byte("\n")), err)
	}
	// Read strictly first: encoding/json takes the last of two members of one
	// name, any case of a name, and leaves alone what stands behind the list.
	doc, err := strictjson.Decode(data, strictjson.Limits{Values: 1 << 24})
	if bad, ok := errors.AsType[*strictjson.Error](err); ok {
		return nil, at(bad.Offset, errors.New(bad.Reason))
	}
	list, _ := doc.([]any)
	dec := json.NewDecoder(bytes.NewReader(data))
	fail := func(err error) error { return at(int(dec.InputOffset()), err) }
	if tok, err := dec.Token(); err != nil || tok != json.Delim('[') {
		return nil, fail(errors.New("a list of keys is expected"))
	}
	ring := &keyring{byHash: make(map[[sha256.Size]byte]*keyEntry)}
	ids := map[string]bool{}
	for n := 0; dec.More(); n++ {
		entry, _ := list[n].(map[string]any)
		for member := range entry {
			if !slices.Contains(members, member) {
				return nil, at(start(data, int(dec.InputOffset())), fmt.Errorf("unrecognized member %q; expected %s", member, strings.Join(members, ", ")))
			}
		}
		var k apiKey
		if err := dec.Decode(&k); err != nil {
			return nil, fail(err)
		}
		e := &keyEntry{expires: k.Expires}
		sum, err := hex.DecodeString(k.SHA256)
		switch {
		case k.ID == "":
			return nil, fail(errors.New("a key needs an id"))
		case ids[k.ID]:
			return nil, fail(fmt.Errorf("key %q stands twice", k.ID))
		case err != nil || len(sum) != sha256.Size:
			return nil, fail(fmt.Errorf("key %q: sha256 is not 64 hexadecimal digits", k.ID))
		}
		ids[k.ID] = true
		copy(e.hash[:], sum)
		if ring.byHash[e.hash] != nil {
			return nil, fail(fmt.Errorf("key %q has the hash of another", k.ID))
		}
		if k.Subject == "" {
			k.Subject = k.ID
		}
		e.who = prove(&gate.Principal{
			Subject: k.Subject, Client: k.ID, Tenant: k.Tenant, Plan: k.Plan,
			Roles: k.Roles, Scopes: k.Scopes, Issuer: "keys", Method: gate.APIKey,
		})
		ring.byHash[e.hash] = e
	}
	if _, err := dec.Token(); err != nil {
		return nil, fail(err)
	}
	return ring, nil
}

// find returns the principal of a key, or why there is none. The map is
// searched by a hash that the caller cannot steer, and the match is compared
// in constant time.
func (k *keyring) find(key string, now time.Time) (*proven, gate.Reason) {
	sum := sha256.Sum256([]byte(key))
	e := k.byHash[sum]
	if e == nil || subtle.ConstantTimeCompare(e.hash[:], sum[:]) != 1 {
		return nil, gate.IdentityInvalidAPIKey
	}
	if !e.expires.IsZero() && !now.Before(e.expires) {
		return nil, gate.IdentityExpired
	}
	return e.who, gate.None
}

// newKey makes a key: a prefix that scanners for leaked secrets can find, 160
// random bits, and a checksum that tells a mistyped key from a wrong one.
func newKey() (key, hash string) {
	const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"
	var raw [32]byte
	_, _ = rand.Read(raw[:]) // never fails, by its contract
	for i := range raw {
		raw[i] = alphabet[raw[i]&31]
	}
	key = fmt.Sprintf("gh_%s_%08x", raw[:], crc32.ChecksumIEEE(raw[:]))
	sum := sha256.Sum256([]byte(key))
	return key, hex.EncodeToString(sum[:])
}
