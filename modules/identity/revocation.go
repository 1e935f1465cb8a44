package identity

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/revoked"
	"github.com/gatehouse-caddy/gatehouse/modules/registry"
)

// revocation is a live object of the kind revocations. It says exactly one of
// jti, sha256, key, subject and tenant.
type revocation struct {
	// A token, by its claim jti, of the issuer.
	JTI string `json:"jti,omitempty"`

	// A token, by the SHA-256 of its text in hexadecimal digits; of a signed
	// one, of its text before the last dot. The token itself is never kept.
	SHA256 string `json:"sha256,omitempty"`

	// An API key, by its id.
	Key string `json:"key,omitempty"`

	// A subject, of the issuer.
	Subject string `json:"subject,omitempty"`

	// A tenant, whoever issued the credential.
	Tenant string `json:"tenant,omitempty"`

	// Who issued it, as its tokens say in iss; `keys` or `mtls` for subjects of
	// API keys and certificates. Required with jti and subject.
	Issuer string `json:"issuer,omitempty"`

	// Only credentials that were issued before, by their claim iat. One that
	// does not say when it was issued is revoked. Only with subject and tenant.
	// Default: all.
	Before time.Time `json:"before,omitzero"`

	// From when on it is needed no more, because what it revokes has expired
	// itself; then it is dropped. Required, at most 10 years from now.
	Expires time.Time `json:"expires"`

	// Why, for whoever reads it later; at most 512 bytes.
	Reason string `json:"reason,omitempty"`
}

const (
	longestRevocation = 10 * 366 * 24 * time.Hour
	maxWhy            = 512
	maxRevokedName    = 4 << 10
)

// What marks are of.
const (
	ofJTI     = "jti"
	ofToken   = "sha256"
	ofKey     = "key"
	ofSubject = "subject"
	ofTenant  = "tenant"
)

// entry is what the gateway keeps of it.
func (v *revocation) entry() (e revoked.Entry, err error) {
	var what, name []string
	for _, c := range [...][2]string{{ofJTI, v.JTI}, {ofToken, v.SHA256}, {ofKey, v.Key}, {ofSubject, v.Subject}, {ofTenant, v.Tenant}} {
		if c[1] != "" {
			what, name = append(what, c[0]), append(name, c[1])
		}
	}
	if len(what) != 1 {
		return e, errors.New("exactly one of jti, sha256, key, subject and tenant is required")
	}
	whose := v.Issuer != ""
	switch named := what[0] == ofJTI || what[0] == ofSubject; {
	case named && !whose:
		return e, fmt.Errorf("issuer is required with %s: as its tokens say in iss, or keys or mtls", what[0])
	case !named && whose:
		return e, fmt.Errorf("issuer says nothing about a %s", what[0])
	case !v.Before.IsZero() && what[0] != ofSubject && what[0] != ofTenant:
		return e, fmt.Errorf("before says nothing about a %s", what[0])
	case v.Expires.IsZero():
		return e, errors.New("expires is required: when the last credential that this is about has expired itself")
	case len(v.Reason) > maxWhy:
		return e, fmt.Errorf("reason may have %d bytes", maxWhy)
	case len(name[0]) > maxRevokedName || len(v.Issuer) > maxRevokedName:
		return e, fmt.Errorf("%s and issuer may have %d bytes", what[0], maxRevokedName)
	}
	if what[0] == ofToken {
		sum, err := hex.DecodeString(name[0])
		if err != nil || len(sum) != sha256.Size {
			return e, errors.New("sha256 is not 64 hexadecimal digits")
		}
		name[0] = string(sum)
	}
	e.Mark = revoked.Of(what[0], v.Issuer, name[0])
	e.Until = revoked.Seconds(v.Expires)
	if !v.Before.IsZero() {
		e.Before = max(revoked.Seconds(v.Before), 1) // 0 means all
	}
	return e, nil
}

// revocations are the live objects that say what is not good any more.
var revocations = registry.NewPacked(registry.Packed[revokedObject, *revokedSet]{
	Name:    "revocations",
	Read:    readRevocation,
	ID:      func(o revokedObject) string { return o.Mark.String() },
	Expires: func(o revokedObject) time.Time { return time.Unix(int64(o.Until), 0) },
	Admit:   admitRevocation,
	Doubt:   doubtRevocation,
	Join:    joinRevocations,
	Used:    "`identity`",
	New:     func() *revokedSet { return new(revokedSet) },
})

func readRevocation(value json.RawMessage) (o revokedObject, err error) {
	var v revocation
	if err := registry.Strict(value, &v); err != nil {
		return o, err
	}
	o.issuer, o.key = v.Issuer, v.Key
	o.Entry, err = v.entry()
	return o, err
}

// joinRevocations keeps the stronger of two of the same: who logs somebody out
// everywhere must not let them in again that were shut out. Where neither is,
// whoever asks has to say what is meant.
func joinRevocations(old, posted json.RawMessage) (json.RawMessage, error) {
	was, err := readRevocation(old)
	if err != nil {
		return posted, nil //nolint:nilerr // what cannot be read revokes nothing
	}
	is, err := readRevocation(posted)
	switch {
	case err != nil:
		return nil, err
	case was.Until < revoked.Seconds(time.Now()), is.covers(was):
		return posted, nil
	case was.covers(is):
		return old, nil
	}
	return nil, fmt.Errorf("a revocation of the same stands %s; yours, %s, is stronger in one way and weaker in another; PUT it in its place, or delete that one first", span(was.Entry), span(is.Entry))
}

// covers reports whether o revokes all that other does, for as long.
func (o revokedObject) covers(other revokedObject) bool {
	all := o.Before == 0 || other.Before != 0 && o.Before >= other.Before
	return all && o.Until >= other.Until
}

type revokedObject struct {
	revoked.Entry
	issuer, key string
}

// doubtRevocation asks back about a key that is not there: the id is likely to
// be misspelt, and the key that was meant would go on working.
func doubtRevocation(has registry.Has, was, is revokedObject) []string {
	if is.key == "" || was.key != "" || has("keys", is.key) {
		return nil
	}
	return []string{fmt.Sprintf("there is no key %q; a revocation ahead of it would refuse a key of this id that comes later, or that another gateway has in its configuration", is.key)}
}

// span says what a revocation is about, for whoever reads it.
func span(e revoked.Entry) string {
	what := "until " + time.Unix(int64(e.Until), 0).UTC().Format(time.RFC3339)
	if e.Before != 0 {
		what += ", of what was issued before " + time.Unix(int64(e.Before), 0).UTC().Format(time.RFC3339)
	}
	return what
}

// standing is the revocation that refuses a credential, and what it is of.
func (s *revokedSet) standing(who *proven, now time.Time) (what string, e revoked.Entry, is bool) {
	if s.Len() == 0 {
		return "", e, false
	}
	m := marksOf(who, nil)
	for i := range m.n {
		if s.Has(m.by[i], m.issued, now.Unix()) {
			e, is = s.Find(m.by[i])
			return m.names[i], e, is
		}
	}
	return "", e, false
}

// revokedSet is the engine's, with the objects of the registry.
type revokedSet struct{ revoked.Set }

// Replace implements registry.PackedSet.
func (s *revokedSet) Replace(part int, objects []revokedObject) {
	entries := make([]revoked.Entry, len(objects))
	for i, o := range objects {
		entries[i] = o.Entry
	}
	s.Set.Replace(part, entries)
}

// admitRevocation refuses what would have no effect: what is over, and, where
// issuers are configured, one that nobody knows. A misspelt revocation would
// look like one that works.
func admitRevocation(o revokedObject) error {
	switch until := time.Until(time.Unix(int64(o.Until), 0)); {
	case until <= 0:
		return errors.New("expires has passed")
	case until > longestRevocation:
		return errors.New("expires may be at most 10 years from now")
	}
	if o.issuer == "" || taken(o.issuer) {
		return nil
	}
	app, _ := caddy.ActiveContext().AppIfConfigured("gatehouse_identity")
	a, ok := app.(*App)
	if !ok || len(a.Issuers) == 0 { // this node accepts no tokens; another may
		return nil
	}
	known := []string{issuerOfKeys, issuerOfCertificates}
	for _, i := range a.Issuers {
		if i.Name == o.issuer && i.identifier != o.issuer {
			return fmt.Errorf("issuer %q is a name of this configuration; its tokens say %q, which is what revocations go by", i.Name, i.identifier)
		}
		if !slices.Contains(known, i.identifier) {
			known = append(known, i.identifier)
		}
	}
	if !slices.Contains(known, o.issuer) {
		return fmt.Errorf("no issuer %q is configured; expected %s", o.issuer, strings.Join(known, ", "))
	}
	return nil
}

// marks are what a credential may be revoked by, made when it is first asked
// about, for all requests that carry it.
type marks struct {
	by     [4]revoked.Mark
	names  [4]string
	n      int
	issued int64
}

func (m *marks) add(what, whose, name string) {
	if name != "" {
		m.by[m.n], m.names[m.n] = revoked.Of(what, whose, name), what
		m.n++
	}
}

// tokenHash is the hash of a token that revocations go by. A signature can be
// written in several ways that are all good, what is signed in one only: whoever
// holds a revoked token must not get around it by changing its last letter.
func tokenHash(token string) [sha256.Size]byte {
	if !isOpaque(token) {
		token = token[:max(strings.LastIndexByte(token, '.'), 0)]
	}
	return sha256.Sum256([]byte(token))
}

func marksOf(who *proven, header http.Header) *marks {
	p, m := who.principal, new(marks)
	issuer := p.Issuer
	if who.issuer != nil {
		issuer = who.issuer.identifier
	}
	switch p.Method {
	case gate.Bearer:
		jti, _ := p.Claims["jti"].(string)
		m.add(ofJTI, issuer, jti)
		if c, there, _ := bearer(header); there {
			sum := tokenHash(c.token)
			m.add(ofToken, "", string(sum[:]))
		}
		switch iat := p.Claims["iat"].(type) {
		case int64:
			m.issued = iat
		case float64:
			m.issued = int64(iat)
		}
	case gate.Session:
		m.issued = who.began
	case gate.APIKey:
		m.add(ofKey, "", p.Client)
	case gate.MutualTLS: // Caddy's trust pool says which certificates are good
	}
	m.add(ofSubject, issuer, p.Subject)
	m.add(ofTenant, "", p.Tenant)
	return m
}

// openRevocations gives the handler its view.
func (h *Handler) openRevocations(ctx caddy.Context) (err error) {
	if err := gate.RegisterMetrics(ctx, revokedUses); err != nil {
		return err
	}
	h.revoked, err = revocations.Open(ctx)
	return err
}

// revocation refuses a principal whose credential was revoked. It is asked
// behind every way of proving, also what is remembered, and allocates nothing
// for a credential that was seen before.
func (h *Handler) revocation(who *proven, r *http.Request, now time.Time) *gate.Denial {
	if who == nil || h.revoked == nil || h.revoked.Len() == 0 {
		return nil
	}
	m := who.marks.Load()
	if m == nil {
		m = marksOf(who, r.Header)
		who.marks.Store(m)
	}
	for i := range m.n {
		if h.revoked.Has(m.by[i], m.issued, now.Unix()) {
			revokedUses.WithLabelValues(m.names[i]).Inc()
			return h.refuse(r, &gate.Denial{
				Reason: gate.IdentityRevoked,
				Err:    fmt.Errorf("by its %s: revocation %s", m.names[i], m.by[i]),
			}, who.scheme())
		}
	}
	return nil
}

var revokedUses = prometheus.NewCounterVec(prometheus.CounterOpts{
	Name: "gatehouse_identity_revoked_total",
	Help: "Credentials refused because they were revoked, by what: jti, sha256, key, subject or tenant.",
}, []string{"by"})
