package identity

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"time"

	"github.com/caddyserver/caddy/v2"
	"github.com/spf13/cobra"

	"github.com/gatehouse-caddy/gatehouse/modules/registry"
)

func (f *keyFlags) rotateCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "rotate <id> [--overlap <duration>] [--expires <time or duration>]",
		Short: "Gives an API key a new secret; the old one works on for a while",
		Long:  "Makes a new secret for an API key of the running gateway and prints it once. Until the overlap is over, the old one is good as well.",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := f.rotate(cmd.ErrOrStderr(), args[0], time.Now())
			if err == nil {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), key)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&f.overlap, "overlap", "24h", "how long the old secret works on, such as 12h or 7d; 0: not at all")
	cmd.Flags().StringVar(&f.expires, "expires", "", "when the key expires from now on: "+momentHelp+"; default: as before")
	cmd.Flags().BoolVar(&f.force, "force", false, "also a key that is refused with whatever secret")
	return cmd
}

// rotate changes only what is as it was read, so that of two who rotate at a
// time one is told.
func (f *keyFlags) rotate(notes io.Writer, id string, now time.Time) (string, error) {
	overlap, err := caddy.ParseDuration(f.overlap)
	if err != nil || overlap < 0 {
		return "", fmt.Errorf("--overlap %q is no duration such as 24h or 7d, nor 0", f.overlap)
	}
	change := map[string]any{}
	if f.expires != "" {
		if change["expires"], err = moment(f.expires, now); err != nil {
			return "", err
		}
	}
	body, err := f.Ask(http.MethodGet, "keys/"+url.PathEscape(id), nil)
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
	if overlap > 0 {
		old = append(old, oldSecret{o.Value.SHA256, now.Add(overlap).UTC().Truncate(time.Second)})
	} else {
		old = nil // no secret of before is to work
	}
	if len(old) > maxPrevious {
		return "", fmt.Errorf("key %q has %d secrets that still work; wait until one has ended, or rotate with --overlap 0", id, len(old))
	}
	secret, hash := newKey()
	change["sha256"], change["previous"] = hash, old
	patch, err := json.Marshal(change)
	if err != nil {
		return "", err
	}
	answer, err := f.AskWith(http.Header{"If-Match": {strconv.Quote(strconv.FormatUint(o.Version, 10))}}, http.MethodPatch, f.path(id), patch)
	if refusedWith(err, http.StatusPreconditionFailed) {
		return "", fmt.Errorf("key %q was changed by somebody else at the same time; look at it and try again", id)
	}
	if err != nil {
		return "", err
	}
	registry.Warn(notes, answer)
	var is listedKey
	if json.Unmarshal(answer, &is) == nil && is.State == keyOverlapping {
		_, _ = fmt.Fprintf(notes, "the old secret works until %s\n", is.Until.Format(time.RFC3339)) // stderr; there is nowhere else to say that it failed
	}
	return secret, nil
}

// uses asks the gateway when its keys were last used.
func (f *keyFlags) uses() (map[string]time.Time, error) {
	all := map[string]time.Time{}
	for after := ""; ; {
		body, err := f.Ask(http.MethodGet, "key_uses?after="+url.QueryEscape(after), nil)
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
