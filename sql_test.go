package sluice_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"go/types"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// mayBuildSQL are the packages that write statements in Go, each through one
// builder with tests of its own (rest: TestOneDoorForSQL and FuzzStatement;
// policy: its differential test).
var mayBuildSQL = []string{"rest", "policy"}

// namedSQL are the functions outside of those whose SQL is no constant: what they
// return is taken as it is, and what they send is not looked at.
var namedSQL = map[string]string{
	"auth.sql":                     "an embedded file, by its name",
	"pg.loadMigrations":            "embedded files",
	"pg.makeSettingsSQL":           "numbers of parameters",
	"pg.bootstrapState.statements": "ALTER takes no parameters: names by pgx.Identifier, strings by quoteLiteral",
	"project.runner.run":           "the migrations of the user's project are what it runs",
	"changes.run.authorize":        "statements of package policy, which are the keys of a map there",
	"doctor.Mend":                  "the SQL that findings propose, shown to who starts it; names by pgx.Identifier",
	"wal.Reader.prepare":           "the simple protocol has no parameters: a number",
	"wal.Reader.checkServer":       checkedName,
	"wal.Reader.slot":              checkedName,
	"wal.Reader.create":            checkedName,
	"wal.session.heal":             checkedName,
}

const checkedName = "the simple protocol has no parameters: names of which wal.New has refused all but letters, digits and _"

// sqlArgument are the methods of pgx, pgconn and their pools that take SQL, and
// which argument it is.
var sqlArgument = map[string]int{
	"Exec": 1, "Query": 1, "QueryRow": 1, "ExecParams": 1, "Prepare": 2, "CopyTo": 2, "Queue": 0, "SendQueryParams": 0, "SendPrepare": 1,
}

// sqlFields are the messages of the protocol that hold SQL.
var sqlFields = map[string]string{"pgproto3.Query": "String", "pgproto3.Parse": "Query"}

// TestNoOtherSQL proves that outside of rest and policy every statement that is
// sent is a constant, an embedded file, or the work of a function in namedSQL:
// each value is followed back through variables, fields, parameters and results
// to where it comes from. What cannot be followed is refused.
func TestNoOtherSQL(t *testing.T) {
	p := loadProgram(t, "", "")
	for _, problem := range p.sqlProblems() {
		t.Error(problem)
	}
	if p.sends < 90 {
		t.Errorf("only %d statements were found: the check has lost its grip", p.sends)
	}
	for name := range namedSQL {
		if !p.used[name] {
			t.Errorf("namedSQL has %s, which sends no SQL", name)
		}
	}
}

// TestNoOtherSQLSees plants statements that must be refused, and some that may
// pass, into package changes: a line each.
func TestNoOtherSQLSees(t *testing.T) {
	cases := []struct {
		code string
		bad  bool
	}{
		{`tx.Exec(ctx, "select 1")`, false},
		{`tx.Exec(ctx, planted + " where true", name)`, false},
		{`q := planted; if name == "" { q += " limit 1" }; tx.Query(ctx, q)`, false},
		{`tx.QueryRow(ctx, pick_(true)) }; func pick_(yes bool) string { if yes { return planted }; return "select 2"`, false},
		{`for _, q := range []string{planted, "select 2"} { tx.Exec(ctx, q) }`, false},
		{`send_(ctx, tx, planted) }; func send_(ctx context.Context, tx pgx.Tx, sql string) { tx.Exec(ctx, sql)`, false},
		{`h := holder_{planted}; tx.Exec(ctx, h.sql) }; type holder_ struct { sql string`, false},
		{`s.cfg.User.Pipeline(ctx, c, o, []pg.Statement{{SQL: planted}}, nil)`, false},

		{`tx.Exec(ctx, fmt.Sprintf("drop table %s", name))`, true},
		{`tx.Exec(ctx, "drop table " + name)`, true},
		{`tx.Query(ctx, strings.ReplaceAll(planted, "1", name))`, true},
		{`q := planted; q += name; tx.QueryRow(ctx, q)`, true},
		{`q := planted; p := &q; *p = name; tx.QueryRow(ctx, q)`, true},
		{`for _, q := range []string{planted, name} { tx.Exec(ctx, q) }`, true},
		{`tx.QueryRow(ctx, pick_(name)) }; func pick_(name string) string { if name == "" { return planted }; return name`, true},
		{`send_(ctx, tx, name) }; func send_(ctx context.Context, tx pgx.Tx, sql string) { tx.Exec(ctx, sql)`, true},
		{`f := send_; f(ctx, tx, name) }; func send_(ctx context.Context, tx pgx.Tx, sql string) { tx.Exec(ctx, sql)`, true},
		{`f := tx.Exec; f(ctx, name)`, true},
		{`f := func(q string) { tx.Exec(ctx, q) }; f(name)`, true},
		{`h := holder_{name}; tx.Exec(ctx, h.sql) }; type holder_ struct { sql string`, true},
		{`var h holder_; h.sql = name; tx.Exec(ctx, h.sql) }; type holder_ struct { sql string`, true},
		{`var b pgx.Batch; b.Queue("drop table " + name)`, true},
		{`s.cfg.User.As(ctx, c, o, func(ctx context.Context, tx pg.Tx) error { _, err := tx.Exec(ctx, "drop table " + name); return err })`, true},
		{`s.cfg.User.Pipeline(ctx, c, o, []pg.Statement{{SQL: "drop table " + name}}, nil)`, true},
		{`s.cfg.User.AsEach(ctx, "drop table " + name, nil, o)`, true},
		{`send(&pgproto3.Parse{Query: "drop table " + name})`, true},
		{`tx.Conn().PgConn().StartPipeline(ctx).SendPrepare("", fmt.Sprint("drop table ", name), nil)`, true},
	}
	src := `package changes; import ("context"; "fmt"; "strings"; "github.com/jackc/pgx/v5"; "github.com/jackc/pgx/v5/pgproto3"; "github.com/sluice-dev/sluice/pg"); const planted = "select 1"`
	for i, c := range cases {
		code := strings.NewReplacer("send_", fmt.Sprint("send", i), "pick_", fmt.Sprint("pick", i), "holder_", fmt.Sprint("holder", i)).Replace(c.code)
		src += fmt.Sprintf("\nfunc (s *Service) planted%d(ctx context.Context, tx pgx.Tx, name string) { %s }", i, code)
	}
	problems := strings.Join(loadProgram(t, "changes", src).sqlProblems(), "\n")
	for i, c := range cases {
		if bad := strings.Contains(problems, fmt.Sprintf("planted.go:%d:", i+2)); bad != c.bad {
			t.Errorf("%s\nrefused: %v", c.code, bad)
		}
	}
}

// program is the repository's own code, type-checked without what it imports from
// elsewhere: names, constants and calls within it are known, types of others are
// not. So the methods of pgx go by their names alone.
type program struct {
	fset  *token.FileSet
	files map[string][]*ast.File // by folder
	done  map[string]*types.Package
	info  types.Info

	flows map[types.Object][]flow // what a variable, field or parameter is set to
	funcs map[types.Object]*ast.FuncDecl
	names map[ast.Node]string   // functions of namedSQL
	loose map[types.Object]bool // set in ways that cannot be followed
	sends int
	used  map[string]bool // entries of namedSQL
}

// flow is a value that goes somewhere: that of an expression, or of a call's
// result number at.
type flow struct {
	from ast.Expr
	at   int
}

// loadProgram reads all Go files but tests and what is for tests. With a planted
// file, it is one of folder.
func loadProgram(t *testing.T, folder, planted string) *program {
	t.Helper()
	p := &program{
		fset: token.NewFileSet(), files: map[string][]*ast.File{}, done: map[string]*types.Package{},
		info: types.Info{
			Types: map[ast.Expr]types.TypeAndValue{}, Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{},
			Implicits: map[ast.Node]types.Object{}, Selections: map[*ast.SelectorExpr]*types.Selection{},
		},
		flows: map[types.Object][]flow{}, funcs: map[types.Object]*ast.FuncDecl{}, names: map[ast.Node]string{}, loose: map[types.Object]bool{},
		used: map[string]bool{},
	}
	add := func(dir, name string, src any) {
		f, err := parser.ParseFile(p.fset, name, src, parser.SkipObjectResolution|parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		p.files[dir] = append(p.files[dir], f)
	}
	sources := goFiles(t)
	for _, file := range slices.Sorted(maps.Keys(sources)) {
		if dir := sources[file]; !strings.HasSuffix(file, "_test.go") && !strings.HasSuffix(dir, "test") {
			add(dir, file, nil)
		}
	}
	if planted != "" {
		add(folder, "planted.go", planted)
	}
	for dir := range p.files {
		p.check(dir)
	}
	for dir, files := range p.files {
		for _, f := range files {
			p.follow(dir, f)
		}
	}
	return p
}

// Import makes program a types.Importer.
func (p *program) Import(name string) (*types.Package, error) {
	if dir := strings.TrimPrefix(strings.TrimPrefix(name, module), "/"); name == module || dir != name {
		return p.check(dir), nil
	}
	base := path.Base(name)
	if regexp.MustCompile(`^v[0-9]+$`).MatchString(base) {
		base = path.Base(path.Dir(name))
	}
	other := types.NewPackage(name, base)
	other.MarkComplete()
	return other, nil
}

func (p *program) check(dir string) *types.Package {
	if pkg, ok := p.done[dir]; ok {
		return pkg
	}
	conf := types.Config{Importer: p, Error: func(error) {}} // of what is not known
	pkg, _ := conf.Check(dir, p.fset, p.files[dir], &p.info)
	p.done[dir] = pkg
	return pkg
}

// follow notes where values go.
func (p *program) follow(dir string, f *ast.File) {
	calls := map[ast.Expr]bool{} // functions that are called where they stand
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.FuncDecl:
			name := path.Base(dir) + "."
			if n.Recv != nil {
				name += receiver(n.Recv.List[0].Type) + "."
			}
			if name += n.Name.Name; namedSQL[name] != "" {
				p.names[n] = name
			}
			if o := p.info.Defs[n.Name]; o != nil {
				p.funcs[o] = n
			}
		case *ast.AssignStmt:
			p.assign(n.Lhs, n.Rhs)
		case *ast.ValueSpec:
			lhs := make([]ast.Expr, len(n.Names))
			for i, name := range n.Names {
				lhs[i] = name
			}
			if len(n.Values) > 0 {
				p.assign(lhs, n.Values)
			}
		case *ast.GenDecl:
			if n.Doc != nil && strings.Contains(n.Doc.List[len(n.Doc.List)-1].Text, "//go:embed ") {
				p.embedded(n)
			}
			for _, s := range n.Specs {
				if v, ok := s.(*ast.ValueSpec); ok && v.Doc != nil && strings.Contains(v.Doc.List[len(v.Doc.List)-1].Text, "//go:embed ") {
					p.embedded(&ast.GenDecl{Specs: []ast.Spec{v}})
				}
			}
		case *ast.RangeStmt:
			for _, v := range []ast.Expr{n.Key, n.Value} {
				if o := p.target(v); o != nil {
					p.flows[o] = append(p.flows[o], flow{n.X, 0})
				}
			}
		case *ast.UnaryExpr:
			if o := p.target(n.X); n.Op == token.AND && o != nil && isText(o.Type()) {
				p.loose[o] = true
			}
		case *ast.CompositeLit:
			p.literal(n)
		case *ast.CallExpr:
			calls[ast.Unparen(n.Fun)] = true
			sig := p.signature(n.Fun)
			for i, arg := range n.Args {
				if sig == nil {
					break
				}
				if at := min(i, sig.Params().Len()-1); at >= 0 {
					o := sig.Params().At(at)
					p.flows[o] = append(p.flows[o], flow{arg, 0})
				}
			}
		case *ast.SelectorExpr:
			calls[n.Sel] = true // seen as a whole
			p.handedOut(n, calls)
		case *ast.Ident:
			p.handedOut(n, calls)
		}
		return true
	})
}

// handedOut notes a function that is used as a value: anybody may call it.
func (p *program) handedOut(e ast.Expr, calls map[ast.Expr]bool) {
	sig := p.signature(e)
	if sig == nil || calls[e] || p.info.Defs[ident(e)] != nil {
		return
	}
	for i := range sig.Params().Len() {
		p.loose[sig.Params().At(i)] = true
	}
}

// signature is that of a function or of a variable that holds one.
func (p *program) signature(e ast.Expr) *types.Signature {
	switch o := p.target(e).(type) {
	case *types.Func:
		return o.Origin().Signature()
	case *types.Var:
		sig, _ := o.Type().(*types.Signature)
		return sig
	}
	return nil
}

func ident(e ast.Expr) *ast.Ident {
	id, _ := e.(*ast.Ident)
	return id
}

// isText is false for types that hold no text, and true for those not known.
func isText(t types.Type) bool {
	_, isStruct := t.Underlying().(*types.Struct)
	return !isStruct
}

// embedded marks the variables of a go:embed as what they are.
func (p *program) embedded(d *ast.GenDecl) {
	for _, s := range d.Specs {
		for _, name := range s.(*ast.ValueSpec).Names {
			o := p.info.Defs[name]
			p.flows[o] = append(p.flows[o], flow{&ast.BasicLit{Kind: token.STRING}, 0})
		}
	}
}

func (p *program) assign(lhs, rhs []ast.Expr) {
	for i, l := range lhs {
		o := p.target(l)
		switch {
		case o == nil:
		case len(lhs) == len(rhs):
			p.flows[o] = append(p.flows[o], flow{rhs[i], 0})
		default:
			p.flows[o] = append(p.flows[o], flow{rhs[0], i})
		}
	}
}

// literal follows the fields of a struct literal.
func (p *program) literal(n *ast.CompositeLit) {
	t := p.info.Types[n].Type
	if t == nil {
		return
	}
	if ptr, ok := t.Underlying().(*types.Pointer); ok { // elided in a list
		t = ptr.Elem()
	}
	st, ok := t.Underlying().(*types.Struct)
	if !ok {
		return
	}
	for i, e := range n.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			if o := p.info.Uses[ident(kv.Key)]; o != nil {
				p.flows[o] = append(p.flows[o], flow{kv.Value, 0})
			}
		} else if i < st.NumFields() {
			p.flows[st.Field(i)] = append(p.flows[st.Field(i)], flow{e, 0})
		}
	}
}

// target is the variable, field, constant or function that an expression names;
// of an element, that of the whole.
func (p *program) target(e ast.Expr) types.Object {
	switch e := e.(type) {
	case *ast.ParenExpr:
		return p.target(e.X)
	case *ast.IndexExpr:
		return p.target(e.X)
	case *ast.Ident:
		if o := p.info.Defs[e]; o != nil {
			return o
		}
		return p.info.Uses[e]
	case *ast.SelectorExpr:
		return p.info.Uses[e.Sel]
	}
	return nil
}

// sqlProblems are the statements that are sent and come from elsewhere than they
// may.
func (p *program) sqlProblems() []string {
	var out []string
	for _, dir := range slices.Sorted(maps.Keys(p.files)) {
		if slices.Contains(mayBuildSQL, dir) {
			continue
		}
		for _, f := range p.files[dir] {
			for _, d := range f.Decls {
				for _, e := range p.sent(d) {
					p.sends++
					tr := trace{program: p, seen: map[any]bool{}}
					tr.value(e)
					for _, bad := range tr.foreign {
						out = append(out, fmt.Sprintf("%s: SQL is sent that is no constant, embedded file, or of a function in namedSQL: it comes from %s", p.fset.Position(e.Pos()), p.fset.Position(bad.Pos())))
					}
				}
			}
		}
	}
	return out
}

// sent returns the SQL that a declaration sends.
func (p *program) sent(d ast.Decl) (out []ast.Expr) {
	called := map[ast.Expr]bool{}
	ast.Inspect(d, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr:
			sel, ok := ast.Unparen(n.Fun).(*ast.SelectorExpr)
			if !ok {
				return true
			}
			called[sel] = true
			at, ok := sqlArgument[sel.Sel.Name]
			ours := p.funcs[p.info.Uses[sel.Sel]] != nil // what it sends is looked at there
			if ok && at < len(n.Args) && !p.isPackage(sel.X) && !ours {
				out = append(out, n.Args[at])
			}
		case *ast.SelectorExpr:
			// A method that is no call: who calls it cannot be followed.
			if at, ok := sqlArgument[n.Sel.Name]; ok && !called[n] && at > 0 && !p.isPackage(n.X) && p.info.Uses[n.Sel] == nil {
				out = append(out, n)
			}
		case *ast.CompositeLit:
			sel, ok := n.Type.(*ast.SelectorExpr)
			if !ok || !p.isPackage(sel.X) {
				return true
			}
			field := sqlFields[sel.X.(*ast.Ident).Name+"."+sel.Sel.Name]
			for _, e := range n.Elts {
				if kv, ok := e.(*ast.KeyValueExpr); ok && field != "" && ident(kv.Key).Name == field {
					out = append(out, kv.Value)
				}
			}
		}
		return true
	})
	return out
}

func (p *program) isPackage(e ast.Expr) bool {
	_, ok := p.info.Uses[ident(e)].(*types.PkgName)
	return ok
}

// trace follows values to where they come from.
type trace struct {
	*program
	seen    map[any]bool // expressions, and results of functions
	foreign []ast.Node   // what is no constant, embedded file, of namedSQL, rest or policy
}

func (t *trace) value(list ...ast.Expr) {
	for _, e := range list {
		if !t.seen[e] && t.info.Types[e].Value == nil && !t.named(e.Pos()) {
			t.seen[e] = true
			t.origin(e)
		}
	}
}

func (t *trace) origin(e ast.Expr) {
	switch e := e.(type) {
	case *ast.BasicLit:
	case *ast.ParenExpr:
		t.value(e.X)
	case *ast.BinaryExpr:
		t.value(e.X, e.Y)
	case *ast.IndexExpr:
		t.value(e.X)
	case *ast.SliceExpr:
		t.value(e.X)
	case *ast.CompositeLit:
		for _, x := range e.Elts {
			if kv, ok := x.(*ast.KeyValueExpr); ok {
				x = kv.Value
			}
			t.value(x)
		}
	case *ast.CallExpr:
		t.result(e, 0)
	case *ast.Ident, *ast.SelectorExpr:
		o := t.target(e)
		switch {
		case o == nil || t.loose[o]:
			t.foreign = append(t.foreign, e)
		case o.Pkg() != nil && slices.Contains(mayBuildSQL, o.Pkg().Path()):
		case len(t.flows[o]) == 0:
			t.foreign = append(t.foreign, e)
		}
		for _, f := range t.flows[o] {
			if call, ok := f.from.(*ast.CallExpr); ok {
				t.result(call, f.at)
			} else {
				t.value(f.from)
			}
		}
	default:
		t.foreign = append(t.foreign, e)
	}
}

// result follows a call's result number at.
func (t *trace) result(e *ast.CallExpr, at int) {
	fun := ast.Unparen(e.Fun)
	o := t.target(fun)
	var body *ast.BlockStmt
	var results *ast.FieldList
	switch lit, isLit := fun.(*ast.FuncLit); {
	case t.named(e.Pos()), o != nil && o.Pkg() != nil && slices.Contains(mayBuildSQL, o.Pkg().Path()):
		return
	case t.info.Types[fun].IsType() || t.info.Types[fun].IsBuiltin(): // string(x), append(x, y)
		t.value(e.Args...)
		return
	case t.isPart(fun):
		t.value(e.Args[0])
		return
	case isLit:
		body, results = lit.Body, lit.Type.Results
	case t.funcs[o] == nil:
		t.foreign = append(t.foreign, e)
		return
	case t.named(t.funcs[o].Pos()):
		return
	default:
		body, results = t.funcs[o].Body, t.funcs[o].Type.Results
	}
	type of struct {
		body *ast.BlockStmt
		at   int
	}
	if t.seen[of{body, at}] {
		return
	}
	t.seen[of{body, at}] = true
	ast.Inspect(body, func(n ast.Node) bool {
		r, ok := n.(*ast.ReturnStmt)
		switch {
		case !ok:
		case len(r.Results) == 0:
			var names []ast.Expr
			for _, f := range results.List {
				for _, name := range f.Names {
					names = append(names, name)
				}
			}
			t.value(names[at])
		case at < len(r.Results):
			t.value(r.Results[at])
		default: // another call's
			t.foreign = append(t.foreign, r)
		}
		_, isLit := n.(*ast.FuncLit)
		return !isLit
	})
}

// isPart reports whether a function returns parts of its first argument.
func (p *program) isPart(fun ast.Expr) bool {
	sel, ok := fun.(*ast.SelectorExpr)
	return ok && p.isPackage(sel.X) && slices.Contains([]string{"strings.TrimSpace", "strings.SplitSeq"}, sel.X.(*ast.Ident).Name+"."+sel.Sel.Name)
}

// named reports whether a place is within a function of namedSQL, or a package that
// may build SQL.
func (p *program) named(pos token.Pos) bool {
	if slices.Contains(mayBuildSQL, path.Dir(p.fset.Position(pos).Filename)) {
		return true
	}
	for decl, name := range p.names {
		if decl.Pos() <= pos && pos < decl.End() {
			p.used[name] = true
			return true
		}
	}
	return false
}
