// Package require decides whether a proven caller may do what it asks.
//
// Standing alone, `require` enforces the security that the contract declares
// for the operation: any one of its alternatives, with every scheme and scope
// in it. With `scope`, `role` or `cel` it asks for that instead; several
// requires must all be met.
//
// # Price
//
// Scopes and roles are compared in place, without allocating. An expression is
// compiled once for all places that use it and costs about a microsecond a
// request.
//
// # How it fails
//
// Closed. A caller who is not proven gets 401, one who lacks something 403 with
// the scope it lacks in WWW-Authenticate (RFC 6750, section 3.1). An expression
// that cannot be evaluated, say because a claim is missing, is a no. The decision
// shows the whole rule, and its cause what the caller has of what is asked for.
package require
