package changes_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice/changes"
)

type filterCase struct {
	in   string
	want []string
}

func testFilters(t *testing.T, cases []filterCase) {
	t.Helper()
	for _, tt := range cases {
		got, err := changes.ParseFilter(tt.in)
		if err != nil {
			t.Errorf("%q: %v", tt.in, err)
		} else if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%q: %s", tt.in, d)
		}
	}
}

func TestFilterOperators(t *testing.T) {
	for _, op := range strings.Fields("eq neq lt lte gt gte like ilike is match imatch isdistinct") {
		testFilters(t, []filterCase{
			{"a=" + op + ".x", []string{fmt.Sprintf(`{"a", %q, "x", false}`, op)}},
			{"a=not." + op + ".x.y", []string{fmt.Sprintf(`{"a", %q, "x.y", true}`, op)}},
		})
	}
	testFilters(t, []filterCase{
		{"a=in.(1,2)", []string{`{"a", "in", "{1,2}", false}`}},
		{"a=not.in.()", []string{`{"a", "in", "{}", true}`}},
		{"a b=eq.", []string{`{"a b", "eq", "", false}`}},
		{"a =eq.1", []string{`{"a ", "eq", "1", false}`}},
		{"a=eq.b=c", []string{`{"a", "eq", "b=c", false}`}},
		{" \t a=eq.1 ,  b=gt.2 ", []string{`{"a", "eq", "1", false}`, `{"b", "gt", "2", false}`}},
	})
}

// spec: pgchanges:48
func TestBlankFilter(t *testing.T) {
	testFilters(t, []filterCase{{"", nil}, {"   ", nil}, {"\t\n", nil}})
}

// spec: pgchanges:47
func TestInCombines(t *testing.T) {
	testFilters(t, []filterCase{
		{"id=in.(1,2),age=gt.3", []string{`{"id", "in", "{1,2}", false}`, `{"age", "gt", "3", false}`}},
		{"age=gt.3,id=in.(1,2)", []string{`{"age", "gt", "3", false}`, `{"id", "in", "{1,2}", false}`}},
		{"a=in.(1,2),b=in.(3,4)", []string{`{"a", "in", "{1,2}", false}`, `{"b", "in", "{3,4}", false}`}},
	})
}

// spec: pgchanges:49
func TestUnquotedValues(t *testing.T) {
	testFilters(t, []filterCase{
		{"a=eq.O'Reilly", []string{`{"a", "eq", "O'Reilly", false}`}},
		{`a=eq.say "hi"`, []string{`{"a", "eq", "say \"hi\"", false}`}},
		{"a=eq.x)", []string{`{"a", "eq", "x)", false}`}},
		{"a=eq.x),b=eq.y)", []string{`{"a", "eq", "x)", false}`, `{"b", "eq", "y)", false}`}},
	})
}

// spec: pgchanges:50
func TestQuotedValues(t *testing.T) {
	testFilters(t, []filterCase{
		{`a=eq."x,y"`, []string{`{"a", "eq", "x,y", false}`}},
		{`a=eq."1.5:(z)",b=eq.1`, []string{`{"a", "eq", "1.5:(z)", false}`, `{"b", "eq", "1", false}`}},
		{`a=eq."(",b=eq.")"`, []string{`{"a", "eq", "(", false}`, `{"b", "eq", ")", false}`}},
	})
}

// spec: pgchanges:51
func TestEscapesInQuotes(t *testing.T) {
	testFilters(t, []filterCase{
		{`a=eq."x\"y"`, []string{`{"a", "eq", "x\"y", false}`}},
		{`a=eq."x\\"`, []string{`{"a", "eq", "x\\", false}`}},
		{`a=eq."\n\,"`, []string{`{"a", "eq", "n,", false}`}},
		{`a=eq.""`, []string{`{"a", "eq", "", false}`}},
		{`a=eq."  x "`, []string{`{"a", "eq", "  x ", false}`}},
	})
}

// spec: pgchanges:52
func TestQuotesThatDoNotSurround(t *testing.T) {
	testFilters(t, []filterCase{
		{`a=eq."x`, []string{`{"a", "eq", "\"x", false}`}},
		{`a=eq."x,y`, []string{`{"a", "eq", "\"x,y", false}`}},
		{`a=eq."x"y`, []string{`{"a", "eq", "\"x\"y", false}`}},
		{`a=eq."x"y"`, []string{`{"a", "eq", "\"x\"y\"", false}`}},
		{`a=eq."x\"`, []string{`{"a", "eq", "\"x\\\"", false}`}},
		{`a=eq."`, []string{`{"a", "eq", "\"", false}`}},
	})
}

// spec: pgchanges:53
func TestQuoteInTheMiddle(t *testing.T) {
	testFilters(t, []filterCase{
		{`desc=eq.5" tall,id=gt.0`, []string{`{"desc", "eq", "5\" tall", false}`, `{"id", "gt", "0", false}`}},
	})
}

// spec: pgchanges:54
func TestInElements(t *testing.T) {
	testFilters(t, []filterCase{
		{`a=in.("x,y",z)`, []string{`{"a", "in", "{\"x,y\",z}", false}`}},
		{`a=in.("x)",z),b=eq.1`, []string{`{"a", "in", "{\"x)\",z}", false}`, `{"b", "eq", "1", false}`}},
	})
	for in, want := range map[string][]string{
		`a=in.()`:               {},
		`a=in.(  )`:             {},
		`a=in.(x)`:              {"x"},
		`a=in.(x, y ,z z)`:      {"x", "y", "z z"},
		`a=in.("x,y" , "NULL")`: {"x,y", "NULL"},
		`a=in.("a\"b","\\",""`:  nil,
		`a=in.("a\"b","\\","")`: {`a"b`, `\`, ""},
		// What only PostgreSQL can tell.
		`a=in.(1,NULL)`: nil,
		`a=in.(a\,b)`:   nil,
		`a=in.({1},2)`:  nil,
		`a=in.(a"b")`:   nil,
		`a=in.("a"b)`:   nil,
		`a=in.(,)`:      nil,
		`a=in.(a,)`:     nil,
		`a=in.(a}b)`:    nil,
	} {
		if d := cmp.Diff(want, changes.ListOf(in)); d != "" {
			t.Errorf("%s: %s", in, d)
		}
	}
}

// spec: pgchanges:55
func TestEmptySegments(t *testing.T) {
	for _, in := range []string{",a=eq.1", "a=eq.1,", "a=eq.1,,b=eq.2", ",", "a=eq.1, ,b=eq.2"} {
		_, err := changes.ParseFilter(in)
		if err == nil || err.Error() != "filter must not contain empty segments (check for extra commas)" {
			t.Errorf("%q: %v", in, err)
		}
	}
}

// spec: pgchanges:56
func TestFilterErrors(t *testing.T) {
	for in, want := range map[string]string{
		"subject=foo.hey":       `["foo", "hey"]`,
		"wrong":                 `["wrong"]`,
		"undefined":             `["undefined"]`,
		"id=eq":                 `["eq"]`,
		"id=EQ.1":               `["EQ", "1"]`,
		"id=not.not.eq.5":       `["not", "eq.5"]`,
		"id=NOT.eq.5":           `["NOT", "eq.5"]`,
		"id=.5":                 `["", "5"]`,
		`id=fo"o.\`:             `["fo\"o", "\\"]`,
		"id=in.1":               "`in` filter value must be wrapped by parentheses",
		"id=in.(1":              "`in` filter value must be wrapped by parentheses",
		"id=in.":                "`in` filter value must be wrapped by parentheses",
		"id=eq.1,wrong,x=foo.y": `["wrong"]`,
		strings.Repeat("a=eq.1,", 100) + "a=eq.1": "filter has more than 100 conditions",
		"a=eq." + strings.Repeat("x", 40000):      "filter is longer than 32768 bytes",
	} {
		_, err := changes.ParseFilter(in)
		if err == nil || err.Error() != want {
			t.Errorf("%.40q: %v, want %s", in, err, want)
		}
	}
}

// Comparisons without a database. What is not known is left to PostgreSQL.
func TestCompare(t *testing.T) {
	const id = "123e4567-e89b-12d3-a456-426614174000"
	for _, tt := range []struct {
		typ, text, op, value string
		yes, known           bool
	}{
		{"int4", "5", "eq", "5", true, true},
		{"int8", "9223372036854775807", "gt", "9223372036854775806", true, true},
		{"int8", "5", "neq", "5", false, true},
		{"int8", "5", "lt", "5", false, true},
		{"int8", "5", "lte", "5", true, true},
		{"int8", "5", "gte", "6", false, true},
		{"int8", "5", "isdistinct", "6", true, true},
		{"int8", "5", "in", "{1,5}", true, true},
		{"int8", "5", "in", "{}", false, true},
		{"int8", "5", "in", "{1,NULL}", false, false},
		{"int8", "5", "eq", " 5", false, false},
		{"uuid", id, "eq", strings.ToUpper(id), true, true},
		{"uuid", id, "gt", "023e4567-e89b-12d3-a456-426614174000", true, true},
		{"uuid", id, "eq", "{" + id + "}", false, false},
		{"uuid", id, "eq", "123e-4567e89b12d3-a456-4266-14174000", false, false},
		{"text", "a", "eq", "a", true, true},
		{"text", "a", "eq", "A", false, true},
		{"text", "a", "gte", "a", true, true},
		{"text", "a", "lt", "b", false, false}, // collation
		{"text", "a", "like", "a", false, false},
		{"varchar", "a", "in", "{b,a}", true, true},
		{"bool", "t", "eq", "true", true, true},
		{"bool", "f", "lt", "true", true, true},
		{"bool", "t", "eq", "yes", false, false},
		{"bytea", `\x0aff`, "eq", "0AFF", true, true},
		{"bytea", `\x0aff`, "eq", `\x0aff`, true, true},
		{"bytea", `\x0aff`, "gt", "0a", true, true},
		{"bytea", `\x0aff`, "like", "0a%", false, false},
		{"numeric", "1.0", "eq", "1", false, false},
		{"bpchar", "a  ", "eq", "a", false, false},
	} {
		yes, known := changes.Compare(tt.op, tt.value, changes.OID(tt.typ), tt.text)
		if yes != tt.yes || known != tt.known {
			t.Errorf("%s %s %s.%s: %v, %v", tt.typ, tt.text, tt.op, tt.value, yes, known)
		}
	}
}

func FuzzParseFilter(f *testing.F) {
	for _, s := range []string{
		"", "a=eq.1", `a=not.in.("x,y",z),b=is.null`, `a=eq."x\"y"`, ",", "a=in.(", `a=eq."x`, "a=in.(a\\,b, \"c\" )", "a==.", `a=in.(")`,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		list, err := changes.ParseFilter(s)
		if err != nil && len(list) > 0 {
			t.Errorf("%q: conditions and an error", s)
		}
		if err == nil && len(list) == 0 && strings.TrimSpace(s) != "" {
			t.Errorf("%q: no condition and no error", s)
		}
		for _, v := range changes.ListOf(s) {
			if len(v) > len(s) {
				t.Errorf("%q: element %q grew", s, v)
			}
		}
	})
}
