package identity

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/gate/fetch"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/introspect"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/jwt"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/keyset"
)

// Issuer is one who signs tokens.
type Issuer struct {
	// The name by which handlers choose it.
	Name string `json:"name,omitempty"`

	// Its identifier: what its tokens say in `iss`, to the letter. Required
	// unless dev.
	URL string `json:"url,omitempty"`

	// Where its keys are: a file, or a URL. Default: found by OpenID Connect
	// discovery at the issuer's URL.
	JWKS string `json:"jwks,omitempty"`

	// What the file held when a Caddyfile was adapted, so that a reload sees a
	// change of it alone. Nothing else looks at it. Default: empty.
	JWKSDigest string `json:"jwks_digest,omitempty"`

	// Whom tokens must be meant for: any one of these must be in `aud`. `any`
	// alone accepts every audience. Required unless dev.
	Audience []string `json:"audience,omitempty"`

	// The algorithms that are accepted. Default: those the keys allow.
	Algorithms []string `json:"algorithms,omitempty"`

	// The accepted values of the token header's `typ`, in any case.
	// Default: none, JWT and at+jwt.
	Types []string `json:"types,omitempty"`

	// How it is asked about tokens that only it can read. Default: it is not,
	// and such tokens are refused.
	Introspect *Introspect `json:"introspect,omitempty"`

	// Who the gateway is to it when people log in there with a browser.
	// Default: nobody can.
	Login *Login `json:"login,omitempty"`

	// How its tokens are exchanged for those of upstreams. Default: they are not.
	Exchange *ExchangeClient `json:"exchange,omitempty"`

	// How far clocks may be apart. Default: 30s; at most 5m.
	Leeway caddy.Duration `json:"leeway,omitempty"`

	// Where a token says what: paths of members, joined by dots, for `subject`,
	// `client`, `tenant`, `plan`, `roles` and `scopes`. A member whose name is
	// the whole path comes first. Default: sub, client_id or azp, tenant, plan,
	// roles, scope or scp.
	Claims map[string]string `json:"claims,omitempty"`

	// An issuer for development on one machine: `caddy gatehouse token` mints
	// its tokens with a key in Caddy's storage, which is made on first use.
	// Never use it where strangers can reach the gateway.
	Dev bool `json:"dev,omitempty"`

	// What happens to tokens while the keys cannot be fetched: `closed` refuses
	// them with 503, `open` lets the request pass without a principal.
	// Default: `closed`.
	OnError gate.OnError `json:"on_error,omitempty"`

	identifier string
	source     *keyset.Source
	keys       string // what the source is made of
	expect     jwt.Expect
	paths      map[string][]string
	release    string // key of the source that cleanup gives back
	asker      *introspect.Asker
	asked      askerKey
	longest    time.Duration // lifetime of its sessions
}

// sources keeps fetched keys over reloads.
var sources = caddy.NewUsagePool()

const maxLeeway = 5 * time.Minute

// claimNames are what a path may be given for, with where it is by default.
var claimNames = map[string][]string{
	"subject": {"sub"},
	"client":  {"client_id", "azp"},
	"tenant":  {"tenant"},
	"plan":    {"plan"},
	"roles":   {"roles"},
	"scopes":  {"scope", "scp"},
}

func (i *Issuer) provision(ctx caddy.Context, logger *zap.Logger) error {
	if i.Leeway == 0 {
		i.Leeway = caddy.Duration(30 * time.Second)
	}
	i.expect = jwt.Expect{Audience: i.Audience, Algorithms: i.Algorithms, Leeway: time.Duration(i.Leeway)}
	for _, t := range i.Types {
		i.expect.Types = append(i.expect.Types, strings.ToLower(t))
	}
	if slices.Equal(i.Audience, []string{"any"}) || i.Dev && len(i.Audience) == 0 {
		i.expect.Audience = nil
	}
	if i.noBearer() {
		i.expect.Audience = []string{} // no token is meant for nobody
	}
	if err := i.validate(); err != nil {
		return err
	}
	i.paths = make(map[string][]string, len(claimNames))
	for name, paths := range claimNames {
		i.paths[name] = paths
		if p := i.Claims[name]; p != "" {
			i.paths[name] = []string{p}
		}
	}
	i.identifier = i.URL
	if err := i.findKeys(ctx, logger); err != nil {
		return err
	}
	if i.Introspect != nil {
		return i.opaque()
	}
	return nil
}

// findKeys makes the source of the keys. Nothing is fetched yet.
func (i *Issuer) findKeys(ctx caddy.Context, logger *zap.Logger) error {
	skipped := func(keys []string) {
		logger.Warn("some keys of an issuer are not used", zap.String("issuer", i.Name), zap.Strings("keys", keys))
	}

	var fetch keyset.Fetch
	switch {
	case i.Dev:
		i.identifier = devIdentifier(i.Name)
		fetch = devKeys(ctx.Storage(), i.Name)
		i.source = keyset.New(fetch) // its key is in the storage; there is nothing dear to keep
		return nil
	case i.JWKS == "":
		fetch = keyset.FromDiscovery(i.URL, skipped)
	case strings.Contains(i.JWKS, "://"):
		fetch = keyset.FromURL(i.JWKS, skipped)
	default:
		data, err := os.ReadFile(i.JWKS)
		if err != nil {
			return fmt.Errorf("jwks %q: %w", i.JWKS, err)
		}
		set, left, err := jwt.ParseSet(data)
		if err != nil {
			return fmt.Errorf("jwks %q: %w", i.JWKS, err)
		}
		if len(left) > 0 {
			skipped(left)
		}
		i.source, i.keys = keyset.Static(set), fmt.Sprintf("%s %x", i.JWKS, sha256.Sum256(data))
		return nil
	}
	i.keys = i.JWKS
	key := i.URL + "\x00" + i.JWKS
	s, _, err := sources.LoadOrNew(key, func() (caddy.Destructor, error) { return keyset.NewAt(fetch, gate.Now), nil })
	if err != nil {
		return err
	}
	i.source, i.release = s.(*keyset.Source), key
	return nil
}

func (i *Issuer) cleanup() {
	if i.release != "" {
		_, _ = sources.Delete(i.release) // Destruct cannot fail
		i.release = ""
	}
	if i.asked != (askerKey{}) {
		_, _ = askers.Delete(i.asked) // Destruct cannot fail
		i.asked = askerKey{}
	}
}

// What principals are from that have no token (gate.Principal.Issuer), and what
// revocations of them are told by.
const (
	issuerOfKeys         = "keys"
	issuerOfCertificates = "mtls"
)

// taken reports a name by which an issuer's callers would be taken for those of
// another kind.
func taken(name string) bool { return name == issuerOfKeys || name == issuerOfCertificates }

func (i *Issuer) validate() error {
	switch {
	case taken(i.Name) || taken(i.URL):
		return errors.New("keys and mtls are whom API keys and client certificates are from; give the issuer another name")
	case i.Dev && (i.URL != "" || i.JWKS != ""):
		return errors.New("an issuer is either for development or has a url")
	case !i.Dev && i.URL == "":
		return errors.New("url is required")
	case !i.Dev && len(i.Audience) == 0 && i.Login == nil:
		return errors.New("audience is required: without it, tokens meant for others are accepted here; write `audience any` if that is meant")
	case i.Dev && i.Introspect != nil:
		return errors.New("an issuer for development has nobody to ask")
	case i.Leeway < 0 || time.Duration(i.Leeway) > maxLeeway:
		return fmt.Errorf("leeway must be at most %v", maxLeeway)
	}
	if strings.Contains(i.JWKS, "://") {
		if err := fetch.CheckURL(i.JWKS); err != nil {
			return fmt.Errorf("jwks %w", err)
		}
	} else if !i.Dev && i.JWKS == "" {
		if err := fetch.CheckURL(i.URL); err != nil {
			return fmt.Errorf("url %w", err)
		}
	}
	if i.Introspect != nil {
		if err := i.Introspect.validate(); err != nil {
			return err
		}
	}
	if i.Login != nil {
		if err := i.Login.validate(i); err != nil {
			return err
		}
	}
	if i.Exchange != nil {
		if i.Dev {
			return errors.New("an issuer for development has nobody to ask")
		}
		if err := i.Exchange.validate(); err != nil {
			return err
		}
	}
	for _, a := range i.Algorithms {
		if !slices.Contains(jwt.Algorithms(), a) {
			return fmt.Errorf("algorithm %q is not accepted; expected %s", a, strings.Join(jwt.Algorithms(), ", "))
		}
	}
	for name := range i.Claims {
		if claimNames[name] == nil {
			return fmt.Errorf("unrecognized claim %q; expected subject, client, tenant, plan, roles or scopes", name)
		}
	}
	return nil
}

// noBearer reports whether people log in at the issuer, and nothing else: it
// then has no audience that tokens could be meant for.
func (i *Issuer) noBearer() bool { return i.Login != nil && len(i.Audience) == 0 }

// principal reads who a verified token speaks of.
func (i *Issuer) principal(claims map[string]any) *gate.Principal {
	return authenticated(&gate.Principal{
		Subject: i.text(claims, "subject"),
		Client:  i.text(claims, "client"),
		Tenant:  i.text(claims, "tenant"),
		Plan:    i.text(claims, "plan"),
		Roles:   i.texts(claims, "roles"),
		Scopes:  i.texts(claims, "scopes"),
		Issuer:  i.Name,
		Method:  gate.Bearer,
		Claims:  numbers(claims).(map[string]any),
	}, claims)
}

func (i *Issuer) text(claims map[string]any, name string) string {
	switch v := lookup(claims, i.paths[name]).(type) {
	case string:
		return v
	case json.Number:
		return v.String()
	}
	return ""
}

// texts reads a list, or one text of words.
func (i *Issuer) texts(claims map[string]any, name string) []string {
	switch v := lookup(claims, i.paths[name]).(type) {
	case string:
		return strings.Fields(v)
	case []any:
		var list []string
		for _, item := range v {
			if s, ok := item.(string); ok {
				list = append(list, s)
			}
		}
		return list
	}
	return nil
}

// lookup finds the first of several paths that is there.
func lookup(claims map[string]any, paths []string) any {
	for _, path := range paths {
		if v, ok := claims[path]; ok {
			return v
		}
		var at any = claims
		for part := range strings.SplitSeq(path, ".") {
			m, _ := at.(map[string]any)
			at = m[part]
		}
		if at != nil {
			return at
		}
	}
	return nil
}

// numbers gives policy expressions numbers to compare with.
func numbers(v any) any {
	switch v := v.(type) {
	case map[string]any:
		m := make(map[string]any, len(v))
		for name, item := range v {
			m[name] = numbers(item)
		}
		return m
	case []any:
		list := make([]any, len(v))
		for i, item := range v {
			list[i] = numbers(item)
		}
		return list
	case json.Number:
		if n, err := v.Int64(); err == nil {
			return n
		}
		f, _ := v.Float64()
		return f
	}
	return v
}
