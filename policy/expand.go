package policy

import (
	"slices"
	"strconv"
	"strings"
)

// expander makes of a policy's expression one that needs no rights of its reader:
// functions in SQL are replaced by their bodies, and the tables of sub-selects get
// the conditions under which the reader sees their rows. It refuses what the
// reader may not do, or what cannot be done on somebody's behalf.
type expander struct {
	*loader
	tables int // that are read, in all
}

// Bounds of an expansion; past them a policy is asked as the user.
const (
	maxExpansion = 32 // functions and policies within one another
	maxTables    = 16
)

// scope is where a part of an expression stands.
type scope struct {
	role  *acting
	depth int // functions and policies around it
}

func (s scope) deeper() (scope, error) {
	if s.depth++; s.depth > maxExpansion {
		return s, refuse("functions or policies that refer to one another without end")
	}
	return s, nil
}

// list expands each of some expressions.
func (x *expander) list(in []*expr, s scope) ([]*expr, error) {
	out := slices.Clone(in)
	for i, e := range out {
		var err error
		if out[i], err = x.expr(e, s); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// expr expands an expression from the inside out.
func (x *expander) expr(e *expr, s scope) (*expr, error) {
	if e == nil {
		return nil, nil
	}
	c := *e
	var err error
	if c.args, err = x.list(e.args, s); err != nil {
		return nil, err
	}
	switch e.kind {
	case kFunc:
		return x.call(&c, s)
	case kOp, kDistinct, kNullIf, kArrayOp:
		return &c, x.permitted(c.fn, s)
	case kAggregate:
		return &c, x.permittedAggregate(c.fn)
	case kSubLink:
		if c.query, err = x.query(e.query, s); err != nil {
			return nil, err
		}
		if c.link == linkArray {
			t, err := x.sqlType(c.query.targets[0].typ)
			if err != nil {
				return nil, err
			}
			c.typ = t.Array
		}
		return c.simplify(), nil
	case kConst:
		return &c, x.constant(&c)
	case kViaIO, kArrayViaIO:
		return &c, x.castable(&c)
	case kAnd, kOr, kNot:
		return c.fold(), nil
	}
	return &c, nil
}

// simplify replaces (select expression) by the expression.
func (e *expr) simplify() *expr {
	q := e.query
	if e.link != linkExpr || len(q.from) > 0 || q.where != nil || q.limit != nil || q.aggregate || q.distinct || len(q.group) > 0 {
		return e
	}
	t := q.targets[0]
	set := !t.walk(func(x *expr, depth int) bool { return depth > 0 || x.kind != kFunc || !x.not })
	if set {
		return e
	}
	return t.replace(func(x *expr, depth int) *expr {
		if x.kind != kVar || x.level <= depth {
			return nil
		}
		c := *x
		c.level--
		return &c
	})
}

// fold takes constants out of AND, OR and NOT.
func (e *expr) fold() *expr {
	if e.kind == kNot {
		switch a := e.args[0]; {
		case a.isBool(true):
			return boolean(false)
		case a.isBool(false):
			return boolean(true)
		}
		return e
	}
	neutral := e.kind == kAnd
	var kept []*expr
	for _, a := range e.args {
		switch {
		case a.isBool(!neutral):
			return boolean(!neutral)
		case !a.isBool(neutral):
			kept = append(kept, a)
		}
	}
	if neutral {
		return and(kept)
	}
	return or(kept)
}

// constant reads a constant's value.
func (x *expander) constant(e *expr) error {
	if e.null {
		return nil
	}
	t, err := x.sqlType(e.typ)
	if err != nil {
		return err
	}
	label := func(oid uint32) (string, bool) {
		s, ok := t.Labels[strconv.FormatUint(uint64(oid), 10)]
		return s, ok
	}
	if t.Kind != "e" {
		label = nil
	}
	e.text, err = datumText(e.typ, e.datum, label)
	return err
}

// castable refuses casts by the functions of types that may do anything, or look
// into the catalog.
func (x *expander) castable(e *expr) error {
	for _, oid := range []uint32{e.typ, e.args[0].typ} {
		t, err := x.sqlType(oid)
		if err != nil {
			return err
		}
		if t.Element != 0 {
			oid = t.Element
			if t, err = x.sqlType(oid); err != nil {
				return err
			}
		}
		if !plainTypes[oid] && t.Kind != "e" {
			return refuse("a cast between %s and text", t.Name)
		}
	}
	return nil
}

// plainTypes are PostgreSQL's own types whose texts mean the same to everybody.
var plainTypes = map[uint32]bool{
	oidBool: true, oidBytea: true, oidName: true, oidInt8: true, oidInt2: true, oidInt4: true, oidText: true, oidOID: true, oidJSON: true,
	oidFloat4: true, oidFloat8: true, oidBpchar: true, oidVarchar: true, oidDate: true, oidTime: true, oidTimestamp: true, oidTimestamptz: true,
	oidInterval: true, oidNumeric: true, oidUUID: true, oidJSONB: true, 869: true /* inet */, 650: true /* cidr */, 829: true, /* macaddr */
}

// permitted refuses a function that cannot be called on somebody's behalf.
func (x *expander) permitted(oid uint32, s scope) error {
	if oid == 0 {
		return refuse("an operator without its function")
	}
	f, err := x.function(oid)
	if err != nil {
		return err
	}
	switch {
	case !f.Builtin:
		return refuse("the function %s.%s, whose body is not one SELECT in SQL", f.Schema, f.Name)
	case f.Kind != "f":
		return refuse("the function %s", f.Name)
	case f.Volatility == "v" || f.Volatility == "s" && !stableFunctions[f.Source]:
		return refuse("the function %s, whose result depends on who calls it or changes", f.Name)
	}
	may, err := x.mayExecute(s.role, oid)
	if err == nil && !may {
		return refuse("the function %s, which %s may not execute", f.Name, s.role.name)
	}
	return err
}

func (x *expander) permittedAggregate(oid uint32) error {
	f, err := x.function(oid)
	if err != nil {
		return err
	}
	if !f.Builtin || !slices.Contains([]string{"count", "min", "max", "bool_and", "bool_or", "every", "sum"}, f.Name) {
		return refuse("the aggregate %s", f.Name)
	}
	return nil
}

// stableFunctions are the server's own functions, by their names in C, whose
// results depend on the time or on settings that every session here shares.
var stableFunctions = set(
	"now",
	"timestamptz_date", "date_timestamptz", "timestamp_timestamptz", "timestamptz_timestamp", "timestamptz_time", "timestamptz_timetz", "timestamptz_trunc",
	"timestamptz_pl_interval", "timestamptz_mi_interval", "timestamptz_part", "extract_timestamptz",
	"date_eq_timestamptz", "date_ne_timestamptz", "date_lt_timestamptz", "date_le_timestamptz", "date_gt_timestamptz", "date_ge_timestamptz", "date_cmp_timestamptz",
	"timestamptz_eq_date", "timestamptz_ne_date", "timestamptz_lt_date", "timestamptz_le_date", "timestamptz_gt_date", "timestamptz_ge_date", "timestamptz_cmp_date",
	"timestamp_eq_timestamptz", "timestamp_ne_timestamptz", "timestamp_lt_timestamptz", "timestamp_le_timestamptz", "timestamp_gt_timestamptz", "timestamp_ge_timestamptz",
	"timestamptz_eq_timestamp", "timestamptz_ne_timestamp", "timestamptz_lt_timestamp", "timestamptz_le_timestamp", "timestamptz_gt_timestamp", "timestamptz_ge_timestamp",
	"text_concat", "text_concat_ws", "array_to_text", "array_to_text_null", "text_to_array", "to_jsonb", "jsonb_build_object", "jsonb_build_array",
)

func set(names ...string) map[string]bool {
	m := map[string]bool{}
	for _, n := range names {
		m[n] = true
	}
	return m
}

// claimSetting reports whether e reads one of the settings that tell who asks.
func (x *expander) claimSetting(e *expr) (string, bool) {
	if e.kind != kFunc || len(e.args) != 2 {
		return "", false
	}
	f := x.functions[e.fn]
	if f == nil || !f.Builtin || f.Source != settingFunction || e.args[0].kind != kConst || !e.args[1].isBool(true) {
		return "", false
	}
	name := e.args[0].text
	return name, claimSettings[name]
}

// settingFunction is current_setting(text, boolean).
const settingFunction = "show_config_by_name_missing_ok"

// claimSettings are those that pg.As and pg.AsEach set. The others of the
// legacy names are never set: NULL.
var claimSettings = set("request.jwt.claims", "request.jwt.claim.sub", "request.jwt.claim.role")

// call expands a call of a function.
func (x *expander) call(e *expr, s scope) (*expr, error) {
	f, err := x.function(e.fn)
	if err != nil {
		return nil, err
	}
	if f.Builtin && f.Source == settingFunction {
		name := e.args[0].text
		switch _, ok := x.claimSetting(e); {
		case ok:
			return e, nil
		case e.args[0].kind == kConst && e.args[1].isBool(true) && strings.HasPrefix(name, "request.jwt.claim"):
			return &expr{kind: kConst, typ: oidText, mod: -1, null: true}, nil
		}
		return nil, refuse("current_setting of what is no claim")
	}
	if f.Builtin && f.Language == "internal" {
		return e, x.permitted(e.fn, s)
	}
	body, err := x.inline(e, f, s)
	if err != nil {
		return nil, within(err, "the function %s.%s", f.Schema, f.Name)
	}
	if e.not {
		if f.Strict {
			return nil, refuse("%s.%s, a STRICT function that returns a set", f.Schema, f.Name)
		}
		// A set stands in FROM, or alone in a select list: see query.
		return &expr{kind: kFunc, typ: e.typ, mod: -1, fn: e.fn, not: true, query: body}, nil
	}
	one := body.limit == nil && len(body.from) > 0 && !(body.aggregate && len(body.group) == 0)
	if one {
		body.limit = &expr{kind: kConst, typ: oidInt8, mod: -1, text: "1"}
	}
	out := (&expr{kind: kSubLink, link: linkExpr, typ: e.typ, mod: -1, query: body}).simplify()
	if f.Strict {
		out = strict(out, e.args)
	}
	if len(e.args) == 0 {
		named := *out
		named.label = f.Schema + "." + f.Name + "()"
		out = &named
	}
	return out, nil
}

// strict returns NULL when an argument is NULL.
func strict(body *expr, args []*expr) *expr {
	c := &expr{kind: kCase, typ: body.typ, mod: -1}
	for _, a := range args {
		if a.kind == kConst && !a.null {
			continue
		}
		null := &expr{kind: kIsNull, typ: oidBool, mod: -1, args: []*expr{a}}
		c.args = append(c.args, null, &expr{kind: kConst, typ: body.typ, mod: -1, null: true})
	}
	if len(c.args) == 0 {
		return body
	}
	c.args = append(c.args, body)
	return c
}

// inline returns the body of a function in SQL with the arguments in place, as the
// role that it runs as sees its tables.
func (x *expander) inline(e *expr, f *function, s scope) (*query, error) {
	if f.Language != "sql" || f.Kind != "f" {
		return nil, refuse("a body in %s", f.Language)
	}
	if f.Outputs || f.Variadic {
		return nil, refuse("OUT or VARIADIC parameters")
	}
	may, err := x.mayExecute(s.role, e.fn)
	if err != nil {
		return nil, err
	}
	if !may {
		return nil, refuse("%s may not execute it", s.role.name)
	}
	inner, err := s.deeper()
	if err != nil {
		return nil, err
	}
	if f.Definer {
		if inner.role, err = x.role(f.Owner); err != nil {
			return nil, err
		}
	}
	body, err := x.body(e.fn, f)
	if err != nil {
		return nil, err
	}
	if len(body.targets) != 1 || body.targets[0].typ != f.Result {
		return nil, refuse("a body whose result has to be converted")
	}
	if f.Body == nil {
		// A body that is text is read at every call, as whoever it runs as.
		if err := x.nameable(body, inner.role); err != nil {
			return nil, err
		}
	}
	if body, err = x.query(body, inner); err != nil {
		return nil, err
	}
	if len(e.args) != len(f.Inputs) {
		return nil, refuse("arguments left to their defaults")
	}
	// Arguments are evaluated once by a call, and here wherever they stand: what
	// changes by itself is refused above, and a sub-select only costs.
	missing := false
	body = body.replaceAt(func(p *expr, depth int) *expr {
		if p.kind != kParam {
			return nil
		}
		if p.att < 1 || p.att > len(e.args) {
			missing = true
			return p
		}
		return e.args[p.att-1].shift(depth)
	}, 1)
	if missing {
		return nil, refuse("a parameter that is none")
	}
	return body, nil
}

// nameable refuses a body with a name in a schema that a role may not use: there
// the name is another thing, or none.
func (x *expander) nameable(q *query, role *acting) error {
	var failed error
	check := func(schema string) {
		if failed != nil || schema == "pg_catalog" {
			return
		}
		may, err := x.ask("select has_schema_privilege($1::oid, $2, 'USAGE')", role.oid, schema)
		if failed = err; err == nil && !may {
			failed = refuse("schema %s, which %s may not use", schema, role.name)
		}
	}
	note := func(schema string, err error) {
		if failed == nil {
			failed = err
		}
		check(schema)
	}
	(&expr{kind: kSubLink, query: q}).walk(func(e *expr, _ int) bool {
		if e.op != 0 {
			o, err := x.operator(e.op)
			note(o.schema, err)
		} else if e.fn != 0 {
			f, err := x.function(e.fn)
			if err != nil {
				note("pg_catalog", err)
				return false
			}
			check(f.Schema)
		}
		if e.typ != 0 {
			t, err := x.sqlType(e.typ)
			if err != nil {
				note("pg_catalog", err)
				return false
			}
			check(t.Schema)
		}
		if e.query != nil {
			x.tablesOf(e.query, note)
		}
		return failed == nil
	})
	return failed
}

// tablesOf notes the schemas of a query's tables.
func (x *expander) tablesOf(q *query, note func(schema string, err error)) {
	for _, r := range q.rels {
		switch {
		case r.oid != 0:
			rel, err := x.relation(r.oid)
			if err != nil {
				note("pg_catalog", err)
				return
			}
			note(rel.Schema, nil)
		case r.sub != nil:
			x.tablesOf(r.sub, note)
		}
	}
}

// query expands a sub-select: every table gets the reader's policies.
func (x *expander) query(q *query, s scope) (*query, error) {
	c := *q
	var err error
	c.rels = slices.Clone(q.rels)
	outer := slices.ContainsFunc(q.from, (*joinNode).outer)
	var guards []*expr
	for i, r := range c.rels {
		n := *r
		c.rels[i] = &n
		switch {
		case r.oid != 0:
			guard, err := x.read(q, i+1, s)
			if err != nil {
				return nil, err
			}
			if guard != nil && outer {
				return nil, refuse("an outer join of tables with row level security")
			}
			guards = append(guards, guard)
		case r.sub != nil:
			if n.sub, err = x.query(r.sub, s); err != nil {
				return nil, err
			}
		case r.call != nil:
			if n.call, err = x.expr(r.call, s); err != nil {
				return nil, err
			}
			if n.call.query != nil && n.call.kind == kFunc { // a set from a function in SQL
				n.sub, n.call = n.call.query, nil
			}
		}
	}
	c.from = slices.Clone(q.from)
	for i, j := range c.from {
		if c.from[i], err = x.join(j, s); err != nil {
			return nil, err
		}
	}
	if c.where, err = x.expr(q.where, s); err != nil {
		return nil, err
	}
	if c.limit, err = x.expr(q.limit, s); err != nil {
		return nil, err
	}
	if c.targets, err = x.list(q.targets, s); err != nil {
		return nil, err
	}
	if c.group, err = x.list(q.group, s); err != nil {
		return nil, err
	}
	for _, g := range guards {
		switch {
		case g == nil:
		case c.where == nil:
			c.where = g
		default:
			c.where = (&expr{kind: kAnd, typ: oidBool, mod: -1, args: []*expr{c.where, g}}).fold()
		}
	}
	return c.flattenJoins().liftSet()
}

// liftSet moves a set from a function in SQL out of a select list into FROM.
func (q *query) liftSet() (*query, error) {
	for i, t := range q.targets {
		if t.kind != kFunc || t.query == nil {
			continue
		}
		if len(q.targets) != 1 || len(q.from) > 0 || q.where != nil || q.limit != nil {
			return nil, refuse("a set beside other columns")
		}
		q.rels = append(q.rels, &rangeEntry{sub: t.query})
		q.from = []*joinNode{{rel: len(q.rels)}}
		q.targets[i] = &expr{kind: kVar, typ: t.typ, mod: -1, rel: len(q.rels), att: 1}
	}
	return q, nil
}

func (x *expander) join(j *joinNode, s scope) (*joinNode, error) {
	if j == nil {
		return nil, nil
	}
	c := *j
	var err error
	if c.left, err = x.join(j.left, s); err != nil {
		return nil, err
	}
	if c.right, err = x.join(j.right, s); err != nil {
		return nil, err
	}
	c.on, err = x.expr(j.on, s)
	return &c, err
}

// outer reports whether a join is or holds an outer one.
func (j *joinNode) outer() bool {
	return j != nil && j.rel == 0 && (j.kind != 0 || j.left.outer() || j.right.outer())
}

// flattenJoins replaces the columns of joins by those of their tables. Only the
// merged columns of a FULL JOIN are more than that; they stay what they are.
func (q *query) flattenJoins() *query {
	var flatten func(e *expr, depth int) *expr
	flatten = func(e *expr, depth int) *expr {
		if e.kind != kVar || e.level != depth || e.rel < 1 || e.rel > len(q.rels) {
			return nil
		}
		if r := q.rels[e.rel-1]; r.join != nil && e.att <= len(r.join) {
			return r.join[e.att-1].replaceAt(flatten, 0).shift(depth)
		}
		return nil
	}
	return q.replaceAt(flatten, 0)
}

// read checks that the reader may read table i of q, and returns the condition
// under which a row is seen; nil for every row.
func (x *expander) read(q *query, i int, s scope) (*expr, error) {
	if x.tables++; x.tables > maxTables {
		return nil, refuse("more than %d tables", maxTables)
	}
	oid := q.rels[i-1].oid
	r, err := x.relation(oid)
	if err != nil {
		return nil, err
	}
	if r.Kind != "r" && r.Kind != "p" {
		return nil, refuse("%s.%s, which is no table", r.Schema, r.Name)
	}
	columns := []int16{}
	q.replaceAt(func(e *expr, depth int) *expr {
		if e.kind == kVar && e.level == depth && e.rel == i && !slices.Contains(columns, int16(e.att)) {
			columns = append(columns, int16(e.att))
		}
		return nil
	}, 0)
	slices.Sort(columns)
	may, err := x.maySelect(s.role, oid, columns)
	if err != nil {
		return nil, err
	}
	if !may {
		return nil, refuse("%s.%s, which %s may not select", r.Schema, r.Name, s.role.name)
	}
	guard, err := x.visible(s.role, r)
	if err != nil || guard == nil {
		return nil, within(err, "row level security of %s.%s", r.Schema, r.Name)
	}
	inner, err := s.deeper()
	if err != nil {
		return nil, err
	}
	if guard, err = x.expr(guard, inner); err != nil {
		return nil, within(err, "row level security of %s.%s", r.Schema, r.Name)
	}
	return guard.replace(func(e *expr, depth int) *expr {
		if e.kind != kVar || e.level != depth {
			return nil
		}
		c := *e
		c.rel = i
		return &c
	}), nil
}
