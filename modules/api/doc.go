// Package api is being written.
package api
