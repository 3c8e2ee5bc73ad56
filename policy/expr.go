package policy

import (
	"fmt"
	"slices"
)

// kind says what an expression is. They are those of PostgreSQL's analysed tree
// that a cheaper tier may decide; a tree with any other node is asked as the user.
type kind uint8

const (
	kVar kind = iota + 1
	kConst
	kParam    // $n of a function's body
	kTest     // the sub-select's column in the test of ANY and ALL
	kOp       // an operator: two arguments, or one
	kFunc     // a function
	kDistinct // IS DISTINCT FROM
	kNullIf
	kArrayOp // = ANY (array), or with all set ALL
	kAnd
	kOr
	kNot
	kIsNull // not set: IS NOT NULL
	kIsBool // boolean test
	kRelabel
	kViaIO      // a cast by output and input functions
	kArrayViaIO // a cast of every element of an array
	kArray
	kCoalesce
	kCase     // condition, result, …, else
	kCaseTest // the operand of CASE x WHEN
	kMinMax
	kNow     // CURRENT_DATE and the like, by the number in op
	kCollate // COLLATE
	kSubLink
	kAggregate
	kSlot // a claims-only part, evaluated once for an identity
)

// expr is an expression with everything that its kind needs.
type expr struct {
	kind kind
	typ  uint32 // of the result
	mod  int32  // and its modifier; -1 for none
	coll uint32 // collation under which it compares
	fn   uint32 // function that does it
	op   uint32 // operator
	not  bool   // IS NOT NULL
	all  bool   // ALL in place of ANY; variadic; the DISTINCT of an aggregate
	args []*expr

	level, rel, att int // kVar; kParam and kSlot use att for their number

	null  bool
	datum datum  // kConst
	text  string // kConst: in the type's own notation, once known

	label string // how people wrote it: the call that it stands for

	link  linkKind // kSubLink; its test is args[0]
	query *query
}

// linkKind is PostgreSQL's SubLinkType.
type linkKind int

const (
	linkExists linkKind = 0
	linkAll    linkKind = 1
	linkAny    linkKind = 2
	linkExpr   linkKind = 4
	linkArray  linkKind = 6
)

// query is a SELECT.
type query struct {
	rels    []*rangeEntry // by number, from 1
	from    []*joinNode
	where   *expr // nil: true
	targets []*expr
	limit   *expr
	group   []*expr // GROUP BY, of targets
	distinct,
	aggregate bool
}

// rangeEntry is a table of a query, a function in FROM, or a join's own entry.
type rangeEntry struct {
	oid  uint32 // the table; 0 for a join
	call *expr  // a function in FROM
	sub  *query // a sub-select in FROM, or a function's body
	join []*expr
}

// joinNode is a table of FROM, or a join of two.
type joinNode struct {
	rel         int // of a table
	left, right *joinNode
	kind        int // PostgreSQL's JoinType: 0 inner, 1 left, 2 full, 3 right
	on          *expr
}

// notHere is why an expression is left to tier 3: a sentence's object.
type notHere string

func (e notHere) Error() string { return string(e) }

func refuse(format string, args ...any) error { return notHere(fmt.Sprintf(format, args...)) }

// exprOf turns a node into an expression.
func exprOf(v any) (*expr, error) {
	n, ok := v.(*node)
	if !ok {
		return nil, refuse("an expression that is none")
	}
	e := &expr{mod: -1}
	switch n.tag {
	case "VAR":
		e.kind, e.typ, e.mod = kVar, n.oid("vartype"), int32(n.num("vartypmod"))
		e.level, e.rel, e.att = n.num("varlevelsup"), n.num("varno"), n.num("varattno")
		if e.att <= 0 {
			return nil, refuse("a whole row or a system column")
		}
		return e, nil
	case "CONST":
		e.kind, e.typ, e.mod, e.null = kConst, n.oid("consttype"), int32(n.num("consttypmod")), n.flag("constisnull")
		e.datum, _ = n.fields["constvalue"].(datum)
		return e, nil
	case "PARAM":
		e.typ, e.att = n.oid("paramtype"), n.num("paramid")
		switch n.num("paramkind") {
		case 0:
			e.kind = kParam
		case 2:
			if e.kind = kTest; e.att != 1 {
				return nil, refuse("a comparison of rows")
			}
		default:
			return nil, refuse("a parameter of an unknown kind")
		}
		return e, nil
	case "OPEXPR", "DISTINCTEXPR", "NULLIFEXPR":
		e.kind = map[string]kind{"OPEXPR": kOp, "DISTINCTEXPR": kDistinct, "NULLIFEXPR": kNullIf}[n.tag]
		e.typ, e.op, e.fn, e.coll = n.oid("opresulttype"), n.oid("opno"), n.oid("opfuncid"), n.oid("inputcollid")
		if n.flag("opretset") {
			return nil, refuse("an operator that returns a set")
		}
		return e, e.take(n.list("args")...)
	case "SCALARARRAYOPEXPR":
		e.kind, e.typ, e.op, e.fn, e.coll, e.all = kArrayOp, oidBool, n.oid("opno"), n.oid("opfuncid"), n.oid("inputcollid"), !n.flag("useOr")
		return e, e.take(n.list("args")...)
	case "FUNCEXPR":
		e.kind, e.typ, e.fn, e.coll, e.all = kFunc, n.oid("funcresulttype"), n.oid("funcid"), n.oid("inputcollid"), n.flag("funcvariadic")
		e.not = n.flag("funcretset")
		return e, e.take(n.list("args")...)
	case "BOOLEXPR":
		e.kind, e.typ = map[string]kind{"and": kAnd, "or": kOr, "not": kNot}[n.str("boolop")], oidBool
		if e.kind == 0 {
			return nil, refuse("a boolean operator %q", n.str("boolop"))
		}
		return e, e.take(n.list("args")...)
	case "NULLTEST":
		e.kind, e.typ, e.not = kIsNull, oidBool, n.num("nulltesttype") == 1
		if n.flag("argisrow") {
			return nil, refuse("a test of a row for NULL")
		}
		return e, e.take(n.fields["arg"])
	case "BOOLEANTEST":
		e.kind, e.typ, e.att = kIsBool, oidBool, n.num("booltesttype")
		return e, e.take(n.fields["arg"])
	case "RELABELTYPE":
		e.kind, e.typ, e.mod = kRelabel, n.oid("resulttype"), int32(n.num("resulttypmod"))
		return e, e.take(n.fields["arg"])
	case "COERCEVIAIO":
		e.kind, e.typ = kViaIO, n.oid("resulttype")
		return e, e.take(n.fields["arg"])
	case "ARRAYCOERCEEXPR":
		e.kind, e.typ, e.mod = kArrayViaIO, n.oid("resulttype"), int32(n.num("resulttypmod"))
		return e, e.take(n.fields["arg"])
	case "ARRAYEXPR", "ARRAY":
		e.kind, e.typ = kArray, n.oid("array_typeid")
		if n.flag("multidims") {
			return nil, refuse("an array of arrays")
		}
		return e, e.take(n.list("elements")...)
	case "COALESCEEXPR", "COALESCE":
		e.kind, e.typ = kCoalesce, n.oid("coalescetype")
		return e, e.take(n.list("args")...)
	case "MINMAXEXPR", "MINMAX":
		e.kind, e.typ, e.coll, e.not = kMinMax, n.oid("minmaxtype"), n.oid("inputcollid"), n.num("op") == 1
		return e, e.take(n.list("args")...)
	case "CASEEXPR", "CASE":
		return caseOf(n, e)
	case "CASETESTEXPR":
		e.kind, e.typ = kCaseTest, n.oid("typeId")
		return e, nil
	case "COLLATEEXPR", "COLLATE":
		e.kind, e.coll = kCollate, n.oid("collOid")
		if err := e.take(n.fields["arg"]); err != nil {
			return nil, err
		}
		e.typ = e.args[0].typ
		return e, nil
	case "SQLVALUEFUNCTION":
		// 0 to 8 are dates and times; what follows is who asks and where.
		if e.kind, e.typ, e.att = kNow, n.oid("type"), n.num("op"); e.att > 8 {
			return nil, refuse("current_user, session_user or current_schema")
		}
		e.mod = int32(n.num("typmod"))
		return e, nil
	case "SUBLINK":
		return subLinkOf(n, e)
	case "AGGREF":
		return aggregateOf(n, e)
	}
	return nil, refuse("a node %s, which only PostgreSQL evaluates", n.tag)
}

// take converts the arguments.
func (e *expr) take(args ...any) error {
	for _, a := range args {
		x, err := exprOf(a)
		if err != nil {
			return err
		}
		e.args = append(e.args, x)
	}
	return nil
}

func caseOf(n *node, e *expr) (*expr, error) {
	e.kind, e.typ = kCase, n.oid("casetype")
	operand := n.set("arg")
	if operand {
		// The operand stands in every condition in place of the test node.
		e.not = true
		if err := e.take(n.fields["arg"]); err != nil {
			return nil, err
		}
	}
	for _, w := range n.list("args") {
		when, _ := w.(*node)
		if when == nil {
			return nil, refuse("a CASE without WHEN")
		}
		if err := e.take(when.fields["expr"], when.fields["result"]); err != nil {
			return nil, err
		}
	}
	if !n.set("defresult") {
		e.args = append(e.args, &expr{kind: kConst, typ: e.typ, mod: -1, null: true})
	} else if err := e.take(n.fields["defresult"]); err != nil {
		return nil, err
	}
	if operand {
		return e.expandCase(), nil
	}
	return e, nil
}

// expandCase writes CASE x WHEN y as CASE WHEN x = y.
func (e *expr) expandCase() *expr {
	operand := e.args[0]
	e.args, e.not = e.args[1:], false
	for i := 0; i+1 < len(e.args); i += 2 {
		e.args[i] = e.args[i].replace(func(x *expr, depth int) *expr {
			if x.kind == kCaseTest {
				return operand.shift(depth)
			}
			return nil
		})
	}
	return e
}

func subLinkOf(n *node, e *expr) (*expr, error) {
	e.kind, e.link = kSubLink, linkKind(n.num("subLinkType"))
	q, err := queryOf(n.sub("subselect"))
	if err != nil {
		return nil, err
	}
	e.query = q
	switch e.link {
	case linkExists:
		e.typ = oidBool
	case linkAny, linkAll:
		e.typ = oidBool
		if len(q.targets) != 1 {
			return nil, refuse("a comparison of rows")
		}
		return e, e.take(n.fields["testexpr"])
	case linkExpr:
		if len(q.targets) != 1 {
			return nil, refuse("a sub-select of several columns")
		}
		e.typ = q.targets[0].typ
	case linkArray:
		if len(q.targets) != 1 {
			return nil, refuse("a sub-select of several columns")
		}
	default:
		return nil, refuse("a sub-select of an unusual kind")
	}
	return e, nil
}

func aggregateOf(n *node, e *expr) (*expr, error) {
	e.kind, e.typ, e.fn, e.coll, e.not = kAggregate, n.oid("aggtype"), n.oid("aggfnoid"), n.oid("inputcollid"), n.flag("aggstar")
	e.all = n.set("aggdistinct")
	if n.num("agglevelsup") != 0 || n.set("aggdirectargs") || n.set("aggorder") || n.set("aggfilter") || n.flag("aggvariadic") {
		return nil, refuse("an aggregate with an order, a filter or a level of its own")
	}
	for _, t := range n.list("args") {
		target, _ := t.(*node)
		if target == nil || target.flag("resjunk") {
			return nil, refuse("an aggregate of an unusual kind")
		}
		if err := e.take(target.fields["expr"]); err != nil {
			return nil, err
		}
	}
	return e, nil
}

// queryOf reads a SELECT.
func queryOf(n *node) (*query, error) {
	if n == nil || n.tag != "QUERY" || n.num("commandType") != 1 || n.set("utilityStmt") {
		return nil, refuse("a statement that is no SELECT")
	}
	for _, flag := range []string{"hasWindowFuncs", "hasDistinctOn", "hasRecursive", "hasModifyingCTE", "hasForUpdate"} {
		if n.flag(flag) {
			return nil, refuse("a sub-select with window functions, WITH, DISTINCT ON or FOR UPDATE")
		}
	}
	for _, field := range []string{"cteList", "groupingSets", "havingQual", "windowClause", "limitOffset", "rowMarks", "setOperations"} {
		if n.set(field) {
			return nil, refuse("a sub-select with WITH, HAVING, OFFSET, UNION or the like")
		}
	}
	q := &query{distinct: n.set("distinctClause"), aggregate: n.flag("hasAggs")}
	for _, r := range n.list("rtable") {
		entry, err := rangeOf(r)
		if err != nil {
			return nil, err
		}
		q.rels = append(q.rels, entry)
	}
	jt := n.sub("jointree")
	if jt == nil {
		return nil, refuse("a SELECT without a join tree")
	}
	for _, f := range jt.list("fromlist") {
		j, err := joinOf(f, len(q.rels))
		if err != nil {
			return nil, err
		}
		q.from = append(q.from, j)
	}
	var err error
	if jt.set("quals") {
		if q.where, err = exprOf(jt.fields["quals"]); err != nil {
			return nil, err
		}
	}
	if n.set("limitCount") {
		if n.num("limitOption") != 0 {
			return nil, refuse("a LIMIT with ties")
		}
		if q.limit, err = exprOf(n.fields["limitCount"]); err != nil {
			return nil, err
		}
	}
	if err := q.takeTargets(n); err != nil {
		return nil, err
	}
	// An order decides which rows a limit leaves, which row is a function's value, and
	// what an array is.
	if n.set("sortClause") {
		return nil, refuse("a sub-select with ORDER BY")
	}
	return q, nil
}

func (q *query) takeTargets(n *node) error {
	grouped := map[int]bool{}
	for _, g := range n.list("groupClause") {
		if c, ok := g.(*node); ok {
			grouped[c.num("tleSortGroupRef")] = true
		}
	}
	for _, t := range n.list("targetList") {
		target, _ := t.(*node)
		if target == nil || target.tag != "TARGETENTRY" {
			return refuse("a target list of an unusual kind")
		}
		x, err := exprOf(target.fields["expr"])
		if err != nil {
			return err
		}
		if ref := target.num("ressortgroupref"); ref != 0 && grouped[ref] {
			q.group = append(q.group, x)
			delete(grouped, ref)
		}
		if !target.flag("resjunk") {
			q.targets = append(q.targets, x)
		}
	}
	if len(grouped) > 0 {
		return refuse("a GROUP BY of an unusual kind")
	}
	return nil
}

func rangeOf(v any) (*rangeEntry, error) {
	n, _ := v.(*node)
	if n == nil || n.tag != "RANGETBLENTRY" && n.tag != "RTE" {
		return nil, refuse("a FROM of an unusual kind")
	}
	if n.set("tablesample") || n.set("securityQuals") {
		return nil, refuse("a sample of a table")
	}
	switch n.num("rtekind") {
	case 0:
		if k := n.str("relkind"); k != "r" && k != "p" {
			return nil, refuse("a view or a foreign table")
		}
		if !n.flag("inh") {
			return nil, refuse("FROM ONLY")
		}
		return &rangeEntry{oid: n.oid("relid")}, nil
	case 1:
		if n.flag("security_barrier") {
			return nil, refuse("a security barrier")
		}
		q, err := queryOf(n.sub("subquery"))
		return &rangeEntry{sub: q}, err
	case 2:
		e := &rangeEntry{}
		if n.set("join_using_alias") {
			return nil, refuse("a join with an alias")
		}
		for _, a := range n.list("joinaliasvars") {
			x, err := exprOf(a)
			if err != nil {
				return nil, err
			}
			e.join = append(e.join, x)
		}
		return e, nil
	case 3:
		funcs := n.list("functions")
		if len(funcs) != 1 || n.flag("funcordinality") {
			return nil, refuse("ROWS FROM or WITH ORDINALITY")
		}
		f, _ := funcs[0].(*node)
		if f == nil || f.set("funccolnames") {
			return nil, refuse("a function with a list of columns")
		}
		call, err := exprOf(f.fields["funcexpr"])
		return &rangeEntry{call: call}, err
	}
	return nil, refuse("VALUES, WITH or another unusual FROM")
}

func joinOf(v any, rels int) (*joinNode, error) {
	n, _ := v.(*node)
	if n == nil {
		return nil, refuse("a FROM of an unusual kind")
	}
	switch n.tag {
	case "RANGETBLREF":
		if i := n.num("rtindex"); i >= 1 && i <= rels {
			return &joinNode{rel: i}, nil
		}
	case "JOINEXPR":
		j := &joinNode{kind: n.num("jointype")}
		if j.kind > 3 || n.set("alias") {
			return nil, refuse("a join of an unusual kind, or with an alias")
		}
		var err error
		if j.left, err = joinOf(n.fields["larg"], rels); err != nil {
			return nil, err
		}
		if j.right, err = joinOf(n.fields["rarg"], rels); err != nil {
			return nil, err
		}
		if n.set("quals") {
			j.on, err = exprOf(n.fields["quals"])
		}
		return j, err
	}
	return nil, refuse("a FROM of an unusual kind")
}

// replace returns e with some of its parts replaced: fn returns the new one, or
// nil to go on below. depth is how many queries stand around the part, from e on.
// What is not changed is shared.
func (e *expr) replace(fn func(e *expr, depth int) *expr) *expr { return e.replaceAt(fn, 0) }

func (e *expr) replaceAt(fn func(*expr, int) *expr, depth int) *expr {
	if e == nil {
		return nil
	}
	if r := fn(e, depth); r != nil {
		return r
	}
	c := *e
	c.args = slices.Clone(e.args)
	for i, a := range c.args {
		c.args[i] = a.replaceAt(fn, depth)
	}
	if e.query != nil {
		c.query = e.query.replaceAt(fn, depth+1)
	}
	return &c
}

func (q *query) replaceAt(fn func(*expr, int) *expr, depth int) *query {
	c := *q
	each := func(list []*expr) []*expr {
		out := slices.Clone(list)
		for i, x := range out {
			out[i] = x.replaceAt(fn, depth)
		}
		return out
	}
	c.where, c.limit = q.where.replaceAt(fn, depth), q.limit.replaceAt(fn, depth)
	c.targets, c.group = each(q.targets), each(q.group)
	c.rels = slices.Clone(q.rels)
	for i, r := range c.rels {
		n := *r
		n.call, n.join = r.call.replaceAt(fn, depth), each(r.join)
		if r.sub != nil {
			n.sub = r.sub.replaceAt(fn, depth+1)
		}
		c.rels[i] = &n
	}
	c.from = slices.Clone(q.from)
	for i, j := range c.from {
		c.from[i] = j.replaceAt(fn, depth)
	}
	return &c
}

func (j *joinNode) replaceAt(fn func(*expr, int) *expr, depth int) *joinNode {
	if j == nil {
		return nil
	}
	c := *j
	c.left, c.right, c.on = j.left.replaceAt(fn, depth), j.right.replaceAt(fn, depth), j.on.replaceAt(fn, depth)
	return &c
}

// shift moves the references of e to what is outside of it by so many levels.
func (e *expr) shift(levels int) *expr {
	if levels == 0 {
		return e
	}
	return e.replace(func(x *expr, depth int) *expr {
		if x.kind != kVar || x.level < depth {
			return nil
		}
		c := *x
		c.level += levels
		return &c
	})
}

// walk calls fn for e and all of its parts until fn returns false.
func (e *expr) walk(fn func(e *expr, depth int) bool) bool {
	ok := true
	e.replace(func(x *expr, depth int) *expr {
		if ok = ok && fn(x, depth); !ok {
			return x
		}
		return nil
	})
	return ok
}

// refs reports whether e refers to a column of a query around it, levels or more
// outside of where e stands.
func (e *expr) refs(levels int) bool {
	return !e.walk(func(x *expr, depth int) bool { return x.kind != kVar || x.level < depth+levels })
}
