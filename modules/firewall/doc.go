// Package firewall is being written.
package firewall
