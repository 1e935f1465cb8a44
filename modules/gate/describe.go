package gate

import (
	"net/http"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// Description is what an API may tell its consumers. Handlers add to it when
// the configuration is loaded; who publishes it gets it complete.
type Description struct {
	API, Owner, Text string
	ProblemType      string // the prefix of problems' types

	Credentials []Credential
	Limits      []Limit
	Stages      []Stage // that may refuse a request, in the order of the walk
	Standing    uint32  // a bit for each stage that is there, whatever its mode
	Scopes      []string
	Roles       []string

	Tokens *Tokens  // nil where none are accepted
	Page   string   // the path of the page for people; empty without one
	Hidden []string // operationIds and tags that the page leaves out

	// Document makes the contract as consumers may see it; nil without one.
	Document func(Selection) (*Document, error)
}

// Credential is one way to prove who asks.
type Credential struct {
	Kind     string   // e.g. Bearer token
	How      string   // where it goes, e.g. the name of a header field
	Issuer   string   // who gives it; may be empty
	Audience []string // whom it must be meant for
}

// Limit is one allowance of requests over time.
type Limit struct {
	Plan string // empty: it holds for everybody
	Rate string // e.g. 60 per minute
	Per  string // what is counted: tenant, client, address ...
	Note string // e.g. when it holds
}

// Selection says what of a contract is published.
type Selection struct {
	Hide   []string // operationIds and tags that are left out
	Server string   // the public address; empty: relative to the document
}

// Document is a contract as it is published.
type Document struct {
	JSON       []byte
	Title      string
	Version    string
	Server     string // the API's address, perhaps relative
	Operations []PublishedOperation
}

// PublishedOperation is one operation of a published contract.
type PublishedOperation struct {
	Operation

	Summary    string
	Deprecated bool
}

// Describer is a handler that has something to tell the API's consumers. What
// it tells must not be a secret: addresses of backends, lists of addresses,
// thresholds of detection and names of files stay inside.
type Describer interface {
	Describe(*Description)
}

// Publisher is a handler that shows the description of the API it stands in.
type Publisher interface {
	Publish(*Description) error
}

// Owner is a handler that answers some requests itself: those for pages of the
// gateway, such as a login. It is asked before the walk.
type Owner interface {
	Own(*http.Request) bool
}

// Container is a handler that has a chain of its own.
type Container interface {
	Inner() caddyhttp.RouteList
}

// Introduce collects the description of an API from its handlers and gives it
// to those that publish it. The handlers must have been provisioned.
func Introduce(routes caddyhttp.RouteList, d *Description) error {
	var publishers []Publisher
	Visit(routes, func(h caddyhttp.MiddlewareHandler) {
		if p, ok := h.(Publisher); ok {
			publishers = append(publishers, p)
		}
	})
	if publishers == nil {
		return nil
	}
	Visit(routes, func(h caddyhttp.MiddlewareHandler) {
		if s, ok := h.(Describer); ok {
			s.Describe(d)
		}
	})
	for _, p := range publishers {
		if err := p.Publish(d); err != nil {
			return err
		}
	}
	return nil
}

// Visit calls f for the handlers of a chain and of those that are in it.
func Visit(routes caddyhttp.RouteList, f func(caddyhttp.MiddlewareHandler)) {
	for _, route := range routes {
		for _, h := range route.Handlers {
			f(h)
			switch h := h.(type) {
			case *caddyhttp.Subroute:
				Visit(h.Routes, f)
			case Container:
				Visit(h.Inner(), f)
			}
		}
	}
}

// Stands says that a stage is there.
func (d *Description) Stands(s Stage) { d.Standing |= 1 << s }

// MayRefuse adds a stage that is not off.
func (d *Description) MayRefuse(m Mode, stages ...Stage) {
	for _, s := range stages {
		d.Stands(s)
	}
	if m == Off {
		return
	}
	for _, s := range stages {
		at := 0
		for at < len(d.Stages) && d.Stages[at] < s {
			at++
		}
		if at == len(d.Stages) || d.Stages[at] != s {
			d.Stages = append(d.Stages[:at], append([]Stage{s}, d.Stages[at:]...)...)
		}
	}
}
