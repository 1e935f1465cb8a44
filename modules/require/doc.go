// Package require is being written.
package require
