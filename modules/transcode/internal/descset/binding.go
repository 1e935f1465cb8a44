package descset

import (
	"maps"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// binding is one HTTP rule of a method: by which requests it is called, and which
// fields their path and body say.
type binding struct {
	verb    string // empty: any
	path    *regexp.Regexp
	settled []string // paths of fields; "*" for all

	segs  []string // of the path: literals, "*" for one and, at the end, "**" for any number
	colon string   // what stands behind a colon at its end
}

func bindingOf(r *annotations.HttpRule) binding {
	b := binding{}
	switch p := r.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		b.verb = "GET"
	case *annotations.HttpRule_Put:
		b.verb = "PUT"
	case *annotations.HttpRule_Post:
		b.verb = "POST"
	case *annotations.HttpRule_Delete:
		b.verb = "DELETE"
	case *annotations.HttpRule_Patch:
		b.verb = "PATCH"
	case *annotations.HttpRule_Custom:
		if b.verb = p.Custom.GetKind(); b.verb == "*" {
			b.verb = ""
		}
	}
	var expr, plain strings.Builder // the latter without names
	for rest := template(r); rest != ""; {
		open := strings.IndexByte(rest, '{')
		end := strings.IndexByte(rest, '}')
		if open < 0 || end < open {
			expr.WriteString(pattern(rest))
			plain.WriteString(rest)
			break
		}
		expr.WriteString(pattern(rest[:open]))
		name, of, has := strings.Cut(rest[open+1:end], "=")
		if !has {
			of = "*"
		}
		b.settled = append(b.settled, name)
		expr.WriteString(pattern(of))
		plain.WriteString(rest[:open] + of)
		rest = rest[end+1:]
	}
	b.path, _ = regexp.Compile("(?s)^" + expr.String() + "$") // texts are quoted
	b.segs, b.colon = segments(plain.String())
	if body := r.GetBody(); body != "" {
		b.settled = append(b.settled, body)
	}
	return b
}

// pattern is what a part of a template without variables matches, and rather too
// much than too little: a slash that was encoded in the path is none any more.
func pattern(part string) string {
	quoted := regexp.QuoteMeta(part)
	return strings.ReplaceAll(strings.ReplaceAll(quoted, `\*\*`, ".+"), `\*`, ".+")
}

// segments takes a template apart, whose braces may still be there.
func segments(template string) (segs []string, colon string) {
	if i := strings.LastIndexByte(template, ':'); i > strings.LastIndexAny(template, "/}") {
		template, colon = template[:i], plain(template[i+1:])
	}
	for seg := range strings.SplitSeq(strings.TrimPrefix(template, "/"), "/") {
		segs = append(segs, plain(seg))
	}
	return segs, colon
}

func plain(s string) string {
	if p, err := url.PathUnescape(s); err == nil {
		return p
	}
	return s // written as it is meant
}

// Is reports whether a path template of OpenAPI, which the path of a request has
// matched, describes this method and nothing beside it: all that it takes is the
// method's own path or that of one of its HTTP rules. So /users/me may stand for
// /users/{id} and /users/{user} for /{name=users/*}, but not /users/{id} for
// /users/{id}:lock, though it matches that. The two need not begin at the same
// place: a document has a base path, and the gateway may take one off.
func (m *Method) Is(verb, path, template string) bool {
	if template == m.Path {
		return true
	}
	segs, colon := segments(template)
	from := strings.Count(path, "/") - len(segs)
	if m.own.takes(segs, colon, from) {
		return true
	}
	return slices.ContainsFunc(m.bindings, func(b binding) bool {
		return (b.verb == "" || b.verb == verb) && b.takes(segs, colon, from)
	})
}

// takes reports whether the rule matches whatever the template of the segments
// does, which begins as many segments behind the rule.
func (b binding) takes(segs []string, colon string, from int) bool {
	for i, seg := range segs {
		at := i + from
		if at < 0 {
			continue
		}
		rule := b.segs[min(at, len(b.segs)-1)]
		if rule == "**" || at < len(b.segs) && (rule == "*" || rule == seg) {
			continue
		}
		return false
	}
	return colon == b.colon
}

// maxAgain bounds the fields that a query may name: each is compared with all
// others, and one of a message that holds itself has names without end.
const maxAgain = 256

// Again finds a member of a query that says what the path or the body of the
// request says too, or that says something twice; of the fields of a oneof, any
// says what another did. The library would take the last word, and whoever has
// looked at the request before has seen another.
func (m *Method) Again(verb, path string, query url.Values) (key string, found bool) {
	settled := m.settled(verb, path)
	if slices.Contains(settled, "*") {
		settled = nil
		for key := range query {
			if m.field(key) != nil {
				return key, true
			}
		}
	}
	said := make([]steps, 0, len(settled)+len(query))
	for _, path := range settled {
		if to := m.field(path); to != nil {
			said = append(said, to)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(query)) {
		to := m.field(key)
		if to == nil {
			continue // the library refuses it
		}
		list := to[len(to)-1].IsList()
		if len(said) == maxAgain || len(query[key]) > 1 && !list || slices.ContainsFunc(said, to.collide) {
			return key, true
		}
		said = append(said, to)
	}
	return "", false
}

// settled are the fields that the rules say by which the request may have come:
// those that it fits, or all if it seems to fit none.
func (m *Method) settled(verb, path string) (all []string) {
	for _, sure := range []bool{true, false} {
		fits := false
		for _, b := range m.bindings {
			if !sure || (b.verb == "" || b.verb == verb) && b.path != nil && b.path.MatchString(path) {
				fits, all = true, append(all, b.settled...)
			}
		}
		if fits {
			return all
		}
	}
	return nil
}

// steps lead to a field through the messages that hold it.
type steps []protoreflect.FieldDescriptor

// field finds a field by its path, each name of which is written as in Protobuf or
// as in JSON. It is nil if there is none.
func (m *Method) field(path string) (to steps) {
	message := m.Input()
	for part := range strings.SplitSeq(path, ".") {
		if message == nil {
			return nil
		}
		fields := message.Fields()
		field := fields.ByName(protoreflect.Name(part))
		if field == nil {
			if field = fields.ByJSONName(part); field == nil {
				return nil
			}
		}
		to, message = append(to, field), field.Message()
	}
	return to
}

// collide reports whether one field is the other, holds it, or takes its place: a
// oneof has room for one.
func (s steps) collide(other steps) bool {
	for i := range min(len(s), len(other)) {
		if s[i] != other[i] {
			one := s[i].ContainingOneof()
			return one != nil && one == other[i].ContainingOneof()
		}
	}
	return true
}
