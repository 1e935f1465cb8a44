package integration

import (
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"
)

// otlp is a receiver of traces, as OTLP over HTTP says: it reads the protocol's
// own messages.
type otlp struct {
	*httptest.Server
	mu    sync.Mutex
	spans []*trace.Span
}

func newOTLP(t *testing.T) *otlp {
	t.Helper()
	o := &otlp{}
	o.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body := io.Reader(r.Body)
		if r.Header.Get("Content-Encoding") == "gzip" {
			body, _ = gzip.NewReader(body)
		}
		data, err := io.ReadAll(body)
		var req collector.ExportTraceServiceRequest
		if err != nil || r.URL.Path != "/v1/traces" || r.Header.Get("Content-Type") != "application/x-protobuf" || proto.Unmarshal(data, &req) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		o.mu.Lock()
		for _, rs := range req.GetResourceSpans() {
			for _, ss := range rs.GetScopeSpans() {
				o.spans = append(o.spans, ss.GetSpans()...)
			}
		}
		o.mu.Unlock()
		w.Header().Set("Content-Type", "application/x-protobuf")
		answer, _ := proto.Marshal(&collector.ExportTraceServiceResponse{})
		_, _ = w.Write(answer)
	}))
	t.Cleanup(o.Close)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", o.URL)
	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf")
	t.Setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
	return o
}

// span waits for the span of a request.
func (o *otlp) span(t *testing.T, id string) *trace.Span {
	t.Helper()
	var found *trace.Span
	eventually(t, "the span", func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		for _, s := range o.spans {
			if attributes(s)["gatehouse.request_id"] == id {
				found = s
			}
		}
		return found != nil
	})
	return found
}

func attributes(s *trace.Span) map[string]string {
	out := map[string]string{}
	for _, kv := range s.GetAttributes() {
		if v := kv.GetValue(); v.GetStringValue() != "" {
			out[kv.GetKey()] = v.GetStringValue()
		} else {
			out[kv.GetKey()] = strconv.FormatInt(v.GetIntValue(), 10)
		}
	}
	return out
}

// TestTraces: a real OTLP receiver gets Caddy's span with what the stages
// decided, whether `tracing` stands before the api or in it; the trace goes on
// upstream; log and explain name it.
func TestTraces(t *testing.T) {
	recv := newOTLP(t)
	w := startWalk(t, "")
	for name, place := range map[string][2]string{
		"in the api":     {"", "tracing {\nspan orders\n}"},
		"before the api": {"tracing {\nspan orders\n}\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			site := place[0] + fmt.Sprintf(walkSite, w.dir, w.backend.addr(), place[1]+"\nrequire role clerk {\nmode shadow\n}")
			if err := w.load(fmt.Sprintf(walkGlobals, w.dir), site); err != nil {
				t.Fatal(err)
			}
			const parent = "0af7651916cd43dd8448eb211c80319c"
			ann := with(bearer(w.token(t, nil)), "Traceparent", "00-"+parent+"-b7ad6b7169203331-01")

			a := w.get(t, "/orders?token=hunter2", ann)
			if a.status != 200 {
				t.Fatalf("%d %s", a.status, a.body)
			}
			span := recv.span(t, a.header.Get("X-Request-Id"))
			got := attributes(span)
			for key, want := range map[string]string{
				"gatehouse.api": "orders", "gatehouse.operation": "listOrders", "http.route": "/orders", "gatehouse.verdict": "allow",
				"gatehouse.tenant": "acme", "http.response.status_code": "200",
			} {
				if got[key] != want {
					t.Errorf("%s is %q, want %q: %v", key, got[key], want, got)
				}
			}
			if got["gatehouse.stage.resilience.duration_us"] == "" {
				t.Errorf("no time of a stage: %v", got)
			}
			if id := hex.EncodeToString(span.GetTraceId()); id != parent {
				t.Errorf("the trace is %s, want the client's", id)
			}
			events := span.GetEvents()
			if len(events) != 1 || events[0].GetName() != "gatehouse.decision" {
				t.Fatalf("events %v", events)
			}
			if e := fmt.Sprint(attributes(&trace.Span{Attributes: events[0].GetAttributes()})); !strings.Contains(e, "gatehouse.verdict:would_deny") ||
				!strings.Contains(e, "gatehouse.reason:require.role") || !strings.Contains(e, "gatehouse.mode:shadow") || !strings.Contains(e, "gatehouse.rule:role clerk") {
				t.Errorf("event %s", e)
			}
			if text := span.String(); strings.Contains(text, `"ann"`) {
				t.Error("the span says who asked")
			}
			sent, _ := w.backend.got()
			if tp := sent.Header.Get("Traceparent"); tp != "00-"+parent+"-"+hex.EncodeToString(span.GetSpanId())+"-01" {
				t.Errorf("upstream got traceparent %q", tp)
			}
			logged := w.decisions(t)
			if e := logged[len(logged)-1]; e["trace_id"] != parent {
				t.Errorf("the log says %v", e)
			}
			var ex shown
			if err := json.Unmarshal([]byte(w.ask(t, "/gatehouse/exchanges/"+a.header.Get("X-Request-Id"))), &ex); err != nil || ex.TraceID != parent {
				t.Errorf("explain says %q: %v", ex.TraceID, err)
			}

			a = w.get(t, "/orders", nil)
			span = recv.span(t, a.header.Get("X-Request-Id"))
			if got := attributes(span); got["gatehouse.verdict"] != "deny" || got["gatehouse.reason"] != "identity.missing" || got["http.response.status_code"] != "401" {
				t.Errorf("a refused request: %v", got)
			}
			if len(span.GetEvents()) != 1 || span.GetStatus().GetCode() == trace.Status_STATUS_CODE_ERROR {
				t.Errorf("a refused request: %v, status %v", span.GetEvents(), span.GetStatus())
			}
		})
	}
}
