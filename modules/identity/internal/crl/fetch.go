package crl

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"

	"github.com/gatehouse-caddy/gatehouse/modules/identity/internal/clientcert"
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

func readCA(name string) ([]*x509.Certificate, error) {
	data, err := os.ReadFile(name) //nolint:gosec // the operator's own file
	if err != nil {
		return nil, fmt.Errorf("ca %q: %w", name, err)
	}
	cas, err := clientcert.ReadPEM(data)
	if err != nil {
		return nil, fmt.Errorf("ca %q: %w", name, err)
	}
	return cas, nil
}
