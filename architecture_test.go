package sluice_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/sluice-dev/sluice"

// mayImport is the import table of ARCHITECTURE.md. A package missing here may
// not exist: a new top-level folder is a new noun of the product. "root" is
// package sluice itself. Everybody may import internal/.
var mayImport = map[string][]string{
	"":                  {},
	"wal/pgoutput":      {"root"}, // decodes into the root's values, so that a batch copies nothing
	"devpg":             {},
	"token":             {"root"},
	"pg":                {"root"},
	"cluster":           {"root"},
	"realtime/phoenix":  {"root"},
	"schema":            {"root", "pg"},
	"gateway":           {"root", "token"},
	"rest":              {"root", "pg", "schema"},
	"auth":              {"root", "token", "pg"},
	"policy":            {"root", "pg", "schema"},
	"changes":           {"root", "pg", "schema", "policy"},
	"project":           {"root", "pg"},
	"inspect":           {"root", "pg"},
	"doctor":            {"root", "token", "pg", "schema", "realtime/phoenix"},
	"mailbox":           {"root"},
	"console":           {"root", "inspect", "doctor"},
	"wal":               {"root", "wal/pgoutput", "pg"},
	"realtime":          {"root", "realtime/phoenix", "token", "pg"},
	"examples/chat":     {},
	"examples/goclient": {},
	"cmd/sluice": {
		"root", "auth", "changes", "cluster", "console", "devpg", "doctor", "gateway", "inspect", "mailbox", "pg", "policy", "project",
		"realtime", "rest", "schema", "token", "wal", "examples/chat",
	},
}

// goFiles returns the repository's Go files with their package folder.
func goFiles(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && (strings.HasPrefix(name, ".") && name != "." || name == "node_modules" || name == "testdata" || name == "tools") {
			return filepath.SkipDir
		}
		if strings.HasSuffix(name, ".go") {
			dir := path.Dir(filepath.ToSlash(p))
			if dir == "." {
				dir = ""
			}
			files[filepath.ToSlash(p)] = dir
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// TestImports holds the import table: services never import one another, only
// cmd/sluice knows everybody, and packages named …test stay in tests.
func TestImports(t *testing.T) {
	seen := map[string]bool{}
	for file, dir := range goFiles(t) {
		isTest := strings.HasSuffix(file, "_test.go")
		free := strings.HasPrefix(dir, "internal/") || strings.HasPrefix(dir, "test") || strings.HasSuffix(dir, "test")
		allowed, known := mayImport[dir]
		if !known && !free {
			t.Errorf("%s: folder %q is not in the import table", file, dir)
			continue
		}
		seen[dir] = true
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		if err != nil {
			t.Errorf("parse %s: %v", file, err)
			continue
		}
		for _, spec := range f.Imports {
			p := strings.Trim(spec.Path.Value, `"`)
			if p != module && !strings.HasPrefix(p, module+"/") {
				continue
			}
			rel := strings.TrimPrefix(strings.TrimPrefix(p, module), "/")
			if strings.HasSuffix(rel, "test") {
				if !isTest && !strings.HasSuffix(dir, "test") {
					t.Errorf("%s imports %s outside of a test", file, p)
				}
				continue
			}
			if isTest || free || strings.HasPrefix(rel, "internal/") {
				continue
			}
			if rel == "" {
				rel = "root"
			}
			if !slices.Contains(allowed, rel) {
				t.Errorf("%s: %q may not import %q", file, dir, rel)
			}
		}
	}
	for dir := range mayImport {
		if !seen[dir] {
			t.Errorf("import table names %q, which has no Go files", dir)
		}
	}
}

// TestArchitectureNames looks up every path and every identifier that
// ARCHITECTURE.md puts in back quotes: a document that names what is gone is
// worse than none. spec-free.
func TestArchitectureNames(t *testing.T) {
	text, err := os.ReadFile("ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	idents := declared(t)
	quoted := regexp.MustCompile("`([^`\n]+)`")
	isPath := regexp.MustCompile(`^[a-z.][a-zA-Z0-9_./-]*/[a-zA-Z0-9_./-]*$|^[a-z_]+\.(go|sql|md)$`)
	isIdent := regexp.MustCompile(`^([a-zA-Z]+\.)?[A-Za-z][A-Za-z0-9]*(\.[A-Za-z][A-Za-z0-9]*)?$`)
	n := 0
	for _, m := range quoted.FindAllStringSubmatch(string(text), -1) {
		s := m[1]
		switch {
		case isPath.MatchString(s):
			n++
			if _, err := os.Stat(strings.TrimSuffix(s, "/")); err != nil {
				t.Errorf("ARCHITECTURE.md names path %q, which does not exist", s)
			}
		case strings.Contains(s, ".") && isIdent.MatchString(s):
			n++
			if !idents[s] {
				t.Errorf("ARCHITECTURE.md names %q, which is not declared", s)
			}
		}
	}
	if n < 30 {
		t.Errorf("only %d names found in ARCHITECTURE.md: the check has lost its grip", n)
	}
}

// declared returns pkg.Name, Type.Method and pkg.Type.Method of all
// declarations outside of tests.
func declared(t *testing.T) map[string]bool {
	t.Helper()
	out := map[string]bool{}
	for file, dir := range goFiles(t) {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
		if err != nil {
			t.Errorf("parse %s: %v", file, err)
			continue
		}
		pkg := path.Base(dir)
		if dir == "" {
			pkg = "sluice"
		}
		add := func(names ...string) {
			s := strings.Join(names, ".")
			out[s], out[pkg+"."+s] = true, true
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Recv == nil {
					add(d.Name.Name)
					continue
				}
				add(receiver(d.Recv.List[0].Type), d.Name.Name)
			case *ast.GenDecl:
				for _, s := range d.Specs {
					switch s := s.(type) {
					case *ast.TypeSpec:
						add(s.Name.Name)
						if it, ok := s.Type.(*ast.InterfaceType); ok {
							for _, m := range it.Methods.List {
								for _, name := range m.Names {
									add(s.Name.Name, name.Name)
								}
							}
						}
					case *ast.ValueSpec:
						for _, name := range s.Names {
							add(name.Name)
						}
					}
				}
			}
		}
	}
	return out
}

func receiver(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.StarExpr:
		return receiver(e.X)
	case *ast.IndexExpr:
		return receiver(e.X)
	case *ast.Ident:
		return e.Name
	}
	return ""
}
