package pattern

import (
	"errors"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"
)

// ErrTooMuchWork is what MatchString panics with. A pattern that could not be
// decided is neither a match nor none: under "not", either would let pass what
// it should not.
var ErrTooMuchWork = errors.New("matching a pattern takes too long")

// maxSteps bounds one match: some 200 ms.
const maxSteps = 20_000_000

// automaton matches a pattern that looks around.
//
// Whether (?=x) holds at a place depends on the text alone. So the groups that
// look around are decided first, for every place of the text at once: x is run
// backwards over the text to find where it may begin, or forwards for (?<=x) to
// find where it may end. To the pattern around them they are then as simple as
// ^ and $. Inner groups come before outer ones, and all in all the time is
// linear in the text: one pass for each group.
type automaton struct {
	looks []program
	main  program
}

// program is one pass.
type program struct {
	*syntax.Prog
	groups         map[uint32]int // empty groups that stand for another program, by slot
	behind, negate bool
}

// assemble compiles what the scanner found.
func assemble(main string, looks []look) (*automaton, error) {
	a := &automaton{}
	for _, l := range looks {
		p, err := compile(l.text, !l.behind)
		if err != nil {
			return nil, err
		}
		p.behind, p.negate = l.behind, l.negate
		a.looks = append(a.looks, p)
	}
	var err error
	a.main, err = compile(main, false)
	return a, err
}

func compile(text string, backwards bool) (program, error) {
	re, err := syntax.Parse(text, syntax.Perl)
	if err != nil {
		return program{}, err
	}
	p := program{groups: make(map[uint32]int)}
	for i, name := range re.CapNames() {
		if k, ok := strings.CutPrefix(name, lookName); ok {
			if p.groups[uint32(2*i)], err = strconv.Atoi(k); err != nil {
				return program{}, err
			}
		}
	}
	if backwards {
		re = reverse(re)
	}
	p.Prog, err = syntax.Compile(re.Simplify())
	return p, err
}

// reverse turns a pattern around. What looks at a place, such as ^, stays as it
// is: it is asked about places of the text, from whichever side they are met.
func reverse(re *syntax.Regexp) *syntax.Regexp {
	out := *re
	if re.Op == syntax.OpLiteral {
		out.Rune = slices.Clone(re.Rune)
		slices.Reverse(out.Rune)
		return &out
	}
	out.Sub = make([]*syntax.Regexp, len(re.Sub))
	for i, sub := range re.Sub {
		out.Sub[i] = reverse(sub)
	}
	if re.Op == syntax.OpConcat {
		slices.Reverse(out.Sub)
	}
	return &out
}

// match tells whether the pattern matches anywhere.
func (a *automaton) match(s string) bool { return a.within(s, maxSteps) }

func (a *automaton) within(s string, steps int) bool {
	r := run{text: []rune(s), left: steps}
	if !utf8.ValidString(s) {
		return false // JSON has no such text
	}
	for i := range a.looks {
		found := make([]bool, len(r.text)+1)
		r.pass(&a.looks[i], !a.looks[i].behind, func(at int) bool {
			found[at] = true
			return false
		})
		if a.looks[i].negate {
			for at := range found {
				found[at] = !found[at]
			}
		}
		r.holds = append(r.holds, found)
	}
	matched := false
	r.pass(&a.main, false, func(int) bool {
		matched = true
		return true
	})
	return matched
}

// run is one match on its way.
type run struct {
	text  []rune
	holds [][]bool // what the groups that look around say, by place
	left  int      // steps
}

// pass runs a program over the text from all places, and tells every place at
// which it ends until that is enough.
func (r *run) pass(p *program, backwards bool, ended func(at int) (enough bool)) {
	t := &threads{seen: make([]int, len(p.Inst)), p: p, r: r}
	now, next := make([]uint32, 0, len(p.Inst)), make([]uint32, 0, len(p.Inst))
	at, last, step := 0, len(r.text), 1
	if backwards {
		at, last, step = last, at, -1
	}
	t.begin(at)
	for {
		now = t.add(now, uint32(p.Start), at) //nolint:gosec // as syntax.Prog has it
		if t.matched && ended(at) || at == last {
			return
		}
		c := r.text[min(at, at+step)]
		at += step
		t.begin(at)
		next = next[:0]
		for _, pc := range now {
			if in := &p.Inst[pc]; in.MatchRune(c) {
				next = t.add(next, in.Out, at)
			}
		}
		now, next = next, now
	}
}

// threads adds the places of a program that are reached without a character.
type threads struct {
	p       *program
	r       *run
	seen    []int // the round in which an instruction was last reached
	round   int
	context syntax.EmptyOp
	matched bool
}

func (t *threads) begin(at int) {
	t.round++
	t.matched = false
	before, after := rune(-1), rune(-1)
	if at > 0 {
		before = t.r.text[at-1]
	}
	if at < len(t.r.text) {
		after = t.r.text[at]
	}
	t.context = syntax.EmptyOpContext(before, after)
}

func (t *threads) add(list []uint32, pc uint32, at int) []uint32 {
	if t.seen[pc] == t.round {
		return list
	}
	t.seen[pc] = t.round
	if t.r.left--; t.r.left < 0 {
		panic(ErrTooMuchWork)
	}
	switch in := &t.p.Inst[pc]; in.Op {
	case syntax.InstAlt, syntax.InstAltMatch:
		return t.add(t.add(list, in.Out, at), in.Arg, at)
	case syntax.InstCapture:
		if k, looks := t.p.groups[in.Arg]; looks && !t.r.holds[k][at] {
			return list
		}
		return t.add(list, in.Out, at)
	case syntax.InstNop:
		return t.add(list, in.Out, at)
	case syntax.InstEmptyWidth:
		if syntax.EmptyOp(in.Arg)&^t.context != 0 { //nolint:gosec // as syntax.Prog has it
			return list
		}
		return t.add(list, in.Out, at)
	case syntax.InstMatch:
		t.matched = true
	case syntax.InstFail:
	default:
		return append(list, pc)
	}
	return list
}
