package rest

import (
	"strconv"
	"strings"

	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/schema"
)

// fragment is SQL that stands in this package as a constant.
type fragment string

// builder writes a statement. None of its methods takes SQL from outside: names
// come from the snapshot or are quoted, values become parameters, types and
// expressions are PostgreSQL's own words from the snapshot.
type builder struct {
	sql  strings.Builder
	args [][]byte
}

func (b *builder) lit(f fragment) { b.sql.WriteString(string(f)) }

// ident writes a quoted name. Any name is safe so; a NUL cannot reach here
// (parseQuery) and PostgreSQL cuts long names.
func (b *builder) ident(name string) {
	b.sql.WriteByte('"')
	b.sql.WriteString(strings.ReplaceAll(name, `"`, `""`))
	b.sql.WriteByte('"')
}

// relation writes the qualified name of a relation of the snapshot.
func (b *builder) relation(r *schema.Relation) {
	b.ident(r.Schema)
	b.lit(".")
	b.ident(r.Name)
}

// columnType writes the type of a column or argument as PostgreSQL spells it.
func (b *builder) columnType(c *schema.Column) { b.sql.WriteString(c.Type) }

func (b *builder) argType(a *schema.Arg) { b.sql.WriteString(a.Type) }

// columnDefault writes the column's default expression, or NULL.
func (b *builder) columnDefault(c *schema.Column) {
	if c.Default == nil || c.Generated != "" {
		b.lit("NULL")
		return
	}
	b.sql.WriteString("(" + *c.Default + ")")
}

// value writes a parameter.
func (b *builder) value(v string) {
	b.args = append(b.args, []byte(v))
	b.sql.WriteByte('$')
	b.sql.WriteString(strconv.Itoa(len(b.args)))
}

func (b *builder) int(n int64) {
	if n < 0 {
		b.lit("(")
	}
	b.sql.WriteString(strconv.FormatInt(n, 10))
	if n < 0 {
		b.lit(")")
	}
}

// grammarTypes are spellings that are SQL grammar, not names: quoted they would
// mean something else or nothing.
var grammarTypes = map[string]fragment{
	"int": "int", "integer": "integer", "smallint": "smallint", "bigint": "bigint", "real": "real", "float": "float", "decimal": "decimal",
	"dec": "dec", "boolean": "boolean", "char": "char", "character": "character", "character varying": "character varying", "bit": "bit",
	"bit varying": "bit varying", "double precision": "double precision", "interval": "interval",
	"timestamp": "timestamp", "timestamp with time zone": "timestamp with time zone", "timestamp without time zone": "timestamp without time zone",
	"time": "time", "time with time zone": "time with time zone", "time without time zone": "time without time zone",
}

// cast writes a client's cast.
func (b *builder) cast(name string) {
	b.lit("::")
	lower := strings.ToLower(strings.Join(strings.Fields(name), " "))
	if f, ok := grammarTypes[lower]; ok {
		b.lit(f)
		return
	}
	b.ident(lower)
}

// key writes a JSON key: plain ones as a literal, so that expression indexes
// match, others as a parameter.
func (b *builder) key(k string) {
	for _, c := range []byte(k) {
		if !(c == '_' || c == '-' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z') {
			b.value(k)
			b.lit("::text")
			return
		}
	}
	b.sql.WriteString("'" + k + "'")
}

func (b *builder) statement() pg.Statement {
	return pg.Statement{SQL: b.sql.String(), Args: b.args}
}
