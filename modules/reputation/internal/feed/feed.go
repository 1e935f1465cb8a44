// Package feed reads lists of addresses and networks in the forms they are
// published in, and answers whether an address is on one.
package feed

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"

	"github.com/gaissmai/bart"
)

// Set is a list of networks. It is immutable once parsed and may be asked
// concurrently.
type Set struct {
	table bart.Lite
	size  int
}

// Contains reports whether addr, which must be unmapped, is in the set.
func (s *Set) Contains(addr netip.Addr) bool { return s.table.Contains(addr) }

// Len is how many different networks the set has.
func (s *Set) Len() int { return s.size }

// Add puts one network in; only for sets that are not shared yet.
func (s *Set) Add(p netip.Prefix) {
	s.table.Insert(p.Masked())
	s.size = s.table.Size()
}

// MaxNetworks bounds what a list may hold.
const MaxNetworks = 4 << 20

// Parse reads a list: one address or network a line, `#` and `;` begin a
// comment, and what stands behind the first word is ignored. Lines of JSON are
// read as Spamhaus writes them, with a member "cidr". Tor's exit-addresses are
// read too. A line that is none of it refuses the whole list, because half a
// list is worse than the one before; so is an empty one.
func Parse(data []byte) (*Set, error) {
	s := new(Set)
	line, read := 0, 0
	for text := range bytes.Lines(bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))) {
		line++
		p, ok, err := parseLine(text)
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", line, err)
		}
		if !ok {
			continue
		}
		if read++; read > MaxNetworks {
			return nil, fmt.Errorf("line %d: more than %d networks", line, MaxNetworks)
		}
		s.table.Insert(p)
	}
	if s.size = s.table.Size(); s.size == 0 {
		return nil, errors.New("the list is empty")
	}
	return s, nil
}

func parseLine(text []byte) (_ netip.Prefix, ok bool, _ error) {
	text = bytes.TrimSpace(text)
	if len(text) > 0 && text[0] == '{' {
		return parseJSON(text)
	}
	if i := bytes.IndexAny(text, "#;"); i >= 0 {
		text = text[:i]
	}
	words := bytes.Fields(text)
	if len(words) == 0 {
		return netip.Prefix{}, false, nil
	}
	word := string(words[0])
	switch word {
	case "ExitNode", "Published", "LastStatus":
		return netip.Prefix{}, false, nil
	case "ExitAddress":
		if len(words) < 2 {
			return netip.Prefix{}, false, errors.New("ExitAddress without an address")
		}
		word = string(words[1])
	}
	p, err := ParsePrefix(word)
	return p, err == nil, err
}

// parseJSON reads a line of Spamhaus's JSON; a line without cidr is metadata.
func parseJSON(text []byte) (netip.Prefix, bool, error) {
	var entry struct {
		CIDR string `json:"cidr"`
		Type string `json:"type"`
	}
	if err := json.Unmarshal(text, &entry); err != nil {
		return netip.Prefix{}, false, errors.New("not JSON")
	}
	if entry.CIDR == "" {
		if entry.Type == "metadata" {
			return netip.Prefix{}, false, nil
		}
		return netip.Prefix{}, false, errors.New("no member cidr")
	}
	p, err := ParsePrefix(entry.CIDR)
	return p, err == nil, err
}

// ParsePrefix reads an address or a network, unmapped and without host bits.
func ParsePrefix(word string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(word); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(word)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("%.64q is neither an address nor a network", word)
	}
	if p.Addr().Is4In6() {
		if p.Bits() < 96 {
			return netip.Prefix{}, fmt.Errorf("%.64q is no network of IPv4", word)
		}
		p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}
