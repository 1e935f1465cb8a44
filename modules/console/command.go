package console

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/gatehouse-caddy/gatehouse/modules/cli"
	"github.com/gatehouse-caddy/gatehouse/modules/gate"
	"github.com/gatehouse-caddy/gatehouse/modules/registry"
)

func init() {
	cli.Add(explainCommand)
	cli.Add(consoleCommand)
}

func explainCommand() *cobra.Command {
	var client registry.Client
	cmd := &cobra.Command{
		Use:   "explain <request id>",
		Short: "Says what each stage of the running gateway decided on a request, and why",
		Long: "Says what each stage of the running gateway decided on one of the last requests, and why. " +
			"The request id is in the answer's X-Request-Id, in a problem's instance and in the log. Ends with 1 if it is not remembered.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error { return explain(&client, cmd.OutOrStdout(), args[0]) },
	}
	client.Flags(cmd)
	return cmd
}

func explain(client *registry.Client, out io.Writer, id string) error {
	id = strings.TrimPrefix(id, "urn:request:") // as a problem has it
	body, err := client.Ask(http.MethodGet, "exchanges/"+url.PathEscape(id), nil)
	if err != nil {
		return err
	}
	var ex exchange
	if err := json.Unmarshal(body, &ex); err != nil {
		return fmt.Errorf("reading the gateway's answer: %w", err)
	}
	return ex.print(out)
}

// print writes an Exchange as text: what it was, how it ended, one stage a line.
func (e *exchange) print(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	line := func(name string, parts ...string) {
		parts = slices.DeleteFunc(parts, func(s string) bool { return s == "" })
		if len(parts) > 0 {
			_, _ = fmt.Fprintf(w, "%s\t%s\n", name, plain(strings.Join(parts, ", "))) // Flush reports what fails
		}
	}
	text := func(name, value string) { // may have several lines, which go below each other
		for row := range strings.Lines(strings.TrimRight(value, "\r\n")) {
			if row = strings.TrimRight(row, "\r\n"); row != "" {
				line(name, strings.ReplaceAll(row, "\t", "    "))
				name = ""
			}
		}
	}
	named := func(name, value string) string {
		if value == "" {
			return ""
		}
		return name + " " + value
	}
	line("request", e.Method+" "+e.Path)
	line("id", e.ID)
	line("time", e.Time.Format(time.RFC3339Nano))
	line("api", e.API, named("operation", e.Operation))
	asn := ""
	if e.ASN != 0 {
		asn = fmt.Sprintf("AS%d", e.ASN)
	}
	line("from", e.ClientIP, e.Country, asn, named("bot", e.Bot))
	line("agent", e.UserAgent)
	line("caller", named("principal", e.Principal), named("client", e.Client), named("tenant", e.Tenant),
		named("plan", e.Plan), named("issuer", e.Issuer), named("proven by", e.Proof))
	line("upstream", e.Upstream)
	line("trace", e.TraceID)
	line("answer", fmt.Sprintf("%d after %s", e.Status, time.Duration(e.DurationUs)*time.Microsecond))
	line("verdict", e.Verdict, e.Reason)
	text("", e.Sentence)
	text("", e.Detail)
	for _, f := range e.Faults {
		text("", f)
	}
	text("error", e.Error)
	_, _ = fmt.Fprintln(w)
	_, _ = fmt.Fprintln(w, "STAGE\tVERDICT\tREASON\tRULE\tMODE\tµs")
	for _, s := range e.Stages {
		_, _ = fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\t%d\n", s.Stage, s.Verdict, dash(s.Reason), dash(fitting(plain(oneLine(s.Rule)))), s.Mode, s.Us)
	}
	if e.Dropped > 0 {
		_, _ = fmt.Fprintf(w, "… %d more decisions did not fit\n", e.Dropped)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	return e.advise(out)
}

// advise says what would let such a request pass, as far as the reason tells.
func (e *exchange) advise(out io.Writer) error {
	for _, s := range e.Stages {
		if s.Reason == "" {
			continue
		}
		note := "To let it pass: " + remedy(s.Reason, s.Stage)
		switch s.Verdict {
		case gate.WouldDeny.String():
			note = "It passed because " + s.Stage + " is in shadow mode. In earnest: " + remedy(s.Reason, s.Stage)
		case gate.Undecided.String():
			note = "It passed because " + s.Stage + " could not decide and on_error is open."
		}
		if rule := plain(oneLine(s.Rule)); fitting(rule) != rule { // the table has a part of it
			note = "The rule is: " + rule + "\n" + note
		}
		if _, err := fmt.Fprintf(out, "\n%s: %s\n%s\n", s.Reason, s.Sentence, note); err != nil {
			return err
		}
	}
	return nil
}

// remedy is the stage's, unless the reason has one of its own.
func remedy(reason, stage string) string {
	if own, ok := remedies[reason]; ok {
		return own
	}
	return remedies[stage]
}

// remedies say for each stage, and for some reasons, where what is refused can be
// changed.
var remedies = map[string]string{
	"api":        "see whether a directive in the api block answers this path, and what the upstream and the log say of it.",
	"reputation": "take the address, network or country out of the list that the rule names, or allow it before.",
	"guard":      "have the client send what the sentence asks for, or change the bound that the rule names.",
	"contract":   "call what the contract has, or add the path or method to the contract.",
	"identity":   "have the client send a credential that the issuers or keys of this api accept.",

	"identity.missing":              "have the client send what the error says is accepted here, in its place; or accept what came: keys, mtls, session or an issuer in identity.",
	"identity.ambiguous":            "have the client, and what stands between, send one such field.",
	"identity.malformed":            "see in the error what cannot be read; most often the client sends another thing than its access token, or a part of it.",
	"identity.unknown_issuer":       "compare the token's iss, to the letter, with the issuers of this api; the error has both.",
	"identity.unknown_key":          "see whether the issuer still publishes the key that the error names; a file of keys is read when a configuration is loaded.",
	"identity.bad_algorithm":        "have the issuer sign by an algorithm that fits its key and that `algorithms` names; HMAC and none are never accepted.",
	"identity.bad_signature":        "see whether the token is of this issuer's, and not of another environment with the same iss and kid; a token that was changed on its way is never good.",
	"identity.expired":              "have the client get a new one; if it has, compare the clocks: the error says how far they are apart.",
	"identity.not_yet_valid":        "compare the clocks of gateway and issuer; leeway bridges 5 minutes at most.",
	"identity.wrong_audience":       "compare the token's aud with the audience of its issuer, which the error has both of, or have the client ask for that one.",
	"identity.wrong_type":           "have the client send its access token, and not an ID or refresh token; if the issuer names access tokens so, say it in `types`.",
	"identity.missing_claim":        "have the issuer put the claim that the error names into its tokens.",
	"identity.invalid_api_key":      "see in the error what is wrong with the key, and by caddy gatehouse key list which there are.",
	"identity.inactive":             "have the client get a new token; if it is new, see whether the issuer that was asked has issued it.",
	"identity.revoked":              "lift the revocation that the error names: caddy gatehouse revoke lift <id>.",
	"identity.unbound":              "have the client send the token with what it is bound to: its key as DPoP, or its certificate on the connection; the error says what is missing.",
	"identity.bad_proof":            "see in the error what of the proof is wrong; if it is the URL, a proxy in front is not among trusted_proxies.",
	"identity.replayed":             "have the client make a proof for each request, for repeated ones too.",
	"identity.nonce":                "nothing, if the client's next request is good: it gets the nonce with this answer; or else have it read DPoP-Nonce.",
	"identity.unavailable":          "see in the error what cannot be reached, and whether on_error suits this api; it recovers by itself.",
	"identity.login":                "nothing: the person logs in, and comes back.",
	"identity.bad_session":          "have the person log in again; if it happens to many, see whether the gateways share the storage, where the keys of sessions are, and whether cookie_name or issuer was changed.",
	"identity.session_expired":      "have the person log in again, or give sessions more time: idle, lifetime.",
	"identity.session_ended":        "have the person log in again: somebody has logged out, or the issuer does not renew it.",
	"identity.cross_origin":         "have the page of this origin ask; csrf same_site believes the hosts of its domain, too. If the error shows another site than the browser does, set origin.",
	"identity.unknown_login":        "have the person begin again; if it happens to many, see whether they come back to the host that they left, and whether the gateways share the storage.",
	"identity.login_failed":         "see in the error what the issuer says, and compare login's client_id, secret and the redirect URL that the issuer has registered.",
	"identity.bad_logout":           "see in the error what is wrong with the issuer's logout token.",
	"identity.unknown_page":         "see below the path of session which pages there are: login, callback, logout, logged-out and backchannel-logout.",
	"identity.unsigned":             "see in the error why the storage has no key; on_error of tell jwt decides meanwhile.",
	"identity.exchange_refused":     "see in the error what the issuer answers; it has to allow the gateway's client to exchange tokens for this audience.",
	"identity.exchange_unavailable": "see in the error what the token endpoint says; on_error of the exchange decides meanwhile.",
	"identity.certificate_name":     "have the certificate issued with a name that subject and trust_domain take, or change these.",
	"identity.certificate_policy":   "have the client use a certificate that the rule allows, or change the rule; the error says whose it is.",
	"identity.certificate_revoked":  "have a new certificate issued; its authority has revoked this one.",
	"identity.revocation_unknown":   "see in the error and the log which list or responder cannot be had; on_error of it decides meanwhile.",

	"require.anonymous":      "have the client prove who it is; the error says why nobody was proven.",
	"require.scope":          "have the client ask its issuer for the scope; the error says which the caller has. An API key has those of its entry.",
	"require.role":           "give the caller one of the roles that the rule names, or name one that it has; where tokens have them, claims roles of the issuer says.",
	"require.scheme":         "have the client prove itself in a way that the contract's security of the operation names, or add a scheme for this one to the contract.",
	"require.expression":     "see which part of the rule is false for this caller; if the error says that it could not be evaluated, guard it with has().",
	"require.authentication": "have the person log in again, as acr_values and max_age in the answer say; most clients do so by themselves.",

	"contract.unknown_path":   "call what the contract has, or add the path to it; where the path is only like one that is there, the error says so, and what would let it be.",
	"guard.path":              "have the client send the path in its canonical form; encoded_slash and semicolon let these stand where a backend takes them for data.",
	"resilience.breaker_open": "see in the error what failed last; the breaker closes by itself when the upstream is well.",
	"resilience.timeout":      "see in the error which deadline it was: try_timeout is for one try, timeout for all of them.",
	"resilience.unreachable":  "see in the error why there was no answer; whether the upstream runs, and where reverse_proxy sends to.",
	"firewall.busy":           "have the client try again as Retry-After says; if it is no attack, give the gateway more processors, or a smaller max_body where bodies need not be large.",

	"require":    "give the caller what the rule or the error names: a scope, a role, or a proof of a kind that the operation's security accepts; or change the rule.",
	"quota":      "wait as Retry-After says, or allow more: where the rule names a plan, by that or another plan of the tenant; where it says rate, in the Caddyfile.",
	"input":      "have the client send what the contract says, or change the contract.",
	"firewall":   "if it is no attack, exclude the rule for what sets it off, or raise the threshold.",
	"canary":     "see how the release does, or give callers back to the stable one.",
	"transcode":  "have the client send what the method takes, or change what its rules in the descriptor set allow.",
	"resilience": "see how the upstream that the rule names does; its breaker closes by itself when it is well.",
}

// plain keeps what a stranger sent from moving the operator's cursor.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7f && r < 0xa0 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			return '�'
		}
		return r
	}, s)
}

// oneLine is a text in a table, whatever lines it was written on.
func oneLine(s string) string {
	if !strings.ContainsAny(s, "\n\r\t") {
		return s
	}
	return strings.Join(strings.Fields(s), " ")
}

// fitting keeps a column from pushing the others off the screen.
func fitting(s string) string {
	const most = 40
	if r := []rune(s); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return s
}

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func consoleCommand() *cobra.Command {
	var client registry.Client
	var listen string
	cmd := &cobra.Command{
		Use:   "console [--listen <address>]",
		Short: "Serves the running gateway's console to a browser on this machine",
		Long: "Serves the running gateway's console to a browser on this machine, until interrupted. " +
			"The printed address lets one browser in, once; nobody else on the machine. " +
			"Use it where the admin endpoint is a unix socket, or refuses browsers as Caddy does unless its `origins` have an empty one.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM)
			defer stop()
			return show(ctx, &client, cmd.OutOrStdout(), listen)
		},
	}
	client.Flags(cmd)
	cmd.Flags().StringVar(&listen, "listen", "localhost:0", "where to listen; 0 finds a free port")
	return cmd
}
