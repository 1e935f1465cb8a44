package pattern

import (
	"regexp"
	"strings"
	"testing"
)

func TestMatch(t *testing.T) {
	for _, c := range []struct {
		pattern  string
		yes, not []string
	}{
		{`^(?!aws:)[a-z:]+$`, []string{"a", "awsx:", "xaws:"}, []string{"aws:", "aws:b", "", "A"}},
		{`^(?=.*[a-z])(?=.*[A-Z])(?=.*\d).{3,}$`, []string{"aB1", "1Ba__"}, []string{"aB", "aBc", "ab1", "AB1"}},
		{`^[a-z0-9](?:[a-z0-9]|-(?!-)){1,5}[a-z0-9]$`, []string{"abc", "a-b-c"}, []string{"a--b", "ab", "-abc"}},
		{`^[a-z.]*(?<!\.)$`, []string{"", "a.b"}, []string{"a.", "."}},
		{`^((?!-)[a-z-]{1,3}(?<!-)\.)+[a-z]{2}$`, []string{"a.de", "a-b.c.de"}, []string{"-a.de", "a-.de", "abcd.de"}},
		{`(?!^[0-9]+$)^\w+$`, []string{"a1", "1a"}, []string{"12", ""}},
		{`(?<=\bfoo)bar`, []string{"foobar"}, []string{"xfoobar", "bar"}},
		{`^(?!.*(?<!a)b)`, []string{"ab", "abab", "a"}, []string{"b", "abb"}},
		{`^(\.(?!$)|x$)+`, []string{"x", "..x"}, []string{"."}},
		{`^(?!\s*$).+`, []string{" a"}, []string{"  ", ""}},
		{`^(?:(?=a)|(?=b))..$`, []string{"ax", "bx"}, []string{"cx"}},
		{`^(?!a)*b$`, []string{"b"}, []string{"ab"}},
		{`^.{2,2048}$`, []string{"ab", strings.Repeat("é", 2048)}, []string{"a", strings.Repeat("a", 2049), "a\nb"}},
		{`^x.{0,1023}$`, []string{"x", "x" + strings.Repeat("a", 1023)}, []string{"x" + strings.Repeat("a", 1024)}},
		{`^(?:ab){1001}$`, []string{strings.Repeat("ab", 1001)}, []string{strings.Repeat("ab", 1000), strings.Repeat("ab", 1002)}},
		{`^a{1001,}$`, []string{strings.Repeat("a", 1001), strings.Repeat("a", 5000)}, []string{strings.Repeat("a", 1000)}},
		{`^.{1,2097152}`, []string{"a"}, []string{"", "\n"}},
		{`^[\p\{L\}]\p$`, []string{"Lp", "{p"}, []string{"ap", "LL"}},
		{`^a{2,3}$`, []string{"aa"}, []string{"a", "aaaa"}},
		{`^\p{Alpha}[\p{Alnum}_]*\Z`, []string{"a1_"}, []string{"1", "a-"}},
		{`^\P{Alpha}$`, []string{"1"}, []string{"a"}},
		{`^\p{Script=Greek}\p{Letter}$`, []string{"αb"}, []string{"ab"}},
		{`^[\u00e9\cA\b]\u{1F600}$`, []string{"é😀", "\x01😀", "\b😀"}, []string{"e😀"}},
		{`^(?<year>\d{4})$`, []string{"2026"}, []string{"26"}},
		{`^[)(?!]$`, []string{")", "!"}, []string{"a"}},
		{`^\(\?!$`, []string{"(?!"}, []string{""}},
		{`^(?i)(?!ab)[a-z]+$`, []string{"BA"}, []string{"A1", "AB", "aBc"}},
	} {
		if !Valid(c.pattern) {
			t.Errorf("%s is none", c.pattern)
		}
		p, err := Compile(c.pattern)
		if err != nil {
			t.Errorf("%s: %v", c.pattern, err)
			continue
		}
		for _, s := range c.yes {
			if !p.MatchString(s) {
				t.Errorf("%s does not match %.40q", c.pattern, s)
			}
		}
		for _, s := range c.not {
			if p.MatchString(s) {
				t.Errorf("%s matches %.40q", c.pattern, s)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	for text, want := range map[string]string{
		`(.)\1`:                   `\1 refers back to a group`,
		`(?<a>.)\k<a>`:            `\k refers back to a group`,
		`^a(?i)(?!b)`:             "put them at its start",
		`(?=a`:                    "not closed",
		`[a`:                      "not closed",
		`a)(?=b)`:                 "unexpected )",
		`xy{1,99999}z`:            "use maxLength",
		`(?=(?:a{500}){50})`:      "invalid repeat count",
		strings.Repeat("(?=", 60): "too deep",
	} {
		if _, err := Compile(text); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40s: %v, want %q", text, err, want)
		}
	}
}

// TestValid: what strangers send is read and forgotten, however much memory it
// would take to match by it.
func TestValid(t *testing.T) {
	for text, want := range map[string]bool{"": true, "a": true, "[a": false, "(?=a": false, "(?=[a)": false, `(.)\1`: false, "(?=a)b": true, strings.Repeat("a", 4097): false} {
		if Valid(text) != want {
			t.Errorf("%.20q: %v", text, !want)
		}
	}
	heavy := strings.Repeat("([b-z1]{1,1000})", 250)
	kept := len(known)
	if n := testing.Benchmark(func(b *testing.B) {
		for b.Loop() {
			Valid(heavy)
		}
	}).AllocedBytesPerOp(); n > 1<<20 || len(known) != kept {
		t.Errorf("%d bytes for a look at a pattern of %d, and %d are kept", n, len(heavy), len(known)-kept)
	}
}

// TestLinear is what stands between a client and a busy core.
func TestLinear(t *testing.T) {
	p, err := Compile(`^(?=(a+)+$)(?!.*(b+)+c)(a|aa)+$`)
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Repeat("a", 50_000)
	if !p.MatchString(text) || p.MatchString(text+"b") {
		t.Error("wrong answer")
	}
	defer func() {
		if recover() != ErrTooMuchWork { //nolint:errorlint // it is the value
			t.Error("a match without end was made")
		}
	}()
	p.look.within(text, 100_000)
}

// FuzzPlain holds that what both engines can match, both match alike.
func FuzzPlain(f *testing.F) {
	f.Add(`^(a|b)*c\b`, "abc")
	f.Add(`[^x-z]{2,3}$`, "xaa")
	f.Add(`\p{L}+|^$`, "")
	f.Fuzz(func(t *testing.T, text, s string) {
		if len(text) > 100 || len(s) > 200 {
			return
		}
		p, err := Compile(text)
		if err != nil {
			return
		}
		if !Valid(text) {
			t.Fatalf("%q compiles, and is said to be no pattern", text)
		}
		plain, ok := p.Plain()
		if !ok || strings.Contains(text, "(?") {
			return
		}
		want := regexp.MustCompile(plain).MatchString(s)
		for _, around := range []string{"(?=)(?:" + text + ")", "(?=.*)(?:" + text + ")(?<!\\x{10FFFF}.)"} {
			look, err := Compile(around)
			if err != nil {
				t.Fatalf("%q compiles and %q does not: %v", text, around, err)
			}
			if strings.ToValidUTF8(s, "") != s || strings.ContainsRune(s, 0x10FFFF) {
				return
			}
			if got := look.MatchString(s); got != want {
				t.Errorf("%q on %q: %v, Go says %v", around, s, got, want)
			}
		}
		ahead, err := Compile("^(?=[^\\x{10FFFF}]*?(?:" + text + "))")
		if err == nil && !strings.ContainsAny(text, "^$\\|") {
			if got := ahead.MatchString(s); got != want {
				t.Errorf("looking ahead for %q in %q: %v, Go says %v", text, s, got, want)
			}
		}
	})
}
