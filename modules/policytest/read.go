package policytest

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
)

// reader reads YAML strictly: every word must be known, and what is wrong is
// told with its line. It goes on after an error, so that all are told at once.
type reader struct {
	file string
	errs []error
}

// field is one word that an object may have.
type field struct {
	name string
	read func(*yaml.Node)
}

// maxErrors are told of one file.
const maxErrors = 20

func (r *reader) fail(line int, format string, args ...any) {
	switch n := len(r.errs); {
	case n < maxErrors:
		r.errs = append(r.errs, fmt.Errorf("%s:%d: %w", r.file, line, fmt.Errorf(format, args...)))
	case n == maxErrors:
		r.errs = append(r.errs, fmt.Errorf("%s: there is more wrong", r.file))
	}
}

func (r *reader) err() error { return errors.Join(r.errs...) }

// object reads a mapping. It reports false when the node is none.
func (r *reader) object(n *yaml.Node, what string, fields ...field) bool {
	n = resolved(n)
	if n.Kind != yaml.MappingNode {
		r.fail(n.Line, "%s must be an object", what)
		return false
	}
	seen := make(map[string]bool, len(fields))
members:
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], resolved(n.Content[i+1])
		if seen[key.Value] {
			r.fail(key.Line, "%q stands twice in this %s", key.Value, what)
			continue
		}
		seen[key.Value] = true
		known := make([]string, len(fields))
		for j, f := range fields {
			if known[j] = f.name; f.name == key.Value {
				f.read(value)
				continue members
			}
		}
		r.fail(key.Line, "%s", parse.Misspelt(what+" option", key.Value, known...))
	}
	return true
}

// resolved follows an alias.
func resolved(n *yaml.Node) *yaml.Node {
	for n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	return n
}

func (r *reader) list(n *yaml.Node, what string, read func(*yaml.Node)) {
	if n.Kind != yaml.SequenceNode {
		r.fail(n.Line, "%s must be a list", what)
		return
	}
	for _, item := range n.Content {
		read(resolved(item))
	}
}

func (r *reader) text(n *yaml.Node, what string, to *string) {
	if n.Kind != yaml.ScalarNode || n.Tag == "!!null" {
		r.fail(n.Line, "%s must be a text", what)
		return
	}
	*to = n.Value
}

// words reads a list, or one text of words.
func (r *reader) words(n *yaml.Node, what string, to *[]string) {
	if n.Kind == yaml.ScalarNode && n.Tag != "!!null" {
		*to = strings.Fields(n.Value)
		return
	}
	*to = []string{}
	r.list(n, what, func(item *yaml.Node) {
		var word string
		r.text(item, what, &word)
		*to = append(*to, word)
	})
}

func (r *reader) number(n *yaml.Node, what string, least, most int, to *int) {
	if err := n.Decode(to); err != nil || n.Tag != "!!int" || *to < least || *to > most {
		r.fail(n.Line, "%s %q is not a whole number from %d to %d", what, n.Value, least, most)
	}
}

func (r *reader) flag(n *yaml.Node, what string, to *bool) {
	if err := n.Decode(to); err != nil || n.Tag != "!!bool" {
		r.fail(n.Line, "%s %q is neither true nor false", what, n.Value)
	}
}

func (r *reader) duration(n *yaml.Node, what string, to *time.Duration) {
	d, err := caddy.ParseDuration(n.Value)
	if err != nil {
		r.fail(n.Line, "%s %q is not a duration; write for example 30s, 5m or 1d", what, n.Value)
	}
	*to = d
}

func (r *reader) time(n *yaml.Node, what string, to *time.Time) {
	t, err := time.Parse(time.RFC3339, n.Value)
	if err != nil {
		r.fail(n.Line, "%s %q is not a time; write for example 2026-01-01T10:00:00Z", what, n.Value)
	}
	*to = t
}

// value reads anything, as JSON would have it.
func (r *reader) value(n *yaml.Node, what string, to *any) {
	if err := n.Decode(to); err != nil {
		r.fail(n.Line, "%s cannot be read: %v", what, err)
		return
	}
	plain, err := plainJSON(*to)
	if err != nil {
		r.fail(n.Line, "%s is not JSON: %v", what, err)
	}
	*to = plain
}

// headers reads field names with one value or several.
func (r *reader) headers(n *yaml.Node, what string, to *[]headerField) {
	if n.Kind != yaml.MappingNode {
		r.fail(n.Line, "%s must be an object of header fields", what)
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		h := headerField{name: n.Content[i].Value, line: n.Content[i].Line}
		if value := resolved(n.Content[i+1]); value.Kind == yaml.SequenceNode {
			r.list(value, h.name, func(item *yaml.Node) {
				var v string
				r.text(item, h.name, &v)
				h.values = append(h.values, v)
			})
		} else {
			var v string
			r.text(value, h.name, &v)
			h.values = []string{v}
		}
		*to = append(*to, h)
	}
}

type headerField struct {
	name   string
	values []string
	line   int
}
