// Package openapi reads API contracts: OpenAPI 3.0 to 3.2 in YAML or JSON.
//
// A document is read into a plain tree of maps, lists and scalars with the line
// each value stands on, and the operations are found by walking it. No model of
// the whole specification stands in between: what the gateway does not enforce
// may be there in any shape, so that real documents load, and the schema
// libraries get the tree as it was written.
package openapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/gatehouse-caddy/gatehouse/modules/gate/strictjson"
)

// maxNodes bounds a document with its aliases expanded, which may make it ten
// times as large, and a small one larger still.
const (
	maxNodes    = 5_000_000
	maxDepth    = 500
	maxUnfolded = 100_000
)

// File is one file of a contract.
type File struct {
	Name  string
	Root  any
	Data  []byte
	lines map[string]int // by JSON pointer; of JSON, only once a line is asked for
	json  []byte         // what to read lines from then
}

// ReadFile reads a file in YAML or JSON.
func ReadFile(name string) (*File, error) {
	data, err := os.ReadFile(name) //nolint:gosec // the operator's own file, or one beside it
	if err != nil {
		return nil, err
	}
	return ReadBytes(name, data)
}

// ReadBytes reads the content of a file.
func ReadBytes(name string, data []byte) (*File, error) {
	f := &File{Name: name, Data: data, lines: make(map[string]int)}
	if trimmed := bytes.TrimLeft(data, " \t\r\n\ufeff"); len(trimmed) > 0 && (trimmed[0] == '{' || trimmed[0] == '[') {
		if err := f.readJSON(trimmed, len(data)-len(trimmed)); err != nil {
			return nil, err
		}
		return f, f.checkNumbers(f.Root, "")
	}
	var doc yaml.Node
	if err := yaml.Unmarshal(data, &doc); err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(doc.Content) == 0 {
		return nil, fmt.Errorf("%s: the file is empty", name)
	}
	t := &tree{file: f}
	if err := t.measure(doc.Content[0]); err != nil {
		return nil, err
	}
	root, err := t.value(doc.Content[0], "", 0)
	if err != nil {
		return nil, err
	}
	f.Root = root
	return f, f.checkNumbers(root, "")
}

// checkNumbers refuses numbers that a schema library would calculate with for
// seconds, or panic on.
func (f *File) checkNumbers(v any, pointer string) error {
	switch v := v.(type) {
	case json.Number:
		if _, err := strictjson.Decode([]byte(v), strictjson.Limits{}); err != nil {
			return fmt.Errorf("%s: %w", f.place(pointer), err)
		}
	case map[string]any:
		for name, item := range v {
			if err := f.checkNumbers(item, pointer+"/"+Escape(name)); err != nil {
				return err
			}
		}
	case []any:
		for i, item := range v {
			if err := f.checkNumbers(item, pointer+"/"+strconv.Itoa(i)); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *File) readJSON(data []byte, skipped int) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	err := dec.Decode(&f.Root)
	if err == nil {
		if _, end := dec.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("there is something behind the document")
		}
	}
	if err != nil {
		at := dec.InputOffset()
		if syntax, ok := errors.AsType[*json.SyntaxError](err); ok {
			at = syntax.Offset
		}
		return fmt.Errorf("%s:%d: %w", f.Name, 1+bytes.Count(f.Data[:min(int64(len(f.Data)), int64(skipped)+at)], []byte("\n")), err)
	}
	f.json = data
	return nil
}

// number finds the lines of a JSON document. Most are never asked for, and they
// take more memory than the largest documents themselves.
func (f *File) number() {
	data := f.json
	f.json = nil
	// JSON is YAML, as far as lines are concerned; where it is not, errors go
	// without them.
	var doc yaml.Node
	if bytes.Count(data, []byte("\n")) > 1 && yaml.Unmarshal(data, &doc) == nil && len(doc.Content) > 0 {
		if t := (&tree{file: f}); t.measure(doc.Content[0]) == nil {
			_, _ = t.value(doc.Content[0], "", 0)
		}
	}
}

// place names a value: by its line, and where a document is all in one, by its
// pointer too.
func (f *File) place(pointer string) string {
	where := f.Name + ":" + strconv.Itoa(f.Line(pointer))
	if data := bytes.TrimSpace(f.Data); pointer != "" && data[0] == '{' && bytes.IndexByte(data, '\n') < 0 {
		where += " " + pointer
	}
	return where
}

// Line is where the value at a pointer stands, or the nearest around it.
func (f *File) Line(pointer string) int {
	if f.json != nil {
		f.number()
	}
	for {
		if line, ok := f.lines[pointer]; ok {
			return line
		}
		cut := strings.LastIndexByte(pointer, '/')
		if cut < 0 {
			return 1
		}
		pointer = pointer[:cut]
	}
}

// tree turns YAML nodes into plain values.
type tree struct {
	file  *File
	sizes map[*yaml.Node]int // of what aliases stand for; zero while it is measured
	own   int                // nodes without what aliases stand for
}

const tooLarge = "the document is too large or too deep"

// measure refuses, before anything is unfolded, what is too large with its aliases:
// a few lines of them can stand for gigabytes.
func (t *tree) measure(root *yaml.Node) error {
	t.sizes = make(map[*yaml.Node]int)
	size, err := t.size(root, 0)
	if err == nil && size-t.own > max(maxUnfolded, 10*t.own) {
		err = t.fail(root, tooLarge+": its aliases stand for %d values", size-t.own)
	}
	return err
}

func (t *tree) size(n *yaml.Node, depth int) (size int, err error) {
	if depth > maxDepth {
		return 0, t.fail(n, tooLarge)
	}
	if n.Kind == yaml.AliasNode {
		size, known := t.sizes[n.Alias]
		if known && size == 0 {
			return 0, t.fail(n, "the document contains itself")
		}
		return size + 1, nil // what it stands for stands before it
	}
	if n.Anchor != "" {
		t.sizes[n] = 0
	}
	t.own++
	size = 1
	for _, c := range n.Content {
		inner, err := t.size(c, depth+1)
		if err != nil {
			return 0, err
		}
		if size += inner; size > maxNodes {
			return 0, t.fail(n, tooLarge)
		}
	}
	if n.Anchor != "" {
		t.sizes[n] = size
	}
	return size, nil
}

func (t *tree) fail(n *yaml.Node, format string, args ...any) error {
	return fmt.Errorf("%s:%d: %s", t.file.Name, n.Line, fmt.Sprintf(format, args...))
}

func (t *tree) value(n *yaml.Node, pointer string, depth int) (any, error) {
	if depth > maxDepth {
		return nil, t.fail(n, tooLarge)
	}
	if _, ok := t.file.lines[pointer]; !ok {
		t.file.lines[pointer] = n.Line
	}
	switch n.Kind {
	case yaml.AliasNode:
		return t.value(n.Alias, pointer, depth+1)
	case yaml.MappingNode:
		return t.mapping(n, pointer, depth)
	case yaml.SequenceNode:
		list := make([]any, len(n.Content))
		for i, c := range n.Content {
			v, err := t.value(c, pointer+"/"+strconv.Itoa(i), depth+1)
			if err != nil {
				return nil, err
			}
			list[i] = v
		}
		return list, nil
	default:
		return t.scalar(n)
	}
}

func (t *tree) mapping(n *yaml.Node, pointer string, depth int) (any, error) {
	m := make(map[string]any, len(n.Content)/2)
	var merged []map[string]any
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, c := n.Content[i], n.Content[i+1]
		if k.ShortTag() == "!!merge" {
			v, err := t.value(c, pointer, depth+1)
			if err != nil {
				return nil, err
			}
			if from, ok := v.(map[string]any); ok {
				merged = append(merged, from)
			}
			continue
		}
		if k.Kind != yaml.ScalarNode {
			return nil, t.fail(k, "a member name must be a text")
		}
		if _, twice := m[k.Value]; twice {
			return nil, t.fail(k, "%q stands twice", k.Value)
		}
		child := pointer + "/" + Escape(k.Value)
		v, err := t.value(c, child, depth+1)
		if err != nil {
			return nil, err
		}
		t.file.lines[child] = k.Line
		m[k.Value] = v
	}
	for _, from := range merged {
		for k, v := range from {
			if _, own := m[k]; !own {
				m[k] = v
			}
		}
	}
	return m, nil
}

func (t *tree) scalar(n *yaml.Node) (any, error) {
	switch n.ShortTag() {
	case "!!null":
		return nil, nil
	case "!!bool":
		var b bool
		return b, n.Decode(&b)
	case "!!int":
		var i int64
		if n.Decode(&i) == nil {
			return json.Number(strconv.FormatInt(i, 10)), nil
		}
		if isNumber(n.Value) {
			return json.Number(n.Value), nil
		}
	case "!!float":
		if isNumber(n.Value) {
			return json.Number(n.Value), nil
		}
		var f float64
		if n.Decode(&f) == nil && f == f && f < 1e308 && f > -1e308 {
			return json.Number(strconv.FormatFloat(f, 'g', -1, 64)), nil
		}
	}
	return n.Value, nil
}

func isNumber(s string) bool {
	var n json.Number
	return json.Unmarshal([]byte(s), &n) == nil && s != "" && s[0] != '"'
}

// Escape makes a member name a token of a JSON pointer (RFC 6901).
func Escape(name string) string {
	return strings.ReplaceAll(strings.ReplaceAll(name, "~", "~0"), "/", "~1")
}

func unescape(token string) string {
	return strings.ReplaceAll(strings.ReplaceAll(token, "~1", "/"), "~0", "~")
}

// Files are the files of one contract, read when first referred to.
type Files struct {
	dir  string
	all  map[string]*File
	list []*File // in the order they were read
}

// NewFiles starts with the main file.
func NewFiles(main *File) *Files {
	return &Files{dir: filepath.Dir(main.Name), all: map[string]*File{main.Name: main}, list: []*File{main}}
}

// List returns the files read so far.
func (s *Files) List() []*File { return s.list }

// open reads a file that another refers to. It must lie in the folder of the
// main one or below: a contract is no way to read the machine's files.
func (s *Files) open(from *File, ref string) (*File, error) {
	if strings.Contains(ref, "://") {
		return nil, fmt.Errorf("references to %q are not followed; keep a copy beside the contract", ref)
	}
	name := filepath.Join(filepath.Dir(from.Name), filepath.FromSlash(ref))
	if rel, err := filepath.Rel(s.dir, name); err != nil || !filepath.IsLocal(rel) {
		return nil, fmt.Errorf("reference %q leads out of the contract's folder", ref)
	}
	if f := s.all[name]; f != nil {
		return f, nil
	}
	f, err := ReadFile(name)
	if err != nil {
		return nil, err
	}
	s.all[name] = f
	s.list = append(s.list, f)
	return f, nil
}

// Node is one value of a contract with its place.
type Node struct {
	Files   *Files
	File    *File
	Pointer string
	Value   any
}

// Identity tells nodes apart by what they say: two of one identity are the same
// object of the same file, wherever they stand. It holds while the file is in
// memory.
type Identity struct {
	file    *File
	object  uintptr
	pointer string // of what is no object
}

// Identity is the node's.
func (n Node) Identity() Identity {
	if m, ok := n.Value.(map[string]any); ok {
		return Identity{file: n.File, object: reflect.ValueOf(m).Pointer()}
	}
	return n.Place()
}

// Place tells nodes apart by where they stand.
func (n Node) Place() Identity { return Identity{file: n.File, pointer: n.Pointer} }

// Where is the file and line of the node, for a person.
func (n Node) Where() string { return n.File.place(n.Pointer) }

// Errorf is an error at the node's place.
func (n Node) Errorf(format string, args ...any) error {
	return fmt.Errorf("%s: %w", n.Where(), fmt.Errorf(format, args...))
}

// Child is a member or element as it is written; ok tells whether it is there.
func (n Node) Child(name string) (child Node, ok bool) {
	child = Node{n.Files, n.File, n.Pointer + "/" + Escape(name), nil}
	switch v := n.Value.(type) {
	case map[string]any:
		child.Value, ok = v[name]
	case []any:
		i, err := strconv.Atoi(name)
		if ok = err == nil && i >= 0 && i < len(v); ok {
			child.Value = v[i]
		}
	}
	return child, ok
}

// Get is Child with references followed.
func (n Node) Get(name string) (Node, bool, error) {
	child, ok := n.Child(name)
	if !ok {
		return child, false, nil
	}
	child, err := child.Resolve()
	return child, err == nil, err
}

// Text is a member that is a text, or empty.
func (n Node) Text(name string) string {
	c, _ := n.Child(name)
	s, _ := c.Value.(string)
	return s
}

// Flag is a member that is true or false; def when it is not there.
func (n Node) Flag(name string, def bool) bool {
	c, _ := n.Child(name)
	if b, ok := c.Value.(bool); ok {
		return b
	}
	return def
}

// Resolve follows references until something else is found.
func (n Node) Resolve() (Node, error) {
	for range 64 {
		m, _ := n.Value.(map[string]any)
		ref, ok := m["$ref"].(string)
		if !ok {
			return n, nil
		}
		var err error
		if n, err = n.follow(ref); err != nil {
			return n, err
		}
	}
	return n, n.Errorf("references go in a circle")
}

func (n Node) follow(ref string) (Node, error) {
	path, fragment, _ := strings.Cut(ref, "#")
	target := n.File
	if path != "" {
		f, err := n.Files.open(n.File, path)
		if err != nil {
			return n, n.Errorf("%w", err)
		}
		target = f
	}
	at := Node{n.Files, target, "", target.Root}
	if fragment == "" {
		return at, nil
	}
	if !strings.HasPrefix(fragment, "/") {
		return n, n.Errorf("reference %q is not a JSON pointer", ref)
	}
	for token := range strings.SplitSeq(fragment[1:], "/") {
		if strings.Contains(token, "%") {
			if plain, err := unpercent(token); err == nil {
				token = plain
			}
		}
		next, ok := at.Child(unescape(token))
		if !ok {
			return n, n.Errorf("reference %q leads nowhere", ref)
		}
		at = next
	}
	return at, nil
}

// Step follows the reference that the node is, once.
func (n Node) Step() (Node, error) {
	m, _ := n.Value.(map[string]any)
	ref, ok := m["$ref"].(string)
	if !ok {
		return n, nil
	}
	return n.follow(ref)
}

// Closure reads every file that any reference leads to and lists them all.
// References that lead nowhere are left for whoever needs them to report.
func (s *Files) Closure() []*File {
	for i := 0; i < len(s.list); i++ {
		s.references(s.list[i], s.list[i].Root)
	}
	return s.list
}

func (s *Files) references(f *File, v any) {
	switch v := v.(type) {
	case map[string]any:
		if ref, ok := v["$ref"].(string); ok {
			if path, _, _ := strings.Cut(ref, "#"); path != "" {
				_, _ = s.open(f, path)
			}
		}
		for _, name := range names(v) {
			s.references(f, v[name])
		}
	case []any:
		for _, item := range v {
			s.references(f, item)
		}
	}
}
