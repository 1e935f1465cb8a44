package cluster

import (
	"context"
	"crypto/rand"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
	"go.uber.org/zap"
)

// ErrDown means that the server cannot be asked at the moment.
var ErrDown = errors.New("the cluster's server cannot be asked")

// maxCalls bounds the calls on their way. More would have to wait for a place
// among those that were sent, without a deadline.
const maxCalls = 512

// Link is the way to what nodes share. It is safe for concurrent use. A nil
// Link is that of a gateway alone: never up, and one node.
type Link struct {
	option  rueidis.ClientOption
	prefix  string
	timeout time.Duration
	logger  atomic.Pointer[zap.Logger]
	self    string // this node's name among the others

	client   atomic.Pointer[rueidis.Client]
	up       atomic.Bool
	places   chan struct{}
	fault    chan struct{} // wakes the probe
	nodes    atomic.Int64  // as last seen; 0 while nobody has told
	expected atomic.Int64

	once sync.Once
	stop context.CancelFunc
	done sync.WaitGroup
}

func newLink(option rueidis.ClientOption, prefix string, timeout time.Duration) *Link {
	return &Link{
		option: option, prefix: prefix, timeout: timeout, self: rand.Text(),
		places: make(chan struct{}, maxCalls), fault: make(chan struct{}, 1),
	}
}

// Script is a Lua script that works on one key, whole or not at all.
type Script struct{ lua *rueidis.Lua }

// NewScript makes a script that answers with a list of whole numbers.
func NewScript(lua string) *Script { return &Script{rueidis.NewLuaScript(lua)} }

// Run runs a script on a key, whose name is put behind the link's prefix. It
// takes no longer than the link's timeout. After an error it is not known
// whether the script ran.
func (l *Link) Run(s *Script, key string, args ...string) ([]int64, error) {
	if l == nil || !l.up.Load() {
		return nil, ErrDown
	}
	select {
	case l.places <- struct{}{}:
	default:
		calls.WithLabelValues("busy").Inc()
		return nil, ErrDown
	}
	defer func() { <-l.places }()
	began := time.Now()
	ctx, cancel := context.WithTimeout(context.Background(), l.timeout)
	defer cancel()
	answer, err := s.lua.Exec(ctx, *l.client.Load(), []string{l.prefix + ":" + key}, args).AsIntSlice()
	seconds.Observe(time.Since(began).Seconds())
	if err != nil {
		calls.WithLabelValues("error").Inc()
		if !ofKey(err) {
			l.fall(err)
		}
		return nil, err
	}
	calls.WithLabelValues("ok").Inc()
	return answer, nil
}

// ofKey reports whether an error is about what one key holds. The server is there,
// and who has other keys must not be counted by shares for that.
func ofKey(err error) bool {
	reply, is := rueidis.IsRedisErr(err)
	return is && (strings.HasPrefix(reply.Error(), "WRONGTYPE") || strings.Contains(reply.Error(), "user_script"))
}

// Up reports whether the server can be asked.
func (l *Link) Up() bool { return l != nil && l.up.Load() }

// Nodes is how many gateways share, as far as this one knows: at least 1.
func (l *Link) Nodes() int {
	if l == nil {
		return 1
	}
	if n := l.nodes.Load(); n > 0 {
		return int(n)
	}
	return int(max(l.expected.Load(), 1))
}

// fall marks the link as down, so that nobody else waits for the same time-out.
func (l *Link) fall(why error) {
	if !l.up.CompareAndSwap(true, false) {
		return
	}
	l.complain(why)
	select {
	case l.fault <- struct{}{}:
	default:
	}
}

// complain tells why the server cannot be asked, without the password: servers
// that do not understand how it is said to them repeat it.
func (l *Link) complain(why error) {
	text := why.Error()
	if l.option.Password != "" {
		text = strings.ReplaceAll(text, l.option.Password, "(password)")
	}
	l.logger.Load().Warn("the cluster's server cannot be asked; every node goes on with its share", zap.String("error", text), zap.Int("nodes", l.Nodes()))
}

func (l *Link) start() {
	l.once.Do(func() {
		ctx, stop := context.WithCancel(context.Background())
		l.stop = stop
		l.done.Go(func() { l.keep(ctx) })
	})
}

const (
	beat  = time.Second            // how often a node says that it is there
	probe = 100 * time.Millisecond // how often one that cannot be asked is tried
	gone  = 5 * time.Second        // after which a silent node does not count
)

// keep connects, says that this node is there, and finds out whether the
// server can be asked again.
func (l *Link) keep(ctx context.Context) {
	wait := time.NewTimer(0)
	defer wait.Stop()
	first := true
	for {
		select {
		case <-ctx.Done():
			return
		case <-l.fault:
			wait.Reset(probe) // not at once: a server that is slow would take turns with one that is down
			continue
		case <-wait.C:
		}
		err := l.beat(ctx)
		if ctx.Err() != nil {
			return
		}
		if err != nil && first {
			l.complain(err) // nobody has seen it fall
		}
		first = false
		if err != nil {
			l.fall(err)
			wait.Reset(probe)
			continue
		}
		if l.up.CompareAndSwap(false, true) {
			l.logger.Load().Info("the cluster's server can be asked", zap.Int("nodes", l.Nodes()))
		}
		wait.Reset(beat)
	}
}

// present counts who is there: members are nodes, scores the server's time.
var present = NewScript(`
local now = redis.call('TIME')[1]
if ARGV[3] == 'leave' then
	redis.call('ZREM', KEYS[1], ARGV[1])
else
	redis.call('ZADD', KEYS[1], now, ARGV[1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[2])
return {redis.call('ZCARD', KEYS[1])}`)

func (l *Link) beat(ctx context.Context) error {
	client, err := l.connect(ctx)
	if err != nil {
		return err
	}
	n, err := l.say(ctx, client, "here")
	if err != nil {
		return err
	}
	l.nodes.Store(n)
	return nil
}

// say tells the others something about this node, and hears how many there are.
func (l *Link) say(ctx context.Context, client rueidis.Client, word string) (int64, error) {
	ctx, cancel := context.WithTimeout(ctx, l.timeout)
	defer cancel()
	answer, err := present.lua.Exec(ctx, client, []string{l.prefix + ":nodes"}, []string{l.self, strconv.Itoa(int(gone / time.Second)), word}).AsIntSlice()
	if err != nil {
		return 0, err
	}
	if len(answer) != 1 {
		return 0, errors.New("the cluster's server does not answer as a script asked")
	}
	return answer[0], nil
}

// connect makes the client once the server is there; from then on it connects
// anew by itself.
func (l *Link) connect(ctx context.Context) (rueidis.Client, error) {
	if c := l.client.Load(); c != nil {
		return *c, nil
	}
	client, err := rueidis.NewClient(l.option)
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		client.Close()
		return nil, ctx.Err()
	}
	l.client.Store(&client)
	return client, nil
}

// Destruct ends the link. Calls on their way fail, and their stages go on
// without.
func (l *Link) Destruct() error {
	if l.stop == nil {
		return nil
	}
	l.stop()
	l.done.Wait()
	if client := l.client.Load(); client != nil {
		if l.up.Swap(false) {
			_, _ = l.say(context.Background(), *client, "leave") // others find out by themselves
		}
		(*client).Close()
	}
	return nil
}
