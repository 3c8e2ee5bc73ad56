package rest

// The statement of a read (spec rest 8.3). An embedded resource is a lateral
// join; its row or array is one column of it.

// nodeItems writes the select list of a node.
func (b *builder) nodeItems(n *node) {
	count := 0
	for i := range n.items {
		it := &n.items[i]
		if it.embed != nil && it.embed.hidden() {
			continue
		}
		b.comma(count)
		count++
		b.item(n, it)
	}
}

func (b *builder) item(n *node, it *selectItem) {
	switch {
	case it.embed != nil:
		b.embedItem(n, it.embed)
		return
	case it.star && n.source.untyped && n.source.relation != nil:
		// A CTE may have more columns than the relation.
		for i := range n.source.relation.Columns {
			b.comma(i)
			b.dotted(n.source.alias, n.source.relation.Columns[i].Name)
		}
		return
	case it.star:
		b.ident(n.source.alias)
		b.lit(".*")
		return
	case it.aggregate != "":
		b.aggregate(n.of(it), it)
	default:
		b.castColumn(n.of(it), it.field, it.cast)
	}
	if out := it.output(); out != it.field.name || len(it.field.path) > 0 || it.cast != "" || it.aggregate != "" || n.of(it).set(it.field.name) != nil {
		b.lit(" AS ")
		b.ident(out)
	}
}

var aggregateFunction = map[string]fragment{
	"sum": "pg_catalog.sum(", "avg": "pg_catalog.avg(", "min": "pg_catalog.min(", "max": "pg_catalog.max(", "count": "pg_catalog.count(",
}

func (b *builder) aggregate(src source, it *selectItem) {
	b.lit(aggregateFunction[it.aggregate])
	if it.field.name == "" {
		b.lit("*")
	} else {
		b.castColumn(src, it.field, it.cast)
	}
	b.lit(")")
	if it.aggCast != "" {
		b.cast(it.aggCast)
	}
}

// embedItem writes what an embedded resource adds to its parent's rows.
func (b *builder) embedItem(parent, e *node) {
	switch {
	case e.spread && e.toOne() && e.orders():
		b.lit("(")
		b.row(e)
		b.lit(").*")
		return
	case e.spread && e.toOne():
		b.row(e)
		return
	case e.spread:
		for i, name := range e.outputs() {
			b.comma(i)
			b.lit("COALESCE(")
			b.dotted(e.lateral, itoa(int64(i+1)))
			b.lit(", '[]'::json) AS ")
			b.ident(name)
		}
		return
	case e.toOne():
		b.lit("pg_catalog.row_to_json(")
		b.row(e)
		b.lit(")")
	default:
		b.lit("COALESCE(")
		b.dotted(e.lateral, e.lateral)
		b.lit(", '[]'::json)")
	}
	if parent.grouped() {
		b.lit("::jsonb") // json has no equality to group by
	}
	b.lit(" AS ")
	b.ident(e.key())
}

// present writes whether the embedded resource is there. A row of nothing but
// NULL is.
func (b *builder) present(e *node) {
	b.lit("(")
	switch {
	case e.toOne():
		b.row(e)
		b.lit(" IS DISTINCT FROM NULL)")
	case e.spread:
		b.dotted(e.lateral, "n")
		b.lit(" > 0)")
	default:
		b.dotted(e.lateral, e.lateral)
		b.lit(" IS NOT NULL)")
	}
}

// joins writes the lateral joins of the embedded resources that are needed: all,
// or for a count those that decide which rows there are.
func (b *builder) joins(n *node, counting bool) {
	for _, e := range n.embeds {
		if !e.decides() && (counting || e.hidden() && !e.orders()) {
			continue
		}
		if e.inner {
			b.lit(" INNER JOIN LATERAL (")
		} else {
			b.lit(" LEFT JOIN LATERAL (")
		}
		b.embed(n, e)
		b.lit(") AS ")
		b.ident(e.lateral)
		b.lit(" ON ")
		if e.inner && !e.toOne() {
			b.present(e)
		} else {
			b.lit("TRUE")
		}
	}
}

// embed writes the subselect of an embedded resource.
func (b *builder) embed(parent, e *node) {
	switch {
	case e.orders():
		b.orderedRow(parent, e)
		return
	case e.toOne():
		b.rows(parent, e)
		return
	case e.spread:
		b.lit("SELECT ")
		names := e.outputs()
		for i := range names {
			b.lit("pg_catalog.json_agg(")
			b.dotted(e.lateral, itoa(int64(i+1)))
			b.lit(") AS ")
			b.ident(itoa(int64(i + 1)))
			b.lit(", ")
		}
		b.lit(`pg_catalog.count(*) AS "n" FROM (`)
		b.rows(parent, e)
		b.lit(") AS ")
		b.ident(e.lateral)
		for i := range names {
			if i == 0 {
				b.lit(" (")
			} else {
				b.lit(", ")
			}
			b.ident(itoa(int64(i + 1)))
		}
		if len(names) > 0 {
			b.lit(")")
		}
	default:
		b.lit("SELECT pg_catalog.json_agg(")
		b.ident(e.lateral)
		b.lit(".*) AS ")
		b.ident(e.lateral)
		b.lit(" FROM (")
		b.rows(parent, e)
		b.lit(") AS ")
		b.ident(e.lateral)
	}
}

// rows writes the rows of an embedded resource that belong to a parent's.
func (b *builder) rows(parent, e *node) {
	b.selected(e)
	b.related(parent, e)
	b.groupBy(e)
	b.orderBy(e)
	b.page(e.limit, e.offset)
}

// selected writes SELECT and what is selected of an embedded resource.
func (b *builder) selected(e *node) {
	b.lit("SELECT ")
	if e.hidden() {
		b.lit("1")
	} else {
		b.nodeItems(e)
	}
}

// orderedRow writes the row that belongs to a parent's, as one value, and beside
// it the columns by which the parent is ordered, named by the place of their term:
// the order can name them without the resource being read again.
func (b *builder) orderedRow(parent, e *node) {
	row := alias(e.lateral, "r")
	b.lit("SELECT ")
	b.ident(row)
	b.lit(".*::record AS ") // without the cast it would be its columns
	b.ident(e.lateral)
	for i := range parent.order {
		if t := &parent.order[i]; t.embed == e {
			b.lit(", ")
			b.column(e.source, t.field)
			b.lit(" AS ")
			b.ident(itoa(int64(i + 1)))
		}
	}
	b.relatedBeside(parent, e, func() {
		b.lit(" CROSS JOIN LATERAL (")
		b.selected(e)
		b.lit(") AS ")
		b.ident(row)
	})
	b.orderBy(e)
	b.page(e.limit, e.offset)
}

// row writes the row of an embedded to-one resource.
func (b *builder) row(e *node) {
	if e.orders() {
		b.dotted(e.lateral, e.lateral)
		return
	}
	b.ident(e.lateral)
	b.lit(".*")
}

// related writes FROM and WHERE of an embedded resource.
func (b *builder) related(parent, e *node) { b.relatedBeside(parent, e, func() {}) }

// relatedBeside is related with one more join, which may use the others.
func (b *builder) relatedBeside(parent, e *node, join func()) {
	rel := e.rel
	b.lit(" FROM ")
	if rel.Function != nil {
		b.dotted(rel.Function.Schema, rel.Function.Name)
		b.lit("(")
		b.wholeRow(parent)
		b.lit(")")
	} else {
		b.relation(rel.Target)
	}
	b.lit(" AS ")
	b.ident(e.source.alias)
	junction := ""
	if rel.Junction != nil {
		junction = alias(e.source.alias, "j")
		b.lit(" CROSS JOIN ")
		b.relation(rel.Junction.Relation)
		b.lit(" AS ")
		b.ident(junction)
	}
	b.joins(e, false)
	join()
	var ties []func()
	tie := func(aliasA string, a []string, aliasB string, names, equal []string) {
		for i := range a {
			ties = append(ties, func() {
				b.dotted(aliasA, a[i])
				b.equal(equal[i])
				b.dotted(aliasB, names[i])
			})
		}
	}
	switch {
	case rel.Function != nil:
	case rel.Junction != nil:
		tie(junction, rel.Junction.SourceColumns, parent.source.alias, rel.Columns, rel.Junction.SourceEqual)
		tie(junction, rel.Junction.TargetColumns, e.source.alias, rel.TargetColumns, rel.Junction.TargetEqual)
	default:
		tie(e.source.alias, rel.TargetColumns, parent.source.alias, rel.Columns, rel.Equal)
	}
	b.where(e, ties...)
}

// equal writes the operator = of a schema: one that fits better, made by somebody
// who may create in a schema of the search_path, would run as the user.
func (b *builder) equal(schemaName string) {
	if schemaName == "" {
		b.lit(" = ")
		return
	}
	b.lit(" OPERATOR(")
	b.ident(schemaName)
	b.lit(".=) ")
}

// wholeRow writes the row of a node as a value of its relation's type.
func (b *builder) wholeRow(n *node) {
	if !n.source.untyped {
		b.ident(n.source.alias)
		b.lit(".*")
		return
	}
	b.lit("ROW(")
	for i := range n.source.relation.Columns {
		b.comma(i)
		b.dotted(n.source.alias, n.source.relation.Columns[i].Name)
	}
	b.lit(")::")
	b.relation(n.source.relation)
}

// groupBy writes GROUP BY over the items that are no aggregates, by position:
// an expression with a parameter in it would not be recognised again.
func (b *builder) groupBy(n *node) {
	if !n.grouped() {
		return
	}
	position, count := int64(0), 0
	for i := range n.items {
		it := &n.items[i]
		width := n.width(it)
		for range width {
			position++
			if it.aggregate != "" {
				continue
			}
			if count == 0 {
				b.lit(" GROUP BY ")
			}
			b.comma(count)
			count++
			b.int(position)
		}
	}
}

// from is what a read at the top reads: a relation, a function, or what was
// written.
type from func()

// body writes SELECT … of a read at the top, without its order and page.
func (b *builder) body(n *node, f from) {
	b.lit("SELECT ")
	b.nodeItems(n)
	b.lit(" FROM ")
	f()
	b.joins(n, false)
	b.where(n)
	b.groupBy(n)
}

// read writes the CTE "_s" with the rows of the page, and when a total is to be
// counted "_c". atMost bounds the counting.
func (b *builder) read(n *node, f from, counted bool, atMost *int64) {
	b.lit(`"_s" AS (`)
	b.body(n, f)
	b.orderBy(n)
	b.page(n.limit, n.offset)
	b.lit(")")
	if !counted {
		return
	}
	b.lit(`, "_c" AS (SELECT pg_catalog.count(*) AS "n" FROM (`)
	b.all(n, f)
	b.page(atMost, 0)
	b.lit(`) AS "_c")`)
}

// all writes a select with as many rows as there are without a page.
func (b *builder) all(n *node, f from) {
	if n.grouped() {
		b.body(n, f)
		return
	}
	b.lit("SELECT 1 FROM ")
	f()
	b.joins(n, true)
	b.where(n)
}

// result writes the outer SELECT over "_s": total, rows of the page, body. Of what
// reads only it has the controls before the body: no trigger comes later.
func (b *builder) result(m media, counted, body, controlled bool) {
	if counted {
		b.lit(` SELECT (SELECT "n" FROM "_c")::text`)
	} else {
		b.lit(" SELECT pg_catalog.count(*)::text")
	}
	b.answer(m, body, controlled)
	b.lit(` FROM "_s"`)
}

// csvNames are the names of the columns as a line of CSV.
const csvNames fragment = `(SELECT pg_catalog.string_agg(CASE WHEN "k" ~ E'[",\n\r]' THEN '"' || pg_catalog.replace("k", '"', '""') || '"' ELSE "k" END, ',')` +
	` FROM pg_catalog.json_object_keys((SELECT pg_catalog.row_to_json("_s".*) FROM "_s" LIMIT 1)) AS "_k" ("k"))`

// answer writes the rows of the page, the controls and the body, which is the last
// so that it can be sent while it comes.
func (b *builder) answer(m media, body, controlled bool) {
	b.lit(", pg_catalog.count(*)::text, ")
	b.controls(controlled)
	switch {
	case !body:
		b.lit("''")
	case m.csv:
		b.lit("COALESCE(")
		b.lit(csvNames)
		b.lit(` || E'\n' || pg_catalog.string_agg(pg_catalog.substr(("_s".*)::text, 2, pg_catalog.length(("_s".*)::text) - 2), E'\n'), '')`)
	case m.geo:
		// ST_AsGeoJSON is PostGIS's, wherever the search_path finds it.
		b.lit(`pg_catalog.json_build_object('type', 'FeatureCollection', 'features', COALESCE(pg_catalog.json_agg(ST_AsGeoJSON("_s".*)::json), '[]'))::text`)
	case m.single && m.stripped:
		b.lit(`COALESCE(pg_catalog.json_strip_nulls(pg_catalog.json_agg("_s".*) -> 0)::text, 'null')`)
	case m.single:
		b.lit(`COALESCE((pg_catalog.json_agg("_s".*) -> 0)::text, 'null')`)
	case m.stripped:
		b.lit(`COALESCE(pg_catalog.json_strip_nulls(pg_catalog.json_agg("_s".*))::text, '[]')`)
	default:
		b.lit(`COALESCE(pg_catalog.json_agg("_s".*)::text, '[]')`)
	}
}

func (b *builder) controls(yes bool) {
	if yes {
		b.lit(controls)
		b.lit(", ")
	}
}

// controls are what SQL has said about the answer.
const controls fragment = "NULLIF(pg_catalog.current_setting('response.status', true), ''), NULLIF(pg_catalog.current_setting('response.headers', true), '')"

// lateControls reads the controls behind a write and all that it triggered, in
// the flush that also commits. What could not be answered must undo the write, so
// the statement fails for it: with the name of a setting that there is not, by
// which refusedControl knows it again. The patterns take nothing that override
// would refuse.
const lateControls fragment = "SELECT " + controls + ", CASE" +
	" WHEN pg_catalog.current_setting('response.status', true) OPERATOR(pg_catalog.!~) '^([2-5][0-9][0-9])?$' THEN pg_catalog.set_config('PGRST112', '', true)" +
	" WHEN pg_catalog.current_setting('response.headers', true) OPERATOR(pg_catalog.!~*) '" + headersPattern + "' THEN pg_catalog.set_config('PGRST111', '', true) END"

// headersPattern matches an array of objects of one header each: a token that is
// none of forbiddenHeaders, and a string without line ends and NUL.
const (
	headersPattern fragment = `^(\s*\[\s*(` + headerPattern + `(\s*,\s*` + headerPattern + `)*)?\s*\]\s*)?$`
	headerPattern  fragment = `\{\s*"(?!(content-length|transfer-encoding|connection|upgrade|trailer)")[-!#$%&''*+.^_|~0-9a-z` + "`" + `]+"\s*:\s*` +
		`"([^"\\\u0001-\u001f]|\\["\\/bft]|\\u(00[2-9a-f]|0[1-9a-f][0-9a-f]|[1-9a-f][0-9a-f]{2})[0-9a-f])*"\s*\}`
)
