package registry

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	caddycmd "github.com/caddyserver/caddy/v2/cmd"
	"github.com/spf13/cobra"
)

// Client is what commands talk to a running gateway with.
type Client struct{ address, config, adapter string }

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
	address, err := caddycmd.DetermineAdminAPIAddress(c.address, nil, c.config, c.adapter)
	if err != nil {
		return nil, fmt.Errorf("finding the admin endpoint: %w", err)
	}
	header := Authorized()
	header.Set("Content-Type", "application/json")
	resp, err := caddycmd.AdminAPIRequest(address, method, prefix+path, header, bytes.NewReader(body))
	if err != nil {
		if os.IsTimeout(err) {
			return nil, fmt.Errorf("the gateway does not answer: %w", err)
		}
		return nil, err
	}
	defer resp.Body.Close()
	return io.ReadAll(resp.Body)
}
