// Package cli is being written.
package cli
