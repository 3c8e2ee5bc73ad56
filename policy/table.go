package policy

import (
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Table is the part of a table's definition that decides who may see a row.
type Table struct {
	Schema  string   // of the row type
	Name    string   // of the row type
	Columns []string // all columns, in the order of the row type
	Types   []string // of the columns, by format_type without modifier
	// Alias is the name that the policies' expressions use for the table: the
	// table itself, or the partitioned ancestor that the policies belong to.
	Alias    string
	Policies []Policy // for SELECT and ALL
}

// Policy is one SELECT policy.
type Policy struct {
	Name       string `json:"name"`
	Permissive bool   `json:"permissive"`
	// Expr is the USING expression by pg_get_expr under an empty search_path;
	// empty means true.
	Expr string `json:"expr"`
}

// ordinality cannot be a column: PostgreSQL cuts names at 63 bytes.
const ordinality = "sluice row number, a name that is too long to be that of any column"

// CheckSQL returns the statement that judges rows under the policies whose
// positions are given. Its one parameter is an array literal of the row type
// (see AppendRow); it returns one boolean for each row, in order. It returns ""
// when no permissive policy applies: nobody sees anything then.
func (t *Table) CheckSQL(applicable []int) string {
	var permissive, restrictive []string
	for _, i := range applicable {
		p := t.Policies[i]
		expr := "(" + p.Expr + ")"
		if p.Expr == "" {
			expr = "true"
		}
		if p.Permissive {
			permissive = append(permissive, expr)
		} else {
			restrictive = append(restrictive, expr)
		}
	}
	if len(permissive) == 0 {
		return ""
	}
	all := append([]string{"(" + strings.Join(permissive, " or ") + ")"}, restrictive...)
	var b strings.Builder
	b.WriteString("select coalesce(" + strings.Join(all, " and ") + ", false) from pg_catalog.unnest($1::")
	b.WriteString(pgx.Identifier{t.Schema, t.Name}.Sanitize() + "[]) with ordinality as " + ident(t.Alias) + " (")
	for _, c := range t.Columns {
		b.WriteString(ident(c) + ", ")
	}
	b.WriteString(ident(ordinality) + ") order by " + ident(ordinality))
	return b.String()
}

func ident(name string) string { return pgx.Identifier{name}.Sanitize() }

// AppendRow appends one element of the array literal of CheckSQL: a row whose
// values are text or, when nil, NULL, in the order of Columns. The caller joins
// the elements with commas and puts them in braces.
func AppendRow(dst []byte, values [][]byte) []byte {
	dst = append(dst, '"', '(')
	for i, v := range values {
		if i > 0 {
			dst = append(dst, ',')
		}
		if v == nil {
			continue
		}
		// Quoted twice: as a field of the row, and that as an element.
		dst = append(dst, '\\', '"')
		for _, c := range v {
			switch c {
			case '"':
				dst = append(dst, `\"\"`...)
			case '\\':
				dst = append(dst, `\\\\`...)
			default:
				dst = append(dst, c)
			}
		}
		dst = append(dst, '\\', '"')
	}
	return append(dst, ')', '"')
}

// LookupSQL returns a statement that reads the current values, as text, of the
// columns at the positions want from the row whose key columns have the text
// values $1, $2 and so on.
func (t *Table) LookupSQL(want, key []int) string {
	var b strings.Builder
	b.WriteString("select ")
	for i, c := range want {
		if i > 0 {
			b.WriteString(", ")
		}
		b.WriteString(ident(t.Columns[c]) + "::text")
	}
	b.WriteString(" from " + pgx.Identifier{t.Schema, t.Name}.Sanitize() + " where ")
	for i, c := range key {
		if i > 0 {
			b.WriteString(" and ")
		}
		b.WriteString(ident(t.Columns[c]) + " = $" + strconv.Itoa(i+1) + "::text::" + t.Types[c])
	}
	return b.String()
}

// CompareSQL returns a statement without tables that compares $1 with $2, both
// cast to a type; it returns one boolean or NULL. Its parts are typed: an
// operator of the fixed table and a type name by format_type.
func CompareSQL(op Op, typeName string) string {
	t := "::" + typeName
	switch op {
	case OpIn:
		return "select $1::text" + t + " = any ($2::text" + t + "[])"
	case OpLike, OpILike, OpMatch, OpIMatch:
		return "select $1::text" + t + " " + operators[op] + " $2::text"
	}
	return "select $1::text" + t + " " + operators[op] + " $2::text" + t
}

// CastSQL returns a statement that fails when $1 is no value of the type, or,
// for OpIn, no array of such values.
func CastSQL(op Op, typeName string) string {
	if op == OpIn {
		return "select pg_catalog.cardinality($1::text::" + typeName + "[])::text"
	}
	return "select ($1::text::" + typeName + ") is null"
}

// Op is a filter operator.
type Op uint8

// Filter operators.
const (
	OpEq Op = iota + 1
	OpNeq
	OpLt
	OpLte
	OpGt
	OpGte
	OpIn
	OpLike
	OpILike
	OpIs
	OpMatch
	OpIMatch
	OpIsDistinct
)

var operators = map[Op]string{
	OpEq: "=", OpNeq: "<>", OpLt: "<", OpLte: "<=", OpGt: ">", OpGte: ">=",
	OpLike: "~~", OpILike: "~~*", OpMatch: "~", OpIMatch: "~*", OpIsDistinct: "is distinct from",
}

var opNames = []string{
	OpEq: "eq", OpNeq: "neq", OpLt: "lt", OpLte: "lte", OpGt: "gt", OpGte: "gte", OpIn: "in", OpLike: "like", OpILike: "ilike",
	OpIs: "is", OpMatch: "match", OpIMatch: "imatch", OpIsDistinct: "isdistinct",
}

// ParseOp returns the operator of a filter's spelling, or false.
func ParseOp(name string) (Op, bool) {
	for op, n := range opNames {
		if n != "" && n == name {
			return Op(op), true
		}
	}
	return 0, false
}

// String returns the filter's spelling.
func (o Op) String() string {
	if int(o) < len(opNames) {
		return opNames[o]
	}
	return strconv.Itoa(int(o))
}
