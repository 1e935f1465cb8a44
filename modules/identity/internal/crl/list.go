// Package crl keeps certificate revocation lists (RFC 5280, section 5): checked
// once when they are read, small in memory, and fast to ask.
package crl

import (
	"bytes"
	"crypto/x509"
	"encoding/asn1"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"fmt"
	"hash/maphash"
	"math/big"
	"slices"
	"time"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// ahead is how far the clock of an authority may be ahead of ours.
const ahead = 5 * time.Minute

// maxSerial bounds a serial number: RFC 5280 allows 20 bytes, and some
// authorities write one more.
const maxSerial = 32

var seed = maphash.MakeSeed()

// List is a list whose signature was checked. It is immutable. Each entry takes
// its serial number and about eight bytes more; a look-up takes the same time
// for any number of entries.
type List struct {
	Number     *big.Int // nil where the authority gives none
	ThisUpdate time.Time
	NextUpdate time.Time
	Entries    int

	issuer  []byte   // the authority's name
	key     []byte   // and public key
	points  []string // the distribution points that it is for; nil: all
	serials []byte   // a length and so many bytes, one behind the other
	table   []uint32 // where a serial begins, plus one; 0: free
}

// Read reads a list, DER or PEM, that one of the issuers has signed.
func Read(data []byte, issuers []*x509.Certificate, now time.Time) (*List, error) {
	if bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN")) {
		block, rest := pem.Decode(data)
		if block == nil || block.Type != "X509 CRL" {
			return nil, errors.New("the PEM block is no X509 CRL")
		}
		if next, _ := pem.Decode(rest); next != nil {
			return nil, errors.New("there is more than one list; name each as a source of its own")
		}
		data = block.Bytes
	}
	head, tbs, entries, err := split(data)
	if err != nil {
		return nil, err
	}
	l := &List{Number: head.Number, ThisUpdate: head.ThisUpdate, NextUpdate: head.NextUpdate, issuer: head.RawIssuer}
	if err := l.extensions(head); err != nil {
		return nil, err
	}
	switch {
	case l.NextUpdate.IsZero():
		return nil, errors.New("the list does not say when the next one comes")
	case now.Add(ahead).Before(l.ThisUpdate):
		return nil, errors.New("the list is from the future")
	case !now.Before(l.NextUpdate):
		return nil, fmt.Errorf("the list is too old: the next was due at %s", l.NextUpdate.UTC().Format(time.RFC3339))
	}
	head.RawTBSRevocationList = tbs // with its entries, which are signed too
	err = errors.New("no authority has the name of the list's issuer")
	for _, ca := range issuers {
		if !bytes.Equal(ca.RawSubject, l.issuer) {
			continue
		}
		if err = head.CheckSignatureFrom(ca); err == nil {
			l.key = ca.RawSubjectPublicKeyInfo
			break
		}
		err = fmt.Errorf("the list's signature: %w", err)
	}
	if err != nil {
		return nil, err
	}
	return l, l.fill(entries)
}

// split separates the entries, of which there may be a million, from the rest:
// that is read by the standard library, which would make several objects of
// each entry.
func split(der []byte) (head *x509.RevocationList, tbs, entries []byte, err error) {
	bad := errors.New("this is no certificate revocation list of version 2")
	in := cryptobyte.String(der)
	var outer, fields, whole cryptobyte.String
	if !in.ReadASN1(&outer, cbasn1.SEQUENCE) || !in.Empty() || !outer.ReadASN1Element(&whole, cbasn1.SEQUENCE) {
		return nil, nil, nil, bad
	}
	tbs = whole
	if !whole.ReadASN1(&fields, cbasn1.SEQUENCE) {
		return nil, nil, nil, bad
	}
	var kept []byte
	for i := 0; !fields.Empty(); i++ {
		var element cryptobyte.String
		var tag cbasn1.Tag
		if !fields.ReadAnyASN1Element(&element, &tag) {
			return nil, nil, nil, bad
		}
		// version, algorithm and issuer come before; then times, and then the
		// one sequence that there may be.
		if i > 2 && tag == cbasn1.SEQUENCE {
			if entries != nil || !element.ReadASN1((*cryptobyte.String)(&entries), cbasn1.SEQUENCE) {
				return nil, nil, nil, bad
			}
			continue
		}
		kept = append(kept, element...)
	}
	var b cryptobyte.Builder
	b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1(cbasn1.SEQUENCE, func(b *cryptobyte.Builder) { b.AddBytes(kept) })
		b.AddBytes(outer)
	})
	short, err := b.Bytes()
	if err != nil {
		return nil, nil, nil, bad
	}
	if head, err = x509.ParseRevocationList(short); err != nil {
		return nil, nil, nil, bad
	}
	return head, tbs, entries, nil
}

var (
	oidNumber       = asn1.ObjectIdentifier{2, 5, 29, 20}
	oidReason       = asn1.ObjectIdentifier{2, 5, 29, 21}
	oidDelta        = asn1.ObjectIdentifier{2, 5, 29, 27}
	oidDistribution = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidCertIssuer   = asn1.ObjectIdentifier{2, 5, 29, 29}
	oidAuthorityKey = asn1.ObjectIdentifier{2, 5, 29, 35}
)

// extensions refuses lists that do not say of every client of their issuer
// whether it is revoked, since absence would then mean nothing.
func (l *List) extensions(head *x509.RevocationList) error {
	for _, ext := range head.Extensions {
		switch {
		case ext.Id.Equal(oidDelta):
			return errors.New("this is a delta list; a complete one is needed")
		case ext.Id.Equal(oidDistribution):
			if err := l.distribution(ext.Value); err != nil {
				return err
			}
		case ext.Id.Equal(oidNumber), ext.Id.Equal(oidAuthorityKey):
		case ext.Critical:
			return fmt.Errorf("the list has a critical extension %s that is not understood", ext.Id)
		}
	}
	return nil
}

// distribution reads an issuing distribution point (RFC 5280, section 5.2.5).
func (l *List) distribution(der cryptobyte.String) error {
	bad := errors.New("the list's distribution point cannot be read")
	var fields cryptobyte.String
	if !der.ReadASN1(&fields, cbasn1.SEQUENCE) || !der.Empty() {
		return bad
	}
	for !fields.Empty() {
		var value cryptobyte.String
		var tag cbasn1.Tag
		if !fields.ReadAnyASN1(&value, &tag) {
			return bad
		}
		set := len(value) == 1 && value[0] != 0 // for those that are booleans
		switch tag {
		case cbasn1.Tag(0).ContextSpecific().Constructed():
			var names cryptobyte.String
			if !value.ReadASN1(&names, cbasn1.Tag(0).ContextSpecific().Constructed()) {
				return errors.New("the list's distribution point has no full name")
			}
			l.points = []string{}
			for !names.Empty() {
				var name cryptobyte.String
				if !names.ReadAnyASN1(&name, &tag) {
					return bad
				}
				if tag == cbasn1.Tag(6).ContextSpecific() {
					l.points = append(l.points, string(name))
				}
			}
		case cbasn1.Tag(1).ContextSpecific(): // certificates of clients, which is what we ask about
		case cbasn1.Tag(2).ContextSpecific():
			if set {
				return errors.New("the list is about authorities only")
			}
		case cbasn1.Tag(4).ContextSpecific():
			if set {
				return errors.New("this is an indirect list; one that the authority itself signs is needed")
			}
		case cbasn1.Tag(5).ContextSpecific():
			if set {
				return errors.New("the list is about attribute certificates only")
			}
		default:
			return errors.New("the list is about some reasons for revocation only; a complete one is needed")
		}
	}
	return nil
}

// fill reads the entries.
func (l *List) fill(entries cryptobyte.String) error {
	bad := errors.New("an entry of the list cannot be read")
	count := 0
	for rest := entries; !rest.Empty(); count++ {
		var entry, serial cryptobyte.String
		if !rest.ReadASN1(&entry, cbasn1.SEQUENCE) || !entry.ReadASN1(&serial, cbasn1.INTEGER) || len(serial) == 0 || len(serial) > maxSerial {
			return bad
		}
		if len(serial) > 1 && (serial[0] == 0 && serial[1] < 0x80 || serial[0] == 0xff && serial[1] >= 0x80) {
			return bad // written in a way that no look-up would find
		}
		var at cryptobyte.String
		var tag cbasn1.Tag
		if !entry.ReadAnyASN1(&at, &tag) {
			return bad
		}
		if err := entryExtensions(entry); err != nil {
			return err
		}
		l.serials = append(append(l.serials, byte(len(serial))), serial...) //nolint:gosec // at most maxSerial
	}
	l.serials = slices.Clip(l.serials)
	if len(l.serials) >= 1<<32-1 {
		return errors.New("the list is too large")
	}
	l.Entries = count
	size := 4
	for size < count*2 {
		size *= 2
	}
	l.table = make([]uint32, size)
	for at := 0; at < len(l.serials); at += 1 + int(l.serials[at]) {
		slot, _ := l.find(l.serials[at+1 : at+1+int(l.serials[at])])
		l.table[slot] = uint32(at + 1)
	}
	return nil
}

// entryExtensions refuses an entry that is not what it looks like.
func entryExtensions(entry cryptobyte.String) error {
	if entry.Empty() {
		return nil
	}
	var list cryptobyte.String
	if !entry.ReadASN1(&list, cbasn1.SEQUENCE) || !entry.Empty() {
		return errors.New("an entry of the list cannot be read")
	}
	for !list.Empty() {
		var ext cryptobyte.String
		var oid asn1.ObjectIdentifier
		critical := false
		if !list.ReadASN1(&ext, cbasn1.SEQUENCE) || !ext.ReadASN1ObjectIdentifier(&oid) ||
			ext.PeekASN1Tag(cbasn1.BOOLEAN) && !ext.ReadASN1Boolean(&critical) {
			return errors.New("an entry of the list cannot be read")
		}
		switch {
		case oid.Equal(oidCertIssuer):
			return errors.New("the list has entries of other authorities; one that is about its own alone is needed")
		case critical && !oid.Equal(oidReason):
			return fmt.Errorf("an entry of the list has a critical extension %s that is not understood", oid)
		}
	}
	return nil
}

// find returns the slot of a serial, or the free one where it would be.
func (l *List) find(serial []byte) (slot int, there bool) {
	mask := len(l.table) - 1
	for slot = int(maphash.Bytes(seed, serial)&0x7fffffff) & mask; ; slot = (slot + 1) & mask {
		at := l.table[slot]
		if at == 0 {
			return slot, false
		}
		if n := uint32(l.serials[at-1]); bytes.Equal(l.serials[at:at+n], serial) {
			return slot, true
		}
	}
}

// Covers reports whether the list says of the certificate whether it is
// revoked: its issuer has signed both, by name and key.
func (l *List) Covers(c, issuer *x509.Certificate) bool {
	return issuer != nil && bytes.Equal(c.RawIssuer, l.issuer) && bytes.Equal(issuer.RawSubjectPublicKeyInfo, l.key) &&
		(l.points == nil || slices.ContainsFunc(c.CRLDistributionPoints, func(p string) bool { return slices.Contains(l.points, p) }))
}

// Fresh reports whether the list may still be gone by.
func (l *List) Fresh(now time.Time) bool { return now.Before(l.NextUpdate) }

// Revoked reports whether the list has a serial number.
func (l *List) Revoked(serial *big.Int) bool {
	var b cryptobyte.Builder
	b.AddASN1BigInt(serial)
	der, err := b.Bytes()
	if err != nil || len(der) < 2 {
		return true // no serial number of a certificate
	}
	_, there := l.find(der[2:])
	return there
}

// Older reports whether the list comes before another of the same issuer: an
// old list, replayed, would take revocations back.
func (l *List) Older(than *List) bool {
	if than == nil || !bytes.Equal(l.issuer, than.issuer) || !bytes.Equal(l.key, than.key) {
		return false
	}
	if l.Number != nil && than.Number != nil {
		return l.Number.Cmp(than.Number) < 0
	}
	return l.ThisUpdate.Before(than.ThisUpdate)
}

// Size is what the list takes in memory, about.
func (l *List) Size() int { return len(l.serials) + len(l.table)*binary.Size(uint32(0)) }
