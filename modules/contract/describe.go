package contract

import (
	"encoding/json"
	"fmt"

	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/openapi"
	"github.com/gatehouse-caddy/gatehouse/modules/contract/internal/publish"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// Describe tells consumers what the contract says, as far as it is published.
func (h *Handler) Describe(d *gate.Description) {
	if h.File == "" {
		d.MayRefuse(h.InputMode, gate.Input)
		return
	}
	d.MayRefuse(h.Mode, gate.Contract)
	if h.Mode != gate.Off {
		d.MayRefuse(h.InputMode, gate.Input)
	}
	d.Document = h.document
}

// document reads the contract once more: the compiled one has let go of what
// no request needs.
func (h *Handler) document(s gate.Selection) (*gate.Document, error) {
	main, err := openapi.ReadFile(h.File)
	if err != nil {
		return nil, fmt.Errorf("contract: %w", err)
	}
	if s.Server == "" {
		s.Server = h.contract.bases[0]
	}
	if s.Server == "" {
		s.Server = "/"
	}
	made, err := publish.Make(openapi.Node{Files: openapi.NewFiles(main), File: main, Value: main.Root}, publish.Options{Hide: s.Hide, Server: s.Server})
	if err != nil {
		return nil, fmt.Errorf("contract %s: %w", h.File, err)
	}
	out := &gate.Document{Title: made.Title, Version: made.Version, Server: s.Server}
	if out.JSON, err = json.Marshal(made.Root); err != nil {
		return nil, fmt.Errorf("contract %s: %w", h.File, err)
	}
	security := make(map[string]*operation, len(h.contract.all))
	for _, o := range h.contract.all {
		security[o.ID] = o
	}
	for _, o := range made.Operations {
		op := gate.PublishedOperation{Operation: gate.Operation{ID: o.ID, Method: o.Method, Path: o.Path}, Summary: o.Summary, Deprecated: o.Deprecated}
		if known := security[o.ID]; known != nil {
			op.Security = known.Security
		}
		out.Operations = append(out.Operations, op)
	}
	return out, nil
}
