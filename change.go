package sluice

import (
	"fmt"
	"time"
)

// LSN is a position in PostgreSQL's write-ahead log.
type LSN uint64

// String returns PostgreSQL's notation, such as 0/16B3748.
func (l LSN) String() string { return fmt.Sprintf("%X/%X", uint32(l>>32), uint32(l)) }

// ParseLSN reads PostgreSQL's notation.
func ParseLSN(s string) (LSN, error) {
	var hi, lo uint32
	if n, err := fmt.Sscanf(s, "%X/%X", &hi, &lo); err != nil || n != 2 {
		return 0, fmt.Errorf("LSN %q: %w", s, ErrInvalid)
	}
	return LSN(hi)<<32 | LSN(lo), nil
}

// Relation is a table as the stream describes it. A new value is made whenever
// the stream describes the table again, which it does after every change of its
// definition: pointers tell versions apart.
type Relation struct {
	OID          uint32
	Schema, Name string
	Identity     byte // d default, n nothing, f full, i index
	Columns      []Column
}

// Column is a column of a Relation, in the order of the values of a Change.
type Column struct {
	Name string
	Type uint32 // OID
	Key  bool   // part of the replica identity
}

// ChangeKind tells the kinds of changes apart.
type ChangeKind uint8

// Kinds of changes.
const (
	ChangeInsert ChangeKind = iota + 1
	ChangeUpdate
	ChangeDelete
	// ChangeCatalog stands where the catalog was changed by the same
	// transaction: what was known about tables, policies and grants is to be
	// read again before later changes are judged.
	ChangeCatalog
)

// String returns the SQL command.
func (k ChangeKind) String() string {
	switch k {
	case ChangeInsert:
		return "INSERT"
	case ChangeUpdate:
		return "UPDATE"
	case ChangeDelete:
		return "DELETE"
	}
	return "CATALOG"
}

// Value is one column's value in text form.
type Value struct {
	Kind ValueKind
	Text []byte // of ValueText; read-only
}

// ValueKind says what is known of a value.
type ValueKind uint8

// Kinds of values.
const (
	ValueMissing ValueKind = iota // not in the stream: unchanged TOAST
	ValueNull
	ValueText
)

// Change is one changed row.
type Change struct {
	Kind     ChangeKind
	Relation *Relation
	New      []Value // of INSERT and UPDATE
	// Old is the old row's replica identity: the whole row when OldFull, else
	// the key columns, the others missing. nil when an UPDATE left it unchanged.
	Old     []Value
	OldFull bool
}

// ChangeBatch is a bounded part of one transaction: the unit that crosses
// between nodes. Changes are in commit order.
type ChangeBatch struct {
	Commit     LSN       // of the transaction's commit record
	CommitTime time.Time // UTC
	Sent       time.Time // UTC, when the database sent it, by its own clock
	XID        uint64    // full transaction id, epoch included
	First      int       // index of Changes[0] in the transaction
	Last       bool      // the transaction ends with this batch
	Changes    []Change
}

// Bounds of a batch.
const (
	MaxBatchChanges = 256
	MaxBatchBytes   = 256 << 10
)
