package schema

import (
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Cardinality is how many rows of a target belong to a row of a source.
type Cardinality string

// Cardinalities, as PostgREST spells them.
const (
	ManyToOne  Cardinality = "many-to-one"
	OneToMany  Cardinality = "one-to-many"
	OneToOne   Cardinality = "one-to-one"
	ManyToMany Cardinality = "many-to-many"
)

// Relationship leads from the rows of Source to those of Target. It comes of a
// foreign key of one of them, of two of a junction, or of a function.
type Relationship struct {
	Cardinality    Cardinality
	Source, Target *Relation
	// Constraint is the foreign key's name; Columns of Source correspond to
	// TargetColumns of Target. Forward: the key is Source's own.
	Constraint    string
	Columns       []string
	TargetColumns []string
	Forward       bool
	// Equal are the schemas of the operators = that compare the columns; empty
	// where the key's operator has another name.
	Equal []string
	// Junction is set for many-to-many.
	Junction *Junction
	// Function takes a row of Source and returns rows of Target.
	Function *Function
}

// ToOne reports whether there is at most one row.
func (r *Relationship) ToOne() bool {
	return r.Cardinality == ManyToOne || r.Cardinality == OneToOne
}

// Junction is a relation with foreign keys to both sides in its primary key.
type Junction struct {
	Relation *Relation
	// SourceConstraint: SourceColumns of the junction refer to Columns of the
	// source; likewise for the target.
	SourceConstraint, TargetConstraint string
	SourceColumns, TargetColumns       []string
	SourceEqual, TargetEqual           []string
}

// Relationships returns those that start at r, in the order of their
// constraints' names.
func (s *Snapshot) Relationships(r *Relation) []*Relationship { return s.relationships[r] }

// foreignKey is a row of foreign_keys.sql.
type foreignKey struct {
	name             string
	from, to         uint32
	columns, targets []int16
	unique           bool
	equal            []string
}

// loadRelationships reads keys and views, and derives what leads where.
func (c *Cache) loadRelationships(ctx context.Context, tx pgx.Tx, s *Snapshot) error {
	keys, err := readForeignKeys(ctx, tx)
	if err != nil {
		return err
	}
	views, err := readViews(ctx, tx)
	if err != nil {
		return err
	}
	primary, err := readPrimaryKeys(ctx, tx)
	if err != nil {
		return err
	}
	d := derivation{s: s, over: map[uint32][]trace{}, tables: map[uint32]*Relation{}}
	for _, r := range s.relations {
		d.tables[r.oid] = r
	}
	for _, r := range s.sorted() {
		d.trace(r, views, primary)
	}
	for i := range keys {
		d.add(&keys[i])
	}
	d.junctions()
	d.functions()
	for _, list := range s.relationships {
		slices.SortStableFunc(list, func(a, b *Relationship) int { return strings.Compare(a.label(), b.label()) })
	}
	return nil
}

// label orders relationships.
func (r *Relationship) label() string {
	if r.Junction != nil {
		return r.Junction.Relation.Name + " " + r.Junction.SourceConstraint
	}
	return r.Constraint
}

func readForeignKeys(ctx context.Context, tx pgx.Tx) ([]foreignKey, error) {
	rows, err := tx.Query(ctx, foreignKeysSQL)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, func(row pgx.CollectableRow) (k foreignKey, err error) {
		err = row.Scan(&k.name, &k.from, &k.to, &k.columns, &k.targets, &k.unique, &k.equal)
		return k, err
	})
}

func readViews(ctx context.Context, tx pgx.Tx) (map[uint32]map[int16]origin, error) {
	rows, err := tx.Query(ctx, viewsSQL)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[uint32]map[int16]origin{}
	for rows.Next() {
		var oid uint32
		var tree string
		if err := rows.Scan(&oid, &tree); err != nil {
			return nil, err
		}
		out[oid] = viewOrigins(tree)
	}
	return out, rows.Err()
}

func readPrimaryKeys(ctx context.Context, tx pgx.Tx) (map[uint32][]int16, error) {
	rows, err := tx.Query(ctx, primaryKeysSQL)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[uint32][]int16{}
	for rows.Next() {
		var oid uint32
		var columns []int16
		if err := rows.Scan(&oid, &columns); err != nil {
			return nil, err
		}
		out[oid] = columns
	}
	return out, rows.Err()
}

// trace is an exposed relation that shows columns of a table: a table its own, a
// view those that it selects unchanged.
type trace struct {
	relation *Relation
	columns  map[int16]string // number in the table to name in relation
}

// names translates column numbers of the table; ok when all are shown.
func (t *trace) names(numbers []int16) (names []string, ok bool) {
	for _, n := range numbers {
		name, shown := t.columns[n]
		if !shown {
			return nil, false
		}
		names = append(names, name)
	}
	return names, true
}

// derivation builds the relationships of a snapshot.
type derivation struct {
	s    *Snapshot
	over map[uint32][]trace // by table
	// tables are the exposed relations by their number.
	tables map[uint32]*Relation
}

// trace notes of which tables r shows columns. A view's primary key is that of
// its tables, as far as it shows them, and its columns' defaults are theirs.
func (d *derivation) trace(r *Relation, views map[uint32]map[int16]origin, primary map[uint32][]int16) {
	byTable := map[uint32]map[int16]string{}
	var tables []uint32
	for i := range r.Columns {
		at := origin{r.oid, r.Columns[i].Number}
		for depth := 0; depth < maxViewDepth; depth++ {
			below, isView := views[at.relation]
			if !isView {
				break
			}
			at = below[at.column] // the zero origin when computed
		}
		if at.relation == 0 {
			continue
		}
		if below := d.tables[at.relation]; below != nil && below != r && r.Columns[i].Default == nil {
			r.Columns[i].Default = below.numbered(at.column).Default
		}
		if byTable[at.relation] == nil {
			byTable[at.relation] = map[int16]string{}
			tables = append(tables, at.relation)
		}
		if byTable[at.relation][at.column] == "" {
			byTable[at.relation][at.column] = r.Columns[i].Name
		}
	}
	for _, table := range tables {
		t := trace{r, byTable[table]}
		d.over[table] = append(d.over[table], t)
		if names, ok := t.names(primary[table]); ok && table != r.oid {
			r.PrimaryKey = append(r.PrimaryKey, names...)
		}
	}
}

// numbered returns the column of that number.
func (r *Relation) numbered(n int16) *Column {
	return &r.Columns[slices.IndexFunc(r.Columns, func(c Column) bool { return c.Number == n })]
}

// maxViewDepth bounds a chain of views over views.
const maxViewDepth = 64

// add derives both directions of a foreign key for everything that shows its
// columns, tables and views, within one schema.
func (d *derivation) add(k *foreignKey) {
	forward, back := ManyToOne, OneToMany
	if k.unique {
		forward, back = OneToOne, OneToOne
	}
	for i := range d.over[k.from] {
		from := &d.over[k.from][i]
		columns, ok := from.names(k.columns)
		if !ok {
			continue
		}
		for j := range d.over[k.to] {
			to := &d.over[k.to][j]
			targets, ok := to.names(k.targets)
			if !ok || from.relation.Schema != to.relation.Schema {
				continue
			}
			d.put(&Relationship{
				Cardinality: forward, Source: from.relation, Target: to.relation, Constraint: k.name,
				Columns: columns, TargetColumns: targets, Forward: true, Equal: k.equal,
			})
			d.put(&Relationship{
				Cardinality: back, Source: to.relation, Target: from.relation, Constraint: k.name,
				Columns: targets, TargetColumns: columns, Equal: k.equal,
			})
		}
	}
}

func (d *derivation) put(r *Relationship) {
	d.s.relationships[r.Source] = append(d.s.relationships[r.Source], r)
}

// junctions derives many-to-many: two foreign keys of one relation, all of their
// columns in its primary key.
func (d *derivation) junctions() {
	for _, j := range d.s.sorted() {
		var keys []*Relationship
		for _, r := range d.s.relationships[j] {
			if r.Forward && r.Function == nil && within(r.Columns, j.PrimaryKey) {
				keys = append(keys, r)
			}
		}
		for _, a := range keys {
			for _, b := range keys {
				if a == b || a.Constraint == b.Constraint {
					continue
				}
				d.put(&Relationship{
					Cardinality: ManyToMany, Source: a.Target, Target: b.Target, Columns: a.TargetColumns, TargetColumns: b.TargetColumns,
					Junction: &Junction{
						Relation: j, SourceConstraint: a.Constraint, SourceColumns: a.Columns, TargetConstraint: b.Constraint, TargetColumns: b.Columns,
						SourceEqual: a.Equal, TargetEqual: b.Equal,
					},
				})
			}
		}
	}
}

func within(columns, key []string) bool {
	for _, c := range columns {
		if !slices.Contains(key, c) {
			return false
		}
	}
	return true
}

// functions derives computed relationships: a function that takes a row of one
// relation and returns rows of another.
func (d *derivation) functions() {
	byRow := map[uint32]*Relation{}
	for _, r := range d.s.relations {
		byRow[r.rowType] = r
	}
	for _, overloads := range d.s.functions {
		for _, f := range overloads {
			d.computed(f, byRow)
		}
	}
	for _, f := range d.s.unnamed {
		d.computed(f, byRow)
	}
}

// computed derives what f leads to when it takes a row, and may do without
// further arguments.
func (d *derivation) computed(f *Function, byRow map[uint32]*Relation) {
	target := byRow[f.returns]
	f.Returns = target
	if len(f.Args) == 0 || slices.ContainsFunc(f.Args[1:], func(a Arg) bool { return !a.Optional }) {
		return
	}
	source := byRow[f.Args[0].OID]
	switch {
	case source == nil || source.Schema != f.Schema:
		return
	case target == nil && f.ReturnsSet && !f.ReturnsRow && !f.ReturnsVoid:
		if source.Sets == nil {
			source.Sets = map[string]*Function{}
		}
		source.Sets[f.Name] = f
		return
	case target == nil:
		return
	}
	many := OneToMany
	if !f.ReturnsSet || f.oneRow {
		many = ManyToOne
	}
	d.put(&Relationship{Cardinality: many, Source: source, Target: target, Function: f})
}

// sorted returns the relations in the order of their names.
func (s *Snapshot) sorted() []*Relation {
	out := make([]*Relation, 0, len(s.relations))
	for _, r := range s.relations {
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b *Relation) int {
		if c := strings.Compare(a.Schema, b.Schema); c != 0 {
			return c
		}
		return strings.Compare(a.Name, b.Name)
	})
	return out
}
