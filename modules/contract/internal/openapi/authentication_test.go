package openapi

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestReadAuthentication(t *testing.T) {
	for said, wrong := range map[string]string{
		`{"acr":["gold","silver"],"max_age":"5m"}`: "",
		`{}`:                   "needs acr, max_age or both",
		`"gold"`:               "needs acr, max_age or both",
		`{"acr":"gold"}`:       "not a list",
		`{"acr":[]}`:           "not a list",
		`{"acr":[1]}`:          "takes texts",
		`{"acr":["a b"]}`:      "without spaces",
		`{"max_age":300}`:      "no duration",
		`{"max_age":"-5m"}`:    "no duration",
		`{"max_age":"1500ms"}`: "whole seconds",
		`{"maxage":"5m"}`:      `"maxage"`,
	} {
		c, err := read(t, `{"openapi":"3.1.0","info":{"title":"t","version":"1"},"paths":{"/a":{"get":{"x-gatehouse-authentication":`+said+`,"responses":{"200":{"description":"ok"}}}}}}`)
		switch {
		case wrong != "":
			if err == nil || !strings.Contains(err.Error(), wrong) {
				t.Errorf("%s: %v, want %q", said, err, wrong)
			}
		case err != nil:
			t.Errorf("%s: %v", said, err)
		default:
			if op := c.Operations[0]; op.MaxAge != 5*time.Minute || !slices.Equal(op.ACR, []string{"gold", "silver"}) {
				t.Errorf("%s: %v %v", said, op.ACR, op.MaxAge)
			}
		}
	}
}
