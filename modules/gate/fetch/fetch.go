// Package fetch gets what stages need from elsewhere: key sets, lists. It is
// bounded in size, follows few redirects, and insists on https.
package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
)

// client keeps no connections: fetches are minutes apart.
var client = &http.Client{Transport: &http.Transport{
	Proxy:             http.ProxyFromEnvironment,
	DisableKeepAlives: true,
	ForceAttemptHTTP2: true,
}, CheckRedirect: func(r *http.Request, via []*http.Request) error {
	if len(via) > 3 {
		return errors.New("more than three redirects")
	}
	return CheckNamed(via[0].URL.String(), r.URL.String())
}}

// CheckNamed is CheckURL for an address that another names, by what it answers.
// What is named over https has to be https: somebody far away says nothing about
// what listens on this machine.
func CheckNamed(by, raw string) error {
	if err := CheckURL(raw); err != nil {
		return err
	}
	if isHTTPS(by) && !isHTTPS(raw) {
		return fmt.Errorf("%q must be https, as what names it", Name(raw))
	}
	return nil
}

// CheckURL accepts https, and http to this machine only: whoever can change
// what is fetched on its way can decide for us.
func CheckURL(raw string) error {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" {
		return fmt.Errorf("%q is not a URL", Name(raw))
	}
	if u.Scheme == "https" {
		return nil
	}
	host := u.Hostname()
	ip := net.ParseIP(host)
	if u.Scheme == "http" && (host == "localhost" || strings.HasSuffix(host, ".localhost") || ip != nil && ip.IsLoopback()) {
		return nil
	}
	return fmt.Errorf("%q must be https; http is accepted for this machine only", Name(raw))
}

func isHTTPS(raw string) bool {
	scheme, _, _ := strings.Cut(raw, ":")
	return strings.EqualFold(scheme, "https")
}

// Name is what may be said of a URL in logs, labels and errors: the query and
// the user's part may hold a key.
func Name(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "an unreadable URL"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}).String()
}

// Get fetches at most limit bytes.
func Get(ctx context.Context, address, accept string, limit int64) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", accept)
	resp, err := client.Do(req)
	if err != nil {
		if wrapped, ok := errors.AsType[*url.Error](err); ok {
			err = wrapped.Err // its own words hold the whole URL
		}
		return nil, fmt.Errorf("fetching %s: %w", Name(address), err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", Name(address), resp.Status)
	}
	data, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s answered with more than %d bytes", Name(address), limit)
	}
	return data, nil
}
