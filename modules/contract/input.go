package contract

import (
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"

	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/param"
	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/schema"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/gate/strictjson"
)

// check is the validation of one request.
type check struct {
	op    *operation // nil for a plain schema
	body  *body      // nil when the operation takes none
	limit int64
	mode  gate.Mode

	refuseUnknown bool // members of the query that the operation does not know
}

// serve validates and goes on, or refuses.
func (c *check) serve(ex *gate.Exchange, w http.ResponseWriter, r *http.Request, next caddyhttp.Handler) error {
	mode := ex.Mode(gate.Input, c.mode)
	if mode == gate.Off {
		return next.ServeHTTP(w, r)
	}
	began := gate.Now()
	denial := c.guarded(ex, r)
	if err := ex.Conclude(w, r, gate.Input, mode, "", denial, began); err != nil {
		return err
	}
	return next.ServeHTTP(w, r)
}

// guarded keeps a fault of a schema library from taking the request through.
func (c *check) guarded(ex *gate.Exchange, r *http.Request) (d *gate.Denial) {
	defer func() {
		if p := recover(); p != nil {
			d = &gate.Denial{Reason: gate.InputUnavailable, Err: fmt.Errorf("validation panicked: %v", p)}
		}
	}()
	if c.op != nil {
		if d := c.op.checkParams(ex, r, c.refuseUnknown); d != nil {
			return d
		}
	}
	return c.checkBody(ex, r)
}

// maxFields bounds what a client is told at once.
const maxFields = schema.MaxViolations

func (o *operation) checkParams(ex *gate.Exchange, r *http.Request, refuseUnknown bool) *gate.Denial {
	refuseUnknown = refuseUnknown && r.URL.RawQuery != ""
	if len(o.params) == 0 && !refuseUnknown {
		return nil
	}
	var fields []gate.FieldError
	var query url.Values
	if refuseUnknown {
		var err error
		if query, err = url.ParseQuery(r.URL.RawQuery); err != nil {
			return unreadableQuery(err)
		}
		fields = o.unknown(query)
	}
	for _, p := range o.params {
		if len(fields) >= maxFields {
			break
		}
		if p.In == "query" && query == nil {
			var err error
			if query, err = url.ParseQuery(r.URL.RawQuery); err != nil {
				return unreadableQuery(err)
			}
		}
		v, present, twice := p.read(ex, r, query)
		if values := query[p.Name]; p.In == "query" && p.AllowEmptyValue && len(values) == 1 && values[0] == "" {
			continue
		}
		fields = p.check(fields, v, present, twice)
	}
	if fields == nil {
		return nil
	}
	return &gate.Denial{Reason: gate.InputParameters, Fields: fields}
}

func unreadableQuery(err error) *gate.Denial {
	return &gate.Denial{Reason: gate.InputParameters, Detail: "The query cannot be read.", Err: err}
}

// unknown lists the members of a query that belong to no parameter. A backend may
// take them all the same, and by another name for something that is documented.
func (o *operation) unknown(query url.Values) (fields []gate.FieldError) {
	for _, name := range slices.Sorted(maps.Keys(query)) {
		if len(fields) < maxFields && !slices.ContainsFunc(o.params, func(p *parameter) bool {
			return p.In == "query" && param.Claims(p.Param, p.shape, name)
		}) {
			fields = append(fields, gate.FieldError{In: "query", Name: name, Detail: "is not documented"})
		}
	}
	return fields
}

// read takes the parameter's value out of the request: its text where the
// contract describes a content, or what its style makes of it. Twice means that
// backends may take either of several values.
func (p *parameter) read(ex *gate.Exchange, r *http.Request, query url.Values) (v any, present, twice bool) {
	var values []string
	switch p.In {
	case "path":
		for _, m := range ex.Params {
			if m.Name == p.Name {
				values = []string{m.Value}
			}
		}
	case "query":
		if p.ContentType == "" {
			return param.Query(p.Param, p.shape, query)
		}
		values = query[p.Name]
	case "header":
		if lines := r.Header.Values(p.Name); len(lines) > 0 {
			values = []string{strings.Join(lines, ",")} // they mean the same, RFC 9110 section 5.3
		}
	case "cookie":
		values = cookies(r, p.Name)
	}
	switch {
	case len(values) == 0:
		return nil, false, false
	case p.ContentType != "":
		return values[0], true, len(values) > 1
	case p.In == "path":
		return param.Path(p.Param, p.shape, values[0]), true, false
	}
	return param.Header(p.Param, p.shape, values[0]), true, len(values) > 1
}

// cookies lists the values of a cookie as they were sent. The standard library
// leaves out what is malformed, which a backend may read all the same.
func cookies(r *http.Request, name string) (values []string) {
	for _, line := range r.Header["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			n, v, _ := strings.Cut(pair, "=")
			if strings.TrimSpace(n) != name {
				continue
			}
			v = strings.TrimSpace(v)
			if len(v) > 1 && v[0] == '"' && v[len(v)-1] == '"' {
				v = v[1 : len(v)-1]
			}
			values = append(values, v)
		}
	}
	return values
}

// check adds what is wrong with one parameter.
func (p *parameter) check(fields []gate.FieldError, v any, present, twice bool) []gate.FieldError {
	add := func(detail string) {
		if len(fields) < maxFields {
			fields = append(fields, gate.FieldError{In: p.In, Name: p.Name, Detail: detail})
		}
	}
	switch {
	case !present:
		if p.Required {
			add("is missing")
		}
		return fields
	case twice:
		add("must not be given twice")
		return fields
	case p.schema == nil:
		return fields
	}
	if p.ContentType != "" && isJSON(p.ContentType) {
		text, _ := v.(string)
		decoded, err := strictjson.Decode([]byte(text), strictjson.Limits{})
		if err != nil {
			add("is not well-formed JSON")
			return fields
		}
		v = decoded
	}
	for _, violation := range p.schema.Validate(v) {
		detail := violation.Detail
		if violation.Pointer != "" {
			detail = violation.Pointer + " " + detail
		}
		add(detail)
	}
	return fields
}

// checkBody validates the body, reading it only if there is a schema for it.
func (c *check) checkBody(ex *gate.Exchange, r *http.Request) *gate.Denial {
	empty := r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody
	if c.body == nil {
		if empty {
			return nil
		}
		if r.ContentLength < 0 { // perhaps a chunked nothing
			if data, err := ex.Body(r, 0); err == nil && len(data) == 0 {
				return nil
			}
		}
		// What the contract does not know would reach the backend unchecked.
		return &gate.Denial{Reason: gate.InputContentType, Detail: "The operation takes no request body."}
	}
	if empty {
		if c.body.required {
			return &gate.Denial{Reason: gate.InputBodyMissing}
		}
		return nil
	}
	t, ok := c.body.find(r.Header.Values("Content-Type"))
	if !ok {
		return &gate.Denial{
			Reason: gate.InputContentType,
			Detail: "The operation accepts " + c.body.accept + ".",
			Header: http.Header{"Accept": {c.body.accept}}, // RFC 9110, section 15.5.16
		}
	}
	if t.schema == nil {
		return nil
	}
	data, err := ex.Body(r, c.limit)
	if err != nil {
		return unreadable(err)
	}
	if len(data) == 0 {
		if c.body.required {
			return &gate.Denial{Reason: gate.InputBodyMissing}
		}
		return nil
	}
	var value any
	if t.form {
		form, err := url.ParseQuery(string(data))
		if err != nil {
			return &gate.Denial{Reason: gate.InputMalformed, Err: err}
		}
		value = param.Form(t.shape, form)
	} else if value, err = decoded(ex, data); err != nil {
		d := &gate.Denial{Reason: gate.InputMalformed, Err: err}
		if e, ok := errors.AsType[*strictjson.Error](err); ok {
			d.Detail = fmt.Sprintf("The body is not acceptable JSON: %s at byte %d.", e.Reason, e.Offset)
		}
		return d
	}
	violations := t.schema.Validate(value)
	if violations == nil {
		return nil
	}
	d := &gate.Denial{Reason: gate.InputBody}
	for _, v := range violations {
		d.Fields = append(d.Fields, gate.FieldError{Pointer: fragment(v.Pointer), Detail: v.Detail})
	}
	return d
}

// fragment writes a JSON pointer as a URI fragment (RFC 6901, section 6).
func fragment(pointer string) string {
	u := url.URL{Fragment: pointer}
	if s := u.String(); s != "" {
		return s
	}
	return "#"
}

// find picks the content type's entry: the exact one before ranges. JSON and forms
// in another charset are another type: they would be read as UTF-8.
func (b *body) find(values []string) (mediaType, bool) {
	if len(values) != 1 {
		return mediaType{}, false // two types are none; so is no type for a body
	}
	media, params, err := mime.ParseMediaType(values[0])
	if err != nil {
		return mediaType{}, false
	}
	for _, t := range b.types {
		if !t.covers(media, params) {
			continue
		}
		t.json, t.form = isJSON(media), media == "application/x-www-form-urlencoded"
		if !t.json && !t.form {
			t.schema = nil // nothing we could read
		} else if c := params["charset"]; c != "" && !strings.EqualFold(c, "utf-8") {
			return mediaType{}, false
		}
		return t, true
	}
	return mediaType{}, false
}

func (t *mediaType) covers(media string, params map[string]string) bool {
	major, _, _ := strings.Cut(media, "/")
	if t.media != media && t.media != "*/*" && t.media != major+"/*" {
		return false
	}
	for name, want := range t.params {
		if !strings.EqualFold(params[name], want) {
			return false
		}
	}
	return true
}

func unreadable(err error) *gate.Denial {
	switch {
	case errors.Is(err, gate.ErrBodyTooLarge):
		return &gate.Denial{Reason: gate.InputBodyTooLarge, Err: err}
	case errors.Is(err, gate.ErrBodyEncoded):
		return &gate.Denial{
			Reason: gate.InputContentEncoding, Err: err,
			Header: http.Header{"Accept-Encoding": {"identity"}}, // RFC 9110, section 15.5.16
		}
	}
	return &gate.Denial{Reason: gate.InputBodyUnreadable, Err: err}
}

// decoded is the JSON value of the body: as the guard has read it under limits
// at least as strict, or read now.
func decoded(ex *gate.Exchange, data []byte) (any, error) {
	if ex.Decoded != nil {
		return ex.Decoded, nil
	}
	return strictjson.Decode(data, strictjson.Limits{})
}
