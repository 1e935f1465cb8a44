package fetch

import "testing"

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
