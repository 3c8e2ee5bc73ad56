package policy

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice/pg"
)

//go:embed sql/relation.sql
var relationSQL string

//go:embed sql/function.sql
var functionSQL string

//go:embed sql/operator.sql
var operatorSQL string

//go:embed sql/type.sql
var typeSQL string

//go:embed sql/acting.sql
var actingSQL string

//go:embed sql/granted.sql
var grantedSQL string

//go:embed sql/settings.sql
var settingsSQL string

// SessionSettings reads the settings of the sessions in which users act, on which
// the results of functions depend: a statement of tier 2 runs under the same.
func SessionSettings(ctx context.Context, user *pg.Pool) ([]pg.Setting, error) {
	rows, err := user.Query(ctx, settingsSQL)
	if err != nil {
		return nil, pg.Wrap(err, "read session settings")
	}
	out, err := pgx.CollectRows(rows, func(r pgx.CollectableRow) (s pg.Setting, err error) { return s, r.Scan(&s.Name, &s.Value) })
	// The plan depends on how many rows and askers there are.
	return append(out, pg.Setting{Name: "search_path", Value: ""}, pg.Setting{Name: "plan_cache_mode", Value: "force_custom_plan"}), pg.Wrap(err, "read session settings")
}

// relation is a table that a policy reads.
type relation struct {
	Schema   string         `json:"schema"`
	Name     string         `json:"name"`
	Kind     string         `json:"kind"`
	Owner    uint32         `json:"owner"`
	RLS      bool           `json:"rls"`
	Force    bool           `json:"force"`
	Columns  []column       `json:"columns"`
	Policies []storedPolicy `json:"policies"`
}

type column struct {
	Num  int    `json:"num"`
	Name string `json:"name"`
	Type uint32 `json:"type"`
}

// column returns the column with attribute number n.
func (r *relation) column(n int) (column, bool) {
	for _, c := range r.Columns {
		if c.Num == n {
			return c, true
		}
	}
	return column{}, false
}

type storedPolicy struct {
	Name       string   `json:"name"`
	Permissive bool     `json:"permissive"`
	Qual       *string  `json:"qual"`
	Roles      []uint32 `json:"roles"`
}

// function is a function that a policy calls.
type function struct {
	Schema     string   `json:"schema"`
	Name       string   `json:"name"`
	Language   string   `json:"language"`
	Kind       string   `json:"kind"`
	Volatility string   `json:"volatility"`
	Strict     bool     `json:"strict"`
	Definer    bool     `json:"definer"`
	Set        bool     `json:"set"`
	Owner      uint32   `json:"owner"`
	Variadic   bool     `json:"variadic"`
	Builtin    bool     `json:"builtin"`
	Source     string   `json:"source"` // for the server's own: the name in C
	Body       *string  `json:"body"`
	Config     []string `json:"config"`
	Result     uint32   `json:"result"`
	Arguments  string   `json:"arguments"`
	Returns    string   `json:"returns"`
	Inputs     []uint32 `json:"inputs"`
	Outputs    bool     `json:"outputs"` // OUT parameters or TABLE
}

type operatorName struct{ schema, name string }

type sqlType struct {
	Schema  string            `json:"schema"`
	Name    string            `json:"name"`
	Kind    string            `json:"kind"`
	Base    uint32            `json:"base"`
	Element uint32            `json:"element"`
	Array   uint32            `json:"array"` // of this type
	Labels  map[string]string `json:"labels"`
}

type acting struct {
	oid    uint32
	name   string
	bypass bool
}

// loader reads the catalog, each thing once. Its transaction is rolled back.
type loader struct {
	ctx        context.Context // of one Compile
	tx         pgx.Tx
	searchPath string

	relations map[uint32]*relation
	functions map[uint32]*function
	operators map[uint32]operatorName
	types     map[uint32]*sqlType
	roles     map[uint32]*acting
	rights    map[string]bool
	bodies    map[uint32]*query
}

func newLoader(ctx context.Context, tx pgx.Tx, searchPath string) *loader {
	return &loader{
		ctx: ctx, tx: tx, searchPath: searchPath,
		relations: map[uint32]*relation{}, functions: map[uint32]*function{}, operators: map[uint32]operatorName{},
		types: map[uint32]*sqlType{}, roles: map[uint32]*acting{}, rights: map[string]bool{}, bodies: map[uint32]*query{},
	}
}

// one reads a row of JSON into v, and keeps it.
func one[T any](l *loader, known map[uint32]*T, sql, what string, oid uint32) (*T, error) {
	if v := known[oid]; v != nil {
		return v, nil
	}
	var text []byte
	if err := l.tx.QueryRow(l.ctx, sql, oid).Scan(&text); err != nil {
		return nil, pg.Wrap(err, "load %s %d of a policy", what, oid)
	}
	v := new(T)
	if err := json.Unmarshal(text, v); err != nil {
		return nil, fmt.Errorf("load %s %d of a policy: %w", what, oid, err)
	}
	known[oid] = v
	return v, nil
}

func (l *loader) relation(oid uint32) (*relation, error) {
	return one(l, l.relations, relationSQL, "table", oid)
}

func (l *loader) function(oid uint32) (*function, error) {
	return one(l, l.functions, functionSQL, "function", oid)
}

func (l *loader) sqlType(oid uint32) (*sqlType, error) {
	return one(l, l.types, typeSQL, "type", oid)
}

func (l *loader) operator(oid uint32) (operatorName, error) {
	if o, ok := l.operators[oid]; ok {
		return o, nil
	}
	var o operatorName
	if err := l.tx.QueryRow(l.ctx, operatorSQL, oid).Scan(&o.schema, &o.name); err != nil {
		return o, pg.Wrap(err, "load operator %d of a policy", oid)
	}
	l.operators[oid] = o
	return o, nil
}

func (l *loader) role(oid uint32) (*acting, error) {
	if r := l.roles[oid]; r != nil {
		return r, nil
	}
	r := &acting{oid: oid}
	if err := l.tx.QueryRow(l.ctx, actingSQL, oid).Scan(&r.name, &r.bypass); err != nil {
		return nil, pg.Wrap(err, "load role %d of a policy", oid)
	}
	l.roles[oid] = r
	return r, nil
}

// ask remembers the answer to a question about rights.
func (l *loader) ask(sql string, args ...any) (bool, error) {
	key := fmt.Sprint(append([]any{sql}, args...)...)
	if yes, ok := l.rights[key]; ok {
		return yes, nil
	}
	var yes bool
	if err := l.tx.QueryRow(l.ctx, sql, args...).Scan(&yes); err != nil {
		return false, pg.Wrap(err, "ask for a right of a policy")
	}
	l.rights[key] = yes
	return yes, nil
}

// is reports whether a role has the rights of one of others; 0 is everybody.
func (l *loader) is(role *acting, others ...uint32) (bool, error) {
	if slices.Contains(others, 0) || slices.Contains(others, role.oid) {
		return true, nil
	}
	return l.ask("select coalesce(bool_or(pg_has_role($1::oid, m, 'USAGE')), false) from unnest($2::oid[]) m", role.oid, others)
}

func (l *loader) mayExecute(role *acting, fn uint32) (bool, error) {
	return l.ask("select has_function_privilege($1::oid, $2::oid, 'EXECUTE')", role.oid, fn)
}

func (l *loader) maySelect(role *acting, rel uint32, columns []int16) (bool, error) {
	return l.ask(grantedSQL, role.oid, rel, columns)
}

// guarded reports whether row level security holds for a role.
func (l *loader) guarded(role *acting, r *relation) (bool, error) {
	if !r.RLS || role.bypass {
		return false, nil
	}
	owner, err := l.is(role, r.Owner)
	return !owner || r.Force, err
}

// with returns a table with some of its policies, by name, all of them taken for
// permissive when that is asked for; nil names are all of them.
func (r *relation) with(names []string, permissive bool) *relation {
	if names == nil {
		return r
	}
	c := *r
	c.Policies = nil
	for _, p := range r.Policies {
		if slices.Contains(names, p.Name) {
			p.Permissive = p.Permissive || permissive
			c.Policies = append(c.Policies, p)
		}
	}
	return &c
}

// visible returns the condition under which a role sees a row of a table, in terms
// of that table as the first of its query; nil means every row. Policies that
// do not apply to the role, and those without an expression, are left out; without
// a permissive one nothing is seen.
func (l *loader) visible(role *acting, r *relation) (*expr, error) {
	if on, err := l.guarded(role, r); err != nil || !on {
		return nil, err
	}
	var permissive, all []*expr
	for _, p := range r.Policies {
		if p.Qual == nil {
			continue
		}
		applies, err := l.is(role, p.Roles...)
		if err != nil {
			return nil, err
		}
		if !applies {
			continue
		}
		v, err := parseNode(*p.Qual)
		if err != nil {
			return nil, err
		}
		e, err := exprOf(v)
		if err != nil {
			return nil, within(err, "policy %q", p.Name)
		}
		if p.Permissive {
			// PostgreSQL evaluates the last name first: one that shows the row spares
			// the next, and the error that the next would raise.
			permissive = slices.Insert(permissive, 0, e)
		} else {
			all = append(all, e)
		}
	}
	return and(append([]*expr{or(permissive)}, all...)), nil
}

// within says where a refusal comes from; other errors stay.
func within(err error, format string, args ...any) error {
	if r, ok := err.(notHere); ok {
		return notHere(fmt.Sprintf(format, args...) + ": " + string(r))
	}
	return err
}

func boolean(v bool) *expr {
	b := datum{0}
	if v {
		b[0] = 1
	}
	return &expr{kind: kConst, typ: oidBool, mod: -1, datum: b}
}

// isBool reports whether e is the constant v.
func (e *expr) isBool(v bool) bool {
	return e.kind == kConst && e.typ == oidBool && !e.null && len(e.datum) == 1 && (e.datum[0] != 0) == v
}

func or(list []*expr) *expr {
	switch len(list) {
	case 0:
		return boolean(false)
	case 1:
		return list[0]
	}
	return &expr{kind: kOr, typ: oidBool, mod: -1, args: list}
}

func and(list []*expr) *expr {
	switch len(list) {
	case 0:
		return boolean(true)
	case 1:
		return list[0]
	}
	return &expr{kind: kAnd, typ: oidBool, mod: -1, args: list}
}

// body returns the SELECT that a function in SQL consists of, as PostgreSQL
// analyses it under the function's own search_path: what is stored as text is
// made into a function with an analysed body, which the transaction takes back.
func (l *loader) body(oid uint32, f *function) (*query, error) {
	if q := l.bodies[oid]; q != nil {
		return q, nil
	}
	path := l.searchPath
	for _, c := range f.Config {
		name, value, _ := strings.Cut(c, "=")
		if name != "search_path" {
			return nil, refuse("a setting of its own (%s)", name)
		}
		path = value
	}
	text := f.Body
	if text == nil {
		analysed, err := l.analyse(f, path)
		if err != nil {
			return nil, err
		}
		text = &analysed
	}
	v, err := parseNode(*text)
	if err != nil {
		return nil, err
	}
	// A body is a list of lists of statements, or an expression by RETURN.
	for {
		list, ok := v.([]any)
		if !ok {
			break
		}
		if len(list) != 1 {
			return nil, refuse("more than one statement")
		}
		v = list[0]
	}
	n, _ := v.(*node)
	q, err := queryOf(n)
	if err != nil {
		return nil, err
	}
	l.bodies[oid] = q
	return q, nil
}

func (l *loader) analyse(f *function, path string) (string, error) {
	if strings.Contains(path, "$user") {
		return "", refuse("a search_path with $user")
	}
	probe, err := l.tx.Begin(l.ctx) // a savepoint
	if err != nil {
		return "", pg.Wrap(err, "analyse a function")
	}
	defer probe.Rollback(l.ctx) //nolint:errcheck // the transaction is rolled back anyway
	if _, err := probe.Exec(l.ctx, "select set_config('search_path', $1, true)", path); err != nil {
		return "", pg.Wrap(err, "analyse a function")
	}
	// The extended protocol takes one statement: whatever the body says, nothing
	// but this one is run, and analysing runs nothing.
	_, err = probe.Conn().PgConn().ExecParams(l.ctx, "create function pg_temp.policy_probe("+f.Arguments+") returns "+f.Returns+
		" language sql begin atomic\n"+strings.TrimRight(f.Source, "; \t\r\n")+"\n; end", nil, nil, nil, nil).Close()
	if state := pg.SQLState(err); err != nil && state != "" && !strings.HasPrefix(state, "57") && !strings.HasPrefix(state, "08") {
		return "", refuse("a body that PostgreSQL does not analyse by itself (%v)", err)
	}
	if err != nil {
		return "", pg.Wrap(err, "analyse a function")
	}
	var body string
	err = probe.QueryRow(l.ctx, "select prosqlbody::text from pg_catalog.pg_proc where proname = 'policy_probe' and pronamespace = pg_catalog.pg_my_temp_schema()").Scan(&body)
	return body, pg.Wrap(err, "analyse a function")
}
