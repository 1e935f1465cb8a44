package bots

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// loop is the obvious way: each expression in turn, in the list's order.
type loop []*regexp.Regexp

func newLoop(t testing.TB, data []byte) loop {
	t.Helper()
	var entries []entry
	if err := json.Unmarshal(data, &entries); err != nil {
		t.Fatal(err)
	}
	var l loop
	for _, pattern := range ranked(entries) {
		l = append(l, regexp.MustCompile(pattern))
	}
	return l
}

func (l loop) find(agent string) int {
	agent = agent[:min(len(agent), MaxUserAgent)]
	for i, expr := range l {
		if expr.MatchString(agent) {
			return i
		}
	}
	return len(l)
}

func list(t testing.TB, patterns ...string) (*List, []byte) {
	t.Helper()
	entries := make([]entry, len(patterns))
	for i, p := range patterns {
		entries[i].Pattern = p
	}
	data, err := json.Marshal(entries)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	return l, data
}

func TestMatch(t *testing.T) {
	for _, c := range []struct{ name, pattern, match, other string }{
		{"a text", `Googlebot\/`, "x Googlebot/2.1|Googlebot/", "googlebot/2.1|Googlebot"},
		{"the start", `^curl`, "curl/8|curl", " curl/8|Curl"},
		{"the end", `SSL Labs$`, "by SSL Labs|SSL Labs", "SSL Labs 2|SSL Lab"},
		{"both ends", `^abc$`, "abc", "abcd|xabc|"},
		{"a letter in both cases", `[wW]get`, "Wget/1|wget", "WGET|get"},
		{"one of two texts", `(sistrix|SISTRIX) [cC]rawler`, "sistrix Crawler|SISTRIX crawler", "Sistrix crawler"},
		{"what may not follow", `AdsBot-Google([^-]|$)`, "AdsBot-Google|AdsBot-Google (+", "AdsBot-Google-Mobile"},
		{"anything between", `Current[\s\S]*RSS Reader`, "Current RSS Reader|Current\n x RSS Reader", "RSS Reader Current"},
		{"any case", `(?i)silkbot`, "SilkBot|SILKBOT|ſilkbot|sil\u212abot", "silk bot"},
		{"any case, start", `(?i)^ka`, "KA|ka|\u212aa", "aka"},
		{"repeated", `(ab){3}`, "ababab", "abab"},
		{"maybe", `Bot-?X`, "BotX|Bot-X", "Bot--X"},
		{"a word", `\bant\b`, "ant|an ant!", "plant|antler"},
		{"a version", `Feed\/\d+`, "Feed/12", "Feed/x"},
		{"lines", `(?m)^abc$`, "x\nabc\ny|abc", "xabc"},
		{"more than ASCII", `größe`, "größe", "grösse|grÖße"},
		{"the sign for what is no text", "a\uFFFDbc", "a\xffbc|a\uFFFDbc", "abc"},
		{"nothing that could be", `\x{D800}abc`, "", "\uFFFDabc"},
		{"too short to be found", `Y!`, "Y!|a Y!J", "Y?"},
		{"several expressions of one text", `x+bots`, "xxbots", "bots"},
		{"behind the limit", `lastbot`, strings.Repeat("x", MaxUserAgent-7) + "lastbot", strings.Repeat("x", MaxUserAgent-6) + "lastbot"},
	} {
		l, _ := list(t, c.pattern)
		for agent := range strings.SplitSeq(c.match, "|") {
			if got := l.Match(agent); got == "" && c.match != "" {
				t.Errorf("%s: %q does not match %q", c.name, c.pattern, agent)
			}
		}
		for agent := range strings.SplitSeq(c.other, "|") {
			if got := l.Match(agent); got != "" {
				t.Errorf("%s: %q matches %q", c.name, c.pattern, agent)
			}
		}
	}
}

func TestParse(t *testing.T) {
	many := func(n int, pattern string) string {
		var b strings.Builder
		for i := range n {
			fmt.Fprintf(&b, `,{"pattern":%q}`, fmt.Sprintf(pattern, i))
		}
		return "[" + b.String()[1:] + "]"
	}
	for _, c := range []struct{ name, list, fault string }{
		{"no JSON", "<!doctype html>", "not a JSON array of bots"},
		{"an object", `{"pattern":"x"}`, "not a JSON array of bots"},
		{"nothing", `[]`, "the list is empty"},
		{"no pattern", `[{"url":"x"}]`, `pattern "": must have 1 to 1024 bytes`},
		{"an expression of Perl", `[{"pattern":"abc"},{"pattern":"a(?!b)c"}]`, `pattern "a(?!b)c": error parsing regexp`},
		{"a long pattern", `[{"pattern":"` + strings.Repeat("x", 1025) + `"}]`, "must have 1 to 1024 bytes"},
		{"many", many(maxBots+1, "bot%d"), "more than 16384 bots"},
		{"many expressions", many(maxTests+1, `bot%d\w`), "more than 1024 patterns are more than fixed texts"},
		{"many without a text", many(maxLoose+1, `%d.`), "more than 8 patterns need no text of 3 letters"},
	} {
		if l, err := Parse([]byte(c.list)); l != nil || err == nil || !strings.Contains(err.Error(), c.fault) {
			t.Errorf("%s: %v, want %q", c.name, err, c.fault)
		}
	}
}

func TestNames(t *testing.T) {
	for pattern, want := range map[string]string{
		`Googlebot\/`: "Googlebot", `archive\.org_bot`: "archive.org_bot", `^curl`: "curl", `SSL Labs$`: "SSL Labs", `LCC `: "LCC",
		`Mediapartners \(Googlebot\)`: "Mediapartners (Googlebot)", `[wW]get`: "[wW]get", `Feed\/\d`: `Feed/\d`, `a\$`: "a$", `^\/`: `^\/`,
	} {
		if got := name(pattern); got != want {
			t.Errorf("%s is called %q, want %q", pattern, got, want)
		}
	}
}

func TestOrder(t *testing.T) {
	l, err := Parse([]byte(`[{"pattern":"heritrix"},{"pattern":"libwww"},{"pattern":"archive","depends_on":["heritrix"]},
		{"pattern":"aaa","depends_on":["bbb"]},{"pattern":"bbb","depends_on":["aaa","none"]},{"pattern":"libwww"}]`))
	if err != nil {
		t.Fatal(err)
	}
	for agent, want := range map[string]string{"heritrix archive": "archive", "libwww archive": "archive", "libwww heritrix": "heritrix", "bbb": "bbb", "": ""} {
		if got := l.Match(agent); got != want {
			t.Errorf("%q is %q, want %q", agent, got, want)
		}
	}
	if l.Len() != 5 {
		t.Errorf("%d bots", l.Len())
	}
}

// specimen is the list as crawler-user-agents publishes it.
func specimen(t testing.TB) []byte {
	t.Helper()
	suites := os.Getenv("GATEHOUSE_SUITES")
	if suites == "" {
		if os.Getenv("GATEHOUSE_SUITES_REQUIRED") != "" {
			t.Fatal("GATEHOUSE_SUITES is not set")
		}
		t.Skip("GATEHOUSE_SUITES names no folder with third-party suites")
	}
	data, err := os.ReadFile(filepath.Join(suites, "ua", "crawler-user-agents.json"))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestSpecimen recognises every User-Agent that the published list has for a
// pattern, and compares the index to the loop on them and on what is near them.
func TestSpecimen(t *testing.T) {
	data := specimen(t)
	l, err := Parse(data)
	if err != nil {
		t.Fatal(err)
	}
	slow := newLoop(t, data)
	var entries []struct {
		Pattern   string
		Instances []string
	}
	if err := json.Unmarshal(data, &entries); err != nil {
		t.Fatal(err)
	}
	var agents []string
	others := 0
	for _, e := range entries {
		for _, agent := range e.Instances {
			agents = append(agents, agent)
			got := l.Match(agent)
			switch {
			case got == "":
				t.Errorf("%q is not recognised as %q", agent, e.Pattern)
			case got != name(e.Pattern):
				others++ // it matches two patterns, and the other stands before
				if i := l.find(agent); !slow[i].MatchString(agent) || !regexp.MustCompile(e.Pattern).MatchString(agent) {
					t.Errorf("%q is recognised as %q, want %q", agent, got, e.Pattern)
				}
			}
		}
	}
	if len(entries) != 1498 || l.Len() != 1498 || len(agents) != 2116 || others != 16 {
		t.Errorf("%d patterns, %d of them known, %d instances, %d of them called by another pattern's name", len(entries), l.Len(), len(agents), others)
	}
	longest := 0
	for _, probes := range l.at {
		longest = max(longest, len(probes))
	}
	t.Logf("%d expressions, %d tried always, %d grams with at most %d texts", len(l.tests), len(l.loose), len(l.at), longest)

	rng := rand.New(rand.NewPCG(1, 2))
	step := 1
	if underRace {
		step = 40 // the loop takes a hundred times as long
	}
	for i := 0; i < len(agents); i += step {
		same := agents[i]
		for _, agent := range []string{same, mutate(rng, same, agents[rng.IntN(len(agents))]), mutate(rng, same, agents[rng.IntN(len(agents))])} {
			if got, want := l.find(agent), slow.find(agent); got != want {
				t.Fatalf("%q: index %d, loop %d", agent, got, want)
			}
		}
	}
}

// mutate changes a User-Agent a little, or mixes it with another.
func mutate(rng *rand.Rand, a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	i, j := rng.IntN(len(a)), rng.IntN(len(b))
	switch rng.IntN(7) {
	case 0:
		return a[:i] + a[i+1:]
	case 1:
		return a[:i] + string(rune(' '+rng.IntN(95))) + a[i:]
	case 2:
		return strings.ToLower(a)
	case 3:
		return strings.ToUpper(a)
	case 4:
		return a[:i] + b[j:]
	case 5:
		return b[j:] + a[i:]
	}
	return a + " " + b + strings.Repeat(a, 2)
}

// FuzzMatch: the index finds what the loop finds, whatever the expression.
func FuzzMatch(f *testing.F) {
	for _, p := range []string{`Googlebot\/`, `^curl`, `[wW]get`, `(?i)sk[ik]`, `a|bcd|(e+f){2}x$`, `\bx?yz`, `AdsBot-Google([^-]|$)`, `(?m)^abc$`, "\uFFFDabc", `(?i)straße`} {
		f.Add(p, "Mozilla/5.0 (compatible; Googlebot/2.1) curl WGET sKi efefx abc \xff\uFFFDabc STRAẞE")
	}
	f.Fuzz(func(t *testing.T, pattern, agent string) {
		data, err := json.Marshal([]entry{{Pattern: "Feedfetcher"}, {Pattern: pattern}, {Pattern: "Mozilla"}, {Pattern: "[cC]url"}})
		if err != nil {
			t.Fatal(err)
		}
		l, err := Parse(data)
		if (l == nil) == (err == nil) {
			t.Fatal("neither a list nor an error")
		}
		if err != nil {
			return
		}
		if got, want := l.find(agent), newLoop(t, data).find(agent); got != want {
			t.Fatalf("%q in %q: index %d, loop %d", pattern, agent, got, want)
		}
	})
}

var browsers = []string{
	"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36 Edg/126.0.2592.87",
	"Mozilla/5.0 (iPhone; CPU iPhone OS 17_5_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.5 Mobile/15E148 Safari/604.1",
	"Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:127.0) Gecko/20100101 Firefox/127.0",
}

func TestBrowsers(t *testing.T) {
	l, err := Parse(specimen(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, agent := range browsers {
		if got := l.Match(agent); got != "" {
			t.Errorf("%q is taken for %q", agent, got)
		}
		if n := testing.AllocsPerRun(100, func() { l.Match(agent) }); n > 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	l, err := Parse(specimen(b))
	if err != nil {
		b.Fatal(err)
	}
	// The worst is what has the texts of all expressions that then do not
	// match, as often as fits; only a caller who knows the list sends it.
	var worst strings.Builder
	for _, probes := range l.at {
		for _, p := range probes {
			if p.test >= 0 && !l.tests[p.test].expr.MatchString(worst.String()+p.text) && worst.Len()+len(p.text) < MaxUserAgent {
				worst.WriteString(p.text)
			}
		}
	}
	for worst.Len() < MaxUserAgent {
		worst.WriteString(" bots")
	}
	for _, c := range []struct{ name, agent string }{
		{"browser", browsers[0]},
		{"phone", browsers[1]},
		{"bot", "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"},
		{"worst", worst.String()},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				l.Match(c.agent)
			}
		})
	}
	b.Run("loop/browser", func(b *testing.B) {
		slow := newLoop(b, specimen(b))
		for b.Loop() {
			slow.find(browsers[0])
		}
	})
}
