package quota

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/caddyserver/caddy/v2"

	"github.com/gatehouse-caddy/gatehouse/modules/cluster"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/quota/internal/bucket"
	"github.com/gatehouse-caddy/gatehouse/modules/quota/internal/habit"
	"github.com/gatehouse-caddy/gatehouse/modules/registry"
)

func init() { caddy.RegisterModule(new(App)) }

// App defines plans: named limits that tenants subscribe to.
type App struct {
	// The plans, each with a name of its own.
	Plans []Plan `json:"plans,omitempty"`

	// The plan of callers that have none, or one that is not defined here.
	// Default: the plan with the lowest rate.
	Default string `json:"default,omitempty"`

	// How many callers are remembered at least, over all quotas; at most twice
	// as many are. One that is forgotten starts again with its full burst.
	// Default: 1048576, which takes some 40 MB when all are there.
	MaxKeys int `json:"max_keys,omitempty"`

	// By how much a caller may pass its limit where a cluster shares it, as a
	// part of its burst, from 0 to 1. That much is leased to nodes ahead, so that
	// they need not ask for each request; with 0 they do. Default: 0.1.
	MaxOvershoot *float64 `json:"max_overshoot,omitempty"`

	plans    map[string]*plan
	fallback *plan
	table    *bucket.Table
	habits   *habit.Habits
	acquired bool
	shared   *shared // nil for a gateway alone
	sharing  bool
	tenants  registry.Live[map[string]tenant]
}

// Plan is a named rate.
type Plan struct {
	// The name that principals carry.
	Name string `json:"name,omitempty"`

	Rate

	// Other rates for certain countries or hours. The first that fits counts.
	When []When `json:"when,omitempty"`
}

// Rate is how many requests a caller may make.
type Rate struct {
	// How many requests fit in one window. Required.
	Events int `json:"events,omitempty"`

	// The length of the window. Required.
	Window caddy.Duration `json:"window,omitempty"`

	// How many requests may come at once. Default: as many as fit in a window,
	// or 1 with leaky.
	Burst int `json:"burst,omitempty"`

	// Makes requests wait for their turn rather than be refused: how many of
	// one caller may wait. Default: 0, none.
	Leaky int `json:"leaky,omitempty"`
}

// String writes a rate as the Caddyfile does.
func (r *Rate) String() string {
	window := time.Duration(r.Window).String() // 1h0m0s
	for _, end := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(window, end) {
			window = window[:len(window)-2]
		}
	}
	s := strconv.Itoa(r.Events) + "/" + window
	if r.Burst > 0 {
		s += " burst " + strconv.Itoa(r.Burst)
	}
	if r.Leaky > 0 {
		s += " leaky " + strconv.Itoa(r.Leaky)
	}
	return s
}

// plan is a rate made ready.
type plan struct {
	rule   string // its name in decisions
	share  string // the same while this node counts alone
	limit  bucket.Limit
	queue  int
	policy string // the member of RateLimit-Policy that describes it
	member string // the start of its member of RateLimit
	when   []condition
}

func (p *plan) named(rule string) { p.rule, p.share = rule, rule+", share of this node" }

// table is kept over reloads, refused ones included, for as long as any
// configuration counts: what a caller has spent stays spent.
var (
	tables     = caddy.NewUsagePool()
	tablesLock sync.Mutex
)

type sharedTable struct {
	*bucket.Table
	habits *habit.Habits
}

func (sharedTable) Destruct() error { return nil }

const tableKey = "table"

// CaddyModule returns the Caddy module information.
func (*App) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "gatehouse_quota",
		New: func() caddy.Module { return new(App) },
	}
}

// Provision makes the plans ready.
func (a *App) Provision(ctx caddy.Context) error {
	if a.MaxKeys == 0 {
		a.MaxKeys = 1 << 20
	}
	if a.MaxOvershoot == nil {
		a.MaxOvershoot = new(float64)
		*a.MaxOvershoot = 0.1
	}
	a.plans = make(map[string]*plan, len(a.Plans))
	var lowest float64
	for _, p := range a.Plans {
		if p.Name == "" {
			return errors.New("quota: a plan needs a name")
		}
		if a.plans[p.Name] != nil {
			return fmt.Errorf("quota: plan %q is defined twice", p.Name)
		}
		ready, err := p.ready(p.Name)
		if err != nil {
			return fmt.Errorf("quota: plan %q: %w", p.Name, err)
		}
		for _, w := range p.When {
			c, err := w.ready(p.Name)
			if err != nil {
				return fmt.Errorf("quota: plan %q: %w", p.Name, err)
			}
			ready.when = append(ready.when, c)
		}
		a.plans[p.Name] = ready
		if rate := float64(p.Events) / float64(p.Window); a.fallback == nil || rate < lowest {
			a.fallback, lowest = ready, rate
		}
	}
	a.mingle()
	if a.Default != "" {
		if a.fallback = a.plans[a.Default]; a.fallback == nil {
			return fmt.Errorf("quota: the default plan %q is not defined", a.Default)
		}
	}
	if err := gate.RegisterMetrics(ctx, keysRemembered, waiting, alone, leased); err != nil {
		return err
	}
	var err error
	if a.tenants, err = tenants.Open(ctx); err != nil {
		return err
	}
	link, err := cluster.Of(ctx)
	if err != nil {
		return err
	}
	if link != nil {
		if a.shared, err = openShared(link); err != nil {
			return err
		}
		a.sharing = true
	}
	tablesLock.Lock()
	defer tablesLock.Unlock()
	t, _, err := tables.LoadOrNew(tableKey, func() (caddy.Destructor, error) {
		return sharedTable{bucket.NewTable(a.MaxKeys), habit.New(a.MaxKeys)}, nil
	})
	if err != nil {
		return err
	}
	a.table, a.habits, a.acquired = t.(sharedTable).Table, t.(sharedTable).habits, true
	return nil
}

// mingle tells the plans of each other: a caller whose principals or requests
// have several spends from one counter.
func (a *App) mingle() {
	var all []*plan
	for _, p := range a.plans {
		all = append(all, p)
		for i := range p.when {
			all = append(all, p.when[i].plan)
		}
	}
	var ahead time.Duration
	for _, p := range all {
		ahead = max(ahead, p.limit.Ahead(p.queue))
	}
	for _, p := range all {
		p.limit = p.limit.Among(ahead)
	}
}

// Start does nothing: quotas are ready when provisioned.
func (*App) Start() error { return nil }

// Stop does nothing.
func (*App) Stop() error { return nil }

// Validate looks at the settings.
func (a *App) Validate() error {
	if o := *a.MaxOvershoot; !(o >= 0 && o <= 1) {
		return fmt.Errorf("quota: max_overshoot %g is not between 0 and 1", o)
	}
	return nil
}

// Cleanup gives back the table and what is shared.
func (a *App) Cleanup() error {
	var errs [2]error
	if a.sharing {
		_, errs[0] = books.Delete(a.shared.link)
		a.sharing = false
	}
	if a.acquired {
		_, errs[1] = tables.Delete(tableKey)
		a.acquired = false
	}
	return errors.Join(errs[:]...)
}

// ready checks a rate and turns it into a plan.
func (r Rate) ready(name string) (*plan, error) {
	switch {
	case r.Events < 1:
		return nil, errors.New("events must be at least 1")
	case r.Window <= 0:
		return nil, errors.New("window must be longer than nothing")
	case r.Burst < 0:
		return nil, errors.New("burst must not be negative")
	case r.Leaky < 0:
		return nil, errors.New("leaky must not be negative")
	}
	if r.Burst == 0 {
		if r.Burst = r.Events; r.Leaky > 0 {
			r.Burst = 1
		}
	}
	p := &plan{limit: bucket.NewLimit(r.Events, time.Duration(r.Window), r.Burst), queue: r.Leaky}
	p.limit = p.limit.Among(p.limit.Ahead(p.queue)) // who may not wait is held to what those have spent who do
	p.named(name)
	p.describe(name, r)
	return p, nil
}

// Interface guards
var (
	_ caddy.App          = (*App)(nil)
	_ caddy.Provisioner  = (*App)(nil)
	_ caddy.Validator    = (*App)(nil)
	_ caddy.CleanerUpper = (*App)(nil)
)
