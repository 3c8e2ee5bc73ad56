package schema

import "strings"

// Snapshot is the catalog at one moment. It is never changed.
type Snapshot struct {
	// Version grows with every reload.
	Version   uint64
	relations map[key]*Relation
	functions map[key][]*Function
	// Roles that the login may become, with their settings.
	Roles map[string][]Setting
}

type key struct{ schema, name string }

// Setting is a configuration parameter of a role or function.
type Setting struct{ Name, Value string }

// Relation is a table, view, materialized view or foreign table.
type Relation struct {
	Schema, Name string
	Kind         byte // r, p, v, m, f
	Columns      []Column
	PrimaryKey   []string
	// Insertable, Updatable and Deletable tell what the relation takes, by itself
	// or by INSTEAD OF triggers.
	Insertable, Updatable, Deletable bool
	byName                           map[string]int
}

// Column is a column of a Relation.
type Column struct {
	Name      string  `json:"name"`
	Type      string  `json:"type"` // by format_type, with modifier
	OID       uint32  `json:"oid"`
	Base      uint32  `json:"base"`     // of a domain, else OID
	Category  string  `json:"category"` // pg_type.typcategory
	Nullable  bool    `json:"null"`
	Default   *string `json:"default"` // by pg_get_expr
	Identity  string  `json:"identity"`
	Generated string  `json:"generated"`
}

// Column returns the column of that name, or nil.
func (r *Relation) Column(name string) *Column {
	if i, ok := r.byName[name]; ok {
		return &r.Columns[i]
	}
	return nil
}

// Function is one overload of a function.
type Function struct {
	Schema, Name string
	Volatility   byte // v, s, i
	ReturnsSet   bool
	ReturnsVoid  bool
	// ReturnsRow: rows with columns, not single values.
	ReturnsRow bool
	Variadic   bool
	Args       []Arg
	Settings   []Setting
}

// Arg is an input argument.
type Arg struct {
	Name     string `json:"name"` // empty when unnamed
	Type     string `json:"type"`
	OID      uint32 `json:"oid"`
	Optional bool   `json:"optional"`
}

// Relation returns a relation of an exposed schema, or nil.
func (s *Snapshot) Relation(schema, name string) *Relation { return s.relations[key{schema, name}] }

// Functions returns the overloads of a function.
func (s *Snapshot) Functions(schema, name string) []*Function { return s.functions[key{schema, name}] }

// NearestRelation returns the name in schema that is most like name, when it is
// like enough to be meant: a similarity of 0.75.
func (s *Snapshot) NearestRelation(schema, name string) string {
	best, score := "", 0.75
	for k := range s.relations {
		if k.schema != schema {
			continue
		}
		if v := similarity(k.name, name); v > score || v == score && (best == "" || k.name < best) {
			best, score = k.name, v
		}
	}
	return best
}

// NearestFunction is NearestRelation for functions.
func (s *Snapshot) NearestFunction(schema, name string) string {
	best, score := "", 0.75
	for k := range s.functions {
		if k.schema != schema {
			continue
		}
		if v := similarity(k.name, name); v > score || v == score && (best == "" || k.name < best) {
			best, score = k.name, v
		}
	}
	return best
}

// Relations calls fn for every relation of a schema, in no order.
func (s *Snapshot) Relations(schema string, fn func(*Relation)) {
	for k, r := range s.relations {
		if k.schema == schema {
			fn(r)
		}
	}
}

// similarity is 1 minus the edit distance in relation to the longer name.
func similarity(a, b string) float64 {
	ra, rb := []rune(strings.ToLower(a)), []rune(strings.ToLower(b))
	longest := max(len(ra), len(rb))
	if longest == 0 || longest > 256 {
		return 0
	}
	row := make([]int, len(rb)+1)
	for j := range row {
		row[j] = j
	}
	for i := range ra {
		diag := row[0]
		row[0] = i + 1
		for j := range rb {
			cost := diag
			if ra[i] != rb[j] {
				cost++
			}
			diag = row[j+1]
			row[j+1] = min(cost, row[j]+1, diag+1)
		}
	}
	return 1 - float64(row[len(rb)])/float64(longest)
}
