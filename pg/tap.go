package pg

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"
)

// LargeValue is the length in bytes from which on Statement.Large is asked about
// a value.
const LargeValue = 8 << 20

// maxBefore bounds what stands in a row before a large value, in bytes.
const maxBefore = 64 << 10

// LargeFunc says where the last value of a row goes, of size bytes; row are the
// values before it. With a nil writer it becomes part of the result as others do.
// An error, or one of the writer, breaks the connection and is that of the run.
type LargeFunc func(row [][]byte, size int64) (io.Writer, error)

// tapKey is where a connection's tap is kept.
const tapKey = "sluice.tap"

// tap stands between the socket and pgconn, which takes a message into memory
// before it hands it out. Everything passes but a large last value in a row of
// one chosen statement: that goes to a writer as it comes, and pgconn sees a row
// that ends in an empty value.
type tap struct {
	src  *bufio.Reader
	left int    // bytes of the message under way that are still to pass
	out  []byte // passes before those
	err  error  // a value was broken off: nothing behind it can be read

	least int       // LargeValue
	large LargeFunc // nil: everything passes
	at    int       // the statement whose values are asked about
	done  int       // how many statements have completed
	took  bool      // a value has gone to a writer
}

// putTap makes a connection with cfg have a tap.
func putTap(cfg *pgconn.Config) {
	var t *tap
	cfg.BuildFrontend = func(r io.Reader, w io.Writer) *pgproto3.Frontend {
		t = &tap{src: bufio.NewReaderSize(r, 8<<10), least: LargeValue} // PostgreSQL's own buffer is as long
		return pgproto3.NewFrontend(t, w)
	}
	cfg.AfterConnect = func(_ context.Context, conn *pgconn.PgConn) error {
		conn.CustomData()[tapKey] = t
		return nil
	}
}

// tapOf returns the tap of a pool's connection.
func tapOf(conn *pgconn.PgConn) *tap { return conn.CustomData()[tapKey].(*tap) }

// set asks large about the statement number at of those sent from now on.
func (t *tap) set(at int, large LargeFunc) { t.at, t.large, t.done, t.took = at, large, 0, false }

// Read implements io.Reader. It gives no more than the rest of one message.
func (t *tap) Read(p []byte) (int, error) {
	for {
		switch {
		case t.err != nil:
			return 0, t.err
		case len(t.out) > 0:
			n := copy(p, t.out)
			t.out = t.out[n:]
			return n, nil
		case t.left > 0:
			n, err := t.src.Read(p[:min(len(p), t.left)])
			t.left -= n
			return n, err
		}
		head, err := t.src.Peek(5) // what it is, and its length without that
		if err != nil {
			return 0, err
		}
		t.left = 1 + int(binary.BigEndian.Uint32(head[1:]))
		switch {
		case head[0] == 'C': // CommandComplete
			t.done++
		case head[0] == 'D' && t.large != nil && t.done == t.at && t.left > t.least:
			t.err = t.divert()
		}
	}
}

// divert hands the last value of a DataRow on, or lets the row pass as it is.
func (t *tap) divert() error {
	row := make([]byte, 7, 64)
	if _, err := io.ReadFull(t.src, row); err != nil {
		return err
	}
	columns := int(binary.BigEndian.Uint16(row[5:]))
	var before [][]byte
	size := 0
	for i := range columns {
		at := len(row)
		row = append(row, 0, 0, 0, 0)
		if _, err := io.ReadFull(t.src, row[at:]); err != nil {
			return err
		}
		size = int(int32(binary.BigEndian.Uint32(row[at:]))) // -1 is NULL
		if i == columns-1 || at+size > maxBefore {
			break
		}
		before = append(before, nil)
		if size >= 0 {
			row = append(row, make([]byte, size)...)
			if _, err := io.ReadFull(t.src, row[at+4:]); err != nil {
				return err
			}
			before[i] = row[at+4:]
		}
	}
	var w io.Writer
	if len(before) == columns-1 && size >= t.least && len(row)+size == t.left {
		var err error
		if w, err = t.large(before, int64(size)); err != nil {
			return err
		}
	}
	if w == nil {
		t.out, t.left = row, t.left-len(row)
		return nil
	}
	t.took = true
	if _, err := io.CopyN(w, t.src, int64(size)); err != nil {
		return fmt.Errorf("hand a value of %d bytes on: %w", size, err)
	}
	binary.BigEndian.PutUint32(row[1:], uint32(len(row)-1))
	clear(row[len(row)-4:])
	t.out, t.left = row, 0
	return nil
}
