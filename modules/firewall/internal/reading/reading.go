// Package reading makes of a body what those see who parse it, so that rules
// look at the same: values without the escapes, comments and sections that
// words can be cut up with.
//
// Its functions are pure, and what they return is at most some ten times as
// large as the body.
package reading

import (
	"bytes"
	"encoding/json"
	"errors"
	"net/url"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Head is how much of a body tells text from what is not.
const Head = 512

// What keeps a body from being read.
var (
	ErrDoctype  = errors.New("the document brings a type declaration, and with it entities")
	ErrTooMany  = errors.New("the document has more values than are inspected")
	ErrTooDeep  = errors.New("the document is nested too deep")
	ErrEncoding = errors.New("the document is in an encoding that is not read")
)

// Kind is how a body begins.
type Kind uint8

// What a body may be.
const (
	Binary Kind = iota
	Text
	JSON // or text that begins like it
	XML
	Wide // UTF-16 or UTF-32: some read JSON in it, the rules do not
)

var utf8Mark = []byte("\xef\xbb\xbf")

// Sniff tells what a body is by its head, whatever its type says. One that
// begins as JSON or XML is never binary, since there are parsers that stop where
// the value ends and do not mind what comes after. No format that we know of
// begins so: not gRPC's frames, nor protobuf, CBOR, archives, images or sound.
func Sniff(head []byte) Kind {
	rest := bytes.TrimLeft(bytes.TrimPrefix(head, utf8Mark), " \t\r\n")
	switch {
	case len(rest) > 0 && (rest[0] == '{' || rest[0] == '['):
		return JSON
	case len(rest) > 0 && rest[0] == '<':
		return XML
	case wide(head):
		return Wide
	case plain(head[:min(len(head), Head)]):
		return Text
	}
	return Binary
}

// Decided reports whether more of a body that Sniff calls Binary could make it
// anything else. A stream may be waiting for an answer to its first bytes.
func Decided(head []byte) bool {
	if len(head) < 2 {
		return false
	}
	mark := head[0] == 0xff && head[1] == 0xfe || head[0] == 0xfe && head[1] == 0xff
	return len(head) >= 16 || head[0] != 0 && head[1] != 0 && !mark
}

// plain reports whether text could begin so; its last character may be cut.
func plain(head []byte) bool {
	for len(head) > 0 {
		r, n := utf8.DecodeRune(head)
		switch {
		case r == utf8.RuneError && n == 1:
			return !utf8.FullRune(head)
		case r < ' ' && r != '\t' && r != '\n' && r != '\r' && r != '\f', r == 0x7f:
			return false
		}
		head = head[n:]
	}
	return true
}

// wide reports whether JSON or XML could begin so in UTF-16 or UTF-32, of either
// order and with a mark or without. A frame of gRPC that began like it were
// half a gigabyte long, or had a field that cannot be.
func wide(head []byte) bool {
	for _, e := range []struct {
		mark      string
		width, at int
	}{{"\xff\xfe\x00\x00", 4, 0}, {"\x00\x00\xfe\xff", 4, 3}, {"\xff\xfe", 2, 0}, {"\xfe\xff", 2, 1}} {
		for text := bytes.TrimPrefix(head, []byte(e.mark)); len(text) >= 2*e.width; text = text[e.width:] {
			first, ok := narrow(text, e.width, e.at)
			if _, then := narrow(text[e.width:], e.width, e.at); !ok || !then {
				break
			}
			if first == '{' || first == '[' || first == '<' {
				return true
			}
			if first != ' ' && first != '\t' && first != '\r' && first != '\n' {
				break
			}
		}
	}
	return false
}

// narrow is the first character of wide text, if it is of ASCII.
func narrow(text []byte, width, at int) (c byte, ok bool) {
	for i, b := range text[:width] {
		switch {
		case i == at:
			c = b
		case b != 0:
			return 0, false
		}
	}
	return c, c > 0 && c < 0x80
}

// Values makes one JSON array of the objects and arrays that a body begins
// with and, as a string, of what comes after them. There is none when the body
// begins with no such value. A single value stays as it is.
func Values(body []byte) ([]byte, bool) {
	body = bytes.TrimPrefix(body, utf8Mark)
	var all []byte
	for n := 0; ; n++ {
		body = bytes.TrimLeft(body, " \t\r\n")
		var value json.RawMessage
		if len(body) == 0 || body[0] != '{' && body[0] != '[' {
			return finish(all, body, n)
		}
		dec := json.NewDecoder(bytes.NewReader(body))
		if dec.Decode(&value) != nil {
			return finish(all, body, n)
		}
		if n == 0 {
			all = make([]byte, 0, len(body)+16)
		}
		all = append(append(all, ','), value...)
		body = body[dec.InputOffset():]
	}
}

func finish(values, rest []byte, n int) ([]byte, bool) {
	switch {
	case n == 0:
		return nil, false
	case n == 1 && len(rest) == 0:
		return values[1:], true
	}
	values[0] = '['
	if len(rest) > 0 {
		text, _ := json.Marshal(string(Unescape(rest))) // a string always can be
		values = append(append(values, ','), text...)
	}
	return append(values, ']'), true
}

// Prose shows text to the rules as one value of JSON and, since it may be taken
// for a form as well, each value of that as another. Coraza's own reading of a form
// would take lines of text for the names of fields, where no line may end.
func Prose(text []byte) []byte {
	out := append(make([]byte, 0, len(text)+16), '[')
	add := func(value string) {
		if len(out) > 1 {
			out = append(out, ',')
		}
		quoted, _ := json.Marshal(value) // a string always can be
		out = append(out, quoted...)
	}
	add(string(text))
	for field := range bytes.SplitSeq(text, []byte("&")) {
		_, value, ok := bytes.Cut(field, []byte("="))
		if !ok || len(value) == 0 {
			continue
		}
		plain, err := url.QueryUnescape(string(value))
		if err != nil {
			plain = string(value) // as those see it who let a lone % be
		}
		add(plain)
	}
	return append(out, ']')
}

// Unescape undoes the escapes of JSON by which a word could be written so that
// no rule knows it, in what is no JSON to us but may be to somebody else.
func Unescape(text []byte) []byte {
	if !bytes.Contains(text, []byte(`\u`)) {
		return text
	}
	out := make([]byte, 0, len(text))
	for len(text) > 0 {
		r, ok := escaped(text)
		if !ok {
			out = append(out, text[0])
			text = text[1:]
			continue
		}
		text = text[6:]
		if low, ok := escaped(text); ok && utf16.IsSurrogate(r) {
			if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
				r, text = pair, text[6:]
			}
		}
		out = utf8.AppendRune(out, r)
	}
	return out
}

func escaped(text []byte) (rune, bool) {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	return rune(n), err == nil
}
