// Package canon finds the one way to write a path, or says why there is none
// that everybody would read alike.
package canon

import (
	"strings"
	"unicode/utf8"
)

// Why a path has no canonical form, or a query. What it means depends on who reads it, so
// none can be chosen on the reader's behalf.
const (
	EncodedSlash = "an encoded slash"
	Backslash    = "a backslash"
	Control      = "a control character"
	TwiceEncoded = "an encoding inside an encoding"
	NotUTF8      = "bytes that are not UTF-8"
	DotParameter = "a dot segment with a parameter"
	Parameter    = "a semicolon, behind which some see a parameter; as a character it is written %3B"
	NotAbsolute  = "no leading slash"
	BadPercent   = "a percent sign without two hexadecimal digits"
	Semicolon    = "a semicolon, which some take for an ampersand; as a character it is written %3B"
)

// Path returns the canonical form of an escaped path (RFC 3986, section 6.2.2):
// unreserved characters plain, all else that is encoded in capitals, no dot
// segments, no empty segments but the last. fault is empty, or says why there
// is none. With slash, an encoded slash is data and stays as it is; with semicolon,
// a semicolon does. A path that is canonical already costs no allocation.
func Path(escaped string, slash, semicolon bool) (path, fault string) {
	if escaped == "" || escaped[0] != '/' {
		return "", NotAbsolute
	}
	if plain(escaped) {
		return escaped, ""
	}
	if !semicolon && strings.IndexByte(escaped, ';') >= 0 {
		return "", Parameter
	}
	text, fault := decode(escaped, slash)
	if fault != "" {
		return "", fault
	}
	return segments(text)
}

// plain reports whether nothing in the path could need a second look.
func plain(path string) bool {
	for i := range len(path) {
		switch c := path[i]; {
		case c == '/':
			if i+1 < len(path) && (path[i+1] == '/' || path[i+1] == '.') {
				return false
			}
		case c == '%', c == ';', c == '\\', c < ' ', c >= 0x7f:
			return false
		}
	}
	return true
}

// decode takes encodings off that have no meaning and writes the others in
// capitals.
func decode(escaped string, slash bool) (text, fault string) {
	var out strings.Builder
	out.Grow(len(escaped))
	var raw []byte // all decoded, to see whether it is UTF-8
	for i := 0; i < len(escaped); i++ {
		c := escaped[i]
		encoded := c == '%'
		if encoded {
			if i+2 >= len(escaped) || !isHex(escaped[i+1]) || !isHex(escaped[i+2]) {
				return "", BadPercent
			}
			c = unhex(escaped[i+1])<<4 | unhex(escaped[i+2])
			i += 2
		}
		raw = append(raw, c)
		switch {
		case c < ' ' || c == 0x7f:
			return "", Control
		case c == '\\':
			return "", Backslash
		case c == '/' && encoded && !slash:
			return "", EncodedSlash
		case c == '%' && i+2 < len(escaped) && isHex(escaped[i+1]) && isHex(escaped[i+2]):
			return "", TwiceEncoded
		case !encoded && c < utf8.RuneSelf, encoded && unreserved(c):
			out.WriteByte(c)
		default:
			const digits = "0123456789ABCDEF"
			out.Write([]byte{'%', digits[c>>4], digits[c&15]})
		}
	}
	if !utf8.Valid(raw) {
		return "", NotUTF8
	}
	return out.String(), ""
}

// segments removes dot segments (RFC 3986, section 5.2.4) and empty ones.
func segments(path string) (_, fault string) {
	var kept []string
	last := ""
	for s := range strings.SplitSeq(path[1:], "/") {
		last = s
		if name, _, parameter := strings.Cut(s, ";"); parameter && (name == "." || name == "..") {
			return "", DotParameter // some servers take the parameter off first
		}
		switch s {
		case "", ".":
		case "..":
			kept = kept[:max(0, len(kept)-1)]
		default:
			kept = append(kept, s)
		}
	}
	clean := "/" + strings.Join(kept, "/")
	if (last == "" || last == "." || last == "..") && clean != "/" {
		clean += "/"
	}
	return clean, ""
}

func isHex(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f'
}

func unhex(c byte) byte {
	if c <= '9' {
		return c - '0'
	}
	return c | 0x20 - 'a' + 10
}

// unreserved characters mean the same encoded or not (RFC 3986, section 2.3).
func unreserved(c byte) bool {
	return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'z' || c == '-' || c == '.' || c == '_' || c == '~'
}

// Query counts the members of a query. fault is empty, or says why it is not
// read alike by everybody. A semicolon is a character like others for most, and
// divides members like an ampersand for some.
func Query(raw string) (members int, fault string) {
	if raw == "" {
		return 0, ""
	}
	members = 1
	for i := range len(raw) {
		switch c := raw[i]; {
		case c == '&':
			members++
		case c == '%' && (i+2 >= len(raw) || !isHex(raw[i+1]) || !isHex(raw[i+2])):
			return members, BadPercent
		case c == ';':
			return members, Semicolon
		case c < ' ', c == 0x7f:
			return members, Control
		}
	}
	return members, ""
}
