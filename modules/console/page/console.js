// The console's page. All that it shows may come from strangers, so it becomes
// text nodes only; the page's policy would refuse markup anyway.

const $ = (id) => document.getElementById(id);
const maxRows = 300;

const el = (tag, props, ...children) => {
	const node = document.createElement(tag);
	for (const [name, value] of Object.entries(props || {})) {
		if (name === "class") node.className = value;
		else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
		else node.setAttribute(name, value);
	}
	node.append(...children.filter((c) => c !== null && c !== undefined && c !== ""));
	return node;
};

// Text direction marks could make a path look like another.
const clean = (s) => String(s).replace(/[\u0000-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g, "\ufffd");
// What the gateway says itself may have several lines.
const lines = (s) => String(s).split(/\r?\n/).map((l) => clean(l.replaceAll("\t", "    "))).join("\n");

const duration = (us) =>
	us < 1000 ? `${us} µs` : us < 1e6 ? `${(us / 1000).toFixed(us < 1e4 ? 2 : 1)} ms` : `${(us / 1e6).toFixed(2)} s`;
const clock = (iso) => new Date(iso).toLocaleTimeString([], { hour12: false });
const count = (n) => Math.round(n).toLocaleString("en");
const verdictWord = { allow: "allow", deny: "deny", would_deny: "would deny", undecided: "undecided" };
const known = (v) => (v in verdictWord ? v : "allow");

// --- the list ---------------------------------------------------------------

let source, paused = false, lost = 0, chosen = "", fresh = [], listed = new Set();
const rows = $("rows");

const query = () => {
	const q = new URLSearchParams();
	for (const [name, value] of new FormData($("filter"))) if (value.trim()) q.set(name, value.trim());
	return q;
};

const state = (word, cls) => { $("state").textContent = word; $("state").className = `state ${cls || ""}`; };

const decided = (e) => {
	const s = e.stages.find((s) => s.verdict !== "allow");
	return e.reason || (s && s.reason) || "";
};

function row(e, isNew) {
	const v = known(e.verdict);
	const tr = el("tr", { class: isNew ? "new" : "", "data-id": e.id, onclick: () => choose(e) },
		el("td", { class: "time" }, clock(e.time)),
		el("td", { class: "code status" }, String(e.status)),
		el("td", { class: "request" }, el("button", { type: "button", title: clean(e.path) }, el("span", { class: "method" }, `${clean(e.method)} `), clean(e.path))),
		el("td", { class: "wide cut" }, clean(e.api || "–"), e.operation ? el("span", { class: "dim" }, ` ${clean(e.operation)}`) : ""),
		el("td", { class: "wide cut" }, clean(e.principal || e.client_ip || "–"), e.tenant ? el("span", { class: "dim" }, ` ${clean(e.tenant)}`) : ""),
		el("td", { class: "decision" }, el("span", { class: `verdict ${v}` }, v === "allow" ? verdictWord[v] : clean(decided(e)))),
		el("td", { class: "num dim" }, duration(e.duration_us)));
	if (e.id === chosen) tr.classList.add("chosen");
	return tr;
}

function show(list) {
	rows.replaceChildren(...list.map((e) => row(e, false)));
	$("none").hidden = list.length > 0;
}

// What comes is put in once a frame, however much it is.
function arrive(e) {
	if (listed.has(e.seq)) return;
	if (fresh.push(e) > 1) return;
	requestAnimationFrame(() => {
		const come = fresh.slice(-maxRows).reverse();
		fresh = [];
		rows.prepend(...come.map((e) => row(e, true)));
		while (rows.children.length > maxRows) rows.lastChild.remove();
		$("none").hidden = true;
	});
}

async function ask(url) {
	const resp = await fetch(url, { headers: { Accept: "application/json" } });
	const body = await resp.json();
	if (!resp.ok) throw new Error(body.error || `status ${resp.status}`);
	return body;
}

let turn = 0;
async function open() {
	const mine = ++turn, q = query();
	if (source) source.close();
	lost = 0;
	fresh = [];
	$("note").textContent = "";
	try {
		const page = await ask(`exchanges?${new URLSearchParams([...q, ["limit", "200"]])}`);
		if (mine !== turn) return;
		$("error").hidden = true;
		show(page.exchanges);
		listed = new Set(page.exchanges.map((e) => e.seq));
		q.set("after", page.next); // so that nothing is missed in between
	} catch (err) {
		if (mine !== turn) return;
		$("error").textContent = clean(err.message);
		$("error").hidden = false;
		state("not connected");
		return;
	}
	if (paused) return;
	source = new EventSource(`exchanges/stream?${q}`);
	source.onopen = () => state("live", "live");
	source.onerror = () => state("reconnecting");
	source.onmessage = (m) => arrive(JSON.parse(m.data));
	source.addEventListener("lost", (m) => {
		lost += JSON.parse(m.data).lost;
		$("note").textContent = `${count(lost)} more came than could be shown`;
	});
}

$("filter").addEventListener("change", open);
$("filter").addEventListener("reset", () => setTimeout(open));
$("filter").addEventListener("submit", (ev) => { ev.preventDefault(); open(); });
$("pause").addEventListener("click", () => {
	paused = !paused;
	$("pause").setAttribute("aria-pressed", paused);
	$("pause").textContent = paused ? "Resume" : "Pause";
	if (paused) { source?.close(); state("paused", "paused"); } else open();
});

// Arrows go from request to request.
rows.addEventListener("keydown", (ev) => {
	const tr = ev.target.closest("tr");
	const next = ev.key === "ArrowDown" ? tr.nextElementSibling : ev.key === "ArrowUp" ? tr.previousElementSibling : null;
	if (next) { ev.preventDefault(); next.querySelector("button").focus(); }
});

// --- one Exchange -----------------------------------------------------------

function choose(e) {
	chosen = e.id;
	history.replaceState(null, "", `#${encodeURIComponent(e.id)}`);
	for (const tr of rows.children) tr.classList.toggle("chosen", tr.dataset.id === chosen);
	draw(e);
	if (matchMedia("(max-width: 1100px)").matches) $("detail").scrollIntoView({ block: "start" });
}

function close() {
	chosen = "";
	history.replaceState(null, "", location.pathname);
	for (const tr of rows.children) tr.classList.remove("chosen");
	$("close").hidden = true;
	$("one").replaceChildren(el("p", { class: "empty" }, "Choose a request to see what each stage decided, why, and how long it took."));
}
$("close").addEventListener("click", close);
document.addEventListener("keydown", (ev) => { if (ev.key === "Escape" && chosen) close(); });

function draw(e) {
	const v = known(e.verdict);
	const fact = (name, value) => (value ? [el("dt", {}, name), el("dd", {}, clean(value))] : []);
	const join = (...parts) => parts.filter(Boolean).join(" · ");
	const what = el("div", { class: "what" },
		el("p", { class: `verdict ${v}` }, join(String(e.status), verdictWord[v], e.reason)),
		e.sentence ? el("p", { class: "sentence" }, clean(e.sentence)) : "",
		e.detail ? el("p", {}, lines(e.detail)) : "",
		e.faults ? el("ul", { class: "faults" }, ...e.faults.map((f) => el("li", {}, clean(f)))) : "",
		e.error ? el("p", { class: "operator" }, lines(e.error)) : "",
		el("p", { class: "line" }, el("span", { class: "dim" }, `${clean(e.method)} `), clean(e.path)));
	const facts = el("dl", { class: "facts" },
		...fact("Request id", e.id),
		...fact("Time", new Date(e.time).toLocaleString()),
		...fact("API", join(e.api, e.operation)),
		...fact("From", join(e.client_ip, e.country, e.asn && `AS${e.asn}`, e.bot)),
		...fact("Agent", e.user_agent),
		...fact("Principal", join(e.principal, e.client && e.client !== e.principal && `client ${e.client}`)),
		...fact("Tenant", join(e.tenant, e.plan && `plan ${e.plan}`)),
		...fact("Proven by", join(e.proof, e.issuer)),
		...fact("Upstream", e.upstream),
		...fact("Trace", e.trace_id));
	const total = Math.max(e.duration_us, ...e.stages.map((s) => s.at_us + s.us), 1);
	const walk = el("ol", { class: "walk", "aria-label": "What each stage decided" }, ...e.stages.map((s) => stage(s, total)));
	$("one").replaceChildren(what,
		el("div", { class: "scale", "aria-hidden": "true" }, el("span", {}, "0"), el("span", {}, duration(total))), walk,
		...(e.decisions_dropped ? [el("p", { class: "empty" }, `${e.decisions_dropped} more decisions did not fit.`)] : []), facts);
	$("close").hidden = false;
}

function stage(s, total) {
	const v = known(s.verdict), bar = el("i");
	bar.style.left = `${Math.min(99, (100 * s.at_us) / total)}%`;
	bar.style.width = `${(100 * s.us) / total}%`;
	const why = [];
	if (s.reason) why.push(el("b", {}, clean(s.reason)), ` ${clean(s.sentence)} `);
	if (s.rule) why.push(el("code", {}, lines(s.rule)), " ");
	if (s.mode !== "enforce") why.push(`in ${clean(s.mode)} mode`);
	return el("li", { class: `${v} ${s.stage === "api" ? "api" : ""}` },
		el("span", { class: `verdict ${v}`, title: verdictWord[v] }, el("span", { class: "name" }, clean(s.stage)), el("span", { class: "hide" }, ` ${verdictWord[v]}`)),
		el("span", { class: "track" }, bar),
		el("span", { class: "num dim" }, duration(s.us)),
		why.length ? el("p", { class: "why" }, ...why) : "");
}

// --- the overview -----------------------------------------------------------

const fill = (name, words) => {
	const select = $("filter").elements[name];
	const have = new Set([...select.options].map((o) => o.value));
	for (const w of words) if (!have.has(w)) select.append(el("option", { value: w }, w));
};

const card = (title, heads, lines) =>
	el("section", { class: "card", "aria-label": title },
		el("div", { class: "head" }, el("h2", {}, title)),
		lines.length
			? el("table", {}, el("thead", { class: heads.some(Boolean) ? "" : "hide" }, el("tr", {}, ...heads.map((h, i) => el("th", { scope: "col", class: i ? "num" : "" }, h)))),
				el("tbody", {}, ...lines.map((cells) => el("tr", {}, ...cells.map((c, i) => el("td", { class: i ? "num" : "" }, c))))))
			: el("p", { class: "empty" }, heads[0]));

const mark = (cls, text) => el("span", { class: `verdict ${cls}` }, text);
const since = (t) => {
	if (!t) return "never";
	const s = Math.max(0, Date.now() / 1000 - t);
	return s < 90 ? `${Math.round(s)} s ago` : s < 5400 ? `${Math.round(s / 60)} min ago` : s < 129600 ? `${Math.round(s / 3600)} h ago` : `${Math.round(s / 86400)} d ago`;
};

const meter = (percent) => {
	const i = el("i");
	i.style.width = `${percent}%`;
	return el("div", { class: "meter" }, i);
};

let before;
function overview(o) {
	const sum = (name) => o.apis.reduce((n, a) => n + a[name], 0);
	const now = performance.now();
	for (const name of ["passed", "denied", "would_deny", "undecided"]) {
		const n = sum(name);
		$(`n-${name}`).textContent = count(n);
		if (before) $(`r-${name}`).textContent = `${(Math.max(0, n - before[name]) / ((now - before.at) / 1000)).toFixed(1)}/s`;
	}
	before = { at: now, passed: sum("passed"), denied: sum("denied"), would_deny: sum("would_deny"), undecided: sum("undecided") };
	fill("api", o.apis.map((a) => a.api).filter(Boolean));
	fill("verdict", o.words.verdicts);
	fill("stage", o.words.stages);
	fill("reason", o.words.reasons);

	const cards = [
		card("APIs", ["API", "passed", "denied", "would deny", "undecided"],
			o.apis.map((a) => [clean(a.api || "stages alone"), count(a.passed), count(a.denied), count(a.would_deny), count(a.undecided)])),
		card("Certificates", o.certificates.length ? ["Names", "Issuer", "Days left"] : ["No certificate is loaded for the names of this configuration."],
			o.certificates.map((c) => [clean(c.names.join(", ")), clean(c.issuer),
				mark(c.days_left < 0 ? "deny" : c.days_left < 7 ? "would_deny" : "allow", c.days_left < 0 ? "expired" : String(c.days_left))])),
	];
	if (o.breakers) cards.push(card("Breakers", ["Upstream", "State", "Opened"],
		o.breakers.map((b) => [clean(b.upstream), mark({ open: "deny", "half-open": "would_deny" }[b.state] || "allow", b.state), count(b.opened)])));
	if (o.quota) cards.push(card("Quotas", ["", ""], [
		["Callers remembered", count(o.quota.keys)], ["Requests that wait", count(o.quota.waiting)],
		["Leased from the cluster", count(o.quota.leased)], ["Counted alone", count(o.quota.alone)]]));
	if (o.canaries) cards.push(card("Canaries", ["API", "Release", "Callers"],
		o.canaries.map((c) => [clean(c.api), clean(c.release), el("span", {}, `${c.weight} %`, meter(Math.min(100, c.weight)))])));
	if (o.feeds) cards.push(card("Feeds", ["Source", "Read", "Failures"], o.feeds.map((f) => [clean(f.source), since(f.read_at), count(f.failures)])));
	if (o.cluster) cards.push(card("Cluster", ["", ""], [["Server", mark(o.cluster.up ? "allow" : "deny", o.cluster.up ? "reached" : "away")], ["Gateways", count(o.cluster.nodes)]]));
	if (o.log_dropped > 0) cards.push(card("Log", ["", ""], [["Entries dropped", mark("deny", count(o.log_dropped))]]));
	$("cards").replaceChildren(...cards);
}

async function look() {
	try { overview(await ask("overview")); } catch { /* the stream's state says it */ }
	setTimeout(look, document.hidden ? 30000 : 3000);
}

// On a phone the filters fold up.
const narrow = matchMedia("(max-width: 700px)");
const fold = () => { $("filters").open = !narrow.matches; };
narrow.addEventListener("change", fold);
fold();

open();
look();
const wanted = decodeURIComponent(location.hash.slice(1));
if (wanted) ask(`exchanges/${encodeURIComponent(wanted)}`).then(choose, () => {});
