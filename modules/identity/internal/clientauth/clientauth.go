// Package clientauth is how the gateway proves to an issuer's endpoint who it
// is: by a secret (RFC 6749, section 2.3.1), by an assertion that it signs (RFC
// 7523) or by a client certificate (RFC 8705, section 2).
//
// Keys and certificates are read again from their files while they are used. A
// file that cannot be read changes nothing.
package clientauth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Client is who asks. It may be used concurrently.
type Client struct {
	ID string

	prove   func(form url.Values, header http.Header) error
	private *watched[*http.Client] // nil: connections that prove nothing are shared
}

// shared asks by connections that prove nothing.
var shared = &http.Client{Transport: transport(), CheckRedirect: never}

func transport() *http.Transport {
	return &http.Transport{Proxy: http.ProxyFromEnvironment, ForceAttemptHTTP2: true, MaxIdleConnsPerHost: 16, IdleConnTimeout: time.Minute}
}

// never follows: what is sent is for the endpoint alone.
func never(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// Basic sends a secret in the header.
func Basic(id, secret string) *Client {
	return &Client{ID: id, prove: func(_ url.Values, header http.Header) error {
		r := http.Request{Header: header}
		r.SetBasicAuth(url.QueryEscape(id), url.QueryEscape(secret))
		return nil
	}}
}

// InBody sends a secret in the form. Without one, the client is a public one.
func InBody(id, secret string) *Client {
	return &Client{ID: id, prove: func(form url.Values, _ http.Header) error {
		form.Set("client_id", id)
		if secret != "" {
			form.Set("client_secret", secret)
		}
		return nil
	}}
}

// Ask posts a form to an endpoint. It changes the form. No error has the
// endpoint's whole URL in it, nor anything that was sent.
func (c *Client) Ask(ctx context.Context, address, accept string, form url.Values) (*http.Response, error) {
	client := shared
	if c.private != nil {
		if !strings.HasPrefix(address, "https://") {
			return nil, errors.New("a client certificate proves nothing without https")
		}
		client = c.private.get()
	}
	header := http.Header{"Content-Type": {"application/x-www-form-urlencoded"}, "Accept": {accept}}
	if err := c.prove(form, header); err != nil {
		return nil, fmt.Errorf("proving who the gateway is: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, errors.New("the endpoint's URL cannot be asked")
	}
	req.Header = header
	resp, err := client.Do(req)
	if wrapped, ok := errors.AsType[*url.Error](err); ok {
		err = wrapped.Err // its own words hold the whole URL
	}
	return resp, err
}

// Close closes connections that nobody uses. The client can still ask.
func (c *Client) Close() {
	if c.private != nil {
		c.private.get().CloseIdleConnections()
	}
}
