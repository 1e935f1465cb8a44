package release

import "math"

// Point is a place that words are hashed to, the same on every node and in
// every process. It guards nothing: a caller who looks for a name that leads to
// one release or another may as well ask for it.
type Point uint64

// Start is where hashing begins.
const Start Point = 14695981039346656037 // FNV-1a

// Add hashes one more word. Words keep apart: "ab", "c" is not "a", "bc".
func (p Point) Add(word string) Point {
	for i := range len(word) {
		p = (p ^ Point(word[i])) * 1099511628211
	}
	return (p ^ 0x1ff) * 1099511628211 // no byte is that
}

// Mix spreads what differs little over all bits (the finalizer of MurmurHash3).
func (p Point) Mix() Point {
	p = (p ^ p>>33) * 0xff51afd7ed558ccd
	p = (p ^ p>>33) * 0xc4ceb9fe1a85ec53
	return p ^ p>>33
}

// Within reports whether a mixed point belongs to a share of all, from 0 to 1.
// What belongs to a share belongs to every greater one.
func (p Point) Within(share float64) bool {
	return float64(p>>11) < share*math.Exp2(53)
}
