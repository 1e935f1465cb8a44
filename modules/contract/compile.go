package contract

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"mime"
	"os"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"

	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/members"
	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/openapi"
	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/param"
	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/route"
	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/schema"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// compiledContract is a document made ready. It is immutable.
type compiledContract struct {
	router route.Router[*operation]
	bases  []string
	all    []*operation
	schema *body // of a plain JSON Schema: what every request must match

	otherwise *gate.Operation // what the document asks for everywhere; nil: nothing
	unknown   unknown
	asks      string // where the first operation stands that needs a credential; empty: none
}

// Destruct has nothing to release: requests may still hold the contract.
func (*compiledContract) Destruct() error { return nil }

// operation is one operation with what its input is checked by. The embedded
// one is what the other stages see.
type operation struct {
	gate.Operation
	params    []*parameter
	body      *body
	responses []responseSpec // nil: not looked at
	lifetime  lifetime
}

type parameter struct {
	*openapi.Param
	shape  *param.Shape
	schema schema.Schema // nil: anything goes
}

type body struct {
	required bool
	types    []mediaType
	accept   string // the types, as a client is told
}

type mediaType struct {
	media  string // type/subtype, lower case; may have stars
	params map[string]string
	json   bool
	form   bool
	shape  *param.Shape
	schema schema.Schema // nil: the body is not read
}

// contracts shares compiled documents over handlers, sites and reloads.
var contracts = caddy.NewUsagePool()

// acquire compiles a document, or takes the one that was compiled from the
// same bytes. The key it returns gives it back.
func acquire(file, basePath string, plain, responses bool) (*compiledContract, string, error) {
	main, err := openapi.ReadFile(file)
	if err != nil {
		if os.IsNotExist(err) {
			return nil, "", fmt.Errorf("contract %q does not exist", file)
		}
		return nil, "", err
	}
	files := openapi.NewFiles(main)
	var read *openapi.Contract
	if !plain {
		if read, err = openapi.Read(main, files); err != nil {
			return nil, "", err
		}
	}
	key := fingerprint(files, basePath, plain, responses)
	c, _, err := contracts.LoadOrNew(key, func() (caddy.Destructor, error) {
		if plain {
			return compileSchema(main, files)
		}
		return compile(read, basePath, responses)
	})
	if err != nil {
		return nil, "", err
	}
	return c.(*compiledContract), key, nil
}

// fingerprint covers the main document and all that lies beside it under a
// reference: reading the operations has followed those that matter to routing,
// and schemas in other files are named with their content once read.
func fingerprint(files *openapi.Files, basePath string, plain, responses bool) string {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%q%v%v", basePath, plain, responses)
	for _, f := range files.Closure() {
		_, _ = fmt.Fprintf(h, "%q%d:", f.Name, len(f.Data))
		_, _ = h.Write(f.Data) // its length is in front: quoting it would take its memory twice more
	}
	return hex.EncodeToString(h.Sum(nil))
}

func compile(doc *openapi.Contract, basePath string, responses bool) (*compiledContract, error) {
	c := &compiledContract{bases: doc.Bases, unknown: unknownWords(doc.Root)}
	if doc.Security != nil {
		c.otherwise = &gate.Operation{Security: security(doc.Security)}
	}
	if basePath != "" {
		c.bases = []string{strings.TrimRight(basePath, "/")}
	}
	// The longest first, so that /v1 does not hide /v1/beta.
	slices.SortStableFunc(c.bases, func(a, b string) int { return len(b) - len(a) })

	dialect := schema.OpenAPI30
	if doc.Version != "3.0" {
		dialect = schema.Draft2020
	}
	compiler := schema.NewCompiler(dialect)
	shared := make(map[parameterKey]*parameter)
	answers := &answers{schema.NewResponseCompiler(dialect), members.NewBuilder()}
	for _, o := range doc.Operations {
		op := &operation{Operation: gate.Operation{ID: o.ID, Method: o.Method, Path: o.Path, Security: security(o.Security), Authentication: gate.Authentication{ACR: o.ACR, MaxAge: o.MaxAge}}}
		for _, p := range o.Params {
			ready, err := compileParameter(p, compiler, shared)
			if err != nil {
				return nil, err
			}
			op.params = append(op.params, ready)
		}
		if o.Body != nil {
			var err error
			if op.body, err = compileBody(o.Body, compiler); err != nil {
				return nil, err
			}
		}
		op.lifetime = lifetimeOf(o.Deprecated, o.Sunset)
		if responses {
			var err error
			if op.responses, err = answers.compile(o); err != nil {
				return nil, err
			}
		}
		c.all = append(c.all, op)
		if c.asks == "" && op.Security != nil && !op.Anonymous() {
			c.asks = o.At.Where()
		}
		if err := c.router.Add(o.Method, o.Path, op); err != nil {
			return nil, o.At.Errorf("%w", err)
		}
	}
	if err := compiler.Finish(); err != nil {
		return nil, err
	}
	if err := answers.compiler.Finish(); err != nil {
		return nil, err
	}
	return c, nil
}

// parameterKey is what a parameter is made of.
type parameterKey struct {
	described openapi.Param // without its schema
	at        openapi.Identity
}

// compileParameter makes a parameter ready. Many operations have the same ones.
func compileParameter(p *openapi.Param, compiler *schema.Compiler, shared map[parameterKey]*parameter) (*parameter, error) {
	described := *p
	described.Schema = openapi.Node{} // would keep the whole document in memory
	key := parameterKey{described: described}
	if p.HasSchema {
		key.at = p.Schema.Identity()
	}
	if ready := shared[key]; ready != nil {
		return ready, nil
	}
	ready := &parameter{Param: &described}
	if p.HasSchema {
		var err error
		ready.shape = param.ShapeOf(p.Schema)
		if ready.schema, err = compiler.Compile(p.Schema); err != nil {
			return nil, err
		}
	}
	shared[key] = ready
	return ready, nil
}

func compileBody(b *openapi.Body, compiler *schema.Compiler) (*body, error) {
	out := &body{required: b.Required}
	var names []string
	for _, t := range b.Types {
		media, params, err := mime.ParseMediaType(t.Range)
		if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
			return nil, b.At.Errorf("content type %q is none: %w; write for example application/json", t.Range, err)
		}
		m := mediaType{media: media, params: params, json: isJSON(media), form: media == "application/x-www-form-urlencoded"}
		if t.HasSchema && (m.json || m.form || strings.Contains(media, "*")) {
			if !m.json { // which knows its types itself
				m.shape = param.ShapeOf(t.Schema)
			}
			if m.schema, err = compiler.Compile(t.Schema); err != nil {
				return nil, err
			}
		}
		out.types = append(out.types, m)
		names = append(names, t.Range)
	}
	out.accept = strings.Join(names, ", ")
	return out, nil
}

// answers compiles responses, which the compiler of requests cannot: other
// members need not be there.
type answers struct {
	compiler *schema.Compiler
	shapes   *members.Builder
}

func (a *answers) compile(o *openapi.Operation) (out []responseSpec, err error) {
	all, err := o.Responses()
	if err != nil {
		return nil, err
	}
	for _, r := range all {
		spec := responseSpec{status: r.Status}
		for _, t := range r.Types {
			media, params, err := mime.ParseMediaType(t.Range)
			if err != nil && !errors.Is(err, mime.ErrInvalidMediaParameter) {
				return nil, o.At.Errorf("content type %q of response %s is none: %w; write for example application/json", t.Range, r.Status, err)
			}
			typ := responseType{mediaType: mediaType{media: media, params: params, json: isJSON(media)}}
			if t.HasSchema && (typ.json || strings.Contains(media, "*")) {
				if typ.schema, err = a.compiler.Compile(t.Schema); err != nil {
					return nil, err
				}
				typ.members = a.shapes.Of(t.Schema)
			}
			spec.types = append(spec.types, typ)
		}
		out = append(out, spec)
	}
	return out, nil
}

// compileSchema makes a plain JSON Schema ready for the bodies of a route.
func compileSchema(main *openapi.File, files *openapi.Files) (*compiledContract, error) {
	dialect, err := schema.DialectOf(main.Root)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", main.Name, err)
	}
	compiler := schema.NewCompiler(dialect)
	s, err := compiler.Compile(openapi.Node{Files: files, File: main, Value: main.Root})
	if err != nil {
		return nil, err
	}
	if err := compiler.Finish(); err != nil {
		return nil, err
	}
	return &compiledContract{schema: &body{
		required: true, accept: "application/json",
		types: []mediaType{{media: "application/json", json: true, schema: s}},
	}}, nil
}

func security(alternatives [][]openapi.Scheme) []gate.Alternative {
	if alternatives == nil {
		return nil
	}
	out := make([]gate.Alternative, 0, len(alternatives))
	for _, schemes := range alternatives {
		alt := make(gate.Alternative, 0, len(schemes))
		for _, s := range schemes {
			alt = append(alt, gate.Scheme(s))
		}
		out = append(out, alt)
	}
	return out
}

func isJSON(media string) bool {
	return media == "application/json" || strings.HasSuffix(media, "+json")
}
