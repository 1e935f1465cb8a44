// Package route finds the operation of a request among any number of path
// templates. Segments form a tree, so that a look-up costs by the length of
// the path and not by the number of templates.
package route

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Router maps methods and path templates to values. Add everything, then look
// up concurrently.
type Router[V any] struct{ root node[V] }

type node[V any] struct {
	literals map[string]*node[V]
	folded   map[string][]literal[V] // the literals, as some servers know them
	params   []*param[V]             // those with more literal text first
	mixed    []*param[V]             // of them, those with literal text at all
	leaf     *leaf[V]
}

// literal is a segment without parameters.
type literal[V any] struct {
	text string
	next *node[V]
}

// param is a segment with one or more parameters, e.g. {id} or {name}.json.
type param[V any] struct {
	parts []part
	next  *node[V]
	text  string // the segment with names taken out, to tell shapes apart

	// The parts of one with literal text, as some servers know them: as fold gives
	// a segment, and without a format unless nothing would be left.
	folded, bare []part
}

// part is literal text, or a parameter when name is set.
type part struct{ text, name string }

// leaf is where templates of one shape end. Their methods differ; the names of
// their parameters may, as in large public contracts they do.
type leaf[V any] struct {
	methods map[string]target[V]
	allow   string
}

type target[V any] struct {
	value    V
	template string
	names    []string // of its parameters, in order
}

// Match is one parameter of a request, decoded.
type Match struct{ Name, Value string }

// Add puts a value under a method and a template such as /orders/{id}.
func (r *Router[V]) Add(method, template string, v V) error {
	if !strings.HasPrefix(template, "/") {
		return fmt.Errorf("path %q does not begin with a slash", template)
	}
	at := &r.root
	for seg := range strings.SplitSeq(template[1:], "/") {
		next, err := at.child(seg)
		if err != nil {
			return fmt.Errorf("path %q: %w", template, err)
		}
		at = next
	}
	if at.leaf == nil {
		at.leaf = &leaf[V]{methods: make(map[string]target[V])}
	}
	switch other, taken := at.leaf.methods[method]; {
	case taken && other.template != template:
		return fmt.Errorf("paths %q and %q cannot be told apart for %s; OpenAPI allows only one of them", other.template, template, method)
	case taken:
		return fmt.Errorf("%s %s stands twice", method, template)
	}
	at.leaf.methods[method] = target[V]{v, template, paramNames(template)}
	var allow []string
	for m := range at.leaf.methods {
		allow = append(allow, m)
		if m == "GET" && !slices.Contains(allow, "HEAD") {
			if _, own := at.leaf.methods["HEAD"]; !own {
				allow = append(allow, "HEAD")
			}
		}
	}
	slices.Sort(allow)
	at.leaf.allow = strings.Join(allow, ", ")
	return nil
}

func paramNames(template string) (names []string) {
	for rest := template; ; {
		_, after, open := strings.Cut(rest, "{")
		name, more, end := strings.Cut(after, "}")
		if !open || !end {
			return names
		}
		names, rest = append(names, name), more
	}
}

func (n *node[V]) child(seg string) (*node[V], error) {
	if !strings.ContainsAny(seg, "{}") {
		plain, err := url.PathUnescape(seg)
		if err != nil {
			plain = seg // written as it is meant
		}
		if n.literals == nil {
			n.literals, n.folded = make(map[string]*node[V]), make(map[string][]literal[V])
		}
		if n.literals[plain] == nil {
			n.literals[plain] = new(node[V])
			_, bare := fold(plain)
			n.folded[bare] = append(n.folded[bare], literal[V]{plain, n.literals[plain]})
		}
		return n.literals[plain], nil
	}
	p := &param[V]{next: new(node[V])}
	for rest := seg; rest != ""; {
		open := strings.IndexByte(rest, '{')
		if open < 0 {
			p.parts = append(p.parts, part{text: rest})
			break
		}
		if open > 0 {
			p.parts = append(p.parts, part{text: rest[:open]})
		}
		end := strings.IndexByte(rest, '}')
		if end < open+2 {
			return nil, fmt.Errorf("segment %q has braces that do not match", seg)
		}
		if k := len(p.parts); k > 0 && p.parts[k-1].name != "" {
			return nil, fmt.Errorf("segment %q has parameters with nothing between them; describe them as one", seg)
		}
		p.parts = append(p.parts, part{name: rest[open+1 : end]})
		rest = rest[end+1:]
	}
	for _, part := range p.parts {
		if part.name != "" {
			p.text += "\x00"
		} else {
			p.text += part.text
		}
	}
	for _, other := range n.params {
		if other.text == p.text {
			return other.next, nil // the same shape; the names are the template's
		}
	}
	n.params = append(n.params, p)
	if p.text != "\x00" {
		p.fold()
		n.mixed = append(n.mixed, p)
	}
	slices.SortStableFunc(n.params, func(a, b *param[V]) int { return len(b.text) - len(a.text) })
	return p.next, nil
}

// Result is what Find found.
type Result uint8

// What Find may find.
const (
	Found Result = iota
	NoPath
	NoMethod
	Slash // an encoded one is in a segment
	Alike // nothing but that a server may take it for another path
)

// Find looks a request up by its escaped path. Parameters are appended to
// params. When the path has other methods, allow lists them; of a path that is
// like another one, it is that one's template.
//
// Each segment is decoded once, after the path was split: an encoded slash is
// part of a value and never a border. Many servers decode first, and find another
// path then; so one matches nothing unless slash says that it may be there, and
// neither do dot segments.
func (r *Router[V]) Find(method, path string, slash bool, params []Match) (v V, _ []Match, allow string, _ Result) {
	if !strings.HasPrefix(path, "/") {
		return v, params, "", NoPath
	}
	var buf [32]string
	segs := buf[:0]
	for seg := range strings.SplitSeq(path[1:], "/") {
		if strings.IndexByte(seg, '%') >= 0 {
			plain, err := url.PathUnescape(seg)
			if err != nil {
				return v, params, "", NoPath
			}
			if seg = plain; strings.IndexByte(seg, '\\') >= 0 || !slash && strings.IndexByte(seg, '/') >= 0 {
				return v, params, "", Slash
			}
		}
		if seg == "." || seg == ".." {
			return v, params, "", NoPath
		}
		segs = append(segs, seg)
	}
	l, params := r.root.find(segs, params)
	if l == nil {
		if l = r.root.mistaken(segs, false); l != nil {
			return v, params, l.template(), Alike
		}
		return v, params, "", NoPath
	}
	t, ok := l.methods[method]
	if !ok && method == "HEAD" {
		t, ok = l.methods["GET"]
	}
	if !ok {
		return v, params, l.allow, NoMethod
	}
	for i, name := range t.names {
		params[len(params)-len(t.names)+i].Name = name
	}
	return t.value, params, "", Found
}

// find prefers literals, and goes back when they lead nowhere. The tree is as
// deep as the longest template, so that a long path costs no more.
func (n *node[V]) find(segs []string, params []Match) (*leaf[V], []Match) {
	if len(segs) == 0 {
		return n.leaf, params
	}
	if next := n.literals[segs[0]]; next != nil {
		if l, found := next.find(segs[1:], params); l != nil {
			return l, found
		}
	}
	for _, p := range n.params {
		if found, ok := match(p.parts, segs[0], params); ok && !n.hides(p, segs) {
			if l, all := p.next.find(segs[1:], found); l != nil {
				return l, all
			}
		}
	}
	return nil, params
}

// hides reports whether a parameter would take what some server may take for a
// literal beside it, or for a parameter with literal text such as {id}:purge.
// Where the template itself has a dot, as {name}.json or fixed.{format}, an ending
// tells the two apart, there as well.
func (n *node[V]) hides(p *param[V], segs []string) bool {
	if n.folded == nil && (len(n.mixed) == 0 || len(n.params) == 1) {
		return false
	}
	dot := strings.IndexByte(p.text, '.') >= 0
	plain, bare := fold(segs[0])
	for _, other := range n.folded[bare] {
		if dot && !strings.EqualFold(plain, other.text) {
			continue
		}
		if other.next.mistaken(segs[1:], other.text != segs[0]) != nil {
			return true
		}
	}
	for _, other := range n.mixed {
		if other == p || !other.like(plain, bare, dot) {
			continue
		}
		if other.next.mistaken(segs[1:], !matches(other.parts, segs[0])) != nil {
			return true
		}
	}
	return false
}

// mistaken finds a template that the path is not of, and that some server may take
// it for: it would be another operation there, and be let through as the one that
// takes anything. already tells whether it is another up to here.
func (n *node[V]) mistaken(segs []string, already bool) *leaf[V] {
	if len(segs) == 0 {
		if already {
			return n.leaf
		}
		return nil
	}
	plain, bare := fold(segs[0])
	for _, other := range n.folded[bare] {
		if l := other.next.mistaken(segs[1:], already || other.text != segs[0]); l != nil {
			return l
		}
	}
	for _, p := range n.params {
		exact := matches(p.parts, segs[0])
		if exact || p.like(plain, bare, false) {
			if l := p.next.mistaken(segs[1:], already || !exact); l != nil {
				return l
			}
		}
	}
	return nil
}

func (l *leaf[V]) template() (first string) {
	for _, t := range l.methods {
		if first == "" || t.template < first {
			first = t.template
		}
	}
	return first
}

// match takes a segment apart. A parameter is never empty, and ends where the
// literal behind it first occurs.
func match(parts []part, seg string, params []Match) ([]Match, bool) {
	for i, part := range parts {
		if part.name == "" {
			if !strings.HasPrefix(seg, part.text) {
				return params, false
			}
			seg = seg[len(part.text):]
			continue
		}
		end := len(seg)
		if i+1 < len(parts) {
			next := parts[i+1].text
			if i+2 == len(parts) {
				if !strings.HasSuffix(seg, next) {
					return params, false
				}
				end = len(seg) - len(next)
			} else if end = strings.Index(seg[min(1, len(seg)):], next) + 1; end == 0 {
				return params, false
			}
		}
		if end == 0 {
			return params, false
		}
		params = append(params, Match{Value: seg[:end]})
		seg = seg[end:]
	}
	return params, seg == ""
}

func matches(parts []part, seg string) bool {
	var buf [4]Match
	_, ok := match(parts, seg, buf[:0])
	return ok && len(parts) > 0
}

// like reports whether some server may take a segment, of which both readings are
// given, for one of the parameter's.
func (p *param[V]) like(plain, bare string, dot bool) bool {
	return matches(p.folded, plain) || !dot && bare != plain && matches(p.folded, bare) || !dot && matches(p.bare, bare)
}

// fold prepares what like compares with.
func (p *param[V]) fold() {
	for _, part := range p.parts {
		part.text = lower(part.text)
		p.folded = append(p.folded, part)
	}
	k := len(p.folded) - 1
	switch _, text := fold(p.folded[k].text); {
	case text == p.folded[k].text: // no format, or a parameter
	case text != "":
		p.bare = append(slices.Clone(p.folded[:k]), part{text: text})
	case k > 1:
		p.bare = p.folded[:k]
	}
}

// format reports whether an ending is one by which clients of some frameworks ask
// for a content type, and that is no part of the path for them.
func format(ending string) bool {
	switch ending {
	case ".json", ".xml", ".html", ".csv", ".txt", ".yaml":
		return true
	}
	return false
}

// fold is a segment as a server reads it that makes no difference between capitals
// and small letters, takes a parameter behind a semicolon off (RFC 3986, section
// 3.3), or dots and spaces at the end, as Windows does; and, bare, a format too.
func fold(seg string) (plain, bare string) {
	if semicolon := strings.IndexByte(seg, ';'); semicolon >= 0 {
		seg = seg[:semicolon]
	}
	plain = lower(trim(seg))
	if dot := strings.LastIndexByte(plain, '.'); dot >= 0 && format(plain[dot:]) {
		return plain, trim(plain[:dot])
	}
	return plain, plain
}

func trim(s string) string {
	for s != "" && (s[len(s)-1] == '.' || s[len(s)-1] == ' ') {
		s = s[:len(s)-1]
	}
	return s
}

// lower takes letters for one that are in either case, such as the long s.
func lower(s string) string {
	capitals := false
	for i := range len(s) {
		if s[i] >= 0x80 {
			return strings.ToLower(strings.ToUpper(s))
		}
		capitals = capitals || 'A' <= s[i] && s[i] <= 'Z'
	}
	if !capitals {
		return s
	}
	return strings.ToLower(s)
}
