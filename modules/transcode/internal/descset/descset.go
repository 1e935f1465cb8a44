// Package descset reads a set of Protobuf descriptors, as protoc and buf write
// it, and knows which methods and paths it describes.
//
// A Set is immutable and may be used concurrently.
package descset

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/genproto/googleapis/api/annotations"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/dynamicpb"
)

// Set is what a descriptor set says.
type Set struct {
	Services []protoreflect.ServiceDescriptor // in the order of their names
	Methods  map[string]*Method               // by path, e.g. /shop.v1.Orders/Get

	types *dynamicpb.Types
	roots map[string]bool // first segments of all paths of HTTP rules
	any   bool            // some path begins with a variable
	verbs map[string]bool // what may stand behind a colon
}

// Method is one method of a service.
type Method struct {
	protoreflect.MethodDescriptor
	Path string
	Body string // what the body is by its HTTP rule: a field, "*" for all, or nothing

	own      binding // the path
	bindings []binding
}

// Read takes a descriptor set apart. Only the services that are named are
// known, or all when none is.
func Read(data []byte, only []string) (*Set, error) {
	var fds descriptorpb.FileDescriptorSet
	if err := proto.Unmarshal(data, &fds); err != nil || len(fds.GetFile()) == 0 || fds.GetFile()[0].GetName() == "" {
		return nil, errors.New("is no descriptor set; make one with protoc --include_imports --descriptor_set_out=<file>, or buf build -o <file>")
	}
	if err := complete(&fds); err != nil {
		return nil, err
	}
	files, err := protodesc.NewFiles(&fds)
	if err != nil {
		return nil, fmt.Errorf("is no valid descriptor set: %w", err)
	}
	s := &Set{Methods: map[string]*Method{}, types: dynamicpb.NewTypes(files), roots: map[string]bool{}, verbs: map[string]bool{}}
	all := servicesOf(files)
	if len(all) == 0 {
		return nil, errors.New("describes no service")
	}
	for _, svc := range all {
		if len(only) == 0 || slices.Contains(only, string(svc.FullName())) {
			if err := s.add(svc); err != nil {
				return nil, err
			}
		}
	}
	for _, name := range only {
		if !slices.ContainsFunc(s.Services, func(svc protoreflect.ServiceDescriptor) bool { return string(svc.FullName()) == name }) {
			return nil, fmt.Errorf("describes no service %q; it has %s", name, names(all))
		}
	}
	return s, nil
}

// complete reports imports that the set lacks, all at once and in the words of
// the tool that left them out.
func complete(fds *descriptorpb.FileDescriptorSet) error {
	known := map[string]bool{}
	for _, f := range fds.GetFile() {
		known[f.GetName()] = true
	}
	for _, f := range fds.GetFile() {
		for _, imp := range f.GetDependency() {
			if !known[imp] {
				return fmt.Errorf("lacks %q, which %q imports; make the set with --include_imports", imp, f.GetName())
			}
		}
	}
	return nil
}

func servicesOf(files *protoregistry.Files) (all []protoreflect.ServiceDescriptor) {
	files.RangeFiles(func(f protoreflect.FileDescriptor) bool {
		for i := range f.Services().Len() {
			all = append(all, f.Services().Get(i))
		}
		return true
	})
	slices.SortFunc(all, func(a, b protoreflect.ServiceDescriptor) int {
		return strings.Compare(string(a.FullName()), string(b.FullName()))
	})
	return all
}

func names(services []protoreflect.ServiceDescriptor) string {
	all := make([]string, len(services))
	for i, svc := range services {
		all[i] = string(svc.FullName())
	}
	return strings.Join(all, ", ")
}

func (s *Set) add(svc protoreflect.ServiceDescriptor) error {
	methods := svc.Methods()
	if methods.Len() == 0 {
		return fmt.Errorf("service %s has no methods", svc.FullName())
	}
	s.Services = append(s.Services, svc)
	for i := range methods.Len() {
		m := &Method{MethodDescriptor: methods.Get(i)}
		m.Path = "/" + string(svc.FullName()) + "/" + string(m.Name())
		m.own.segs, _ = segments(m.Path)
		s.Methods[m.Path] = m
		rule, _ := proto.GetExtension(m.Options(), annotations.E_Http).(*annotations.HttpRule)
		if rule == nil {
			continue
		}
		m.Body = rule.GetBody()
		for _, r := range append([]*annotations.HttpRule{rule}, rule.GetAdditionalBindings()...) {
			s.learn(template(r))
			m.bindings = append(m.bindings, bindingOf(r))
		}
	}
	return nil
}

func template(r *annotations.HttpRule) string {
	switch p := r.GetPattern().(type) {
	case *annotations.HttpRule_Get:
		return p.Get
	case *annotations.HttpRule_Put:
		return p.Put
	case *annotations.HttpRule_Post:
		return p.Post
	case *annotations.HttpRule_Delete:
		return p.Delete
	case *annotations.HttpRule_Patch:
		return p.Patch
	case *annotations.HttpRule_Custom:
		return p.Custom.GetPath()
	}
	return ""
}

// learn notes how the paths of a template begin and end.
func (s *Set) learn(template string) {
	rest := strings.TrimPrefix(template, "/")
	if colon := strings.LastIndexByte(rest, ':'); colon > strings.LastIndexByte(rest, '}') && colon > strings.LastIndexByte(rest, '/') {
		s.verbs[rest[colon+1:]] = true
		rest = rest[:colon]
	}
	root, _, _ := strings.Cut(rest, "/")
	if strings.ContainsAny(root, "{*%") {
		s.any = true
		return
	}
	s.roots[root] = true
}

// Reachable reports whether an HTTP rule may have the path. It says no to most
// of what has nothing to do with the services, for little.
func (s *Set) Reachable(path string) bool {
	if s.any {
		return true
	}
	root, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	if s.roots[root] {
		return true
	}
	root, _, colon := strings.Cut(root, ":")
	return colon && s.roots[root]
}

// Canonical writes a path, as the client escaped it, in the one form in which
// HTTP rules are matched: each segment unescaped and escaped again. A colon in
// the last segment is data unless a known verb follows. A path with an empty
// segment has no such form.
func (s *Set) Canonical(escaped string) (string, bool) {
	rest, more := strings.CutPrefix(escaped, "/")
	if !more {
		return "", false
	}
	b := make([]byte, 0, len(escaped)+8)
	for more {
		var seg, verb string
		seg, rest, more = strings.Cut(rest, "/")
		if colon := strings.LastIndexByte(seg, ':'); !more && colon >= 0 && s.verbs[seg[colon+1:]] {
			seg, verb = seg[:colon], seg[colon:]
		}
		if seg == "" {
			return "", false
		}
		b = append(b, '/')
		for i := 0; i < len(seg); i++ {
			c := seg[i]
			if c == '%' {
				if i+2 >= len(seg) {
					return "", false
				}
				hi, lo := unhex(seg[i+1]), unhex(seg[i+2])
				if hi < 0 || lo < 0 {
					return "", false
				}
				c = byte(hi<<4 | lo) //nolint:gosec // two digits of four bits
				i += 2
			}
			b = escape(b, c)
		}
		b = append(b, verb...)
	}
	return string(b), true
}

func escape(b []byte, c byte) []byte {
	const hex = "0123456789ABCDEF"
	switch {
	case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '-', c == '_', c == '.', c == '~':
		return append(b, c)
	}
	return append(b, '%', hex[c>>4], hex[c&15])
}

func unhex(c byte) int {
	switch {
	case c >= '0' && c <= '9':
		return int(c - '0')
	case c >= 'a' && c <= 'f':
		return int(c-'a') + 10
	case c >= 'A' && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// The types of the set, and behind them those this program was compiled with,
// such as the details that errors carry.

// FindMessageByName finds a message type.
func (s *Set) FindMessageByName(name protoreflect.FullName) (protoreflect.MessageType, error) {
	if t, err := s.types.FindMessageByName(name); err == nil {
		return t, nil
	}
	return protoregistry.GlobalTypes.FindMessageByName(name)
}

// FindMessageByURL finds the type of a message inside an Any.
func (s *Set) FindMessageByURL(url string) (protoreflect.MessageType, error) {
	if t, err := s.types.FindMessageByURL(url); err == nil {
		return t, nil
	}
	return protoregistry.GlobalTypes.FindMessageByURL(url)
}

// FindExtensionByName finds an extension.
func (s *Set) FindExtensionByName(field protoreflect.FullName) (protoreflect.ExtensionType, error) {
	if t, err := s.types.FindExtensionByName(field); err == nil {
		return t, nil
	}
	return protoregistry.GlobalTypes.FindExtensionByName(field)
}

// FindExtensionByNumber finds an extension.
func (s *Set) FindExtensionByNumber(message protoreflect.FullName, field protoreflect.FieldNumber) (protoreflect.ExtensionType, error) {
	if t, err := s.types.FindExtensionByNumber(message, field); err == nil {
		return t, nil
	}
	return protoregistry.GlobalTypes.FindExtensionByNumber(message, field)
}
