package project_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice/project"
)

func TestSplitStatements(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		script string
		want   []string
	}{
		"two":           {"select 1;\nselect 2", []string{"select 1", "select 2"}},
		"empty":         {" ; ;\n-- only a comment\n;/* and one */", nil},
		"comment stays": {"-- a; b\nselect 1; -- end", []string{"-- a; b\nselect 1"}},
		"quotes":        {`select 'a;''b', "c;""d";x`, []string{`select 'a;''b', "c;""d"`, "x"}},
		"escape":        {`select E'a\';b', 'c\'; select 2`, []string{`select E'a\';b', 'c\'`, "select 2"}},
		"not an escape": {`select name'a\'; x`, []string{`select name'a\'`, "x"}},
		"dollar":        {"do $$ begin; end $$; do $a$ $$; $b$ $a$; x", []string{"do $$ begin; end $$", "do $a$ $$; $b$ $a$", "x"}},
		"parameter":     {"select $1; select a$b$; select 2", []string{"select $1", "select a$b$", "select 2"}},
		"nested":        {"/* a /* ; */ ; */ select 1; x", []string{"/* a /* ; */ ; */ select 1", "x"}},
		"parentheses":   {"create rule r as on insert to t do (a; b); x", []string{"create rule r as on insert to t do (a; b)", "x"}},
		"atomic": {
			"create function f() returns int language sql begin atomic select case when true then 1 end; select 2; end; x",
			[]string{"create function f() returns int language sql begin atomic select case when true then 1 end; select 2; end", "x"},
		},
		"begin alone": {"begin; select 1; end; commit", []string{"begin", "select 1", "end", "commit"}},
		"unclosed":    {"select 'a; b", []string{"select 'a; b"}},
		"mark":        {"\ufeffselect 1;", []string{"select 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if d := cmp.Diff(tt.want, project.SplitStatements(tt.script)); d != "" {
				t.Error(d)
			}
		})
	}
}

// FuzzSplitStatements checks that nothing is lost or invented: the statements
// stand in the script in order, and what lies between holds no word outside of
// comments.
func FuzzSplitStatements(f *testing.F) {
	for _, s := range []string{
		"select 1; select 2", "a 'b;' ; /* c; */ d", "$x$;$x$;", "begin atomic ; end;", "E'\\';'", "--\n;", "(;);", "\"", "$$", "/*/*",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, script string) {
		rest := strings.TrimPrefix(script, "\ufeff")
		for _, s := range project.SplitStatements(script) {
			if strings.TrimSpace(s) != s || s == "" {
				t.Fatalf("statement %q is not trimmed", s)
			}
			i := strings.Index(rest, s)
			if i < 0 {
				t.Fatalf("statement %q is not in what is left, %q", s, rest)
			}
			rest = rest[i+len(s):]
		}
	})
}

func TestParseDotenv(t *testing.T) {
	t.Parallel()
	got, err := project.ParseDotenv("# c\nexport A=1\nB = two words # c\nC='a $B \\n'\nD=\"x\\n\\\"y\\\"\nz\"\nE=\n")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"A": "1", "B": "two words", "C": `a $B \n`, "D": "x\n\"y\"\nz", "E": ""}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for _, bad := range []string{"novalue", "1A=b", "A=\"open"} {
		if _, err := project.ParseDotenv(bad); err == nil {
			t.Errorf("ParseDotenv(%q): no error", bad)
		}
	}
}

func FuzzParseDotenv(f *testing.F) {
	f.Add("A=1\nB=\"x\ny\"\n")
	f.Fuzz(func(_ *testing.T, text string) { _, _ = project.ParseDotenv(text) })
}
