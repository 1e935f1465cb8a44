// Package firewall refuses requests that look like attacks, by Coraza with the
// embedded OWASP Core Rule Set.
//
// It inspects the request's URI and headers, and bodies of the types the rules
// understand (JSON, forms, multipart, XML, plain text) up to max_body. Bodies
// of binary types are not fed to it unless they are text: they mean nothing to
// the rules and would cost seconds. The rules see values as parsers do, not as
// they were cut up or escaped (internal/reading). Responses are not inspected.
//
// # Price
//
// Milliseconds, by far the dearest stage: see bench/ for a GET and for JSON of
// 1 and 64 KB. The cost grows with the number of arguments, so their number is
// bounded, and more are refused: an attacker must not be able to hide behind
// harmless ones. Large requests share half of the processors, and take turns
// (internal/desk); small ones never wait. Rules are compiled once, kept over reloads, and shared by all
// sites that have the same, file contents included.
//
// # How it fails
//
// Closed: what cannot be read is refused, and so is a body that is larger than
// max_body unless `oversize pass` says otherwise. An engine that fails or
// panics meets on_error; one that is busy does not, since callers can keep it so. The decision names the rules that counted; the log
// names where they struck, never the value.
package firewall
