package feed

import (
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct{ name, list, in, out, fault string }{
		{"addresses", "192.0.2.1\n2001:db8::1\n", "192.0.2.1 2001:db8::1", "192.0.2.2 2001:db8::2", ""},
		{"networks", "192.0.2.0/24 # all of it\n", "192.0.2.0 192.0.2.255", "192.0.3.0", ""},
		{"host bits", "192.0.2.77/24", "192.0.2.1", "192.0.3.1", ""},
		{"DROP text", "; comment\n192.0.2.0/24 ; SBL1\n", "192.0.2.9", "192.0.3.1", ""},
		{"DROP JSON", `{"cidr":"192.0.2.0/24","sblid":"x"}` + "\n" + `{"type":"metadata","records":1}`, "192.0.2.9", "192.0.3.1", ""},
		{"counts behind", "192.0.2.1\t8\n", "192.0.2.1", "192.0.2.8", ""},
		{"mapped", "::ffff:192.0.2.0/120\n", "192.0.2.5", "192.0.3.5", ""},
		{"carriage returns and a mark", "\xef\xbb\xbf192.0.2.1\r\n", "192.0.2.1", "192.0.2.2", ""},
		{"Tor", "ExitNode A\nExitAddress 192.0.2.1 2026-01-01 00:00:00\nExitAddress 192.0.2.2 x\n", "192.0.2.1 192.0.2.2", "192.0.2.3", ""},
		{"nothing", "# only this\n", "", "", "the list is empty"},
		{"a web page", "<!doctype html>\n", "", "", `line 1: "<!doctype" is neither`},
		{"a name", "192.0.2.1\nexample.com\n", "", "", `line 2: "example.com" is neither`},
		{"a wrong length", "192.0.2.1/33\n", "", "", "line 1"},
		{"JSON without cidr", `{"a":1}`, "", "", "no member cidr"},
		{"a zone", "fe80::1%eth0", "", "", "is neither"},
	} {
		s, err := Parse([]byte(c.list))
		if c.fault != "" {
			if err == nil || !strings.Contains(err.Error(), c.fault) {
				t.Errorf("%s: %v, want %q", c.name, err, c.fault)
			}
			continue
		}
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		for a := range strings.FieldsSeq(c.in) {
			if !s.Contains(netip.MustParseAddr(a)) {
				t.Errorf("%s: %s is not in it", c.name, a)
			}
		}
		for a := range strings.FieldsSeq(c.out) {
			if s.Contains(netip.MustParseAddr(a)) {
				t.Errorf("%s: %s is in it", c.name, a)
			}
		}
	}
}

// TestSpecimens reads every feed that is published as text or lines of JSON.
func TestSpecimens(t *testing.T) {
	suites := os.Getenv("GATEHOUSE_SUITES")
	if suites == "" {
		if os.Getenv("GATEHOUSE_SUITES_REQUIRED") != "" {
			t.Fatal("GATEHOUSE_SUITES is not set")
		}
		t.Skip("GATEHOUSE_SUITES names no folder with third-party suites")
	}
	for name, want := range map[string]int{
		"abuseipdb_blacklist.txt": 3, "firehol_level1.netset": 0, "ipsum.txt": 0, "spamhaus_drop.txt": 0,
		"spamhaus_drop_v4.json": 3, "tor_exit-addresses.txt": 0, "tor_exits.ipset": 0,
	} {
		data, err := os.ReadFile(filepath.Join(suites, "feeds", name))
		if err != nil {
			t.Fatal(err)
		}
		s, err := Parse(data)
		if err != nil || s.Len() == 0 || want > 0 && s.Len() != want {
			t.Errorf("%s: %v, %+v", name, err, s)
		}
	}
}

// FuzzParse: a set has what an obvious reading of its networks has.
func FuzzParse(f *testing.F) {
	f.Add("192.0.2.0/24\n2001:db8::/32\n", "192.0.2.1")
	f.Add(`{"cidr":"::/0"}`, "::1")
	f.Add("0.0.0.0/0 ; all\n# no", "1.2.3.4")
	f.Fuzz(func(t *testing.T, list, word string) {
		s, err := Parse([]byte(list))
		if (s == nil) == (err == nil) {
			t.Fatal("neither a set nor an error")
		}
		addr, bad := netip.ParseAddr(word)
		if err != nil || bad != nil || addr.Zone() != "" {
			return
		}
		addr = addr.Unmap()
		found := false
		for p := range s.table.All() {
			found = found || p.Contains(addr)
		}
		if s.Contains(addr) != found {
			t.Fatalf("%s: %v, want %v", addr, !found, found)
		}
	})
}

// BenchmarkContains asks a list of a million networks, larger than any that is
// published, for addresses that miss it.
func BenchmarkContains(b *testing.B) {
	rng := rand.New(rand.NewPCG(1, 2))
	s := new(Set)
	for range 1_000_000 {
		n := rng.Uint32()
		s.table.Insert(netip.PrefixFrom(netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)}), 24+rng.IntN(9)).Masked())
	}
	addr := netip.MustParseAddr("198.51.100.7")
	b.ReportAllocs()
	for b.Loop() {
		s.Contains(addr)
	}
}
