//go:build race

package release

// part of the simulated windows that run: the race detector makes them slow, and
// they do not run at once.
const part = 20
