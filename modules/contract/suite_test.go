package contract

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/caddyserver/caddy/v2/modules/caddyhttp"
)

// differs lists the cases of the suite that we answer otherwise, and why. One
// that comes to agree fails the test, so that the list only shrinks.
var differs = map[string]string{
	"validate-body-params/form-data-allow-reserved-ok.oas3.txt":             "an unencoded semicolon separates members for some backends and not for others",
	"validate-body-params/multipart-form-data-allow-reserved-fail.oas3.txt": "multipart bodies, which are mostly files, pass without being held in memory",
	"validate-body-params/multipart-form-data-invalid-request.oas3.txt":     "multipart bodies, which are mostly files, pass without being held in memory",
}

// TestRequestSuite runs requests that another validator's tests pass or refuse.
// Where they are about credentials, the contract's part is to say that one is
// needed: who proves what is for identity and require.
func TestRequestSuite(t *testing.T) {
	root := os.Getenv("GATEHOUSE_SUITES")
	if root == "" {
		if os.Getenv("GATEHOUSE_SUITES_REQUIRED") != "" {
			t.Fatal("GATEHOUSE_SUITES is not set, and GATEHOUSE_SUITES_REQUIRED says it must be")
		}
		t.Skip("third-party suites are not part of the repository; set GATEHOUSE_SUITES to their folder")
	}
	data, err := os.ReadFile(filepath.Join(root, "openapi", "cases-fair.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	ran, agreed, credentials := 0, 0, 0
	for line := range bytes.Lines(data) {
		var c struct {
			ID, Spec, Method, URL string
			Headers               []string
			Body                  string
			Status                int
		}
		if err := json.Unmarshal(line, &c); err != nil {
			t.Fatal(err)
		}
		ran++
		status, op := suiteRequest(t, filepath.Join(root, "openapi", c.Spec), c.Method, c.URL, c.Headers, c.Body)
		ok := (status == 200) == (c.Status == 200)
		if c.Status == 401 {
			credentials++
			ok = status == 200 && op != nil && op.Security != nil && !op.Anonymous()
		}
		if ok {
			agreed++
		}
		if why := differs[c.ID]; ok != (why == "") {
			t.Errorf("%s: %d, the suite says %d; listed as %q", c.ID, status, c.Status, why)
		}
	}
	t.Logf("%d cases, %d agreed, %d of them hand the credential on", ran, agreed, credentials)
	if ran != 68 {
		t.Errorf("%d cases were read, want 68", ran)
	}
}

func suiteRequest(t *testing.T, spec, method, url string, headers []string, body string) (int, *operation) {
	t.Helper()
	contract, key, err := acquire(spec, "", false, false)
	if err != nil {
		t.Errorf("%s: %v", filepath.Base(spec), err)
		return 0, nil
	}
	h := &Handler{MaxBody: 1 << 20, contract: contract, key: key}
	defer h.Cleanup()
	r := httptest.NewRequest(method, url, strings.NewReader(body))
	for _, line := range headers {
		name, value, _ := strings.Cut(line, ":")
		r.Header.Add(name, strings.TrimSpace(value))
	}
	op, _, _ := h.match(r)
	status := 200
	next := caddyhttp.HandlerFunc(func(http.ResponseWriter, *http.Request) error { return nil })
	if err := h.ServeHTTP(httptest.NewRecorder(), r, next); err != nil {
		status = 500
		if he, ok := err.(caddyhttp.HandlerError); ok { //nolint:errorlint // stages return it by value
			status = he.StatusCode
		}
	}
	return status, op
}
