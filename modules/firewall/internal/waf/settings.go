// Package waf runs requests through Coraza with the OWASP Core Rule Set. It is
// the seam behind which a faster evaluator may stand one day: settings and a
// request go in, a verdict comes out.
package waf

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/corazawaf/coraza-coreruleset/v4"
	"github.com/corazawaf/coraza/v3"
)

// Settings say what rules are compiled. The zero value compiles nothing.
type Settings struct {
	CRS       bool
	Paranoia  int
	Threshold int
	Arguments int   // more than this many are refused
	MaxBody   int64 // bytes a body may have as it came; as it is shown to the rules it may have more
	Exclude   []int // rules that are left out
	Rules     []Source
}

// Source is a file of rules.
type Source struct{ Name, Text string }

// Rules of our own, in the range the Core Rule Set leaves to its users.
const (
	ruleURI       = 100001
	ruleBody      = 100002
	ruleMultipart = 100003
	ruleArguments = 100004 // and the one after it, for the body
	ruleFilename  = 100006
)

// directives are the settings in SecLang. They say what Coraza's own
// recommended file says, not what the copy beside the Core Rule Set says: that
// one lets a request with more arguments than Coraza keeps pass uninspected.
// The prefilter of regular expressions stays off: with it, 932311 and 942220 miss
// what the Core Rule Set's own tests were written for.
func (s *Settings) directives() string {
	var b strings.Builder
	fmt.Fprintf(&b, `
SecRuleEngine On
SecRxPreFilter Off
SecRequestBodyAccess On
SecResponseBodyAccess Off
SecAuditEngine Off
SecRequestBodyLimit %[1]d
SecRequestBodyInMemoryLimit %[1]d
SecRequestBodyLimitAction Reject
SecRequestBodyJsonDepthLimit 64
SecArgumentsLimit %[2]d
SecRule REQUEST_HEADERS:Content-Type "^application/json" "id:100010,phase:1,t:none,t:lowercase,pass,nolog,ctl:requestBodyProcessor=JSON"
SecRule REQUEST_HEADERS:Content-Type "^application/xml" "id:100011,phase:1,t:none,t:lowercase,pass,nolog,ctl:requestBodyProcessor=XML"
SecRule URI_PARSE_ERROR "@eq 1" "id:%[3]d,phase:1,t:none,log,deny,status:400,msg:'The URI cannot be parsed'"
SecRule ARGUMENTS_LIMIT_REACHED "@eq 1" "id:%[6]d,phase:1,t:none,log,deny,status:400,msg:'More arguments than are inspected'"
SecRule REQBODY_ERROR "!@eq 0" "id:%[4]d,phase:2,t:none,log,deny,status:400,msg:'The body cannot be parsed'"
SecRule MULTIPART_STRICT_ERROR "!@eq 0" "id:%[5]d,phase:2,t:none,log,deny,status:400,msg:'The multipart body is ambiguous'"
SecRule ARGUMENTS_LIMIT_REACHED "@eq 1" "id:%[7]d,phase:2,t:none,log,deny,status:400,msg:'More arguments than are inspected'"
SecRule MULTIPART_PART_HEADERS "@rx (?i)^content-disposition:.*name\s*\*" "id:%[8]d,phase:2,t:none,log,deny,status:400,msg:'A name in the multipart body is encoded in a way that not everybody reads (RFC 7578, section 4.2)'"
`, 16*(s.MaxBody+4096), s.Arguments, ruleURI, ruleBody, ruleMultipart, ruleArguments, ruleArguments+1, ruleFilename)
	if s.CRS {
		fmt.Fprintf(&b, `
SecDefaultAction "phase:1,log,auditlog,pass"
SecDefaultAction "phase:2,log,auditlog,pass"
SecAction "id:900000,phase:1,pass,t:none,nolog,setvar:tx.blocking_paranoia_level=%[1]d"
SecAction "id:900001,phase:1,pass,t:none,nolog,setvar:tx.detection_paranoia_level=%[1]d"
SecAction "id:900110,phase:1,pass,t:none,nolog,setvar:tx.inbound_anomaly_score_threshold=%[2]d"
SecAction "id:900120,phase:1,pass,t:none,nolog,setvar:tx.early_blocking=1"
SecAction "id:900200,phase:1,pass,t:none,nolog,setvar:'tx.allowed_methods=GET HEAD POST OPTIONS PUT PATCH DELETE QUERY'"
SecAction "id:900220,phase:1,pass,t:none,nolog,setvar:'tx.allowed_request_content_type=|application/x-www-form-urlencoded| |multipart/form-data| |text/xml| |application/xml| |application/json| |text/plain| |application/octet-stream|'"
SecAction "id:900990,phase:1,pass,t:none,nolog,setvar:tx.crs_setup_version=4250"
Include @owasp_crs/REQUEST-*.conf
`, s.Paranoia, s.Threshold)
		for _, id := range notForAPIs {
			fmt.Fprintf(&b, "SecRuleRemoveById %d\n", id)
		}
	}
	for _, id := range s.Exclude {
		fmt.Fprintf(&b, "SecRuleRemoveById %d\n", id)
	}
	return b.String()
}

// notForAPIs are rules that refuse what APIs do all day.
var notForAPIs = []int{
	920350, // a numeric Host: services are called by address inside a network
	931130, // an absolute URL in a value: webhooks, links and images are such
}

// Fingerprint covers everything that shapes the compiled rules.
func (s *Settings) Fingerprint() string {
	h := sha256.New()
	_, _ = fmt.Fprintf(h, "%q", s.directives())
	for _, src := range s.Rules {
		_, _ = fmt.Fprintf(h, "%q%q", src.Name, src.Text)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// Compile makes the rules ready. It takes a tenth of a second and some
// megabytes with the Core Rule Set, so its result is to be shared.
func Compile(s *Settings) (*WAF, error) {
	config := coraza.NewWAFConfig().WithRootFS(ruleFiles()).WithDirectives(s.directives())
	for _, src := range s.Rules {
		if err := check(src); err != nil {
			return nil, err
		}
		config = config.WithDirectives(quickly(src.Text))
	}
	engine, err := coraza.NewWAF(config)
	if err != nil {
		return nil, fmt.Errorf("compiling rules: %w", err)
	}
	return &WAF{engine: engine}, nil
}

// check finds the directive of a file that does not compile, since Coraza does
// not tell its line.
func check(src Source) error {
	compile := func(text string) error {
		_, err := coraza.NewWAF(coraza.NewWAFConfig().WithRootFS(coreruleset.FS).WithDirectives(text))
		return err
	}
	if compile(src.Text) == nil {
		return nil
	}
	lines := strings.SplitAfter(src.Text, "\n")
	start := 0 // where the directive begins that the line belongs to
	for i, line := range lines {
		if strings.HasSuffix(strings.TrimRight(line, " \t\r\n"), `\`) {
			continue
		}
		if err := compile(strings.Join(lines[:i+1], "")); err != nil {
			return fmt.Errorf("%s:%d: %w", src.Name, start+1, err)
		}
		start = i + 1
	}
	return fmt.Errorf("%s: %w", src.Name, compile(src.Text))
}
