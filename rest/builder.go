package rest

import (
	"crypto/sha256"
	"encoding/hex"
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

// dotted writes a qualified name.
func (b *builder) dotted(of, name string) {
	b.ident(of)
	b.lit(".")
	b.ident(name)
}

// idents writes a list of quoted names.
func (b *builder) idents(names []string) {
	for i, n := range names {
		b.comma(i)
		b.ident(n)
	}
}

// comma separates the items of a list, of which this is number i.
func (b *builder) comma(i int) {
	if i > 0 {
		b.lit(", ")
	}
}

// relation writes the qualified name of a relation of the snapshot.
func (b *builder) relation(r *schema.Relation) { b.dotted(r.Schema, r.Name) }

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

// value writes a parameter and returns its number.
func (b *builder) value(v string) int { return b.bytes([]byte(v)) }

// bytes is value for what is not copied.
func (b *builder) bytes(v []byte) int {
	b.args = append(b.args, v)
	b.parameter(len(b.args))
	return len(b.args)
}

// parameter writes a parameter again.
func (b *builder) parameter(n int) {
	b.sql.WriteByte('$')
	b.sql.WriteString(strconv.Itoa(n))
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

// maxIdent is the length of names that PostgreSQL keeps, in bytes.
const maxIdent = 63

// alias joins parts to a name within a statement. One that PostgreSQL would cut
// gets a hash of the whole at its end, as two could become the same.
func alias(parts ...string) string {
	s := strings.Join(parts, "_")
	if len(s) <= maxIdent {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return strings.ToValidUTF8(s[:maxIdent-9], "") + "_" + hex.EncodeToString(sum[:4])
}
