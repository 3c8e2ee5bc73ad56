package sluice_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// sqlSinks are the functions that send SQL, with the place of the text among their
// arguments: pgx's and pgconn's, and the helpers of ours that hand a text on.
var sqlSinks = map[string]int{
	"Exec": 1, "Query": 1, "QueryRow": 1, "ExecParams": 1, "Prepare": 2, "Queue": 0, "SendQueryParams": 0, "SendPrepare": 1,
	"readJSON": 3, "query": 2, "history": 1,
}

// builtElsewhere are the functions outside of rest and policy that send a text that is
// not a constant, each with why that is safe.
var builtElsewhere = map[string]string{
	"changes.complete": "policy's LookupSQL", "changes.current": "policy's LookupSQL",
	"doctor.Mend":     "the fixes of findings, shown before; names are quoted",
	"doctor.readJSON": "a helper, whose callers are looked at", "project.history": "a helper, whose callers are looked at",
	"wal.query":       "a helper, whose callers are looked at: the replication protocol has no parameters",
	"wal.checkServer": "names that New has checked", "wal.create": "names that New has checked", "wal.heal": "names that New has checked",
	"wal.prepare": "a number", "wal.slot": "names that New has checked",
	"pg.As": "rollback or commit, a constant each", "pg.Bootstrap": "embedded files by role and setting", "pg.execScript": "embedded migrations",
	"pg.beginAs": "begin and set_config, with the settings as parameters", "pg.query": "what rest and policy have built", "pg.send": "what rest and policy have built",
	"project.run": "the project's own scripts, as the role postgres",
}

// unfixed returns the functions of a package's files that send SQL which is neither a
// constant nor an embedded file, as path.function.
func unfixed(fset *token.FileSet, dir string, files []*ast.File) []string {
	fixed := map[string]bool{} // names of constants and of embedded files
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			d, ok := n.(*ast.GenDecl)
			if !ok || d.Tok != token.CONST && d.Tok != token.VAR {
				return true
			}
			for _, s := range d.Specs {
				v, ok := s.(*ast.ValueSpec)
				if !ok {
					continue
				}
				embedded := d.Doc != nil && strings.Contains(text(d.Doc), "go:embed") || v.Doc != nil && strings.Contains(text(v.Doc), "go:embed")
				for _, name := range v.Names {
					fixed[name.Name] = d.Tok == token.CONST || embedded
				}
			}
			return true
		})
	}
	var isFixed func(e ast.Expr) bool
	isFixed = func(e ast.Expr) bool {
		switch e := e.(type) {
		case *ast.BasicLit:
			return e.Kind == token.STRING
		case *ast.Ident:
			return fixed[e.Name]
		case *ast.BinaryExpr:
			return e.Op == token.ADD && isFixed(e.X) && isFixed(e.Y)
		case *ast.ParenExpr:
			return isFixed(e.X)
		case *ast.CallExpr:
			switch f := e.Fun.(type) {
			case *ast.Ident:
				return f.Name == "sql" && dir == "auth" // reads an embedded file by its name
			case *ast.SelectorExpr:
				from, ok := f.X.(*ast.Ident)
				return ok && from.Name == "policy" // built there
			}
		}
		return false
	}
	var out []string
	for _, f := range files {
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok || fn.Body == nil {
				continue
			}
			ast.Inspect(fn.Body, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				name := ""
				switch f := call.Fun.(type) {
				case *ast.SelectorExpr:
					if from, ok := f.X.(*ast.Ident); ok && from.Name == "syscall" {
						return true
					}
					name = f.Sel.Name
				case *ast.Ident:
					name = f.Name
				}
				at, sink := sqlSinks[name]
				if sink && len(call.Args) > at && !isFixed(call.Args[at]) {
					out = append(out, filepath.ToSlash(dir)+"."+fn.Name.Name)
				}
				return true
			})
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func text(g *ast.CommentGroup) string {
	var b strings.Builder
	for _, c := range g.List {
		b.WriteString(c.Text)
	}
	return b.String()
}

// Only rest and policy build SQL; everybody else sends constants and files, but for
// what builtElsewhere names.
func TestOnlyRestAndPolicyBuildSQL(t *testing.T) {
	t.Parallel()
	fset := token.NewFileSet()
	packages := map[string][]*ast.File{}
	for file, dir := range goFiles(t) {
		if strings.HasSuffix(file, "_test.go") || dir == "rest" || dir == "policy" || strings.HasPrefix(dir, "internal/") || strings.HasPrefix(dir, "examples/") || strings.HasSuffix(dir, "test") {
			continue
		}
		f, err := parser.ParseFile(fset, file, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		packages[dir] = append(packages[dir], f)
	}
	used := map[string]bool{}
	for dir, files := range packages {
		for _, name := range unfixed(fset, dir, files) {
			if builtElsewhere[name] == "" {
				t.Errorf("%s sends SQL that is neither a constant nor an embedded file: build it with rest or policy, or pass the values as parameters", name)
			}
			used[name] = true
		}
	}
	for name := range builtElsewhere {
		if !used[name] {
			t.Errorf("%s does not build SQL any more: take it off the list", name)
		}
	}
}

// The test above sees what it has to.
func TestPlantedSQLIsSeen(t *testing.T) {
	t.Parallel()
	const source = `package p
import ("context"; _ "embed"; "fmt")
//go:embed x.sql
var file string
const fixed = "select 1"
var loose = "select 2"
func good(ctx context.Context, c conn, id int) { c.Exec(ctx, fixed); c.Query(ctx, file, id); c.QueryRow(ctx, "select "+"$1", id) }
func bad(ctx context.Context, c conn, name string) { c.Exec(ctx, fmt.Sprintf("drop table %s", name)) }
func worse(ctx context.Context, c conn, name string) { c.Query(ctx, "select * from "+name) }
func sly(ctx context.Context, c conn, name string) { sql := "select " + name; c.QueryRow(ctx, sql) }
func global(ctx context.Context, c conn) { c.Exec(ctx, loose) }
`
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "p.go", source, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := unfixed(fset, "p", []*ast.File{f}), []string{"p.bad", "p.global", "p.sly", "p.worse"}; !slices.Equal(got, want) {
		t.Errorf("seen: %v, want %v", got, want)
	}
}
