//go:build race

package api

const underRace = true
