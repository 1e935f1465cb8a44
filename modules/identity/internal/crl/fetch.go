package crl

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
)

// client follows nobody: where a list is, the configuration says.
var client = &http.Client{
	Transport:     &http.Transport{Proxy: http.ProxyFromEnvironment, DisableKeepAlives: true},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

// From gets a list of at most limit bytes from a file or URL, and its issuers
// from a PEM file. http will do: the list is signed.
func From(where, ca string, limit int64) Fetch {
	return func(ctx context.Context) ([]byte, []*x509.Certificate, error) {
		issuers, err := readCA(ca)
		if err != nil {
			return nil, nil, err
		}
		var body io.ReadCloser
		if strings.Contains(where, "://") {
			body, err = download(ctx, where)
		} else {
			body, err = os.Open(where) //nolint:gosec // the operator's own file
		}
		if err != nil {
			return nil, nil, err
		}
		defer body.Close()
		data, err := io.ReadAll(io.LimitReader(body, limit+1))
		if err != nil {
			return nil, nil, err
		}
		if int64(len(data)) > limit {
			return nil, nil, fmt.Errorf("the list has more than %d bytes", limit)
		}
		return data, issuers, nil
	}
}

func download(ctx context.Context, where string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, where, nil)
	if err != nil {
		return nil, errors.New("the list's URL cannot be asked")
	}
	resp, err := client.Do(req)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // its own words hold the whole URL
		}
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return nil, fmt.Errorf("the list's server answered %s", resp.Status)
	}
	return resp.Body, nil
}

func readCA(name string) (cas []*x509.Certificate, err error) {
	data, err := os.ReadFile(name) //nolint:gosec // the operator's own file
	if err != nil {
		return nil, err
	}
	for {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			break
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if block.Type != "CERTIFICATE" || err != nil {
			return nil, fmt.Errorf("%s holds something else than certificates", name)
		}
		cas = append(cas, c)
	}
	if cas == nil {
		return nil, fmt.Errorf("%s holds no certificate", name)
	}
	return cas, nil
}
