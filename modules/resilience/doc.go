// Package resilience keeps an API answering while some of what is behind it
// does not. It is a transport and a selection policy for Caddy's own
// reverse_proxy: `transport gatehouse` and `lb_policy gatehouse`, which an api
// block gives to every reverse_proxy that names none.
//
// Each upstream has a breaker, which is kept over reloads. What one caller can
// provoke, failures and time-outs, is set against how others fare, and closes an
// upstream for nobody whom it answers; connections that do not come about count
// whoever asked. A breaker takes some 2 KiB for that. A request that fails
// is tried again elsewhere by Caddy's own loop (lb_retries) if repeating it is
// harmless: nothing was sent yet, or its method is idempotent, or it carries an
// Idempotency-Key; its body is there as a whole; the deadline is not over; and
// retries are at most a share of the requests in flight, so that they never
// bury an upstream that is already down. Upstreams of the gateway's own zone
// come first, and give load away as they fail.
//
// An answer stops the deadlines: streams, upgrades and long downloads are not
// cut. What is sent up counts as waiting only while the upstream is waited for.
//
// A request that passes at once costs no more than with Caddy's own transport:
// what the breaker and the deadline take, the log entry saves that Caddy's
// proxy need not encode (bench). Which upstream gets a request is
// decided on the breakers of this process alone; nothing remote is asked.
package resilience
