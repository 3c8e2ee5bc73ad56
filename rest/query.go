package rest

import (
	"slices"
	"strings"

	"github.com/sluice-dev/sluice/schema"
)

// source is what columns are read from, under one alias.
type source struct {
	alias string
	// relation knows types; nil for functions without a known row type.
	relation *schema.Relation
}

// column writes a field: the column, or a path into it.
func (b *builder) column(src source, f field) {
	wrap := false
	if len(f.path) > 0 && src.relation != nil {
		if c := src.relation.Column(f.name); c != nil {
			wrap = c.Base != oidJSON && c.Base != oidJSONB
		}
	}
	if wrap {
		b.lit("pg_catalog.to_jsonb(")
	}
	b.ident(src.alias)
	b.lit(".")
	b.ident(f.name)
	if wrap {
		b.lit(")")
	}
	for _, s := range f.path {
		b.lit("->")
		if s.text {
			b.lit(">")
		}
		if s.isIndex {
			b.int(s.index)
		} else {
			b.key(s.key)
		}
	}
}

const oidJSON, oidJSONB, oidTSVector = 114, 3802, 3614

// items writes the select list; none means all columns.
func (b *builder) items(src source, items []selectItem) {
	if len(items) == 0 {
		b.ident(src.alias)
		b.lit(".*")
		return
	}
	for i, it := range items {
		if i > 0 {
			b.lit(", ")
		}
		if it.star {
			b.ident(src.alias)
			b.lit(".*")
			continue
		}
		if it.cast == "" {
			b.column(src, it.field)
		} else {
			b.lit("(") // a cast binds closer than an arrow
			b.column(src, it.field)
			b.lit(")")
			b.cast(it.cast)
		}
		if out := it.output(); out != it.field.name || len(it.field.path) > 0 || it.cast != "" {
			b.lit(" AS ")
			b.ident(out)
		}
	}
}

// output is the key of an item in the answer.
func (it selectItem) output() string {
	if it.alias != "" {
		return it.alias
	}
	for i := len(it.field.path) - 1; i >= 0; i-- {
		if s := it.field.path[i]; !s.isIndex {
			return s.key
		}
	}
	return it.field.name
}

var comparison = map[string]fragment{
	"eq": " = ", "neq": " <> ", "gt": " > ", "gte": " >= ", "lt": " < ", "lte": " <= ", "like": " LIKE ", "ilike": " ILIKE ",
	"match": " ~ ", "imatch": " ~* ", "isdistinct": " IS DISTINCT FROM ", "cs": " @> ", "cd": " <@ ", "ov": " && ",
	"sl": " << ", "sr": " >> ", "nxr": " &< ", "nxl": " &> ", "adj": " -|- ",
}

var isFragment = map[string]fragment{
	"null": " IS NULL", "not_null": " IS NOT NULL", "true": " IS TRUE", "false": " IS FALSE", "unknown": " IS UNKNOWN",
}

var textSearch = map[string]fragment{"fts": "to_tsquery(", "plfts": "plainto_tsquery(", "phfts": "phraseto_tsquery(", "wfts": "websearch_to_tsquery("}

// condition writes one filter.
func (b *builder) condition(src source, f *filter) {
	if f.negate {
		b.lit("NOT (")
		defer b.lit(")")
	}
	switch {
	case f.op == "is":
		b.column(src, f.field)
		b.lit(isFragment[f.value])
	case f.op == "in":
		b.in(src, f)
	case textSearch[f.op] != "":
		b.search(src, f)
	default:
		b.column(src, f.field)
		b.lit(comparison[f.op])
		switch f.quant {
		case "any":
			b.lit("ANY (")
		case "all":
			b.lit("ALL (")
		}
		b.value(f.value)
		if f.quant != "" {
			b.lit(")")
		}
	}
}

// in compares with one array parameter, so that the length of the list does not
// change the statement. A column of an array type needs a list of parameters.
func (b *builder) in(src source, f *filter) {
	array := false
	if src.relation != nil && len(f.field.path) == 0 {
		c := src.relation.Column(f.field.name)
		array = c != nil && c.Category == "A"
	}
	b.column(src, f.field)
	if !array || len(f.list) == 0 {
		b.lit(" = ANY (")
		b.value(arrayLiteral(f.list))
		b.lit(")")
		return
	}
	b.lit(" IN (")
	for i, v := range f.list {
		if i > 0 {
			b.lit(", ")
		}
		b.value(v)
	}
	b.lit(")")
}

func arrayLiteral(list []string) string {
	var s strings.Builder
	s.WriteByte('{')
	for i, v := range list {
		if i > 0 {
			s.WriteByte(',')
		}
		s.WriteString(`"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v) + `"`)
	}
	s.WriteByte('}')
	return s.String()
}

func (b *builder) search(src source, f *filter) {
	vector := false
	if src.relation != nil && len(f.field.path) == 0 {
		c := src.relation.Column(f.field.name)
		vector = c != nil && c.Base == oidTSVector
	}
	config := func() {
		if f.config != "" {
			b.value(f.config)
			b.lit("::text::regconfig, ")
		}
	}
	if !vector {
		b.lit("to_tsvector(")
		config()
	}
	b.column(src, f.field)
	if !vector {
		b.lit(")")
	}
	b.lit(" @@ ")
	b.lit(textSearch[f.op])
	config()
	b.value(f.value)
	b.lit(")")
}

func (b *builder) tree(src source, t *tree) {
	if t.leaf != nil {
		b.condition(src, t.leaf)
		return
	}
	if t.negate {
		b.lit("NOT ")
	}
	b.lit("(")
	for i := range t.kids {
		if i > 0 && t.or {
			b.lit(" OR ")
		} else if i > 0 {
			b.lit(" AND ")
		}
		b.tree(src, &t.kids[i])
	}
	b.lit(")")
}

// where writes the conditions of a request, all of which must hold.
func (b *builder) where(src source, r *request) {
	n := 0
	next := func() {
		if n == 0 {
			b.lit(" WHERE ")
		} else {
			b.lit(" AND ")
		}
		n++
	}
	for i := range r.filters {
		next()
		b.condition(src, &r.filters[i])
	}
	for i := range r.trees {
		next()
		b.tree(src, &r.trees[i])
	}
}

func (b *builder) orderBy(src source, terms []orderTerm) {
	for i, t := range terms {
		if i == 0 {
			b.lit(" ORDER BY ")
		} else {
			b.lit(", ")
		}
		b.column(src, t.field)
		if t.desc {
			b.lit(" DESC")
		}
		switch t.nulls {
		case "first":
			b.lit(" NULLS FIRST")
		case "last":
			b.lit(" NULLS LAST")
		}
	}
}

// page writes LIMIT and OFFSET.
func (b *builder) page(limit *int64, offset int64) {
	if limit != nil {
		b.lit(" LIMIT ")
		b.int(*limit)
	}
	if offset > 0 {
		b.lit(" OFFSET ")
		b.int(offset)
	}
}

// answer writes the outer SELECT over "_s": total, rows of the page, body.
func (b *builder) answer(m media, body bool) {
	b.lit(", pg_catalog.count(*)::text, ")
	switch {
	case !body:
		b.lit("''")
	case m.csv:
		b.lit(`COALESCE(pg_catalog.string_agg(pg_catalog.substr("_s"::text, 2, pg_catalog.length("_s"::text) - 2), E'\n'), '')`)
	case m.single && m.stripped:
		b.lit(`COALESCE(pg_catalog.json_strip_nulls(pg_catalog.json_agg("_s".*) -> 0)::text, 'null')`)
	case m.single:
		b.lit(`COALESCE((pg_catalog.json_agg("_s".*) -> 0)::text, 'null')`)
	case m.stripped:
		b.lit(`COALESCE(pg_catalog.json_strip_nulls(pg_catalog.json_agg("_s".*))::text, '[]')`)
	default:
		b.lit(`COALESCE(pg_catalog.json_agg("_s".*)::text, '[]')`)
	}
	b.lit(` FROM "_s"`)
}

// readQuery reads a relation.
func readQuery(r *request, rel *schema.Relation, limit *int64) *builder {
	b := &builder{}
	src := source{rel.Name, rel}
	b.lit(`WITH "_s" AS (SELECT `)
	b.items(src, r.items)
	b.lit(" FROM ")
	b.relation(rel)
	b.lit(" AS ")
	b.ident(src.alias)
	b.where(src, r)
	b.orderBy(src, r.order)
	b.page(limit, r.offset)
	b.lit(")")
	counted := r.prefer.counts() && (limit != nil || r.offset > 0)
	if counted {
		b.lit(`, "_c" AS (SELECT pg_catalog.count(*) AS "n" FROM `)
		b.relation(rel)
		b.lit(" AS ")
		b.ident(src.alias)
		b.where(src, r)
		b.lit(")")
	}
	b.lit(" SELECT ")
	if counted {
		b.lit(`(SELECT "n" FROM "_c")::text`)
	} else {
		b.lit("pg_catalog.count(*)::text")
	}
	b.answer(r.media, r.method != "HEAD")
	return b
}

// counts reports whether a total was asked for. Planned and estimated totals are
// answered exactly.
func (p *prefer) counts() bool {
	return p.count == "exact" || p.count == "planned" || p.count == "estimated"
}

// written are the columns that RETURNING has to give back.
func written(b *builder, r *request, rel *schema.Relation) {
	b.lit(" RETURNING ")
	if r.prefer.ret != "representation" {
		if r.prefer.ret == "headers-only" && len(rel.PrimaryKey) > 0 {
			for i, k := range rel.PrimaryKey {
				if i > 0 {
					b.lit(", ")
				}
				b.ident(rel.Name)
				b.lit(".")
				b.ident(k)
			}
			return
		}
		b.lit("1")
		return
	}
	star := len(r.items) == 0 || slices.ContainsFunc(r.items, func(it selectItem) bool { return it.star })
	if star {
		b.ident(rel.Name)
		b.lit(".*")
		return
	}
	var names []string
	add := func(n string) {
		if !slices.Contains(names, n) {
			names = append(names, n)
		}
	}
	for _, it := range r.items {
		add(it.field.name)
	}
	for _, o := range r.order {
		add(o.field.name)
	}
	for i, n := range names {
		if i > 0 {
			b.lit(", ")
		}
		b.ident(rel.Name)
		b.lit(".")
		b.ident(n)
	}
}

// writeAnswer writes the outer SELECT of a write: rows affected, rows of the
// page, body.
func writeAnswer(b *builder, r *request, rel *schema.Relation) {
	src := source{rel.Name, rel}
	switch r.prefer.ret {
	case "representation":
		b.lit(`, "_s" AS (SELECT `)
		b.items(src, r.items)
		b.lit(` FROM "_w" AS `)
		b.ident(src.alias)
		b.orderBy(src, r.order)
		b.lit(`) SELECT (SELECT pg_catalog.count(*) FROM "_w")::text`)
		b.answer(r.media, true)
	case "headers-only":
		b.lit(` SELECT pg_catalog.count(*)::text, pg_catalog.count(*)::text, COALESCE((pg_catalog.json_agg("_w".*) -> 0)::text, '') FROM "_w"`)
	default:
		b.lit(` SELECT pg_catalog.count(*)::text, pg_catalog.count(*)::text, '' FROM "_w"`)
	}
}

// recordset writes the payload as rows with the types of the columns.
func recordset(b *builder, p *payload, columns []*schema.Column, defaults bool) {
	kind := fragment("json_to_record")
	if p.array {
		kind = "json_to_recordset"
	}
	if defaults {
		kind = "jsonb_to_recordset"
	}
	b.lit("pg_catalog." + kind + "(")
	if defaults {
		// A row that lacks a key gets the column's own default.
		b.lit("(SELECT pg_catalog.jsonb_agg(pg_catalog.jsonb_build_object(")
		for i, c := range columns {
			if i > 0 {
				b.lit(", ")
			}
			b.value(c.Name)
			b.lit("::text, ")
			b.columnDefault(c)
		}
		b.lit(`) || "e") FROM pg_catalog.jsonb_array_elements(CASE pg_catalog.jsonb_typeof(`)
		b.value(string(p.text))
		b.lit("::jsonb) WHEN 'array' THEN ")
		b.value(string(p.text))
		b.lit("::jsonb ELSE pg_catalog.jsonb_build_array(")
		b.value(string(p.text))
		b.lit(`::jsonb) END) AS "_e" ("e"))`)
	} else {
		b.value(string(p.text))
		b.lit("::json")
	}
	b.lit(`) AS "_p" (`)
	for i, c := range columns {
		if i > 0 {
			b.lit(", ")
		}
		b.ident(c.Name)
		b.lit(" ")
		b.columnType(c)
	}
	b.lit(")")
}

// insertQuery inserts the rows of a payload.
func insertQuery(r *request, rel *schema.Relation, p *payload, columns []*schema.Column, arbiter []string) *builder {
	b := &builder{}
	b.lit(`WITH "_w" AS (INSERT INTO `)
	b.relation(rel)
	switch {
	case len(columns) == 0 && p.rows == 1:
		b.lit(" DEFAULT VALUES")
	case len(columns) == 0 && p.rows > 1:
		b.lit(" (")
		b.ident(rel.Columns[0].Name)
		b.lit(") VALUES ")
		for i := range p.rows {
			if i > 0 {
				b.lit(", ")
			}
			b.lit("(DEFAULT)")
		}
	default:
		b.lit(" (")
		names(b, columns)
		b.lit(") SELECT ")
		names(b, columns)
		b.lit(" FROM ")
		recordset(b, p, columns, r.prefer.missing == "default")
	}
	if r.prefer.resolution != "" && len(arbiter) > 0 {
		b.lit(" ON CONFLICT (")
		for i, c := range arbiter {
			if i > 0 {
				b.lit(", ")
			}
			b.ident(c)
		}
		b.lit(") DO ")
		if r.prefer.resolution == "ignore-duplicates" || len(columns) == 0 {
			b.lit("NOTHING")
		} else {
			b.lit("UPDATE SET ")
			for i, c := range columns {
				if i > 0 {
					b.lit(", ")
				}
				b.ident(c.Name)
				b.lit(" = EXCLUDED.")
				b.ident(c.Name)
			}
		}
	}
	written(b, r, rel)
	b.lit(")")
	writeAnswer(b, r, rel)
	return b
}

func names(b *builder, columns []*schema.Column) {
	for i, c := range columns {
		if i > 0 {
			b.lit(", ")
		}
		b.ident(c.Name)
	}
}

// updateQuery updates the rows that the filters choose.
func updateQuery(r *request, rel *schema.Relation, p *payload, columns []*schema.Column) *builder {
	b := &builder{}
	src := source{rel.Name, rel}
	b.lit(`WITH "_w" AS (UPDATE `)
	b.relation(rel)
	b.lit(" AS ")
	b.ident(rel.Name)
	b.lit(" SET ")
	for i, c := range columns {
		if i > 0 {
			b.lit(", ")
		}
		b.ident(c.Name)
		b.lit(` = "_b".`)
		b.ident(c.Name)
	}
	b.lit(" FROM (SELECT * FROM ")
	recordset(b, p, columns, r.prefer.missing == "default")
	b.lit(` LIMIT 1) AS "_b"`)
	b.where(src, r)
	written(b, r, rel)
	b.lit(")")
	writeAnswer(b, r, rel)
	return b
}

// deleteQuery deletes the rows that the filters choose.
func deleteQuery(r *request, rel *schema.Relation) *builder {
	b := &builder{}
	b.lit(`WITH "_w" AS (DELETE FROM `)
	b.relation(rel)
	b.lit(" AS ")
	b.ident(rel.Name)
	b.where(source{rel.Name, rel}, r)
	written(b, r, rel)
	b.lit(")")
	writeAnswer(b, r, rel)
	return b
}

// callQuery calls a function. Its arguments are taken out of one JSON object.
func callQuery(r *request, f *schema.Function, args []*schema.Arg, body []byte, whole bool, limit *int64) *builder {
	b := &builder{}
	b.lit("WITH ")
	if !whole && len(args) > 0 {
		b.lit(`"_a" AS (SELECT * FROM pg_catalog.json_to_record(`)
		b.value(string(body))
		b.lit(`::json) AS "_p" (`)
		for i, a := range args {
			if i > 0 {
				b.lit(", ")
			}
			b.ident(a.Name)
			b.lit(" ")
			b.argType(a)
		}
		b.lit(")), ")
	}
	call := func() {
		b.ident(f.Schema)
		b.lit(".")
		b.ident(f.Name)
		b.lit("(")
		if whole {
			b.value(string(body))
			b.lit("::")
			b.argType(&f.Args[0])
		}
		for i, a := range args {
			if whole {
				break
			}
			if i > 0 {
				b.lit(", ")
			}
			if f.Variadic && a == &f.Args[len(f.Args)-1] {
				b.lit("VARIADIC ")
			}
			b.ident(a.Name)
			b.lit(` => (SELECT "_a".`)
			b.ident(a.Name)
			b.lit(` FROM "_a")`)
		}
		b.lit(")")
	}
	src := source{alias: f.Name}
	switch {
	case f.ReturnsRow:
		b.lit(`"_s" AS (SELECT `)
		b.items(src, r.items)
		b.lit(" FROM ")
		call()
		b.lit(" AS ")
		b.ident(src.alias)
		b.where(src, r)
		b.orderBy(src, r.order)
		b.page(limit, r.offset)
		b.lit(")")
		m := r.media
		if !f.ReturnsSet {
			m.single = true
		}
		b.lit(" SELECT pg_catalog.count(*)::text")
		b.answer(m, r.method != "HEAD")
	case f.ReturnsSet:
		b.lit(`"_s" ("v") AS (SELECT * FROM `)
		call()
		b.lit(" AS ")
		b.ident(src.alias)
		b.page(limit, r.offset)
		b.lit(`) SELECT pg_catalog.count(*)::text, pg_catalog.count(*)::text, COALESCE(pg_catalog.json_agg("_s"."v")::text, '[]') FROM "_s"`)
	default:
		b.lit(`"_s" ("v") AS (SELECT `)
		call()
		if f.ReturnsVoid {
			b.lit(`) SELECT '1', '1', pg_catalog.count("v")::text FROM "_s"`)
		} else {
			b.lit(`) SELECT '1', '1', COALESCE(pg_catalog.to_json("v")::text, 'null') FROM "_s"`)
		}
	}
	return b
}
