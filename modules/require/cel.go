package require

import (
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/interpreter"
	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// programs shares compiled expressions over handlers, sites and reloads: one
// takes most of a millisecond to compile.
var programs = caddy.NewUsagePool()

// environment is the same for all expressions. Every name is declared on its
// own, so that a misspelt one fails when the configuration is loaded and a
// request pays only for what the expression looks at.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	options := make([]cel.EnvOption, 0, len(variables))
	for name, v := range variables {
		options = append(options, cel.Variable(name, v.kind))
	}
	return cel.NewEnv(options...)
})

// program is a compiled expression.
type program struct{ cel.Program }

// Destruct has nothing to close: a request may still hold the program.
func (*program) Destruct() error { return nil }

func compile(expression string) (*program, error) {
	env, err := environment()
	if err != nil {
		return nil, err
	}
	ast, issues := env.Compile(expression)
	if err := issues.Err(); err != nil {
		return nil, named(err)
	}
	if t := ast.OutputType(); !t.IsExactType(cel.BoolType) && !t.IsExactType(cel.DynType) {
		return nil, fmt.Errorf("it gives %s where a bool is needed", t)
	}
	p, err := env.Program(ast, cel.EvalOptions(cel.OptOptimize))
	if err != nil {
		return nil, err
	}
	return &program{p}, nil
}

var undeclared = regexp.MustCompile(`undeclared reference to '([a-z_]+)'`)

// named adds what may stand where a name is not known. CEL speaks of principal
// where principal.tennant is the mistake.
func named(err error) error {
	found := undeclared.FindStringSubmatch(err.Error())
	if found == nil {
		return err
	}
	var near, all []string
	for name := range variables {
		if strings.HasPrefix(name, found[1]+".") {
			near = append(near, name)
		}
		all = append(all, name)
	}
	if near == nil {
		near = all
	}
	slices.Sort(near)
	return fmt.Errorf("%w\nan expression knows %s", err, strings.Join(near, ", "))
}

// eval reports whether the expression is true; an error means it is not.
func (p *program) eval(ex *gate.Exchange, r *http.Request) (bool, error) {
	out, _, err := p.Eval(&activation{ex, r})
	if err != nil {
		return false, err
	}
	if b, ok := out.Value().(bool); ok {
		return b, nil
	}
	return false, fmt.Errorf("the expression gave %s where a bool is needed", out.Type())
}

// activation gives an expression what it asks for.
type activation struct {
	ex *gate.Exchange
	r  *http.Request
}

// ResolveName finds a variable by its whole name.
func (a *activation) ResolveName(name string) (any, bool) {
	v, ok := variables[name]
	if !ok {
		return nil, false
	}
	return v.of(a.ex, a.r), true
}

// Parent ends the chain of activations.
func (*activation) Parent() interpreter.Activation { return nil }

// variable is one name an expression may use.
type variable struct {
	kind *cel.Type
	of   func(*gate.Exchange, *http.Request) any
}

var (
	texts   = cel.ListType(cel.StringType)
	objects = cel.MapType(cel.StringType, cel.DynType)

	nobody  = new(gate.Principal) // what an anonymous caller looks like
	nothing = new(gate.Operation)
)

var variables = map[string]variable{
	"principal.subject":   text(func(p *gate.Principal) string { return p.Subject }),
	"principal.client":    text(func(p *gate.Principal) string { return p.Client }),
	"principal.tenant":    text(func(p *gate.Principal) string { return p.Tenant }),
	"principal.plan":      text(func(p *gate.Principal) string { return p.Plan }),
	"principal.issuer":    text(func(p *gate.Principal) string { return p.Issuer }),
	"principal.method":    text(func(p *gate.Principal) string { return p.Method.String() }),
	"principal.acr":       text(func(p *gate.Principal) string { return p.ACR }),
	"principal.auth_time": {cel.TimestampType, func(ex *gate.Exchange, _ *http.Request) any { return who(ex).AuthTime }},
	"principal.roles":     {texts, func(ex *gate.Exchange, _ *http.Request) any { return who(ex).Roles }},
	"principal.scopes":    {texts, func(ex *gate.Exchange, _ *http.Request) any { return who(ex).Scopes }},
	"principal.claims": {objects, func(ex *gate.Exchange, _ *http.Request) any {
		if c := who(ex).Claims; c != nil {
			return c
		}
		return map[string]any{}
	}},

	"origin.country": {cel.StringType, func(ex *gate.Exchange, _ *http.Request) any { return ex.Origin.Country }},
	"origin.asn":     {cel.IntType, func(ex *gate.Exchange, _ *http.Request) any { return int64(ex.Origin.ASN) }},
	"origin.bot":     {cel.StringType, func(ex *gate.Exchange, _ *http.Request) any { return ex.Origin.Bot }},

	"operation.id":     {cel.StringType, func(ex *gate.Exchange, _ *http.Request) any { return what(ex).ID }},
	"operation.method": {cel.StringType, func(ex *gate.Exchange, _ *http.Request) any { return what(ex).Method }},
	"operation.path":   {cel.StringType, func(ex *gate.Exchange, _ *http.Request) any { return what(ex).Path }},
	"operation.params": {cel.MapType(cel.StringType, cel.StringType), func(ex *gate.Exchange, _ *http.Request) any {
		m := make(map[string]string, len(ex.Params))
		for _, p := range ex.Params {
			m[p.Name] = p.Value
		}
		return m
	}},

	"request.method":    {cel.StringType, func(_ *gate.Exchange, r *http.Request) any { return r.Method }},
	"request.path":      {cel.StringType, path},
	"request.host":      {cel.StringType, func(_ *gate.Exchange, r *http.Request) any { return r.Host }},
	"request.client_ip": {cel.StringType, func(ex *gate.Exchange, _ *http.Request) any { return ex.Client.String() }},
	"request.query":     {cel.MapType(cel.StringType, texts), query},
	"request.headers": {cel.MapType(cel.StringType, cel.StringType), func(_ *gate.Exchange, r *http.Request) any {
		lower := make(map[string]string, len(r.Header))
		for name, values := range r.Header {
			lower[strings.ToLower(name)] = strings.Join(values, ", ")
		}
		return lower
	}},
}

// path is that of the request, if it has one form only. Of `/public/../admin` or
// `//admin` an expression would see another than the backend.
func path(_ *gate.Exchange, r *http.Request) any {
	if p := r.URL.Path; caddyhttp.CleanPath(p, true) == p && strings.IndexByte(p, '\\') < 0 {
		return p
	}
	return types.NewErr("the path is not in its canonical form; guard would bring it into one")
}

// query is that of the request, if it can be read in one way only. A member that
// an expression did not see might be one that the backend takes.
func query(_ *gate.Exchange, r *http.Request) any {
	q, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return types.NewErr("the query cannot be read: %v", err)
	}
	return map[string][]string(q)
}

func text(of func(*gate.Principal) string) variable {
	return variable{cel.StringType, func(ex *gate.Exchange, _ *http.Request) any { return of(who(ex)) }}
}

func who(ex *gate.Exchange) *gate.Principal {
	if ex.Principal == nil {
		return nobody
	}
	return ex.Principal
}

func what(ex *gate.Exchange) *gate.Operation {
	if ex.Operation == nil {
		return nothing
	}
	return ex.Operation
}
