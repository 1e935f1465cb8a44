package cluster

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/redis/rueidis"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/gate/latest"
)

func init() { caddy.RegisterModule(new(App)) }

// App links this gateway with others through a Redis or Valkey server.
type App struct {
	// Where the server is: redis:// or rediss:// (TLS), with host, port and the
	// number of a database, e.g. `redis://redis.internal:6379/0`. More addresses
	// of a Redis Cluster, or of Sentinels, follow as `?addr=`; with Sentinels,
	// `master_set=` names the master. `unix:///path` is a socket. May hold
	// placeholders such as `{env.REDIS_URL}`. Required.
	URL string `json:"url,omitempty"`

	// The user to log in as. Default: the server's default user.
	Username string `json:"username,omitempty"`

	// The password, as a placeholder such as `{env.REDIS_PASSWORD}` or
	// `{file./run/secrets/redis}`; never the password itself, which would show
	// in the configuration. Default: none.
	Password string `json:"password,omitempty"`

	// The start of the names of everything kept on the server. Gateways with
	// the same prefix share. Default: `gatehouse`.
	Prefix string `json:"prefix,omitempty"`

	// How long a call may take. Default: 20ms.
	Timeout caddy.Duration `json:"timeout,omitempty"`

	// How many gateways share the load while the server has not told yet.
	// Default: 1.
	Nodes int `json:"nodes,omitempty"`

	link    *Link
	key     linkKey
	logger  *zap.Logger
	release func()
}

// links are kept over reloads, one for each server and login.
var links = caddy.NewUsagePool()

type linkKey struct {
	url, username, password, prefix string
	timeout                         caddy.Duration
}

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "gatehouse_cluster",
		New: func() caddy.Module { return new(App) },
	}
}

// Provision makes the link ready, without connecting it.
func (a *App) Provision(ctx caddy.Context) error {
	if a.Prefix == "" {
		a.Prefix = "gatehouse"
	}
	if a.Timeout == 0 {
		a.Timeout = caddy.Duration(20 * time.Millisecond)
	}
	if a.Nodes == 0 {
		a.Nodes = 1
	}
	option, err := a.option()
	if err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	if err := gate.RegisterMetrics(ctx, up, nodesSeen, calls, seconds); err != nil {
		return err
	}
	a.logger = ctx.Logger()
	a.key.prefix, a.key.timeout = a.Prefix, a.Timeout
	v, _, err := links.LoadOrNew(a.key, func() (caddy.Destructor, error) {
		l := newLink(option, a.Prefix, time.Duration(a.Timeout))
		a.shape(l)
		return l, nil
	})
	if err != nil {
		return err
	}
	a.link = v.(*Link)
	return nil
}

// shape gives a link what may differ between configurations that have it.
func (a *App) shape(l *Link) {
	l.logger.Store(a.logger)
	l.expected.Store(int64(a.Nodes))
}

// option resolves the placeholders, into fields that no configuration shows.
func (a *App) option() (option rueidis.ClientOption, err error) {
	if a.URL == "" {
		return option, errors.New("url is required")
	}
	if a.key.url, err = parse.Resolve("url", a.URL); err != nil {
		return option, err
	}
	if a.key.username, err = parse.Resolve("username", a.Username); err != nil {
		return option, err
	}
	if a.key.password, err = parse.Resolve("password", a.Password); err != nil {
		return option, err
	}
	option, err = rueidis.ParseURL(a.key.url)
	if err != nil {
		return option, errors.New("url cannot be read; write for example redis://localhost:6379/0") // what was typed may be a secret
	}
	if a.key.username != "" {
		option.Username = a.key.username
	}
	if a.key.password != "" {
		option.Password = strings.TrimRight(a.key.password, "\r\n") // a file ends with a line's end
	}
	option.ClientName = "gatehouse"
	option.DisableCache = true    // servers that are old, and proxies, know no tracking
	option.DisableRetry = true    // who asks has something better to do than to wait
	option.RingScaleEachConn = 10 // room for more than maxCalls: a full ring blocks
	option.ConnWriteTimeout = time.Second
	option.Dialer.Timeout = time.Second
	return option, nil
}

// Validate looks at the settings.
func (a *App) Validate() error {
	switch {
	case a.Timeout < caddy.Duration(time.Millisecond) || a.Timeout > caddy.Duration(time.Second):
		return errors.New("cluster: timeout must be between 1ms and 1s")
	case a.Nodes < 1:
		return errors.New("cluster: nodes must be at least 1")
	}
	if err := secretless(a.URL, a.Password); err != nil {
		return fmt.Errorf("cluster: %w", err)
	}
	return nil
}

// secretless refuses secrets that are written out, since anybody who may read
// the configuration would know them.
func secretless(url, password string) error {
	if err := parse.Placeholder("password", password); err != nil {
		return err
	}
	_, rest, _ := strings.Cut(url, "://")
	login, _, found := strings.Cut(rest, "@")
	if _, secret, has := strings.Cut(login, ":"); found && has && !strings.HasPrefix(secret, "{") {
		return errors.New("take the password out of url and write it as password {env.NAME}, since the configuration is shown to whoever asks the admin endpoint")
	}
	return nil
}

// Start connects in the background.
func (a *App) Start() error {
	a.release = serving.Claim(a)
	a.link.start()
	return nil
}

// Stop leaves the link to others: it goes with the last configuration that has it.
func (a *App) Stop() error {
	if a.release != nil {
		a.release()
	}
	return nil
}

// serving is the newest app that has started, as which its link is.
var serving = latest.Of[*App]{Changed: func(newest **App) {
	if newest != nil {
		(*newest).shape((*newest).link)
	}
}}

// served is the link that is shown; nil: none.
func served() *Link {
	if newest := serving.Load(); newest != nil {
		return (*newest).link
	}
	return nil
}

// Cleanup gives the link back.
func (a *App) Cleanup() error {
	if a.link == nil {
		return nil
	}
	a.link = nil
	_, err := links.Delete(a.key)
	return err
}

// Of returns the link of the configuration being loaded, or nil if it has none.
func Of(ctx caddy.Context) (*Link, error) {
	app, err := ctx.AppIfConfigured("gatehouse_cluster")
	if errors.Is(err, caddy.ErrNotConfigured) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return app.(*App).link, nil
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.Validator    = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
