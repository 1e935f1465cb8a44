package release

import (
	"math"
	"time"
)

// histogram counts durations in buckets that are each a 12th longer than the
// one before, from a millisecond to two minutes. The zero value is empty.
type histogram struct {
	n       int
	buckets [buckets]uint32
}

const (
	octave  = 8 // buckets in which durations double
	buckets = 17*octave + 1
	least   = time.Millisecond // what is shorter is all one
)

func (h *histogram) add(bucket int) {
	h.n++
	h.buckets[bucket]++
}

func (h *histogram) merge(more *histogram) {
	if more.n == 0 {
		return
	}
	h.n += more.n
	for i, n := range more.buckets {
		h.buckets[i] += n
	}
}

// bucket is where d belongs: above the upper end of the bucket before, and at
// most at its own.
func bucket(d time.Duration) int {
	if d <= least {
		return 0
	}
	return min(int(math.Ceil(octave*math.Log2(float64(d)/float64(least)))), buckets-1)
}

// end is the upper end of a bucket.
func end(bucket int) time.Duration {
	return time.Duration(float64(least) * math.Exp2(float64(bucket)/octave))
}

// quantile is the duration that a share q of all does not exceed, rounded up to
// the end of its bucket; 0 if there are none.
func (h *histogram) quantile(q float64) time.Duration {
	rank := int(math.Ceil(q * float64(h.n)))
	for i, n := range h.buckets {
		rank -= int(n)
		if rank <= 0 && h.n > 0 {
			return end(i)
		}
	}
	return 0
}
