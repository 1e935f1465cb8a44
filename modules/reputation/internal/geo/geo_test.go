package geo

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"
)

func suite(t testing.TB) string {
	t.Helper()
	suites := os.Getenv("GATEHOUSE_SUITES")
	if suites == "" {
		if os.Getenv("GATEHOUSE_SUITES_REQUIRED") != "" {
			t.Fatal("GATEHOUSE_SUITES is not set")
		}
		t.Skip("GATEHOUSE_SUITES names no folder with third-party suites")
	}
	return filepath.Join(suites, "mmdb")
}

func TestLookups(t *testing.T) {
	dir := filepath.Join(suite(t), "test-data")
	open := func(name string, read func([]byte) (*DB, error)) *DB {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		db, err := read(data)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		return db
	}
	country := open("GeoLite2-Country-Test.mmdb", Countries)
	for addr, want := range map[string]string{"81.2.69.160": "GB", "2001:218::1": "JP", "192.0.2.1": "", "::1": ""} {
		if got := country.Country(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s is in %q, want %q", addr, got, want)
		}
	}
	asn := open("GeoLite2-ASN-Test.mmdb", Networks)
	for addr, want := range map[string]uint32{"1.128.0.1": 1221, "192.0.2.1": 0} {
		if got := asn.ASN(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s is in AS%d, want %d", addr, got, want)
		}
	}
	data, err := os.ReadFile(filepath.Join(dir, "GeoLite2-ASN-Test.mmdb"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Countries(data); err == nil {
		t.Error("a database of networks was taken for one of countries")
	}
}

// TestBadData holds that no damaged database takes the gateway with it.
func TestBadData(t *testing.T) {
	n := 0
	for _, pattern := range []string{"bad-data/*/*.mmdb", "test-data/*.mmdb"} {
		files, err := filepath.Glob(filepath.Join(suite(t), pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range files {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			n++
			db, err := read(data, "")
			if err != nil {
				continue
			}
			for _, a := range []string{"1.1.1.1", "81.2.69.160", "::1", "2001:218::1"} {
				db.Country(netip.MustParseAddr(a))
				db.ASN(netip.MustParseAddr(a))
			}
		}
	}
	if n < 50 {
		t.Errorf("only %d databases were found", n)
	}
}

func BenchmarkCountry(b *testing.B) {
	data, err := os.ReadFile(filepath.Join(suite(b), "test-data", "GeoLite2-Country-Test.mmdb"))
	if err != nil {
		b.Fatal(err)
	}
	db, err := Countries(data)
	if err != nil {
		b.Fatal(err)
	}
	addr := netip.MustParseAddr("81.2.69.160")
	b.ReportAllocs()
	for b.Loop() {
		db.Country(addr)
	}
}
