package waf

import (
	"io/fs"
	"regexp"
	"strings"

	"github.com/corazawaf/coraza-coreruleset/v4"
	"github.com/corazawaf/coraza/v3/experimental/plugins"
	"github.com/corazawaf/coraza/v3/experimental/plugins/plugintypes"

	"github.com/gatehouse-caddy/gatehouse/modules/firewall/internal/rx"
)

// matchOperator is @rx as Coraza has it, but for the time that it takes to say no. It has a
// name of its own, so that nobody else's rules get it.
const matchOperator = "gatehouse_rx"

func init() {
	plugins.RegisterOperator(matchOperator, func(o plugintypes.OperatorOptions) (plugintypes.Operator, error) {
		expr := "(?sm)" + o.Arguments // the flags are Coraza's
		do := func(_ string, compile func() (any, error)) (any, error) { return compile() }
		if o.Memoizer != nil {
			do = o.Memoizer.Do
		}
		p, err := do(matchOperator+":"+expr, func() (any, error) { return rx.Compile(expr) })
		if err != nil {
			return nil, err
		}
		return operator{p.(*rx.Pattern)}, nil
	})
}

type operator struct{ *rx.Pattern }

// Evaluate matches, and hands on what groups have captured where a rule asks for it.
func (o operator) Evaluate(tx plugintypes.TransactionState, value string) bool {
	if !tx.Capturing() {
		return o.MatchString(value)
	}
	at := o.FindStringSubmatchIndex(value)
	for i := 0; i < len(at)/2 && i < 9; i++ {
		group := ""
		if at[2*i] >= 0 {
			group = value[at[2*i]:at[2*i+1]]
		}
		tx.CaptureField(i, group)
	}
	return at != nil
}

// byteEscape is a byte that is no character by itself: Coraza has another library
// for expressions with one.
var byteEscape = regexp.MustCompile(`\\x(?:[89a-fA-F][0-9a-fA-F]|\{[89a-fA-F][0-9a-fA-F]\})`)

// quickly has the rules of a text match by our operator.
func quickly(text string) string {
	if !strings.Contains(text, "@rx ") {
		return text
	}
	var out strings.Builder
	out.Grow(len(text) + len(text)/16)
	for line := range strings.Lines(text) {
		if !byteEscape.MatchString(line) && !strings.HasPrefix(line, "#") {
			line = strings.Replace(line, `"@rx `, `"@`+matchOperator+" ", 1)
			line = strings.Replace(line, `"!@rx `, `"!@`+matchOperator+" ", 1)
		}
		out.WriteString(line)
	}
	return out.String()
}

// files are those that rules may refer to: the Core Rule Set's.
type files interface {
	fs.ReadFileFS
	fs.GlobFS
	fs.ReadDirFS
}

// quick is the Core Rule Set with its rules as we have them match.
type quick struct{ files }

func ruleFiles() fs.FS {
	if f, ok := coreruleset.FS.(files); ok {
		return quick{f}
	}
	return coreruleset.FS // with Coraza's own operator
}

// ReadFile reads a file of rules, or of data for them.
func (q quick) ReadFile(name string) ([]byte, error) {
	data, err := q.files.ReadFile(name)
	if err != nil || !strings.HasSuffix(name, ".conf") {
		return data, err
	}
	return []byte(quickly(string(data))), nil
}
