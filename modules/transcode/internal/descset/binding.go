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
	var expr strings.Builder
	for rest := template(r); rest != ""; {
		open := strings.IndexByte(rest, '{')
		end := strings.IndexByte(rest, '}')
		if open < 0 || end < open {
			expr.WriteString(pattern(rest))
			break
		}
		expr.WriteString(pattern(rest[:open]))
		name, of, has := strings.Cut(rest[open+1:end], "=")
		if !has {
			of = "*"
		}
		b.settled = append(b.settled, name)
		expr.WriteString(pattern(of))
		rest = rest[end+1:]
	}
	b.path, _ = regexp.Compile("(?s)^" + expr.String() + "$") // texts are quoted
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
