// Package quota is being written.
package quota
