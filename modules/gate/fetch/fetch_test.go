package fetch

import (
	"strings"
	"testing"
)

func TestCheckURL(t *testing.T) {
	for url, ok := range map[string]bool{
		"https://id.example.com/keys": true, "http://127.0.0.1:9000/keys": true, "http://[::1]/": true, "http://localhost:8080": true,
		"http://id.example.com": false, "http://localhost.evil.test": false, "file:///etc/passwd": false, "ftp://x": false, "https://": false, "": false,
	} {
		if err := CheckURL(url); (err == nil) != ok {
			t.Errorf("%q: %v", url, err)
		}
	}
}

// TestSecrets holds that a key in a URL is in no error.
func TestSecrets(t *testing.T) {
	const address = "http://user:hunter2@127.0.0.1:1/list?key=hunter3"
	if got := Name(address); got != "http://127.0.0.1:1/list" {
		t.Errorf("%q", got)
	}
	if _, err := Get(t.Context(), address, "*/*", 1); err == nil || strings.Contains(err.Error(), "hunter") {
		t.Errorf("%v", err)
	}
	if err := CheckURL("http://user:hunter2@example.com/?key=hunter3"); err == nil || strings.Contains(err.Error(), "hunter") {
		t.Errorf("%v", err)
	}
}
