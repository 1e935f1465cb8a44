// Package rx matches regular expressions, and looks first at whether the text
// has the characters that a match would need.
//
// A firewall asks hundreds of expressions about each value, and nearly all say
// no. Most need quotes, brackets or the letters of some keyword, which an order's
// number, a date or a name do not have. What each needs is found out when it is
// compiled, as sets of characters of which one must be there as a whole; the
// characters of a text are one word of 64 bits, so that to compare the two takes
// some nanoseconds where the expression takes microseconds.
//
// Who is in doubt asks the expression: texts that are not ASCII always are, since
// letters outside of it may be taken for letters inside. So the answer is the
// expression's own, whatever the text.
package rx

import (
	"math/bits"
	"regexp"
	"regexp/syntax"
	"slices"
	"unicode"
	"unicode/utf8"
)

// Pattern is a compiled expression. It may be used concurrently.
type Pattern struct {
	re    *regexp.Regexp
	least int   // characters that a match has at least
	needs []set // one of them is there in every text of ASCII that matches
}

// set is characters of ASCII: each letter, whether large or small, and each sign
// has a bit, and so have all digits and all control characters together.
type set uint64

const foreign set = 1 << 63 // what is not ASCII

var alphabet = func() (of [256]set) {
	next := 2
	for c := range of {
		switch r := rune(c); {
		case r >= utf8.RuneSelf:
			of[c] = foreign
		case r < ' ' || r == 0x7f:
			of[c] = 1 << 0
		case r >= '0' && r <= '9':
			of[c] = 1 << 1
		case r >= 'a' && r <= 'z':
			of[c] = of[unicode.ToUpper(r)]
		default:
			of[c] = 1 << next
			next++
		}
	}
	return of
}()

// Compile compiles an expression of Go's syntax.
func Compile(expr string) (*Pattern, error) {
	re, err := regexp.Compile(expr)
	if err != nil {
		return nil, err
	}
	tree, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return nil, err
	}
	return &Pattern{re, least(tree), needs(tree)}, nil
}

// MatchString reports whether the expression matches the text somewhere.
func (p *Pattern) MatchString(text string) bool {
	return p.may(text) && p.re.MatchString(text)
}

// FindStringSubmatchIndex is that of the expression. It asks whether there is a
// match before it asks where, which takes longer.
func (p *Pattern) FindStringSubmatchIndex(text string) []int {
	if !p.MatchString(text) {
		return nil
	}
	return p.re.FindStringSubmatchIndex(text)
}

// may reports whether the text has what a match needs.
func (p *Pattern) may(text string) bool {
	if len(text) < p.least {
		return false
	}
	var has set
	for i := range len(text) {
		has |= alphabet[text[i]]
	}
	if has&foreign != 0 {
		return true
	}
	for _, n := range p.needs {
		if n&^has == 0 {
			return true
		}
	}
	return false
}

// least counts the characters that a match has at least.
func least(re *syntax.Regexp) (n int) {
	switch re.Op { //nolint:exhaustive // the others need nothing
	case syntax.OpLiteral:
		return len(re.Rune)
	case syntax.OpCharClass, syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		return 1
	case syntax.OpCapture, syntax.OpPlus:
		return least(re.Sub[0])
	case syntax.OpRepeat:
		return min(re.Min*least(re.Sub[0]), 1<<20)
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			n = min(n+least(sub), 1<<20)
		}
	case syntax.OpAlternate:
		n = least(re.Sub[0])
		for _, sub := range re.Sub[1:] {
			n = min(n, least(sub))
		}
	}
	return n
}

// nothing is what an expression needs that may match the empty text, or anything.
var nothing = []set{0}

const (
	maxSets  = 1024 // that a pattern is asked about
	maxClass = 8    // characters of a class that is worth to be told apart
)

// needs finds the sets of which a text of ASCII must have one. None means that it
// cannot match such a text at all.
func needs(re *syntax.Regexp) []set {
	switch re.Op { //nolint:exhaustive // the others need nothing
	case syntax.OpNoMatch:
		return nil
	case syntax.OpLiteral:
		var all set
		for _, r := range re.Rune {
			one := ofRune(r, re.Flags&syntax.FoldCase != 0)
			if one == 0 {
				return nil
			}
			all |= one
		}
		return []set{all}
	case syntax.OpCharClass:
		return ofClass(re.Rune)
	case syntax.OpCapture, syntax.OpPlus:
		return needs(re.Sub[0])
	case syntax.OpRepeat:
		if re.Min > 0 {
			return needs(re.Sub[0])
		}
	case syntax.OpConcat:
		all := nothing
		for _, sub := range re.Sub {
			all = both(all, needs(sub))
		}
		return all
	case syntax.OpAlternate:
		var all []set
		for _, sub := range re.Sub {
			all = append(all, needs(sub)...)
		}
		return fewest(all)
	}
	return nothing
}

// ofRune is the bit of a character of ASCII that matches r, or 0.
func ofRune(r rune, fold bool) set {
	if r < utf8.RuneSelf {
		return alphabet[r]
	}
	if fold {
		for f := unicode.SimpleFold(r); f != r; f = unicode.SimpleFold(f) {
			if f < utf8.RuneSelf {
				return alphabet[f]
			}
		}
	}
	return 0
}

// ofClass gives each character of a class a set of its own, unless there are many.
func ofClass(ranges []rune) []set {
	var all set
	for i := 0; i+1 < len(ranges); i += 2 {
		for r := ranges[i]; r <= min(ranges[i+1], utf8.RuneSelf-1); r++ {
			all |= alphabet[r]
		}
	}
	if bits.OnesCount64(uint64(all)) > maxClass {
		return nothing
	}
	var each []set
	for all != 0 {
		one := all & -all
		each, all = append(each, one), all&^one
	}
	return each
}

// both is what a text must have that needs one of a and one of b.
func both(a, b []set) []set {
	if len(a)*len(b) > maxSets {
		// Too many to tell apart: of the longer list what all of it has.
		if len(a) < len(b) {
			a, b = b, a
		}
		a = []set{common(a)}
	}
	all := make([]set, 0, len(a)*len(b))
	for _, x := range a {
		for _, y := range b {
			all = append(all, x|y)
		}
	}
	return fewest(all)
}

// fewest leaves out what another set asks less for, and what is too much to ask.
func fewest(all []set) []set {
	slices.SortFunc(all, func(a, b set) int { return bits.OnesCount64(uint64(a)) - bits.OnesCount64(uint64(b)) })
	var kept []set
	for _, s := range all {
		if !slices.ContainsFunc(kept, func(k set) bool { return k&^s == 0 }) {
			kept = append(kept, s)
		}
	}
	if len(kept) > maxSets {
		return []set{common(kept)}
	}
	return kept
}

func common(all []set) set {
	same := ^set(0)
	for _, s := range all {
		same &= s
	}
	if len(all) == 0 {
		return 0
	}
	return same
}
