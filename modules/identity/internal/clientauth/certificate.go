package clientauth

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/url"

	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/clientcert"
)

// Certificate shows a client certificate on the connection, which only https
// has. With ca, the endpoint's own certificate must be of that file's
// authorities; without, of those of the system. When a file changes, what is
// asked next is asked by a new connection.
func Certificate(id, certificate, key, ca string, clock Clock) (*Client, error) {
	w := &watched[*http.Client]{
		clock: clock, files: []string{certificate, key}, words: []string{"certificate", "key"},
		drop: (*http.Client).CloseIdleConnections,
	}
	if ca != "" {
		w.files, w.words = append(w.files, ca), append(w.words, "ca")
	}
	w.build = func(contents [][]byte) (*http.Client, error) {
		pair, err := tls.X509KeyPair(contents[0], contents[1])
		if err != nil { // its own words tell what kind of PEM stands there, never what is in it
			return nil, fmt.Errorf("certificate %q and key %q are no certificate and its key: %w", certificate, key, err)
		}
		t := transport()
		t.TLSClientConfig = &tls.Config{
			MinVersion: tls.VersionTLS12,
			// Whatever authorities the endpoint names: with none that fits, no
			// certificate would be sent, and the refusal would say nothing.
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil },
		}
		if ca != "" {
			if t.TLSClientConfig.RootCAs, err = authorities(contents[2]); err != nil {
				return nil, fmt.Errorf("ca %q: %w", ca, err)
			}
		}
		return &http.Client{Transport: t, CheckRedirect: never}, nil
	}
	if err := w.open(); err != nil {
		return nil, err
	}
	return &Client{ID: id, private: w, prove: func(form url.Values, _ http.Header) error {
		form.Set("client_id", id)
		return nil
	}}, nil
}

func authorities(data []byte) (*x509.CertPool, error) {
	certificates, err := clientcert.ReadPEM(data)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for _, c := range certificates {
		pool.AddCert(c)
	}
	return pool, nil
}
