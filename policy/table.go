package policy

import (
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Table is the part of a table's definition that decides who may see a row.
type Table struct {
	Schema  string   // of the row type
	Name    string   // of the row type
	Columns []string // all columns, in the order of the row type
	Types   []ValueType
	// Alias is the name that the policies' expressions use for the table: the
	// table itself, or the partitioned ancestor that the policies belong to.
	Alias    string
	Policies []Policy // for SELECT and ALL
}

// Policy is one SELECT policy.
type Policy struct {
	Name       string `json:"name"`
	Permissive bool   `json:"permissive"`
	// Expr is the USING expression by pg_get_expr, under the search_path that the
	// check is going to have: what is not qualified means the same there. A
	// policy without one, such as FOR ALL WITH CHECK, shows and hides nothing.
	Expr string `json:"expr"`
}

// ordinality cannot be a column: PostgreSQL cuts names at 63 bytes.
const ordinality = "sluice row number, a name that is too long to be that of any column"

// CheckSQL returns the statement that judges rows under the policies whose
// positions are given. Its one parameter is an array literal of the row type
// (see AppendRow); it returns the number, counted from 1, of each row that is
// visible (see Visible), in no particular order. It returns "" when no permissive
// policy has an expression: nobody sees anything then.
//
// The statement is made to raise an error when a select of the row does. So the
// policies are a WHERE clause, which the planner simplifies by other rules than a
// value, and for whose estimates it evaluates what depends on the claims alone: a
// select with a sub that is no uuid fails under "is_public or owner = auth.uid()",
// for public rows as well. "or false" goes away, after it has kept the planner
// from making joins of sub-selects, which it does not with those of a policy.
func (t *Table) CheckSQL(applicable []int) string {
	var permissive, restrictive []string
	for _, i := range t.evaluated(applicable) {
		switch p := t.Policies[i]; {
		case p.Expr == "":
		case p.Permissive:
			permissive = append(permissive, "("+p.Expr+")")
		default:
			restrictive = append(restrictive, "("+p.Expr+")")
		}
	}
	if len(permissive) == 0 {
		return ""
	}
	all := append(restrictive, "("+strings.Join(permissive, " or ")+")")
	rows := "$1::" + pgx.Identifier{t.Schema, t.Name}.Sanitize() + "[]"
	where := " where (" + strings.Join(all, " and ") + ") or false"
	if strings.Contains(where, ident(t.Alias)+".*") || strings.Contains(where, t.Alias+".*") {
		// The whole row as one value has the table's type only when nothing, not
		// even a number, stands beside it.
		return "select n from pg_catalog.generate_subscripts(" + rows + ", 1) as sluice (n) where exists (select from pg_catalog.unnest((" +
			rows + ")[n:n]) as " + ident(t.Alias) + t.columnAliases("") + where + ") or false"
	}
	return "select " + ident(ordinality) + " from pg_catalog.unnest(" + rows + ") with ordinality as " + ident(t.Alias) + t.columnAliases(ordinality) + where
}

// Visible reads an answer to CheckSQL about n rows. It calls show with the
// position, counted from 0, of each row that is visible.
func Visible(rows [][][]byte, n int, show func(at int)) {
	for _, row := range rows {
		if len(row) != 1 {
			continue
		}
		if at, err := strconv.Atoi(string(row[0])); err == nil && at >= 1 && at <= n {
			show(at - 1)
		}
	}
}

// evaluated returns positions of policies in the order in which PostgreSQL
// evaluates permissive ones: the last name first, by bytes. One that shows the
// row spares the next, and with it the error that the next would raise.
func (t *Table) evaluated(applicable []int) []int {
	out := slices.Clone(applicable)
	slices.SortStableFunc(out, func(a, b int) int { return strings.Compare(t.Policies[b].Name, t.Policies[a].Name) })
	return out
}

// columnAliases names the columns that a row is made of, and one more.
func (t *Table) columnAliases(more string) string {
	names := make([]string, 0, len(t.Columns)+1)
	for _, c := range t.Columns {
		names = append(names, ident(c))
	}
	if more != "" {
		names = append(names, ident(more))
	}
	return " (" + strings.Join(names, ", ") + ")"
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

// LookupSQL returns a statement that reads the current values of the columns at
// the positions want from the row whose key columns have the values $1, $2 and so
// on.
func (t *Table) LookupSQL(want, key []int) string {
	columns, where := make([]string, len(want)), make([]string, len(key))
	for i, c := range want {
		columns[i] = ident(t.Columns[c])
	}
	for i, c := range key {
		where[i] = ident(t.Columns[c]) + t.Types[c].operator(OpEq) + "$" + strconv.Itoa(i+1) + "::" + t.Types[c].Name
	}
	return "select " + strings.Join(columns, ", ") + " from " + pgx.Identifier{t.Schema, t.Name}.Sanitize() + " where " + strings.Join(where, " and ")
}
