package integration

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/gatehouse-caddy/gatehouse/modules/gate"
)

// browser is a Chromium that looks at the console's page and is watched.
type browser struct {
	ctx    context.Context
	origin string
	mu     sync.Mutex
	wrong  []string // dialogs, violations, errors, and requests that leave the origin
}

func newBrowser(t *testing.T, origin string) *browser {
	t.Helper()
	path, err := exec.LookPath("chromium")
	if err != nil {
		t.Fatal("chromium is not installed; make deps installs it")
	}
	alloc, stop := chromedp.NewExecAllocator(t.Context(),
		chromedp.ExecPath(path), chromedp.UserDataDir(t.TempDir()),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.NoDefaultBrowserCheck,
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true), chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.WindowSize(1440, 900))
	t.Cleanup(stop)
	ctx, cancel := chromedp.NewContext(alloc)
	t.Cleanup(cancel)
	ctx, done := context.WithTimeout(ctx, 2*time.Minute)
	t.Cleanup(done)
	b := &browser{ctx: ctx, origin: origin}
	b.do(t)
	err = chromedp.Listen(ctx, func(ev any) {
		switch ev := ev.(type) {
		case *page.EventJavascriptDialogOpening:
			b.note("dialog %q", ev.Message)
			go func() {
				_, _ = chromedp.Call(ctx, page.HandleJavaScriptDialog, page.HandleJavaScriptDialogParams{Accept: true})
			}()
		case *network.EventRequestWillBeSent:
			if u := ev.Request.URL; !strings.HasPrefix(u, b.origin+"/") && !strings.HasPrefix(u, "data:") {
				b.note("request to %s", u)
			}
		case *log.EventEntryAdded:
			b.note("%s: %s", ev.Entry.Source, ev.Entry.Text)
		case *runtime.EventExceptionThrown:
			b.note("exception: %s", ev.ExceptionDetails.Text)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	send(t, b, network.Enable, network.EnableParams{})
	send(t, b, log.Enable, cdp.Empty{})
	send(t, b, page.Enable, page.EnableParams{})
	send(t, b, runtime.Enable, cdp.Empty{})
	send(t, b, page.AddScriptToEvaluateOnNewDocument, page.AddScriptToEvaluateOnNewDocumentParams{
		Source: `addEventListener("securitypolicyviolation", (e) => { window.__violations = (window.__violations || "") + e.violatedDirective + " " + e.blockedURI + "; " })`,
	})
	return b
}

func (b *browser) note(format string, args ...any) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.wrong = append(b.wrong, fmt.Sprintf(format, args...))
}

func (b *browser) do(t *testing.T, actions ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(b.ctx, actions...); err != nil {
		t.Fatalf("in the browser: %v; so far %v", err, b.wrong)
	}
}

func send[P, R any](t *testing.T, b *browser, cmd cdp.Command[P, R], params P) {
	t.Helper()
	if _, err := chromedp.Call(b.ctx, cmd, params); err != nil {
		t.Fatal(err)
	}
}

// sessionCookies counts those that the browser keeps of a session.
func (b *browser) sessionCookies(t *testing.T) (n int) {
	t.Helper()
	got, err := chromedp.Call(b.ctx, network.GetCookies, network.GetCookiesParams{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range got.Cookies {
		if strings.Contains(c.Name, gate.SessionCookie) && !strings.Contains(c.Name, ".login.") {
			n++
		}
	}
	return n
}

// eval runs a script of the test's own and returns what it says.
func (b *browser) eval(t *testing.T, script string) string {
	t.Helper()
	out, err := chromedp.Run(b.ctx, chromedp.Evaluate[string]("String("+script+")"))
	if err != nil {
		t.Fatalf("in the browser: %v; so far %v", err, b.wrong)
	}
	return out
}

// until waits for a condition on the page.
func (b *browser) until(t *testing.T, what, condition string) {
	t.Helper()
	eventually(t, what+" on the page", func() bool { return b.eval(t, condition) == "true" })
}

// shot keeps a picture where GATEHOUSE_SCREENSHOTS says, for people to look at.
func (b *browser) shot(t *testing.T, name string) {
	t.Helper()
	dir := os.Getenv("GATEHOUSE_SCREENSHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600); err != nil {
		t.Fatal(err)
	}
}

// onTCP moves the admin endpoint to a port that browsers may ask.
func (g *gateway) onTCP(t *testing.T, src string) (_, origin string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	return strings.Replace(src, "admin unix/"+g.admin, "admin "+addr+" {\norigins "+addr+" \"\"\n}", 1), "http://" + addr
}

// TestConsoleInABrowser drives the page as an operator would, while requests
// come that try to bring a script into it.
func TestConsoleInABrowser(t *testing.T) {
	w := startWalk(t, "")
	more := "@staff path /orders/*\nrequire @staff role clerk {\nmode shadow\n}\nquota per address 100000/h"
	src, origin := w.onTCP(t, w.caddyfile(fmt.Sprintf(walkGlobals, w.dir), fmt.Sprintf(walkSite, w.dir, w.backend.addr(), more)))
	if err := w.loadFile(src); err != nil {
		t.Fatal(err)
	}
	ann := with(bearer(w.token(t, nil)), "User-Agent", "orders-app/2.1")
	w.get(t, "/orders", ann)
	b := newBrowser(t, origin)
	b.do(t, chromedp.Navigate(origin+"/gatehouse/console"))
	b.until(t, "a live stream", `document.getElementById("state").textContent === "live"`)
	b.until(t, "a request from before", `document.querySelectorAll("#rows tr").length > 0`)

	// Requests appear as they come.
	refused := w.get(t, "/orders", nil).header.Get("X-Request-Id")
	w.do(t, "DELETE", "/orders/ord_1", ann, "")
	w.get(t, "/invoices", ann)
	w.do(t, "POST", "/orders", with(ann, "Content-Type", "application/json"), `{"quantity":0}`)
	w.get(t, "/orders?q=1%27%20UNION%20SELECT%20password%20FROM%20users--", ann)
	for range 12 {
		w.get(t, "/orders?limit=20", ann)
	}
	b.until(t, "a request that was refused", fmt.Sprintf(`document.querySelector('#rows tr[data-id=%q]') !== null`, refused))

	// Scripts in every place that a stranger can write to.
	const script = `<img src=x onerror="window.__owned=1;alert(1)"><script>window.__owned=2</script>`
	evil := with(bearer(w.token(t, map[string]any{"sub": script + "sub", "tenant": `"><svg onload=alert(2)>`, "azp": script, "client_id": script})), "User-Agent", script+"agent")
	evil["X-Request-Id"] = []string{script}
	const around = "\u202e" // turns the text behind it around
	a := w.get(t, (&url.URL{Path: "/orders/" + script + around}).EscapedPath(), evil)
	id := a.header.Get("X-Request-Id")
	row := fmt.Sprintf(`document.querySelector('#rows tr[data-id=%q]')`, id)
	b.until(t, "the attack", row+` !== null`)
	b.eval(t, row+`.querySelector("button").focus()`)
	b.do(t, chromedp.KeyEvent("\r"))
	b.until(t, "its detail", fmt.Sprintf(`document.getElementById("one").textContent.includes(%q)`, id))
	text := b.eval(t, `document.getElementById("one").textContent`)
	for _, want := range []string{script + "agent", (&url.URL{Path: "/orders/" + script}).EscapedPath()} {
		if !strings.Contains(text, want) {
			t.Errorf("the detail does not show %q as text: %s", want, text)
		}
	}
	if strings.Contains(text, around) {
		t.Error("a mark that turns text around is shown as it is")
	}

	// One that every stage saw: a bar for each, and who asked is text too.
	a = w.get(t, "/orders", http.Header{"Authorization": evil["Authorization"], "User-Agent": {"orders-app/2.1"}})
	id = a.header.Get("X-Request-Id")
	row = fmt.Sprintf(`document.querySelector('#rows tr[data-id=%q]')`, id)
	b.until(t, "the second attack", row+` !== null`)
	b.eval(t, row+`.querySelector("button").click()`)
	b.until(t, "its timeline", `document.querySelectorAll("#one .walk .track i").length >= 9`)
	if text = b.eval(t, `document.getElementById("one").textContent`); !strings.Contains(text, script+"sub") || !strings.Contains(text, `"><svg onload=alert(2)>`) {
		t.Errorf("the claims are not shown as text: %s", text)
	}
	if walked := b.eval(t, `[...document.querySelectorAll("#one .walk .name")].map((n) => n.textContent).join(" ")`); !strings.HasPrefix(walked, "contract identity require") || !strings.HasSuffix(walked, "resilience api") {
		t.Errorf("the timeline is %s", walked)
	}
	b.do(t, chromedp.KeyEvent("\u001b"))
	b.until(t, "nothing chosen", `document.getElementById("close").hidden`)

	// Filters are the server's: what does not fit goes, and what comes later and
	// does not fit stays away.
	set := func(name, value string) {
		b.eval(t, fmt.Sprintf(`(() => { const e = document.getElementById("filter").elements[%q]; e.value = %q; e.dispatchEvent(new Event("change", {bubbles: true})) })()`, name, value))
	}
	b.until(t, "the reasons", `document.getElementById("filter").elements.reason.options.length > 50`)
	set("reason", "identity.missing")
	b.until(t, "only what fits", fmt.Sprintf(`document.querySelectorAll("#rows tr").length > 0 && [...document.querySelectorAll("#rows .decision")].every((d) => d.textContent === "identity.missing") && document.querySelector('#rows tr[data-id=%q]') !== null`, refused))
	w.get(t, "/orders", ann)
	second := w.get(t, "/orders", nil).header.Get("X-Request-Id")
	b.until(t, "another that fits", fmt.Sprintf(`document.querySelector('#rows tr[data-id=%q]') !== null && [...document.querySelectorAll("#rows .decision")].every((d) => d.textContent === "identity.missing")`, second))
	set("status", "nonsense")
	b.until(t, "what is wrong with the filter", `document.getElementById("error").textContent.includes("status")`)
	if n := len(b.wrong); n > 0 {
		b.wrong = b.wrong[:0] // the browser notes the 400 that was asked for
	}
	b.eval(t, `document.querySelector("#filter button[type=reset]").click()`)
	b.until(t, "everything again", `document.getElementById("error").hidden && document.querySelectorAll("#rows tr").length > 10`)

	// A pause is one.
	b.eval(t, `document.getElementById("pause").click()`)
	w.get(t, "/orders?paused", ann)
	b.eval(t, `document.getElementById("pause").click()`)
	b.until(t, "live again", `document.getElementById("state").textContent === "live"`)

	b.until(t, "the overview", `document.querySelectorAll("#cards .card").length >= 3 && Number(document.getElementById("n-denied").textContent) >= 5`)
	b.eval(t, fmt.Sprintf(`document.querySelector('#rows tr[data-id=%q] button').click()`, id))
	b.shot(t, "desktop")
	send(t, b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}})
	b.shot(t, "dark")
	if bg := b.eval(t, `getComputedStyle(document.body).backgroundColor`); bg != "rgb(19, 23, 21)" {
		t.Errorf("in the dark the page is %s", bg)
	}
	send(t, b, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: 390, Height: 844, DeviceScaleFactor: 2, Mobile: true})
	b.shot(t, "phone-dark")
	send(t, b, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "light"}}})
	b.shot(t, "phone")
	if wide := b.eval(t, `document.documentElement.scrollWidth`); wide != "390" {
		t.Errorf("on a phone the page is %s wide, because of %s", wide, b.eval(t, `[...document.querySelectorAll("body *")].filter((e) => e.getBoundingClientRect().right > 391).map((e) => e.tagName + "." + e.className + ": " + e.textContent.slice(0, 60)).join(" | ")`))
	}

	if owned := b.eval(t, `window.__owned`); owned != "undefined" {
		t.Errorf("a script of a stranger ran: %s", owned)
	}
	if v := b.eval(t, `window.__violations`); v != "undefined" {
		t.Errorf("the page went against its own policy: %s", v)
	}
	if n := b.eval(t, `document.querySelectorAll("main img, main script, main svg, main iframe").length`); n != "0" {
		t.Errorf("%s elements of a stranger are on the page", n)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.wrong) > 0 {
		t.Errorf("the browser noted %v", b.wrong)
	}
}

// TestConsoleCommandInABrowser: the page that the command serves works with its
// cookie alone, and the key is gone from the address.
func TestConsoleCommandInABrowser(t *testing.T) {
	gw := start(t, "", "api demo {\nrespond ok\n}")
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- gw.serveCommand(ctx, t, in, "console", "--address", "unix/"+gw.admin) }()
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	origin, _, _ := strings.Cut(address, "/gatehouse/")
	b := newBrowser(t, origin)
	b.do(t, chromedp.Navigate(strings.TrimSpace(address)))
	b.until(t, "a live stream", `document.getElementById("state").textContent === "live"`)
	id := gw.get(t, "/", nil).header.Get("X-Request-Id")
	b.until(t, "a request", fmt.Sprintf(`document.querySelector('#rows tr[data-id=%q]') !== null`, id))
	if at := b.eval(t, `location.href + document.referrer + document.cookie + history.length`); at != origin+"/gatehouse/console2" {
		t.Errorf("the browser is at %s", at)
	}
	if font := b.eval(t, `document.styleSheets.length`); font != "1" {
		t.Errorf("%s style sheets", font)
	}
	b.mu.Lock()
	if len(b.wrong) > 0 {
		t.Errorf("the browser noted %v", b.wrong)
	}
	b.mu.Unlock()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// TestConsolePolicy: the page may load and ask nothing but its own.
func TestConsolePolicy(t *testing.T) {
	gw := start(t, "", "api demo {\nrespond ok\n}")
	for path, mime := range map[string]string{"console": "text/html", "console/console.css": "text/css", "console/console.js": "text/javascript"} {
		a := gw.change(t, http.MethodGet, "/gatehouse/"+path, "", nil)
		if a.status != 200 || !strings.HasPrefix(a.header.Get("Content-Type"), mime) || a.header.Get("X-Content-Type-Options") != "nosniff" || a.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %v", path, a.status, a.header)
		}
		csp := a.header.Get("Content-Security-Policy")
		for _, want := range []string{"default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "frame-ancestors 'none'", "require-trusted-types-for 'script'"} {
			if !strings.Contains(csp, want) {
				t.Errorf("%s: the policy %q lacks %s", path, csp, want)
			}
		}
		if strings.Contains(csp, "unsafe") || strings.Contains(a.body, "innerHTML") || strings.Contains(a.body, "://") && path != "console" {
			t.Errorf("%s is not as strict as it should be", path)
		}
	}
}
