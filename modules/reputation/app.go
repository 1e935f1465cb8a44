package reputation

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/modules/gate/fetch"
	"github.com/gatehouse-caddy/gatehouse/modules/reputation/internal/bots"
	"github.com/gatehouse-caddy/gatehouse/modules/reputation/internal/feed"
	"github.com/gatehouse-caddy/gatehouse/modules/reputation/internal/geo"
)

func init() { caddy.RegisterModule(new(App)) }

// App holds the lists and databases that sites ask.
type App struct {
	// The lists, each with a name of its own.
	Lists []List `json:"lists,omitempty"`

	// An MMDB file that knows countries, such as GeoLite2-Country or DB-IP's
	// IP-to-Country Lite. Default: none.
	CountryDB string `json:"country_db,omitempty"`

	// An MMDB file that knows autonomous systems, such as GeoLite2-ASN.
	// Default: none.
	ASNDB string `json:"asn_db,omitempty"`

	// A file or an https URL with patterns of the User-Agents of bots, as
	// crawler-user-agents publishes them. Default: none.
	Bots string `json:"bots,omitempty"`

	// How often lists are fetched from URLs. Default: 1h; at least 1m.
	Refresh caddy.Duration `json:"refresh,omitempty"`

	lists   map[string]*source[*feed.Set]
	country *source[*geo.DB]
	asn     *source[*geo.DB]
	bots    *source[*bots.List]
	all     []follower
	storage certmagic.Storage
	stop    context.CancelFunc
	done    sync.WaitGroup
	logger  *zap.Logger
}

// List is a list of addresses and networks.
type List struct {
	// The name that sites use.
	Name string `json:"name,omitempty"`

	// A file or an https URL.
	Source string `json:"source,omitempty"`
}

// follower is a source of any type.
type follower interface {
	follow(ctx context.Context, storage certmagic.Storage, logger *zap.Logger)
	release() error
}

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "gatehouse_reputation",
		New: func() caddy.Module { return new(App) },
	}
}

// Provision reads files. Nothing is fetched.
func (a *App) Provision(ctx caddy.Context) error {
	a.logger, a.storage = ctx.Logger(), ctx.Storage()
	if a.Refresh == 0 {
		a.Refresh = caddy.Duration(time.Hour)
	}
	a.lists = make(map[string]*source[*feed.Set], len(a.Lists))
	for _, l := range a.Lists {
		switch {
		case l.Name == "" || l.Source == "":
			return errors.New("reputation: a list needs a name and a source")
		case a.lists[l.Name] != nil:
			return fmt.Errorf("reputation: list %q is defined twice", l.Name)
		}
		s, err := open(l.Source, feed.Parse, time.Duration(a.Refresh))
		if err != nil {
			return fmt.Errorf("reputation: list %q: %w", l.Name, err)
		}
		a.lists[l.Name], a.all = s, append(a.all, s)
	}
	for _, db := range []struct {
		name string
		at   **source[*geo.DB]
		read func([]byte) (*geo.DB, error)
	}{{a.CountryDB, &a.country, geo.Countries}, {a.ASNDB, &a.asn, geo.Networks}} {
		if db.name == "" {
			continue
		}
		s, err := open(db.name, db.read, time.Duration(a.Refresh))
		if err != nil {
			return fmt.Errorf("reputation: %w", err)
		}
		*db.at, a.all = s, append(a.all, s)
	}
	if a.Bots != "" {
		s, err := open(a.Bots, bots.Parse, time.Duration(a.Refresh))
		if err != nil {
			return fmt.Errorf("reputation: bots: %w", err)
		}
		a.bots, a.all = s, append(a.all, s)
	}
	return nil
}

// Validate looks at the settings.
func (a *App) Validate() error {
	if a.Refresh < caddy.Duration(time.Minute) {
		return errors.New("reputation: refresh must be at least 1m")
	}
	for _, l := range a.Lists {
		if err := checkSource(l.Source); err != nil {
			return fmt.Errorf("reputation: list %q: %w", l.Name, err)
		}
	}
	for _, name := range []string{a.CountryDB, a.ASNDB, a.Bots} {
		if err := checkSource(name); err != nil {
			return fmt.Errorf("reputation: %w", err)
		}
	}
	return nil
}

func checkSource(name string) error {
	if strings.Contains(name, "://") {
		return fetch.CheckURL(name)
	}
	return nil
}

// Start follows files and URLs.
func (a *App) Start() error {
	ctx, stop := context.WithCancel(context.Background())
	a.stop = stop
	for _, f := range a.all {
		a.done.Go(func() { f.follow(ctx, a.storage, a.logger) })
	}
	return nil
}

// Stop ends what Start began.
func (a *App) Stop() error {
	if a.stop != nil {
		a.stop()
		a.done.Wait()
	}
	return nil
}

// Cleanup gives the sources back.
func (a *App) Cleanup() error {
	var errs []error
	for _, f := range a.all {
		errs = append(errs, f.release())
	}
	a.all = nil
	return errors.Join(errs...)
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.Validator    = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
