package wal

import (
	"fmt"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/wal/pgoutput"
)

// catalogPrefix marks the logical messages of our event triggers.
const catalogPrefix = "sluice"

// messagesTable takes the rows of Broadcast from Database. It is streamed under
// its own name, not under those of its partitions (publish_via_partition_root).
const messagesSchema, messagesTable = "realtime", "messages"

// assembler puts rows and their relations together into batches of one
// transaction. It holds one batch for each lane at most, however large the
// transaction.
type assembler struct {
	xidRef    uint64 // a recent full transaction id
	relations map[uint32]*sluice.Relation

	begin *pgoutput.Begin
	// Everything goes through changes: a user may have published
	// realtime.messages like any other table. What was inserted there goes
	// through messages as well.
	changes, messages lane
}

// lane makes the batches of one receiver.
type lane struct {
	done  part // handed on before this connection
	batch *sluice.ChangeBatch
	bytes int
	next  int // index of the next change in the transaction
}

// part is how much was handed on: every transaction that committed before
// commit, and of that one the changes before next.
type part struct {
	commit sluice.LSN
	next   int
}

// after returns the part behind b.
func after(b *sluice.ChangeBatch) part { return part{b.Commit, b.First + len(b.Changes)} }

// output is what one message of the stream has completed.
type output struct {
	messages *sluice.ChangeBatch
	changes  *sluice.ChangeBatch
	bytes    int        // estimate of what changes holds
	end      sluice.LSN // at the end of a transaction: the position behind it
}

// open reports whether a transaction is under way.
func (a *assembler) open() bool { return a.begin != nil }

// add takes one message.
func (a *assembler) add(m pgoutput.Message) (out output, err error) {
	switch m := m.(type) {
	case *pgoutput.Begin:
		a.begin = m
		a.changes.begin()
		a.messages.begin()
	case *pgoutput.Commit:
		if a.begin == nil {
			return out, fmt.Errorf("commit at %s without begin", m.LSN)
		}
		out.changes, out.bytes = a.changes.take()
		out.messages, _ = a.messages.take()
		for _, b := range []*sluice.ChangeBatch{out.changes, out.messages} {
			if b != nil {
				b.Last = true
			}
		}
		out.end, a.begin = m.End, nil
	case *pgoutput.Relation:
		if a.relations == nil {
			a.relations = map[uint32]*sluice.Relation{}
		}
		a.relations[m.OID] = &sluice.Relation{OID: m.OID, Schema: m.Schema, Name: m.Name, Identity: m.Identity, Columns: m.Columns}
	case *pgoutput.Row:
		rel := a.relations[m.OID]
		if rel == nil {
			return out, fmt.Errorf("row of relation %d, which was not described", m.OID)
		}
		if m.New != nil && len(m.New) != len(rel.Columns) || m.Old != nil && len(m.Old) != len(rel.Columns) {
			return out, fmt.Errorf("row of %s.%s has another number of columns than its description", rel.Schema, rel.Name)
		}
		return a.change(sluice.Change{Kind: m.Kind, Relation: rel, New: m.New, Old: m.Old, OldFull: m.OldFull}, size(m))
	case *pgoutput.Logical:
		if m.Transactional && m.Prefix == catalogPrefix {
			return a.change(sluice.Change{Kind: sluice.ChangeCatalog}, len(m.Content))
		}
	}
	return out, nil
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

func (a *assembler) change(ch sluice.Change, bytes int) (out output, err error) {
	if a.begin == nil {
		return out, fmt.Errorf("%s outside of a transaction", ch.Kind)
	}
	out.changes, out.bytes = a.changes.add(a, ch, bytes)
	if r := ch.Relation; ch.Kind == sluice.ChangeInsert && r.Name == messagesTable && r.Schema == messagesSchema {
		out.messages, _ = a.messages.add(a, ch, bytes)
	}
	return out, nil
}

func (l *lane) begin() { l.batch, l.bytes, l.next = nil, 0, 0 }

// take returns the batch that was being filled, nil if there is none.
func (l *lane) take() (full *sluice.ChangeBatch, bytes int) {
	full, bytes = l.batch, l.bytes
	l.batch, l.bytes = nil, 0
	return full, bytes
}

// add puts one change into the lane's batch, unless it was handed on before. It
// returns the batch before it when that was full.
func (l *lane) add(a *assembler, ch sluice.Change, bytes int) (full *sluice.ChangeBatch, fullBytes int) {
	at := l.next
	l.next++
	if c := a.begin.Commit; c < l.done.commit || c == l.done.commit && at < l.done.next {
		return nil, 0
	}
	if l.batch != nil && (len(l.batch.Changes) >= sluice.MaxBatchChanges || l.bytes+bytes > sluice.MaxBatchBytes) {
		full, fullBytes = l.take()
	}
	if l.batch == nil {
		l.batch = &sluice.ChangeBatch{
			Commit: a.begin.Commit, CommitTime: a.begin.Time.UTC(), XID: widen(a.begin.XID, a.xidRef), First: at,
		}
	}
	l.batch.Changes = append(l.batch.Changes, ch)
	l.bytes += bytes
	return full, fullBytes
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
