package parse

import (
	"strings"

	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
)

// Implied is a directive that a block asks for without naming it.
func Implied(dir string, at caddyfile.Token) caddyfile.Segment {
	return caddyfile.Segment{{File: at.File, Line: at.Line, Text: dir}}
}

// Block puts the segments of a block that begins at start back between braces. A
// token that is not on its own line would be read as an argument of the one before
// it, so implied segments get a line of their own behind the last.
func Block(start caddyfile.Token, segments []caddyfile.Segment) *caddyfile.Dispenser {
	tokens := []caddyfile.Token{
		{File: start.File, Line: start.Line, Text: start.Text},
		{File: start.File, Line: start.Line, Text: "{"},
	}
	last := start.Line
	for _, s := range segments {
		for _, t := range s {
			last = max(last, t.Line+strings.Count(t.Text, "\n"))
		}
	}
	for _, s := range segments {
		if len(s) == 1 && s[0].Line == start.Line && s[0].File == start.File {
			last++
			s = caddyfile.Segment{{File: start.File, Line: last, Text: s[0].Text}}
		}
		tokens = append(tokens, s...)
	}
	tokens = append(tokens, caddyfile.Token{File: start.File, Line: last + 1, Text: "}"})
	return caddyfile.NewDispenser(tokens)
}

// Directive answers an error of Caddy about a directive that it does not know,
// which has no line, with the line of that directive among the segments of a
// block, and the words that are known there. Other errors stay as they are.
func Directive(err error, segments []caddyfile.Segment, what string, known ...string) error {
	_, rest, found := strings.Cut(err.Error(), "unrecognized directive: ")
	if !found {
		return err
	}
	word, _, _ := strings.Cut(rest, " ")
	for _, s := range segments {
		if s.Directive() == word {
			d := caddyfile.NewDispenser(s)
			d.Next()
			return Unknown(d, what, word, known...)
		}
	}
	return err
}
