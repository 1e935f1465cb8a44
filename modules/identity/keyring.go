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
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/gate/strictjson"
	"github.com/gatehouse-caddy/gatehouse/modules/registry"
)

// keyring holds API keys by the SHA-256 of each. A key is long and random, so
// a fast hash keeps it safe at rest.
type keyring struct {
	byHash  hashes
	entries map[string]any // as the file has them, by id
}

// hashes finds keys.
type hashes map[[sha256.Size]byte]*keyEntry

type keyEntry struct {
	hash    [sha256.Size]byte
	who     *proven
	expires time.Time // zero: never
}

// apiKey is one entry of a file of keys.
type apiKey struct {
	ID      string    `json:"id,omitempty"`
	SHA256  string    `json:"sha256"`
	Subject string    `json:"subject,omitempty"`
	Tenant  string    `json:"tenant,omitempty"`
	Plan    string    `json:"plan,omitempty"`
	Roles   []string  `json:"roles,omitempty"`
	Scopes  []string  `json:"scopes,omitempty"`
	Expires time.Time `json:"expires,omitzero"`
}

// entry makes the principal that the key proves.
func (k *apiKey) entry() (*keyEntry, error) {
	e := &keyEntry{expires: k.Expires}
	sum, err := hex.DecodeString(k.SHA256)
	if err != nil || len(sum) != sha256.Size {
		return nil, errors.New("sha256 is not 64 hexadecimal digits")
	}
	copy(e.hash[:], sum)
	subject := k.Subject
	if subject == "" {
		subject = k.ID
	}
	e.who = prove(&gate.Principal{
		Subject: subject, Client: k.ID, Tenant: k.Tenant, Plan: k.Plan,
		Roles: k.Roles, Scopes: k.Scopes, Issuer: "keys", Method: gate.APIKey,
	})
	e.who.ends = k.Expires
	return e, nil
}

// keys are the live objects of the kind keys. Their members are those of the
// file of keys; the id stands in the path.
var keys = registry.NewKind(registry.Kind[*keyEntry, hashes]{
	Name: "keys",
	App:  "gatehouse_identity",
	Read: func(id string, value json.RawMessage) (*keyEntry, error) {
		var k apiKey
		if err := registry.Strict(value, &k); err != nil {
			return nil, err
		}
		if k.ID != "" && k.ID != id {
			return nil, fmt.Errorf("the id is %q in the path and %q in the object", id, k.ID)
		}
		k.ID = id
		return k.entry()
	},
	Index: func(all map[string]*keyEntry) hashes {
		byHash := make(hashes, len(all))
		for _, id := range slices.Sorted(maps.Keys(all)) { // of two with one hash, the same one wins each time
			if e := all[id]; byHash[e.hash] == nil {
				byHash[e.hash] = e
			}
		}
		return byHash
	},
})

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
	ring := &keyring{byHash: hashes{}, entries: map[string]any{}}
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
		if k.ID == "" {
			return nil, fail(errors.New("a key needs an id"))
		}
		if _, twice := ring.entries[k.ID]; twice {
			return nil, fail(fmt.Errorf("key %q stands twice", k.ID))
		}
		e, err := k.entry()
		if err != nil {
			return nil, fail(fmt.Errorf("key %q: %w", k.ID, err))
		}
		if ring.byHash[e.hash] != nil {
			return nil, fail(fmt.Errorf("key %q has the hash of another", k.ID))
		}
		ring.entries[k.ID] = k
		ring.byHash[e.hash] = e
	}
	if _, err := dec.Token(); err != nil {
		return nil, fail(err)
	}
	return ring, nil
}

// findKey looks among the keys of the file and the live ones.
func (h *Handler) findKey(key string, now time.Time) (*proven, gate.Reason) {
	if h.app.keys != nil {
		if who, reason := h.app.keys.byHash.find(key, now); reason != gate.IdentityInvalidAPIKey {
			return who, reason
		}
	}
	return h.keys.Load().find(key, now)
}

// find returns the principal of a key, or why there is none. The map is
// searched by a hash that the caller cannot steer, and the match is compared
// in constant time.
func (byHash hashes) find(key string, now time.Time) (*proven, gate.Reason) {
	sum := sha256.Sum256([]byte(key))
	e := byHash[sum]
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
