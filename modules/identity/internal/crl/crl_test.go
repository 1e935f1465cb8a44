package crl

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"strings"
	"testing"
	"time"
)

var now = time.Now().Truncate(time.Second)

type authority struct {
	*x509.Certificate
	key *ecdsa.PrivateKey
}

func newAuthority(tb testing.TB, name string) *authority {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return &authority{c, key}
}

func (a *authority) list(tb testing.TB, change func(*x509.RevocationList), serials ...int64) []byte {
	tb.Helper()
	template := &x509.RevocationList{Number: big.NewInt(5), ThisUpdate: now.Add(-time.Minute), NextUpdate: now.Add(time.Hour)}
	for _, s := range serials {
		template.RevokedCertificateEntries = append(template.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(s), RevocationTime: now})
	}
	if change != nil {
		change(template)
	}
	der, err := x509.CreateRevocationList(rand.Reader, template, a.Certificate, a.key)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

func extension(oid asn1.ObjectIdentifier, der ...byte) func(*x509.RevocationList) {
	return func(l *x509.RevocationList) {
		l.ExtraExtensions = []pkix.Extension{{Id: oid, Critical: true, Value: der}}
	}
}

func TestRead(t *testing.T) {
	ca, namesake, other := newAuthority(t, "ca"), newAuthority(t, "ca"), newAuthority(t, "other")
	trusted := []*x509.Certificate{other.Certificate, ca.Certificate}
	good := ca.list(t, nil, 1, 127, 128, 255, 256, 1<<40)
	changed := append([]byte{}, good...)
	changed[len(changed)-1] ^= 1
	distribution := func(der ...byte) []byte { return ca.list(t, extension(oidDistribution, der...), 1) }
	block := string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: good}))
	for _, tc := range []struct {
		name string
		data []byte
		says string
	}{
		{"DER", good, ""},
		{"PEM", []byte(block), ""},
		{"an empty list", ca.list(t, nil), ""},
		{"two lists", []byte(block + block), "more than one"},
		{"a certificate", []byte("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "no X509 CRL"},
		{"hello", []byte("hello"), "no certificate revocation list"},
		{"nothing", nil, "no certificate revocation list"},
		{"something behind it", append(append([]byte{}, good...), 0), "no certificate revocation list"},
		{"a changed signature", changed, "signature"},
		{"an authority of the same name", namesake.list(t, nil, 1), "signature"},
		{"an authority that nobody knows", newAuthority(t, "stranger").list(t, nil, 1), "no authority has the name"},
		{"ended", ca.list(t, func(l *x509.RevocationList) { l.ThisUpdate, l.NextUpdate = now.Add(-2*time.Hour), now.Add(-time.Hour) }), "too old"},
		{"from the future", ca.list(t, func(l *x509.RevocationList) { l.ThisUpdate = now.Add(10 * time.Minute) }), "future"},
		{"delta", ca.list(t, extension(oidDelta, 2, 1, 4), 1), "delta"},
		{"a critical extension", ca.list(t, extension(asn1.ObjectIdentifier{1, 2, 3}, 5, 0), 1), "critical extension 1.2.3"},
		{"clients only", distribution(0x30, 3, 0x81, 1, 0xff), ""},
		{"authorities only", distribution(0x30, 3, 0x82, 1, 0xff), "authorities only"},
		{"some reasons", distribution(0x30, 4, 0x83, 2, 1, 6), "some reasons"},
		{"indirect", distribution(0x30, 3, 0x84, 1, 0xff), "indirect"},
		{"entries of another", ca.list(t, func(l *x509.RevocationList) {
			l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(9), RevocationTime: now, ExtraExtensions: []pkix.Extension{{Id: oidCertIssuer, Critical: true, Value: []byte{0x30, 0}}}}}
		}), "other authorities"},
		{"a critical extension of an entry", ca.list(t, func(l *x509.RevocationList) {
			l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(9), RevocationTime: now, ExtraExtensions: []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}}}}
		}), "critical extension"},
	} {
		l, err := Read(tc.data, trusted, now)
		if (l == nil || err != nil) != (tc.says != "") || err != nil && !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s: %v, want %q", tc.name, err, tc.says)
		}
	}
	l, err := Read(good, trusted, now)
	if err != nil {
		t.Fatal(err)
	}
	for serial, want := range map[int64]bool{1: true, 127: true, 128: true, 255: true, 256: true, 1 << 40: true, 0: false, 2: false, 129: false, 1 << 20: false, 1<<40 + 1: false} {
		if got := l.Revoked(big.NewInt(serial)); got != want {
			t.Errorf("%d: %v", serial, got)
		}
	}
	leaf := &x509.Certificate{RawIssuer: ca.RawSubject}
	for _, issuer := range []*x509.Certificate{namesake.Certificate, other.Certificate, nil} {
		if l.Covers(leaf, issuer) {
			t.Errorf("it speaks for %v", issuer)
		}
	}
	if !l.Covers(leaf, ca.Certificate) || !l.Fresh(now) || l.Fresh(l.NextUpdate) {
		t.Error("it does not speak for its own authority until it ends")
	}

	// One of several lists speaks for the certificates that name it.
	const point = "http://ca.test/3.crl"
	part, err := Read(distribution(append([]byte{0x30, byte(len(point) + 6), 0xa0, byte(len(point) + 4), 0xa0, byte(len(point) + 2), 0x86, byte(len(point))}, point...)...), trusted, now)
	if err != nil {
		t.Fatal(err)
	}
	if part.Covers(leaf, ca.Certificate) || !part.Covers(&x509.Certificate{RawIssuer: ca.RawSubject, CRLDistributionPoints: []string{point}}, ca.Certificate) {
		t.Error("a part of the lists speaks for the wrong certificates")
	}
}

// TestMillion: a million entries of 16 random bytes take 25 bytes each, and are
// all found.
func TestMillion(t *testing.T) {
	const count = 1 << 20
	serial := func(i uint64) *big.Int {
		n := new(big.Int).SetUint64(i*0x9e3779b97f4a7c15 | 1<<63)
		return n.Lsh(n, 56).Add(n, new(big.Int).SetUint64(i))
	}
	var entries []byte
	for i := range uint64(count) {
		number := serial(i).Bytes() // 15 of them, the first below 0x80 or with a zero before it
		if number[0] >= 0x80 {
			number = append([]byte{0}, number...)
		}
		entries = append(entries, 0x30, byte(2+len(number)+15), 2, byte(len(number)))
		entries = append(append(entries, number...), "\x17\x0d260101000000Z"...)
	}
	l := new(List)
	if err := l.fill(entries); err != nil {
		t.Fatal(err)
	}
	if l.Entries != count || l.Size() > 30*count {
		t.Errorf("%d entries take %d bytes", l.Entries, l.Size())
	}
	for i := uint64(0); i < count; i += 997 {
		if !l.Revoked(serial(i)) || l.Revoked(serial(i+count)) {
			t.Fatalf("entry %d is not found, or one that is not there is", i)
		}
	}
}

// TestSource: what is good stays while what comes is not; nothing goes back.
func TestSource(t *testing.T) {
	ca := newAuthority(t, "ca")
	numbered := func(n int64, serials ...int64) []byte {
		return ca.list(t, func(l *x509.RevocationList) { l.Number = big.NewInt(n) }, serials...)
	}
	data := numbered(5, 1)
	s := NewSource(func(context.Context) ([]byte, []*x509.Certificate, error) {
		return data, []*x509.Certificate{ca.Certificate}, nil
	}, time.Hour, func(*List, error) {})
	step := func(name string, next []byte, good bool, serial int64) {
		t.Helper()
		data = next
		if err := s.refresh(); (err == nil) != good {
			t.Errorf("%s: %v", name, err)
		}
		if l := s.current.Load(); l == nil || !l.Revoked(big.NewInt(serial)) {
			t.Errorf("%s: %d is not on the list", name, serial)
		}
	}
	step("the first", data, true, 1)
	step("the same again", data, true, 1)
	step("an older one, replayed", numbered(4), false, 1)
	step("what is none", []byte("<html>"), false, 1)
	step("a newer one", numbered(6, 2), true, 2)
	if s.current.Load().Revoked(big.NewInt(1)) {
		t.Error("the list before was not replaced whole")
	}
	_ = s.Destruct()
}

// FuzzRead: whatever is read was signed by the authority, since nobody else has
// its key; and the lists that it signed are read back.
func FuzzRead(f *testing.F) {
	ca := newAuthority(f, "ca")
	good := ca.list(f, nil, 1, 2, 3)
	f.Add(good, int64(2))
	f.Add(ca.list(f, extension(oidDelta, 2, 1, 4), 1), int64(1))
	f.Fuzz(func(t *testing.T, data []byte, serial int64) {
		l, err := Read(data, []*x509.Certificate{ca.Certificate}, now)
		if (l == nil) == (err == nil) {
			t.Fatal("a list and an error, or neither")
		}
		if err == nil && !strings.Contains(string(data), "CRL") {
			want, err := x509.ParseRevocationList(data)
			if err != nil || want.CheckSignatureFrom(ca.Certificate) != nil {
				t.Fatalf("read something that the library does not: %v", err)
			}
			there := false
			for _, e := range want.RevokedCertificateEntries {
				there = there || e.SerialNumber.Cmp(big.NewInt(serial)) == 0
			}
			if l.Revoked(big.NewInt(serial)) != there {
				t.Fatalf("%d is on the list: %v", serial, there)
			}
		}
		_ = new(List).fill(data)
		_ = new(List).distribution(data)
	})
}
