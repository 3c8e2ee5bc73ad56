package rest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sluice-dev/sluice/rest"
	"github.com/sluice-dev/sluice/schema"
)

// parser is a Server that parses and has no database.
func parser(t testing.TB) *rest.Server {
	t.Helper()
	s, err := rest.New(rest.Config{Pool: noPool, Schema: new(schema.Cache), Schemas: []string{"public"}, Logger: discard})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// parse returns the error of a request, which is the client's fault if any.
func parse(t *testing.T, s *rest.Server, r *http.Request) error {
	err := s.Parse(r)
	if err != nil {
		if status := rest.Status(err); status < 400 || status >= 500 {
			t.Fatalf("status %d of %v", status, err)
		}
	}
	return err
}

func FuzzQuery(f *testing.F) {
	for _, q := range []string{
		"", "select=*", "select=id, name ,x:a->b->>c::text,...t(*),u!h!inner(id,v(w))", "select=count(),a.sum()::text,b::int.avg()", "order=a.desc.nullslast,b(c->d)", "id=eq.1&id=not.in.(1,\"2,3\")",
		"or=(a.eq.1,and(b.lt.2,not.or(c.is.null,d.in.(x))))", "a.b.or=(c.cs.{1,2})", "t.limit=1&t.offset=2&t.order=x", "limit=1&offset=-2", `"a.b"=like(any).{x,y}`, "a=fts(english).b", "columns=\"a\",b&on_conflict=c",
		"select=data->>--34", "or=()", "a=%zz", "%00=1", "select=((((((((", "or=" + strings.Repeat("(and", 100), "select=" + strings.Repeat("a(", 40), strings.Repeat("a=eq.1&", 1200), "select=" + strings.Repeat("a,", 2000),
	} {
		f.Add(q)
	}
	s := parser(f)
	f.Fuzz(func(t *testing.T, query string) {
		r := httptest.NewRequest("GET", "/t", nil)
		r.URL.RawQuery = query
		_ = parse(t, s, r)
		r = httptest.NewRequest("GET", "/rpc/f", nil)
		r.URL.RawQuery = query
		_ = parse(t, s, r)
	})
}

func FuzzHeaders(f *testing.F) {
	f.Add("count=exact, return=representation", "text/csv;q=0.5, application/json", "0-9")
	f.Add("handling=strict, foo", "application/vnd.pgrst.object+json;nulls=stripped", "5-")
	f.Add("max-affected=99999999999999999999,timezone=,=,", `a/b;c="d`, "9-1")
	f.Add(",,,", ";;;,*/*", "bytes=0-1")
	s := parser(f)
	f.Fuzz(func(t *testing.T, prefer, accept, rng string) {
		r := httptest.NewRequest("GET", "/t", nil)
		r.Header = http.Header{"Prefer": {prefer}, "Accept": {accept}, "Range": {rng}}
		_ = parse(t, s, r)
	})
}

func FuzzPath(f *testing.F) {
	for _, p := range []string{"/", "/t", "/rpc/f", "/a/b/c", "/%2f", "/ü", "/rpc/", "//t", "/a%00b"} {
		f.Add("GET", p)
	}
	s := parser(f)
	f.Fuzz(func(t *testing.T, method, path string) {
		r := httptest.NewRequest("GET", "/", nil)
		r.Method, r.URL.Path = method, path
		_ = parse(t, s, r)
	})
}

// A body that is accepted is JSON of objects, with the keys that were found: what
// encoding/json makes of it.
func FuzzPayload(f *testing.F) {
	for _, b := range []string{`{}`, `[]`, `[{}]`, `{"a":1}`, `[{"a":1},{"a":2}]`, `[{"a":1},{"b":2}]`, `[1]`, `null`, `{"a":{"b":[1,{"c":"\""}]}}`, ` [ ] `, `{"a":1,"a":2}`, `{"\u0061":1}`, `[{"a":1},null]`, "{\"a\":\"\xff\"}", strings.Repeat("[", 20000), "{\"\xff\":\"\\ud800\",\"\\u0061\\\"\":{}}", "[{\t\"a\" : -1.5e3 , \"b\":[ ]} ,\r\n{\"b\":null,\"a\":true}]"} {
		f.Add([]byte(b))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var list []map[string]json.RawMessage
		known := json.Unmarshal(body, &list)
		if known != nil {
			var one map[string]json.RawMessage
			known = json.Unmarshal(body, &one)
			list = []map[string]json.RawMessage{one}
		}
		if list == nil || slices.ContainsFunc(list, func(o map[string]json.RawMessage) bool { return o == nil }) {
			known = errors.New("no objects")
		}
		keys, rows, same, err := rest.ParsePayload(body)
		switch {
		case (err == nil) != (known == nil):
			t.Fatalf("%q: %v, but %v", body, err, known)
		case err != nil:
			if rest.Status(err) != http.StatusBadRequest {
				t.Fatalf("status %d of %v", rest.Status(err), err)
			}
			return
		case len(list) != rows:
			t.Fatalf("%d rows of %q", rows, body)
		}
		all, equal := map[string]bool{}, true
		for _, o := range list {
			for k := range o {
				all[k] = true
			}
			equal = equal && len(o) == len(list[0]) && len(o) == len(all)
		}
		if want := slices.Sorted(maps.Keys(all)); !slices.Equal(want, keys) || equal != same {
			t.Fatalf("%q: keys %q, the same %t; want %q, %t", body, keys, same, want, equal)
		}
		if json.Unmarshal(body, &list) == nil {
			return
		}
		values := map[string]string{}
		for k, v := range list[0] {
			values[k] = string(v)
		}
		if got := rest.Members(body); !maps.Equal(got, values) {
			t.Fatalf("%q: members %q, want %q", body, got, values)
		}
	})
}

// What is accepted as CSV is JSON of as many rows as there are lines behind the
// first.
func FuzzCSV(f *testing.F) {
	for _, b := range []string{"", "a", "a\n", "a,b\n1,2\n", "a,b\r\n\"x,y\",NULL\r\n\"NULL\",\"\"\"\"", "a\n\"", "a\n\"x\"y", "a,b\n1", "\n\n", ",\n,", "\"a\"\"\",b\nü,\xff"} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, text string) {
		body, err := rest.ParseCSV(text)
		if err != nil {
			if rest.Status(err) != http.StatusBadRequest {
				t.Fatalf("status %d of %v", rest.Status(err), err)
			}
			return
		}
		var rows []map[string]*string
		if err := json.Unmarshal(body, &rows); err != nil {
			t.Fatalf("%q became %s: %v", text, body, err)
		}
	})
}

func TestLimits(t *testing.T) {
	t.Parallel()
	s := parser(t)
	for _, q := range []string{
		"or=" + strings.Repeat("(and", 100) + "(a.eq.1" + strings.Repeat(")", 101), "select=" + strings.Repeat("a(", 40) + "b" + strings.Repeat(")", 40), strings.Repeat("a=eq.1&", 1001),
		"select=" + strings.Repeat("a,", 1001) + "a", "order=" + strings.Repeat("a,", 1001) + "a", "columns=" + strings.Repeat("a,", 1001) + "a", "select=a" + strings.Repeat("->b", 65),
		"or=(" + strings.Repeat("a.eq.1,", 1001) + "a.eq.1)", "select=" + strings.Repeat("a(b),", 101) + "a", strings.Repeat("a.", 20) + "b=eq.1",
	} {
		r := httptest.NewRequest("GET", "/t", nil)
		r.URL.RawQuery = q
		if err := parse(t, s, r); err == nil {
			t.Errorf("%.40s… is accepted", q)
		}
	}
	if _, _, _, err := rest.ParsePayload([]byte(strings.Repeat("[", 20000))); err == nil {
		t.Error("a body 20,000 levels deep is accepted")
	}
}

// spec: rest:JS-09
func TestLongRequests(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *rest.Config) { c.BodyLimit = 1000 })
	long := strings.Repeat("1,", 10000) + "2"
	s.want(`200 0-1/* [{"id":1}, {"id":2}]`, "GET /items?select=id&order=id&id=in.("+long+")", "")
	wantError(t, s.do("POST /simple", `{"b":"`+strings.Repeat("x", 1000)+`"}`), http.StatusRequestEntityTooLarge, "BodyTooLarge", "")
	s.want(`201 */*`, "POST /simple", `{"b":"`+strings.Repeat("x", 900)+`"}`)
	// Each row of CSV takes its names along.
	csv := strings.Repeat("x", 100) + strings.Repeat("\n1", 20)
	wantError(t, s.do("POST /simple", csv, "Content-Type", "text/csv"), http.StatusRequestEntityTooLarge, "PGRST102", "")
}

// A * in the representation of a write is written out, each time.
func TestLongStatement(t *testing.T) {
	t.Parallel()
	var columns []string
	for i := range 200 {
		columns = append(columns, fmt.Sprintf("a_column_with_a_rather_long_name_%d int", i))
	}
	s := startWith(t, "create table public.wide ("+strings.Join(columns, ", ")+")", nil)
	line := "POST /wide?select=*" + strings.Repeat(",*", 500)
	wantError(t, s.do(line, `{}`, "Prefer", "return=representation"), http.StatusRequestURITooLong, "URLTooLong", "")
	if w := s.do("POST /wide?select=*,*", `{}`, "Prefer", "return=representation"); w.Code != http.StatusCreated {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// What an error repeats of a client's names is bounded.
func TestErrorsRepeatLittle(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	var many strings.Builder
	for i := range 900 {
		fmt.Fprintf(&many, "&name_%d=1", i)
	}
	long := `{"` + strings.Repeat("ü", 1<<19) + `":1,"b":2}`
	for _, r := range []struct{ line, body, code string }{
		{"POST /rpc/no_such", long, "PGRST202"},
		{"POST /rpc/add_them", long, "PGRST202"},
		{"GET /rpc/add_them?" + many.String()[1:], "", "PGRST202"},
		{"POST /simple", long, "PGRST204"},
	} {
		w := s.do(r.line, r.body)
		var e struct{ Code, Message string }
		if err := json.Unmarshal(w.Body.Bytes(), &e); err != nil || e.Code != r.code || !utf8.ValidString(e.Message) || strings.ContainsRune(e.Message, utf8.RuneError) || w.Body.Len() > 4000 {
			t.Errorf("%.40s: %d, %d bytes: %.100s", r.line, w.Code, w.Body.Len(), w.Body)
		}
	}
}
