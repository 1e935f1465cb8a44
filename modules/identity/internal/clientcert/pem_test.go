package clientcert_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/clientcert"
)

// TestReadPEM: what is wrong with a file is told by line and block, and nothing that
// stands in it is repeated.
func TestReadPEM(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, content []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}))
	}
	good := block("CERTIFICATE", der)
	next := strings.Count(good, "\n") + 1
	secret := block("PRIVATE KEY", []byte("hunter2hunter2hunter2"))
	line := func(n int, text string) string { return fmt.Sprintf("line %d: %s", n, text) }
	for _, c := range []struct {
		name, file string
		n          int
		says       string
	}{
		{"one", good, 1, ""},
		{"two, with comments", "# first\n" + good + "\n# second\n" + good + "\n\n", 2, ""},
		{"a key behind it", good + secret, 0, line(next, `PEM block 2 is a "PRIVATE KEY", and only certificates are expected`)},
		{"another thing in it", good + block("CERTIFICATE", []byte("hunter2")), 0, line(next, "PEM block 2 is no certificate")},
		{"a damaged block", good + strings.Replace(good, "M", "hunter2!", 1), 0, line(next, "PEM block 2 is damaged")},
		{"a damaged block before a good one", "\n" + strings.Replace(good, "M", "hunter2!", 1) + good, 0, "line 2: PEM block 1 is damaged"},
		{"a file that is cut off", good + good[:len(good)/2], 0, line(next, "PEM block 2 is damaged")},
		{"something behind", good + "\nhunter2", 0, line(next+1, "there is something behind the last certificate")},
		{"empty", " \n", 0, "the file is empty"},
		{"DER", string(der), 0, "the file is DER"},
		{"text", "hunter2", 0, "there is no certificate in PEM"},
	} {
		got, err := clientcert.ReadPEM([]byte(c.file))
		if len(got) != c.n || (err == nil) != (c.says == "") {
			t.Errorf("%s: %d %v", c.name, len(got), err)
		}
		if err != nil && (!strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "hunter2")) {
			t.Errorf("%s: %v; want %s", c.name, err, c.says)
		}
	}
}
