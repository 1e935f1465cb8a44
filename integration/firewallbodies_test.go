package integration

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func typed(contentType string) http.Header { return http.Header{"Content-Type": {contentType}} }

// TestFirewallReadsWhatIsText: a type that says binary does not hide text, nor
// does one that says text hide JSON.
func TestFirewallReadsWhatIsText(t *testing.T) {
	b := newBackend(t, nil)
	gw := start(t, "", "api demo {\nfirewall\nreverse_proxy "+b.addr()+"\n}")
	json := `{"q":"` + injection + `"}`
	escaped := `{"q":"1' \u0055\u004eION \u0053ELECT password \u0046ROM users--"}`
	wide := "\x00" + strings.Join(strings.Split(json, ""), "\x00")
	for _, tc := range []struct{ name, contentType, body, reason string }{
		{"JSON as an image", "image/png", json, "firewall.attack"},
		{"JSON as bytes", "application/octet-stream", json, "firewall.attack"},
		{"JSON as protobuf", "application/x-protobuf", json, "firewall.attack"},
		{"JSON after much space", "video/mp4", strings.Repeat(" ", 2000) + json, "firewall.attack"},
		{"JSON with a zero after it", "image/png", json + "\x00", "firewall.attack"},
		{"JSON with bytes after it", "image/png", json + "\x89PNG", "firewall.attack"},
		{"a second value", "image/png", "{}\n" + json, "firewall.attack"},
		{"a form", "image/png", "q=1'+UNION+SELECT+password+FROM+users--", "firewall.attack"},
		{"XML", "application/pdf", "<a>" + injection + "</a>", "firewall.attack"},
		{"XML with entities", "image/gif", `<!DOCTYPE a [<!ENTITY x SYSTEM "file:///x">]><a>&x;</a>`, "firewall.body_unreadable"},
		{"JSON in UTF-16", "image/png", wide, "firewall.body_unreadable"},
		{"escapes in JSON as bytes", "application/octet-stream", escaped, "firewall.attack"},
		{"escapes in JSON as text", "text/plain", escaped, "firewall.attack"},
		{"escapes in JSON as a form", "application/x-www-form-urlencoded", escaped, "firewall.attack"},
		{"escapes in what is nearly JSON", "text/plain", strings.Replace(escaped, "}", `,"n":NaN}`, 1), "firewall.attack"},
		{"a cut word in XML as text", "text/plain", "<a>1' UN<!-- -->ION SE<!-- -->LECT password FR<!-- -->OM users--</a>", "firewall.attack"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before := b.count()
			if a := gw.do(t, "POST", "/", typed(tc.contentType), tc.body); a.reason() != tc.reason || b.count() != before {
				t.Errorf("%d %s", a.status, a.body)
			}
		})
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, _ = io.WriteString(z, json)
	_ = z.Close()
	before := b.count()
	if a := gw.do(t, "POST", "/", with(typed("image/png"), "Content-Encoding", "gzip"), zipped.String()); a.reason() != "firewall.body_unreadable" || b.count() != before {
		t.Errorf("JSON in gzip as an image: %d %s", a.status, a.body)
	}
	if a := gw.do(t, "POST", "/", typed("application/grpc"), json); a.header.Get("Grpc-Status") == "" || b.count() != before {
		t.Errorf("JSON as gRPC: %d %v", a.status, a.header)
	}
	for _, tc := range []struct{ name, contentType, body string }{
		{"PNG", "image/png", "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + injection},
		{"PDF", "application/pdf", "%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n" + strings.Repeat("x", 200<<10)},
		{"gRPC", "application/grpc", "\x00\x00\x00\x00\x05\n\x03ann"},
		{"gRPC-Web", "application/grpc-web-text", "AAAAAAUKA2Fubg=="},
		{"a drawing", "image/svg+xml", `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 8 8"><path d="M0 0L8 8z"/><!-- a line --></svg>`},
		{"lines of JSON", "application/octet-stream", "{\"level\":\"info\",\"msg\":\"started\"}\n{\"level\":\"info\",\"msg\":\"stopped\"}\n"},
		{"a log", "text/plain", "[INFO] started\n[INFO] stopped\n"},
		{"a table", "application/octet-stream", "sku,quantity\nLAMP-1,2\n"},
		{"nothing", "image/png", ""},
	} {
		a := gw.do(t, "PUT", "/", typed(tc.contentType), tc.body)
		if a.status != 200 {
			t.Errorf("%s: %d %s\n%v", tc.name, a.status, a.body, lastDecision(gw, t))
		} else if _, got := b.got(); got != tc.body {
			t.Errorf("%s: the backend got %d bytes of %d", tc.name, len(got), len(tc.body))
		}
	}
}

// TestFirewallReadsXML: words are whole again, however they were cut up,
// attributes count, and documents bring no entities.
func TestFirewallReadsXML(t *testing.T) {
	b := newBackend(t, nil)
	for _, paranoia := range []int{1, 2} {
		gw := start(t, "", fmt.Sprintf("api demo {\nfirewall {\nparanoia %d\n}\nreverse_proxy %s\n}", paranoia, b.addr()))
		for _, tc := range []struct{ name, body, reason string }{
			{"in one piece", "<a>" + injection + "</a>", "firewall.attack"},
			{"comments", "<a>1' UN<!-- -->ION SE<!-- -->LECT pass<!-- -->word FR<!-- -->OM users--</a>", "firewall.attack"},
			{"sections", "<a>1' UN<![CDATA[ION SE]]>LECT pass<![CDATA[word FR]]>OM users--</a>", "firewall.attack"},
			{"instructions", "<a>1' UN<?x?>ION SE<?x?>LECT password FR<?x?>OM users--</a>", "firewall.attack"},
			{"elements", "<a>1' UN<b/>ION SE<b/>LECT password FR<b/>OM users--</a>", "firewall.attack"},
			{"elements around", "<a><b>1' UN</b><b>ION SE</b><b>LECT password FR</b><b>OM users--</b></a>", "firewall.attack"},
			{"a script", "<a>&lt;scr<!-- -->ipt&gt;alert(1)&lt;/scr<!-- -->ipt&gt;</a>", "firewall.attack"},
			{"a script in sections", "<a><![CDATA[<scr]]><![CDATA[ipt>alert(1)</script>]]></a>", "firewall.attack"},
			{"an attribute", `<a b="; cat /etc/passwd; $(id)"/>`, "firewall.attack"},
			{"an attribute with references", `<a b="1&#39; &#85;NION SELECT password FROM users--"/>`, "firewall.attack"},
			{"an external entity", `<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "file:///x">]><a>&x;</a>`, "firewall.body_unreadable"},
			{"a parameter entity", `<!DOCTYPE a [<!ENTITY % x SYSTEM "http://evil.test/x"> %x;]><a/>`, "firewall.body_unreadable"},
			{"an external declaration", `<!DOCTYPE a SYSTEM "http://evil.test/x"><a/>`, "firewall.body_unreadable"},
			{"entities in entities", `<!DOCTYPE a [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;">]><a>&b;</a>`, "firewall.body_unreadable"},
			{"malformed", "<a><b></a>", "firewall.body_unreadable"},
			{"deep", strings.Repeat("<a>", 100) + strings.Repeat("</a>", 100), "firewall.body_unreadable"},
			{"in UTF-7", `<?xml version="1.0" encoding="UTF-7"?><a/>`, "firewall.body_unreadable"},
			{"more values than are inspected", "<a>" + strings.Repeat("<b>x</b>", 1100) + "</a>", "firewall.argument_limit"},
		} {
			before := b.count()
			if a := gw.do(t, "POST", "/", typed("application/xml"), tc.body); a.reason() != tc.reason || b.count() != before {
				t.Errorf("paranoia %d, %s: %d %s", paranoia, tc.name, a.status, a.body)
			}
		}
		for _, tc := range []struct{ name, contentType, body string }{
			{"SOAP 1.1", "text/xml; charset=utf-8", soap},
			{"SOAP 1.2", "application/soap+xml", strings.ReplaceAll(soap, "http://schemas.xmlsoap.org/soap/envelope/", "http://www.w3.org/2003/05/soap-envelope")},
			{"a payment", "application/xml", payment},
			{"a feed", "application/atom+xml", feed},
			{"in Latin-1", "text/xml", "<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>\n<order><city>M\xfcnchen</city></order>"},
			{"sections and comments", "application/xml", "<order><!-- by hand --><note><![CDATA[5 < 6, leave it at the door]]></note></order>"},
		} {
			if paranoia > 1 { // finds shell patterns in a query, and SQL in 5 < 6, here as in any text
				tc.body = strings.NewReplacer("?id=7", "", "5 < 6, ", "").Replace(tc.body)
			}
			a := gw.do(t, "POST", "/", typed(tc.contentType), tc.body)
			if a.status != 200 {
				t.Errorf("paranoia %d, %s: %d %s\n%v", paranoia, tc.name, a.status, a.body, lastDecision(gw, t))
			} else if _, got := b.got(); got != tc.body {
				t.Errorf("%s: the backend got %q", tc.name, got)
			}
		}
	}
}

const soap = `<?xml version="1.0" encoding="UTF-8"?>
<soap:Envelope xmlns:soap="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:o="urn:example:orders">
  <soap:Header>
    <o:RequestId>6f1c2e9a-0d3b-4a57-9d2e-6b0f8c1f7a11</o:RequestId>
  </soap:Header>
  <soap:Body>
    <o:PlaceOrder>
      <o:Customer kind="private"><o:Name>Ann O'Neil</o:Name><o:Email>ann@example.com</o:Email></o:Customer>
      <o:Items>
        <o:Item sku="LAMP-1"><o:Quantity>2</o:Quantity><o:Price currency="EUR">49.90</o:Price></o:Item>
        <o:Item sku="DESK-7"><o:Quantity>1</o:Quantity><o:Price currency="EUR">320.00</o:Price></o:Item>
      </o:Items>
      <o:Callback>https://shop.example.com/hooks/orders?id=7</o:Callback>
      <o:Note><![CDATA[Leave it at the door & ring twice]]></o:Note>
      <o:Gift xsi:nil="true"/>
    </o:PlaceOrder>
  </soap:Body>
</soap:Envelope>`

const payment = `<?xml version="1.0" encoding="UTF-8"?>
<Document xmlns="urn:iso:std:iso:20022:tech:xsd:pain.001.001.03"><CstmrCdtTrfInitn>
<GrpHdr><MsgId>MSG-2026-0001</MsgId><CreDtTm>2026-03-01T09:30:47Z</CreDtTm><NbOfTxs>1</NbOfTxs><CtrlSum>119.80</CtrlSum><InitgPty><Nm>Example Shop GmbH</Nm></InitgPty></GrpHdr>
<PmtInf><PmtInfId>PMT-1</PmtInfId><PmtMtd>TRF</PmtMtd><ReqdExctnDt>2026-03-02</ReqdExctnDt><Dbtr><Nm>Example Shop GmbH</Nm></Dbtr>
<DbtrAcct><Id><IBAN>DE89370400440532013000</IBAN></Id></DbtrAcct><DbtrAgt><FinInstnId><BIC>COBADEFFXXX</BIC></FinInstnId></DbtrAgt>
<CdtTrfTxInf><PmtId><EndToEndId>E2E-1</EndToEndId></PmtId><Amt><InstdAmt Ccy="EUR">119.80</InstdAmt></Amt><Cdtr><Nm>Ann O'Neil</Nm></Cdtr>
<CdtrAcct><Id><IBAN>FR1420041010050500013M02606</IBAN></Id></CdtrAcct><RmtInf><Ustrd>Invoice 2026-17</Ustrd></RmtInf></CdtTrfTxInf></PmtInf>
</CstmrCdtTrfInitn></Document>`

const feed = `<?xml version="1.0" encoding="utf-8"?>
<feed xmlns="http://www.w3.org/2005/Atom"><title>News</title><id>urn:uuid:60a76c80-d399-11d9-b93c-0003939e0af6</id><updated>2026-03-01T18:30:02Z</updated>
<entry><title>Lamps are back</title><link href="https://example.com/2026/03/lamps"/><id>urn:uuid:1225c695-cfb8-4ebb-aaaa-80da344efa6a</id><updated>2026-03-01T18:30:02Z</updated><summary>They come in green, too.</summary></entry></feed>`

// TestFirewallMultipartNames: filename* makes a file of a field for some parsers
// and not for others. RFC 7578, section 4.2 forbids it.
func TestFirewallMultipartNames(t *testing.T) {
	b := newBackend(t, nil)
	gw := start(t, "", "api demo {\nfirewall\nreverse_proxy "+b.addr()+"\n}")
	for _, tc := range []struct{ disposition, reason string }{
		{`form-data; name="q"`, ""},
		{`form-data; name="q"; filename="notes.txt"`, ""},
		{`form-data; name="q"; filename*=utf-8''x`, "firewall.body_unreadable"},
		{`form-data; name="q"; filename="x"; FILENAME*=utf-8''x`, "firewall.body_unreadable"},
		{`form-data; name="q"; filename*0="x"`, "firewall.body_unreadable"},
		{`form-data; name*=utf-8''q`, "firewall.body_unreadable"},
	} {
		body := "--x\r\nContent-Disposition: " + tc.disposition + "\r\n\r\nhello\r\n--x--\r\n"
		if a := gw.do(t, "POST", "/", typed("multipart/form-data; boundary=x"), body); a.reason() != tc.reason {
			t.Errorf("%s: %d %s", tc.disposition, a.status, a.body)
		}
	}
}

// TestFirewallStreams: an upload reaches the backend while it is being sent, and
// a call of gRPC before it says anything, in which only gRPC passes.
func TestFirewallStreams(t *testing.T) {
	arrived := make(chan string, 4)
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		arrived <- r.Header.Get("Content-Type")
		in := bufio.NewReader(r.Body)
		first, err := in.Peek(1)
		if err != nil {
			arrived <- err.Error()
			return
		}
		arrived <- hex.EncodeToString(first)
		all, _ := io.ReadAll(in)
		_, _ = w.Write(all)
	}))
	defer b.Close()
	gw := start(t, h2c, "api demo {\nfirewall\nreverse_proxy {\nto "+b.Listener.Addr().String()+"\nflush_interval -1\n}\n}")
	client := gw.h2(t)
	next := func(want string) {
		t.Helper()
		select {
		case got := <-arrived:
			if got != want {
				t.Fatalf("%q arrives, want %q", got, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("%q does not arrive", want)
		}
	}
	send := func(contentType string) (*io.PipeWriter, chan answer) {
		body, w := io.Pipe()
		answers := make(chan answer, 1)
		req, err := http.NewRequestWithContext(t.Context(), "POST", "http://localhost/", body)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Content-Type", contentType)
		go func() {
			resp, err := client.Do(req)
			if err != nil {
				answers <- answer{body: err.Error()}
				return
			}
			defer resp.Body.Close()
			text, _ := io.ReadAll(resp.Body)
			answers <- answer{status: resp.StatusCode, header: resp.Header, trailer: resp.Trailer, body: string(text)}
		}()
		return w, answers
	}

	w, answers := send("video/mp4")
	_, _ = w.Write([]byte("\x00\x00\x00 ftypisom\x00\x00\x00\x00"))
	next("video/mp4")
	next("00")
	_, _ = w.Write(bytes.Repeat([]byte("x"), 1000))
	_ = w.Close()
	if a := <-answers; a.status != 200 || len(a.body) != 1016 {
		t.Errorf("the upload: %d, %d bytes", a.status, len(a.body))
	}

	w, answers = send("application/grpc")
	next("application/grpc") // though nothing was said
	_, _ = w.Write([]byte("\x00\x00\x00\x00\x02\x08\x01"))
	next("00")
	_ = w.Close()
	if a := <-answers; a.status != 200 || a.body != "\x00\x00\x00\x00\x02\x08\x01" {
		t.Errorf("the call: %d %q", a.status, a.body)
	}

	w, answers = send("application/grpc")
	next("application/grpc")
	_, _ = w.Write([]byte(`{"q":"` + injection + `"}`))
	_ = w.Close()
	if a := <-answers; a.header.Get("Grpc-Status") == "" {
		t.Errorf("JSON as a call: %d %v %q", a.status, a.header, a.body)
	}
	if got := <-arrived; got == "7b" {
		t.Error("JSON as a call arrives")
	}
}

func lastDecision(gw *gateway, t *testing.T) any {
	d := gw.decisions(t)
	return d[len(d)-1]
}

// TestFirewallUnderLoad: one caller with many large bodies neither takes all
// processors nor keeps others from being answered.
func TestFirewallUnderLoad(t *testing.T) {
	b := newBackend(t, nil)
	gw := start(t, behindProxy, "api demo {\nfirewall\nreverse_proxy "+b.addr()+"\n}")
	from := func(client string) http.Header {
		return http.Header{"Content-Type": {"application/json"}, "X-Forwarded-For": {client}}
	}
	body := `{"q":"` + strings.Repeat("lorem ipsum ", 10_000) + `"}`
	const n = 60 // one is inspected, 32 wait
	answers := make(chan answer, n)
	for i := range n {
		go func() {
			answers <- gw.do(t, "POST", "/", from(fmt.Sprintf("2001:db8:0:%x::1", i)), body)
		}()
	}
	count := map[string]int{}
	for range n {
		a := <-answers
		count[fmt.Sprint(a.status, a.reason())]++
		if a.reason() == "firewall.busy" && a.header.Get("Retry-After") == "" {
			t.Error("nobody is told when to come back")
		}
		if a := gw.do(t, "GET", "/", from("2001:db8:0:1::1"), ""); a.status != 200 {
			t.Errorf("a small one of the same network: %d %s", a.status, a.body)
		}
	}
	if count["200"] == 0 || count["503firewall.busy"] == 0 || count["200"]+count["503firewall.busy"] != n {
		t.Errorf("%v", count)
	}
	t.Log(count)
}
