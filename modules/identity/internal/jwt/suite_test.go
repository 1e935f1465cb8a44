package jwt

import (
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// suite reads a file of the third-party suites.
func suite(t *testing.T, name string, into any) {
	t.Helper()
	root := os.Getenv("GATEHOUSE_SUITES")
	if root == "" {
		if os.Getenv("GATEHOUSE_SUITES_REQUIRED") != "" {
			t.Fatal("GATEHOUSE_SUITES is not set, and GATEHOUSE_SUITES_REQUIRED says it must be")
		}
		t.Skip("third-party suites are not part of the repository; set GATEHOUSE_SUITES to their folder")
	}
	data, err := os.ReadFile(filepath.Join(root, "jose", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		t.Fatal(err)
	}
}

// TestWycheproofKeys runs the vectors about keys and sets of keys: weak ones,
// ones of one name, ones that are for something else.
func TestWycheproofKeys(t *testing.T) {
	var vectors struct {
		TestGroups []struct {
			Comment         string
			Public, Private json.RawMessage
			Tests           []struct {
				TcID            int
				Comment, Result string
				Jws             json.RawMessage
			}
		}
	}
	suite(t, "json_web_key_test.json", &vectors)
	// Valid by the suite, and refused here for good reason.
	exceptions := map[int]string{}
	for _, id := range []int{2, 13, 14, 15} {
		exceptions[id] = "a shared secret proves nothing to who only verifies"
	}
	ran, accepted := 0, 0
	for _, g := range vectors.TestGroups {
		key := g.Public
		if key == nil {
			key = g.Private
		}
		if !strings.Contains(string(key), `"keys"`) {
			key = json.RawMessage(`{"keys":[` + string(key) + `]}`)
		}
		set, skipped, setErr := ParseSet(key)
		for _, c := range g.Tests {
			ran++
			var token string
			if json.Unmarshal(c.Jws, &token) != nil {
				token = string(c.Jws)
			}
			ok := false
			if setErr == nil {
				if tok, err := parseSigned(token); err == nil {
					if key, err := set.find(tok); err == nil {
						ok = key.verify(tok)
					}
				}
			}
			switch {
			case ok && c.Result == "invalid":
				t.Errorf("%s %d (%s): accepted", g.Comment, c.TcID, c.Comment)
			case ok:
				accepted++
				if exceptions[c.TcID] != "" {
					t.Errorf("%d is accepted now; take it off the list of exceptions", c.TcID)
				}
			case c.Result == "valid" && exceptions[c.TcID] == "":
				t.Errorf("%s %d (%s): a valid one is refused (%v, %v)", g.Comment, c.TcID, c.Comment, setErr, skipped)
			}
		}
	}
	if ran < 26 || accepted < 1 {
		t.Fatalf("%d vectors ran, %d were accepted", ran, accepted)
	}
	t.Logf("%d vectors, %d accepted, %d exceptions", ran, accepted, len(exceptions))
}

// TestCookbook reads the examples of RFC 7520: those that are signed with public
// keys in the compact form are verified, and no other is.
func TestCookbook(t *testing.T) {
	for name, want := range map[string]bool{
		"4_1.rsa_v15_signature": true, "4_2.rsa-pss_signature": true, "4_3.ecdsa_signature": true,
		"4_4.hmac-sha2_integrity_protection": false, "4_5.signature_with_detached_content": false,
		"4_6.protecting_specific_header_fields": false, "4_7.protecting_content_only": false, "4_8.multiple_signatures": false,
	} {
		var example struct {
			Input  struct{ Key json.RawMessage }
			Output struct {
				Compact string
				JSON    json.RawMessage
			}
		}
		suite(t, "jws/"+name+".json", &example)
		keys := example.Input.Key
		if len(keys) > 0 && keys[0] == '[' {
			keys = json.RawMessage(`{"keys":` + string(keys) + `}`)
		} else {
			keys = json.RawMessage(`{"keys":[` + string(keys) + `]}`)
		}
		ok := false
		if set, _, err := ParseSet(keys); err == nil {
			for _, token := range []string{example.Output.Compact, string(example.Output.JSON)} {
				if tok, err := parseSigned(token); err == nil {
					if key, err := set.find(tok); err == nil {
						ok = ok || key.verify(tok)
					}
				}
			}
		}
		if ok != want {
			t.Errorf("%s: verified is %v, want %v", name, ok, want)
		}
	}
	var unencoded struct {
		Output struct{ Compact string }
	}
	suite(t, "rfc7797/hmac-sha2_b64_false.json", &unencoded)
	if _, err := Parse(unencoded.Output.Compact); err == nil {
		t.Error("a payload that is not encoded is read")
	}
}

func TestGoodModuliAreNotGuessable(t *testing.T) {
	for range 3 {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		if guessable(key.N) {
			t.Error("a good key is refused")
		}
	}
}
