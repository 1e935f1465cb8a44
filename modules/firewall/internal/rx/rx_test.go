package rx

import (
	"io/fs"
	"math/rand/v2"
	"regexp"
	"regexp/syntax"
	"strings"
	"testing"
	"unicode"

	"github.com/corazawaf/coraza-coreruleset/v4"
)

func TestMay(t *testing.T) {
	for _, c := range []struct {
		expr    string
		may, no []string
	}{
		{`union\s+select`, []string{"union select", "SELECT unions"}, []string{"", "union", "12345678901234", "select"}},
		{`(?i)union`, []string{"UNION", "onuin"}, []string{"unio"}},
		{`sleep\(`, []string{"a(pels"}, []string{"sleeping"}},
		{`(?:abc|x)y?`, []string{"cab", "x"}, []string{"ab", "y", ""}},
		{`[;|&]\s*cat`, []string{";cat", "ta|c"}, []string{"cat", "; ca"}},
		{`a{2,}`, []string{"aa", "ax"}, []string{"a", "xx"}},
		{`a*`, []string{"", "x"}, nil},
		{`.`, []string{"x"}, []string{""}},
		{`^$`, []string{"", "x"}, nil},
		{`[^a]`, []string{"a", "b"}, []string{""}},
		{`é`, []string{"é", "ü"}, []string{"ee"}},
		{`(?i)k`, []string{"\u212a", "K"}, []string{"x"}},
		{`(?i)\x{17F}`, []string{"s", "ſ"}, []string{"x"}},
		{`[\x{100}-\x{200}]`, []string{"Ā"}, []string{"a"}},
	} {
		p, err := Compile(c.expr)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range c.may {
			if !p.may(s) {
				t.Errorf("%s: %q may not", c.expr, s)
			}
		}
		for _, s := range c.no {
			if p.may(s) {
				t.Errorf("%s: %q may", c.expr, s)
			}
		}
	}
	if _, err := Compile("("); err == nil {
		t.Error("( is compiled")
	}
}

// expressions are those of the Core Rule Set that Go compiles.
func expressions(tb testing.TB) (all []string) {
	tb.Helper()
	names, err := fs.Glob(coreruleset.FS, "@owasp_crs/REQUEST-*.conf")
	if err != nil {
		tb.Fatal(err)
	}
	rule := regexp.MustCompile(`(?m)^[^#\n]*"!?@rx (.*)" *\\?$`)
	for _, name := range names {
		data, err := fs.ReadFile(coreruleset.FS, name)
		if err != nil {
			tb.Fatal(err)
		}
		for _, m := range rule.FindAllStringSubmatch(string(data), -1) {
			if _, err := regexp.Compile("(?sm)" + m[1]); err == nil {
				all = append(all, "(?sm)"+m[1])
			}
		}
	}
	if len(all) < 200 {
		tb.Fatal(len(all))
	}
	return all
}

// TestNothingIsMissed makes texts out of each expression of the Core Rule Set, and
// holds that none that it matches is turned away.
func TestNothingIsMissed(t *testing.T) {
	matched := 0
	for _, expr := range expressions(t) {
		p, err := Compile(expr)
		if err != nil {
			t.Fatal(err)
		}
		tree, err := syntax.Parse(expr, syntax.Perl)
		if err != nil {
			t.Fatal(err)
		}
		rnd := rand.New(rand.NewPCG(1, uint64(len(expr))))
		for range 100 {
			var b strings.Builder
			example(&b, tree, rnd)
			text := b.String()
			for _, s := range []string{text, " " + text, "x" + text + "\n"} {
				if want := p.re.MatchString(s); want != p.MatchString(s) {
					t.Fatalf("%.80s matches %q, and is not asked", expr, s)
				} else if want {
					matched++
				}
			}
		}
	}
	if matched < 10_000 {
		t.Errorf("only %d texts matched", matched)
	}
}

// example writes a text that the expression matches, but for what it says of places.
func example(b *strings.Builder, re *syntax.Regexp, rnd *rand.Rand) {
	times := func(least, most int) {
		if most < 0 || most > least+3 {
			most = least + 3
		}
		for range least + rnd.IntN(most-least+1) {
			example(b, re.Sub[0], rnd)
		}
	}
	switch re.Op { //nolint:exhaustive // the others are no text
	case syntax.OpLiteral:
		for _, r := range re.Rune {
			if re.Flags&syntax.FoldCase != 0 {
				for range rnd.IntN(3) {
					r = unicode.SimpleFold(r)
				}
			}
			b.WriteRune(r)
		}
	case syntax.OpCharClass:
		i := 2 * rnd.IntN(len(re.Rune)/2)
		b.WriteRune(re.Rune[i] + rnd.Int32N(min(re.Rune[i+1]-re.Rune[i], 200)+1))
	case syntax.OpAnyChar, syntax.OpAnyCharNotNL:
		b.WriteByte(byte(' ' + rnd.IntN(95)))
	case syntax.OpCapture:
		example(b, re.Sub[0], rnd)
	case syntax.OpStar:
		times(0, -1)
	case syntax.OpPlus:
		times(1, -1)
	case syntax.OpQuest:
		times(0, 1)
	case syntax.OpRepeat:
		times(re.Min, re.Max)
	case syntax.OpConcat:
		for _, sub := range re.Sub {
			example(b, sub, rnd)
		}
	case syntax.OpAlternate:
		example(b, re.Sub[rnd.IntN(len(re.Sub))], rnd)
	}
}

// FuzzMatch holds that the answer is the expression's own.
func FuzzMatch(f *testing.F) {
	for _, s := range []string{`(?i)union\s+select`, `^(?:a|bc)*[^x-z]{2,3}$`, `[;|&]\s*cat\b`, `(?i)[k-s]{2}\x{212a}`, `(a|b|)+c?`, `(?:ab|a)(?:b|bc)`} {
		f.Add(s, "UNION select", "aKſ")
	}
	f.Fuzz(func(t *testing.T, expr, a, b string) {
		if len(expr) > 200 {
			return
		}
		p, err := Compile(expr)
		if err != nil {
			return
		}
		for _, text := range []string{a, b, a + b, strings.ToUpper(a)} {
			if got, want := p.MatchString(text), p.re.MatchString(text); got != want {
				t.Fatalf("%q on %q: %v, the expression says %v", expr, text, got, want)
			}
			if got, want := p.FindStringSubmatchIndex(text), p.re.FindStringSubmatchIndex(text); (got == nil) != (want == nil) || len(got) != len(want) {
				t.Fatalf("%q on %q: %v, the expression finds %v", expr, text, got, want)
			}
		}
	})
}

// BenchmarkMatch asks all expressions of the Core Rule Set about values that APIs
// are sent.
func BenchmarkMatch(b *testing.B) {
	var all []*Pattern
	for _, expr := range expressions(b) {
		p, err := Compile(expr)
		if err != nil {
			b.Fatal(err)
		}
		all = append(all, p)
	}
	for _, text := range []string{"ord_000000000001", "2026-11-24T10:21:47Z", "Office chair", "please leave the parcel at the reception desk, thank you"} {
		b.Run(text, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				for _, p := range all {
					p.MatchString(text)
				}
			}
		})
		b.Run(text+" alone", func(b *testing.B) {
			for b.Loop() {
				for _, p := range all {
					p.re.MatchString(text)
				}
			}
		})
	}
}
