// Package caddyfile holds the golden files that show what the suite's
// Caddyfile means: each is a Caddyfile and the JSON, or the error, it becomes.
// Its subpackages are what the stages need to read their directives: order,
// the one list of places, and parse.
package caddyfile
