// Package canary gives a new release of an API a share of the callers, compares
// it with the stable release, and takes the callers back when it does worse.
//
// A caller stays where they are: they are hashed, together with the name of the
// release, to a point, and the weight says up to which point callers are on it.
// Raising it moves callers to the release and none away from it. Of several
// releases, each takes its share of all callers out of those whom the ones
// before it have passed. The weight is a live object and changes without a
// reload.
//
// Compared are the shares of failures and the 95th percentiles of the time to
// the response header, of the requests that went to one or the other by the
// weight alone: whoever asks for a release by force chose it, and would bias
// what is seen. Nothing is concluded from few results, differences that may be
// chance, or what one caller does, or two among many: the others must fare worse
// as well. internal/release has the mathematics, and its tests simulate how often
// it is wrong. Results count for a principal or a network and not for a cookie,
// which anybody can choose, by asking for new ones until one suits. A client that
// leaves is no failure, but the time it waited counts: a release that hangs is
// left by its clients first. The time in which the client itself is waited for
// does not count.
//
// A rollback is no refusal, so it has no reason among gate's. It is a decision
// of the request at which it was noticed, with the rule `<release> rolled back:
// errors` or `latency`; a log entry; a metric; and the event
// gatehouse_canary_rolled_back. It stops the release on this node at once, and
// is then written as the release's live object, weight 0 and why, where other
// nodes and a restart find it and an operator's next weight replaces it.
//
// A request that goes to the stable release costs some 0.8 us and one
// allocation; a release takes some 30 KiB. Nothing remote is asked. While the
// storage is away, a rollback holds on the node that made it, over reloads too,
// and is written as soon as that can be done; an operator who sets a weight in
// between has the last word.
package canary
