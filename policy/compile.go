package policy

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

// Tier says how a table's policies are decided for a role, from the cheapest.
type Tier uint8

// Tiers of design.md section 3.
const (
	TierConstant  Tier = iota // every row, or none, whoever asks as this role
	TierPredicate             // evaluated here, over the row and the claims
	TierSet                   // one statement for a batch of rows and all who ask
	TierUser                  // one check as each of those who ask
)

// String returns the tier's name.
func (t Tier) String() string { return [...]string{"constant", "predicate", "set", "user"}[t] }

// Input is a table whose policies are compiled for a role.
type Input struct {
	Table *Table // its Policies are not used
	// Guard is the table that the policies belong to: the table itself, or a
	// partitioned ancestor.
	Guard uint32
	Role  string
	// Only are the policies that are compiled, by name; nil is all of them.
	Only []string
	// Permissive takes restrictive policies for permissive ones, to look at one
	// by itself.
	Permissive bool
	// SearchPath is the one under which functions without their own run.
	SearchPath string
}

// Plan is how policies are decided for one role. It is read-only and may be used
// by many at once.
type Plan struct {
	Tier Tier
	// Why says what keeps it from the tiers below; empty at tier 0.
	Why string
	// Shows is the answer of tier 0.
	Shows bool
	// Seen are the claims that decide, each as SQL; nil at tiers 0 and 3, where
	// none or all of them do.
	Seen []string
	// SQL and OpenSQL are the statements of tier 2: see compileSet. OpenSlot is -1
	// when there is no OpenSQL.
	SQL, OpenSQL string
	OpenSlot     int
	openToAll    bool // OpenSQL has rows for everybody

	slots   []evalFn
	types   []string // of the slots, for tier 2
	decides evalFn   // tier 1
	columns []planColumn
	index   indexed
	scratch int // places that evaluating needs
}

// planColumn is a column that tier 1 reads.
type planColumn struct {
	at    int // in the row; -1: not there
	att   int // attribute number
	class class
	elem  class // of an array
}

// indexed is a column that must equal a claim.
type indexed struct {
	at, slot int // the column's place in the row; -1: none
}

// Compile finds the cheapest tier that decides as PostgreSQL would. admin reads the
// catalog; nothing is changed. An error means that the catalog could not be read;
// policies that cannot be compiled are a plan of tier 3.
func Compile(ctx context.Context, admin *pg.Pool, in Input) (*Plan, error) {
	tx, err := admin.Begin(ctx)
	if err != nil {
		return nil, pg.Wrap(err, "compile policies")
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // nothing is kept
	if _, err := tx.Exec(ctx, "set local search_path to ''"); err != nil {
		return nil, pg.Wrap(err, "compile policies")
	}
	c := &compiler{in: in, expander: &expander{loader: newLoader(ctx, tx, in.SearchPath)}}
	c.evaluator = &evaluator{loader: c.loader, x: c.expander}
	p, err := c.plan()
	var why notHere
	if errors.As(err, &why) {
		return &Plan{Tier: TierUser, Why: string(why)}, nil
	}
	return p, err
}

type compiler struct {
	in Input
	*expander
	evaluator *evaluator
	guard     *relation
	slots     []*expr
}

func (c *compiler) plan() (*Plan, error) {
	var oid uint32
	if err := c.tx.QueryRow(c.ctx, "select oid from pg_catalog.pg_roles where rolname = $1", c.in.Role).Scan(&oid); err != nil {
		return nil, pg.Wrap(err, "look for role %q", c.in.Role)
	}
	role, err := c.role(oid)
	if err != nil {
		return nil, err
	}
	if c.guard, err = c.relation(c.in.Guard); err != nil {
		return nil, err
	}
	whole, err := c.visible(role, c.guard.with(c.in.Only, c.in.Permissive))
	if err != nil {
		return nil, err
	}
	if whole == nil {
		return &Plan{Shows: true}, nil
	}
	if whole, err = c.expr(whole, scope{role: role}); err != nil {
		return nil, err
	}
	return c.choose(whole)
}

// choose takes the cheapest tier for an expanded condition.
func (c *compiler) choose(whole *expr) (*Plan, error) {
	if whole.kind == kConst {
		return &Plan{Shows: whole.isBool(true)}, nil
	}
	taken := c.takeSlots(whole)
	p := &Plan{Tier: TierPredicate, Seen: []string{}, index: indexed{-1, -1}, OpenSlot: -1}
	for _, s := range c.slots {
		fn, err := c.evaluator.fn(s)
		if err != nil {
			return nil, err // takeSlots has tried
		}
		t, err := c.sqlType(s.typ)
		if err != nil {
			return nil, err
		}
		p.slots, p.types = append(p.slots, fn), append(p.types, t.Name)
		seen, err := c.describe(s)
		if err != nil {
			return nil, err
		}
		p.Seen = append(p.Seen, seen)
	}
	decides, err := c.evaluator.fn(taken)
	var why notHere
	switch {
	case errors.As(err, &why):
		p.Tier, p.Why, p.scratch = TierSet, string(why), c.evaluator.scratch
		return p, c.compileSet(p, taken)
	case err != nil:
		return nil, err
	}
	p.decides, p.scratch = decides, c.evaluator.scratch
	if p.columns, err = c.columnsOf(taken); err != nil {
		return nil, err
	}
	c.findIndex(p, taken)
	return p, nil
}

// takeSlots replaces the largest parts that depend on claims alone, and that are
// evaluated here, by slots.
func (c *compiler) takeSlots(e *expr) *expr {
	seen := map[string]int{}
	return e.replace(func(x *expr, _ int) *expr {
		if !c.claimsOnly(x) {
			return nil
		}
		if _, err := c.evaluator.fn(x); err != nil {
			return nil
		}
		key, err := c.describe(x)
		n, ok := seen[key]
		if !ok || err != nil {
			n = len(c.slots)
			seen[key] = n
			c.slots = append(c.slots, x)
		}
		return &expr{kind: kSlot, typ: x.typ, mod: -1, att: n}
	})
}

// claimsOnly reports whether e reads claims and nothing else, and is whole: no
// element of a set, and no column of a query around it.
func (c *compiler) claimsOnly(e *expr) bool {
	claims, other := false, false
	e.walk(func(x *expr, depth int) bool {
		switch x.kind {
		case kNow, kAggregate:
			other = true
		case kVar:
			other = x.level >= depth
		case kTest:
			other = e.kind != kSubLink
		case kSubLink:
			other = slices.ContainsFunc(x.query.rels, func(r *rangeEntry) bool { return r.call == nil })
		case kFunc:
			_, ok := c.claimSetting(x)
			claims = claims || ok
			f := c.functions[x.fn]
			other = x.not && depth == 0 || !ok && (f == nil || f.Volatility != "i")
		}
		return !other
	})
	return claims && !other
}

// columnsOf returns the columns that e reads, with their places in the row.
func (c *compiler) columnsOf(e *expr) ([]planColumn, error) {
	var out []planColumn
	var failed error
	e.walk(func(x *expr, _ int) bool {
		if x.kind != kVar || slices.ContainsFunc(out, func(p planColumn) bool { return p.att == x.att }) {
			return true
		}
		p := planColumn{at: c.place(x.att), att: x.att}
		if p.class, failed = c.evaluator.known(x.typ); failed != nil {
			return false
		}
		if p.class == cArray {
			p.elem, failed = c.evaluator.known(arrayElements[x.typ].oid)
		}
		if p.at < 0 && failed == nil {
			failed = refuse("a column that the row does not have")
		}
		out = append(out, p)
		return failed == nil
	})
	return out, failed
}

// place returns where a column of the guard stands in the row, or -1.
func (c *compiler) place(att int) int {
	col, ok := c.guard.column(att)
	if !ok {
		return -1
	}
	return slices.Index(c.in.Table.Columns, col.Name)
}

// findIndex looks for a column that must equal a claim in every case.
func (c *compiler) findIndex(p *Plan, e *expr) {
	parts := []*expr{e}
	if e.kind == kAnd {
		parts = e.args
	}
	for _, x := range parts {
		if x.kind != kOp || len(x.args) != 2 {
			continue
		}
		f := c.functions[x.fn]
		if f == nil || !f.Builtin || f.Source != "texteq" && f.Source != "uuid_eq" && !intEquality[f.Source] {
			continue
		}
		a, b := plainArg(x.args[0]), plainArg(x.args[1])
		if a.kind == kSlot {
			a, b = b, a
		}
		if a.kind == kVar && b.kind == kSlot {
			p.index = indexed{c.place(a.att), b.att}
			return
		}
	}
}

var intEquality = set("int2eq", "int4eq", "int8eq", "int24eq", "int42eq", "int28eq", "int82eq", "int48eq", "int84eq")

func plainArg(e *expr) *expr {
	for e.kind == kRelabel {
		e = e.args[0]
	}
	return e
}

// Bound is a plan for one identity.
type Bound struct {
	plan  *Plan
	slots []value
	odd   bool
	key   string
}

// Bind evaluates what an identity's claims decide.
func (p *Plan) Bind(claims sluice.Claims) *Bound {
	b := &Bound{plan: p, slots: make([]value, len(p.slots))}
	n := &env{claims: claimsOf(claims), scratch: make([]value, p.scratch)}
	var key strings.Builder
	for i, s := range p.slots {
		b.slots[i] = s(n)
		b.odd = b.odd || b.slots[i].kind == vUnsure
		b.slots[i].appendKey(&key)
	}
	if b.key = key.String(); b.odd || p.Tier == TierUser {
		b.key = "?" + string(claims.JSON)
	}
	return b
}

// Key is equal for identities that no policy of the plan can tell apart.
func (b *Bound) Key() string { return b.key }

// Odd reports whether only PostgreSQL can tell what the claims mean to the
// policies: the identity is asked as the user.
func (b *Bound) Odd() bool { return b.odd }

// Never reports whether no row can be seen with these claims, whatever is in it,
// as far as that can be told without the tables: the policies compare with a user,
// say, and there is none.
func (b *Bound) Never() bool {
	p := b.plan
	switch {
	case p.Tier == TierConstant:
		return !p.Shows
	case b.odd || p.Tier == TierUser:
		return false
	case p.Tier == TierSet:
		if p.OpenSlot < 0 || p.openToAll {
			return false
		}
		_, some := b.Open()
		return !some
	}
	n := env{slots: b.slots, scratch: make([]value, p.scratch)}
	for _, c := range p.columns {
		for len(n.row) < c.att {
			n.row = append(n.row, some)
		}
	}
	v := p.decides(&n)
	return v.kind == vNull || v == no
}

func (v value) appendKey(b *strings.Builder) {
	b.WriteByte('0' + byte(v.kind))
	switch v.kind {
	case vBool, vInt:
		b.WriteString(strconv.FormatInt(v.n, 10))
	case vText:
		b.WriteString(strconv.Itoa(len(v.s)))
		b.WriteByte(':')
		b.WriteString(v.s)
	case vJSON, vArray:
		t := v.text()
		b.WriteString(strconv.Itoa(len(t)))
		b.WriteByte(':')
		b.WriteString(t)
	}
	b.WriteByte(';')
}

// Open returns the value of the slot by which OpenSQL tells who sees a row; false
// means that this one sees none but what everybody sees.
func (b *Bound) Open() (string, bool) { return b.slots[b.plan.OpenSlot].indexKey() }

// Row is a row's values as a plan of tier 1 reads them.
type Row struct {
	values []value
	index  string
	found  bool // there is an index key
}

// Row prepares a row, in the order of the table's columns. Values that are missing
// are unsure.
func (p *Plan) Row(values []sluice.Value) Row {
	var r Row
	for _, c := range p.columns {
		for len(r.values) < c.att {
			r.values = append(r.values, unsure)
		}
		v := unsure
		if c.at < len(values) {
			v = c.read(values[c.at])
		}
		r.values[c.att-1] = v
		if c.at == p.index.at {
			r.index, r.found = v.indexKey()
		}
	}
	return r
}

// Lacks reports whether a row lacks a value that tier 1 reads.
func (p *Plan) Lacks(values []sluice.Value) bool {
	return slices.ContainsFunc(p.columns, func(c planColumn) bool {
		return c.at >= len(values) || values[c.at].Kind == sluice.ValueMissing
	})
}

func (c planColumn) read(v sluice.Value) value {
	switch v.Kind {
	case sluice.ValueNull:
		return null
	case sluice.ValueText:
		if c.class == cArray {
			return parseArray(c.elem, string(v.Text))
		}
		return fromText(c.class, string(v.Text))
	}
	return unsure
}

func (v value) indexKey() (string, bool) {
	switch v.kind {
	case vText:
		return v.s, true
	case vInt:
		return strconv.FormatInt(v.n, 10), true
	}
	return "", false
}

// Indexed reports whether only identities whose Index is the row's can see it. An
// odd identity has no index and has to be asked about every row.
func (p *Plan) Indexed() bool { return p.Tier == TierPredicate && p.index.at >= 0 }

// Index returns the value that rows must have for this identity to see them; false
// means that it sees none.
func (b *Bound) Index() (string, bool) { return b.slots[b.plan.index.slot].indexKey() }

// Index returns the value of the index's column; false is one for which nobody
// sees the row, or a missing one, for which everybody has to be asked.
func (r Row) Index() (key string, found, missing bool) {
	return r.index, r.found, !r.found && slices.ContainsFunc(r.values, func(v value) bool { return v.kind == vUnsure })
}

// Answer is a decision.
type Answer uint8

// Answers. Unsure is to be asked as the user.
const (
	No Answer = iota
	Yes
	Unsure
)

// Judge decides rows at tiers 0 and 1. It serves one goroutine.
type Judge struct {
	plan *Plan
	env  env
}

// Judge returns a new one.
func (p *Plan) Judge() *Judge { return &Judge{p, env{scratch: make([]value, p.scratch)}} }

// See decides whether b sees a row.
func (j *Judge) See(b *Bound, r *Row) Answer {
	p := j.plan
	switch {
	case p.Tier == TierConstant && p.Shows:
		return Yes
	case p.Tier == TierConstant:
		return No
	case b.odd:
		return Unsure
	}
	j.env.row, j.env.slots = r.values, b.slots
	switch v := p.decides(&j.env); {
	case v.kind == vUnsure:
		return Unsure
	case v.kind == vBool && v.n == 1:
		return Yes
	}
	return No
}
