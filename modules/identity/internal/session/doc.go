// Package session is what a login by a browser is made of: what a cookie may
// hold and nobody else may read (seal.go, cookie.go), a login on its way
// (login.go), a session (session.go), what an OpenID provider is asked
// (provider.go), where a browser may be sent back to (place.go), and which
// sessions are over before their time (ended.go).
//
// A session lives in the browser's cookie, sealed: nothing is remembered of it
// here, so that a million logins cost no memory, a restart logs nobody out, and
// nodes share no more than a key. What has to be remembered is which sessions
// were ended, and that is bounded.
package session
