package policytest

import (
	"slices"
	"strings"
)

// lostSecurity finds contracts that ask for credentials which nobody looks at, or
// which nobody can prove to have.
func lostSecurity(a *audit) {
	for _, p := range a.apis {
		if p.contract == nil {
			continue
		}
		at := slices.IndexFunc(p.contract.operations, func(o *operation) bool { return o.asks })
		if at < 0 {
			continue
		}
		op := p.contract.operations[at]
		requires := slices.DeleteFunc(slices.Clone(p.handlers["gatehouse_require"]), func(h map[string]any) bool {
			return h["expression"] != nil || askedOf(map[string]any{"scopes": h["scopes"], "roles": h["roles"], "acr": h["acr"], "max_age": h["max_age"]}) != nil
		})
		switch {
		case len(requires) == 0:
			a.found(p.line, "nothing in api %s looks at the security of its contract, such as that of %s; write `require` behind the contract", p.name, op.id)
		case !proves(p) && !slices.ContainsFunc(requires, func(h map[string]any) bool { return h["mode"] == "off" }):
			a.found(p.line, "%s asks for credentials, and api %s proves nobody: each request for it is refused; write identity, or require { mode off } if the backend asks for them", op.id, p.name)
		}
	}
}

// proves reports whether an identity stands in an API or around it.
func proves(p *api) bool {
	return slices.ContainsFunc(p.handlers["gatehouse_identity"], func(h map[string]any) bool { return h["mode"] != "off" }) ||
		slices.ContainsFunc(p.handlers["authentication"], func(h map[string]any) bool { return dig(h, "providers", "gatehouse") != nil })
}

// lostQuotas finds quotas of what is proven of a caller, where nobody has been.
func lostQuotas(a *audit) {
	a.inOrder("gatehouse_quota", func(h map[string]any, proven bool) {
		switch per := str(h["per"]); per {
		case "tenant", "client", "subject", "key":
			if !proven && h["mode"] != "off" {
				a.found(a.lineOf("quota", "per", per), "quota per %s stands where no identity has proven anybody, and counts by address; write identity before it", per)
			}
		}
	})
}

// namesakes finds APIs that are one to everything that goes by a name.
func namesakes(a *audit) {
	seen := map[string]bool{}
	for _, p := range a.apis {
		if seen[p.name] {
			a.found(p.line, "api %s stands in several places, which share its quotas, live modes and canaries; give it another name where that is not meant", p.name)
		}
		seen[p.name] = true
	}
}

// deadAPIs finds those that stand behind another which answers everything.
func deadAPIs(a *audit) {
	lists := func(routes []any) {
		answers := "" // the API that does
		for _, r := range routes {
			for _, h := range list(dig(r, "handle")) {
				if dig(h, "handler") != "gatehouse_api" {
					continue
				}
				name := str(dig(h, "name"))
				if answers != "" {
					a.found(a.lineOfAPI(name), "api %s gets no request: api %s, which stands before it without a matcher, answers all; give one of them a path", name, answers)
				} else if len(list(dig(r, "match"))) == 0 {
					answers = name
				}
			}
		}
	}
	walk(a.root, func(o map[string]any) {
		for _, v := range o {
			lists(list(v))
		}
	})
}

// lineOfAPI is where an API's block begins, whatever matcher stands before its
// name.
func (a *audit) lineOfAPI(name string) int {
	for i, t := range a.lines {
		if t.Text != "api" || i > 0 && a.lines[i-1].Line == t.Line && !strings.HasSuffix(a.lines[i-1].Text, "{") {
			continue
		}
		for _, word := range a.lines[i+1:] {
			if word.Line != t.Line {
				break
			}
			if word.Text == name {
				return t.Line
			}
		}
	}
	return a.lineOf("api", name)
}
