// Package param turns the text of parameters into values that a schema can
// look at, by the styles of OpenAPI (3.1, section 4.8.12).
package param

import (
	"encoding/json"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/openapi"
	"github.com/gatehouse-caddy/gatehouse/modules/gate/strictjson"
)

// Shape is what a schema says a value is made of, as far as text has to know
// to become one. A nil Shape is a text.
type Shape struct {
	Types   []string
	Items   *Shape
	Members map[string]*Shape
	More    *Shape // of members that are not named
}

// ShapeOf reads the types of a schema, through references and allOf.
func ShapeOf(n openapi.Node) *Shape { return shapeOf(n, 0) }

func shapeOf(n openapi.Node, depth int) *Shape {
	n, err := n.Resolve()
	m, ok := n.Value.(map[string]any)
	if err != nil || !ok || depth > 4 {
		return nil
	}
	s := new(Shape)
	switch t := m["type"].(type) {
	case string:
		s.Types = []string{t}
	case []any:
		for _, item := range t {
			if text, ok := item.(string); ok {
				s.Types = append(s.Types, text)
			}
		}
	}
	for _, word := range []string{"allOf", "anyOf", "oneOf"} {
		parts, _ := n.Child(word)
		list, _ := parts.Value.([]any)
		for i := range list {
			c, _ := parts.Child(strconv.Itoa(i))
			if part := shapeOf(c, depth+1); part != nil {
				s.Types = append(s.Types, part.Types...)
				if s.Items == nil {
					s.Items = part.Items
				}
				if s.Members == nil {
					s.Members = part.Members
				}
			}
		}
	}
	if items, ok := n.Child("items"); ok {
		s.Items = shapeOf(items, depth+1)
	}
	if more, ok := n.Child("additionalProperties"); ok {
		s.More = shapeOf(more, depth+1)
	}
	if members, ok := n.Child("properties"); ok {
		all, _ := members.Value.(map[string]any)
		s.Members = make(map[string]*Shape, len(all))
		for name := range all {
			c, _ := members.Child(name)
			s.Members[name] = shapeOf(c, depth+1)
		}
	}
	return s
}

func (s *Shape) is(t string) bool { return s != nil && slices.Contains(s.Types, t) }

func (s *Shape) member(name string) *Shape {
	if s == nil {
		return nil
	}
	if m, ok := s.Members[name]; ok {
		return m
	}
	return s.More
}

// Scalar reads a text as what the shape asks for, or leaves it a text, which
// the schema then refuses.
func Scalar(text string, s *Shape) any {
	if s == nil {
		return text
	}
	if s.is("integer") || s.is("number") {
		// The strict reader bounds digits and exponents: what the schema
		// library would choke on stays a text.
		if v, err := strictjson.Decode([]byte(text), strictjson.Limits{}); err == nil {
			if n, ok := v.(json.Number); ok && !strings.ContainsAny(text, " \t\r\n") {
				return n
			}
		}
	}
	if s.is("boolean") {
		switch text {
		case "true":
			return true
		case "false":
			return false
		}
	}
	if s.is("null") && (text == "" || text == "null") && !s.is("string") {
		return nil
	}
	return text
}

// Query reads a parameter from the query. Present tells whether it is there,
// twice whether it is there more often than its style allows.
func Query(p *openapi.Param, s *Shape, query url.Values) (v any, present, twice bool) {
	switch {
	case p.Style == "deepObject":
		m := make(map[string]any)
		for name, values := range query {
			rest, ok := strings.CutPrefix(name, p.Name+"[")
			if inner, end := strings.CutSuffix(rest, "]"); ok && end {
				if m[inner] = Scalar(values[0], s.member(inner)); s.member(inner).is("array") {
					m[inner] = list(values, s.member(inner))
				} else {
					twice = twice || len(values) > 1
				}
			}
		}
		return m, len(m) > 0, twice
	case s.is("object") && p.Style == "form" && p.Explode:
		m := make(map[string]any)
		for name := range s.Members {
			if values, ok := query[name]; ok {
				m[name] = Scalar(values[0], s.member(name))
				twice = twice || len(values) > 1
			}
		}
		return m, len(m) > 0, twice
	}
	values, ok := query[p.Name]
	if !ok {
		return nil, false, false
	}
	if s.is("array") && p.Explode && p.Style != "spaceDelimited" && p.Style != "pipeDelimited" || s.is("array") && p.Explode && len(values) > 1 {
		return list(values, s), true, false
	}
	separator := ","
	switch p.Style {
	case "spaceDelimited":
		separator = " "
	case "pipeDelimited":
		separator = "|"
	}
	return text(values[0], separator, false, s), true, len(values) > 1
}

// Claims reports whether a member of a query belongs to the parameter.
func Claims(p *openapi.Param, s *Shape, name string) bool {
	switch {
	case p.Style == "deepObject":
		rest, ok := strings.CutPrefix(name, p.Name+"[")
		return ok && strings.HasSuffix(rest, "]")
	case p.ContentType == "" && s.is("object") && p.Style == "form" && p.Explode:
		_, ok := s.Members[name]
		return ok
	}
	return name == p.Name
}

// Path reads a path parameter, decoded already.
func Path(p *openapi.Param, s *Shape, value string) any {
	separator := ","
	switch p.Style {
	case "label":
		value = strings.TrimPrefix(value, ".")
		if p.Explode {
			separator = "."
		}
	case "matrix":
		value = strings.TrimPrefix(value, ";")
		if p.Explode {
			separator = ";"
			if s.is("array") {
				value = strings.ReplaceAll(value, p.Name+"=", "")
			}
		}
		if !s.is("object") || !p.Explode {
			value = strings.TrimPrefix(value, p.Name+"=")
		}
	}
	return text(value, separator, p.Explode, s)
}

// Header reads a header or, with its style, a cookie.
func Header(p *openapi.Param, s *Shape, value string) any {
	return text(value, ",", p.Explode && p.In == "header", s)
}

// text splits a value that holds a list or an object.
func text(value, separator string, pairs bool, s *Shape) any {
	switch {
	case s.is("array"):
		if value == "" {
			return []any{}
		}
		parts := strings.Split(value, separator)
		if separator == "," {
			for i := range parts {
				parts[i] = strings.Trim(parts[i], " ")
			}
		}
		return list(parts, s)
	case s.is("object"):
		m := make(map[string]any)
		parts := strings.Split(value, separator)
		if pairs {
			for _, part := range parts {
				name, v, _ := strings.Cut(part, "=")
				m[name] = Scalar(v, s.member(name))
			}
			return m
		}
		for i := 0; i+1 < len(parts); i += 2 {
			m[parts[i]] = Scalar(parts[i+1], s.member(parts[i]))
		}
		return m
	}
	return Scalar(value, s)
}

func list(values []string, s *Shape) []any {
	var items *Shape
	if s != nil {
		items = s.Items
	}
	out := make([]any, len(values))
	for i, v := range values {
		out[i] = Scalar(v, items)
	}
	return out
}

// Form reads a urlencoded body as the object its schema describes. A member
// that is there twice becomes a list, whatever the schema says: it must not be
// judged by one of its values while a backend takes the other. An object is
// written in JSON, says OpenAPI.
func Form(s *Shape, form url.Values) any {
	m := make(map[string]any, len(form))
	for name, values := range form {
		switch member := s.member(name); {
		case member.is("array") || len(values) > 1:
			m[name] = list(values, member)
		case member.is("object"):
			m[name] = values[0]
			if v, err := strictjson.Decode([]byte(values[0]), strictjson.Limits{}); err == nil {
				m[name] = v
			}
		default:
			m[name] = Scalar(values[0], member)
		}
	}
	return m
}
