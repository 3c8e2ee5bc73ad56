package pgoutput

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/sluice-dev/sluice"
)

// Message is one decoded message: *Begin, *Commit, *Relation, *Row, *Logical or
// *Other.
type Message interface{ message() }

// Begin starts a transaction; the server knows its commit already.
type Begin struct {
	Commit sluice.LSN
	Time   time.Time
	XID    uint32
}

// Commit ends a transaction.
type Commit struct {
	LSN, End sluice.LSN
	Time     time.Time
}

// Relation describes a table before its first row and after it has changed.
type Relation struct {
	OID          uint32
	Schema, Name string
	Identity     byte
	Columns      []sluice.Column
}

// Row is an INSERT, UPDATE or DELETE. Values alias the decoded bytes.
type Row struct {
	Kind    sluice.ChangeKind
	OID     uint32
	New     []sluice.Value
	Old     []sluice.Value
	OldFull bool
}

// Logical is a message written with pg_logical_emit_message.
type Logical struct {
	Transactional bool
	LSN           sluice.LSN
	Prefix        string
	Content       []byte
}

// Other is a message without meaning here: Truncate, Type, Origin.
type Other struct{ Kind byte }

func (*Begin) message()    {}
func (*Commit) message()   {}
func (*Relation) message() {}
func (*Row) message()      {}
func (*Logical) message()  {}
func (*Other) message()    {}

// ErrTruncated is a message that ends too early.
var ErrTruncated = errors.New("message is truncated")

// maxColumns is PostgreSQL's own limit of columns in a table.
const maxColumns = 1600

// Decode reads one message. The result aliases b, which must not change while it
// is in use.
func Decode(b []byte) (Message, error) {
	if len(b) == 0 {
		return nil, fmt.Errorf("decode pgoutput message: %w", ErrTruncated)
	}
	d := decoder{b: b[1:]}
	m, err := d.message(b[0])
	if err != nil {
		return nil, fmt.Errorf("decode pgoutput message %q: %w", b[0], err)
	}
	if len(d.b) > 0 {
		return nil, fmt.Errorf("decode pgoutput message %q: %d bytes too many", b[0], len(d.b))
	}
	return m, nil
}

// decoder takes fields off the front of b; the first failure sticks.
type decoder struct {
	b   []byte
	err error
}

func (d *decoder) message(kind byte) (Message, error) {
	var m Message
	switch kind {
	case 'B':
		m = &Begin{Commit: sluice.LSN(d.uint64()), Time: d.time(), XID: d.uint32()}
	case 'C':
		d.byte() // flags, unused
		m = &Commit{LSN: sluice.LSN(d.uint64()), End: sluice.LSN(d.uint64()), Time: d.time()}
	case 'R':
		m = d.relation()
	case 'I':
		r := &Row{Kind: sluice.ChangeInsert, OID: d.uint32()}
		d.expect('N')
		r.New = d.tuple()
		m = r
	case 'U':
		m = d.update()
	case 'D':
		r := &Row{Kind: sluice.ChangeDelete, OID: d.uint32()}
		switch k := d.byte(); k {
		case 'K', 'O':
			r.OldFull = k == 'O'
			r.Old = d.old(r.OldFull)
		default:
			d.fail("tuple kind %q", k)
		}
		m = r
	case 'M':
		l := &Logical{Transactional: d.byte()&1 != 0, LSN: sluice.LSN(d.uint64()), Prefix: d.string()}
		l.Content = d.bytes(int(d.uint32()))
		m = l
	case 'T', 'Y', 'O':
		d.b = nil
		m = &Other{kind}
	default:
		d.fail("unknown kind")
	}
	return m, d.err
}

func (d *decoder) relation() *Relation {
	r := &Relation{OID: d.uint32(), Schema: d.string(), Name: d.string(), Identity: d.byte()}
	if r.Schema == "" {
		r.Schema = "pg_catalog" // the protocol leaves it out
	}
	n := int(d.uint16())
	if n > maxColumns {
		d.fail("%d columns", n)
		return r
	}
	r.Columns = make([]sluice.Column, 0, min(n, len(d.b)/10+1))
	for range n {
		c := sluice.Column{Key: d.byte()&1 != 0, Name: d.string(), Type: d.uint32()}
		d.uint32() // type modifier: no rule depends on it
		if d.err != nil {
			return r
		}
		r.Columns = append(r.Columns, c)
	}
	return r
}

func (d *decoder) update() *Row {
	r := &Row{Kind: sluice.ChangeUpdate, OID: d.uint32()}
	k := d.byte()
	if k == 'K' || k == 'O' {
		r.OldFull = k == 'O'
		r.Old = d.old(r.OldFull)
		k = d.byte()
	}
	if k != 'N' {
		d.fail("tuple kind %q", k)
		return r
	}
	r.New = d.tuple()
	return r
}

// old reads an old tuple. In a key tuple the columns that are not part of the
// key are sent as NULL, which they need not be.
func (d *decoder) old(full bool) []sluice.Value {
	t := d.tuple()
	if !full {
		for i := range t {
			if t[i].Kind == sluice.ValueNull {
				t[i].Kind = sluice.ValueMissing
			}
		}
	}
	return t
}

func (d *decoder) tuple() []sluice.Value {
	n := int(d.uint16())
	if n > maxColumns {
		d.fail("%d columns", n)
		return nil
	}
	if n > len(d.b) {
		d.fail("%w", ErrTruncated)
		return nil
	}
	t := make([]sluice.Value, n)
	for i := range t {
		switch k := d.byte(); k {
		case 'n':
			t[i].Kind = sluice.ValueNull
		case 'u':
		case 't':
			t[i] = sluice.Value{Kind: sluice.ValueText, Text: d.bytes(int(d.uint32()))}
		default:
			d.fail("value kind %q", k)
			return nil
		}
	}
	return t
}

func (d *decoder) fail(format string, args ...any) {
	if d.err == nil {
		d.err = fmt.Errorf(format, args...)
	}
	d.b = nil
}

func (d *decoder) bytes(n int) []byte {
	if n < 0 || n > len(d.b) {
		d.fail("%w", ErrTruncated)
		return nil
	}
	b := d.b[:n:n]
	d.b = d.b[n:]
	return b
}

func (d *decoder) byte() byte {
	b := d.bytes(1)
	if b == nil {
		return 0
	}
	return b[0]
}

func (d *decoder) expect(want byte) {
	if k := d.byte(); k != want {
		d.fail("tuple kind %q", k)
	}
}

func (d *decoder) uint16() uint16 {
	if b := d.bytes(2); b != nil {
		return binary.BigEndian.Uint16(b)
	}
	return 0
}

func (d *decoder) uint32() uint32 {
	if b := d.bytes(4); b != nil {
		return binary.BigEndian.Uint32(b)
	}
	return 0
}

func (d *decoder) uint64() uint64 {
	if b := d.bytes(8); b != nil {
		return binary.BigEndian.Uint64(b)
	}
	return 0
}

func (d *decoder) string() string {
	for i, c := range d.b {
		if c == 0 {
			s := string(d.b[:i])
			d.b = d.b[i+1:]
			return s
		}
	}
	d.fail("%w", ErrTruncated)
	return ""
}

// epoch is where PostgreSQL's timestamps count from.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

func (d *decoder) time() time.Time {
	us := int64(d.uint64())
	// A Duration holds 292 years; a timestamp from a broken message may not fit.
	return epoch.Add(time.Duration(us/1_000_000) * time.Second).Add(time.Duration(us%1_000_000) * time.Microsecond)
}
