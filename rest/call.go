package rest

import (
	"slices"

	"github.com/sluice-dev/sluice/schema"
)

// call is a function with the arguments of one request.
type call struct {
	f    *schema.Function
	args []*schema.Arg
	// body holds the arguments as one JSON object; with whole it is the single
	// argument itself.
	body  []byte
	whole bool
}

// arguments writes the CTE "_a", one row with the named arguments.
func (b *builder) arguments(c *call) {
	if c.whole || len(c.args) == 0 || c.args[0].Name == "" {
		return
	}
	b.lit(`"_a" AS (SELECT * FROM pg_catalog.json_to_record(`)
	b.bytes(c.body)
	b.lit(`::json) AS "_p" (`)
	for i, a := range c.args {
		b.comma(i)
		b.ident(a.Name)
		b.lit(" ")
		b.argType(a)
	}
	b.lit(")), ")
}

// call writes f(…).
func (b *builder) call(c *call) {
	b.dotted(c.f.Schema, c.f.Name)
	b.lit("(")
	switch {
	case c.whole:
		b.bytes(c.body)
		b.lit("::")
		b.argType(&c.f.Args[0])
	case len(c.args) == 1 && c.args[0].Name == "":
		// The key "" of the body: no name for a column of "_a".
		b.lit("(")
		b.bytes(c.body)
		if oid := c.args[0].OID; oid == schema.OIDJSON || oid == schema.OIDJSONB {
			b.lit("::json -> '')::")
		} else {
			b.lit("::json ->> '')::")
		}
		b.argType(c.args[0])
	default:
		for i, a := range c.args {
			b.comma(i)
			if c.f.Variadic && a == &c.f.Args[len(c.f.Args)-1] {
				b.lit("VARIADIC ")
			}
			b.ident(a.Name)
			b.lit(` => (SELECT `)
			b.dotted("_a", a.Name)
			b.lit(` FROM "_a")`)
		}
	}
	b.lit(")")
}

// callQuery calls a function, once. controlled: what it says about the answer
// stands before the body, and is read when it has run.
func callQuery(r *request, c *call, controlled bool) *builder {
	b := &builder{}
	b.lit("WITH ")
	b.arguments(c)
	paged := r.limit != nil || r.offset > 0
	switch {
	case c.f.ReturnsRow && !c.f.Anonymous:
		m := r.media
		m.single = m.single || !c.f.ReturnsSet
		counted := r.prefer.counts() && paged
		f := func() {
			b.call(c)
			b.lit(" AS ")
			b.ident(r.source.alias)
		}
		if counted {
			f = b.once(&r.node, f)
		}
		b.read(&r.node, f, counted, nil)
		b.result(m, counted, r.method != "HEAD", controlled)
	case c.f.ReturnsSet:
		b.lit(`"_f" ("v") AS (SELECT `)
		b.call(c)
		b.lit(`), "_s" AS (SELECT "v" FROM "_f"`)
		b.page(r.limit, r.offset)
		b.lit(`) SELECT (SELECT pg_catalog.count(*) FROM "_f")::text, pg_catalog.count(*)::text, `)
		b.controls(controlled)
		b.lit(`COALESCE(pg_catalog.json_agg("_s"."v")::text, '[]') FROM "_s"`)
	default:
		b.lit(`"_s" ("v") AS MATERIALIZED (SELECT `)
		b.call(c)
		b.lit(`) SELECT '1', '1', `)
		b.controls(controlled)
		if c.f.ReturnsVoid {
			b.lit(`pg_catalog.count("v")::text FROM "_s"`)
		} else {
			b.lit(`COALESCE(pg_catalog.to_json("v")::text, 'null') FROM "_s"`)
		}
	}
	return b
}

// once puts a function's rows into the CTE "_f", for a page and a total over the
// same call. Computed columns that the request names are taken along.
func (b *builder) once(n *node, f from) from {
	_, names := n.returning()
	for i := range n.filter {
		names = append(names, n.filter[i].field.name)
	}
	for i := range n.trees {
		names = n.trees[i].names(names)
	}
	var computed []string
	if rel := n.source.relation; rel != nil {
		for _, name := range names {
			if rel.Column(name) == nil && n.child(name) == nil && !slices.Contains(computed, name) {
				computed = append(computed, name)
			}
		}
	}
	b.lit(`"_f" AS (SELECT `)
	b.columnsOf(n, true, computed)
	b.lit(" FROM ")
	f()
	b.lit("), ")
	n.source.untyped = true
	return func() {
		b.lit(`"_f" AS `)
		b.ident(n.source.alias)
	}
}

// names appends the columns that the conditions of a tree name.
func (t *tree) names(to []string) []string {
	if t.leaf != nil {
		return append(to, t.leaf.field.name)
	}
	for i := range t.kids {
		to = t.kids[i].names(to)
	}
	return to
}
