package cluster

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/redis/rueidis"
	"go.uber.org/zap"
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
