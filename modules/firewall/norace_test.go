//go:build !race

package firewall

const underRace = false
