package registry

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2"
)

func init() { caddy.RegisterModule(Admin{}) }

// Admin is the door to live objects on Caddy's admin endpoint.
//
//	GET    /gatehouse/                which kinds there are
//	GET    /gatehouse/<kind>[?after=<id>&limit=<n>]
//	POST   /gatehouse/<kind>          for revocations, whose ids follow from them
//	GET    /gatehouse/<kind>/<id>
//	PUT    /gatehouse/<kind>/<id>     the whole object
//	PATCH  /gatehouse/<kind>/<id>     a merge patch (RFC 7396)
//	DELETE /gatehouse/<kind>/<id>
//	GET    /gatehouse/audit           changes, newest first; see askedOf
//
// A change that looks like a mistake is a 409 unless the query says force=true.
// Answers carry an ETag; If-Match and If-None-Match: * (RFC 9110, section 13.1)
// make a change conditional.
type Admin struct{}

// CaddyModule returns the Caddy module information.
func (Admin) CaddyModule() caddy.ModuleInfo {
	return caddy.ModuleInfo{
		ID:  "admin.api.gatehouse_registry",
		New: func() caddy.Module { return new(Admin) },
	}
}

const prefix = "/gatehouse/"

// Routes gives each kind a pattern of its own.
func (Admin) Routes() []caddy.AdminRoute {
	routes := []caddy.AdminRoute{
		{Pattern: prefix, Handler: caddy.AdminHandlerFunc(serveKinds)},
		{Pattern: prefix + "audit", Handler: caddy.AdminHandlerFunc(serveAudit)},
	}
	for _, k := range kinds {
		serve := func(w http.ResponseWriter, r *http.Request) error { return serveKind(w, r, k) }
		routes = append(routes,
			caddy.AdminRoute{Pattern: prefix + k.name(), Handler: caddy.AdminHandlerFunc(serve)},
			caddy.AdminRoute{Pattern: prefix + k.name() + "/", Handler: caddy.AdminHandlerFunc(serve)})
	}
	return routes
}

// door is how a client knows that it has found a gateway's admin endpoint: any
// other server may answer to any path.
type door struct {
	Kinds []string `json:"gatehouse_kinds"`
}

func serveKinds(w http.ResponseWriter, r *http.Request) error {
	var d door
	for _, k := range kinds {
		d.Kinds = append(d.Kinds, k.name())
	}
	slices.Sort(d.Kinds)
	switch {
	case r.URL.Path != prefix:
		return caddy.APIError{HTTPStatus: http.StatusNotFound, Message: fmt.Sprintf("there is no %s; live objects are %s", r.URL.Path, strings.Join(d.Kinds, ", "))}
	case r.Method != http.MethodGet:
		return notAllowed(w, "GET")
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(d)
}

// running finds the app of the running configuration. The admin endpoint is
// older than the apps, and stays when they change.
func running() (*App, error) {
	app, err := caddy.ActiveContext().AppIfConfigured("gatehouse_registry")
	if err != nil {
		return nil, caddy.APIError{HTTPStatus: http.StatusNotFound, Message: "nothing in the running configuration uses live objects"}
	}
	return app.(*App), nil
}

func serveKind(w http.ResponseWriter, r *http.Request, k kind) error {
	a, err := running()
	if err != nil {
		if refused, ok := errors.AsType[caddy.APIError](err); ok && k.used() != "" {
			refused.Message += "; " + k.name() + " are used by " + k.used()
			return refused
		}
		return err
	}
	who, err := a.caller(r, k.name())
	if err != nil {
		return err
	}
	_, used := a.used.Load(k.name())
	who.idle = !used
	return a.store.route(w, r, k, who)
}

func (s *store) route(w http.ResponseWriter, r *http.Request, k kind, who caller) error {
	if r.Method == http.MethodGet {
		if err := who.may(readVerb, k.name(), ""); err != nil {
			return err
		}
	}
	id := strings.Trim(strings.TrimPrefix(r.URL.Path, prefix+k.name()), "/")
	switch {
	case id == "" && r.Method == http.MethodGet:
		return s.serveList(w, r, k)
	case id == "" && r.Method == http.MethodPost && s.tables[k.name()].parts != nil:
		return s.servePost(w, r, k.(packed), who)
	case id == "" && s.tables[k.name()].parts != nil:
		return notAllowed(w, "GET, POST")
	case id == "":
		return notAllowed(w, "GET")
	case !validID(id):
		return badRequest("%q is no id: at most 128 letters, digits, dots, underscores and hyphens, the first a letter or digit", id)
	case r.Method == http.MethodGet:
		return s.serveOne(w, r, k, id)
	}
	var edit edit
	switch r.Method {
	case http.MethodPut, http.MethodPatch:
		value, err := readValue(r)
		if err != nil {
			return err
		}
		edit = func(old *object) (json.RawMessage, error) {
			if r.Method == http.MethodPut {
				return value, nil
			}
			if old == nil {
				return nil, notFound(k, id)
			}
			return mergePatch(old.Value, value)
		}
	case http.MethodDelete:
		edit = func(old *object) (json.RawMessage, error) {
			if old == nil {
				return nil, notFound(k, id)
			}
			return nil, nil
		}
	default:
		return notAllowed(w, "GET, PUT, PATCH, DELETE")
	}
	return s.serveChange(w, r, k, id, who, edit)
}

// actor is who makes a change, as well as the admin endpoint knows: the
// certificate of a remote administrator, or else the address.
func actor(r *http.Request) string {
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		return r.TLS.PeerCertificates[0].Subject.String()
	}
	if r.RemoteAddr == "" || r.RemoteAddr == "@" {
		return "local"
	}
	return r.RemoteAddr
}

var idPattern = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`)

func validID(id string) bool { return idPattern.MatchString(id) }

func badRequest(format string, args ...any) error {
	return caddy.APIError{HTTPStatus: http.StatusBadRequest, Err: fmt.Errorf(format, args...)}
}

func notFound(k kind, id string) error {
	return caddy.APIError{HTTPStatus: http.StatusNotFound, Message: fmt.Sprintf("there is no %q among the %s", id, k.name())}
}

func notAllowed(w http.ResponseWriter, methods string) error {
	w.Header().Set("Allow", methods)
	return caddy.APIError{HTTPStatus: http.StatusMethodNotAllowed, Message: "use " + methods}
}

// Interface guards
var (
	_ caddy.AdminRouter = Admin{}
)
