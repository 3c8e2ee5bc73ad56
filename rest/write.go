package rest

import (
	"slices"

	"github.com/sluice-dev/sluice/schema"
)

// The statements of writes (spec rest 8.3): the write in the CTE "_w", then the
// read over what it returned, under the relation's name.

// returning are the columns that a write has to give back: for a representation
// what is selected, ordered by or joined on; names that are no columns are
// computed ones.
func (n *node) returning() (all bool, names []string) {
	add := func(list ...string) {
		for _, name := range list {
			if !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	for i := range n.items {
		switch it := &n.items[i]; {
		case it.star:
			all = true
		case it.embed != nil && it.embed.rel.Function != nil:
			all = true
		case it.embed != nil:
			add(it.embed.rel.Columns...)
		case it.field.name != "":
			add(it.field.name)
		}
	}
	for _, o := range n.order {
		if o.related == "" {
			add(o.field.name)
		}
	}
	if all && n.source.relation != nil {
		names = slices.DeleteFunc(names, func(name string) bool { return n.source.relation.Column(name) != nil })
	}
	return all, names
}

// columnsOf writes the columns that a later step needs of what n reads.
func (b *builder) columnsOf(n *node, all bool, names []string) {
	if all {
		b.ident(n.source.alias)
		b.lit(".*")
	}
	for i, name := range names {
		if all || i > 0 {
			b.lit(", ")
		}
		b.column(n.source, field{name: name})
		if n.source.set(name) != nil {
			b.lit(" AS ")
			b.ident(name)
		}
	}
	if !all && len(names) == 0 {
		b.lit("1")
	}
}

func (b *builder) returning(r *request) {
	b.lit(" RETURNING ")
	var all bool
	var names []string
	switch r.prefer.ret {
	case "representation":
		all, names = r.node.returning()
	case "headers-only":
		names = r.source.relation.PrimaryKey
	}
	b.columnsOf(&r.node, all, names)
}

// written writes the outer SELECT of a write: rows affected, rows of the page,
// body.
func (b *builder) written(r *request) {
	switch r.prefer.ret {
	case "representation":
		n := r.node
		n.filter, n.trees, n.limit, n.offset, n.source.untyped = nil, nil, nil, 0, true
		for _, e := range n.embeds {
			e.parent = &n
		}
		b.lit(", ")
		b.read(&n, func() {
			b.lit(`"_w" AS `)
			b.ident(n.source.alias)
		}, false, nil)
		b.lit(` SELECT (SELECT pg_catalog.count(*) FROM "_w")::text`)
		b.answer(r.media, true, false)
		b.lit(` FROM "_s"`)
	case "headers-only":
		b.lit(` SELECT pg_catalog.count(*)::text, pg_catalog.count(*)::text, COALESCE((pg_catalog.json_agg("_w".*) -> 0)::text, '') FROM "_w"`)
	default:
		b.lit(` SELECT pg_catalog.count(*)::text, pg_catalog.count(*)::text, '' FROM "_w"`)
	}
}

// recordset writes the payload as rows with the types of the columns.
func (b *builder) recordset(p *payload, columns []*schema.Column, defaults bool) {
	switch {
	case defaults:
		b.lit("pg_catalog.jsonb_to_recordset(")
		b.withDefaults(p, columns)
	case p.array:
		b.lit("pg_catalog.json_to_recordset(")
		b.bytes(p.text)
		b.lit("::json")
	default:
		b.lit("pg_catalog.json_to_record(")
		b.bytes(p.text)
		b.lit("::json")
	}
	b.lit(`) AS "_p" (`)
	for i, c := range columns {
		b.comma(i)
		b.ident(c.Name)
		b.lit(" ")
		b.columnType(c)
	}
	b.lit(")")
}

// withDefaults writes the payload as an array in which a row that lacks a key
// has the column's own default.
func (b *builder) withDefaults(p *payload, columns []*schema.Column) {
	b.lit("(SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(")
	for i, c := range columns {
		b.comma(i)
		b.value(c.Name)
		b.lit("::text, ")
		b.columnDefault(c)
	}
	b.lit(`) || "e") FROM pg_catalog.jsonb_array_elements(`)
	if p.array {
		b.bytes(p.text)
		b.lit("::jsonb")
	} else {
		b.lit("pg_catalog.jsonb_build_array(")
		b.bytes(p.text)
		b.lit("::jsonb)")
	}
	b.lit(`) AS "_e" ("e"))`)
}

// What counts the new rows of an upsert: up by one for each row that is tried,
// down for each that is there. xmax tells nothing on partitioned tables and
// views.
const (
	triedRow fragment = ` WHERE pg_catalog.set_config('sluice.inserted', (COALESCE(NULLIF(pg_catalog.current_setting('sluice.inserted', true), ''), '0')::int + 1)::text, true) <> ''`
	foundRow fragment = ` WHERE pg_catalog.set_config('sluice.inserted', (pg_catalog.current_setting('sluice.inserted', true)::int - 1)::text, true) <> ''`
	newRows  fragment = `SELECT COALESCE(NULLIF(pg_catalog.current_setting('sluice.inserted', true), ''), '0')`
)

// insertQuery inserts the rows of a payload.
func insertQuery(r *request, p *payload, columns []*schema.Column, arbiter []string) *builder {
	b := &builder{}
	rel := r.source.relation
	b.lit(`WITH "_w" AS (INSERT INTO `)
	b.relation(rel)
	b.lit(" AS ")
	b.ident(r.source.alias)
	merge := merges(r, columns, arbiter)
	switch {
	case len(columns) == 0 && p.rows == 1:
		b.lit(" DEFAULT VALUES")
	case len(columns) == 0:
		b.lit(" (")
		b.ident(rel.Columns[0].Name)
		b.lit(") VALUES ")
		for i := range p.rows {
			b.comma(i)
			b.lit("(DEFAULT)")
		}
	default:
		names := columnNames(columns)
		b.lit(" (")
		b.idents(names)
		b.lit(") SELECT ")
		b.idents(names)
		b.lit(" FROM ")
		b.recordset(p, columns, r.prefer.missing == "default")
		if merge {
			b.lit(triedRow)
		}
	}
	if r.prefer.resolution != "" && len(arbiter) > 0 {
		b.lit(" ON CONFLICT (")
		b.idents(arbiter)
		b.lit(") DO ")
		if !merge {
			b.lit("NOTHING")
		} else {
			b.lit("UPDATE SET ")
			for i, c := range columns {
				b.comma(i)
				b.ident(c.Name)
				b.lit(" = ")
				b.dotted("excluded", c.Name)
			}
			b.lit(foundRow)
		}
	}
	b.returning(r)
	b.lit(")")
	b.written(r)
	return b
}

// merges reports whether rows that are there are updated.
func merges(r *request, columns []*schema.Column, arbiter []string) bool {
	return r.prefer.resolution == "merge-duplicates" && len(arbiter) > 0 && len(columns) > 0
}

func columnNames(columns []*schema.Column) []string {
	out := make([]string, len(columns))
	for i, c := range columns {
		out[i] = c.Name
	}
	return out
}

// updateQuery updates the rows that the filters choose.
func updateQuery(r *request, p *payload, columns []*schema.Column) *builder {
	b := &builder{}
	b.lit(`WITH "_w" AS (UPDATE `)
	b.relation(r.source.relation)
	b.lit(" AS ")
	b.ident(r.source.alias)
	b.lit(" SET ")
	body := alias(r.source.alias, "body")
	for i, c := range columns {
		b.comma(i)
		b.ident(c.Name)
		b.lit(" = ")
		b.dotted(body, c.Name)
	}
	b.lit(" FROM (SELECT * FROM ")
	b.recordset(p, columns, r.prefer.missing == "default")
	b.lit(" LIMIT 1) AS ")
	b.ident(body)
	b.where(&r.node)
	b.returning(r)
	b.lit(")")
	b.written(r)
	return b
}

// deleteQuery deletes the rows that the filters choose.
func deleteQuery(r *request) *builder {
	b := &builder{}
	b.lit(`WITH "_w" AS (DELETE FROM `)
	b.relation(r.source.relation)
	b.lit(" AS ")
	b.ident(r.source.alias)
	b.where(&r.node)
	b.returning(r)
	b.lit(")")
	b.written(r)
	return b
}
