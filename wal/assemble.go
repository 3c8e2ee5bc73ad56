package wal

import (
	"fmt"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/wal/pgoutput"
)

// catalogPrefix marks the logical messages of our event triggers.
const catalogPrefix = "sluice"

// assembler puts rows and their relations together into batches of one
// transaction. It holds one batch at most, however large the transaction.
type assembler struct {
	xidRef    uint64     // a recent full transaction id
	skip      sluice.LSN // transactions that committed before it were handed on already
	partial   part       // and of this one the first changes
	relations map[uint32]*sluice.Relation

	begin *pgoutput.Begin
	batch *sluice.ChangeBatch
	bytes int
	next  int // index of the next change in the transaction
}

// part is how much of one transaction was handed on before a connection broke.
type part struct {
	commit sluice.LSN
	next   int // index of the first change that was not
}

// open reports whether a transaction is under way.
func (a *assembler) open() bool { return a.begin != nil }

// add takes one message. It returns a batch when one is full or its transaction
// has ended, and, at the end of a transaction, the position behind it.
func (a *assembler) add(m pgoutput.Message) (full *sluice.ChangeBatch, end sluice.LSN, err error) {
	switch m := m.(type) {
	case *pgoutput.Begin:
		a.begin, a.next, a.batch, a.bytes = m, 0, nil, 0
	case *pgoutput.Commit:
		if a.begin == nil {
			return nil, 0, fmt.Errorf("commit at %s without begin", m.LSN)
		}
		full, a.batch, a.begin = a.batch, nil, nil
		if full != nil {
			full.Last = true
		}
		return full, m.End, nil
	case *pgoutput.Relation:
		if a.relations == nil {
			a.relations = map[uint32]*sluice.Relation{}
		}
		a.relations[m.OID] = &sluice.Relation{OID: m.OID, Schema: m.Schema, Name: m.Name, Identity: m.Identity, Columns: m.Columns}
	case *pgoutput.Row:
		rel := a.relations[m.OID]
		if rel == nil {
			return nil, 0, fmt.Errorf("row of relation %d, which was not described", m.OID)
		}
		if m.New != nil && len(m.New) != len(rel.Columns) || m.Old != nil && len(m.Old) != len(rel.Columns) {
			return nil, 0, fmt.Errorf("row of %s.%s has another number of columns than its description", rel.Schema, rel.Name)
		}
		return a.change(sluice.Change{Kind: m.Kind, Relation: rel, New: m.New, Old: m.Old, OldFull: m.OldFull}, size(m))
	case *pgoutput.Logical:
		if m.Transactional && m.Prefix == catalogPrefix {
			return a.change(sluice.Change{Kind: sluice.ChangeCatalog}, len(m.Content))
		}
	}
	return nil, 0, nil
}

func size(m *pgoutput.Row) int {
	n := 64
	for _, t := range [][]sluice.Value{m.New, m.Old} {
		for i := range t {
			n += 32 + len(t[i].Text)
		}
	}
	return n
}

func (a *assembler) change(ch sluice.Change, bytes int) (full *sluice.ChangeBatch, end sluice.LSN, err error) {
	if a.begin == nil {
		return nil, 0, fmt.Errorf("%s outside of a transaction", ch.Kind)
	}
	// A commit record may start where the last one ended: equal is not before.
	if a.begin.Commit < a.skip {
		return nil, 0, nil
	}
	if a.begin.Commit == a.partial.commit && a.next < a.partial.next {
		a.next++
		return nil, 0, nil
	}
	if a.batch != nil && (len(a.batch.Changes) >= sluice.MaxBatchChanges || a.bytes+bytes > sluice.MaxBatchBytes) {
		full, a.batch = a.batch, nil
	}
	if a.batch == nil {
		a.batch = &sluice.ChangeBatch{
			Commit: a.begin.Commit, CommitTime: a.begin.Time.UTC(), XID: widen(a.begin.XID, a.xidRef), First: a.next,
		}
		a.bytes = 0
	}
	a.batch.Changes = append(a.batch.Changes, ch)
	a.bytes += bytes
	a.next++
	return full, 0, nil
}

// widen gives a transaction id its epoch: the one that brings it nearest to a
// recent full id. Ids in use are never more than 2^31 apart.
func widen(xid uint32, ref uint64) uint64 {
	const half, whole = uint64(1) << 31, uint64(1) << 32
	full := ref&^(whole-1) | uint64(xid)
	switch {
	case full > ref+half && full >= whole:
		return full - whole
	case full+half < ref:
		return full + whole
	}
	return full
}
