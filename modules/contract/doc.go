// Package contract is being written.
package contract
