package rest

import (
	"strings"

	"github.com/sluice-dev/sluice/schema"
)

// source is what columns are read from, under one alias.
type source struct {
	alias string
	// relation knows types; nil for functions without a known row type.
	relation *schema.Relation
	// untyped: the rows are those of a CTE, not of the relation's type. Computed
	// columns are columns of it like others.
	untyped bool
}

// set returns the function behind a computed column that is a set, or nil.
func (s source) set(name string) *schema.Function {
	if s.relation == nil || s.untyped || s.relation.Column(name) != nil {
		return nil
	}
	return s.relation.Sets[name]
}

const oidTSVector = 3614

// column writes a field: the column, or a path into it.
func (b *builder) column(src source, f field) {
	wrap := false
	if len(f.path) > 0 && src.relation != nil {
		if c := src.relation.Column(f.name); c != nil {
			wrap = c.Base != schema.OIDJSON && c.Base != schema.OIDJSONB
		} else {
			wrap = src.relation.Sets[f.name] != nil
		}
	}
	set := src.set(f.name)
	if wrap {
		b.lit("pg_catalog.to_jsonb(")
	}
	if set != nil { // as a column it would multiply the rows
		b.lit("ARRAY(SELECT ")
		b.dotted(set.Schema, set.Name)
		b.lit("(")
		b.ident(src.alias)
		b.lit(".*))")
	} else {
		b.dotted(src.alias, f.name)
	}
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

// castColumn writes a field with an optional cast.
func (b *builder) castColumn(src source, f field, cast string) {
	if cast == "" {
		b.column(src, f)
		return
	}
	b.lit("(") // a cast binds closer than an arrow
	b.column(src, f)
	b.lit(")")
	b.cast(cast)
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
	case f.embed != nil:
		b.lit("NOT ")
		b.present(f.embed)
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
	if array && len(f.list) == 0 {
		b.lit("FALSE")
		return
	}
	b.column(src, f.field)
	if !array {
		b.lit(" = ANY (")
		b.value(arrayLiteral(f.list))
		b.lit(")")
		return
	}
	b.lit(" IN (")
	for i, v := range f.list {
		b.comma(i)
		b.value(v)
	}
	b.lit(")")
}

var arrayEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

func arrayLiteral(list []string) string {
	var s strings.Builder
	s.WriteByte('{')
	for i, v := range list {
		if i > 0 {
			s.WriteByte(',')
		}
		s.WriteString(`"` + arrayEscapes.Replace(v) + `"`)
	}
	s.WriteByte('}')
	return s.String()
}

// search writes a full text search; what is no tsvector becomes one.
func (b *builder) search(src source, f *filter) {
	vector := false
	if src.relation != nil && len(f.field.path) == 0 {
		c := src.relation.Column(f.field.name)
		vector = c == nil || c.Base == oidTSVector // a computed column is taken for one
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

// where writes the conditions of a node, all of which must hold, and before them
// what ties it to its parent.
func (b *builder) where(n *node, ties ...func()) {
	count := 0
	next := func() {
		if count == 0 {
			b.lit(" WHERE ")
		} else {
			b.lit(" AND ")
		}
		count++
	}
	for _, tie := range ties {
		next()
		tie()
	}
	for i := range n.filter {
		next()
		b.condition(n.source, &n.filter[i])
	}
	for i := range n.trees {
		next()
		b.tree(n.source, &n.trees[i])
	}
}

func (b *builder) orderBy(n *node) {
	for i := range n.order {
		t := &n.order[i]
		if i == 0 {
			b.lit(" ORDER BY ")
		} else {
			b.lit(", ")
		}
		switch {
		case t.embed == nil:
			b.column(n.source, t.field)
		case n.grouped():
			b.ident(t.field.name) // of the answer: the rest is grouped away
		case t.embed.grouped():
			b.column(source{alias: t.embed.lateral}, t.field)
		default:
			b.dotted(t.embed.lateral, itoa(int64(i+1)))
		}
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

// page writes LIMIT and OFFSET. A limit that is a parameter counts as a tenth of all
// rows in a plan for every value, so that PostgreSQL plans anew each time; as a number
// of the text a plan is kept for each limit that clients use.
func (b *builder) page(limit *int64, offset int64) {
	if limit != nil {
		b.lit(" LIMIT ")
		b.int(*limit)
	}
	if offset > 0 {
		b.lit(" OFFSET ")
		b.value(itoa(offset))
	}
}
