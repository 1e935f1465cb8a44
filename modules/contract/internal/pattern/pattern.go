// Package pattern matches texts against the patterns of JSON Schema, in a time
// that is linear in the text whatever is sent.
//
// Most patterns are left to Go's regular expressions, once what JavaScript and
// Java write differently is translated. Those that look ahead or behind, which
// Go's do not know, are run by an automaton of our own (see look.go). Only
// references back to a group are refused: nothing linear can follow them.
package pattern

import (
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"
)

// Pattern is a compiled pattern. It may be used concurrently.
type Pattern struct {
	text        string         // as it was written
	plain       string         // in Go's syntax, when that is all there is to it
	re          *regexp.Regexp // nil when it looks around
	look        *automaton
	least, most int // characters of the whole text, where re does not count them; most is -1 without
}

// Bounds of what one pattern may become, so that a document cannot ask for any
// amount of memory.
const (
	maxText   = 1 << 20 // bytes in Go's syntax
	maxRepeat = 1000    // what Go's syntax allows in one go
	maxDepth  = 50      // groups in groups that look around
)

// known saves compiling what contracts say many times over; it is emptied when
// it is full.
var (
	knownLock sync.Mutex
	known     = make(map[string]*Pattern)
)

const maxKnown = 4096

// Compile reads a pattern.
func Compile(text string) (*Pattern, error) {
	knownLock.Lock()
	p := known[text]
	knownLock.Unlock()
	if p != nil {
		return p, nil
	}
	p, err := compilePattern(text)
	if err != nil {
		return nil, err
	}
	knownLock.Lock()
	defer knownLock.Unlock()
	if len(known) == maxKnown {
		clear(known)
	}
	known[text] = p
	return p, nil
}

// maxValid bounds a pattern that a stranger sends.
const maxValid = 4 << 10

// Valid reports whether a text is a pattern, for who does not need it. Nothing is
// compiled, nor kept: a compiled pattern may take a thousand times what its
// text does. One of more than 4 KiB is none.
func Valid(text string) bool {
	if len(text) > maxValid {
		return false
	}
	s := &scanner{rest: text, length: len(text), hat: strings.HasPrefix(text, "^")}
	if atom, _, _, ok := s.whole(); ok {
		_, err := syntax.Parse(atom, syntax.Perl)
		return err == nil
	}
	plain, err := s.group(0, false)
	if err != nil {
		return false
	}
	for _, l := range s.looks {
		if _, err := syntax.Parse(l.text, syntax.Perl); err != nil {
			return false
		}
	}
	_, err = syntax.Parse(plain, syntax.Perl)
	return err == nil
}

func compilePattern(text string) (*Pattern, error) {
	p := &Pattern{text: text, most: -1}
	s := &scanner{rest: text, length: len(text), hat: strings.HasPrefix(text, "^")}
	if atom, least, most, ok := s.whole(); ok {
		// Counting the characters of a text is cheaper than counting states.
		p.least, p.most = least, most
		re, err := regexp.Compile("^(?:" + atom + ")*$")
		p.re = re
		return p, err
	}
	plain, err := s.group(0, false)
	if err != nil {
		return nil, err
	}
	if len(s.looks) > 0 && s.flags > 0 && (s.flags > 1 || s.first == "") {
		return nil, errors.New("flags such as (?i) in the middle of a pattern that looks around are not supported; put them at its start")
	}
	if len(s.looks) == 0 {
		if p.re, err = regexp.Compile(plain); err != nil {
			return nil, err
		}
		p.plain = plain
		return p, nil
	}
	for i := range s.looks {
		s.looks[i].text = s.first + s.looks[i].text
	}
	p.look, err = assemble(plain, s.looks)
	return p, err
}

// Plain is the pattern in Go's syntax; ok tells whether that says it all.
func (p *Pattern) Plain() (string, bool) { return p.plain, p.re != nil && p.most < 0 }

// String is the pattern as it was written.
func (p *Pattern) String() string { return p.text }

// MatchString tells whether the pattern matches anywhere in s. It panics with
// ErrTooMuchWork where that would take too long to find out.
func (p *Pattern) MatchString(s string) bool {
	if p.look != nil {
		return p.look.match(s)
	}
	if p.most >= 0 {
		if n := utf8.RuneCountInString(s); n < p.least || n > p.most {
			return false
		}
	}
	return p.re.MatchString(s)
}

// scanner rewrites a pattern into Go's syntax. Groups that look around become
// empty groups with a name; what they look for is scanned on its own.
type scanner struct {
	rest   string
	length int    // of the whole pattern
	hat    bool   // it begins with ^
	looks  []look // inner ones before outer ones
	flags  int    // groups that set flags
	first  string // the one at the start, which holds for all
}

// look is one group that looks around.
type look struct {
	text           string
	behind, negate bool
}

var errTooLong = errors.New("the pattern is too long once its repetitions are written out")

// whole knows a pattern that only counts characters of one kind, ^[a-z]{1,5000}$.
func (s *scanner) whole() (atom string, least, most int, ok bool) {
	inner, front := strings.CutPrefix(s.rest, "^")
	inner, back := strings.CutSuffix(inner, "$")
	if !front || !back || inner == "" || strings.ContainsAny(inner[:1], "(*+?{|") {
		return "", 0, 0, false
	}
	one := &scanner{rest: inner}
	atom, err := one.atom(0)
	if err != nil {
		return "", 0, 0, false
	}
	least, most, n := counts(one.rest)
	if n == 0 || n != len(one.rest) || most <= maxRepeat {
		return "", 0, 0, false
	}
	return atom, least, most, true
}

// group scans alternatives up to the closing parenthesis, or to the end.
func (s *scanner) group(depth int, inner bool) (string, error) {
	if depth > maxDepth {
		return "", errors.New("the pattern nests too deep")
	}
	var out strings.Builder
	for s.rest != "" {
		if s.rest[0] == ')' {
			if inner {
				return out.String(), nil
			}
			break // Go's parser reports it
		}
		if s.rest[0] == '|' {
			out.WriteByte('|')
			s.rest = s.rest[1:]
			continue
		}
		atom, err := s.atom(depth)
		if err != nil {
			return "", err
		}
		if err := s.quantified(&out, atom, depth == 0); err != nil {
			return "", err
		}
		if out.Len() > maxText {
			return "", errTooLong
		}
	}
	if inner {
		return "", errors.New("a group is not closed")
	}
	out.WriteString(s.rest)
	return out.String(), nil
}

// atom takes one thing that may be repeated.
func (s *scanner) atom(depth int) (string, error) {
	switch s.rest[0] {
	case '\\':
		return s.escape(false)
	case '[':
		return s.class()
	case '(':
		return s.parenthesis(depth)
	}
	_, size := utf8.DecodeRuneInString(s.rest)
	return s.take(size), nil
}

func (s *scanner) take(n int) string {
	out := s.rest[:n]
	s.rest = s.rest[n:]
	return out
}

func (s *scanner) parenthesis(depth int) (string, error) {
	var kind *look
	atStart := len(s.rest) == s.length || len(s.rest) == s.length-1 && s.hat
	open := "(?:"
	switch r := s.rest; {
	case strings.HasPrefix(r, "(?="):
		kind, s.rest = &look{}, r[3:]
	case strings.HasPrefix(r, "(?!"):
		kind, s.rest = &look{negate: true}, r[3:]
	case strings.HasPrefix(r, "(?<="):
		kind, s.rest = &look{behind: true}, r[4:]
	case strings.HasPrefix(r, "(?<!"):
		kind, s.rest = &look{behind: true, negate: true}, r[4:]
	case strings.HasPrefix(r, "(?<"), strings.HasPrefix(r, "(?P<"):
		end := strings.IndexByte(r, '>')
		if end < 0 {
			return "", errors.New("the name of a group is not closed")
		}
		s.rest = r[end+1:]
	case strings.HasPrefix(r, "(?"): // flags, which are Go's business
		end := strings.IndexAny(r, ":)")
		if end < 0 {
			return "", errors.New("a group is not closed")
		}
		open, s.rest = r[:end+1], r[end+1:]
		if open == "(?:" {
			break
		}
		if s.flags++; open[end] == ')' {
			if s.flags == 1 && atStart {
				s.first = open
			}
			return open, nil
		}
	default:
		s.rest = r[1:]
	}
	text, err := s.group(depth+1, true)
	if err != nil {
		return "", err
	}
	s.rest = s.rest[1:]
	if kind == nil {
		return open + text + ")", nil
	}
	kind.text = text
	s.looks = append(s.looks, *kind)
	return "(?P<" + lookName + strconv.Itoa(len(s.looks)-1) + ">)", nil
}

const lookName = "look"

// class takes a character class, in which escapes are all that differs.
func (s *scanner) class() (string, error) {
	var out strings.Builder
	out.WriteString(s.take(1))
	if strings.HasPrefix(s.rest, "^") {
		out.WriteString(s.take(1))
	}
	for first := true; s.rest != ""; first = false {
		switch {
		case s.rest[0] == ']' && !first:
			out.WriteString(s.take(1))
			return out.String(), nil
		case strings.HasPrefix(s.rest, "[:"):
			if end := strings.Index(s.rest, ":]"); end > 0 {
				out.WriteString(s.take(end + 2))
				continue
			}
			out.WriteString(s.take(1))
		case s.rest[0] == '\\':
			e, err := s.escape(true)
			if err != nil {
				return "", err
			}
			out.WriteString(e)
		default:
			out.WriteString(s.take(1))
		}
	}
	return "", errors.New("a character class is not closed")
}

// escape says in Go's syntax what JavaScript, Java and others write: \u00e9,
// \cA, \Z, \p{Alpha}.
func (s *scanner) escape(inClass bool) (string, error) {
	r := s.rest
	if len(r) == 1 {
		return s.take(1), nil // Go's parser reports it
	}
	switch c := r[1]; {
	case c == 'u' && len(r) >= 6 && isHex(r[2:6]):
		s.rest = r[6:]
		return `\x{` + r[2:6] + `}`, nil
	case c == 'u' && strings.HasPrefix(r[2:], "{"):
		if end := strings.IndexByte(r, '}'); end > 3 && isHex(r[3:end]) {
			s.rest = r[end+1:]
			return `\x{` + r[3:end] + `}`, nil
		}
	case c == 'c' && len(r) > 2 && r[2]|0x20 >= 'a' && r[2]|0x20 <= 'z':
		s.rest = r[3:]
		return fmt.Sprintf(`\x%02x`, r[2]&0x1f), nil
	case c == 'Z' && !inClass:
		s.rest = r[2:]
		return `\z`, nil
	case c == 'Q' || c == 'E': // which quote for Perl, and for Go
		s.rest = r[2:]
		return r[1:2], nil
	case c == 'b' && inClass:
		s.rest = r[2:]
		return `\x08`, nil
	case (c >= '1' && c <= '9' || c == 'k') && !inClass:
		return "", fmt.Errorf("%s refers back to a group, which no matching in linear time can follow; write out what it may repeat", r[:2])
	case c == '0' && (len(r) == 2 || r[2] < '0' || r[2] > '9'):
		s.rest = r[2:]
		return `\x00`, nil
	case (c == 'p' || c == 'P') && (len(r) == 2 || r[2] != '{' && (r[2]|0x20 < 'a' || r[2]|0x20 > 'z')):
		s.rest = r[2:] // no property at all
		return r[1:2], nil
	case (c == 'p' || c == 'P') && r[2] == '{':
		if end := strings.IndexByte(r, '}'); end > 0 {
			s.rest = r[end+1:]
			return property(r[:end+1], inClass), nil
		}
	}
	_, size := utf8.DecodeRuneInString(r[1:])
	return s.take(1 + size), nil
}

// classes are the names of Java, and the long ones of Unicode, for what Go
// writes otherwise.
var classes = map[string]string{
	"Alpha": "[:alpha:]", "Digit": "[:digit:]", "Alnum": "[:alnum:]", "Upper": "[:upper:]", "Lower": "[:lower:]",
	"Punct": "[:punct:]", "Graph": "[:graph:]", "Print": "[:print:]", "Blank": "[:blank:]", "Cntrl": "[:cntrl:]",
	"XDigit": "[:xdigit:]", "Space": "[:space:]", "ASCII": "[:ascii:]",
	"all": `\x{0}-\x{10FFFF}`, "Any": `\x{0}-\x{10FFFF}`, "LD": `\p{L}\p{Nd}`,
	"Letter": `\p{L}`, "Number": `\p{N}`, "Punctuation": `\p{P}`, "Symbol": `\p{S}`, "Separator": `\p{Z}`, "Mark": `\p{M}`, "Other": `\p{C}`,
	"IsLetter": `\p{L}`, "IsAlphabetic": `\p{L}\p{Nl}`, "Alphabetic": `\p{L}\p{Nl}`, "IsDigit": `\p{Nd}`,
	"Uppercase_Letter": `\p{Lu}`, "Lowercase_Letter": `\p{Ll}`, "Decimal_Number": `\p{Nd}`, "Space_Separator": `\p{Zs}`,
}

func property(escape string, inClass bool) string {
	name := escape[3 : len(escape)-1]
	for _, prefix := range []string{"Script=", "sc=", "Script_Extensions=", "scx=", "General_Category=", "gc="} {
		name = strings.TrimPrefix(name, prefix)
	}
	members, ok := classes[name]
	negate := escape[1] == 'P'
	switch {
	case !ok:
		return escape[:3] + name + "}"
	case negate && !inClass:
		return "[^" + members + "]"
	case negate:
		// In a class only single members can be negated.
		if strings.HasPrefix(members, "[:") {
			return "[:^" + members[2:]
		}
		return escape
	case inClass:
		return members
	}
	return "[" + members + "]"
}

// quantified writes an atom with its quantifier. Repetitions beyond what Go's
// syntax allows are written one after another.
func (s *scanner) quantified(out *strings.Builder, atom string, top bool) error {
	least, most, n := counts(s.rest)
	if n == 0 || least <= maxRepeat && most <= maxRepeat {
		out.WriteString(atom)
		if n > 0 {
			out.WriteString(s.take(n))
		}
		return nil
	}
	s.rest = strings.TrimPrefix(s.rest[n:], "?") // lazy or not, it matches or not
	if top && s.rest == "" {
		most = least // what comes at the very end need not be there
	}
	if len(atom)*(max(least, most)/maxRepeat+2) > maxText || max(least, most) > 50*maxRepeat {
		return fmt.Errorf("a repetition of %d is too large; use maxLength beside the pattern", max(least, most))
	}
	out.WriteString("(?:")
	for left := least; left > 0; left -= maxRepeat {
		_, _ = fmt.Fprintf(out, "%s{%d}", atom, min(left, maxRepeat))
	}
	if most < 0 {
		out.WriteString(atom + "*")
	}
	for left := most - least; left > 0; left -= maxRepeat {
		_, _ = fmt.Fprintf(out, "%s{0,%d}", atom, min(left, maxRepeat))
	}
	out.WriteByte(')')
	return nil
}

// counts reads {3}, {3,} or {3,5} at the start of s and tells its length; most
// is -1 without a bound.
func counts(s string) (least, most, n int) {
	end := strings.IndexByte(s, '}')
	if end < 2 || s[0] != '{' {
		return 0, 0, 0
	}
	from, to, ranged := strings.Cut(s[1:end], ",")
	least, err := strconv.Atoi(from)
	if err != nil || least < 0 {
		return 0, 0, 0
	}
	switch most = least; {
	case ranged && to == "":
		most = -1
	case ranged:
		if most, err = strconv.Atoi(to); err != nil || most < least {
			return 0, 0, 0
		}
	}
	return least, most, end + 1
}

func isHex(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c|0x20 < 'a' || c|0x20 > 'f') {
			return false
		}
	}
	return true
}
