package rest_test

import (
	"fmt"
	"runtime"
	"strings"
	"testing"
)

// bodies are bodies of about size bytes, from the worst for a parser that makes a
// map of each object.
func bodies(size int) map[string]string {
	list := func(item string) string { return "[" + strings.Repeat(item+",", size/(len(item)+1)) + item + "]" }
	var keys strings.Builder
	for i := 0; keys.Len() < size; i++ {
		fmt.Fprintf(&keys, `"%d":0,`, i)
	}
	return map[string]string{
		"empty": list(`{}`), "short": list(`{"a":1}`), "row": list(`{"a":12345,"b":"some text of a row in a table","c":null}`),
		"text": `{"a":1,"b":"` + strings.Repeat("x", size) + `"}`, "keys": `{` + keys.String() + `"a":1}`,
	}
}

// statement makes the statement of a body for a table t.
func (s *stack) statement(line, body string) {
	r := s.request(line, body)
	r.URL.Path = strings.TrimPrefix(r.URL.Path, "/rest/v1")
	if len(s.server.Statements(r)) == 0 {
		s.t.Fatalf("%s: no statement", line)
	}
}

const payloadSQL = `
create table public.t (a int, b text, c int);
create function public.f(a int, b text default '', c int default 0) returns int language sql as 'select 1';
create function public.whole(json) returns int language sql as 'select 1';`

// What a body costs on its way to the statement's parameter is a few times its
// size, whatever it is made of. Not parallel, so that what is allocated is its own.
func TestBodyTakesAFewTimesItsSize(t *testing.T) {
	s := startWith(t, payloadSQL, nil)
	const size = 4 << 20
	cost := func(name, line, body string) {
		t.Helper()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		s.statement(line, body)
		runtime.ReadMemStats(&after)
		if times := float64(after.TotalAlloc-before.TotalAlloc) / float64(len(body)); times > 4 {
			t.Errorf("%s, %s: %.1f bytes for each of a body", name, line, times)
		}
	}
	for name, body := range bodies(size) {
		cost(name, "POST /t?columns=a", body)
		cost(name, "PATCH /t?columns=a", body)
		cost(name, "POST /rpc/whole", body)
		if name == "short" || name == "row" {
			cost(name, "POST /t", body)
			cost(name, "POST /rpc/f", body)
		}
	}
}

// BenchmarkPayload is what a body of 1 MiB costs, from the socket to the parameter
// of the statement.
func BenchmarkPayload(b *testing.B) {
	s := startWith(b, payloadSQL, nil)
	for name, body := range bodies(1 << 20) {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				s.statement("POST /t?columns=a", body)
			}
		})
	}
}
