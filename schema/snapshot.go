package schema

import "strings"

// Snapshot is the catalog at one moment. It is never changed.
type Snapshot struct {
	// Version grows with every reload.
	Version   uint64
	relations map[key]*Relation
	functions map[key][]*Function
	// unnamed are functions that cannot be called by themselves for the lack of
	// their arguments' names. One that takes a row is computed all the same.
	unnamed []*Function
	// relationships by their source.
	relationships map[*Relation][]*Relationship
	// Roles that the login may become, with their settings.
	Roles map[string][]Setting
	// Settings are the login's own pgrst.*, without the prefix.
	Settings map[string]string
	// Comments on the schemas.
	Comments map[string]string
}

type key struct{ schema, name string }

// Setting is a configuration parameter of a role or function.
type Setting struct{ Name, Value string }

// Relation is a table, view, materialized view or foreign table.
type Relation struct {
	Schema, Name string
	Kind         byte // r, p, v, m, f
	Comment      string
	Columns      []Column
	PrimaryKey   []string
	// Insertable, Updatable and Deletable tell what the relation takes, by itself
	// or by INSTEAD OF triggers.
	Insertable, Updatable, Deletable bool
	// Sets are the functions that take a row and return a set of values.
	Sets         map[string]*Function
	byName       map[string]int
	oid, rowType uint32
}

// IsView reports whether r is a view or a materialized view.
func (r *Relation) IsView() bool { return r.Kind == 'v' || r.Kind == 'm' }

// Column is a column of a Relation.
type Column struct {
	Name      string  `json:"name"`
	Type      string  `json:"type"` // by format_type, with modifier
	OID       uint32  `json:"oid"`
	Base      uint32  `json:"base"`     // of a domain, else OID
	Category  string  `json:"category"` // pg_type.typcategory
	Nullable  bool    `json:"null"`
	Default   *string `json:"default"` // its own or its domain's, as an expression
	Identity  string  `json:"identity"`
	Generated string  `json:"generated"`
	Number    int16   `json:"number"` // pg_attribute.attnum
	Comment   string  `json:"comment"`
	// Length is the most characters of a char or varchar; 0 is no bound.
	Length int      `json:"length"`
	Item   uint32   `json:"item"`   // type of an array's elements
	Labels []string `json:"labels"` // of an enum
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
	// Anonymous: the rows' columns are not known before the call.
	Anonymous bool
	// Returns is the exposed relation whose rows are returned, or nil.
	Returns  *Relation
	Variadic bool
	Args     []Arg
	Settings []Setting
	Comment  string
	returns  uint32 // type, below a domain
	oneRow   bool   // a set of at most one row, by its own word (ROWS 1)
}

// Arg is an input argument.
type Arg struct {
	Name     string `json:"name"` // empty when unnamed
	Type     string `json:"type"`
	OID      uint32 `json:"oid"`
	Item     uint32 `json:"item"` // type of an array's elements
	Optional bool   `json:"optional"`
}

// Relation returns a relation of an exposed schema, or nil.
func (s *Snapshot) Relation(schema, name string) *Relation { return s.relations[key{schema, name}] }

// Functions returns the overloads of a function.
func (s *Snapshot) Functions(schema, name string) []*Function { return s.functions[key{schema, name}] }

// NearestRelation returns the name in schema that is most like name, when it is
// like enough to be meant: a similarity of 0.75.
func (s *Snapshot) NearestRelation(schema, name string) string {
	var best nearest
	for k := range s.relations {
		if k.schema == schema {
			best.offer(k.name, name)
		}
	}
	return best.name
}

// NearestFunction is NearestRelation for functions.
func (s *Snapshot) NearestFunction(schema, name string) string {
	var best nearest
	for k := range s.functions {
		if k.schema == schema {
			best.offer(k.name, name)
		}
	}
	return best.name
}

// nearest keeps the best of the names that it was offered: the most alike, among
// equals the one that shares the case, then the first by name.
type nearest struct {
	name         string
	score, exact float64
}

func (n *nearest) offer(name, to string) {
	score := Similarity(name, to)
	if score < 0.75 || score < n.score {
		return
	}
	exact := likeness([]rune(name), []rune(to))
	if n.name == "" || score > n.score || exact > n.exact || exact == n.exact && name < n.name {
		*n = nearest{name, score, exact}
	}
}

// FunctionNames calls fn for every name of a function in a schema, with its
// overloads, in no order.
func (s *Snapshot) FunctionNames(schema string, fn func(name string, overloads []*Function)) {
	for k, list := range s.functions {
		if k.schema == schema {
			fn(k.name, list)
		}
	}
}

// Relations calls fn for every relation of a schema, in no order.
func (s *Snapshot) Relations(schema string, fn func(*Relation)) {
	for k, r := range s.relations {
		if k.schema == schema {
			fn(r)
		}
	}
}

// Similarity tells how much one name is like another, whatever their case, from
// 0 to 1: 1 minus the edit distance in relation to the longer name.
func Similarity(a, b string) float64 {
	return likeness([]rune(strings.ToLower(a)), []rune(strings.ToLower(b)))
}

func likeness(a, b []rune) float64 {
	longest := max(len(a), len(b))
	if longest == 0 || longest > 256 {
		return 0
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range a {
		diag := row[0]
		row[0] = i + 1
		for j := range b {
			cost := diag
			if a[i] != b[j] {
				cost++
			}
			diag = row[j+1]
			row[j+1] = min(cost, row[j]+1, diag+1)
		}
	}
	return 1 - float64(row[len(b)])/float64(longest)
}
