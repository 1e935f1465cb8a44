package registry

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"unicode"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// Client is what commands talk to a running gateway with.
type Client struct {
	address, config, adapter string

	found string // the admin endpoint, once it was seen to be one
}

// Flags adds the flags that say where the gateway is.
func (c *Client) Flags(cmd *cobra.Command) {
	flags := cmd.PersistentFlags()
	flags.StringVar(&c.address, "address", "", "the admin endpoint of the running gateway; default: that of --config, or localhost:2019")
	flags.StringVarP(&c.config, "config", "c", "", "configuration file to take the admin endpoint from")
	flags.StringVarP(&c.adapter, "adapter", "a", "", "name of the config adapter, if the file is no Caddyfile")
}

// TokenEnv names the variable with the token that a command shows the gateway.
// A token on the command line would be in the shell's history.
const TokenEnv = "GATEHOUSE_ADMIN_TOKEN"

// Authorized is a header with the token of the environment, if there is one.
func Authorized() http.Header {
	header := http.Header{}
	if token := strings.TrimSpace(os.Getenv(TokenEnv)); token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	return header
}

// Ask makes a request below /gatehouse/ of the running gateway's admin endpoint.
func (c *Client) Ask(method, path string, body []byte) ([]byte, error) {
	return c.AskWith(nil, method, path, body)
}

// Endpoint is the address of the admin endpoint. What answers there is asked first
// whether it is one: an API takes a DELETE for its own, and a token is not for it.
func (c *Client) Endpoint() (string, error) {
	if c.found != "" {
		return c.found, nil
	}
	address, err := c.named()
	if err != nil {
		return "", fmt.Errorf("finding the admin endpoint: %w", err)
	}
	resp, err := caddycmd.AdminAPIRequest(address, http.MethodGet, prefix, nil, nil)
	if err != nil {
		if refused := readRefused(err.Error()); refused != nil {
			return "", refused
		}
		return "", fmt.Errorf("no gateway answers at the admin endpoint %s; --address or --config says where it is: %w", address, err)
	}
	defer resp.Body.Close()
	var d door
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxValue)).Decode(&d); err != nil || d.Kinds == nil {
		return "", fmt.Errorf("what answers at %s is no gateway's admin endpoint; --address or --config says where that is", address)
	}
	c.found = address
	return address, nil
}

// named is the address that the flags say.
func (c *Client) named() (string, error) {
	address := strings.TrimSuffix(strings.TrimPrefix(c.address, "http://"), "/")
	if strings.HasPrefix(address, ":") {
		address = "localhost" + address
	}
	if _, err := strconv.ParseUint(address, 10, 16); err == nil {
		return "", fmt.Errorf("--address %s is a port alone; write localhost:%s", address, address)
	}
	var text []byte
	if address == "" && c.config != "" {
		var err error
		if text, _, _, err = caddycmd.LoadConfig(c.config, c.adapter); err != nil {
			return "", err
		}
		var config struct{ Admin struct{ Disabled bool } }
		if json.Unmarshal(text, &config) == nil && config.Admin.Disabled {
			return "", fmt.Errorf("the configuration %s has no admin endpoint (admin off)", c.config)
		}
	}
	return caddycmd.DetermineAdminAPIAddress(address, text, c.config, c.adapter)
}

// AskWith is Ask with header fields of the caller's. What the gateway refuses is
// a *Refused.
func (c *Client) AskWith(fields http.Header, method, path string, body []byte) ([]byte, error) {
	address, err := c.Endpoint()
	if err != nil {
		return nil, err
	}
	header := Authorized()
	maps.Copy(header, fields)
	header.Set("Content-Type", "application/json")
	resp, err := caddycmd.AdminAPIRequest(address, method, prefix+path, header, bytes.NewReader(body))
	if err != nil {
		if refused := readRefused(err.Error()); refused != nil {
			return nil, refused
		}
		return nil, fmt.Errorf("asking the gateway at %s: %w", address, err)
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}

// Each calls f with every object of a kind, in the order of their ids.
func (c *Client) Each(kind string, f func(object json.RawMessage) error) error {
	for after := ""; ; {
		body, err := c.Ask(http.MethodGet, kind+"?after="+url.QueryEscape(after), nil)
		if err != nil {
			return err
		}
		var page struct {
			Objects []json.RawMessage
			Next    string
		}
		err = json.Unmarshal(body, &page)
		for _, o := range page.Objects {
			if err == nil {
				err = f(o)
			}
		}
		if err != nil {
			return fmt.Errorf("reading the gateway's answer: %w", err)
		}
		if after = page.Next; after == "" {
			return nil
		}
	}
}

// Refused is an answer that is an error, in words for whoever gave the command.
type Refused struct {
	Status int
	words  string
}

// Error says what was answered. The status comes last: it is for whoever knows it.
func (r *Refused) Error() string {
	status := strconv.Itoa(r.Status)
	if text := http.StatusText(r.Status); text != "" {
		status += " " + text
	}
	return r.words + " (" + status + ")"
}

// readRefused finds the answer in what Caddy's client makes of it; nil means that
// there was none.
func readRefused(text string) *Refused {
	_, text, found := strings.Cut(text, "HTTP ")
	word, body, colon := strings.Cut(text, ": ")
	status, err := strconv.Atoi(word)
	if answered := found && colon && err == nil && status >= 400; !answered {
		return nil
	}
	r := &Refused{Status: status}
	var site bool
	r.words, site = wordsOf(body)
	switch {
	case site:
		r.words = "what answers there is an API and no admin endpoint; --address or --config says where that is. " + r.words
		return r
	case r.words == "":
		r.words = "the gateway refuses without a word"
		if status == http.StatusNotFound {
			r.words = "what answers there knows nothing of that; is it a gateway's admin endpoint?"
		}
	case status == http.StatusConflict:
		r.words = strings.Replace(r.words, forceHint, "; if that is meant, say so with --force", 1)
	}
	switch {
	case status != http.StatusUnauthorized && status != http.StatusForbidden:
	case os.Getenv(TokenEnv) == "":
		r.words += "; an operator's token is taken from " + TokenEnv + ", which is not set"
	default:
		r.words += "; the token was taken from " + TokenEnv
	}
	return r
}

// maxWords bounds what is shown of an answer that is nothing we know.
const maxWords = 300

// wordsOf reads the error of an admin endpoint, or the problem document (RFC
// 9457) of a site that somebody took for one.
func wordsOf(body string) (words string, site bool) {
	var p struct {
		Error  string
		Type   string
		Title  string
		Detail string
		Errors []struct{ Pointer, In, Name, Detail string }
	}
	if json.Unmarshal([]byte(body), &p) != nil {
		text := strings.TrimSpace(body)
		if strings.HasPrefix(text, "<") || strings.HasPrefix(text, "404 page") {
			return "", false
		}
		return oneLine(text[:min(len(text), maxWords)]), false
	}
	var said []string
	for _, s := range []string{p.Error, p.Title, p.Detail} {
		if s != "" {
			said = append(said, strings.TrimSuffix(oneLine(s), "."))
		}
	}
	lines := []string{strings.Join(said, ": ")}
	for _, e := range p.Errors {
		where := strings.TrimSpace(e.In + " " + e.Name + e.Pointer)
		lines = append(lines, "  "+strings.TrimPrefix(oneLine(where+": "+e.Detail), ": "))
	}
	return strings.TrimSpace(strings.Join(lines, "\n")), p.Type != "" && p.Error == ""
}

// oneLine takes out what could write elsewhere on a terminal.
func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) {
			return r
		}
		return ' '
	}, s)
}

// Warn shows what the gateway has to say about a change that it made.
func Warn(to io.Writer, answer []byte) {
	var o struct{ Warnings []string }
	if json.Unmarshal(answer, &o) != nil {
		return
	}
	for _, w := range o.Warnings {
		_, _ = fmt.Fprintf(to, "warning: %s\n", oneLine(w)) // stderr; there is nowhere else to say that it failed
	}
}
