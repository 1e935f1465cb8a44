package clientcert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"math/big"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
)

var t0 = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// issue makes a certificate; a nil parent makes an authority.
func issue(tb testing.TB, parent *x509.Certificate, parentKey *ecdsa.PrivateKey, change func(*x509.Certificate)) (*x509.Certificate, *ecdsa.PrivateKey) {
	tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		tb.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(7), NotBefore: t0, NotAfter: t0.Add(24 * time.Hour)}
	if parent == nil {
		template.IsCA, template.BasicConstraintsValid = true, true
	}
	if change != nil {
		change(template)
	}
	if parent == nil {
		parent, parentKey = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		tb.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		tb.Fatal(err)
	}
	return c, key
}

func uris(words ...string) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		for _, word := range words {
			u, err := url.Parse(word)
			if err != nil {
				panic(err)
			}
			c.URIs = append(c.URIs, u)
		}
	}
}

func TestNames(t *testing.T) {
	ca, key := issue(t, nil, nil, nil)
	subject := func(name pkix.Name) func(*x509.Certificate) { return func(c *x509.Certificate) { c.Subject = name } }
	spiffe := Names{Kinds: []Kind{SPIFFE, DNS}, TrustDomains: []string{"example.org"}}
	usual := Names{Kinds: []Kind{URI, DNS, Email, CommonName}}
	for _, tc := range []struct {
		name   string
		names  Names
		make   func(*x509.Certificate)
		want   string // empty: refused
		reason string // in the error
	}{
		{"a SPIFFE ID", spiffe, uris("spiffe://example.org/ns/acme/sa/web"), "spiffe://example.org/ns/acme/sa/web", ""},
		{"another trust domain", spiffe, uris("spiffe://evil.org/ns/acme"), "", "trust domain"},
		{"a trust domain with another before it", spiffe, uris("spiffe://example.org.evil.org/ns"), "", "trust domain"},
		{"a trust domain in capitals", spiffe, uris("spiffe://Example.org/ns"), "", "malformed"},
		{"a port", spiffe, uris("spiffe://example.org:443/ns"), "", "malformed"},
		{"a user", spiffe, uris("spiffe://ann@example.org/ns"), "", "malformed"},
		{"a query", spiffe, uris("spiffe://example.org/ns?x=1"), "", "malformed"},
		{"a fragment", spiffe, uris("spiffe://example.org/ns#x"), "", "malformed"},
		{"dots", spiffe, uris("spiffe://example.org/ns/../acme"), "", "malformed"},
		{"an encoded letter", spiffe, uris("spiffe://example.org/%61cme"), "", "malformed"},
		{"an empty segment", spiffe, uris("spiffe://example.org/ns//a"), "", "malformed"},
		{"a slash at the end", spiffe, uris("spiffe://example.org/ns/"), "", "malformed"},
		{"two URIs", spiffe, uris("spiffe://example.org/a", "https://example.org"), "", "another URI"},
		{"a wrong ID does not fall through to DNS", spiffe, func(c *x509.Certificate) {
			uris("spiffe://evil.org/a")(c)
			c.DNSNames = []string{"a.example.org"}
		}, "", "trust domain"},
		{"no ID falls through to DNS", spiffe, func(c *x509.Certificate) { c.DNSNames = []string{"A.example.org"} }, "a.example.org", ""},
		{"the first of several URIs", usual, uris("urn:a", "urn:b"), "urn:a", ""},
		{"the first of several DNS names", usual, func(c *x509.Certificate) { c.DNSNames = []string{"a.test", "b.test"} }, "a.test", ""},
		{"a DNS name for many", usual, func(c *x509.Certificate) { c.DNSNames = []string{"*.test"} }, "", "is none"},
		{"email", usual, func(c *x509.Certificate) { c.EmailAddresses = []string{"ann@example.org"} }, "ann@example.org", ""},
		{"the common name", usual, subject(pkix.Name{CommonName: "ann"}), "ann", ""},
		{"a common name that poses as a URI", usual, subject(pkix.Name{CommonName: "spiffe://example.org/admin"}), "", "another kind"},
		{"a common name that poses as a URN", usual, subject(pkix.Name{CommonName: "urn:example:billing"}), "", "another kind"},
		{"a common name with a colon", usual, subject(pkix.Name{CommonName: "Example Ltd: billing"}), "Example Ltd: billing", ""},
		{"a common name that poses as an email address", usual, subject(pkix.Name{CommonName: "ann@example.org"}), "", "another kind"},
		{"which it may where no other kind is asked for", Names{Kinds: []Kind{CommonName}}, subject(pkix.Name{CommonName: "ann@example.org"}), "ann@example.org", ""},
		{"two common names", Names{Kinds: []Kind{CommonName}}, subject(pkix.Name{CommonName: "ann", ExtraNames: []pkix.AttributeTypeAndValue{
			{Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "ann"}, {Type: asn1.ObjectIdentifier{2, 5, 4, 3}, Value: "admin"},
		}}), "", "more than one"},
		{"the whole subject", Names{Kinds: []Kind{DN}}, subject(pkix.Name{CommonName: `ann, "the" + <boss>`, Organization: []string{" acme "}, Country: []string{"GB"}}), `CN=ann\, \"the\" \+ \<boss\>,O=\ acme\ ,C=GB`, ""},
		{"nothing", usual, nil, "", "no name"},
		{"an empty subject", Names{Kinds: []Kind{DN}}, nil, "", "no name"},
	} {
		c, _ := issue(t, ca, key, tc.make)
		got, err := tc.names.Of(c)
		if got.Text != tc.want || (err == nil) != (tc.want != "") || err != nil && !strings.Contains(err.Error(), tc.reason) {
			t.Errorf("%s: %q, %v; want %q", tc.name, got.Text, err, tc.want)
		}
	}
	c, _ := issue(t, ca, key, nil)
	if got, err := (&Names{Kinds: []Kind{Fingerprint}}).Of(c); err != nil || got.Text != FingerprintOf(c) || len(got.Text) != 64 {
		t.Errorf("fingerprint: %v %v", got, err)
	}
}

func TestPolicy(t *testing.T) {
	ca, key := issue(t, nil, nil, func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "ca", Organization: []string{"Acme"}} })
	other, _ := issue(t, nil, nil, func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "other"} })
	leaf, _ := issue(t, ca, key, func(c *x509.Certificate) {
		uris("spiffe://example.org/ns/acme/sa/web")(c)
		c.DNSNames = []string{"Web.clients.example.org", "web2.clients.example.org"}
		c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
		c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{1, 2, 3, 4}}
	})
	colons := strings.ToUpper(FingerprintOf(ca))
	for i := 2; i < len(colons); i += 3 {
		colons = colons[:i] + ":" + colons[i:]
	}
	type patterns map[Kind][]string
	for _, tc := range []struct {
		name   string
		ca     []string
		san    patterns
		usage  []string
		maxAge time.Duration
		breaks string
	}{
		{"nothing is asked for", nil, nil, nil, 0, ""},
		{"the authority, by fingerprint", []string{FingerprintOf(ca)}, nil, nil, 0, ""},
		{"with colons and capitals", []string{colons}, nil, nil, 0, ""},
		{"by name", []string{"CN=ca,O=Acme"}, nil, nil, 0, ""},
		{"another authority", []string{FingerprintOf(other), "CN=other"}, nil, nil, 0, "ca"},
		{"the certificate is no authority of its own", []string{FingerprintOf(leaf)}, nil, nil, 0, "ca"},
		{"a segment", nil, patterns{URI: {"spiffe://example.org/ns/*/sa/web"}}, nil, 0, ""},
		{"a star stands for one segment", nil, patterns{URI: {"spiffe://example.org/ns/*"}}, nil, 0, "san uri"},
		{"two stars for all", nil, patterns{URI: {"spiffe://example.org/ns/**"}}, nil, 0, ""},
		{"a dot is a dot", nil, patterns{URI: {"spiffe://example?org/**"}}, nil, 0, "san uri"},
		{"a pattern is for the whole name", nil, patterns{URI: {"example.org"}}, nil, 0, "san uri"},
		{"all DNS names", nil, patterns{DNS: {"*.CLIENTS.example.org"}}, nil, 0, ""},
		{"one of two DNS names is not enough", nil, patterns{DNS: {"web.clients.example.org"}}, nil, 0, "san dns"},
		{"one pattern for each", nil, patterns{DNS: {"web.clients.example.org", "web2.clients.example.org"}}, nil, 0, ""},
		{"no email address", nil, patterns{Email: {"**"}}, nil, 0, "san email"},
		{"usages", nil, nil, []string{"client_auth", "1.2.3.4"}, 0, ""},
		{"a usage that is missing", nil, nil, []string{"client_auth", "server_auth"}, 0, "usage"},
		{"an object identifier that is missing", nil, nil, []string{"1.2.3.5"}, 0, "usage"},
		{"young", nil, nil, nil, time.Hour, ""},
		{"old", nil, nil, nil, time.Minute, "max_age"},
	} {
		var p Policy
		for _, word := range tc.ca {
			if err := p.AddCA(word); err != nil {
				t.Fatal(err)
			}
		}
		for kind, words := range tc.san {
			for _, word := range words {
				if err := p.AddSAN(kind, word); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, word := range tc.usage {
			if err := p.AddUsage(word); err != nil {
				t.Fatal(err)
			}
		}
		p.SetMaxAge(tc.maxAge)
		if got := p.Check([][]*x509.Certificate{{leaf, ca}}, t0.Add(30*time.Minute)); got != tc.breaks {
			t.Errorf("%s: breaks %q, want %q", tc.name, got, tc.breaks)
		}
	}
	var p Policy
	for _, err := range []error{p.AddCA("abc"), p.AddSAN(CommonName, "a"), p.AddSAN(DNS, ""), p.AddUsage("client"), p.AddUsage("1")} {
		if err == nil {
			t.Error("a wrong word was taken")
		}
	}
}

// unformat reads back what FormatDN writes, as RFC 4514 says.
func unformat(t *testing.T, text string) (rdns [][]string) {
	t.Helper()
	rdn, part := []string{}, []byte{}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; c {
		case '\\':
			if i+2 < len(text) {
				if b, err := hex.DecodeString(text[i+1 : i+3]); err == nil {
					part = append(part, b...)
					i += 2
					continue
				}
			}
			i++
			part = append(part, text[i])
		case '+', ',':
			rdn, part = append(rdn, string(part)), nil
			if c == ',' {
				rdns, rdn = append(rdns, rdn), nil
			}
		default:
			part = append(part, c)
		}
	}
	return append(rdns, append(rdn, string(part)))
}

// FuzzDN: what is written parses back to the attributes that were read, and is
// one line.
func FuzzDN(f *testing.F) {
	for _, name := range []pkix.Name{
		{CommonName: "ann"},
		{CommonName: `a,b+c="d"\;<e>#`, Organization: []string{"#x", " y "}, OrganizationalUnit: []string{"é", "\x00"}},
		{ExtraNames: []pkix.AttributeTypeAndValue{{Type: asn1.ObjectIdentifier{1, 2, 840, 113549, 1, 9, 1}, Value: "a@b"}}},
	} {
		der, err := asn1.Marshal(name.ToRDNSequence())
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		text, err := FormatDN(der)
		if err != nil {
			return
		}
		if strings.ContainsFunc(text, unicode.IsControl) && !strings.ContainsFunc(text, func(r rune) bool { return r >= 0x80 }) {
			t.Fatalf("control characters in %q", text)
		}
		rdns, err := parseDN(der)
		if err != nil || len(rdns) == 0 {
			if text != "" || err != nil {
				t.Fatalf("%q, %v", text, err)
			}
			return
		}
		slices.Reverse(rdns)
		back := unformat(t, text)
		if len(back) != len(rdns) {
			t.Fatalf("%q has %d parts, want %d", text, len(back), len(rdns))
		}
		for i, rdn := range rdns {
			for j, a := range rdn {
				_, value, _ := strings.Cut(back[i][j], "=")
				want := "#" + hex.EncodeToString(a.der)
				if _, known := keywords[a.oid]; known && a.isText {
					want = a.text
				}
				if value != want {
					t.Fatalf("%q: %q, want %q", text, value, want)
				}
			}
		}
	})
}

// FuzzSPIFFE: an ID that is accepted has one spelling, which a URL parser
// leaves as it is and finds the same path in.
func FuzzSPIFFE(f *testing.F) {
	for _, id := range []string{"spiffe://example.org/ns/acme", "spiffe://example.org", "spiffe://example.org/../a", "spiffe://e%78ample.org/a", "spiffe://a/b?c#d"} {
		f.Add(id)
	}
	f.Fuzz(func(t *testing.T, id string) {
		domain, path, err := ParseSPIFFE(id)
		if err != nil {
			return
		}
		u, err := url.Parse(id)
		if err != nil || u.String() != id || u.Host != domain || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
			t.Fatalf("%q is read as %#v, %v", id, u, err)
		}
		if strings.TrimPrefix(u.Path, "/") != strings.Join(path, "/") || slices.Contains(path, "..") {
			t.Fatalf("%q has the path %q", id, path)
		}
	})
}

// FuzzNames: whoever a certificate names has a name, and for SPIFFE one of a
// trust domain that is accepted.
func FuzzNames(f *testing.F) {
	ca, key := issue(f, nil, nil, nil)
	for _, change := range []func(*x509.Certificate){
		uris("spiffe://example.org/a"), func(c *x509.Certificate) { c.DNSNames, c.EmailAddresses = []string{"a.test"}, []string{"a@b"} },
		func(c *x509.Certificate) { c.Subject.CommonName = "ann" },
	} {
		c, _ := issue(f, ca, key, change)
		f.Add(c.Raw)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		for k := range kindCount {
			n := Names{Kinds: []Kind{k}, TrustDomains: []string{"example.org"}}
			name, err := n.Of(c)
			if (err == nil) != (name.Text != "") {
				t.Fatalf("%v: %q, %v", k, name.Text, err)
			}
			if k == SPIFFE && err == nil && name.Text != "spiffe://example.org" && !strings.HasPrefix(name.Text, "spiffe://example.org/") {
				t.Fatalf("%q is accepted", name.Text)
			}
		}
	})
}
