package jwt

import "math/big"

// traces says, for small primes, which remainders the moduli leave that one
// maker's chips have made (CVE-2017-15361, ROCA): powers of 65537, and no
// others. Such a modulus can be factored. A good one leaves one of them for all
// of the primes by chance with a probability far below 2^-20.
var traces = func() map[int64][]bool {
	out := make(map[int64][]bool)
	for p := int64(3); p <= 167; p += 2 {
		if !big.NewInt(p).ProbablyPrime(0) {
			continue
		}
		left := make([]bool, p)
		for at := int64(1); !left[at]; at = at * 65537 % p {
			left[at] = true
		}
		out[p] = left
	}
	return out
}()

// guessable reports whether a modulus bears the mark in all of them.
func guessable(n *big.Int) bool {
	for p, left := range traces {
		if !left[new(big.Int).Mod(n, big.NewInt(p)).Int64()] {
			return false
		}
	}
	return true
}
