package clientauth

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"
)

const (
	lookEvery = time.Second // at files, at most
	maxFile   = 1 << 20
)

// Clock is what a client needs of its surroundings.
type Clock struct {
	Now func() time.Time

	// Failed is told, once for each time that it begins, that files cannot be
	// read and what they said before holds. It may be nil.
	Failed func(error)
}

// watched is what is made of files, made anew when they have changed. They are
// looked at when it is used, so nothing runs while it is not.
type watched[T any] struct {
	clock Clock
	files []string
	words []string // what the configuration calls them
	build func(contents [][]byte) (T, error)
	drop  func(T) // what was made before; may be nil

	mu      sync.Mutex
	sum     [sha256.Size]byte
	looked  time.Time
	failing bool
	value   T
}

// open reads the files for the first time.
func (w *watched[T]) open() error {
	w.looked = w.clock.Now()
	return w.look()
}

// get returns what the files say, or said when they could last be read.
func (w *watched[T]) get() T {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.clock.Now()
	if age := now.Sub(w.looked); age >= 0 && age < lookEvery {
		return w.value
	}
	w.looked = now
	err := w.look()
	if err != nil && !w.failing && w.clock.Failed != nil {
		w.clock.Failed(err)
	}
	w.failing = err != nil
	return w.value
}

func (w *watched[T]) look() error {
	contents := make([][]byte, len(w.files))
	sums := make([][]byte, len(w.files))
	for i, name := range w.files {
		data, err := read(name)
		if err != nil {
			return fmt.Errorf("%s %q: %w", w.words[i], name, err)
		}
		sum := sha256.Sum256(data)
		contents[i], sums[i] = data, sum[:]
	}
	sum := sha256.Sum256(bytes.Join(sums, nil))
	if sum == w.sum {
		return nil
	}
	value, err := w.build(contents)
	if err != nil {
		return err
	}
	if w.drop != nil && w.sum != [sha256.Size]byte{} {
		w.drop(w.value)
	}
	w.value, w.sum = value, sum
	return nil
}

func read(name string) ([]byte, error) {
	f, err := os.Open(name) //nolint:gosec // the operator's own file
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, err
	}
	if len(data) > maxFile {
		return nil, errors.New("it has more than 1 MiB")
	}
	return data, nil
}
