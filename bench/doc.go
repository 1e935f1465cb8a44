// Command bench measures whole gateway processes against plain Caddy.
//
// It starts every scenario as a process of its own, one upstream behind them
// all, and sends each the same requests in turn, round after round. A machine's
// speed may change within a second, so that plain Caddy runs before and after
// each of the others, which are measured against those two. A second plain Caddy
// is measured like the others: its distance to 1 is the noise.
//
// CPU is what the kernel charged to the gateway's process for the requests of
// a round, from /proc. The median of the rounds' ratios is printed.
package main
