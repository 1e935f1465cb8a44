// Package publish makes of a contract the document that its consumers see.
//
// It copies what OpenAPI describes and nothing else, word by word of a list:
// members nobody knows, extensions among them, stay inside, and so do the
// operations that are marked internal or hidden, with every schema, parameter
// and security scheme that only they use. The servers, which name backends, are
// replaced by the public address. Whatever lies in other files is put into the
// one document.
package publish

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/openapi"
)

// Options say what is published.
type Options struct {
	Hide   []string // operationIds, "METHOD /path", and tags
	Server string   // the public address
}

// Operation is a published operation.
type Operation struct {
	Method, Path, ID, Summary string
	Deprecated                bool
}

// Document is what is published.
type Document struct {
	Root           map[string]any
	Title, Version string
	Operations     []Operation
}

// maxValues bounds the copy: references may make it larger than the original,
// though each target is copied once.
const (
	maxValues = 5_000_000
	maxDepth  = 2000
)

// Make makes the document.
func Make(root openapi.Node, o Options) (*Document, error) {
	c := &copier{root: root, options: o, hid: make(map[string]bool), tags: make(map[string]bool), schemes: make(map[string]bool), sections: make(map[string]map[string]any), names: make(map[string]string)}
	out := map[string]any{"openapi": root.Text("openapi"), "servers": []any{map[string]any{"url": o.Server}}}
	doc := &Document{Root: out}
	if err := c.fill(out, root, document); err != nil {
		return nil, err
	}
	info, _ := out["info"].(map[string]any)
	if info == nil {
		info = map[string]any{"title": "", "version": ""}
		out["info"] = info
	}
	doc.Title, _ = info["title"].(string)
	doc.Version, _ = info["version"].(string)
	if err := c.paths(doc); err != nil {
		return nil, err
	}
	for _, word := range o.Hide {
		if !c.hid[word] {
			return nil, fmt.Errorf("hide %q is neither an operation nor a tag of the contract", word)
		}
	}
	c.security(root, out)
	if err := c.components(out); err != nil {
		return nil, err
	}
	c.keepTags(out)
	return doc, nil
}

type copier struct {
	root     openapi.Node
	options  Options
	hid      map[string]bool // words of Hide that were there
	tags     map[string]bool // of visible operations
	schemes  map[string]bool // security schemes they need
	sections map[string]map[string]any
	names    map[string]string // of the components, by the place they are copied from
	pending  []pending
	values   int
	depth    int
	inherits bool // some operation has the security of the whole document
}

type pending struct {
	at   openapi.Node
	kind *kind
	name string
}

func (c *copier) paths(doc *Document) error {
	paths, _ := c.root.Child("paths")
	items, _ := paths.Value.(map[string]any)
	out := make(map[string]any)
	for _, path := range slices.Sorted(maps.Keys(items)) {
		item, _, err := paths.Get(path)
		if err != nil {
			return err
		}
		if !strings.HasPrefix(path, "/") || internal(item) {
			continue
		}
		published := make(map[string]any)
		visible := false
		for _, method := range methods {
			at, ok := item.Child(method)
			if !ok || !c.visible(at, method, path) {
				continue
			}
			op, err := c.copy(at, operation)
			if err != nil {
				return err
			}
			published[method], visible = op, true
			c.need(at)
			id := at.Text("operationId")
			if id == "" {
				id = strings.ToUpper(method) + " " + path
			}
			doc.Operations = append(doc.Operations, Operation{strings.ToUpper(method), path, id, at.Text("summary"), at.Flag("deprecated", false)})
		}
		if !visible {
			continue
		}
		if err := c.fill(published, item, pathItem); err != nil {
			return err
		}
		out[path] = published
	}
	doc.Root["paths"] = out
	return nil
}

// visible tells whether an operation is published.
func (c *copier) visible(at openapi.Node, method, path string) bool {
	words := append([]string{at.Text("operationId"), strings.ToUpper(method) + " " + path}, tagsOf(at)...)
	hidden := internal(at)
	for _, w := range words {
		if w != "" && slices.Contains(c.options.Hide, w) {
			c.hid[w], hidden = true, true
		}
	}
	if !hidden {
		for _, tag := range tagsOf(at) {
			c.tags[tag] = true
		}
	}
	return !hidden
}

func tagsOf(at openapi.Node) (tags []string) {
	n, _ := at.Child("tags")
	list, _ := n.Value.([]any)
	for _, v := range list {
		if s, ok := v.(string); ok {
			tags = append(tags, s)
		}
	}
	return tags
}

func internal(n openapi.Node) bool { return n.Flag("x-internal", false) }

// need remembers the security schemes of an operation.
func (c *copier) need(at openapi.Node) {
	n, own := at.Child("security")
	if !own {
		c.inherits = true
		n, _ = c.root.Child("security")
	}
	list, _ := n.Value.([]any)
	for _, alt := range list {
		if m, ok := alt.(map[string]any); ok {
			for name := range m {
				c.schemes[name] = true
			}
		}
	}
}

func (c *copier) security(root openapi.Node, out map[string]any) {
	if all, ok := root.Child("security"); ok && c.inherits {
		out["security"] = all.Value
	}
	section := c.section("securitySchemes")
	components, _ := root.Child("components")
	defined, _ := components.Child("securitySchemes")
	for name := range c.schemes {
		at, ok, err := defined.Get(name)
		if !ok || err != nil {
			continue
		}
		if scheme, err := c.copy(at, securityScheme); err == nil {
			section[name] = scheme
		}
	}
}

func (c *copier) section(name string) map[string]any {
	if c.sections[name] == nil {
		c.sections[name] = make(map[string]any)
	}
	return c.sections[name]
}

// components copies what was referred to, and what that refers to.
func (c *copier) components(out map[string]any) error {
	for len(c.pending) > 0 {
		p := c.pending[0]
		c.pending = c.pending[1:]
		v, err := c.copy(p.at, p.kind)
		if err != nil {
			return err
		}
		c.section(p.kind.section)[p.name] = v
	}
	components := make(map[string]any)
	for name, section := range c.sections {
		if len(section) > 0 {
			components[name] = section
		}
	}
	if len(components) > 0 {
		out["components"] = components
	}
	return nil
}

func (c *copier) keepTags(out map[string]any) {
	all, _ := out["tags"].([]any)
	var kept []any
	for _, v := range all {
		m, _ := v.(map[string]any)
		if name, _ := m["name"].(string); c.tags[name] {
			kept = append(kept, v)
		}
	}
	if delete(out, "tags"); kept != nil {
		out["tags"] = kept
	}
}

// errTooLarge ends a copy that grows beyond bounds.
var errTooLarge = errors.New("the document is too large to be published")

// copy copies a value of a kind; a reference in its place becomes one to the
// components of the new document.
func (c *copier) copy(n openapi.Node, k *kind) (any, error) {
	c.values++
	c.depth++
	defer func() { c.depth-- }()
	if c.values > maxValues || c.depth > maxDepth {
		return nil, errTooLarge
	}
	m, ok := n.Value.(map[string]any)
	if !ok {
		if k == schema { // true or false
			return n.Value, nil
		}
		return map[string]any{}, nil
	}
	out := make(map[string]any, len(m))
	if _, ref := m["$ref"].(string); ref && k.section != "" {
		target, err := n.Step()
		if err != nil {
			return nil, err
		}
		out["$ref"] = "#/components/" + k.section + "/" + openapi.Escape(c.name(target, k))
		if k != schema {
			return out, nil
		}
	} else if ref {
		target, err := n.Resolve()
		if err != nil {
			return nil, err
		}
		return c.copy(target, k)
	}
	if k == callback {
		all, err := c.member(n, member{callbackItem, mapOf})
		return all, err
	}
	return out, c.fill(out, n, k)
}

// clean copies a value without extensions.
func clean(v any) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, item := range v {
			if !strings.HasPrefix(name, "x-") || extensions[name] {
				out[name] = clean(item)
			}
		}
		return out
	case []any:
		out := make([]any, 0, len(v))
		for _, item := range v {
			if m, ok := item.(map[string]any); ok && m["x-internal"] == true {
				continue
			}
			out = append(out, clean(item))
		}
		return out
	}
	return v
}

// name finds the component that a place becomes: under the name it has, where
// it is one already.
func (c *copier) name(target openapi.Node, k *kind) string {
	place := k.section + " " + target.File.Name + "#" + target.Pointer
	if name, ok := c.names[place]; ok {
		return name
	}
	_, last, _ := cutLast(target.Pointer, "/")
	last = strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-", r) {
			return r
		}
		return '_'
	}, last)
	if last == "" {
		last = "part"
	}
	name := last
	section := c.section(k.section)
	for i := 2; ; i++ {
		if _, taken := section[name]; !taken {
			break
		}
		name = last + "_" + strconv.Itoa(i)
	}
	section[name] = nil // taken; its copy follows
	c.names[place] = name
	c.pending = append(c.pending, pending{target, k, name})
	return name
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return "", s, false
}

// fill copies the members that a kind has.
func (c *copier) fill(out map[string]any, n openapi.Node, k *kind) error {
	m, _ := n.Value.(map[string]any)
	for word := range m {
		child, _ := n.Child(word)
		if k.plain[word] {
			if out[word] = child.Value; !data[word] {
				out[word] = clean(child.Value)
			}
			continue
		}
		member, ok := k.members[word]
		if !ok {
			continue
		}
		v, err := c.member(child, member)
		if err != nil {
			return err
		}
		out[word] = v
	}
	if k == schema {
		c.mapping(n, out)
		dropInternal(n, out)
	}
	return nil
}

func (c *copier) member(n openapi.Node, m member) (any, error) {
	switch v := n.Value.(type) {
	case []any:
		if m.shape == one || m.shape == mapOf {
			break
		}
		list := make([]any, 0, len(v))
		for i := range v {
			item, _ := n.Child(strconv.Itoa(i))
			if internal(item) {
				continue
			}
			x, err := c.copy(item, m.kind)
			if err != nil {
				return nil, err
			}
			list = append(list, x)
		}
		return list, nil
	case map[string]any:
		if m.shape != mapOf {
			break
		}
		all := make(map[string]any, len(v))
		for name := range v {
			item, _ := n.Child(name)
			if internal(item) || strings.HasPrefix(name, "x-") && m.kind != schema && m.kind != header {
				continue
			}
			x, err := c.copy(item, m.kind)
			if err != nil {
				return nil, err
			}
			all[name] = x
		}
		return all, nil
	}
	if _, isMap := n.Value.(map[string]any); m.shape == listOf || m.shape == mapOf || !isMap && m.kind != schema {
		return n.Value, nil
	}
	return c.copy(n, m.kind)
}

// mapping turns a discriminator's references to the new places.
func (c *copier) mapping(n openapi.Node, out map[string]any) {
	d, ok := n.Child("discriminator")
	if !ok {
		return
	}
	to := make(map[string]any)
	all, _ := d.Child("mapping")
	if m, ok := all.Value.(map[string]any); ok {
		for value, ref := range m {
			text, _ := ref.(string)
			if text != "" && !strings.ContainsAny(text, "#/.") {
				text = "#/components/schemas/" + text
			}
			target, err := openapi.Node{Files: n.Files, File: n.File, Pointer: n.Pointer, Value: map[string]any{"$ref": text}}.Step()
			if err == nil {
				to[value] = "#/components/schemas/" + openapi.Escape(c.name(target, schema))
			}
		}
	}
	disc := map[string]any{"propertyName": d.Text("propertyName")}
	if len(to) > 0 {
		disc["mapping"] = to
	}
	out["discriminator"] = disc
}

// dropInternal takes members that are not published out of required as well.
func dropInternal(n openapi.Node, out map[string]any) {
	members, _ := n.Child("properties")
	required, ok := out["required"].([]any)
	if !ok {
		return
	}
	kept := make([]any, 0, len(required))
	for _, name := range required {
		s, _ := name.(string)
		if member, ok := members.Child(s); !ok || !internal(member) {
			kept = append(kept, name)
		}
	}
	if out["required"] = kept; len(kept) == 0 {
		delete(out, "required")
	}
}
