// Package geo looks up countries and autonomous systems in MMDB files.
package geo

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/oschwald/maxminddb-golang/v2"
)

// DB is one database; it may be asked concurrently.
type DB struct{ reader *maxminddb.Reader }

// Countries reads a database that knows countries.
func Countries(data []byte) (*DB, error) { return read(data, "Country", "City", "Enterprise") }

// Networks reads a database that knows autonomous systems.
func Networks(data []byte) (*DB, error) { return read(data, "ASN", "ISP", "Enterprise") }

// read refuses a database of another kind, in which nothing would be found.
func read(data []byte, kinds ...string) (_ *DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("reading the database panicked: %v", p)
		}
	}()
	r, err := maxminddb.OpenBytes(data)
	if err != nil {
		return nil, err
	}
	for _, k := range kinds {
		if strings.Contains(r.Metadata.DatabaseType, k) {
			return &DB{r}, nil
		}
	}
	return nil, fmt.Errorf("a database of type %q knows nothing of %s", r.Metadata.DatabaseType, strings.Join(kinds, ", "))
}

// Country is the ISO 3166-1 code of the country of addr, or empty. A damaged
// record reads as one that is not there.
func (db *DB) Country(addr netip.Addr) (code string) {
	defer func() {
		if recover() != nil {
			code = ""
		}
	}()
	if err := db.reader.Lookup(addr).DecodePath(&code, "country", "iso_code"); err != nil || len(code) != 2 {
		return ""
	}
	return code
}

// ASN is the number of the autonomous system of addr, or 0.
func (db *DB) ASN(addr netip.Addr) (asn uint32) {
	defer func() {
		if recover() != nil {
			asn = 0
		}
	}()
	if err := db.reader.Lookup(addr).DecodePath(&asn, "autonomous_system_number"); err != nil {
		return 0
	}
	return asn
}
