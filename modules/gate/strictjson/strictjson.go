// Package strictjson reads JSON that a stranger sent, and reads it in one way
// only: one value, nothing behind it, no member twice, valid UTF-8, and
// nothing deeper, longer or more than the limits allow. Two programs that
// could read the same bytes differently never get to see them.
//
// Numbers stay [json.Number], so that no digit is lost; their length and
// exponent are limited, because arbitrary-precision arithmetic behind a schema
// can be made to take minutes, or to panic, by ten bytes (1e10000000).
package strictjson

import (
	"encoding/json"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// Limits bound what Decode accepts. A zero field means the default.
type Limits struct {
	Depth    int // nesting of arrays and objects; default 64
	Values   int // values of any kind, members and elements included; default 100,000
	String   int // bytes of one string as sent, names included; default no limit but the body's
	Number   int // characters of one number; default 128
	Exponent int // greatest magnitude of an exponent; default 400
}

func (l Limits) withDefaults() Limits {
	set := func(v *int, def int) {
		if *v == 0 {
			*v = def
		}
	}
	set(&l.Depth, 64)
	set(&l.Values, 100_000)
	set(&l.String, 1<<62)
	set(&l.Number, 128)
	set(&l.Exponent, 400)
	return l
}

// Error says what is wrong with a document and where.
type Error struct {
	Offset int    // bytes before the fault
	Reason string // one phrase; holds nothing of the document
}

func (e *Error) Error() string { return e.Reason + " at byte " + strconv.Itoa(e.Offset) }

// Decode reads the one JSON value in data. Objects become map[string]any,
// arrays []any, numbers json.Number.
func Decode(data []byte, l Limits) (any, error) {
	d := decoder{data: data, lim: l.withDefaults()}
	d.space()
	v := d.value(0)
	if d.err == nil {
		if d.space(); d.pos < len(data) {
			d.fail("data after the value")
		}
	}
	if d.err != nil {
		return nil, d.err
	}
	return v, nil
}

type decoder struct {
	data   []byte
	pos    int
	values int
	lim    Limits
	err    *Error
}

func (d *decoder) fail(reason string) any {
	if d.err == nil {
		d.err = &Error{Offset: d.pos, Reason: reason}
	}
	return nil
}

func (d *decoder) space() {
	for d.pos < len(d.data) {
		switch d.data[d.pos] {
		case ' ', '\t', '\n', '\r':
			d.pos++
		default:
			return
		}
	}
}

// peek returns the next byte, or 0 at the end; a NUL is never valid here.
func (d *decoder) peek() byte {
	if d.pos < len(d.data) {
		return d.data[d.pos]
	}
	return 0
}

func (d *decoder) value(depth int) any {
	if d.values++; d.values > d.lim.Values {
		return d.fail("too many values")
	}
	switch c := d.peek(); c {
	case '{':
		return d.object(depth + 1)
	case '[':
		return d.array(depth + 1)
	case '"':
		return d.str()
	case 't':
		return d.literal("true", true)
	case 'f':
		return d.literal("false", false)
	case 'n':
		return d.literal("null", nil)
	default:
		if c == '-' || c >= '0' && c <= '9' {
			return d.number()
		}
		if d.pos >= len(d.data) {
			return d.fail("unexpected end")
		}
		return d.fail("unexpected character")
	}
}

func (d *decoder) literal(word string, v any) any {
	if len(d.data)-d.pos < len(word) || string(d.data[d.pos:d.pos+len(word)]) != word {
		return d.fail("unexpected character")
	}
	d.pos += len(word)
	return v
}

func (d *decoder) object(depth int) any {
	if depth > d.lim.Depth {
		return d.fail("nested too deeply")
	}
	m := make(map[string]any)
	d.pos++
	if d.space(); d.peek() == '}' {
		d.pos++
		return m
	}
	for d.err == nil {
		if d.space(); d.peek() != '"' {
			return d.fail("expected a member name")
		}
		at := d.pos
		name := d.str()
		if _, twice := m[name]; twice && d.err == nil {
			d.pos = at
			return d.fail("member name occurs twice")
		}
		if d.space(); d.peek() != ':' {
			return d.fail("expected a colon")
		}
		d.pos++
		d.space()
		m[name] = d.value(depth)
		d.space()
		switch d.peek() {
		case ',':
			d.pos++
		case '}':
			d.pos++
			return m
		default:
			return d.fail("expected a comma or the end of the object")
		}
	}
	return nil
}

func (d *decoder) array(depth int) any {
	if depth > d.lim.Depth {
		return d.fail("nested too deeply")
	}
	a := []any{}
	d.pos++
	if d.space(); d.peek() == ']' {
		d.pos++
		return a
	}
	for d.err == nil {
		d.space()
		a = append(a, d.value(depth))
		d.space()
		switch d.peek() {
		case ',':
			d.pos++
		case ']':
			d.pos++
			return a
		default:
			return d.fail("expected a comma or the end of the array")
		}
	}
	return nil
}

func (d *decoder) number() any {
	start := d.pos
	if d.peek() == '-' {
		d.pos++
	}
	switch c := d.peek(); {
	case c == '0':
		d.pos++
	case c >= '1' && c <= '9':
		d.digits()
	default:
		return d.fail("expected a digit")
	}
	if d.peek() == '.' {
		if d.pos++; d.digits() == 0 {
			return d.fail("expected a digit")
		}
	}
	if d.peek()|0x20 == 'e' {
		d.pos++
		if c := d.peek(); c == '+' || c == '-' {
			d.pos++
		}
		at := d.pos
		if d.digits() == 0 {
			return d.fail("expected a digit")
		}
		if exp, err := strconv.Atoi(string(d.data[at:d.pos])); err != nil || exp > d.lim.Exponent {
			return d.fail("number with too large an exponent")
		}
	}
	if d.pos-start > d.lim.Number {
		return d.fail("number with too many digits")
	}
	return json.Number(d.data[start:d.pos])
}

func (d *decoder) digits() (n int) {
	for c := d.peek(); c >= '0' && c <= '9'; c = d.peek() {
		d.pos++
		n++
	}
	return n
}

// str reads a string. The common case, ASCII without escapes, is one scan and
// one copy.
func (d *decoder) str() string {
	d.pos++ // the opening quote
	start := d.pos
	for d.pos < len(d.data) {
		switch c := d.data[d.pos]; {
		case c == '"':
			s := d.data[start:d.pos]
			if len(s) > d.lim.String {
				d.fail("string too long")
			}
			d.pos++
			return string(s)
		case c == '\\' || c >= utf8.RuneSelf:
			return d.strSlow(start)
		case c < ' ':
			d.fail("control character in a string")
			return ""
		}
		d.pos++
	}
	d.fail("unexpected end")
	return ""
}

func (d *decoder) strSlow(start int) string {
	buf := append([]byte(nil), d.data[start:d.pos]...)
	for d.pos < len(d.data) {
		switch c := d.data[d.pos]; {
		case c == '"':
			if d.pos-start > d.lim.String {
				d.fail("string too long")
			}
			d.pos++
			return string(buf)
		case c < ' ':
			d.fail("control character in a string")
			return ""
		case c == '\\':
			var ok bool
			if buf, ok = d.escape(buf); !ok {
				d.fail("malformed escape in a string")
				return ""
			}
		case c < utf8.RuneSelf:
			buf = append(buf, c)
			d.pos++
		default:
			r, n := utf8.DecodeRune(d.data[d.pos:])
			if r == utf8.RuneError && n == 1 {
				d.fail("invalid UTF-8")
				return ""
			}
			buf = append(buf, d.data[d.pos:d.pos+n]...)
			d.pos += n
		}
	}
	d.fail("unexpected end")
	return ""
}

// escape reads one escape sequence. A lone surrogate is refused: programs
// disagree on what it means.
func (d *decoder) escape(buf []byte) ([]byte, bool) {
	if d.pos+1 >= len(d.data) {
		return buf, false
	}
	c := d.data[d.pos+1]
	if plain := unescaped[c]; plain != 0 {
		d.pos += 2
		return append(buf, plain), true
	}
	if c != 'u' {
		return buf, false
	}
	r, ok := d.hex4(d.pos + 2)
	if !ok {
		return buf, false
	}
	d.pos += 6
	if utf16.IsSurrogate(r) {
		if d.pos+1 >= len(d.data) || d.data[d.pos] != '\\' || d.data[d.pos+1] != 'u' {
			return buf, false
		}
		low, ok := d.hex4(d.pos + 2)
		if !ok {
			return buf, false
		}
		if r = utf16.DecodeRune(r, low); r == utf8.RuneError {
			return buf, false
		}
		d.pos += 6
	}
	return utf8.AppendRune(buf, r), true
}

var unescaped = [256]byte{'"': '"', '\\': '\\', '/': '/', 'b': '\b', 'f': '\f', 'n': '\n', 'r': '\r', 't': '\t'}

func (d *decoder) hex4(at int) (r rune, ok bool) {
	if at+4 > len(d.data) {
		return 0, false
	}
	for _, c := range d.data[at : at+4] {
		switch {
		case c >= '0' && c <= '9':
			c -= '0'
		case c|0x20 >= 'a' && c|0x20 <= 'f':
			c = c | 0x20 - 'a' + 10
		default:
			return 0, false
		}
		r = r<<4 | rune(c)
	}
	return r, true
}
