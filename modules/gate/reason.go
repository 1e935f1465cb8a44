package gate

import (
	"net/http"
	"strings"
)

// Reason says why a request was turned away, in a form that dashboards and
// clients may rely on. The list is closed: a Reason is never renamed and never
// reused once released. The zero Reason means there was nothing to say.
type Reason uint8

// The reasons the gateway gives, each with its status and sentence in reasons.
const (
	None Reason = iota

	APIUnmatched
	APIRejected
	APIPanic
	APIFailed
	APIUpstreamFailed
	APIUpstreamUnavailable
	APIUpstreamTimeout

	ReputationDenied
	ReputationCountry
	ReputationUnavailable

	GuardPath
	GuardURL
	GuardQuery
	GuardHeaders
	GuardFraming
	GuardOverride
	GuardEarlyData
	GuardContentType
	GuardContentEncoding
	GuardBodyTooLarge
	GuardBodyUnreadable
	GuardJSON

	ContractUnknownPath
	ContractUnknownMethod

	IdentityMissing
	IdentityAmbiguous
	IdentityMalformed
	IdentityUnknownIssuer
	IdentityUnknownKey
	IdentityBadAlgorithm
	IdentityBadSignature
	IdentityExpired
	IdentityNotYetValid
	IdentityWrongAudience
	IdentityWrongType
	IdentityMissingClaim
	IdentityInvalidAPIKey
	IdentityInactive
	IdentityRevoked
	IdentityUnbound
	IdentityBadProof
	IdentityReplayed
	IdentityNonce
	IdentityUnavailable
	IdentityLogin
	IdentityBadSession
	IdentitySessionExpired
	IdentitySessionEnded
	IdentityCrossOrigin
	IdentityUnknownLogin
	IdentityLoginFailed
	IdentityBadLogout
	IdentityUnknownPage
	IdentityUnsigned
	IdentityExchangeRefused
	IdentityExchangeUnavailable
	IdentityCertificateName
	IdentityCertificatePolicy
	IdentityCertificateRevoked
	IdentityRevocationUnknown

	RequireAnonymous
	RequireScope
	RequireRole
	RequireScheme
	RequireExpression
	RequireAuthentication

	QuotaExhausted
	QuotaQueueFull
	QuotaUnusual

	InputBodyTooLarge
	InputBodyUnreadable
	InputBodyMissing
	InputContentType
	InputContentEncoding
	InputMalformed
	InputParameters
	InputBody
	InputUnavailable

	FirewallAttack
	FirewallArgumentLimit
	FirewallBodyTooLarge
	FirewallBodyUnreadable
	FirewallBusy
	FirewallFailed

	TranscodeUnmatched
	TranscodeUnknownMethod
	TranscodeContentType
	TranscodeHTTPVersion
	TranscodeMalformed
	TranscodeTooLarge
	TranscodeBodyUnreadable
	TranscodeTimeout
	TranscodeAnswer
	TranscodeUpstream

	ResilienceBreakerOpen
	ResilienceUnreachable
	ResilienceTimeout

	reasonCount
)

// reasons is the closed list. The sentence becomes the problem's title and the
// row in docs/reasons.md.
var reasons = [reasonCount]struct {
	name   string
	status int
	title  string
}{
	None: {"", http.StatusOK, ""},

	APIUnmatched:           {"api.unmatched", 404, "Nothing here answers this request."},
	APIRejected:            {"api.rejected", 400, "The request was rejected."},
	APIPanic:               {"api.panic", 500, "The gateway failed while handling the request."},
	APIFailed:              {"api.failed", 500, "The gateway could not handle the request."},
	APIUpstreamFailed:      {"api.upstream_failed", 502, "The service behind the gateway failed."},
	APIUpstreamUnavailable: {"api.upstream_unavailable", 503, "The service behind the gateway is not available."},
	APIUpstreamTimeout:     {"api.upstream_timeout", 504, "The service behind the gateway took too long."},

	ReputationDenied:      {"reputation.denied", 403, "Requests from this address are not accepted."},
	ReputationCountry:     {"reputation.country", 403, "Requests from this country are not accepted."},
	ReputationUnavailable: {"reputation.unavailable", 503, "The request's origin cannot be checked at the moment."},

	GuardPath:            {"guard.path", 400, "The path can be read in more than one way."},
	GuardURL:             {"guard.url_too_long", 414, "The URL is too long."},
	GuardQuery:           {"guard.query", 400, "The query is malformed or has too many members."},
	GuardHeaders:         {"guard.headers", 431, "The request has too many header fields."},
	GuardFraming:         {"guard.framing", 400, "The request's header fields contradict each other."},
	GuardOverride:        {"guard.override", 400, "A header field asks for another method or path than the request has."},
	GuardEarlyData:       {"guard.early_data", 425, "The request came before the handshake was over, and could be a repetition."},
	GuardContentType:     {"guard.content_type", 415, "This content type is not accepted here."},
	GuardContentEncoding: {"guard.content_encoding", 415, "This content encoding is not accepted here."},
	GuardBodyTooLarge:    {"guard.body_too_large", 413, "The request body is too large."},
	GuardBodyUnreadable:  {"guard.body_unreadable", 400, "The request body could not be read."},
	GuardJSON:            {"guard.json", 400, "The JSON of the request body is not acceptable."},

	ContractUnknownPath:   {"contract.unknown_path", 404, "The API has no such path."},
	ContractUnknownMethod: {"contract.unknown_method", 405, "The path does not support this method."},

	IdentityMissing:       {"identity.missing", 401, "The request carries no credential."},
	IdentityAmbiguous:     {"identity.ambiguous", 400, "The request carries more than one credential of a kind."},
	IdentityMalformed:     {"identity.malformed", 401, "The credential cannot be read."},
	IdentityUnknownIssuer: {"identity.unknown_issuer", 401, "The token's issuer is not accepted here."},
	IdentityUnknownKey:    {"identity.unknown_key", 401, "The token is signed by a key the issuer does not publish."},
	IdentityBadAlgorithm:  {"identity.bad_algorithm", 401, "The token's algorithm does not fit the issuer's key."},
	IdentityBadSignature:  {"identity.bad_signature", 401, "The token's signature is wrong."},
	IdentityExpired:       {"identity.expired", 401, "The credential has expired."},
	IdentityNotYetValid:   {"identity.not_yet_valid", 401, "The credential is not valid yet."},
	IdentityWrongAudience: {"identity.wrong_audience", 401, "The token is meant for somebody else."},
	IdentityWrongType:     {"identity.wrong_type", 401, "The token is not an access token."},
	IdentityMissingClaim:  {"identity.missing_claim", 401, "The token lacks a claim that is required here."},
	IdentityInvalidAPIKey: {"identity.invalid_api_key", 401, "The API key is not known."},
	IdentityInactive:      {"identity.inactive", 401, "The token is not good, or not any more."},
	IdentityRevoked:       {"identity.revoked", 401, "The credential was revoked."},
	IdentityUnbound:       {"identity.unbound", 401, "The token is bound to a key or certificate that the request does not prove."},
	IdentityBadProof:      {"identity.bad_proof", 401, "The proof of possession is wrong."},
	IdentityReplayed:      {"identity.replayed", 401, "The proof of possession was used before."},
	IdentityNonce:         {"identity.nonce", 401, "The proof of possession needs the nonce that comes with this answer."},
	IdentityUnavailable:   {"identity.unavailable", 503, "The credential cannot be checked at the moment."},
	IdentityUnsigned:      {"identity.unsigned", 503, "The gateway has no key to sign with at the moment."},

	IdentityExchangeRefused:     {"identity.exchange_refused", 403, "The caller's token cannot be exchanged for one of the service behind the gateway."},
	IdentityExchangeUnavailable: {"identity.exchange_unavailable", 503, "The caller's token cannot be exchanged at the moment."},

	IdentityLogin:          {"identity.login", 302, "The browser is sent to log in."},
	IdentityBadSession:     {"identity.bad_session", 401, "The cookie is of no session here."},
	IdentitySessionExpired: {"identity.session_expired", 401, "The session's time is over."},
	IdentitySessionEnded:   {"identity.session_ended", 401, "The session was ended."},
	IdentityCrossOrigin:    {"identity.cross_origin", 403, "A page of another origin must not change anything with a session."},
	IdentityUnknownLogin:   {"identity.unknown_login", 400, "The login was not begun in this browser, or too long ago."},
	IdentityLoginFailed:    {"identity.login_failed", 403, "The login did not succeed."},
	IdentityBadLogout:      {"identity.bad_logout", 400, "The logout token is not good."},
	IdentityUnknownPage:    {"identity.unknown_page", 404, "The gateway has no such page of its own, or not for this method."},

	IdentityCertificateName:    {"identity.certificate_name", 401, "The client certificate does not name its holder in a way that is accepted here."},
	IdentityCertificatePolicy:  {"identity.certificate_policy", 401, "The client certificate is not of the kind that is accepted here."},
	IdentityCertificateRevoked: {"identity.certificate_revoked", 401, "The client certificate has been revoked."},
	IdentityRevocationUnknown:  {"identity.revocation_unknown", 503, "Whether the client certificate has been revoked cannot be found out at the moment."},

	RequireAnonymous:  {"require.anonymous", 401, "This operation needs a proven caller."},
	RequireScope:      {"require.scope", 403, "The caller lacks a scope this operation needs."},
	RequireRole:       {"require.role", 403, "The caller lacks a role this operation needs."},
	RequireScheme:     {"require.scheme", 403, "The caller proved itself in a way this operation does not accept."},
	RequireExpression: {"require.expression", 403, "The caller may not do this."},

	RequireAuthentication: {"require.authentication", 401, "This operation needs a stronger or more recent authentication."},

	QuotaExhausted: {"quota.exhausted", 429, "The allowance of this caller is spent for now."},
	QuotaQueueFull: {"quota.queue_full", 429, "Too many requests of this caller are waiting."},
	QuotaUnusual:   {"quota.unusual", 429, "This caller sends far more than it usually does."},

	InputBodyTooLarge:    {"input.body_too_large", 413, "The request body is too large."},
	InputBodyUnreadable:  {"input.body_unreadable", 400, "The request body could not be read."},
	InputBodyMissing:     {"input.body_missing", 400, "The operation needs a request body."},
	InputContentType:     {"input.content_type", 415, "The operation does not accept this content type."},
	InputContentEncoding: {"input.content_encoding", 415, "The operation does not accept this content encoding."},
	InputMalformed:       {"input.malformed", 400, "The request body is not well formed."},
	InputParameters:      {"input.parameters", 400, "Some parameters do not match the API's contract."},
	InputBody:            {"input.body", 400, "The request body does not match the API's contract."},
	InputUnavailable:     {"input.unavailable", 500, "The request could not be checked against the API's contract."},

	FirewallAttack:         {"firewall.attack", 403, "The request looks like an attack."},
	FirewallArgumentLimit:  {"firewall.argument_limit", 400, "The request has more arguments than can be inspected."},
	FirewallBodyTooLarge:   {"firewall.body_too_large", 413, "The request body is larger than can be inspected."},
	FirewallBodyUnreadable: {"firewall.body_unreadable", 400, "The request body could not be read for inspection."},
	FirewallBusy:           {"firewall.busy", 503, "Too much is being inspected at the moment."},
	FirewallFailed:         {"firewall.failed", 503, "The request could not be inspected."},

	TranscodeUnmatched:      {"transcode.unmatched", 404, "No method of the service answers this request."},
	TranscodeUnknownMethod:  {"transcode.unknown_method", 405, "The path does not support this method."},
	TranscodeContentType:    {"transcode.content_type", 415, "The method cannot be called in this protocol or with this content type."},
	TranscodeHTTPVersion:    {"transcode.http_version", 505, "The method needs HTTP/2."},
	TranscodeMalformed:      {"transcode.malformed", 400, "The request is not what the method takes."},
	TranscodeTooLarge:       {"transcode.message_too_large", 413, "The message is too large."},
	TranscodeBodyUnreadable: {"transcode.body_unreadable", 400, "The request body could not be read."},
	TranscodeTimeout:        {"transcode.timeout", 504, "The call took longer than it may."},
	TranscodeAnswer:         {"transcode.answer", 502, "The answer of the service behind the gateway could not be translated."},
	TranscodeUpstream:       {"transcode.upstream", 502, "The service behind the gateway did not do what was asked."},

	ResilienceBreakerOpen: {"resilience.breaker_open", 503, "The service behind the gateway is recovering from failures."},
	ResilienceUnreachable: {"resilience.unreachable", 502, "The service behind the gateway could not be reached."},
	ResilienceTimeout:     {"resilience.timeout", 504, "The service behind the gateway took too long."},
}

// String is the reason as clients, logs and metrics see it.
func (r Reason) String() string { return reasons[r].name }

// Status is the response status that goes with the reason.
func (r Reason) Status() int { return reasons[r].status }

// Title is the sentence that goes with the reason.
func (r Reason) Title() string { return reasons[r].title }

// Stage is the stage that gives the reason: the part before the dot.
func (r Reason) Stage() string {
	stage, _, _ := strings.Cut(reasons[r].name, ".")
	return stage
}

// MarshalText writes the reason's name.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// Reasons lists every reason there is, in the order of the walk.
func Reasons() []Reason {
	all := make([]Reason, 0, reasonCount-1)
	for r := None + 1; r < reasonCount; r++ {
		all = append(all, r)
	}
	return all
}
