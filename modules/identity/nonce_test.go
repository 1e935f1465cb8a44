package identity

import (
	"sync"
	"testing"

	"github.com/caddyserver/certmagic"

	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/dpop"
)

// TestNonceKeyIsMadeOnce: gateways that share a storage and start together end
// up with one key.
func TestNonceKeyIsMadeOnce(t *testing.T) {
	storage := &certmagic.FileStorage{Path: t.TempDir()}
	keys := make([][dpop.KeySize]byte, 8)
	var wg sync.WaitGroup
	for i := range keys {
		wg.Go(func() {
			var err error
			if keys[i], err = nonceKey(t.Context(), storage); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, key := range keys {
		if key != keys[0] || key == [dpop.KeySize]byte{} {
			t.Fatal("several keys, or none")
		}
	}
	if err := storage.Store(t.Context(), nonceKeyPath, []byte("short")); err != nil {
		t.Fatal(err)
	}
	if _, err := nonceKey(t.Context(), storage); err == nil {
		t.Error("what is no key is one")
	}
}
