package dpop

import (
	"testing"
	"time"
)

func TestNonces(t *testing.T) {
	const age = 40 * time.Second
	n, same, other := NewNonces([KeySize]byte{1}), NewNonces([KeySize]byte{1}), NewNonces([KeySize]byte{2})
	nonce := n.At(now, age)
	if n.At(now, age) != nonce || same.At(now, age) != nonce {
		t.Error("a nonce of the same moment is another")
	}
	for _, tc := range []struct {
		name  string
		with  *Nonces
		nonce string
		at    time.Duration
		want  bool
	}{
		{"at once", n, nonce, 0, true},
		{"by another gateway with the key", same, nonce, time.Second, true},
		{"three quarters of the time later", n, nonce, 30 * time.Second, true},
		{"after its time", n, nonce, 40 * time.Second, false},
		{"by a clock that is behind", n, nonce, -9 * time.Second, true},
		{"from the future", n, nonce, -30 * time.Second, false},
		{"of another key", other, nonce, 0, false},
		{"none", n, "", 0, false},
		{"cut", n, nonce[:31], 0, false},
		{"longer", n, nonce + "A", 0, false},
		{"of no alphabet", n, "!" + nonce[1:], 0, false},
	} {
		if got := tc.with.Good(tc.nonce, age, 10*time.Second, now.Add(tc.at)); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.name, got, tc.want)
		}
	}
	// However the steps fall, it lives three quarters of the time, and no longer than that.
	for i := range 50 {
		made := now.Add(time.Duration(i) * time.Second)
		nonce := n.At(made, age)
		if !n.Good(nonce, age, ahead, made.Add(30*time.Second-time.Nanosecond)) || n.Good(nonce, age, ahead, made.Add(age)) {
			t.Errorf("second %d: %v, %v", i, n.Good(nonce, age, ahead, made.Add(30*time.Second)), n.Good(nonce, age, ahead, made.Add(age)))
		}
	}
}

const ahead = 10 * time.Second

// FuzzNonce: no text that was not made by the key is a nonce.
func FuzzNonce(f *testing.F) {
	n, other := NewNonces([KeySize]byte{1}), NewNonces([KeySize]byte{2})
	f.Add(other.At(now, time.Minute))
	f.Add("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Fuzz(func(t *testing.T, nonce string) {
		if n.Good(nonce, time.Minute, ahead, now) && nonce != n.At(now, time.Minute) {
			t.Fatalf("%q is a nonce", nonce)
		}
	})
}
