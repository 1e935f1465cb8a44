package policytest

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"go.yaml.in/yaml/v3"
)

// contract is an OpenAPI document as tests and audits see it: the names of its
// operations, and where things stand. The contract stage reads it for real.
type contract struct {
	name       string
	operations []*operation
	schemes    map[string]bool // the kinds of security schemes that are declared, e.g. apiKey
}

type operation struct {
	id, method, path string
	line             int
	secured          bool    // the contract says something about security
	asks             bool    // and lets nobody in without a credential
	bodies           []place // the schemas of JSON and form bodies
}

// writes reports whether the operation is there to change something.
func (o *operation) writes() bool {
	switch o.method {
	case "POST", "PUT", "PATCH", "DELETE":
		return true
	}
	return false
}

// asks reports whether each alternative of a security names a scheme.
func asks(security place) bool {
	all, open := 0, false
	security.items(func(alternative place) {
		schemes := 0
		alternative.each(func(string, place) { schemes++ })
		all++
		open = open || schemes == 0
	})
	return all > 0 && !open
}

// place is a value in a document of several files.
type place struct {
	docs *documents
	file string
	node *yaml.Node
	line int // where its name stands
}

// documents are the files of a contract that were read so far.
type documents struct{ files map[string]*yaml.Node }

var methods = []string{"get", "put", "post", "delete", "options", "head", "patch", "trace", "query"}

func readContract(file string) (*contract, error) {
	docs := &documents{files: map[string]*yaml.Node{}}
	root, err := docs.open(file)
	if err != nil {
		return nil, err
	}
	c := &contract{name: file, schemes: map[string]bool{}}
	components, _ := root.child("components")
	schemes, _ := components.child("securitySchemes")
	schemes.each(func(_ string, at place) { c.schemes[at.follow().text("type")] = true })
	general, everywhere := root.child("security")
	paths, _ := root.child("paths")
	paths.each(func(path string, item place) {
		item = item.follow()
		for _, method := range methods {
			at, ok := item.child(method)
			if !ok {
				continue
			}
			op := &operation{id: at.text("operationId"), method: strings.ToUpper(method), path: path, line: at.line}
			if op.id == "" {
				op.id = op.method + " " + path
			}
			security, own := at.child("security")
			if !own {
				security = general
			}
			op.secured, op.asks = own || everywhere, asks(security)
			body, _ := at.child("requestBody")
			content, _ := body.follow().child("content")
			content.each(func(media string, t place) {
				if schema, ok := t.child("schema"); ok && (strings.Contains(media, "json") || strings.Contains(media, "form")) {
					op.bodies = append(op.bodies, schema)
				}
			})
			c.operations = append(c.operations, op)
		}
	})
	return c, nil
}

func (d *documents) open(file string) (place, error) {
	if n, ok := d.files[file]; ok {
		return place{d, file, n, 1}, nil
	}
	data, err := os.ReadFile(file) //nolint:gosec // the operator's own file, or one beside it
	if err != nil {
		return place{}, fmt.Errorf("contract: %w", err)
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return place{}, fmt.Errorf("%s: %w", file, err)
	}
	if len(doc.Content) == 0 {
		return place{}, fmt.Errorf("%s: the file is empty", file)
	}
	d.files[file] = doc.Content[0]
	return place{d, file, doc.Content[0], 1}, nil
}

func (p place) child(name string) (place, bool) {
	if p.node == nil || resolved(p.node).Kind != yaml.MappingNode {
		return place{docs: p.docs, file: p.file}, false
	}
	n := resolved(p.node)
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == name {
			return place{p.docs, p.file, n.Content[i+1], n.Content[i].Line}, true
		}
	}
	return place{docs: p.docs, file: p.file}, false
}

func (p place) text(name string) string {
	c, ok := p.child(name)
	if !ok || resolved(c.node).Kind != yaml.ScalarNode {
		return ""
	}
	return resolved(c.node).Value
}

func (p place) each(visit func(name string, at place)) {
	if p.node == nil || resolved(p.node).Kind != yaml.MappingNode {
		return
	}
	n := resolved(p.node)
	for i := 0; i+1 < len(n.Content); i += 2 {
		visit(n.Content[i].Value, place{p.docs, p.file, n.Content[i+1], n.Content[i].Line})
	}
}

func (p place) items(visit func(at place)) {
	if p.node == nil || resolved(p.node).Kind != yaml.SequenceNode {
		return
	}
	for _, item := range resolved(p.node).Content {
		visit(place{p.docs, p.file, item, item.Line})
	}
}

// follow goes where a reference leads. One that leads nowhere, or round and
// round, is left to the contract stage to refuse.
func (p place) follow() place {
	for range 32 {
		ref := p.text("$ref")
		if ref == "" {
			return p
		}
		file, pointer, _ := strings.Cut(ref, "#")
		var at place
		var err error
		switch {
		case file == "":
			at, err = p.docs.open(p.file)
		case strings.Contains(file, "://"):
			return place{docs: p.docs, file: p.file}
		default:
			at, err = p.docs.open(filepath.Join(filepath.Dir(p.file), filepath.FromSlash(file)))
		}
		if err != nil {
			return place{docs: p.docs, file: p.file}
		}
		for part := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
			if part == "" {
				continue
			}
			if plain, err := url.PathUnescape(part); err == nil {
				part = plain
			}
			part = strings.ReplaceAll(strings.ReplaceAll(part, "~1", "/"), "~0", "~")
			var ok bool
			if at, ok = at.child(part); !ok {
				return at
			}
		}
		p = at
	}
	return place{docs: p.docs, file: p.file}
}
