package identity

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/gate/strictjson"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/apikey"
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
	born    uint64    // the revision of live objects that created it
	old     []*keyEntry
	honey   bool
	use     *keyUse
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

	// Secrets of before a rotation, each good until its time is over.
	Previous []oldSecret `json:"previous,omitempty"`

	// Whether nobody should have the key: it is refused as if it were unknown,
	// and told of.
	Honey bool `json:"honey,omitempty"`
}

type oldSecret struct {
	SHA256 string    `json:"sha256"`
	Until  time.Time `json:"until"`
}

// maxPrevious bounds the secrets that one key has at a time.
const maxPrevious = 4

// entry makes the principal that the key proves.
func (k *apiKey) entry() (*keyEntry, error) {
	e := &keyEntry{expires: k.Expires, honey: k.Honey}
	if !readHash(k.SHA256, &e.hash) {
		return nil, errors.New("sha256 is not 64 hexadecimal digits")
	}
	subject := k.Subject
	if subject == "" {
		subject = k.ID
	}
	e.who = prove(&gate.Principal{
		Subject: subject, Client: k.ID, Tenant: k.Tenant, Plan: k.Plan,
		Roles: k.Roles, Scopes: k.Scopes, Issuer: issuerOfKeys, Method: gate.APIKey,
	})
	e.who.ends = k.Expires
	if len(k.Previous) > maxPrevious {
		return nil, fmt.Errorf("a key has at most %d previous secrets", maxPrevious)
	}
	for _, p := range k.Previous {
		old := &keyEntry{who: e.who, expires: p.Until, honey: k.Honey}
		if !readHash(p.SHA256, &old.hash) || p.Until.IsZero() {
			return nil, errors.New("previous needs a sha256 of 64 hexadecimal digits and until")
		}
		if !e.expires.IsZero() && e.expires.Before(old.expires) {
			old.expires = e.expires
		}
		e.old = append(e.old, old)
	}
	return e, nil
}

func readHash(text string, to *[sha256.Size]byte) bool {
	n, err := hex.Decode(to[:], []byte(text[:min(len(text), 2*sha256.Size)]))
	return err == nil && n == sha256.Size && len(text) == 2*sha256.Size
}

// count gives the entry, and its secrets of before, what counts its use.
func (e *keyEntry) count(u *keyUse) {
	e.use = u
	for _, old := range e.old {
		old.use = u
	}
}

// addOld adds the secrets of before, where nobody has them.
func (byHash hashes) addOld(e *keyEntry) {
	for _, old := range e.old {
		if byHash[old.hash] == nil {
			byHash[old.hash] = old
		}
	}
}

// claim adds a secret. Of two keys that have it, now or from before a rotation,
// the older one does: whoever may create keys must not switch off another's, or
// answer for it. Creating one is refused (admitKey); a storage may have both.
func (byHash hashes) claim(e *keyEntry) {
	other := byHash[e.hash]
	if other == nil || cmp.Or(cmp.Compare(e.born, other.born), strings.Compare(e.who.principal.Client, other.who.principal.Client)) < 0 {
		byHash[e.hash] = e
	}
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
		e, err := k.entry()
		if err == nil {
			e.count(keyUses.of(id, true))
		}
		return e, err
	},
	Born: func(e *keyEntry, revision uint64) {
		e.born = revision
		for _, old := range e.old {
			old.born = revision
		}
	},
	State: keyState,
	Used:  "`identity` with `keys` in its block",
	Index: func(all map[string]*keyEntry) hashes {
		byHash := make(hashes, len(all))
		for _, e := range all {
			byHash.claim(e)
			for _, old := range e.old {
				byHash.claim(old)
			}
		}
		keyUses.retain(all)
		return byHash
	},
})

var members = []string{"id", "sha256", "subject", "tenant", "plan", "roles", "scopes", "expires", "previous", "honey"}

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
	var old []*keyEntry
	ring := &keyring{byHash: hashes{}, entries: map[string]any{}}
	for n := 0; dec.More(); n++ {
		entry, is := list[n].(map[string]any)
		if !is {
			return nil, fail(errors.New("a key is an object"))
		}
		for member := range entry {
			if !slices.Contains(members, member) {
				return nil, at(start(data, int(dec.InputOffset())), fmt.Errorf("unrecognized member %q; expected %s", member, strings.Join(members, ", ")))
			}
		}
		var (
			k   apiKey
			raw json.RawMessage
		)
		err := dec.Decode(&raw)
		if err == nil {
			err = registry.Strict(raw, &k)
		}
		if id, _ := entry["id"].(string); err != nil && id != "" {
			err = fmt.Errorf("key %q: %w", id, err)
		}
		if err != nil {
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
		e.count(keyUses.of(k.ID, false))
		old = append(old, e)
	}
	for _, e := range old {
		ring.byHash.addOld(e)
	}
	if _, err := dec.Token(); err != nil {
		return nil, fail(err)
	}
	return ring, nil
}

// findKey looks among the keys of the file and the live ones.
func (h *Handler) findKey(r *http.Request, key string, now time.Time) (*proven, *gate.Denial) {
	if !apikey.MayExist(key) {
		return nil, &gate.Denial{Reason: gate.IdentityInvalidAPIKey}
	}
	var e *keyEntry
	if h.app.keys != nil {
		e = h.app.keys.byHash.lookUp(key)
	}
	if e == nil {
		e = h.keys.Load().lookUp(key)
	}
	if e != nil && e.honey {
		id := e.who.principal.Client
		e.use.touch(now)
		h.app.honey.caughtBy(r, id)
		return nil, &gate.Denial{Reason: gate.IdentityInvalidAPIKey, Err: &refusal{rule: "honey " + id}}
	}
	who, reason := e.good(now)
	if who == nil {
		return nil, &gate.Denial{Reason: reason}
	}
	e.use.touch(now)
	return who, nil
}

// lookUp searches the map by a hash that the caller cannot steer, and compares
// what it finds in constant time.
func (byHash hashes) lookUp(key string) *keyEntry {
	sum := sha256.Sum256([]byte(key))
	e := byHash[sum]
	if e == nil || subtle.ConstantTimeCompare(e.hash[:], sum[:]) != 1 {
		return nil
	}
	return e
}

// good returns the principal while the key is good; a nil key is not known.
func (e *keyEntry) good(now time.Time) (*proven, gate.Reason) {
	if e == nil {
		return nil, gate.IdentityInvalidAPIKey
	}
	if !e.expires.IsZero() && !now.Before(e.expires) {
		return nil, gate.IdentityExpired
	}
	return e.who, gate.None
}

// newKey makes a key and the hash that is kept of it.
func newKey() (key, hash string) {
	key = apikey.New()
	sum := sha256.Sum256([]byte(key))
	return key, hex.EncodeToString(sum[:])
}
