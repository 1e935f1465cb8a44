// Package bots recognises the crawlers and tools that say who they are in their
// User-Agent, by a list of regular expressions.
//
// Trying a thousand expressions one after another would cost each request
// milliseconds. Almost every one of them needs some text to be there, so three
// letters of it are looked for, all of the list's at once, and what they belong
// to is confirmed.
package bots

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"regexp/syntax"
	"strings"
)

// MaxUserAgent is how many bytes of a User-Agent are looked at. The longest
// that is known of a crawler has 285.
const MaxUserAgent = 512

// What a list may hold. One of more is refused.
const (
	maxBytes   = 16 << 20
	maxBots    = 1 << 14
	maxPattern = 1024 // bytes of one expression
	maxTests   = 1024 // expressions that are more than a few fixed texts
	maxLoose   = 8    // expressions without a text, which are tried on every request
)

// List is a list of bots. It is immutable once parsed and may be asked
// concurrently.
type List struct {
	names []string // in the order in which they win
	tests []test
	loose []int // of tests

	seen [1 << 16 / 64]uint64 // a bit for each hash of a gram in probes
	at   map[gram][]probe
}

// test is an expression that text alone cannot decide.
type test struct {
	bot  int
	expr *regexp.Regexp
}

// probe is a text to be compared where one of its grams was met.
type probe struct {
	text       string // exact, or in lower case if there is a test
	offset     int    // of the gram
	bot        int
	test       int  // the expression that decides; -1: the text does
	start, end bool // the text must be where the User-Agent starts or ends
}

// gram is three bytes in lower case.
type gram uint32

const gramLen = 3

func gramOf(a, b, c byte) gram { return gram(a)<<16 | gram(b)<<8 | gram(c) }

// hash spreads a gram over 16 bits.
func (g gram) hash() uint32 { return uint32(g) * 0x9E3779B1 >> 16 }

var lower = func() (t [256]byte) {
	for i := range t {
		t[i] = byte(i)
		if i >= 'A' && i <= 'Z' {
			t[i] += 'a' - 'A'
		}
	}
	return t
}()

// entry is one bot as the list is published.
type entry struct {
	Pattern   string   `json:"pattern"`
	DependsOn []string `json:"depends_on"`
}

// Parse reads a list in the format of crawler-user-agents: a JSON array of
// objects with a member "pattern". If several match, the first of them wins,
// and one that names others in "depends_on" goes before those. A pattern that
// is not an expression of Go refuses the whole list, because half a list is
// worse than the one before; so is an empty one.
func Parse(data []byte) (*List, error) {
	if len(data) > maxBytes {
		return nil, fmt.Errorf("more than %d bytes", maxBytes)
	}
	var entries []entry
	if err := json.Unmarshal(data, &entries); err != nil {
		return nil, fmt.Errorf("not a JSON array of bots: %w", err)
	}
	switch {
	case len(entries) == 0:
		return nil, errors.New("the list is empty")
	case len(entries) > maxBots:
		return nil, fmt.Errorf("more than %d bots", maxBots)
	}
	l := &List{at: map[gram][]probe{}}
	for _, pattern := range ranked(entries) {
		if err := l.add(pattern); err != nil {
			return nil, fmt.Errorf("pattern %.64q: %w", pattern, err)
		}
	}
	return l, nil
}

// ranked lists the patterns in the order in which they win, each once.
func ranked(entries []entry) []string {
	before := map[string][]string{} // by the pattern that is depended on
	for _, e := range entries {
		for _, other := range e.DependsOn {
			before[other] = append(before[other], e.Pattern)
		}
	}
	order := make([]string, 0, len(entries))
	placed := make(map[string]bool, len(entries))
	var put func(pattern string)
	put = func(pattern string) {
		if placed[pattern] {
			return
		}
		placed[pattern] = true // also ends a circle of dependencies
		for _, p := range before[pattern] {
			put(p)
		}
		order = append(order, pattern)
	}
	for _, e := range entries {
		put(e.Pattern)
	}
	return order
}

// add puts one pattern behind those that are there.
func (l *List) add(pattern string) error {
	if pattern == "" || len(pattern) > maxPattern {
		return fmt.Errorf("must have 1 to %d bytes", maxPattern)
	}
	tree, err := syntax.Parse(pattern, syntax.Perl)
	if err != nil {
		return err
	}
	p := probe{bot: len(l.names), test: -1}
	l.names = append(l.names, name(pattern))
	tree = tree.Simplify()

	var texts []string
	if texts, p.start, p.end = whole(tree); texts == nil {
		if len(l.tests) == maxTests {
			return fmt.Errorf("more than %d patterns are more than fixed texts", maxTests)
		}
		expr, err := regexp.Compile(pattern)
		if err != nil {
			return err
		}
		p.test = len(l.tests)
		l.tests = append(l.tests, test{p.bot, expr})
		if texts = needed(tree); texts == nil {
			if len(l.loose) == maxLoose {
				return fmt.Errorf("more than %d patterns need no text of %d letters", maxLoose, gramLen)
			}
			l.loose = append(l.loose, p.test)
			return nil
		}
	}
	for _, p.text = range texts {
		l.index(p)
	}
	return nil
}

// index files the probe under the gram of its text that has the least to do:
// one that browsers do not send, then one that few others have.
func (l *List) index(p probe) {
	var best gram
	least := -1
	for i := 0; i+gramLen <= len(p.text); i++ {
		g := gramOf(lower[p.text[i]], lower[p.text[i+1]], lower[p.text[i+2]])
		load := len(l.at[g])
		if ordinary[g] {
			load += maxBots
		}
		if least < 0 || load < least {
			best, least, p.offset = g, load, i
		}
	}
	l.at[best] = append(l.at[best], p)
	h := best.hash()
	l.seen[h/64] |= 1 << (h % 64)
}

// Len is how many bots the list knows.
func (l *List) Len() int { return len(l.names) }

// Match names the bot that a User-Agent belongs to, or nothing. It does not
// allocate, and it remembers nothing.
func (l *List) Match(agent string) string {
	if i := l.find(agent); i < len(l.names) {
		return l.names[i]
	}
	return ""
}

// find returns the first bot that matches, or one behind the last.
func (l *List) find(agent string) int {
	agent = agent[:min(len(agent), MaxUserAgent)]
	best := len(l.names)
	for _, i := range l.loose {
		if t := &l.tests[i]; t.bot < best && t.expr.MatchString(agent) {
			best = t.bot
		}
	}
	if len(agent) < gramLen {
		return best
	}
	var tried [maxTests / 64]uint64 // what is repeated in a User-Agent is tried once
	a, b := lower[agent[0]], lower[agent[1]]
	for i := gramLen - 1; i < len(agent); i++ {
		c := lower[agent[i]]
		g := gramOf(a, b, c)
		a, b = b, c
		if h := g.hash(); l.seen[h/64]&(1<<(h%64)) == 0 {
			continue
		}
		probes := l.at[g]
		for j := range probes {
			p := &probes[j]
			if p.bot >= best || !p.in(agent, i-(gramLen-1)-p.offset) {
				continue
			}
			if p.test >= 0 {
				if tried[p.test/64]&(1<<(p.test%64)) != 0 {
					continue
				}
				tried[p.test/64] |= 1 << (p.test % 64)
				if !l.tests[p.test].expr.MatchString(agent) {
					continue
				}
			}
			best = p.bot
		}
	}
	return best
}

// in reports whether the text is in agent at i.
func (p *probe) in(agent string, i int) bool {
	end := i + len(p.text)
	if i < 0 || end > len(agent) {
		return false
	}
	if p.test < 0 {
		return agent[i:end] == p.text && (!p.start || i == 0) && (!p.end || end == len(agent))
	}
	for j := range len(p.text) {
		if lower[agent[i+j]] != p.text[j] {
			return false
		}
	}
	return true
}

// name is the pattern without what makes it one: backslashes before signs,
// anchors, and the slash that stands before a version.
func name(pattern string) string {
	s := strings.TrimPrefix(pattern, "^")
	if strings.HasSuffix(s, "$") && !strings.HasSuffix(s, `\$`) {
		s = s[:len(s)-1]
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) && strings.IndexByte(`/.-+*?()[]{}|^$!@ `, s[i+1]) >= 0 {
			i++
		}
		b.WriteByte(s[i])
	}
	if s = strings.TrimRight(b.String(), "/ "); s == "" {
		return pattern
	}
	return s
}
