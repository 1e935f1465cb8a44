package schema

import (
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"

	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/openapi"
	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/pattern"
)

// newer compiles 2019-09, 2020-12 and OpenAPI 3.1 by santhosh-tekuri/jsonschema.
// What belongs to the contract is a resource; nothing else can be loaded.
type newer struct {
	compiler *jsonschema.Compiler
	copies   *bundle
	places   map[string]openapi.Node // of the copies, by URL
	copied   map[string]any          // the copies, by URL
	short    *shortener
	inPlace  bool // copies would not mean the same
	absent   string
	added    map[string]bool // files that are used as they are, by URL
}

// Where the library sees the contract's files, and copies of its schemas.
const (
	base   = "contract:///"
	copies = "copy:///"
)

func newNewer(d Dialect, absent string) *newer {
	c := jsonschema.NewCompiler()
	c.DefaultDraft(jsonschema.Draft2020)
	if d == Draft2019 {
		c.DefaultDraft(jsonschema.Draft2019)
	}
	c.AssertFormat()
	register(c)
	c.UseLoader(refuse{})
	c.UseRegexpEngine(func(text string) (jsonschema.Regexp, error) { return pattern.Compile(text) })
	out := &newer{compiler: c, places: make(map[string]openapi.Node), copied: make(map[string]any), absent: absent, added: make(map[string]bool)}
	out.short = &shortener{known: make(map[string]*node), resolve: func(ref string) (any, bool) {
		schema, ok := out.copied[ref]
		return schema, ok
	}}
	out.copies = &bundle{absent: absent, prefix: copies, names: make(map[openapi.Identity]string), define: func(name string, at openapi.Node, schema any) error {
		out.places[copies+name], out.copied[copies+name] = at, schema
		return c.AddResource(copies+name, schema)
	}}
	return out
}

type refuse struct{}

// Load refuses: what a schema refers to must be part of the contract.
func (refuse) Load(url string) (any, error) {
	return nil, fmt.Errorf("%q is not part of the contract", strings.TrimPrefix(url, base))
}

// compile gives the library each schema that is referred to as a resource of
// its own. Given whole documents, it copies its index of one for every pointer
// into it, which takes minutes for the largest public contracts.
func (c *newer) compile(n openapi.Node) (Schema, error) {
	if !c.inPlace {
		name := copies + c.copies.name(n)
		s, err := c.compileCopy(name)
		if err == nil {
			return withShortcut(&compiled{s}, c.short.shorten(map[string]any{"$ref": name})), nil
		}
		if !errors.Is(err, errNamed) {
			return nil, err
		}
		c.inPlace = true
	}
	s, err := c.compileInPlace(n)
	if err != nil {
		return nil, err
	}
	return &compiled{s}, nil
}

func (c *newer) compileCopy(name string) (*jsonschema.Schema, error) {
	if err := c.copies.rest(); err != nil {
		return nil, err
	}
	s, err := c.compiler.Compile(name)
	if invalid, ok := errors.AsType[*jsonschema.SchemaValidationError](err); ok {
		return nil, c.located(invalid)
	}
	return s, err
}

// located puts a schema's fault at its line.
func (c *newer) located(invalid *jsonschema.SchemaValidationError) error {
	url, _, _ := strings.Cut(invalid.URL, "#")
	n, ok := c.places[url]
	var why *jsonschema.ValidationError
	if !ok || !errors.As(invalid.Err, &why) {
		return invalid
	}
	for len(why.Causes) > 0 {
		why = why.Causes[0]
	}
	n.Pointer += at(why.InstanceLocation)
	return n.Errorf("%s %s", n.Pointer, describe(why.ErrorKind))
}

func (c *newer) compileInPlace(n openapi.Node) (*jsonschema.Schema, error) {
	for _, f := range n.Files.List() {
		url := address(f)
		if c.added[url] {
			continue
		}
		c.added[url] = true
		if err := c.compiler.AddResource(url, without(f.Root, c.absent)); err != nil {
			return nil, err
		}
	}
	return c.compiler.Compile(address(n.File) + "#" + n.Pointer)
}

// address keeps the place of a file relative to others, which references use.
func address(f *openapi.File) string {
	return base + strings.TrimLeft(strings.ReplaceAll(f.Name, "\\", "/"), "/")
}

// without copies a document with members not required that are marked.
func without(v any, mark string) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, item := range v {
			out[name] = without(item, mark)
		}
		members, _ := v["properties"].(map[string]any)
		dropReadOnly(out, func(name string) bool {
			member, _ := members[name].(map[string]any)
			ro, _ := member[mark].(bool)
			return ro
		})
		return out
	case []any:
		out := make([]any, len(v))
		for i, item := range v {
			out[i] = without(item, mark)
		}
		return out
	}
	return v
}

type compiled struct{ schema *jsonschema.Schema }

// Validate reports the leaves of what the library finds.
func (s *compiled) Validate(value any) []Violation {
	err := s.schema.Validate(value)
	if err == nil {
		return nil
	}
	var found *jsonschema.ValidationError
	if !errors.As(err, &found) {
		return []Violation{{Detail: "cannot be validated"}}
	}
	var out []Violation
	leaves(found, &out)
	return out
}

func leaves(e *jsonschema.ValidationError, out *[]Violation) {
	if len(*out) >= MaxViolations {
		return
	}
	switch k := e.ErrorKind.(type) {
	case *kind.OneOf, *kind.AnyOf, *kind.Not:
		// The branches' faults contradict each other; name the choice instead.
		add(out, Violation{at(e.InstanceLocation), describe(e.ErrorKind)})
		return
	case *kind.Required:
		for _, name := range k.Missing {
			add(out, Violation{at(e.InstanceLocation), "member " + strconv.Quote(name) + " is missing"})
		}
		return
	case *kind.AdditionalProperties:
		for _, name := range k.Properties {
			add(out, Violation{at(append(slices.Clone(e.InstanceLocation), name)), "is not a member that is known here"})
		}
		return
	}
	if len(e.Causes) == 0 {
		add(out, Violation{at(e.InstanceLocation), describe(e.ErrorKind)})
		return
	}
	for _, cause := range e.Causes {
		leaves(cause, out)
	}
}

func add(out *[]Violation, v Violation) {
	if len(*out) < MaxViolations && !slices.Contains(*out, v) {
		*out = append(*out, v)
	}
}

func at(location []string) string {
	var b strings.Builder
	for _, p := range location {
		b.WriteByte('/')
		b.WriteString(openapi.Escape(p))
	}
	return b.String()
}

// describe says what is wrong without what was sent, which the library's own
// texts repeat.
func describe(k jsonschema.ErrorKind) string {
	switch k := k.(type) {
	case *kind.Type:
		return "must be of type " + strings.Join(k.Want, " or ")
	case *kind.Minimum:
		return "must be at least " + rat(k.Want)
	case *kind.ExclusiveMinimum:
		return "must be greater than " + rat(k.Want)
	case *kind.Maximum:
		return "must be at most " + rat(k.Want)
	case *kind.ExclusiveMaximum:
		return "must be less than " + rat(k.Want)
	case *kind.MultipleOf:
		return "must be a multiple of " + rat(k.Want)
	case *kind.MinLength:
		return "must have at least " + strconv.Itoa(k.Want) + " characters"
	case *kind.MaxLength:
		return "must have at most " + strconv.Itoa(k.Want) + " characters"
	case *kind.MinItems:
		return "must have at least " + strconv.Itoa(k.Want) + " elements"
	case *kind.MaxItems:
		return "must have at most " + strconv.Itoa(k.Want) + " elements"
	case *kind.MinProperties:
		return "must have at least " + strconv.Itoa(k.Want) + " members"
	case *kind.MaxProperties:
		return "must have at most " + strconv.Itoa(k.Want) + " members"
	case *kind.UniqueItems:
		return "must not have an element twice"
	case *kind.Pattern:
		return "must match the pattern " + k.Want
	case *kind.Format:
		return "must be in the format " + k.Want
	case *kind.Enum:
		return fmt.Sprintf("must be one of %v", k.Want)
	case *kind.Const:
		return fmt.Sprintf("must be %v", k.Want)
	case *kind.OneOf:
		return "must match exactly one of the schemas"
	case *kind.AnyOf:
		return "must match at least one of the schemas"
	case *kind.Not:
		return "must not match the schema"
	case *kind.FalseSchema:
		return "is not allowed here"
	case *kind.Contains, *kind.MinContains, *kind.MaxContains:
		return "does not have the elements that are needed"
	}
	return "does not match the schema"
}

func rat(r *big.Rat) string {
	s := r.FloatString(6)
	return strings.TrimRight(strings.TrimRight(s, "0"), ".")
}
