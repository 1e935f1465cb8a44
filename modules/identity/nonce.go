package identity

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/dpop"
)

const (
	usualNonceAge    = 5 * time.Minute
	shortestNonceAge = 10 * time.Second
	longestNonceAge  = time.Hour

	nonceKeyPath = "gatehouse/identity/dpop-nonce.key"
)

// nonces are made by the key in the storage, which gateways share. Until it
// could be read they are made by one of this process, which is as good where
// there is one gateway, and those stay good. What was read stays over reloads.
var nonces atomic.Pointer[dpop.Nonces]

var ownNonces = func() *dpop.Nonces {
	var key [dpop.KeySize]byte
	_, _ = rand.Read(key[:]) // never fails, by its contract
	return dpop.NewNonces(key)
}()

func init() { nonces.Store(ownNonces) }

// nonceAge is how old a nonce may be; zero where none is asked for.
func (h *Handler) nonceAge() time.Duration {
	if h.DPoP == nil {
		return 0
	}
	return time.Duration(h.DPoP.Nonce)
}

// checkNonce asks for a proof that was made lately, by a clock of ours: one that
// was made ahead for later, by somebody who had the key for a moment, has none
// that is good (RFC 9449, section 11.2).
func (h *Handler) checkNonce(p dpop.Proof, now time.Time) *gate.Denial {
	age := h.nonceAge()
	switch {
	case age == 0 || nonces.Load().Good(p.Nonce, age, ahead, now) || ownNonces.Good(p.Nonce, age, ahead, now):
		return nil
	case p.Nonce == "":
		return &gate.Denial{Reason: gate.IdentityNonce, Err: errors.New("the proof has no nonce")}
	}
	return &gate.Denial{Reason: gate.IdentityNonce, Err: errors.New("the proof's nonce is too old, or none of ours")}
}

// offerNonce gives clients that make proofs the nonce for the next one (RFC
// 9449, section 8.2). The slice is the answer's own: others may change it.
func (h *Handler) offerNonce(to http.Header, now time.Time) {
	if age := h.nonceAge(); age > 0 {
		to["Dpop-Nonce"] = []string{nonces.Load().At(now, age)}
	}
}

// readNonceKey reads the key until it has it or the configuration goes.
func (a *App) readNonceKey(ctx context.Context, storage certmagic.Storage) {
	for pause := time.Second; ; pause = min(2*pause, 30*time.Second) {
		key, err := nonceKey(ctx, storage)
		if err == nil {
			nonces.Store(dpop.NewNonces(key))
			return
		}
		if ctx.Err() != nil {
			return
		}
		a.logger.Warn("the key of nonces cannot be read; this gateway knows its own nonces only", zap.Error(err))
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// nonceKey loads the key, or makes it under a lock that the gateways share.
func nonceKey(ctx context.Context, storage certmagic.Storage) (key [dpop.KeySize]byte, err error) {
	load := func() error {
		data, err := storage.Load(ctx, nonceKeyPath)
		if err != nil {
			return err
		}
		if copy(key[:], data) != len(key) || len(data) != len(key) {
			return fmt.Errorf("%q in the storage is no key; delete it to have a new one made", nonceKeyPath)
		}
		return nil
	}
	if err = load(); !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	if err = storage.Lock(ctx, nonceKeyPath); err != nil {
		return key, fmt.Errorf("locking %q: %w", nonceKeyPath, err)
	}
	defer func() { _ = storage.Unlock(context.WithoutCancel(ctx), nonceKeyPath) }() // a lock that is left goes stale
	if err = load(); !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	_, _ = rand.Read(key[:]) // never fails, by its contract
	if err = storage.Store(ctx, nonceKeyPath, key[:]); err != nil {
		return key, fmt.Errorf("storing %q: %w", nonceKeyPath, err)
	}
	return key, nil
}

func checkNonceAge(age caddy.Duration) error {
	if age != 0 && (age < caddy.Duration(shortestNonceAge) || age > caddy.Duration(longestNonceAge)) {
		return fmt.Errorf("dpop nonce must be between %v and 1h", shortestNonceAge)
	}
	return nil
}

// unmarshalNonce reads `nonce [<duration>]`.
func (d *DPoP) unmarshalNonce(disp *caddyfile.Dispenser) error {
	if disp.CountRemainingArgs() == 0 {
		d.Nonce = caddy.Duration(usualNonceAge)
		return nil
	}
	if err := parse.Duration(disp, &d.Nonce); err != nil {
		return err
	}
	if err := checkNonceAge(d.Nonce); err != nil {
		return disp.Err(err.Error())
	}
	return nil
}
