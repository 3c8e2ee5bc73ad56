package policytest

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

// Answer says whether an identity may see a row.
type Answer uint8

// Answers. The zero value is a no.
const (
	No Answer = iota
	Yes
	// NotMine is the answer of a tier that does not claim this policy.
	NotMine
)

// Decider answers which rows each identity may see: out[i][r] for identity i and
// row r of a loaded world.
type Decider interface {
	Name() string
	Decide(ctx context.Context, w *World) ([][]Answer, error)
}

// gapped is a Decider that says no, knowingly, where PostgreSQL says yes.
type gapped interface {
	// Gap reports whether a no is accepted for what gap names.
	Gap(gap string) bool
}

// World is one protected table with everything around it.
type World struct {
	Seed uint64
	// Setup makes everything but rows and policies, one statement each. The
	// statement tableHere stands for CREATE TABLE of the protected table.
	Setup   []string
	Table   string // qualified and quoted
	Leaf    string // of a partitioned table: its one partition, with its columns in another order
	Key     string // quoted: the integer primary key, which policies do not use
	Columns []Column
	Rows    [][]string // values of Columns, as SQL
	// Policies are those of the table.
	Policies   []Policy
	Identities []Identity
	Gap        string // a known difference that all of it is about

	// filled by Env.Load
	Admin, User *pg.Pool
	OID         uint32     // of the table, or of the leaf: what changes are about
	Keys        []string   // of the rows, in order
	Images      [][][]byte // by row and column in the order of that table; nil is NULL
}

// Column is a column of the protected table. One that Rows do not fill has no
// values in them.
type Column struct {
	Name, Type string // Name is quoted
	Unfilled   bool
}

// tableHere and leafHere are the places of CREATE TABLE within Setup.
const (
	tableHere = "-- the protected table"
	leafHere  = "-- its partition"
)

// sql returns the statements of Setup, Rows and Policies.
func (w *World) sql() []string {
	var defs, names []string
	for _, c := range w.Columns {
		defs = append(defs, c.Name+" "+c.Type)
		if !c.Unfilled {
			names = append(names, c.Name)
		}
	}
	var out []string
	for _, s := range w.Setup {
		switch s {
		case tableHere:
			s = "create table " + w.Table + " (\n  " + strings.Join(defs, ",\n  ") + ")"
			if w.Leaf != "" {
				s += " partition by range (" + w.Key + ")"
			}
		case leafHere:
			slices.Reverse(defs)
			s = "create table " + w.Leaf + " (\n  " + strings.Join(defs, ",\n  ") + ");\nalter table " + w.Table + " attach partition " + w.Leaf + " default"
		}
		out = append(out, s)
	}
	if len(w.Rows) > 0 {
		rows := make([]string, len(w.Rows))
		for i, r := range w.Rows {
			rows[i] = "(" + strings.Join(r, ", ") + ")"
		}
		out = append(out, "insert into "+w.Table+" ("+strings.Join(names, ", ")+") values\n  "+strings.Join(rows, ",\n  "))
	}
	for i := range w.Policies {
		out = append(out, w.Policies[i].SQL(w.Table))
	}
	return out
}

// Policy is one policy of the protected table.
type Policy struct {
	Name       string // quoted
	Permissive bool
	Command    string // all, select and so on
	Roles      []string
	Using      *Expr // nil: without
}

// SQL returns CREATE POLICY.
func (p *Policy) SQL(table string) string {
	s := "create policy " + p.Name + " on " + table
	if !p.Permissive {
		s += " as restrictive"
	}
	s += " for " + p.Command + " to " + strings.Join(p.Roles, ", ")
	if p.Using == nil {
		return s
	}
	if p.Command == "insert" {
		return s + " with check (" + p.Using.SQL() + ")"
	}
	return s + " using (" + p.Using.SQL() + ")"
}

// Expr is a boolean expression. Text holds one %s for each of Kids, which are
// boolean as well.
type Expr struct {
	Text  string
	Kids  []*Expr
	Shape string
	// Gap names a known difference that the expression can run into.
	Gap string
}

// SQL returns the expression's text.
func (e *Expr) SQL() string {
	if len(e.Kids) == 0 {
		return e.Text
	}
	parts := strings.Split(e.Text, "%s")
	var b strings.Builder
	for i, p := range parts {
		b.WriteString(p)
		if i < len(e.Kids) {
			b.WriteString(e.Kids[i].SQL())
		}
	}
	return b.String()
}

func (e *Expr) walk(f func(*Expr)) {
	f(e)
	for _, k := range e.Kids {
		k.walk(f)
	}
}

// shapes returns the shapes of the policies, each once.
func (w *World) shapes() []string {
	var out []string
	permissive, restrictive := 0, 0
	for _, p := range w.Policies {
		if p.Permissive {
			permissive++
		} else {
			restrictive++
		}
		if p.Using == nil {
			continue
		}
		p.Using.walk(func(e *Expr) {
			if e.Shape != "" {
				out = append(out, e.Shape)
			}
		})
	}
	if permissive > 0 && restrictive > 0 {
		out = append(out, "permissive and restrictive")
	}
	if permissive > 1 {
		out = append(out, "several permissive")
	}
	if w.Leaf != "" {
		out = append(out, "partitioned table")
	}
	if permissive+restrictive == 0 {
		out = append(out, "no policy")
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// gaps returns the known differences that identity i can run into.
func (w *World) gaps(i int) []string {
	var out []string
	if w.Gap != "" {
		out = append(out, w.Gap)
	}
	if w.Identities[i].Claims.Role == strangerRole {
		out = append(out, GapUsage)
	}
	for _, p := range w.Policies {
		if p.Using != nil {
			p.Using.walk(func(e *Expr) {
				if e.Gap != "" {
					out = append(out, e.Gap)
				}
			})
		}
	}
	return out
}

// Known differences, in which a tier that reads a policy's text again says no.
const (
	// GapUsage: a role that may not use a schema cannot name what is in it, and a
	// stored policy has no names.
	GapUsage = "schema usage"
	// GapSystem: a row image has no ctid, xmin or tableoid.
	GapSystem = "system column"
)

// Identity is one user.
type Identity struct {
	Name   string
	Claims sluice.Claims
}

// NewIdentity returns an identity with the claims that a verified token of this
// payload would have.
func NewIdentity(name, payload string) Identity {
	var m struct {
		Role string `json:"role"`
		Sub  any    `json:"sub"`
	}
	_ = json.Unmarshal([]byte(payload), &m) // what is missing stays empty
	c := sluice.Claims{Role: m.Role, JSON: json.RawMessage(payload)}
	c.Subject, _ = m.Sub.(string)
	return Identity{Name: name, Claims: c}
}

// clone copies the parts that a minimiser replaces.
func (w *World) clone() *World {
	c := *w
	c.Setup, c.Columns, c.Rows = slices.Clone(w.Setup), slices.Clone(w.Columns), slices.Clone(w.Rows)
	c.Policies, c.Identities = slices.Clone(w.Policies), slices.Clone(w.Identities)
	return &c
}
