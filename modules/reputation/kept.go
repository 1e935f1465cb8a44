package reputation

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"
)

// The last good copy of what a URL gave is kept in Caddy's storage, so that a
// gateway that starts while the feed is down does not start without it. It is
// the time of the fetch on a line of its own, then what was fetched.
const (
	keptRoot    = "gatehouse/reputation/"
	keptTimeout = 30 * time.Second
)

// keptKey names the copy. A URL may hold a secret, and names of keys are seen.
func (s *source[T]) keptKey() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%T|%s", *new(T), s.at))
	return keptRoot + hex.EncodeToString(sum[:16])
}

// keep stores the copy. A storage that fails is a warning: the list is here.
func (s *source[T]) keep(ctx context.Context, storage certmagic.Storage, logger *zap.Logger, data []byte, at time.Time) {
	ctx, cancel := context.WithTimeout(ctx, keptTimeout)
	defer cancel()
	err := storage.Store(ctx, s.keptKey(), append(at.UTC().AppendFormat(nil, time.RFC3339+"\n"), data...))
	s.warn(ctx, logger, "a reputation source cannot be kept for the next start", err)
}

// restore reads the copy back. One that is younger than refresh is as good as
// a fetch; the clock may have been set back since, so one from the future is
// not.
func (s *source[T]) restore(ctx context.Context, storage certmagic.Storage, logger *zap.Logger) {
	ctx, cancel := context.WithTimeout(ctx, keptTimeout)
	defer cancel()
	data, err := storage.Load(ctx, s.keptKey())
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err == nil {
		line, list, _ := bytes.Cut(data, []byte("\n"))
		var at time.Time
		if at, err = time.Parse(time.RFC3339, string(line)); err == nil {
			err = s.swap(list, at)
		}
		if at.After(time.Now()) {
			s.fetched = time.Time{}
		}
	}
	s.warn(ctx, logger, "the kept copy of a reputation source cannot be read", err)
}

// warn says once that the storage fails.
func (s *source[T]) warn(ctx context.Context, logger *zap.Logger, what string, err error) {
	if err != nil && !s.unkept && !errors.Is(context.Cause(ctx), context.Canceled) {
		logger.Warn(what, zap.String("source", s.name), zap.Error(err))
	}
	s.unkept = err != nil
}
