package descset_test

import (
	"net/url"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"

	"github.com/gatehouse-caddy/gatehouse/modules/transcode/internal/descset"
	"github.com/gatehouse-caddy/gatehouse/modules/transcode/transcodetest"
)

// TestAgain: what the path or the body of a request has said, its query may not
// say again, in whichever spelling, and nothing twice.
func TestAgain(t *testing.T) {
	set, err := descset.Read(transcodetest.New(t).Set, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ method, verb, path, query, want string }{
		{"Get", "GET", "/v1/orders/7", "size=3", ""},
		{"Get", "GET", "/v1/orders/7", "id=8", "id"},
		{"Get", "GET", "/v1/orders/7", "id=", "id"},
		{"Get", "GET", "/v1/orders/7", "size=3&size=4", "size"},
		{"Get", "GET", "/v1/customers/ann/orders/7", "id=8", "id"},
		{"List", "GET", "/v1/orders", "pageSize=1&tags=a&tags=b&filter.customer=ann", ""},
		{"List", "GET", "/v1/orders", "pageSize=1&page_size=99", "page_size"},
		{"List", "GET", "/v1/orders", "filter.customer=ann&filter.customer=bob", "filter.customer"},
		{"List", "GET", "/v1/orders", "nonsense=1", ""}, // the library refuses it
		{"Create", "POST", "/v1/customers/ann/orders", "dry_run=true", ""},
		{"Create", "POST", "/v1/customers/ann/orders", "customer=bob", "customer"},
		{"Create", "POST", "/v1/customers/ann/orders", "order.quantity=99", "order.quantity"},
		{"Cancel", "POST", "/v1/orders/7:cancel", "why=x", "why"},
		{"Get", "GET", "/v1/orders/a/b\n", "id=8", "id"}, // as a slash and a line's end are when they were encoded
		{"Cancel", "POST", "/v1/elsewhere", "id=8", "id"},
	} {
		query, err := url.ParseQuery(c.query)
		if err != nil {
			t.Fatal(err)
		}
		var m *descset.Method
		for path, method := range set.Methods {
			if string(method.Name()) == c.method {
				m = set.Methods[path]
			}
		}
		if got, _ := m.Again(c.verb, c.path, query); got != c.want {
			t.Errorf("%s %s?%s: %q, want %q", c.verb, c.path, c.query, got, c.want)
		}
	}
}

// TestAgainOneof: of a oneof one field is there, and whoever sets a second takes
// the first away.
func TestAgainOneof(t *testing.T) {
	data, err := proto.Marshal(transcodetest.Compile(t, `syntax = "proto3";
package pay;
import "google/api/annotations.proto";
service Payments {
	rpc Pay(Payment) returns (Payment) {
		option (google.api.http) = { post: "/pay/{card.number}" body: "note" };
	}
}
message Payment {
	oneof means { Card card = 1; string iban = 2; }
	oneof about { string note = 3; string reference = 4; }
	optional int32 amount = 5;
	optional int32 tip = 6;
	Payment before = 7;
}
message Card { string number = 1; string name = 2; }`))
	if err != nil {
		t.Fatal(err)
	}
	set, err := descset.Read(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	for query, want := range map[string]string{
		"amount=1&tip=2": "", "card.name=ann": "", "card.number=2": "card.number", "iban=x": "iban", "reference=x": "reference",
		"before.iban=x": "", "before.iban=x&before.card.name=y": "before.iban", "before.note=x&before.iban=y": "",
		"before.amount=1&before=x": "before.amount", "before.before.iban=1&before.card.name=2": "",
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		if got, _ := set.Methods["/pay.Payments/Pay"].Again("POST", "/pay/7", values); got != want {
			t.Errorf("%s: %q, want %q", query, got, want)
		}
	}
	many := url.Values{}
	for i := range 300 {
		many[strings.Repeat("before.", i)+"amount"] = []string{"1"}
	}
	if _, found := set.Methods["/pay.Payments/Pay"].Again("POST", "/pay/7", many); !found {
		t.Error("a query may name fields without end")
	}
}

// TestIs: a template of a contract is a method if the method takes all that the
// template does, wherever the two begin.
func TestIs(t *testing.T) {
	data, err := proto.Marshal(transcodetest.Compile(t, `syntax = "proto3";
package s;
import "google/api/annotations.proto";
service S {
  rpc Get(M) returns (M) { option (google.api.http) = {get: "/v1/orders/{id}", additional_bindings {get: "/v1/{id=shelves/*/books/*}"}}; }
  rpc Cancel(M) returns (M) { option (google.api.http) = {post: "/v1/orders/{id}:cancel" body: "*"}; }
  rpc File(M) returns (M) { option (google.api.http) = {get: "/v1/files/{id=**}"}; }
  rpc Any(M) returns (M) { option (google.api.http) = {custom {kind: "*" path: "/v1/a%20b"}}; }
}
message M { string id = 1; }`))
	if err != nil {
		t.Fatal(err)
	}
	set, err := descset.Read(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		method, verb, path, template string
		want                         bool
	}{
		{"Get", "GET", "/v1/orders/7", "/v1/orders/{order_id}", true},
		{"Get", "GET", "/v1/orders/latest", "/v1/orders/latest", true},
		{"Get", "GET", "/v1/orders/7", "/orders/{id}", true},
		{"Get", "GET", "/v1/orders/7", "/shop/v1/orders/{id}", true},
		{"Get", "GET", "/v1/shelves/1/books/2", "/v1/shelves/{shelf}/books/{book}", true},
		{"Get", "GET", "/v1/shelves/1/books/2", "/v1/shelves/{shelf}/{kind}/{book}", false},
		{"Get", "GET", "/v1/orders/7", "/v1/{kind}/{id}", false},
		{"Get", "GET", "/v1/orders/7:open", "/v1/orders/{id}:open", false},
		{"Get", "POST", "/v1/orders/7", "/v1/orders/{id}", false},
		{"Get", "POST", "/s.S/Get", "/s.S/Get", true},
		{"Get", "POST", "/s.S/Get", "/s.S/{method}", false},
		{"Get", "POST", "/s.S/Get", "/{tenant}/{thing}", false},
		{"Cancel", "POST", "/v1/orders/7:cancel", "/v1/orders/{id}", false},
		{"Cancel", "POST", "/v1/orders/7:cancel", "/v1/orders/{id}:cancel", true},
		{"Cancel", "POST", "/v1/orders/7:cancel", "/v1/orders/{id}:{verb}", false},
		{"Cancel", "POST", "/v1/orders/7:cancel", "/v1/orders/all:cancel", true},
		{"File", "GET", "/v1/files/a/b", "/v1/files/{dir}/{name}", true},
		{"File", "GET", "/v1/files/a/b", "/v1/{what}/{dir}/{name}", false},
		{"File", "GET", "/v1/files/a", "/{what}/{name}", false},
		{"File", "GET", "/v1/files/a", "/{name}", true},
		{"Any", "PUT", "/v1/a%20b", "/v1/a b", true},
	} {
		if got := set.Methods["/s.S/"+c.method].Is(c.verb, c.path, c.template); got != c.want {
			t.Errorf("%s by %s %s, described as %s: %v", c.method, c.verb, c.path, c.template, got)
		}
	}
}
