// Package identity finds out who asks: by bearer tokens that an issuer has
// signed, by API keys of which only hashes are held, or by client certificates
// that Caddy has verified.
//
// A credential that is presented and wrong refuses the request; another way of
// proving is not tried. On success the Exchange has a Principal, and the
// upstream is told about it in X-Gatehouse- headers, whose inbound copies were
// stripped before.
//
// A token that is bound to a key or a client certificate is accepted with a
// proof of it only (bound.go), which may have to carry a nonce (nonce.go).
//
// Resource, a handler of its own, publishes what clients need to get a token
// (RFC 9728), and every refusal says where that is (challenge.go).
//
// People who log in with a browser carry a session: a cookie that is sealed here
// and opened here (session.go, internal/session).
//
// An upstream that wants to verify it is told by a short-lived token that the
// gateway signs (signed.go), or gets a token of its own from the issuer, in
// exchange for the client's (exchange.go).
//
// The gateway proves itself to an issuer's endpoints by a secret, an assertion
// that it signs or a client certificate (clientauth.go, internal/clientauth). It
// finds them by the issuer's metadata (endpoint.go), and asks each question once
// for all who wait for the answer (internal/ask).
//
// Client certificates name who asks, and are asked whether they were revoked
// (certificate.go, certificaterevocation.go, trust.go).
//
// A refusal has two readers: the caller is told a sentence that helps it to try,
// and the operator what came and what would have been accepted (came.go), in a few
// bounded words that repeat no credential.
//
// # Price
//
// The first sight of a token costs its signature check; after that it is
// remembered, bounded and never past its expiry or a change of the issuer's
// keys, and costs a fraction of a microsecond and no allocation. Keys from a
// URL are fetched when first needed and refreshed behind the requests. A token
// for an upstream is signed once in half its lifetime for each principal, and is
// one allocation for the other requests.
//
// # How it fails
//
// A wrong credential is a 401. Keys that cannot be fetched are no verdict on
// the caller: such requests meet on_error, 503 by default, while the last good
// keys serve on for a day. It starts with an issuer that is away and recovers
// by itself. A session lives on until its own end while its issuer is away, unless
// it has to be renewed, which on_error decides about. A flood of tokens that name
// unknown keys causes one fetch in 30 seconds. When nobody knows whether a
// certificate was revoked, on_error of those who were asked decides: 503 by
// default. An issuer that makes nothing of one token is away for nobody else, and
// on_error lets no such token in.
package identity
