//go:build race

package firewall

const underRace = true
