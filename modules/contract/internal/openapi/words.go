package openapi

import (
	"slices"
	"strconv"
	"strings"
)

// Word is a member of a document that OpenAPI does not know: what it was meant to
// say is not done.
type Word struct {
	At   Node
	In   string // the kind of object
	Text string
	Near string // what it was likely meant to be, or empty
}

// maxWords are told of one document.
const maxWords = 10

// known lists the words of OpenAPI 3.0 to 3.2 by the kind of object.
var known = map[string][]string{
	"document":        {"$self", "openapi", "info", "jsonSchemaDialect", "servers", "paths", "webhooks", "components", "security", "tags", "externalDocs"},
	"path item":       slices.Concat([]string{"$ref", "summary", "description", "servers", "parameters", "additionalOperations"}, methods),
	"operation":       {"tags", "summary", "description", "externalDocs", "operationId", "parameters", "requestBody", "responses", "callbacks", "deprecated", "security", "servers"},
	"parameter":       {"name", "in", "description", "required", "deprecated", "allowEmptyValue", "style", "explode", "allowReserved", "schema", "example", "examples", "content"},
	"request body":    {"description", "content", "required"},
	"media type":      {"description", "schema", "itemSchema", "example", "examples", "encoding", "prefixEncoding", "itemEncoding"},
	"response":        {"summary", "description", "headers", "content", "links"},
	"components":      {"schemas", "responses", "parameters", "examples", "requestBodies", "headers", "securitySchemes", "links", "callbacks", "pathItems", "mediaTypes"},
	"security scheme": {"type", "description", "name", "in", "scheme", "bearerFormat", "flows", "openIdConnectUrl", "oauth2MetadataUrl", "deprecated"},
	"schema": {
		"$anchor", "$comment", "$defs", "$dynamicAnchor", "$dynamicRef", "$id", "$recursiveAnchor", "$recursiveRef", "$ref", "$schema", "$vocabulary",
		"additionalItems", "additionalProperties", "allOf", "anyOf", "const", "contains", "contentEncoding", "contentMediaType", "contentSchema", "default",
		"definitions", "dependencies", "dependentRequired", "dependentSchemas", "deprecated", "description", "discriminator", "else", "enum", "example",
		"examples", "exclusiveMaximum", "exclusiveMinimum", "externalDocs", "format", "if", "items", "maxContains", "maxItems", "maxLength", "maxProperties",
		"maximum", "minContains", "minItems", "minLength", "minProperties", "minimum", "multipleOf", "not", "nullable", "oneOf", "pattern", "patternProperties",
		"prefixItems", "properties", "propertyNames", "readOnly", "required", "then", "title", "type", "unevaluatedItems", "unevaluatedProperties", "uniqueItems",
		"writeOnly", "xml",
	},
}

// words looks through a document.
type words struct {
	near func(word string, known []string) string
	told map[string]string // what is near to a word of a schema
	seen map[Identity]bool
	list []Word
	more int
}

// Misspelt finds words of a document that nobody knows, the first ten, and counts
// the others. near finds the known word that one was likely meant to be. In
// schemas, where anything may stand, only words with such a neighbour are told.
func Misspelt(root Node, near func(word string, known []string) string) (list []Word, more int) {
	var w words
	w.look(root, near)
	slices.SortStableFunc(w.list, func(a, b Word) int {
		return strings.Compare(a.At.File.Name+"\x00"+a.At.Pointer, b.At.File.Name+"\x00"+b.At.Pointer)
	})
	if n := len(w.list); n > maxWords {
		return w.list[:maxWords], n - maxWords + w.more
	}
	return w.list, w.more
}

func (w *words) look(root Node, near func(word string, known []string) string) {
	w.near, w.told, w.seen = near, map[string]string{}, map[Identity]bool{}
	w.object(root, "document")
	w.members(root, "paths", func(path string, item Node) {
		if strings.HasPrefix(path, "/") {
			w.pathItem(item)
		} else if !strings.HasPrefix(path, "x-") {
			w.tell(Word{At: item, In: "paths", Text: path, Near: "/" + path})
		}
	})
	components, _ := root.Child("components")
	w.object(components, "components")
	for kind, look := range map[string]func(Node){
		"parameters": w.parameter, "requestBodies": w.body, "responses": w.response, "schemas": w.schema, "pathItems": w.pathItem, "mediaTypes": w.media,
		"securitySchemes": func(n Node) { w.object(n, "security scheme") },
	} {
		w.members(components, kind, func(_ string, n Node) { look(n) })
	}
}

// enough bounds what is remembered until it is put in order.
const enough = 1000

func (w *words) tell(found Word) {
	if len(w.list) == enough {
		w.more++
		return
	}
	w.list = append(w.list, found)
}

// object looks at the words of an object. It reports whether there is one which has
// not been looked at before.
func (w *words) object(n Node, kind string) bool {
	m, ok := n.Value.(map[string]any)
	if !ok || w.seen[n.Identity()] {
		return false
	}
	w.seen[n.Identity()] = true
	if _, elsewhere := m["$ref"]; elsewhere && kind != "path item" && kind != "schema" {
		return true
	}
	for word := range m {
		if strings.HasPrefix(word, "x-") || slices.Contains(known[kind], word) {
			continue
		}
		near := w.nearest(word, kind)
		if kind == "schema" && (near == "" || len(word) < 5) {
			continue
		}
		at, _ := n.Child(word)
		w.tell(Word{At: at, In: kind, Text: word, Near: near})
	}
	return true
}

func (w *words) nearest(word, kind string) string {
	key := kind + "/" + word
	near, ok := w.told[key]
	if !ok {
		near = w.near(word, known[kind])
		w.told[key] = near
	}
	return near
}

// members visits what an object or a list holds, with references followed. Those
// that lead nowhere are an error elsewhere, if it matters.
func (w *words) members(n Node, name string, visit func(string, Node)) {
	all, _ := n.Child(name)
	each := func(name string) {
		if item, ok, err := all.Get(name); ok && err == nil {
			visit(name, item)
		}
	}
	switch v := all.Value.(type) {
	case map[string]any:
		for name := range v {
			each(name)
		}
	case []any:
		for i := range v {
			each(strconv.Itoa(i))
		}
	}
}

func (w *words) pathItem(n Node) {
	if !w.object(n, "path item") {
		return
	}
	w.members(n, "parameters", func(_ string, n Node) { w.parameter(n) })
	for _, method := range methods {
		op, ok := n.Child(method)
		if !ok || !w.object(op, "operation") {
			continue
		}
		w.members(op, "parameters", func(_ string, n Node) { w.parameter(n) })
		w.members(op, "responses", func(_ string, n Node) { w.response(n) })
		if body, ok, err := op.Get("requestBody"); ok && err == nil {
			w.body(body)
		}
	}
}

func (w *words) parameter(n Node) {
	if w.object(n, "parameter") {
		w.described(n)
	}
}

func (w *words) body(n Node) {
	if w.object(n, "request body") {
		w.described(n)
	}
}

func (w *words) response(n Node) {
	if w.object(n, "response") {
		w.described(n)
	}
}

func (w *words) media(n Node) {
	if w.object(n, "media type") {
		w.described(n)
	}
}

// described looks at a schema, or at those of the content.
func (w *words) described(n Node) {
	if schema, ok := n.Child("schema"); ok {
		w.schema(schema)
	}
	w.members(n, "content", func(_ string, n Node) { w.media(n) })
}

func (w *words) schema(n Node) {
	if !w.object(n, "schema") {
		return
	}
	if target, err := n.Step(); err == nil {
		w.schema(target)
	}
	for _, one := range []string{"items", "additionalItems", "additionalProperties", "not", "if", "then", "else", "contains", "propertyNames", "unevaluatedItems", "unevaluatedProperties", "contentSchema"} {
		if sub, ok := n.Child(one); ok {
			w.schema(sub)
		}
	}
	for _, many := range []string{"properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "allOf", "anyOf", "oneOf", "prefixItems"} {
		w.members(n, many, func(_ string, n Node) { w.schema(n) })
	}
}
