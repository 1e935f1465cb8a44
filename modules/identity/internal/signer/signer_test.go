package signer

import (
	"bytes"
	"context"
	"crypto"
	"encoding/base64"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/lestrrat-go/jwx/v2/jwk"
	"github.com/lestrrat-go/jwx/v2/jwt"
)

var t0 = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)

const day = 24 * time.Hour

// gateway is a signer of its own before a storage that others may share.
func gateway(s Store, alg string) *Signer {
	return &Signer{Store: s, Alg: alg, Rotate: 8 * day, Kept: new(Kept)}
}

// settled waits for what was started behind the request.
func (s *Signer) settled() {
	s.mu.Lock()
	running := s.running
	s.mu.Unlock()
	if running != nil {
		<-running
	}
}

func (s *Signer) token(t *testing.T, now time.Time) (kid string) {
	t.Helper()
	_, _ = s.Sign(t.Context(), []byte(`{}`), now) // reads behind
	s.settled()
	token, err := s.Sign(t.Context(), []byte(`{"sub":"ann"}`), now)
	if err != nil {
		t.Fatal(err)
	}
	doc, _, err := s.Published(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	set, err := jwk.Parse(doc)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := jwt.Parse([]byte(token), jwt.WithKeySet(set), jwt.WithValidate(false))
	if err != nil || parsed.Subject() != "ann" {
		t.Fatalf("%v in %s", err, doc)
	}
	head, _ := base64.RawURLEncoding.DecodeString(strings.Split(token, ".")[0])
	var h struct{ Kid, Typ, Alg string }
	if err := json.Unmarshal(head, &h); err != nil || h.Typ != "JWT" {
		t.Fatalf("header %s: %v", head, err)
	}
	return h.Kid
}

func (s *Signer) ids(t *testing.T, now time.Time) (ids []string) {
	t.Helper()
	doc, etag, err := s.Published(t.Context(), now)
	if err != nil || len(etag) < 4 {
		t.Fatal(etag, err)
	}
	set, err := jwk.Parse(doc)
	if err != nil {
		t.Fatal(err)
	}
	for i := range set.Len() {
		k, _ := set.Key(i)
		sum, err := k.Thumbprint(crypto.SHA256)
		if err != nil || base64.RawURLEncoding.EncodeToString(sum) != k.KeyID() {
			t.Errorf("kid %q is not the thumbprint: %v", k.KeyID(), err)
		}
		if private, _ := jwk.IsPrivateKey(k); private || k.KeyUsage() != "sig" {
			t.Errorf("published as %v", k)
		}
		ids = append(ids, k.KeyID())
	}
	return ids
}

// TestRotation: two gateways on one storage sign with the same key all the
// time, which was published before it signed, and stays until its last token
// has ended.
func TestRotation(t *testing.T) {
	for _, alg := range Algorithms() {
		t.Run(alg, func(t *testing.T) {
			store := &certmagic.FileStorage{Path: t.TempDir()}
			a, b := gateway(store, alg), gateway(store, alg)
			first := map[string]time.Time{} // when a key was seen published, by its id
			signs := map[string]time.Time{} // when it signed last
			switches := 0
			last := ""
			for now := t0; now.Before(t0.Add(18 * day)); now = now.Add(2 * time.Hour) {
				kid := a.token(t, now)
				if other := b.token(t, now); other != kid {
					t.Fatalf("%v: one signs with %s, the other with %s", now, kid, other)
				}
				ids := b.ids(t, now)
				for _, id := range ids {
					if first[id].IsZero() {
						first[id] = now
					}
				}
				if last != kid {
					switches++
					if lead := now.Sub(first[kid]); last != "" && lead < 22*time.Hour {
						t.Errorf("%v: a key signs that was published for %v", now, lead)
					}
				}
				last, signs[kid] = kid, now
				for id, at := range signs {
					there := bytes.Contains(b.Kept.at.Load().doc, []byte(id))
					if age := now.Sub(at); there != (age <= time.Hour) && age != 2*time.Hour {
						t.Errorf("%v after its last token a key is published: %v", age, there)
					}
				}
			}
			if switches != 3 {
				t.Errorf("%d keys in 18 days", switches)
			}
		})
	}
}

// TestOneKey: however many gateways begin at once, there is one key.
func TestOneKey(t *testing.T) {
	store := &certmagic.FileStorage{Path: t.TempDir()}
	var wg sync.WaitGroup
	docs := make([]string, 4)
	for n := range docs {
		s := gateway(store, "ES256")
		wg.Go(func() {
			_, _, _ = s.Published(context.Background(), t0)
			s.settled()
			doc, _, err := s.Published(context.Background(), t0)
			if err != nil {
				t.Error(err)
			}
			docs[n] = string(doc)
		})
	}
	wg.Wait()
	for _, doc := range docs {
		if doc != docs[0] || strings.Count(doc, "kid") != 1 {
			t.Errorf("%s and %s", doc, docs[0])
		}
	}
}

// TestOtherAlgorithm: a change of the algorithm is a rotation like another, and
// gateways of two minds do not make a key at each other's sight.
func TestOtherAlgorithm(t *testing.T) {
	store := &certmagic.FileStorage{Path: t.TempDir()}
	old, next := gateway(store, "ES256"), gateway(store, "EdDSA")
	kid := old.token(t, t0)
	for now := t0; now.Before(t0.Add(day)); now = now.Add(time.Hour) {
		if next.token(t, now) != kid || old.token(t, now) != kid {
			t.Fatal("it signs before it was published for long enough")
		}
		if n := len(next.ids(t, now)); n != 2 {
			t.Fatalf("%d keys", n)
		}
	}
	if now := t0.Add(day + time.Hour); next.token(t, now) == kid {
		t.Error("the other algorithm does not sign")
	}
}

// failing is a storage that can be made to take or give nothing.
type failing struct {
	certmagic.FileStorage
	noRead, noWrite bool
}

var errDown = errors.New("down")

func (f *failing) Load(ctx context.Context, name string) ([]byte, error) {
	if f.noRead {
		return nil, errDown
	}
	return f.FileStorage.Load(ctx, name)
}

func (f *failing) Store(ctx context.Context, name string, value []byte) error {
	if f.noWrite {
		return errDown
	}
	return f.FileStorage.Store(ctx, name, value)
}

// TestStorageFails: without a first key there is an error and not a wait for
// each; keys that are known sign on, for as long as they are surely published.
func TestStorageFails(t *testing.T) {
	store := &failing{FileStorage: certmagic.FileStorage{Path: t.TempDir()}, noWrite: true}
	s := gateway(store, "ES256")
	if _, err := s.Sign(t.Context(), []byte(`{}`), t0); !errors.Is(err, ErrAway) || !errors.Is(err, errDown) {
		t.Fatal(err)
	}
	store.noWrite = false
	if _, err := s.Sign(t.Context(), []byte(`{}`), t0.Add(900*time.Millisecond)); !errors.Is(err, ErrAway) {
		t.Errorf("it is asked again at once: %v", err)
	}
	kid := s.token(t, t0.Add(2*time.Second))

	store.noWrite = true // there is a key, and it serves on
	if s.token(t, t0.Add(10*day)) != kid {
		t.Error("another key")
	}
	if s.Err() == nil {
		t.Error("nobody hears that there can be no new key")
	}
	store.noRead = true
	if s.token(t, t0.Add(10*day+23*time.Hour)) != kid {
		t.Error("another key")
	}
	if _, err := s.Sign(t.Context(), []byte(`{}`), t0.Add(12*day)); !errors.Is(err, ErrAway) {
		t.Errorf("it signs with a key that nobody may publish any more: %v", err)
	}
}

// TestSpoilt: what is no document of keys is an error that does not show it.
func TestSpoilt(t *testing.T) {
	store := &certmagic.FileStorage{Path: t.TempDir()}
	good := gateway(store, "ES256")
	good.token(t, t0)
	data, err := store.Load(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	if mode, err := os.Stat(filepath.Join(store.Path, path)); err != nil || mode.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, %v", mode, err)
	}
	for _, spoilt := range []string{"", "hello", "{}", `{"keys":[]}`, `{"keys":[{"alg":"ES256","key":"secret"}]}`, strings.Replace(string(data), "ES256", "EdDSA", 1), string(data) + "{}"} {
		if err := store.Store(t.Context(), path, []byte(spoilt)); err != nil {
			t.Fatal(err)
		}
		if _, err := gateway(store, "ES256").Sign(t.Context(), []byte(`{}`), t0); !errors.Is(err, ErrAway) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%.20q: %v", spoilt, err)
		}
	}
}

// FuzzDecode: what is read is written back, and is read the same.
func FuzzDecode(f *testing.F) {
	for _, alg := range Algorithms() {
		k, err := newKey(alg, t0)
		if err != nil {
			f.Fatal(err)
		}
		data, _ := encode([]*key{k})
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		keys, err := decode(data)
		if err != nil {
			return
		}
		again, err := encode(keys)
		if err != nil {
			t.Fatal(err)
		}
		back, err := decode(again)
		if err != nil || len(back) != len(keys) || back[0].id != keys[0].id || !back[0].from.Equal(keys[0].from) {
			t.Fatalf("%v: %s became %s", err, data, again)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	for _, alg := range Algorithms() {
		b.Run(alg, func(b *testing.B) {
			k, err := newKey(alg, t0)
			if err != nil {
				b.Fatal(err)
			}
			claims := []byte(`{"iss":"gatehouse","sub":"ann","aud":"orders","exp":1,"iat":1,"tenant":"acme","roles":["user","admin"]}`)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := k.sign(claims); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
