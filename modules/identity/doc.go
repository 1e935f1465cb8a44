// Package identity is being written.
package identity
