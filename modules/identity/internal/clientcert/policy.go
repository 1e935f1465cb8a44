package clientcert

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Policy says which of the certificates that are trusted are good enough. The
// zero value accepts all. It may be used concurrently.
type Policy struct {
	cas    [][sha256.Size]byte
	dns    []string // distinguished names of authorities
	san    [kindCount][]*regexp.Regexp
	usages []x509.ExtKeyUsage
	oids   []string
	maxAge time.Duration
}

// AddCA accepts certificates below an authority: by the SHA-256 of its
// certificate in hexadecimal digits, or by its name as RFC 4514 writes it.
func (p *Policy) AddCA(word string) error {
	if strings.Contains(word, "=") {
		p.dns = append(p.dns, word)
		return nil
	}
	sum, err := hex.DecodeString(strings.ReplaceAll(word, ":", ""))
	if err != nil || len(sum) != sha256.Size {
		return fmt.Errorf("%q is neither a SHA-256 fingerprint of 64 hexadecimal digits nor a name such as CN=ca,O=Example", word)
	}
	p.cas = append(p.cas, [sha256.Size]byte(sum))
	return nil
}

// separators end what a single * in a pattern stands for.
var separators = [kindCount]string{URI: "/", DNS: ".", Email: "@"}

// AddSAN asks for alternative names of a kind: there must be one, and each must
// match one of the patterns. In a pattern, * stands for anything but the kind's
// separator, and ** for anything.
func (p *Policy) AddSAN(kind Kind, pattern string) error {
	if separators[kind] == "" || pattern == "" {
		return fmt.Errorf("patterns are for names of kind uri, dns or email, and not %s %q", kind, pattern)
	}
	var b strings.Builder
	b.WriteString(`\A`)
	if kind == DNS {
		pattern = strings.ToLower(pattern)
	}
	for i, part := range strings.Split(pattern, "**") {
		if i > 0 {
			b.WriteString(`.+`)
		}
		for j, plain := range strings.Split(part, "*") {
			if j > 0 {
				b.WriteString(`[^` + regexp.QuoteMeta(separators[kind]) + `]+`)
			}
			b.WriteString(regexp.QuoteMeta(plain))
		}
	}
	b.WriteString(`\z`)
	re, err := regexp.Compile(b.String())
	if err != nil {
		return err
	}
	p.san[kind] = append(p.san[kind], re)
	return nil
}

// usageNames are the extended key usages that have a name here.
var usageNames = map[string]x509.ExtKeyUsage{
	"client_auth": x509.ExtKeyUsageClientAuth, "server_auth": x509.ExtKeyUsageServerAuth,
	"email_protection": x509.ExtKeyUsageEmailProtection, "code_signing": x509.ExtKeyUsageCodeSigning,
}

// UsageNames lists them.
func UsageNames() []string {
	return []string{"client_auth", "server_auth", "email_protection", "code_signing"}
}

// AddUsage asks for an extended key usage, by name or by its object identifier.
// "Any" usage does not stand for it.
func (p *Policy) AddUsage(word string) error {
	if u, ok := usageNames[word]; ok {
		p.usages = append(p.usages, u)
		return nil
	}
	parts := strings.Split(word, ".")
	for _, part := range parts {
		if n, err := strconv.Atoi(part); err != nil || n < 0 || len(parts) < 2 {
			return fmt.Errorf("usage %q is neither one of %s nor an object identifier", word, strings.Join(UsageNames(), ", "))
		}
	}
	p.oids = append(p.oids, word)
	return nil
}

// SetMaxAge asks for a certificate that was issued at most so long ago.
func (p *Policy) SetMaxAge(age time.Duration) { p.maxAge = age }

// Check returns which rule the certificate breaks; empty means none. Any one of
// the chains, whose first certificate is the same, may lead to an authority
// that is asked for.
func (p *Policy) Check(chains [][]*x509.Certificate, now time.Time) (rule string) {
	leaf := chains[0][0]
	if len(p.cas)+len(p.dns) > 0 && !slices.ContainsFunc(chains, p.below) {
		return "ca"
	}
	for _, kind := range []Kind{URI, DNS, Email} {
		if p.san[kind] != nil && !matches(p.san[kind], kind, alternatives(leaf, kind)) {
			return "san " + kind.String()
		}
	}
	for _, u := range p.usages {
		if !slices.Contains(leaf.ExtKeyUsage, u) {
			return "usage"
		}
	}
	for _, oid := range p.oids {
		if !slices.ContainsFunc(leaf.UnknownExtKeyUsage, func(has asn1.ObjectIdentifier) bool { return has.String() == oid }) {
			return "usage"
		}
	}
	if p.maxAge > 0 && now.Sub(leaf.NotBefore) > p.maxAge {
		return "max_age"
	}
	return ""
}

// below reports whether a chain leads to an authority that is asked for. The
// certificate itself is none.
func (p *Policy) below(chain []*x509.Certificate) bool {
	for _, ca := range chain[1:] {
		if len(p.cas) > 0 && slices.Contains(p.cas, sha256.Sum256(ca.Raw)) {
			return true
		}
		if len(p.dns) > 0 {
			if name, err := FormatDN(ca.RawSubject); err == nil && slices.Contains(p.dns, name) {
				return true
			}
		}
	}
	return false
}

// matches holds every name to the patterns: with one that counts and one that
// matches, a certificate would be let in by the one and act as the other.
func matches(patterns []*regexp.Regexp, kind Kind, names []string) bool {
	for _, name := range names {
		if kind == DNS {
			name = strings.ToLower(name)
		}
		if !slices.ContainsFunc(patterns, func(re *regexp.Regexp) bool { return re.MatchString(name) }) {
			return false
		}
	}
	return len(names) > 0
}

// alternatives are the certificate's alternative names of a kind.
func alternatives(c *x509.Certificate, kind Kind) (names []string) {
	if kind == DNS {
		return c.DNSNames
	}
	if kind == Email {
		return c.EmailAddresses
	}
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	return names
}
