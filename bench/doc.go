// Command bench measures whole gateway processes against plain Caddy.
//
// It starts every scenario as a process of its own, one upstream behind them
// all, and sends each the same requests in turn, round after round, so that a
// machine that grows slower grows slower for all of them. Plain Caddy stands
// in the table twice: the distance between the two is the noise.
//
// CPU is what the kernel charged to the gateway's process for the requests of
// a round, from /proc. Ratios are taken inside a round, to the mean of the two
// plain ones, and the median over the rounds is printed.
package main
