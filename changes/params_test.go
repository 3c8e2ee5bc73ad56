package changes_test

import (
	"strings"
	"testing"

	"github.com/sluice-dev/sluice/changes"
)

func testParams(t *testing.T, cases map[string]string) {
	t.Helper()
	for in, want := range cases {
		got, err := changes.ParseParams(in)
		if err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s\n got %s\nwant %s", in, got, want)
		}
	}
}

func TestParams(t *testing.T) {
	testParams(t, map[string]string{
		`{"schema":"public","table":"t"}`:                                      `[event: *, schema: public, table: t, filters: [], select: nil]`,
		`{"table":"t"}`:                                                        `[event: *, schema: public, table: t, filters: [], select: nil]`,
		`{"schema":"s"}`:                                                       `[event: *, schema: s, table: *, filters: [], select: nil]`,
		`{"schema":"*","table":"*"}`:                                           `[event: *, schema: *, table: *, filters: [], select: nil]`,
		`{"schema":"s","table":"*","filter":"a=eq.1"}`:                         `[event: *, schema: s, table: *, filters: [{"a", "eq", "1", false}], select: nil]`,
		`{"schema":"s","table":"t","filter":""}`:                               `[event: *, schema: s, table: t, filters: [], select: nil]`,
		`{"table":"t","event":"insert"}`:                                       `[event: INSERT, schema: public, table: t, filters: [], select: nil]`,
		`{"table":"t","event":"UpDaTe"}`:                                       `[event: UPDATE, schema: public, table: t, filters: [], select: nil]`,
		`{"table":"t","event":"DELETE"}`:                                       `[event: DELETE, schema: public, table: t, filters: [], select: nil]`,
		`{"table":"t","event":"TRUNCATE"}`:                                     `[event: *, schema: public, table: t, filters: [], select: nil]`,
		`{"table":"t","event":7}`:                                              `[event: *, schema: public, table: t, filters: [], select: nil]`,
		`{"table":"t","unknown":{"a":[1]},"user_token":"abc"}`:                 `[event: *, schema: public, table: t, filters: [], select: nil]`,
		`{"schema":"s","table":"t","filter":"a=not.in.(1,2),b=eq.\"x\\\"y\""}`: `[event: *, schema: s, table: t, filters: [{"a", "in", "{1,2}", true}, {"b", "eq", "x\"y", false}], select: nil]`,
	})
}

const noParams = "No subscription params provided. Please provide at least a `schema` or `table` to subscribe to: "

// spec: pgchanges:60
func TestParamsThatAreNoStrings(t *testing.T) {
	testParams(t, map[string]string{
		`{"event":"*","schema":"public","table":null}`:      noParams + `%{"event" => "*", "schema" => "public", "table" => nil}`,
		`{"schema":"public","table":"t","filter":null}`:     noParams + `%{"filter" => nil, "schema" => "public", "table" => "t"}`,
		`{"schema":"public","table":"t","filter":[1,2.50]}`: noParams + `%{"filter" => [1, 2.50], "schema" => "public", "table" => "t"}`,
		`{"schema":7}`:                     noParams + `%{"schema" => 7}`,
		`{"table":{"b":true,"a":false}}`:   noParams + `%{"table" => %{"a" => false, "b" => true}}`,
		`{"table":"t","filter":"a=eq.1"}`:  noParams + `%{"filter" => "a=eq.1", "table" => "t"}`,
		`{"schema":"s","filter":"a=eq.1"}`: noParams + `%{"filter" => "a=eq.1", "schema" => "s"}`,
		`{"schema":null,"table":"t"}`:      noParams + `%{"schema" => nil, "table" => "t"}`,
		`{"event":"a\"b\\c\n#{d}"}`:        noParams + `%{"event" => "a\"b\\c\n\#{d}"}`,
		`{"event":"*","user_token":"eyJ"}`: noParams + `<redacted>`,
		`{"event":"*","auth_token":"eyJ"}`: noParams + `<redacted>`,
	})
}

// spec: pgchanges:61
func TestEmptyParams(t *testing.T) {
	testParams(t, map[string]string{`{}`: noParams + `%{}`})
}

const (
	selectText   = "Error parsing `select` params: expected a list of column name strings, e.g. select: [\"col1\", \"col2\"]"
	wildcardText = "Column selection is not supported for wildcard subscriptions. Provide an explicit schema and table name."
)

// spec: pgchanges:72
func TestSelectParam(t *testing.T) {
	testParams(t, map[string]string{
		`{"table":"t","select":"id"}`:                 `` + selectText,
		`{"table":"t","select":""}`:                   `` + selectText,
		`{"table":"t","select":[]}`:                   `[event: *, schema: public, table: t, filters: [], select: nil]`,
		`{"table":"t","select":[1,null]}`:             `[event: *, schema: public, table: t, filters: [], select: nil]`,
		`{"table":"t","select":["id",1,"a\"b",null]}`: `[event: *, schema: public, table: t, filters: [], select: ["id", "a\"b"]]`,
		`{"table":"t","select":null}`:                 `[event: *, schema: public, table: t, filters: [], select: nil]`,
	})
}

// spec: pgchanges:73
func TestSelectWithWildcard(t *testing.T) {
	testParams(t, map[string]string{
		`{"schema":"public","select":["id"]}`:             wildcardText,
		`{"schema":"public","table":"*","select":["id"]}`: wildcardText,
		`{"schema":"*","table":"t","select":["id"]}`:      wildcardText,
		`{"schema":"public","table":"*","select":[]}`:     `[event: *, schema: public, table: *, filters: [], select: nil]`,
	})
}

// The filter is read before select, and its errors say that it is.
func TestFilterParamErrors(t *testing.T) {
	testParams(t, map[string]string{
		`{"schema":"s","table":"t","filter":"wrong","select":"id"}`: "Error parsing `filter` params: [\"wrong\"]",
		`{"schema":"s","table":"t","filter":"a=eq.1,"}`:             "Error parsing `filter` params: filter must not contain empty segments (check for extra commas)",
	})
}

func FuzzParseParams(f *testing.F) {
	for _, s := range []string{
		`{}`, `null`, `[]`, `{"table":"t"}`, `{"schema":"*","table":"t","filter":"a=in.(1)","select":["a",1]}`,
		`{"table":{"a":[1e9,-0.0,{"b":null}]}}`, `{"table":"\ud800"}`, `{"auth_token":1}`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := changes.ParseParams(s)
		if err == nil && !strings.HasPrefix(got, "[event: ") {
			t.Errorf("%q: %q", s, got)
		}
		if err != nil && err.Error() == "" {
			t.Errorf("%q: an error without text", s)
		}
	})
}
