package bots

import (
	"regexp/syntax"
	"unicode"
	"unicode/utf8"
)

const (
	maxWhole  = 16 // texts that may stand for a whole expression
	maxNeeded = 64 // texts of which an expression needs one
	maxText   = 256
)

// whole returns the texts that an expression matches, if these are few and
// long enough to be found, and whether they must start or end what is searched.
func whole(re *syntax.Regexp) (texts []string, start, end bool) {
	subs := []*syntax.Regexp{re}
	if re.Op == syntax.OpConcat {
		subs = re.Sub
	}
	if len(subs) > 1 && subs[0].Op == syntax.OpBeginText {
		start, subs = true, subs[1:]
	}
	if n := len(subs) - 1; n > 0 && subs[n].Op == syntax.OpEndText {
		end, subs = true, subs[:n]
	}
	texts = []string{""}
	for _, sub := range subs {
		more, ok := spellings(sub, true)
		if !ok || !product(&texts, more, maxWhole) {
			return nil, false, false
		}
	}
	if shortest(texts) < gramLen {
		return nil, false, false
	}
	return texts, start, end
}

// needed returns texts in lower case of which every match has one, or nil if
// there are none that are few and long enough to be found.
func needed(re *syntax.Regexp) (best []string) {
	offer := func(texts []string) {
		have, n := shortest(best), shortest(texts)
		if n >= gramLen && (n > have || n == have && len(texts) < len(best)) {
			best = texts
		}
	}
	if texts, ok := spellings(re, false); ok {
		offer(texts)
		return best
	}
	switch re.Op {
	case syntax.OpLiteral:
		run := ""
		for _, r := range re.Rune {
			c, ok := runes(r, re.Flags&syntax.FoldCase != 0, false)
			if !ok {
				offer([]string{run})
				run = ""
				continue
			}
			run += c[0]
		}
		offer([]string{run})
	case syntax.OpCapture, syntax.OpPlus:
		return needed(re.Sub[0])
	case syntax.OpConcat:
		run := []string{""} // neighbours make one text
		for _, sub := range re.Sub {
			if more, ok := spellings(sub, false); ok && product(&run, more, maxNeeded) {
				continue
			}
			offer(run)
			offer(needed(sub))
			run = []string{""}
		}
		offer(run)
	case syntax.OpAlternate:
		var all []string
		for _, sub := range re.Sub {
			one := needed(sub)
			if one == nil || len(all)+len(one) > maxNeeded {
				return nil
			}
			all = append(all, one...)
		}
		offer(all)
	default: // what may be nothing, or anything
	}
	return best
}

// spellings returns all that an expression can match, if that is little: exactly,
// or else in lower case and as if no condition stood between the letters.
func spellings(re *syntax.Regexp, exact bool) ([]string, bool) {
	limit := maxNeeded
	if exact {
		limit = maxWhole
	}
	switch re.Op {
	case syntax.OpEmptyMatch:
		return []string{""}, true
	case syntax.OpBeginLine, syntax.OpEndLine, syntax.OpBeginText, syntax.OpEndText, syntax.OpWordBoundary, syntax.OpNoWordBoundary:
		return []string{""}, !exact
	case syntax.OpLiteral:
		texts := []string{""}
		for _, r := range re.Rune {
			more, ok := runes(r, re.Flags&syntax.FoldCase != 0, exact)
			if !ok || !product(&texts, more, limit) {
				return nil, false
			}
		}
		return texts, true
	case syntax.OpCharClass:
		var texts []string
		for i := 0; i+1 < len(re.Rune); i += 2 {
			for r := re.Rune[i]; r <= re.Rune[i+1]; r++ {
				more, ok := runes(r, false, exact)
				if texts = append(texts, more...); !ok || len(texts) > limit {
					return nil, false
				}
			}
		}
		return texts, len(texts) > 0
	case syntax.OpCapture:
		return spellings(re.Sub[0], exact)
	case syntax.OpQuest:
		texts, ok := spellings(re.Sub[0], exact)
		return append(texts, ""), ok
	case syntax.OpConcat:
		texts := []string{""}
		for _, sub := range re.Sub {
			more, ok := spellings(sub, exact)
			if !ok || !product(&texts, more, limit) {
				return nil, false
			}
		}
		return texts, true
	case syntax.OpAlternate:
		var texts []string
		for _, sub := range re.Sub {
			more, ok := spellings(sub, exact)
			if texts = append(texts, more...); !ok || len(texts) > limit {
				return nil, false
			}
		}
		return texts, true
	default: // too many
		return nil, false
	}
}

// runes returns how r may be written. In lower case, that is known of ASCII
// only: K has a third form outside of it, the sign for Kelvin.
func runes(r rune, fold, exact bool) ([]string, bool) {
	if r == utf8.RuneError || !utf8.ValidRune(r) {
		return nil, false // the one also matches bytes that are no text, the other nothing
	}
	texts := []string{string(r)}
	for f := unicode.SimpleFold(r); fold && f != r; f = unicode.SimpleFold(f) {
		texts = append(texts, string(f))
	}
	if exact {
		return texts, true
	}
	for _, s := range texts {
		if s[0] >= 0x80 {
			return nil, false
		}
	}
	return []string{string(lower[texts[0][0]])}, true
}

// product puts each of more behind each of texts, unless that makes too many.
func product(texts *[]string, more []string, limit int) bool {
	if len(*texts)*len(more) > limit {
		return false
	}
	next := make([]string, 0, len(*texts)*len(more))
	for _, a := range *texts {
		for _, b := range more {
			if len(a)+len(b) > maxText {
				return false
			}
			next = append(next, a+b)
		}
	}
	*texts = next
	return true
}

// shortest is the length of the shortest of texts; 0 if there is none.
func shortest(texts []string) int {
	if len(texts) == 0 {
		return 0
	}
	n := len(texts[0])
	for _, s := range texts {
		n = min(n, len(s))
	}
	return n
}

// ordinary has the grams that browsers send, and most bots too.
var ordinary = func() map[gram]bool {
	m := map[gram]bool{}
	for _, s := range []string{
		"Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36 Edg/120.0.0.0 OPR/100.0.0.0",
		"Mozilla/5.0 (X11; Ubuntu; Linux x86_64; rv:120.0) Gecko/20100101 Firefox/120.0",
		"Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 Mobile/15E148 Safari/604.1",
		"Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (iPad; CPU OS 17_0 like Mac OS X) CriOS/120.0.0.0 FxiOS/120.0",
		"Mozilla/5.0 (Linux; Android 10; K) SamsungBrowser/20.0 Chrome/120.0.0.0 Mobile Safari/537.36",
		"Mozilla/5.0 (compatible; bot/1.0; +http://www.example.com/bot.html) https://www.",
	} {
		for i := 0; i+gramLen <= len(s); i++ {
			m[gramOf(lower[s[i]], lower[s[i+1]], lower[s[i+2]])] = true
		}
	}
	return m
}()
