package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice/pg"
)

// maxBranches bounds the alternatives of a condition that are joined apart.
const maxBranches = 8

// compileSet writes the statements of tier 2, and lets PostgreSQL look at them.
//
// SQL has as parameters the array of rows (see AppendRow), then for every slot an
// array of text with a value for each of those who ask. It returns pairs of
// numbers, from 1 on: a row, and somebody who sees it; NULL is everybody.
//
// OpenSQL, where there is one, does not say who asks: it has the rows alone, and a
// number that bounds its result. It returns a row's number with a value that those
// who see it have in slot OpenSlot; NULL is everybody. It exists when whoever sees
// a row must have one claim equal to something that the tables tell, such as
// members.user_id = auth.uid().
//
// A table that must have a row for the condition to hold stands in FROM beside
// rows and askers, so that the planner may begin where there is least: with the
// rows of the batch, or with those who ask.
func (c *compiler) compileSet(p *Plan, e *expr) error {
	p.OpenSlot = -1
	alternatives := branches(e)
	if len(alternatives) > 1 && c.mayRaise(e) {
		// An error in one alternative is a no, and where it is not evaluated
		// another may say yes: PostgreSQL's order has to stay.
		alternatives = []*expr{e}
	}
	closed, open := make([]string, len(alternatives)), make([]string, 0, len(alternatives))
	for i, b := range alternatives {
		text, found, err := c.closed(b)
		if err != nil {
			return err
		}
		closed[i] = text
		if slot, sql := c.open(b, found); sql != "" && (slot < 0 || p.OpenSlot < 0 || slot == p.OpenSlot) {
			p.OpenSlot = max(p.OpenSlot, slot)
			p.openToAll = p.openToAll || slot < 0
			open = append(open, sql)
		}
	}
	p.SQL = "with " + c.rowsSQL() + ", " + claimsSQL(p.types) + " " + strings.Join(closed, " union ")
	if err := c.accepted(p.SQL); err != nil {
		return err
	}
	if len(open) < len(closed) || p.OpenSlot < 0 {
		p.OpenSlot = -1
		return nil
	}
	p.OpenSQL = "with " + c.rowsSQL() + " select * from (" + strings.Join(open, " union ") + ") as o limit $2"
	if err := c.accepted(p.OpenSQL); err != nil {
		p.OpenSQL, p.OpenSlot = "", -1 // a lateral sub-select that refers to what follows it
	}
	return nil
}

// accepted lets PostgreSQL analyse a statement: one that it refuses is none.
func (c *compiler) accepted(sql string) error {
	probe, err := c.tx.Begin(c.ctx)
	if err != nil {
		return pg.Wrap(err, "check a statement")
	}
	defer probe.Rollback(c.ctx) //nolint:errcheck // the transaction is rolled back anyway
	_, err = probe.Conn().PgConn().Prepare(c.ctx, "", sql, nil)
	if pg.SQLState(err) != "" && !probe.Conn().PgConn().IsClosed() {
		return refuse("a statement that PostgreSQL refuses (%v)", err)
	}
	return pg.Wrap(err, "check a statement")
}

// closed writes one alternative with the relation of those who ask. It returns what
// the claims have to equal.
func (c *compiler) closed(e *expr) (string, *selection, error) {
	w, sel := c.writer(), &selection{}
	if err := w.flatten(e, sel); err != nil {
		return "", nil, err
	}
	sel.slots = w.slots
	asker, from := "c.g", []string{"r", "c"}
	if len(w.slots) == 0 {
		asker, from = "null::pg_catalog.int8", from[:1]
	}
	return sel.sql("r.n, "+asker, from), sel, nil
}

// open writes one alternative without those who ask: in place of a claim stands
// what it has to equal. slot is -1 when everybody sees the rows.
func (c *compiler) open(e *expr, found *selection) (slot int, sql string) {
	switch len(found.slots) {
	case 0:
		return -1, found.sql("r.n, null::pg_catalog.text", []string{"r"})
	case 1:
		for slot = range found.slots {
		}
		value, ok := found.equal[slot]
		if !ok {
			return -1, ""
		}
		w, sel := c.writer(), &selection{}
		w.replaced = map[int]string{slot: value}
		if err := w.flatten(e, sel); err != nil {
			return -1, ""
		}
		return slot, sel.sql("r.n, "+value+"::pg_catalog.text", []string{"r"})
	}
	return -1, ""
}

func (c *compiler) writer() *sqlWriter {
	return &sqlWriter{c: c, frames: []*frame{{top: true}}, slots: map[int]bool{}}
}

// rowsSQL is the relation of the batch's rows: k0, k1, … and the number n.
func (c *compiler) rowsSQL() string {
	names := make([]string, len(c.in.Table.Columns))
	for i := range names {
		names[i] = "k" + strconv.Itoa(i)
	}
	return "r as (select * from pg_catalog.unnest($1::" + pgx.Identifier{c.in.Table.Schema, c.in.Table.Name}.Sanitize() +
		"[]) with ordinality as r (" + strings.Join(append(names, "n"), ", ") + "))"
}

// claimsSQL is the relation of those who ask: s0, s1, … and the number g.
func claimsSQL(types []string) string {
	if len(types) == 0 {
		return "c as (select 1 as g)"
	}
	arrays, names, cast := make([]string, len(types)), make([]string, len(types)), make([]string, len(types))
	for i, t := range types {
		n := strconv.Itoa(i)
		arrays[i], names[i], cast[i] = "pg_catalog.unnest($"+strconv.Itoa(i+2)+"::pg_catalog.text[])", "s"+n, "s"+n+"::"+t+" as s"+n
	}
	return "c as (select " + strings.Join(cast, ", ") + ", g from rows from (" + strings.Join(arrays, ", ") +
		") with ordinality as c (" + strings.Join(append(names, "g"), ", ") + "))"
}

// branches are alternatives of which one must hold. Only those that read tables are
// worth being apart.
func branches(e *expr) []*expr {
	switch e.kind {
	case kOr:
		if !e.readsTables() {
			break
		}
		var out []*expr
		for _, a := range e.args {
			out = append(out, branches(a)...)
		}
		if len(out) <= maxBranches {
			return out
		}
	case kAnd:
		out := [][]*expr{nil}
		for _, a := range e.args {
			var next [][]*expr
			for _, b := range branches(a) {
				for _, o := range out {
					next = append(next, append(slices.Clip(o), b))
				}
			}
			if out = next; len(out) > maxBranches {
				return []*expr{e}
			}
		}
		list := make([]*expr, len(out))
		for i, o := range out {
			list[i] = and(o)
		}
		return list
	}
	return []*expr{e}
}

// mayRaise reports whether evaluating e can raise an error.
func (c *compiler) mayRaise(e *expr) bool {
	return !e.walk(func(x *expr, _ int) bool {
		switch x.kind {
		case kOp, kArrayOp, kDistinct, kNullIf, kFunc:
			f := c.functions[x.fn]
			return f != nil && f.Builtin && (total.MatchString(f.Source) || jsonFunctions[f.Source] != nil)
		case kViaIO:
			return x.typ == oidText || x.typ == oidVarchar
		case kSubLink:
			return x.link != linkExpr // of several rows
		case kArrayViaIO, kMinMax, kAggregate:
			return false
		}
		return true
	})
}

// total are functions, by their names in C, that have a result for all arguments.
var total = regexp.MustCompile(`^((bool|int2|int4|int8|int24|int42|int28|int82|int48|int84|text_?|bpchar|name|uuid_|enum_|date_|timestamp_|timestamptz_|time_|interval_|numeric_|float4|float8|float48|float84|array_|jsonb_|bytea|network_)(eq|ne|lt|le|gt|ge)|now|booltext|i2toi4|int48|int28|arraycontains|arraycontained|arrayoverlap|jsonb_contains|jsonb_contained)$`)

func (e *expr) readsTables() bool {
	return !e.walk(func(x *expr, _ int) bool { return x.kind != kSubLink })
}

// selection is a FROM and a WHERE.
type selection struct {
	from, where []string
	equal       map[int]string // by slot: what must be equal to it
	slots       map[int]bool   // that are read
}

func (s *selection) sql(targets string, from []string) string {
	text := "select "
	if len(s.from) > 0 { // each pair of rows and askers may be joined several times
		text += "distinct "
	}
	text += targets + " from " + strings.Join(append(from, s.from...), ", ")
	if len(s.where) > 0 {
		text += " where " + strings.Join(s.where, " and ")
	}
	return text
}

// frame is a query whose parts are being written.
type frame struct {
	top   bool // the relation of rows
	query *query
	names []string // of its tables
}

// sqlWriter writes an expanded condition as SQL. There is nothing in it but names
// that the catalog has, quoted, operators with their schemas, and constants.
type sqlWriter struct {
	c      *compiler
	frames []*frame
	tables int
	slots  map[int]bool // that were written
	// replaced are slots in whose place something else is written.
	replaced map[int]string
	plain    bool // for people
}

// flatten writes a condition that must hold: what joins, joins.
func (w *sqlWriter) flatten(e *expr, sel *selection) error {
	switch {
	case e.kind == kAnd:
		for _, a := range e.args {
			if err := w.flatten(a, sel); err != nil {
				return err
			}
		}
		return nil
	case e.kind == kSubLink && (e.link == linkExists || e.link == linkAny) && joinable(e.query):
		return w.joinSub(e, sel)
	}
	if err := w.noteEqual(e, sel); err != nil {
		return err
	}
	text, err := w.expr(e)
	sel.where = append(sel.where, text)
	return err
}

// noteEqual notes a condition by which a slot must be equal to something.
func (w *sqlWriter) noteEqual(e *expr, sel *selection) error {
	if e.kind != kOp || len(e.args) != 2 {
		return nil
	}
	a, b := e.args[0], e.args[1]
	if plainArg(a).kind == kSlot {
		a, b = b, a
	}
	text, err := w.expr(a)
	w.note(e, a, plainArg(b), text, sel)
	return err
}

// note keeps that slot has to equal what text says, if that is so by a type in
// which equal is the same, and if text says it without a claim.
func (w *sqlWriter) note(op, other, slot *expr, text string, sel *selection) {
	f := w.c.functions[op.fn]
	if f == nil || !sameWhenEqual[f.Source] || slot.kind != kSlot || sel.equal[slot.att] != "" {
		return
	}
	if !other.walk(func(x *expr, _ int) bool { return x.kind != kSlot && x.kind != kSubLink }) {
		return
	}
	if sel.equal == nil {
		sel.equal = map[int]string{}
	}
	sel.equal[slot.att] = text
}

// sameWhenEqual are operators between values of one type that are equal only when
// their texts are.
var sameWhenEqual = set("uuid_eq", "texteq", "int2eq", "int4eq", "int8eq")

// joinable reports whether a sub-select may stand in FROM: its rows are not
// counted, cut or computed from one another.
func joinable(q *query) bool {
	set := slices.ContainsFunc(q.targets, func(t *expr) bool {
		return !t.walk(func(x *expr, depth int) bool { return depth > 0 || x.kind != kFunc || !x.not })
	})
	return len(q.from) > 0 && q.limit == nil && !q.aggregate && len(q.group) == 0 && !set && !slices.ContainsFunc(q.from, (*joinNode).outer)
}

func (w *sqlWriter) joinSub(e *expr, sel *selection) error {
	left, op := "", ""
	var target *expr
	if e.link == linkAny {
		var err error
		if left, op, target, err = w.test(e); err != nil {
			return err
		}
	}
	w.push(e.query)
	defer w.pop()
	for _, j := range e.query.from {
		text, err := w.join(j)
		if err != nil {
			return err
		}
		sel.from = append(sel.from, text)
	}
	if e.link == linkAny {
		right, err := w.expr(target)
		if err != nil {
			return err
		}
		sel.where = append(sel.where, "("+left+op+right+")")
		t := plainArg(e.args[0])
		w.note(t, target, plainArg(t.args[0]), right, sel)
	}
	if e.query.where == nil {
		return nil
	}
	return w.flatten(e.query.where, sel)
}

// test takes the comparison of ANY or ALL apart: the left side, the operator, and
// the sub-select's column as it is compared.
func (w *sqlWriter) test(e *expr) (left, op string, target *expr, err error) {
	t := e.args[0]
	for t.kind == kRelabel {
		t = t.args[0]
	}
	if t.kind != kOp || len(t.args) != 2 {
		return "", "", nil, refuse("a comparison with a sub-select of an unusual kind")
	}
	if left, err = w.expr(t.args[0]); err != nil {
		return "", "", nil, err
	}
	if op, err = w.operator(t); err != nil {
		return "", "", nil, err
	}
	found := false
	target = t.args[1].replace(func(x *expr, _ int) *expr {
		if x.kind == kTest {
			found = true
			return e.query.targets[0]
		}
		return nil
	})
	// What stands around the column must not look outside: there it would be a
	// level off.
	if !found || t.args[1].refs(0) {
		return "", "", nil, refuse("a comparison with a sub-select of an unusual kind")
	}
	return left, op, target, nil
}

func (w *sqlWriter) push(q *query) {
	f := &frame{query: q}
	for range q.rels {
		w.tables++
		f.names = append(f.names, "t"+strconv.Itoa(w.tables))
	}
	w.frames = append(w.frames, f)
}

func (w *sqlWriter) pop() { w.frames = w.frames[:len(w.frames)-1] }

// operator writes an operator between its arguments.
func (w *sqlWriter) operator(e *expr) (string, error) {
	if !deterministic[e.coll] {
		return "", refuse("a collation of its own")
	}
	o, err := w.c.operator(e.op)
	if w.plain {
		return " " + o.name + " ", err
	}
	return " operator(" + ident(o.schema) + "." + o.name + ") ", err
}

func (w *sqlWriter) list(list []*expr) ([]string, error) {
	out := make([]string, len(list))
	for i, e := range list {
		var err error
		if out[i], err = w.expr(e); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (w *sqlWriter) typeName(oid uint32) (string, error) {
	t, err := w.c.sqlType(oid)
	if err != nil {
		return "", err
	}
	if w.plain {
		return strings.TrimPrefix(t.Name, "pg_catalog."), nil
	}
	return t.Name, nil
}

// expr writes an expression, in parentheses where it is more than a name.
func (w *sqlWriter) expr(e *expr) (string, error) {
	if w.plain && e.label != "" {
		return e.label, nil
	}
	switch e.kind {
	case kVar:
		return w.column(e)
	case kSlot:
		if text, ok := w.replaced[e.att]; ok {
			return text, nil
		}
		if w.slots != nil {
			w.slots[e.att] = true
		}
		return "c.s" + strconv.Itoa(e.att), nil
	case kSubLink:
		return w.subLink(e)
	case kConst:
		return w.constant(e)
	case kNow:
		return now(e)
	}
	args, err := w.list(e.args)
	if err != nil {
		return "", err
	}
	switch e.kind {
	case kOp, kArrayOp:
		return w.operation(e, args)
	case kFunc:
		return w.call(e, args)
	case kAggregate:
		return w.aggregate(e, args)
	case kDistinct, kNullIf, kMinMax:
		if !deterministic[e.coll] {
			return "", refuse("a collation of its own")
		}
	}
	switch e.kind {
	case kDistinct:
		return "(" + args[0] + " is distinct from " + args[1] + ")", nil
	case kNullIf:
		return "nullif(" + args[0] + ", " + args[1] + ")", nil
	case kMinMax:
		return map[bool]string{false: "greatest(", true: "least("}[e.not] + strings.Join(args, ", ") + ")", nil
	case kAnd:
		return "(" + strings.Join(args, " and ") + ")", nil
	case kOr:
		return "(" + strings.Join(args, " or ") + ")", nil
	case kNot:
		return "(not " + args[0] + ")", nil
	case kIsNull:
		return "(" + args[0] + map[bool]string{false: " is null)", true: " is not null)"}[e.not], nil
	case kIsBool:
		tests := []string{"true", "not true", "false", "not false", "unknown", "not unknown"}
		if e.att < 0 || e.att >= len(tests) {
			return "", refuse("a test of an unknown kind")
		}
		return "(" + args[0] + " is " + tests[e.att] + ")", nil
	case kRelabel, kViaIO, kArrayViaIO, kArray:
		t, err := w.typeName(e.typ)
		if e.kind == kArray {
			return "array[" + strings.Join(args, ", ") + "]::" + t, err
		}
		return "(" + args[0] + ")::" + t, err
	case kCollate:
		name := map[uint32]string{100: "default", 950: "C", 951: "POSIX"}[e.coll]
		if name == "" {
			return "", refuse("a collation of its own")
		}
		return "(" + args[0] + " collate pg_catalog." + ident(name) + ")", nil
	case kCoalesce:
		return "coalesce(" + strings.Join(args, ", ") + ")", nil
	case kCase:
		var b strings.Builder
		b.WriteString("(case")
		for i := 0; i+1 < len(args); i += 2 {
			b.WriteString(" when " + args[i] + " then " + args[i+1])
		}
		b.WriteString(" else " + args[len(args)-1] + " end)")
		return b.String(), nil
	}
	return "", refuse("an expression of an unusual kind")
}

// now writes CURRENT_DATE and the like; those with a precision are left out.
func now(e *expr) (string, error) {
	name := map[int]string{0: "current_date", 1: "current_time", 3: "current_timestamp", 5: "localtime", 7: "localtimestamp"}[e.att]
	if name == "" {
		return "", refuse("a time with a precision")
	}
	return name, nil
}

func (w *sqlWriter) operation(e *expr, args []string) (string, error) {
	op, err := w.operator(e)
	if err != nil {
		return "", err
	}
	switch {
	case e.kind == kArrayOp && len(args) == 2:
		return "(" + args[0] + op + map[bool]string{false: "any", true: "all"}[e.all] + " (" + args[1] + "))", nil
	case len(args) == 1:
		return "(" + op + args[0] + ")", nil
	case len(args) == 2:
		return "(" + args[0] + op + args[1] + ")", nil
	}
	return "", refuse("an operator of an unusual kind")
}

func (w *sqlWriter) call(e *expr, args []string) (string, error) {
	if !deterministic[e.coll] {
		return "", refuse("a collation of its own")
	}
	f, err := w.c.function(e.fn)
	if err != nil {
		return "", err
	}
	if _, claim := w.c.claimSetting(e); claim && !w.plain {
		return "", refuse("a claim that is read in an unusual way")
	}
	if e.all && len(args) > 0 {
		args[len(args)-1] = "variadic " + args[len(args)-1]
	}
	return pgx.Identifier{f.Schema, f.Name}.Sanitize() + "(" + strings.Join(args, ", ") + ")", nil
}

func (w *sqlWriter) aggregate(e *expr, args []string) (string, error) {
	if !deterministic[e.coll] {
		return "", refuse("a collation of its own")
	}
	f, err := w.c.function(e.fn)
	if err != nil {
		return "", err
	}
	inside := strings.Join(args, ", ")
	if e.not {
		inside = "*"
	}
	if e.all {
		inside = "distinct " + inside
	}
	return pgx.Identifier{f.Schema, f.Name}.Sanitize() + "(" + inside + ")", nil
}

func (w *sqlWriter) constant(e *expr) (string, error) {
	t, err := w.typeName(e.typ)
	switch {
	case err != nil:
		return "", err
	case e.null:
		return "null::" + t, nil
	case w.plain && e.typ == oidText:
		return literal(e.text), nil
	}
	return literal(e.text) + "::" + t, nil
}

// literal quotes a string, whatever standard_conforming_strings is.
func literal(s string) string {
	q := strings.ReplaceAll(s, "'", "''")
	if strings.Contains(q, `\`) {
		return " E'" + strings.ReplaceAll(q, `\`, `\\`) + "'"
	}
	return "'" + q + "'"
}

// column writes a reference to a column of one of the queries around it.
func (w *sqlWriter) column(e *expr) (string, error) {
	i := len(w.frames) - 1 - e.level
	if i < 0 {
		return "", refuse("a column of nowhere")
	}
	f := w.frames[i]
	if f.top {
		at := w.c.place(e.att)
		if at < 0 || e.rel != 1 {
			return "", refuse("a column that the row does not have")
		}
		if w.plain {
			return ident(w.c.in.Table.Columns[at]), nil
		}
		return "r.k" + strconv.Itoa(at), nil
	}
	if e.rel < 1 || e.rel > len(f.names) {
		return "", refuse("a column of nowhere")
	}
	name := f.names[e.rel-1]
	switch r := f.query.rels[e.rel-1]; {
	case r.oid != 0:
		rel, err := w.c.relation(r.oid)
		if err != nil {
			return "", err
		}
		col, ok := rel.column(e.att)
		if !ok {
			return "", refuse("a column that is gone")
		}
		return name + "." + ident(col.Name), nil
	case r.sub != nil && e.att <= len(r.sub.targets), r.call != nil && e.att == 1:
		return name + ".c" + strconv.Itoa(e.att), nil
	}
	return "", refuse("a column of a join or a function of several")
}

func (w *sqlWriter) subLink(e *expr) (string, error) {
	if e.link == linkAny || e.link == linkAll {
		left, op, target, err := w.test(e)
		if err != nil {
			return "", err
		}
		q := *e.query
		q.targets = []*expr{target}
		text, err := w.query(&q)
		return "(" + left + op + map[linkKind]string{linkAny: "any", linkAll: "all"}[e.link] + " (" + text + "))", err
	}
	text, err := w.query(e.query)
	switch e.link {
	case linkExists:
		return "exists (" + text + ")", err
	case linkArray:
		return "array(" + text + ")", err
	}
	return "(" + text + ")", err
}

// query writes a SELECT.
func (w *sqlWriter) query(q *query) (string, error) {
	w.push(q)
	defer w.pop()
	targets, err := w.list(q.targets)
	if err != nil {
		return "", err
	}
	for i := range targets {
		targets[i] += " as c" + strconv.Itoa(i+1)
	}
	var b strings.Builder
	b.WriteString("select ")
	if q.distinct {
		b.WriteString("distinct ")
	}
	b.WriteString(strings.Join(targets, ", "))
	for i, j := range q.from {
		text, err := w.join(j)
		if err != nil {
			return "", err
		}
		b.WriteString(map[bool]string{true: " from ", false: ", "}[i == 0] + text)
	}
	if q.where != nil {
		text, err := w.expr(q.where)
		if err != nil {
			return "", err
		}
		b.WriteString(" where " + text)
	}
	if len(q.group) > 0 {
		groups, err := w.list(q.group)
		if err != nil {
			return "", err
		}
		b.WriteString(" group by " + strings.Join(groups, ", "))
	}
	if q.limit != nil {
		text, err := w.expr(q.limit)
		if err != nil {
			return "", err
		}
		b.WriteString(" limit " + text)
	}
	return b.String(), nil
}

func (w *sqlWriter) join(j *joinNode) (string, error) {
	if j.rel != 0 {
		return w.table(j.rel)
	}
	left, err := w.join(j.left)
	if err != nil {
		return "", err
	}
	right, err := w.join(j.right)
	if err != nil {
		return "", err
	}
	on := "true"
	if j.on != nil {
		if on, err = w.expr(j.on); err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("(%s %s join %s on %s)", left, []string{"inner", "left", "full", "right"}[j.kind], right, on), nil
}

// table writes an entry of FROM.
func (w *sqlWriter) table(rel int) (string, error) {
	f := w.frames[len(w.frames)-1]
	name := f.names[rel-1]
	switch r := f.query.rels[rel-1]; {
	case r.oid != 0:
		t, err := w.c.relation(r.oid)
		if err != nil {
			return "", err
		}
		return pgx.Identifier{t.Schema, t.Name}.Sanitize() + " as " + name, nil
	case r.sub != nil:
		text, err := w.query(r.sub)
		return "lateral (" + text + ") as " + name, err
	case r.call != nil:
		text, err := w.expr(r.call)
		return text + " as " + name + " (c1)", err
	}
	return "", refuse("a FROM of an unusual kind")
}

// describe writes an expression for people.
func (c *compiler) describe(e *expr) (string, error) {
	w := &sqlWriter{c: c, frames: []*frame{{top: true}}, plain: true}
	return w.expr(e)
}

// SetArgs returns the parameters of SQL: rows is an array of the table's row type
// (see AppendRow). Nobody of those who ask may be odd.
func (p *Plan) SetArgs(rows []byte, asking []*Bound) [][]byte {
	args := [][]byte{rows}
	for i := range p.slots {
		list := make([]value, len(asking))
		for k, b := range asking {
			list[k] = b.slots[i]
		}
		args = append(args, []byte(value{kind: vArray, any: list}.text()))
	}
	return args
}
