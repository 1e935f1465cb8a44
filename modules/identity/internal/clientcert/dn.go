package clientcert

import (
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// attribute is one part of a distinguished name.
type attribute struct {
	oid    string
	text   string
	isText bool
	der    []byte // the value as it stands
}

var errDN = errors.New("the certificate's subject cannot be read")

// maxAttributes bounds a name.
const maxAttributes = 64

// parseDN reads an RDNSequence in the order of its encoding. The standard
// library's own form loses that order, and so two names may become one.
func parseDN(der []byte) (rdns [][]attribute, err error) {
	in := cryptobyte.String(der)
	var list cryptobyte.String
	if !in.ReadASN1(&list, cbasn1.SEQUENCE) || !in.Empty() {
		return nil, errDN
	}
	for n := 0; !list.Empty(); {
		var set cryptobyte.String
		if !list.ReadASN1(&set, cbasn1.SET) || set.Empty() {
			return nil, errDN
		}
		var rdn []attribute
		for ; !set.Empty(); n++ {
			var pair, value cryptobyte.String
			var oid asn1.ObjectIdentifier
			var tag cbasn1.Tag
			if n == maxAttributes || !set.ReadASN1(&pair, cbasn1.SEQUENCE) || !pair.ReadASN1ObjectIdentifier(&oid) {
				return nil, errDN
			}
			whole := pair
			if !pair.ReadAnyASN1(&value, &tag) || !pair.Empty() {
				return nil, errDN
			}
			a := attribute{oid: oid.String(), der: whole}
			if tag == cbasn1.UTF8String || tag == cbasn1.PrintableString || tag == cbasn1.IA5String || tag == cbasn1.Tag(asn1.TagNumericString) {
				a.text, a.isText = string(value), utf8.Valid(value)
			}
			rdn = append(rdn, a)
		}
		rdns = append(rdns, rdn)
	}
	return rdns, nil
}

// keywords are the attribute types that have a name in RFC 4514, section 3.
var keywords = map[string]string{
	"2.5.4.3": "CN", "2.5.4.7": "L", "2.5.4.8": "ST", "2.5.4.10": "O", "2.5.4.11": "OU", "2.5.4.6": "C", "2.5.4.9": "STREET",
	"0.9.2342.19200300.100.1.25": "DC", "0.9.2342.19200300.100.1.1": "UID",
}

// FormatDN writes a distinguished name as RFC 4514 says: the most specific part
// first, and what is no plain text as a # with its encoding, so that two names
// are never written alike. Empty means the name is empty.
func FormatDN(der []byte) (string, error) {
	rdns, err := parseDN(der)
	if err != nil {
		return "", err
	}
	var b strings.Builder
	for i, rdn := range slices.Backward(rdns) {
		for j, a := range rdn {
			if j > 0 {
				b.WriteByte('+')
			}
			word, known := keywords[a.oid]
			if !known {
				word = a.oid
			}
			b.WriteString(word)
			b.WriteByte('=')
			if known && a.isText {
				escapeDN(&b, a.text)
			} else {
				b.WriteByte('#')
				b.WriteString(hex.EncodeToString(a.der))
			}
		}
		if i > 0 {
			b.WriteByte(',')
		}
	}
	return b.String(), nil
}

// escapeDN writes a value (RFC 4514, section 2.4). Control characters become
// hexadecimal too, which is allowed, so that a name stays on one line.
func escapeDN(b *strings.Builder, text string) {
	const digits = "0123456789abcdef"
	for i := range len(text) {
		c := text[i]
		switch {
		case c < ' ' || c == 0x7f:
			b.WriteByte('\\')
			b.WriteByte(digits[c>>4])
			b.WriteByte(digits[c&15])
			continue
		case strings.IndexByte(`"+,;<>\=`, c) >= 0, c == ' ' && (i == 0 || i == len(text)-1), c == '#' && i == 0:
			b.WriteByte('\\')
		}
		b.WriteByte(c)
	}
}
