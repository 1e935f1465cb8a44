package identity

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/caddyserver/caddy/v2/caddyconfig/caddyfile"
	"github.com/caddyserver/certmagic"
	"go.uber.org/zap"

	"github.com/gatehouse-caddy/gatehouse/caddyfile/parse"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/clientcert"
	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/memory"
)

// TrustPool are the authorities of client certificates, PEM, looked at again
// while the gateway runs. Caddy's own pools are read when a configuration is
// loaded.
type TrustPool struct {
	// Files, each with one or more authorities.
	Files []string `json:"file,omitempty"`

	// Keys in Caddy's storage, likewise.
	Storage []string `json:"storage,omitempty"`
}

const (
	lookEvery    = time.Second     // at files and at the storage
	maxAuthority = 1 << 20         // bytes of one file
	poolPatience = 5 * time.Second // of one look
)

// trustPools keep authorities over reloads.
var trustPools = caddy.NewUsagePool()

// trust is a pool as it was last read.
type trust struct {
	read    func(context.Context) ([]poolPart, error)
	current atomic.Pointer[trusted]
	begin   sync.Once
	ctx     context.Context
	stop    context.CancelFunc
	done    sync.WaitGroup
}

// trusted is one state of a pool, with what was verified by it.
type trusted struct {
	sum      [sha256.Size]byte
	roots    *x509.CertPool
	verified *memory.Memory[verdict]
}

// open takes the pool. Files are read now, since what is wrong with one is an
// error of the configuration.
func (p *TrustPool) open(ctx caddy.Context) (t *trust, key string, err error) {
	if len(p.Files)+len(p.Storage) == 0 {
		return nil, "", errors.New("mtls trust_pool needs a file or a key in the storage")
	}
	storage := ctx.Storage()
	key = strings.Join(p.Files, "\x00") + "\x00\x00" + strings.Join(p.Storage, "\x00")
	if p.Storage != nil {
		key += fmt.Sprintf("\x00\x00%T %v", storage, storage)
	}
	v, _, err := trustPools.LoadOrNew(key, func() (caddy.Destructor, error) {
		t := &trust{read: p.reader(storage)}
		t.ctx, t.stop = context.WithCancel(context.Background())
		if p.Storage == nil {
			return t, t.look()
		}
		return t, nil
	})
	if err != nil {
		return nil, "", fmt.Errorf("mtls trust_pool: %w", err)
	}
	return v.(*trust), key, nil
}

// poolPart is a file or a key of the storage, as it was last read.
type poolPart struct {
	name string // as errors call it
	data []byte
}

func (p *TrustPool) reader(storage certmagic.Storage) func(context.Context) ([]poolPart, error) {
	return func(ctx context.Context) (all []poolPart, err error) {
		add := func(name string, data []byte, err error) error {
			if err == nil && len(data) > maxAuthority {
				err = fmt.Errorf("it has more than %d bytes", maxAuthority)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			all = append(all, poolPart{name, data})
			return nil
		}
		for _, name := range p.Files {
			data, err := os.ReadFile(name) //nolint:gosec // the operator's own file
			if err := add(fmt.Sprintf("file %q", name), data, err); err != nil {
				return nil, err
			}
		}
		for _, key := range p.Storage {
			data, err := storage.Load(ctx, key)
			if err := add(fmt.Sprintf("storage %q", key), data, err); err != nil {
				return nil, err
			}
		}
		return all, nil
	}
}

// look swaps the pool if it is another. One that cannot be read, or is empty,
// changes nothing.
func (t *trust) look() error {
	ctx, cancel := context.WithTimeout(t.ctx, poolPatience)
	defer cancel()
	parts, err := t.read(ctx)
	if err != nil {
		return err
	}
	h := sha256.New()
	for _, p := range parts {
		one := sha256.Sum256(p.data)
		_, _ = h.Write(one[:])
	}
	sum := [sha256.Size]byte(h.Sum(nil))
	if have := t.current.Load(); have != nil && have.sum == sum {
		return nil
	}
	roots := x509.NewCertPool()
	for _, p := range parts {
		certificates, err := clientcert.ReadPEM(p.data)
		if err != nil {
			return fmt.Errorf("%s: %w", p.name, err)
		}
		for _, c := range certificates {
			roots.AddCert(c)
		}
	}
	t.current.Store(&trusted{sum, roots, memory.New[verdict](maxCertificates)})
	return nil
}

// watch looks from the first request on.
func (t *trust) watch() {
	t.begin.Do(func() {
		if t.current.Load() == nil {
			_ = t.look() // said below, if it lasts
		}
		t.done.Go(func() {
			tick := time.NewTicker(lookEvery)
			defer tick.Stop()
			for failing := false; ; {
				select {
				case <-t.ctx.Done():
					return
				case <-tick.C:
				}
				err := t.look()
				if err != nil && !failing && t.ctx.Err() == nil {
					caddy.Log().Named("gatehouse_identity").Error("a trust pool cannot be read; the last good one decides on", zap.Error(err))
				}
				failing = err != nil
			}
		})
	})
}

// Destruct implements caddy.Destructor.
func (t *trust) Destruct() error {
	t.stop()
	t.begin.Do(func() {}) // what has not begun by now never will
	t.done.Wait()
	return nil
}

// chains returns the verified chains of a connection: Caddy's, or those to a
// pool of ours, which also decides on connections that are open. That the client
// has the certificate's key, every TLS handshake proves.
func (m *MTLS) chains(state *tls.ConnectionState, now time.Time) ([][]*x509.Certificate, *gate.Denial) {
	if m.TrustPool == nil {
		return state.VerifiedChains, nil
	}
	peers := state.PeerCertificates
	if len(peers) == 0 {
		return nil, nil
	}
	m.trust.watch()
	pool := m.trust.current.Load()
	if pool == nil {
		// fail closed: whom to trust is not known yet
		return nil, refuseCertificate(gate.IdentityUnavailable, "trust_pool", errors.New("the authorities in the storage have not been read yet"))
	}
	if now.After(peers[0].NotAfter) {
		return nil, refuseCertificate(gate.IdentityExpired, "not_after", endOf(peers[0]))
	}
	h := sha256.New()
	for _, c := range peers {
		_, _ = h.Write(c.Raw)
	}
	key := string(h.Sum(nil))
	if v, ok := pool.verified.Get(key); ok && v.holds(now) {
		return v.said()
	}
	intermediates := x509.NewCertPool()
	for _, c := range peers[1:] {
		intermediates.AddCert(c)
	}
	chains, err := peers[0].Verify(x509.VerifyOptions{
		Roots: pool.roots, Intermediates: intermediates, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		err = fmt.Errorf("%s: %w", naming(peers[0]), err)
	}
	v := verdict{chains, err, now}
	pool.verified.Put(key, v)
	return v.said()
}

// verdict is what became of a certificate and those beside it.
type verdict struct {
	chains  [][]*x509.Certificate
	refused error
	at      time.Time
}

func (v *verdict) said() ([][]*x509.Certificate, *gate.Denial) {
	if v.refused != nil {
		return nil, refuseCertificate(gate.IdentityCertificatePolicy, "trust_pool", v.refused)
	}
	return v.chains, nil
}

// refusedFor is how long a certificate is not verified again that was refused.
// One of those beside it may only become valid.
const refusedFor = 10 * time.Second

// holds reports whether all of the chains' certificates are still valid.
func (v *verdict) holds(now time.Time) bool {
	if v.refused != nil {
		return now.Sub(v.at) < refusedFor
	}
	for _, chain := range v.chains {
		for _, c := range chain {
			if now.After(c.NotAfter) || now.Before(c.NotBefore) {
				return false
			}
		}
	}
	return true
}

// unmarshal reads the option. Syntax:
//
//	trust_pool file|storage <name...>
func (p *TrustPool) unmarshal(d *caddyfile.Dispenser) error {
	args := d.RemainingArgs()
	if len(args) < 2 {
		return d.ArgErr()
	}
	switch args[0] {
	case "file":
		for _, name := range args[1:] {
			p.Files = append(p.Files, parse.File(d, name))
		}
	case "storage":
		p.Storage = append(p.Storage, args[1:]...)
	default:
		return parse.Unknown(d, "trust_pool", args[0], "file", "storage")
	}
	return nil
}

// close gives the trust pool back. It stays where it is, for requests that
// outlive their configuration.
func (m *MTLS) close() error {
	if m == nil || m.trustKey == "" {
		return nil
	}
	_, err := trustPools.Delete(m.trustKey)
	m.trustKey = ""
	return err
}
