package route

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
)

func TestFind(t *testing.T) {
	var r Router[string]
	for _, template := range []string{
		"/", "/orders", "/orders/{id}", "/orders/{id}/items/{item}", "/orders/latest", "/orders/latest/{x}/y",
		"/files/{name}.json", "/files/{name}", "/v{major}.{minor}/x", "/a/{b}:run", "/users/{id}", "/users/{userId}/posts", "/sp ace", "/trail/", "/100% sure", "/{any}/posts", "/{any}/{other}/z", "/test/fixed", "/test/fixed.{format}", "/files/read",
	} {
		if err := r.Add("GET", template, template); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		"/":                             "/",
		"/orders":                       "/orders",
		"/orders/7":                     "/orders/{id} id=7",
		"/orders/latest":                "/orders/latest",
		"/orders/latest/items/3":        "/orders/{id}/items/{item} id=latest item=3",
		"/orders/latest/3/y":            "/orders/latest/{x}/y x=3",
		"/orders/a%2Fb":                 "",
		"/orders/a%5cb":                 "",
		"/orders/LATEST":                "",
		"/orders/latest.json":           "",
		"/orders/Latest;x=1":            "",
		"/orders/latest;x":              "",
		"/test/fixed.json":              "/test/fixed.{format} format=json",
		"/test/fixed":                   "/test/fixed",
		"/test/Fixed":                   "",
		"/files/read.json":              "/files/{name}.json name=read",
		"/files/READ":                   "",
		"/orders/LATEST/items/3":        "/orders/{id}/items/{item} id=LATEST item=3",
		"/orders/Latest/3/Y":            "",
		"/orders/latest/3/Y":            "",
		"/any/Posts":                    "",
		"/any/posts":                    "/{any}/posts any=any",
		"/Users/Posts":                  "",
		"/users/Posts":                  "/users/{id} id=Posts",
		"/orders/lateste":               "/orders/{id} id=lateste",
		"/orders/7.json":                "/orders/{id} id=7.json",
		"/orders/%2e%2e":                "",
		"/orders/..":                    "",
		"/orders/%":                     "",
		"/orders/":                      "",
		"/orders//items/1":              "",
		"//orders":                      "",
		"/files/a.json":                 "/files/{name}.json name=a",
		"/files/a.b.json":               "/files/{name}.json name=a.b",
		"/files/a.xml":                  "/files/{name} name=a.xml",
		"/files/.json":                  "/files/{name} name=.json",
		"/v1.2/x":                       "/v{major}.{minor}/x major=1 minor=2",
		"/a/job:run":                    "/a/{b}:run b=job",
		"/users/5/posts":                "/users/{userId}/posts userId=5",
		"/users/5":                      "/users/{id} id=5",
		"/sp%20ace":                     "/sp ace",
		"/100%25%20sure":                "/100% sure",
		"/trail/":                       "/trail/",
		"/trail":                        "",
		"/ORDERS":                       "",
		"/" + strings.Repeat("a/", 500): "",
	} {
		v, params, _, result := r.Find("GET", path, false, nil)
		found := []string{v}
		for _, p := range params {
			found = append(found, p.Name+"="+p.Value)
		}
		v = strings.Join(found, " ")
		if result != Found {
			v = ""
		}
		if v != want {
			t.Errorf("%s: %q, want %q", path, v, want)
		}
	}
	if v, params, _, _ := r.Find("GET", "/orders/a%2Fb", true, nil); v != "/orders/{id}" || params[0].Value != "a/b" {
		t.Errorf("an encoded slash that may be there: %q %v", v, params)
	}
	for path, want := range map[string]string{"/ORDERS": "/orders", "/orders/Latest/3/Y": "/orders/latest/{x}/y", "/orders/latest.json": "/orders/latest", "/none": "", "/orders/": ""} {
		if _, _, like, result := r.Find("GET", path, false, nil); like != want || (result == Alike) != (want != "") {
			t.Errorf("%s is like %q: %v", path, like, result)
		}
	}
	for path, want := range map[string]Result{"/orders/a%2Fb": Found, "/orders/a%5Cb": Slash, "/orders/a%2f%5cb": Slash} {
		if _, _, _, result := r.Find("GET", path, true, nil); result != want {
			t.Errorf("%s: %v, want %v", path, result, want)
		}
	}
	if _, _, allow, result := r.Find("PUT", "/orders", false, nil); result != NoMethod || allow != "GET, HEAD" {
		t.Errorf("PUT: %v %q", result, allow)
	}
	if v, _, _, result := r.Find("HEAD", "/orders", false, nil); result != Found || v != "/orders" {
		t.Errorf("HEAD: %v %q", result, v)
	}
	if err := r.Add("PUT", "/users/{other}", "/users/{other}"); err != nil {
		t.Error(err) // the same shape for another method
	}
	if v, params, _, _ := r.Find("PUT", "/users/5", false, nil); v != "/users/{other}" || params[0].Name != "other" {
		t.Errorf("PUT: %q %v", v, params)
	}
	for _, template := range []string{"/users/{other}", "orders", "/x/{a}{b}", "/x/{", "/x/{}"} {
		if err := r.Add("GET", template, ""); err == nil {
			t.Errorf("%q is added", template)
		}
	}
}

// TestFindDisguised: a parameter takes nothing that some server may take for a
// template beside it which has literal text, whole or in part.
func TestFindDisguised(t *testing.T) {
	var r Router[string]
	for _, template := range []string{
		"/users/{name}", "/users/admin-{id}", "/users/{id}:purge", "/users/{name}/posts", "/users/me",
		"/reports/{id}", "/reports/{id}.json", "/reports/total-{year}.csv", "/v{n}/x", "/{any}/y", "/ärzte/{id}", "/ärzte/s-{id}",
	} {
		if err := r.Add("GET", template, template); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		"/users/admin-5":               "/users/admin-{id}",
		"/users/5:purge":               "/users/{id}:purge",
		"/users/admin-":                "/users/{name}",
		"/users/:purge":                "/users/{name}",
		"/users/administrator":         "/users/{name}",
		"/users/ADMIN-5":               "",
		"/users/Admin-5:purge":         "",
		"/users/%41dmin-5":             "",
		"/users/5:PURGE":               "",
		"/users/5%3aPURGE":             "",
		"/users/5:purge.json":          "",
		"/users/5:purge;x":             "",
		"/users/5:purge.":              "",
		"/users/5:purge%20":            "",
		"/users/5:purge%2e%20.":        "",
		"/users/me.":                   "",
		"/users/me%20":                 "",
		"/users/me%20.json.":           "",
		"/users/ME":                    "",
		"/users/bob.":                  "/users/{name}",
		"/users/5:purged":              "/users/{name}",
		"/users/ADMIN-5/posts":         "/users/{name}/posts",
		"/users/admin-5/posts":         "/users/{name}/posts",
		"/users/ADMIN-5/POSTS":         "",
		"/reports/7":                   "/reports/{id}",
		"/reports/7.json":              "/reports/{id}.json",
		"/reports/7.JSON":              "",
		"/reports/7.json.xml":          "",
		"/reports/7.xml":               "/reports/{id}",
		"/reports/total-2026.csv":      "/reports/total-{year}.csv",
		"/reports/total-2026":          "",
		"/reports/Total-2026":          "",
		"/reports/TOTAL-2026.csv":      "",
		"/reports/TOTAL-2026.csv.json": "/reports/{id}.json", // by its own dot
		"/Vienna/y":                    "/{any}/y",
		"/V1/x":                        "",
		"/V1/y":                        "/{any}/y",
		"/%C3%A4rzte/%C5%BF-5":         "", // the long s
		"/%C3%A4rzte/%C5%BFt":          "/ärzte/{id}",
	} {
		v, _, _, result := r.Find("GET", path, false, nil)
		if result != Found {
			v = ""
		}
		if v != want {
			t.Errorf("%s: %q, want %q", path, v, want)
		}
	}
	if _, _, like, result := r.Find("GET", "/users/ADMIN-5", false, nil); result != Alike || like != "/users/admin-{id}" {
		t.Errorf("is like %q: %v", like, result)
	}
}

// FuzzDisguise: however the path of an operation is written that a lenient server
// still takes for it, it is that operation's or nobody's.
func FuzzDisguise(f *testing.F) {
	templates := []string{"/users/{name}", "/users/admin-{id}", "/users/{id}:purge", "/users/me", "/users/{name}/{kind}", "/users/{name}/all", "/users/v{a}-{b}/{kind}:run", "/{x}/{y}/z-{z}", "/users"}
	var r Router[string]
	for _, template := range templates {
		if err := r.Add("GET", template, template); err != nil {
			f.Fatal(err)
		}
	}
	f.Add(uint8(1), "5", "b", "\x01\x00\x03")
	f.Add(uint8(2), "admin-5", "all", "\x02\x01\x05")
	f.Add(uint8(6), "1:purge", "x", "\x04\x08\x01\x07\x03\x01\x01")
	f.Fuzz(func(t *testing.T, which uint8, a, b, how string) {
		path := templates[int(which)%len(templates)]
		for i := 0; strings.Contains(path, "{"); i++ {
			value := []string{a, b}[i%2]
			if strings.ContainsAny(value, "/%;.{} \\") || strings.ToLower(value) != value {
				return // a value that the disguises below would change
			}
			before, rest, _ := strings.Cut(path, "{")
			_, after, _ := strings.Cut(rest, "}")
			path = before + value + after
		}
		escape := func(path string) string { return (&url.URL{Path: path}).EscapedPath() }
		want, _, _, result := r.Find("GET", escape(path), false, nil)
		if result != Found {
			return // no value of that template
		}
		segs := strings.Split(path, "/")
		for i := 0; i+1 < len(how); i += 2 {
			seg := &segs[1+int(how[i]/8)%(len(segs)-1)]
			switch at := int(how[i+1]); how[i] % 8 {
			case 0, 1, 2:
				at %= len(*seg) + 1
				*seg = (*seg)[:at] + strings.ToUpper((*seg)[at:])
			case 3:
				*seg += []string{".json", ".xml", ".csv"}[at%3]
			case 4:
				*seg += ";x=" + string(rune('a'+at%26))
			case 5:
				*seg += "."
			case 6:
				*seg += " "
			}
			if how[i]%8 == 3 || how[i]%8 == 4 {
				break // one ending is taken off
			}
		}
		disguised := escape(strings.Join(segs, "/"))
		// An ending may be the value that a template with more text lacked.
		if got, _, _, result := r.Find("GET", disguised, false, nil); result == Found && got != want && literally(got) <= literally(want) {
			t.Errorf("%q is %s, but %q is %s", path, want, disguised, got)
		}
	})
}

// literally is how much of a template is literal text.
func literally(template string) int {
	n := len(template)
	for _, name := range paramNames(template) {
		n -= len(name) + 2
	}
	return n
}

// FuzzFind: what matches a template is that template with values put in.
func FuzzFind(f *testing.F) {
	for _, s := range []string{"/orders/7", "/orders/a%2fb/items/x.json", "/%2e%2e/x", "//", "/files/.json.json"} {
		f.Add(s)
	}
	var r Router[string]
	for _, template := range []string{"/orders/{id}", "/orders/{id}/items/{name}.json", "/{a}/{b}", "/files/{name}.json", "/v{x}-{y}"} {
		if err := r.Add("GET", template, template); err != nil {
			f.Fatal(err)
		}
	}
	f.Fuzz(func(t *testing.T, path string) {
		template, params, _, result := r.Find("GET", path, false, nil)
		if result != Found {
			return
		}
		var plain []string
		for seg := range strings.SplitSeq(path, "/") {
			s, err := url.PathUnescape(seg)
			if err != nil || s == "." || s == ".." {
				t.Fatalf("%q matches", path)
			}
			plain = append(plain, s)
		}
		for _, p := range params {
			if p.Value == "" {
				t.Fatalf("%q: %s is empty", path, p.Name)
			}
			template = strings.Replace(template, "{"+p.Name+"}", p.Value, 1)
		}
		if joined := strings.Join(plain, "/"); joined != template {
			t.Fatalf("%q is %q, but the parameters give %q", path, joined, template)
		}
	})
}

// BenchmarkFind: the cost must not grow with the number of operations.
func BenchmarkFind(b *testing.B) {
	b.Run("beside-others", func(b *testing.B) {
		var r Router[int]
		for i, template := range []string{"/users/{name}", "/users/me", "/users/admin-{id}", "/users/{id}:purge"} {
			if err := r.Add("GET", template, i); err != nil {
				b.Fatal(err)
			}
		}
		var buf [8]Match
		b.ReportAllocs()
		for b.Loop() {
			if _, _, _, result := r.Find("GET", "/users/123456", false, buf[:0]); result != Found {
				b.Fatal(result)
			}
		}
	})
	b.Run("beside-a-literal", func(b *testing.B) {
		var r Router[int]
		for i, template := range []string{"/users/{name}", "/users/me"} {
			if err := r.Add("GET", template, i); err != nil {
				b.Fatal(err)
			}
		}
		var buf [8]Match
		b.ReportAllocs()
		for b.Loop() {
			if _, _, _, result := r.Find("GET", "/users/123456", false, buf[:0]); result != Found {
				b.Fatal(result)
			}
		}
	})
	for _, n := range []int{10, 1000} {
		b.Run(fmt.Sprintf("operations-%d", n), func(b *testing.B) {
			var r Router[int]
			for i := range n {
				if err := r.Add("GET", fmt.Sprintf("/api/things%d/{id}/parts/{part}", i), i); err != nil {
					b.Fatal(err)
				}
			}
			path := fmt.Sprintf("/api/things%d/123456/parts/9", n-1)
			var buf [8]Match
			b.ReportAllocs()
			for b.Loop() {
				if _, _, _, result := r.Find("GET", path, false, buf[:0]); result != Found {
					b.Fatal(result)
				}
			}
		})
	}
}
