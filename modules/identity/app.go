package identity

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/jwt"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/memory"
)

func init() { caddy.RegisterModule(new(App)) }

// App knows the issuers and keys that handlers may accept.
type App struct {
	// Who signs the tokens that are accepted, each with a name of its own.
	Issuers []*Issuer `json:"issuers,omitempty"`

	// A file with the hashes of API keys. Default: none.
	Keys string `json:"keys,omitempty"`

	// How many tokens that were verified are remembered at least; at most
	// twice as many are. Default: 65536.
	MaxTokens int `json:"max_tokens,omitempty"`

	byName map[string]*Issuer
	keys   *keyring
	tokens *memory.Memory[*proven]
	logger *zap.Logger
}

// proven is a principal with what follows from it, made once for all requests
// that carry the same credential.
type proven struct {
	principal *gate.Principal
	userID    any // the subject, boxed once
	headers   []string
	values    []string
	issuer    *Issuer
	keys      *jwt.Set // the set that verified it; another set may have revoked it
	good      time.Time
}

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "gatehouse_identity",
		New: func() caddy.Module { return new(App) },
	}
}

// Provision reads files and makes issuers ready. Nothing is fetched.
func (a *App) Provision(ctx caddy.Context) error {
	a.logger = ctx.Logger()
	if a.MaxTokens == 0 {
		a.MaxTokens = 1 << 16
	}
	a.tokens = memory.New[*proven](a.MaxTokens)
	a.byName = make(map[string]*Issuer, len(a.Issuers))
	for _, i := range a.Issuers {
		if i.Name == "" {
			return errors.New("identity: an issuer needs a name")
		}
		if a.byName[i.Name] != nil {
			return fmt.Errorf("identity: issuer %q is defined twice", i.Name)
		}
		a.byName[i.Name] = i
		if err := i.provision(ctx, a.logger); err != nil {
			return fmt.Errorf("identity: issuer %q: %w", i.Name, err)
		}
	}
	if a.Keys != "" {
		var err error
		if a.keys, err = readKeys(a.Keys); err != nil {
			return fmt.Errorf("identity: %w", err)
		}
	}
	return nil
}

// Start fetches keys ahead of the first request that needs them.
func (a *App) Start() error {
	for _, i := range a.Issuers {
		if i.Dev {
			a.logger.Warn("an issuer for development is in use; anybody who can read the storage can be anybody", zap.String("issuer", i.Name))
			continue // its keys are made when first needed
		}
		go func() {
			if _, err := i.source.Keys(context.Background()); err != nil {
				a.logger.Warn("keys are not available yet", zap.String("issuer", i.Name), zap.Error(err))
			}
		}()
	}
	return nil
}

// Stop has nothing to stop: fetches end by their deadline.
func (*App) Stop() error { return nil }

// Cleanup gives the sources of keys back.
func (a *App) Cleanup() error {
	for _, i := range a.Issuers {
		i.cleanup()
	}
	return nil
}

// prove makes a principal ready to be used by many requests.
func prove(p *gate.Principal) *proven {
	v := &proven{principal: p, userID: p.Subject}
	for _, h := range []struct{ name, value string }{
		{"Subject", printable(p.Subject, "")},
		{"Client", printable(p.Client, "")},
		{"Tenant", printable(p.Tenant, "")},
		{"Plan", printable(p.Plan, "")},
		{"Roles", join(p.Roles)},
		{"Scopes", join(p.Scopes)},
		{"Issuer", printable(p.Issuer, "")},
		{"Method", p.Method.String()},
	} {
		if h.value != "" {
			v.headers = append(v.headers, gate.Asserted+h.name)
			v.values = append(v.values, h.value)
		}
	}
	return v
}

// assert tells the upstream who asks. The one allocation gives each request
// values of its own: Caddy's request_header replaces text inside the slice it
// finds, and would otherwise change who all later requests are said to be from.
func (v *proven) assert(h http.Header) {
	values := slices.Clone(v.values)
	for i, name := range v.headers {
		h[name] = values[i : i+1 : i+1] // no spare capacity: appending makes a copy
	}
}

func join(items []string) string {
	safe := make([]string, len(items))
	for i, item := range items {
		safe[i] = printable(item, " ")
	}
	return strings.Join(safe, " ")
}

// printable writes a text from a token so that it can stand in a header field
// and means one thing only: what is not printable ASCII, the percent sign, the
// list separator, and spaces at the ends, which HTTP would trim, are
// percent-encoded (RFC 3986, section 2.1).
func printable(s, separator string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	first := len(s) - len(strings.TrimLeft(s, " "))
	last := len(strings.TrimRight(s, " "))
	for i, c := range []byte(s) {
		if c < ' ' || c > '~' || c == '%' || i < first || i >= last || strings.IndexByte(separator, c) >= 0 {
			b.WriteByte('%')
			b.WriteByte(hex[c>>4])
			b.WriteByte(hex[c&15])
			continue
		}
		b.WriteByte(c)
	}
	return b.String()
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
