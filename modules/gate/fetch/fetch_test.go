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

// TestCheckNamed: an issuer far away must not send the gateway to something that
// listens on the gateway's own machine.
func TestCheckNamed(t *testing.T) {
	for _, c := range []struct {
		by, named string
		ok        bool
	}{
		{"https://id.example.com", "https://id.example.com/token", true},
		{"https://id.example.com", "https://localhost/token", true},
		{"https://id.example.com", "http://localhost:2019/stop", false},
		{"https://id.example.com", "HTTP://127.0.0.1/", false},
		{"http://localhost:9000", "http://localhost:9000/token", true},
		{"http://localhost:9000", "http://id.example.com", false},
	} {
		if err := CheckNamed(c.by, c.named); (err == nil) != c.ok {
			t.Errorf("%s by %s: %v", c.named, c.by, err)
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
	for _, wrong := range []string{"http://user:hunter2@example.com/?key=hunter3", "https://user:hunter2%zz@example.com/", "https:///x?key=hunter3"} {
		if err := CheckURL(wrong); err == nil || strings.Contains(err.Error(), "hunter") {
			t.Errorf("%v", err)
		}
	}
}
