package cluster

import (
	"context"
	"time"

	"github.com/redis/rueidis"
)

// Notices are told to the gateways that listen at that moment, and to nobody
// else: they say that it is worth looking, and whoever misses one has to find
// out in another way.

// Tell tells the other gateways something, in no longer than the link's
// timeout. They hear it if they can.
func (l *Link) Tell(topic, text string) error {
	if l == nil || !l.up.Load() {
		return ErrDown
	}
	ctx, cancel := context.WithTimeout(context.Background(), l.timeout)
	defer cancel()
	client := *l.client.Load()
	began := time.Now()
	err := client.Do(ctx, client.B().Publish().Channel(l.channel(topic)).Message(text).Build()).Error()
	seconds.Observe(time.Since(began).Seconds())
	if err != nil {
		calls.WithLabelValues("error").Inc()
		if _, no := rueidis.IsRedisErr(err); !no { // a server that forbids it is there
			l.fall(err)
		}
		return err
	}
	calls.WithLabelValues("ok").Inc()
	return nil
}

func (l *Link) channel(topic string) string { return l.prefix + ":notice:" + topic }

// Listen calls heard with each notice, also this gateway's own, until ctx ends.
// It calls missed whenever it begins to listen, since others may have said
// something before. Both are called one after another, and may not wait.
func (l *Link) Listen(ctx context.Context, topic string, heard func(text string), missed func()) {
	if l == nil {
		return
	}
	wait := time.NewTicker(probe)
	defer wait.Stop()
	for {
		if l.up.Load() {
			l.listen(ctx, topic, heard, missed)
		}
		select {
		case <-ctx.Done():
			return
		case <-wait.C:
		}
	}
}

// listen ends when the link goes down: the connection that listens may be dead
// without knowing it.
func (l *Link) listen(ctx context.Context, topic string, heard func(text string), missed func()) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	defer func() {
		cancel()
		<-ended
	}()
	go func() {
		defer close(ended)
		look := time.NewTicker(probe)
		defer look.Stop()
		for l.up.Load() {
			select {
			case <-ctx.Done():
				return
			case <-look.C:
			}
		}
		cancel()
	}()
	client := *l.client.Load()
	begun := rueidis.WithOnSubscriptionHook(ctx, func(s rueidis.PubSubSubscription) {
		if s.Kind == "subscribe" {
			missed()
		}
	})
	_ = client.Receive(begun, client.B().Subscribe().Channel(l.channel(topic)).Build(), func(m rueidis.PubSubMessage) {
		heard(m.Message)
	})
}
