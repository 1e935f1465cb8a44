// Package clientcert reads client certificates: who they name, and whether
// they are what a route asks for. It trusts nothing by itself: callers hand it
// chains that were verified.
package clientcert

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Kind is where in a certificate a name stands.
type Kind uint8

// The kinds of names.
const (
	SPIFFE      Kind = iota // the one URI, a SPIFFE ID of a known trust domain
	URI                     // the first URI
	DNS                     // the first DNS name
	Email                   // the first email address
	CommonName              // the one common name
	DN                      // the whole subject, as RFC 4514 writes it
	Fingerprint             // the SHA-256 of the certificate
	kindCount
)

var kindNames = [kindCount]string{"spiffe", "uri", "dns", "email", "cn", "dn", "fingerprint"}

func (k Kind) String() string { return kindNames[k] }

// Kinds lists what the kinds are called.
func Kinds() []string { return kindNames[:] }

// ParseKind reads the name of a kind.
func ParseKind(word string) (Kind, bool) {
	for k := range kindCount {
		if kindNames[k] == word {
			return k, true
		}
	}
	return 0, false
}

// ErrUnnamed means that a certificate has none of the names that are asked for.
var ErrUnnamed = errors.New("the certificate has no name of the kinds that are asked for")

// Name is who a certificate is issued to.
type Name struct {
	Kind Kind
	Text string
	Path []string // the segments of a SPIFFE ID
}

// Names says which names count. The zero value accepts none.
type Names struct {
	Kinds        []Kind   // in this order; the first that a certificate has decides
	TrustDomains []string // of SPIFFE IDs
}

// Of finds the name of a certificate. A name that is there and wrong ends the
// search: whoever may choose the next kind of name must not thereby choose what
// is checked.
func (n *Names) Of(c *x509.Certificate) (Name, error) {
	for i, kind := range n.Kinds {
		text, err := "", error(nil)
		switch kind {
		case SPIFFE:
			name, there, err := n.spiffe(c)
			if there || err != nil {
				return name, err
			}
		case URI:
			if len(c.URIs) > 0 {
				text, err = plain(kind, c.URIs[0].String())
			}
		case DNS:
			if len(c.DNSNames) > 0 {
				text, err = plain(kind, strings.ToLower(c.DNSNames[0]))
			}
		case Email:
			if len(c.EmailAddresses) > 0 {
				text, err = plain(kind, c.EmailAddresses[0])
			}
		case CommonName:
			text, err = commonName(c.RawSubject, n.Kinds[:i])
		case DN:
			text, err = FormatDN(c.RawSubject)
		case Fingerprint:
			text = FingerprintOf(c)
		case kindCount: // not a kind
		}
		if err != nil {
			return Name{}, err
		}
		if text != "" {
			return Name{Kind: kind, Text: text}, nil
		}
	}
	return Name{}, ErrUnnamed
}

// FingerprintOf is the SHA-256 of a certificate, in hexadecimal digits.
func FingerprintOf(c *x509.Certificate) string {
	sum := sha256.Sum256(c.Raw)
	return hex.EncodeToString(sum[:])
}

// plain refuses what is no name of anybody: nothing, blanks, control
// characters, and DNS names that stand for many.
func plain(kind Kind, text string) (string, error) {
	if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r == 0x7f }) || kind == DNS && strings.Contains(text, "*") {
		return "", fmt.Errorf("the certificate's first name of kind %s is none: %.200q", kind, text)
	}
	return text, nil
}

// spiffe finds the certificate's SPIFFE ID. A certificate that has one may have
// no other URI (SPIFFE X.509-SVID, section 2).
func (n *Names) spiffe(c *x509.Certificate) (name Name, there bool, err error) {
	for _, u := range c.URIs {
		there = there || strings.EqualFold(u.Scheme, "spiffe")
	}
	switch {
	case !there:
		return name, false, nil
	case len(c.URIs) > 1:
		return name, true, errors.New("the certificate has a SPIFFE ID and another URI")
	}
	id := c.URIs[0].String()
	domain, path, err := ParseSPIFFE(id)
	if err != nil {
		return name, true, err
	}
	if !slices.Contains(n.TrustDomains, domain) {
		return name, true, fmt.Errorf("the trust domain %q is not accepted", domain)
	}
	return Name{SPIFFE, id, path}, true, nil
}

const (
	maxSPIFFE      = 2048
	maxTrustDomain = 255
)

// ParseSPIFFE reads a SPIFFE ID strictly, so that one workload has one spelling:
// nothing is decoded, folded or cleaned.
func ParseSPIFFE(id string) (domain string, path []string, err error) {
	rest, ok := strings.CutPrefix(id, "spiffe://")
	if !ok || len(id) > maxSPIFFE {
		return "", nil, errors.New("the SPIFFE ID is too long or none")
	}
	domain, rest, hasPath := strings.Cut(rest, "/")
	if !ValidTrustDomain(domain) {
		return "", nil, fmt.Errorf("the SPIFFE ID's trust domain %.100q is malformed", domain)
	}
	if !hasPath {
		return domain, nil, nil
	}
	path = strings.Split(rest, "/")
	for _, segment := range path {
		if segment == "" || segment == "." || segment == ".." || strings.ContainsFunc(segment, func(r rune) bool {
			return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("-._", r)
		}) {
			return "", nil, fmt.Errorf("the SPIFFE ID's path has a malformed segment %.100q", segment)
		}
	}
	return domain, path, nil
}

// ValidTrustDomain reports whether a SPIFFE ID may have this trust domain.
func ValidTrustDomain(domain string) bool {
	return domain != "" && len(domain) <= maxTrustDomain && !strings.ContainsFunc(domain, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < '0' || r > '9') && !strings.ContainsRune("-._", r)
	})
}

// commonName finds the subject's common name; empty means there is none. Where
// other kinds come before it, a text that looks like one of those is refused:
// an authority that lets its clients choose a common name does not thereby let
// them choose a URI.
func commonName(subject []byte, before []Kind) (string, error) {
	attributes, err := parseDN(subject)
	if err != nil {
		return "", err
	}
	found := ""
	for _, set := range attributes {
		for _, a := range set {
			if a.oid != "2.5.4.3" {
				continue
			}
			if found != "" {
				return "", errors.New("the certificate has more than one common name")
			}
			if !a.isText || a.text == "" {
				return "", errors.New("the certificate's common name cannot be read")
			}
			found = a.text
		}
	}
	uri := slices.Contains(before, URI) || slices.Contains(before, SPIFFE)
	if uri && likeURI(found) || slices.Contains(before, Email) && strings.Contains(found, "@") {
		return "", fmt.Errorf("the certificate's common name %.200q looks like a name of another kind", found)
	}
	return found, nil
}

// likeURI reports whether a text begins like a URI (RFC 3986, section 3.1), which
// has no blanks.
func likeURI(text string) bool {
	scheme, _, found := strings.Cut(text, ":")
	return strings.Contains(text, "://") || found && scheme != "" && !strings.ContainsAny(text, " \t") && !strings.ContainsFunc(scheme, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("+-.", r)
	})
}
