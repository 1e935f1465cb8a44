package identity

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/cluster"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/jwt"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/memory"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/signer"
)

func init() { caddy.RegisterModule(new(App)) }

// App knows the issuers and keys that handlers may accept.
type App struct {
	// Who signs the tokens that are accepted, each with a name of its own.
	Issuers []*Issuer `json:"issuers,omitempty"`

	// A file with the hashes of API keys. Default: none.
	Keys string `json:"keys,omitempty"`

	// What the file of keys held when a Caddyfile was adapted, so that a reload sees a
	// change of it alone. Nothing else looks at it. Default: empty.
	KeysDigest string `json:"keys_digest,omitempty"`

	// How many tokens that were verified are remembered at least; at most
	// twice as many are. Default: 65536.
	MaxTokens int `json:"max_tokens,omitempty"`

	// As whom, and with what keys, the gateway signs what it tells upstreams.
	// Default: as `gatehouse`, with ES256.
	Signer *Signer `json:"signer,omitempty"`

	// Who knows which client certificates were revoked, each with a name of its
	// own.
	Revocation []*Revocation `json:"revocation,omitempty"`

	byName map[string]*Issuer
	keys   *keyring
	tokens *memory.Memory[*proven]
	link   *cluster.Link // nil for a gateway alone
	logger *zap.Logger

	ctx    caddy.Context
	nonces bool // whether a handler asks for nonces

	vault    *vault // of sessions; nil without any
	vaultKey string
	stop     func()

	signing   *signer.Signer // nil while nothing is to be signed
	ring      string         // key of its ring that cleanup gives back
	rehearsed bool           // no issuer is there to be asked

	honey *honey
	keep  func() // keeps in the storage when keys were last used
	kept  func() // the same once, before the configuration ends
}

// proven is a principal with what follows from it, made once for all requests
// that carry the same credential.
type proven struct {
	principal *gate.Principal
	userID    any // the subject, boxed once
	values    [len(facts)]string
	issuer    *Issuer
	keys      *jwt.Set // the set that verified it; another set may have revoked it
	bound     binding
	good      time.Time
	began     int64                 // when its session did, in Unix seconds; 0 without one
	marks     atomic.Pointer[marks] // what it may be revoked by; nil until asked
	ends      time.Time             // with the credential itself; zero: never

	asserted atomic.Pointer[assertion] // what upstreams are told by tell jwt
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
	a.logger, a.ctx = ctx.Logger(), ctx
	if a.MaxTokens == 0 {
		a.MaxTokens = 1 << 16
	}
	var err error
	if a.link, err = cluster.Of(ctx); err != nil {
		return fmt.Errorf("identity: %w", err)
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
	if a.honey, err = newHoney(ctx); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	storage := ctx.Storage()
	name := fmt.Sprintf("%T %v", storage, storage)
	a.keep = func() { keyUses.follow(ctx, storage, name, a.logger) }
	a.kept = func() { keyUses.last(storage, name, a.logger) }
	if err := a.provisionRevocation(); err != nil {
		return fmt.Errorf("identity: %w", err)
	}
	if a.Keys != "" {
		if a.keys, err = readKeys(a.Keys); err != nil {
			return fmt.Errorf("identity: %w", err)
		}
		a.warnOfPlans(ctx)
	}
	return nil
}

// Defined shows the keys of the file beside the live ones.
func (a *App) Defined(string) map[string]any {
	if a.keys == nil {
		return nil
	}
	return a.keys.entries
}

// Start fetches keys ahead of the first request that needs them.
func (a *App) Start() error {
	a.stop = a.followSessions()
	for _, v := range a.Revocation {
		v.start()
	}
	go a.honey.tell()
	go a.keep()
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
	if a.nonces {
		go a.readNonceKey(a.ctx, a.ctx.Storage())
	}
	return nil
}

// Stop ends what Start began; fetches end by their deadline.
func (a *App) Stop() error {
	if a.stop != nil {
		a.stop()
		a.kept()
	}
	return nil
}

// Cleanup gives the sources of keys back.
func (a *App) Cleanup() error {
	for _, i := range a.Issuers {
		i.cleanup()
	}
	a.closeVault()
	a.cleanupSigner()
	for _, v := range a.Revocation {
		v.cleanup()
	}
	return nil
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
