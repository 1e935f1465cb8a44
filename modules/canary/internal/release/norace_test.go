//go:build !race

package release

// part of the simulated windows that run.
const part = 1
