// Package guard refuses requests that are not well formed, or that two programs
// could read in two ways, before anything is decided about them.
//
// It gives the path one form, which matchers, stages and the backend then all
// see; bounds the URL, query, header fields and body; takes a content encoding
// off, so that later stages and the backend see what was meant; and holds JSON
// to one reading: no member twice, valid UTF-8, nothing behind the value,
// bounded depth, size and numbers.
//
// A request without a body costs well under a microsecond. A JSON body is
// decoded once and the value handed on to the contract. Any other body streams
// through and is counted on its way. It depends on nothing that could be down.
//
// Each check has a mode of its own beside that of the stage. In a site, guard
// stands in front of api, whose matchers then see the canonical path; inside of
// an api block, that api's matcher has seen the path as it was sent.
package guard
