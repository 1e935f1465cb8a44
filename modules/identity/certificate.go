package identity

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/clientcert"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/memory"
)

// MTLS says who a client certificate proves, and which certificates are good
// enough. Only those that were verified count.
type MTLS struct {
	// Which names of a certificate make the subject; the first kind that a
	// certificate has decides: `spiffe` (its one URI), `uri`, `dns`, `email`
	// (of several the first, as the authority wrote them), `cn` (of which there
	// may be one), `dn` (the whole subject, as RFC 4514 writes it) or
	// `fingerprint` (the SHA-256 of the certificate).
	// Default: uri, dns, email, cn; with trust domains: spiffe.
	Subject []string `json:"subject,omitempty"`

	// The trust domains whose SPIFFE IDs are accepted. Required for spiffe.
	TrustDomains []string `json:"trust_domain,omitempty"`

	// Where the tenant comes from: `o` or `ou` (of the subject), `segment <n>`
	// (of a SPIFFE ID's path, from 1) or `after <word>` (the segment behind that
	// one). A certificate with several such values is refused. Default: none.
	Tenant string `json:"tenant,omitempty"`

	// Where the plan comes from, likewise. Default: none.
	Plan string `json:"plan,omitempty"`

	// Where the roles come from, likewise; each value is one. Default: none.
	Roles string `json:"roles,omitempty"`

	// The authorities that certificates must come from, directly or through
	// others: by the SHA-256 of the authority's certificate, or by its name as
	// RFC 4514 writes it, which is as good as the trust pool. Default: any.
	CA []string `json:"ca,omitempty"`

	// Patterns for the alternative names, by `uri`, `dns` or `email`: there must
	// be one, and each must match. `*` stands for anything but /, . or @, and
	// `**` for anything. Default: any.
	SAN map[string][]string `json:"san,omitempty"`

	// Extended key usages that the certificate must have, all of them:
	// `client_auth`, `server_auth`, `email_protection`, `code_signing` or an
	// object identifier. Default: what TLS asks for.
	Usage []string `json:"usage,omitempty"`

	// How long ago the certificate may have been issued. Default: any time.
	MaxAge caddy.Duration `json:"max_age,omitempty"`

	// The authorities that are trusted, instead of those of the site's
	// `client_auth`, which then only has to request a certificate. They change
	// without a reload. Default: the site's.
	TrustPool *TrustPool `json:"trust_pool,omitempty"`

	// The names of those who are asked, in this order, whether a certificate was
	// revoked: the first that knows decides. Default: nobody is.
	Revocation []string `json:"revocation,omitempty"`

	names  clientcert.Names
	policy clientcert.Policy
	known  *memory.Memory[*proven] // by fingerprint
	asked  []*Revocation

	trust    *trust
	trustKey string
}

// maxCertificates is how many certificates' principals are remembered at least.
const maxCertificates = 1 << 12

// ready reads the settings.
func (m *MTLS) ready() error {
	if m.Subject == nil {
		m.Subject = []string{"uri", "dns", "email", "cn"}
		if m.TrustDomains != nil {
			m.Subject = []string{"spiffe"}
		}
	}
	m.names.TrustDomains = m.TrustDomains
	for _, word := range m.Subject {
		kind, ok := clientcert.ParseKind(word)
		if !ok {
			return errors.New(parse.Misspelt("mtls subject", word, clientcert.Kinds()...))
		}
		m.names.Kinds = append(m.names.Kinds, kind)
	}
	spiffe := slices.Contains(m.names.Kinds, clientcert.SPIFFE)
	if spiffe != (len(m.TrustDomains) > 0) {
		return errors.New("mtls subject spiffe and trust_domain go together: an authority may sign IDs of any trust domain")
	}
	for _, domain := range m.TrustDomains {
		if !clientcert.ValidTrustDomain(domain) {
			return fmt.Errorf("mtls trust_domain %q is none; write it without spiffe://, in lower case", domain)
		}
	}
	for _, where := range []string{m.Tenant, m.Plan, m.Roles} {
		if err := checkPlace(where, spiffe); err != nil {
			return err
		}
	}
	for _, word := range m.CA {
		if err := m.policy.AddCA(word); err != nil {
			return fmt.Errorf("mtls ca %w", err)
		}
	}
	for word, patterns := range m.SAN {
		kind, ok := clientcert.ParseKind(word)
		if !ok {
			return errors.New(parse.Misspelt("mtls san", word, "uri", "dns", "email"))
		}
		for _, pattern := range patterns {
			if err := m.policy.AddSAN(kind, pattern); err != nil {
				return fmt.Errorf("mtls san: %w", err)
			}
		}
	}
	for _, word := range m.Usage {
		if err := m.policy.AddUsage(word); err != nil {
			return fmt.Errorf("mtls %w", err)
		}
	}
	if m.MaxAge < 0 {
		return errors.New("mtls max_age must not be negative")
	}
	m.policy.SetMaxAge(time.Duration(m.MaxAge))
	m.known = memory.New[*proven](maxCertificates)
	return nil
}

// checkPlace reports what is wrong with a place that a tenant, plan or role
// comes from.
func checkPlace(where string, spiffe bool) error {
	word, arg, has := strings.Cut(where, " ")
	switch {
	case where == "" || where == "o" || where == "ou":
		return nil
	case word == "segment" && has:
		if n, err := strconv.Atoi(arg); err != nil || n < 1 {
			return fmt.Errorf("mtls: segment %q is not a whole number of at least 1", arg)
		}
	case word == "after" && arg != "":
	default:
		return errors.New(parse.Misspelt("place in a certificate", where, "o", "ou", "segment <n>", "after <word>"))
	}
	if !spiffe {
		return fmt.Errorf("mtls: %q is a place in a SPIFFE ID, which needs subject spiffe and a trust_domain", where)
	}
	return nil
}

// refusal is a denial's cause that names the rule, for the decision's record.
type refusal struct {
	rule string
	err  error
}

func (r *refusal) Error() string {
	if r.err == nil {
		return r.rule
	}
	return r.rule + ": " + r.err.Error()
}

func (r *refusal) Unwrap() error { return r.err }

// ruleOf is the rule that a denial names, or empty.
func ruleOf(d *gate.Denial) string {
	if r, ok := errors.AsType[*refusal](d.Err); ok {
		return r.rule
	}
	return ""
}

func refuseCertificate(reason gate.Reason, rule string, err error) *gate.Denial {
	return &gate.Denial{Reason: reason, Err: &refusal{"mtls " + rule, err}}
}

// byCertificate finds the principal of a client certificate; there may be
// neither one nor a denial. Only chains that were verified count: Caddy also
// hands on certificates that nobody checked, and fills its placeholders from
// them.
func (h *Handler) byCertificate(r *http.Request, now time.Time) (*proven, *gate.Denial) {
	if r.TLS == nil {
		return nil, nil
	}
	m := h.MTLS
	chains, denial := m.chains(r.TLS, now) //nolint:contextcheck // a pool is for all requests
	if denial != nil || len(chains) == 0 || len(chains[0]) == 0 {
		return nil, denial
	}
	leaf := chains[0][0]
	// It was good when the connection began. That of a policy test has no end.
	if !leaf.NotAfter.IsZero() && now.After(leaf.NotAfter) {
		return nil, refuseCertificate(gate.IdentityExpired, "not_after", endOf(leaf))
	}
	if rule := m.policy.Check(chains, now); rule != "" {
		return nil, refuseCertificate(gate.IdentityCertificatePolicy, rule, errors.New(naming(leaf)))
	}
	who, err := m.holder(leaf)
	if err != nil {
		return nil, refuseCertificate(gate.IdentityCertificateName, "subject", fmt.Errorf("%s: %w", naming(leaf), err))
	}
	if denial := m.revoked(r.Context(), chains[0], now); denial != nil {
		return nil, denial
	}
	return who, nil
}

// naming tells of a certificate for the operator.
func naming(c *x509.Certificate) string {
	return fmt.Sprintf("the certificate of %.128q, issued by %.128q", c.Subject.String(), c.Issuer.String())
}

func endOf(c *x509.Certificate) error {
	return fmt.Errorf("%s has ended at %s", naming(c), c.NotAfter.UTC().Format(time.RFC3339))
}

// holder is who a certificate is issued to.
func (m *MTLS) holder(leaf *x509.Certificate) (*proven, error) {
	sum := sha256.Sum256(leaf.Raw)
	if who, ok := m.known.Get(string(sum[:])); ok {
		return who, nil
	}
	name, err := m.names.Of(leaf)
	if err != nil {
		return nil, err
	}
	p := &gate.Principal{
		Subject: name.Text, Client: hex.EncodeToString(sum[:]), Issuer: issuerOfCertificates, Method: gate.MutualTLS,
		Claims: certificateClaims(leaf, name),
	}
	if p.Tenant, err = m.single("tenant", m.Tenant, leaf, name); err != nil {
		return nil, err
	}
	if p.Plan, err = m.single("plan", m.Plan, leaf, name); err != nil {
		return nil, err
	}
	p.Roles = found(m.Roles, leaf, name)
	who := prove(p)
	who.ends = leaf.NotAfter
	m.known.Put(string(sum[:]), who)
	return who, nil
}

// single refuses what could mean two tenants.
func (m *MTLS) single(what, where string, leaf *x509.Certificate, name clientcert.Name) (string, error) {
	values := found(where, leaf, name)
	switch len(values) {
	case 0:
		return "", nil
	case 1:
		return values[0], nil
	}
	return "", fmt.Errorf("the certificate has %d values that could be its %s", len(values), what)
}

// found are the values at a place of a certificate.
func found(where string, leaf *x509.Certificate, name clientcert.Name) []string {
	word, arg, _ := strings.Cut(where, " ")
	switch word {
	case "o":
		return leaf.Subject.Organization
	case "ou":
		return leaf.Subject.OrganizationalUnit
	case "segment":
		if n, _ := strconv.Atoi(arg); n <= len(name.Path) {
			return name.Path[n-1 : n]
		}
	case "after":
		if i := slices.Index(name.Path, arg); i >= 0 && i+1 < len(name.Path) {
			return name.Path[i+1 : i+2]
		}
	}
	return nil
}

// certificateClaims is what policy expressions may look at.
func certificateClaims(leaf *x509.Certificate, name clientcert.Name) map[string]any {
	texts := func(from []string) []any {
		to := make([]any, len(from))
		for i, s := range from {
			to[i] = s
		}
		return to
	}
	claims := map[string]any{
		"kind": name.Kind.String(), "serial": hex.EncodeToString(leaf.SerialNumber.Bytes()),
		"dns": texts(leaf.DNSNames), "email": texts(leaf.EmailAddresses),
		"o": texts(leaf.Subject.Organization), "ou": texts(leaf.Subject.OrganizationalUnit), "path": texts(name.Path),
	}
	uris := make([]any, len(leaf.URIs))
	for i, u := range leaf.URIs {
		uris[i] = u.String()
	}
	claims["uri"] = uris
	for member, der := range map[string][]byte{"dn": leaf.RawSubject, "issuer": leaf.RawIssuer} {
		if text, err := clientcert.FormatDN(der); err == nil {
			claims[member] = text
		}
	}
	return claims
}
