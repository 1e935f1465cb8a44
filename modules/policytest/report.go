package policytest

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// run is what became of one file.
type run struct {
	*suite
	results []result
	err     error // why it could not be run, or not to its end
}

func (r *run) failed() (n int) {
	for _, res := range r.results {
		if res.at != nil {
			n++
		}
	}
	return n
}

// print tells of what failed and counts the rest.
func report(out io.Writer, runs []*run, took time.Duration) {
	cases, failed, broken := 0, 0, 0
	for _, r := range runs {
		if r.err != nil {
			broken++
			_, _ = fmt.Fprintln(out, r.err) // to a terminal; nobody could be told of more
		}
		cases += len(r.results)
		failed += r.failed()
		for _, res := range r.results {
			if res.at != nil {
				_, _ = fmt.Fprint(out, res.explain(r.name))
			}
		}
	}
	_, _ = fmt.Fprintf(out, "%d cases in %d files, %d passed, %d failed", cases, len(runs), cases-failed, failed)
	if broken > 0 {
		_, _ = fmt.Fprintf(out, "; %d files could not be run", broken)
	}
	_, _ = fmt.Fprintf(out, " (%.1fs)\n", took.Seconds())
}

// explain says what was expected, what came, and how the gateway came to it.
func (res *result) explain(file string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s:%d: %s\n", file, res.at.line, res.name)
	q := res.at.request
	fmt.Fprintf(&b, "\t%s %s as %s", q.method, q.path, res.at.as)
	if res.at.times > 1 {
		fmt.Fprintf(&b, ", request %d of %d", res.nth, res.at.times)
	}
	b.WriteByte('\n')
	for _, d := range res.diffs {
		fmt.Fprintf(&b, "\t%s\n", d)
	}
	if decided := res.last.decided(); decided != "" {
		fmt.Fprintf(&b, "\tdecided: %s\n", decided)
	}
	if res.last.status >= 400 && len(res.last.body) > 0 {
		fmt.Fprintf(&b, "\tanswered: %s\n", res.last.answered())
	}
	return b.String()
}

// answered is what a refusal says, without what all of them say.
func (o *outcome) answered() string {
	var p struct {
		Title, Detail string
		Errors        []gate.FieldError
	}
	if !strings.HasPrefix(o.header.Get("Content-Type"), "application/problem+json") || json.Unmarshal(o.body, &p) != nil {
		return excerpt(o.body)
	}
	said := []string{p.Title}
	if p.Detail != "" {
		said[0] = p.Detail
	}
	for _, e := range p.Errors {
		said = append(said, strings.TrimSpace(e.Pointer+e.In+" "+e.Name)+": "+e.Detail)
	}
	return strings.Join(said, "; ")
}

// decided is the record of the Exchange in one line.
func (o *outcome) decided() string {
	if o.exchange == nil {
		return ""
	}
	var all []string
	for _, d := range o.exchange.Decisions() {
		s := d.Stage.String() + " " + d.Verdict.String()
		if d.Reason != gate.None {
			s += " " + d.Reason.String()
		}
		if d.Rule != "" {
			s += " (" + d.Rule + ")"
		}
		all = append(all, s)
	}
	return strings.Join(all, ", ")
}

// String names a caller as its case does.
func (c *caller) String() string {
	switch {
	case c == nil:
		return nobody
	case c.key != nil:
		return "key " + c.key.value
	case c.certificate != nil:
		for _, name := range []string{c.certificate.uri, c.certificate.dns, c.certificate.email, c.certificate.name} {
			if name != "" {
				return "certificate of " + name
			}
		}
	}
	if s, ok := c.facts["subject"].(string); ok {
		return s
	}
	return "somebody"
}

// The shape of JUnit's XML that build servers read.
type (
	junitSuites struct {
		XMLName  xml.Name     `xml:"testsuites"`
		Tests    int          `xml:"tests,attr"`
		Failures int          `xml:"failures,attr"`
		Errors   int          `xml:"errors,attr"`
		Time     string       `xml:"time,attr"`
		Suites   []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Errors   int         `xml:"errors,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name    string      `xml:"name,attr"`
		Class   string      `xml:"classname,attr"`
		File    string      `xml:"file,attr"`
		Line    int         `xml:"line,attr,omitempty"`
		Time    string      `xml:"time,attr"`
		Failure *junitFault `xml:"failure"`
		Error   *junitFault `xml:"error"`
	}
	junitFault struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// writeJUnit leaves the results where a build server looks for them.
func writeJUnit(file string, runs []*run, took time.Duration) error {
	all := junitSuites{Time: fmt.Sprintf("%.3f", took.Seconds())}
	for _, r := range runs {
		s := junitSuite{Name: r.name, Tests: len(r.results), Failures: r.failed()}
		for _, res := range r.results {
			c := junitCase{Name: res.name, Class: r.name, File: r.name, Line: res.line, Time: fmt.Sprintf("%.3f", res.took.Seconds())}
			if res.at != nil {
				c.Failure = &junitFault{res.diffs[0].String(), res.explain(r.name)}
			}
			s.Cases = append(s.Cases, c)
		}
		if r.err != nil {
			s.Tests, s.Errors = s.Tests+1, 1
			s.Cases = append(s.Cases, junitCase{
				Name: "the file can be run", Class: r.name, File: r.name, Time: "0",
				Error: &junitFault{r.err.Error(), r.err.Error()},
			})
		}
		all.Tests, all.Failures, all.Errors = all.Tests+s.Tests, all.Failures+s.Failures, all.Errors+s.Errors
		all.Suites = append(all.Suites, s)
	}
	data, err := xml.MarshalIndent(all, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append([]byte(xml.Header), append(data, '\n')...), 0o644) //nolint:gosec // a report for whoever builds
}
