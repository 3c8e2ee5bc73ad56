package policy

import "strconv"

// ValueType is the type in which values are compared: never a domain, whose
// constraints may call anybody's functions. The statements below run with rights
// of our own, so they use nothing that a user could have defined: parameters are
// read by the type's input function, and operators have a schema.
type ValueType struct {
	Name string // by format_type without modifier
	// Operators is the schema of the operators of an extension's type, such as
	// citext; empty for PostgreSQL's own types.
	Operators string
}

// operator returns an operator of the fixed table, in the schema of the type's.
func (t ValueType) operator(op Op) string {
	schema := t.Operators
	if schema == "" {
		schema = "pg_catalog"
	}
	return " operator(" + ident(schema) + "." + operators[op] + ") "
}

// CompareSQL returns a statement without tables that compares $1 with $2 as
// values of a type; it returns one boolean or NULL. Patterns are text, and the
// operand of OpIn is an array literal. There is no statement for OpIs, which
// looks at the value alone.
func CompareSQL(op Op, t ValueType) string {
	switch {
	case op == OpIn:
		return "select $1::" + t.Name + t.operator(OpEq) + "any ($2::" + t.Name + "[])"
	case op.IsPattern():
		return "select $1::" + t.Name + t.operator(op) + "$2::text"
	case op == OpIsDistinct:
		// Of two values that are not NULL; it has no notation with a schema.
		return "select not ($1::" + t.Name + t.operator(OpEq) + "$2::" + t.Name + ")"
	}
	return "select $1::" + t.Name + t.operator(op) + "$2::" + t.Name
}

// CastSQL returns a statement that fails when $1 is no value of the type. It
// returns how many values there are: one, or for OpIn those of the array.
func CastSQL(op Op, t ValueType) string {
	if op == OpIn {
		return "select pg_catalog.cardinality($1::" + t.Name + "[])"
	}
	return "select pg_catalog.num_nonnulls($1::" + t.Name + ")"
}

// RegexpSQL returns a statement that fails when $1 is no regular expression.
func RegexpSQL() string { return "select '' operator(pg_catalog.~) $1::text" }

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

// IsPattern reports whether the operand is a pattern, not a value of the type.
func (o Op) IsPattern() bool { return o == OpLike || o == OpILike || o == OpMatch || o == OpIMatch }

// operators are PostgreSQL's.
var operators = map[Op]string{
	OpEq: "=", OpNeq: "<>", OpLt: "<", OpLte: "<=", OpGt: ">", OpGte: ">=",
	OpLike: "~~", OpILike: "~~*", OpMatch: "~", OpIMatch: "~*",
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
