// Package jwt reads and checks signed tokens (RFC 7515, RFC 7519) of the one
// form that an access token has: three base64url parts, one signature by an
// asymmetric key.
//
// A token never has a say in how it is checked. The key fixes the algorithms
// it may be used with, the issuer's settings narrow them further, and header
// members that carry or point to keys are not looked at. What the JSON layer
// could read in two ways, a member named twice or data behind a value, is
// refused before anything is decided.
package jwt
