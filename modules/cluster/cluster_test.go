package cluster

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/redis/rueidis"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// TestNobodyToAsk: a gateway alone, and a link that is not up, answer at once
// and wait for nothing.
func TestNobodyToAsk(t *testing.T) {
	s := NewScript(`return {1}`)
	fresh := newLink((&App{}).clientOption(t), "test", time.Hour)
	fresh.logger.Store(zap.NewNop())
	fresh.expected.Store(3)
	for name, l := range map[string]*Link{"alone": nil, "not up": fresh} {
		if _, err := l.Run(s, "k"); !errors.Is(err, ErrDown) || l.Up() {
			t.Errorf("%s: %v, up %v", name, err, l.Up())
		}
	}
	if n := (*Link)(nil).Nodes(); n != 1 {
		t.Errorf("alone there are %d", n)
	}
	if n := fresh.Nodes(); n != 3 {
		t.Errorf("%d nodes are expected, want 3", n)
	}
	fresh.nodes.Store(2)
	if n := fresh.Nodes(); n != 2 {
		t.Errorf("%d nodes were seen, want 2", n)
	}
	if err := fresh.Destruct(); err != nil {
		t.Error(err)
	}
}

// TestFullLink: more calls than have a place do not wait for one.
func TestFullLink(t *testing.T) {
	l := newLink((&App{}).clientOption(t), "test", time.Hour)
	l.up.Store(true)
	for range maxCalls {
		l.places <- struct{}{}
	}
	if _, err := l.Run(NewScript(`return {1}`), "k"); !errors.Is(err, ErrDown) {
		t.Errorf("%v", err)
	}
}

func TestSecretless(t *testing.T) {
	for _, c := range []struct {
		url, password string
		good          bool
	}{
		{"redis://localhost", "", true},
		{"redis://user@localhost", "", true},
		{"redis://localhost", "{env.X}", true},
		{"{env.REDIS_URL}", "", true},
		{"redis://user:{env.X}@localhost", "", true},
		{"redis://localhost", "hunter2", false},
		{"redis://:hunter2@localhost", "", false},
		{"redis://user:hunter2@localhost", "", false},
	} {
		err := secretless(c.url, c.password)
		if (err == nil) != c.good || err != nil && strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s with %q: %v", c.url, c.password, err)
		}
	}
}

// clientOption is what an App asks a client to be like.
func (a *App) clientOption(t *testing.T) (option rueidis.ClientOption) {
	t.Helper()
	a.URL, a.Timeout = "redis://127.0.0.1:9", caddy.Duration(time.Second)
	option, err := a.option()
	if err != nil {
		t.Fatal(err)
	}
	return option
}

// TestNewestServes: of two configurations that have started, the newer one's
// settings hold and its link is shown, and the older one's again when the newer
// one stops.
func TestNewestServes(t *testing.T) {
	link := func() *Link {
		l := newLink((&App{}).clientOption(t), "test", time.Second)
		l.once.Do(func() {}) // it connects to nobody
		return l
	}
	shared := link()
	apps := []*App{
		{Nodes: 2, link: shared, logger: zap.NewExample()},
		{Nodes: 3, link: shared, logger: zap.NewExample()},
		{Nodes: 4, link: link(), logger: zap.NewExample()},
	}
	shared.up.Store(true)
	apps[2].link.nodes.Store(7)
	holds := func(a *App, isUp, nodes float64) {
		t.Helper()
		if n, logger := a.link.expected.Load(), a.link.logger.Load(); n != int64(a.Nodes) || logger != a.logger {
			t.Errorf("%d nodes are expected, want %d; its own log: %v", n, a.Nodes, logger == a.logger)
		}
		if u, n := gauge(t, up), gauge(t, nodesSeen); u != isUp || n != nodes {
			t.Errorf("up %v with %v nodes, want %v with %v", u, n, isUp, nodes)
		}
	}
	start := func(a *App) { _ = a.Start() }
	stop := func(a *App) { _ = a.Stop() }
	start(apps[0])
	holds(apps[0], 1, 0)
	start(apps[1])
	holds(apps[1], 1, 0)
	stop(apps[1]) // the reload was refused
	holds(apps[0], 1, 0)
	start(apps[2])
	holds(apps[2], 0, 7)
	apps[2].link.up.Store(true)
	stop(apps[0])
	if err := shared.Destruct(); err != nil {
		t.Error(err)
	}
	holds(apps[2], 1, 7)
	stop(apps[2])
	if gauge(t, up) != 0 {
		t.Error("nobody's link is up")
	}
}

func gauge(t *testing.T, g prometheus.Metric) float64 {
	t.Helper()
	var m dto.Metric
	if err := g.Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetGauge().GetValue()
}

// TestNeverThere: a server that cannot be asked from the start is told of, once,
// and without the password, which servers repeat that do not know what to do with it.
func TestNeverThere(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	option, tries := (&App{}).clientOption(t), make(chan struct{})
	option.Password = "hunter2"
	option.DialCtxFn = func(context.Context, string, *net.Dialer, *tls.Config) (net.Conn, error) {
		tries <- struct{}{}
		return nil, errors.New("unknown command HELLO, with args beginning with: 3 AUTH default hunter2")
	}
	l := newLink(option, "test", time.Second)
	l.logger.Store(zap.New(core))
	l.start()
	for range 4 {
		<-tries
	}
	go func() {
		for range tries { // until it ends
		}
	}()
	if err := l.Destruct(); err != nil {
		t.Error(err)
	}
	close(tries)
	entries := logs.All()
	if len(entries) != 1 || entries[0].Level != zap.WarnLevel {
		t.Fatalf("the log has %v", entries)
	}
	if why := fmt.Sprint(entries[0].ContextMap()["error"]); !strings.Contains(why, "unknown command HELLO") || strings.Contains(why, "hunter2") {
		t.Errorf("it says %q", why)
	}
}
