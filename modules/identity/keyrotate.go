package identity

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func (f *keyFlags) rotateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rotate <id> [--overlap <duration>]",
		Short: "Gives an API key a new secret; the old one works on for a while",
		Long:  "Makes a new secret for an API key of the running gateway and prints it once. Until the overlap is over, the old one is good as well.",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := f.rotate(args[0], time.Now())
			if err == nil {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), key)
			}
			return err
		},
	}
	cmd.Flags().DurationVar(&f.overlap, "overlap", 24*time.Hour, "how long the old secret works on; 0: not at all")
	return cmd
}

// rotate changes only what is as it was read, so that of two who rotate at a
// time one is told.
func (f *keyFlags) rotate(id string, now time.Time) (string, error) {
	if f.overlap < 0 {
		return "", errors.New("--overlap must not be negative")
	}
	body, err := f.ask(http.MethodGet, "/"+url.PathEscape(id), nil, nil)
	if err != nil {
		return "", err
	}
	var o struct {
		Version uint64
		Source  string
		Value   apiKey
	}
	if err := json.Unmarshal(body, &o); err != nil {
		return "", fmt.Errorf("reading the gateway's answer: %w", err)
	}
	if o.Source != "live" {
		return "", fmt.Errorf("key %q is defined in the configuration; change it there", id)
	}
	old := slices.DeleteFunc(o.Value.Previous, func(p oldSecret) bool { return !now.Before(p.Until) })
	if f.overlap > 0 {
		old = append(old, oldSecret{o.Value.SHA256, now.Add(f.overlap).UTC().Truncate(time.Second)})
	} else {
		old = nil // no secret of before is to work
	}
	if len(old) > maxPrevious {
		return "", fmt.Errorf("key %q has %d secrets that still work; wait until one has ended, or rotate with --overlap 0", id, len(old))
	}
	secret, hash := newKey()
	patch, err := json.Marshal(map[string]any{"sha256": hash, "previous": old})
	if err != nil {
		return "", err
	}
	_, err = f.ask(http.MethodPatch, "/"+url.PathEscape(id), patch, http.Header{"If-Match": {strconv.Quote(strconv.FormatUint(o.Version, 10))}})
	if err != nil && strings.Contains(err.Error(), "there is a key") {
		return "", fmt.Errorf("key %q was changed by somebody else at the same time; look at it and try again", id)
	}
	return secret, err
}

// uses asks the gateway when its keys were last used.
func (f *keyFlags) uses() (map[string]time.Time, error) {
	all := map[string]time.Time{}
	for after := ""; ; {
		body, err := f.askAt(http.MethodGet, "/gatehouse/key_uses?after="+url.QueryEscape(after), nil, nil)
		if err != nil {
			return nil, err
		}
		var page struct {
			Uses map[string]time.Time
			Next string
		}
		if err := json.Unmarshal(body, &page); err != nil {
			return nil, fmt.Errorf("reading the gateway's answer: %w", err)
		}
		maps.Copy(all, page.Uses)
		if after = page.Next; after == "" {
			return all, nil
		}
	}
}

// lastUse is what a list says of a key's use.
func lastUse(uses map[string]time.Time, id string, honey bool) string {
	at, used := uses[id]
	switch {
	case honey:
		return "honey"
	case !used:
		return "never"
	}
	return at.Format(time.RFC3339)
}
