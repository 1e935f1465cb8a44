package waf

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/corazawaf/coraza/v3"
	"github.com/corazawaf/coraza/v3/types"
)

// Header is one field of a request.
type Header struct {
	Name   string
	Values []string
}

// Request is what is inspected.
type Request struct {
	Client  netip.Addr
	Method  string
	URI     string
	Proto   string
	Host    string
	Headers []Header // without Host
	Values  []Value  // that the path holds
	Body    []byte   // nil when it is not to be inspected
}

// Value is a part of the path that is no name, but what somebody has put in.
type Value struct{ Name, Text string }

// Size is how much there is to inspect.
func (r *Request) Size() int {
	n := len(r.URI) + len(r.Body)
	for _, h := range r.Headers {
		for _, v := range h.Values {
			n += len(h.Name) + len(v)
		}
	}
	return n
}

// Kind says what an inspection found.
type Kind uint8

// What an inspection may find.
const (
	Clean Kind = iota
	Attack
	TooManyArguments
	Unreadable
)

// Verdict is the outcome of one inspection.
type Verdict struct {
	Kind  Kind
	Rules string // ids of the rules that counted, at most maxRules, in order
	Log   string // what they are and where they struck; no values from the request
}

const maxRules = 8

// WAF holds compiled rules. It may be used concurrently.
type WAF struct{ engine coraza.WAF }

// Destruct has nothing to release: requests may still hold the rules, and the
// collector takes them when the last is done.
func (*WAF) Destruct() error { return nil }

// Inspect runs the rules for request headers and body, until one refuses.
func (w *WAF) Inspect(r *Request) (Verdict, error) {
	tx := w.engine.NewTransaction()
	defer func() { _ = tx.Close() }() // its error is of temporary files, which we have none
	it, err := run(tx, r)
	if err != nil || it == nil {
		return Verdict{}, err
	}
	return verdict(tx, it), nil
}

// Matches lists the rules that match, whether they refuse or not.
func (w *WAF) Matches(r *Request) ([]int, error) {
	tx := w.engine.NewTransaction()
	defer func() { _ = tx.Close() }()
	_, err := run(tx, r)
	var ids []int
	for _, m := range tx.MatchedRules() {
		ids = append(ids, m.Rule().ID())
	}
	return ids, err
}

func run(tx types.Transaction, r *Request) (*types.Interruption, error) {
	tx.ProcessConnection(r.Client.String(), 0, "", 0)
	tx.ProcessURI(r.URI, r.Method, r.Proto)
	tx.SetServerName(r.Host)
	if r.Host != "" {
		tx.AddRequestHeader("Host", r.Host)
	}
	for _, v := range r.Values {
		tx.AddPathRequestArgument(v.Name, v.Text)
	}
	for _, h := range r.Headers {
		for _, v := range h.Values {
			tx.AddRequestHeader(h.Name, v)
		}
	}
	if it := tx.ProcessRequestHeaders(); it != nil {
		return it, nil
	}
	if len(r.Body) > 0 {
		if it, _, err := tx.WriteRequestBody(r.Body); err != nil {
			return nil, fmt.Errorf("buffering the body: %w", err)
		} else if it != nil {
			return it, nil
		}
	}
	it, err := tx.ProcessRequestBody()
	if err != nil {
		return nil, fmt.Errorf("evaluating the body: %w", err)
	}
	return it, nil
}

func verdict(tx types.Transaction, it *types.Interruption) Verdict {
	v := Verdict{Kind: Attack}
	switch it.RuleID {
	case ruleArguments, ruleArguments + 1:
		v.Kind = TooManyArguments
	case ruleURI, ruleBody, ruleMultipart, ruleFilename:
		v.Kind = Unreadable
	}
	var ids, log strings.Builder
	n := 0
	var seen []int
	for _, m := range tx.MatchedRules() {
		rule := m.Rule()
		if m.Message() == "" || rule.ID()/1000 == 901 || slices.Contains(seen, rule.ID()) {
			continue // bookkeeping of the rule set
		}
		if n++; n > maxRules {
			break
		}
		seen = append(seen, rule.ID())
		if n > 1 {
			ids.WriteByte(',')
			log.WriteString("; ")
		}
		fmt.Fprintf(&ids, "%d", rule.ID())
		fmt.Fprintf(&log, "%d %s", rule.ID(), message(m))
		if where := place(m); where != "" {
			log.WriteString(" in " + where)
		}
	}
	v.Rules, v.Log = ids.String(), log.String()
	return v
}

// message drops what rules append to their text about the match.
func message(m types.MatchedRule) string {
	text, _, _ := strings.Cut(m.Message(), " (Total Score")
	text, _, _ = strings.Cut(text, ": Found within")
	return text
}

// place names the variable that matched, never its value: it may be a secret.
// Names come from the client as well and are cut and quoted.
func place(m types.MatchedRule) string {
	for _, d := range m.MatchedDatas() {
		if name := d.Variable().Name(); name != "TX" && name != "UNKNOWN" {
			key := d.Key()
			if key == "" {
				return name
			}
			return name + ":" + fmt.Sprintf("%.64q", key)
		}
	}
	return ""
}
