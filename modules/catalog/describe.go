package catalog

import "github.com/gatehouse-caddy/gatehouse/modules/gate"

// Describe tells others where the API's page is, and what it leaves out.
func (h *Handler) Describe(d *gate.Description) {
	if !h.Index {
		d.Page, d.Hidden = h.Path, h.Hide
	}
}

// Interface guards
var _ gate.Describer = (*Handler)(nil)
