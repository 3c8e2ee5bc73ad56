package pg_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/jackc/pgx/v5/pgproto3"

	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/pg"
)

// messages are the answers of a server to three statements.
func messages(t testing.TB, rows ...[][]byte) []byte {
	t.Helper()
	var out []byte
	put := func(m pgproto3.BackendMessage) {
		var err error
		if out, err = m.Encode(out); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		put(&pgproto3.ParseComplete{})
		put(&pgproto3.BindComplete{})
		for _, row := range rows {
			put(&pgproto3.DataRow{Values: row})
		}
		put(&pgproto3.CommandComplete{CommandTag: []byte("SELECT 1")})
	}
	put(&pgproto3.ReadyForQuery{TxStatus: 'I'})
	return out
}

// FuzzTap compares the tap with a reading of the whole: what went to the writer,
// put back into its row, makes what the server sent. Nothing but large last values
// of the one statement goes there.
func FuzzTap(f *testing.F) {
	big := bytes.Repeat([]byte("x"), 100)
	f.Add(messages(f, [][]byte{[]byte("1"), big}), uint8(1))
	f.Add(messages(f, [][]byte{big}, [][]byte{nil}, [][]byte{[]byte("short"), nil, big}, [][]byte{}), uint8(2))
	f.Add(messages(f, [][]byte{big, []byte("s")}), uint8(0))
	f.Add(messages(f, [][]byte{bytes.Repeat(big, 700), big}), uint8(0)) // too much before it
	f.Add([]byte("D\x00\x00\x00\x40\x00\x01\xff\xff\xff\xff"), uint8(0))
	f.Add([]byte("D\x00\x00\x00\x40\x00\x02\x00\x00\x00\x01a\x7f\xff\xff\xff"), uint8(0))
	f.Fuzz(func(t *testing.T, sent []byte, at uint8) {
		type value struct {
			at   int // in what passes
			text bytes.Buffer
		}
		var taken []*value
		passed := &bytes.Buffer{}
		r := pg.Tap(iotest.HalfReader(bytes.NewReader(sent)), 50, int(at), func(row [][]byte, size int64) (io.Writer, error) {
			if size < 50 {
				t.Fatalf("asked about %d bytes", size)
			}
			taken = append(taken, &value{at: passed.Len()})
			return &taken[len(taken)-1].text, nil
		})
		_, err := io.Copy(passed, r)
		if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatal(err)
		}
		var whole []byte
		done, from := 0, 0
		out := passed.Bytes()
		for i, v := range taken {
			if v.at > len(out) || len(out)-v.at < 5 {
				if i != len(taken)-1 || err == nil {
					t.Fatal("a value was broken off, and the reading went on")
				}
				break // the stream ended in the value
			}
			whole = append(whole, out[from:v.at]...)
			size := 1 + int(binary.BigEndian.Uint32(out[v.at+1:]))
			row := bytes.Clone(out[v.at : v.at+size])
			binary.BigEndian.PutUint32(row[1:], uint32(size-1+v.text.Len()))
			binary.BigEndian.PutUint32(row[size-4:], uint32(v.text.Len()))
			whole = append(append(whole, row...), v.text.Bytes()...)
			from = v.at + size
		}
		whole = append(whole, out[from:]...)
		if !bytes.HasPrefix(sent, whole) {
			t.Fatalf("sent %q, and got %q", sent, whole)
		}
		for b := sent; len(b) >= 5 && done < int(at); { // nothing before the statement
			size := 1 + int(binary.BigEndian.Uint32(b[1:]))
			if b[0] == 'C' {
				done++
			}
			if size > len(b) {
				b = nil
				continue
			}
			b = b[size:]
			if len(taken) > 0 && taken[0].at < len(sent)-len(b) {
				t.Fatalf("a value of statement %d was taken", done)
			}
		}
	})
}

func TestLargeValue(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	p := onePool(t, db, "authenticator")
	const size = pg.LargeValue + 5
	const large = "select 'head', repeat('x', $1::int)"
	arg := func(n int) [][]byte { return [][]byte{[]byte(fmt.Sprint(n))} }
	run := func(fn pg.LargeFunc, sql string, args [][]byte) (string, error) {
		res, err := p.Pipeline(t.Context(), user(alice), pg.AsOptions{ReadOnly: true}, []pg.Statement{
			{SQL: "select repeat('y', 9000000)"}, {SQL: sql, Args: args, Large: fn}, {SQL: "select 'after'"},
		}, nil)
		if err != nil {
			return "", err
		}
		row := res[1].Rows[0]
		return fmt.Sprintf("%d %s %d %s", len(res[0].Rows[0][0]), row[0], len(row[len(row)-1]), res[2].Rows[0][0]), nil
	}
	calls := 0
	var got bytes.Buffer
	take := func(row [][]byte, n int64) (io.Writer, error) {
		calls++
		if len(row) != 1 || string(row[0]) != "head" || n != size {
			t.Errorf("asked about %q, %d bytes", row, n)
		}
		return &got, nil
	}
	pid := ask(t, p, "select pg_backend_pid()::text")
	for i := range 4 { // the later ones are prepared
		got.Reset()
		if res, err := run(take, large, arg(size)); err != nil || res != "9000000 head 0 after" || got.String() != strings.Repeat("x", size) || calls != i+1 {
			t.Fatalf("%d: %s, %v, %d bytes, %d calls", i, res, err, got.Len(), calls)
		}
	}
	// As any other value: short, declined, not the last, NULL.
	if res, err := run(take, large, arg(5)); err != nil || res != "9000000 head 5 after" || calls != 4 {
		t.Errorf("short: %s, %v, %d calls", res, err, calls)
	}
	if res, err := run(func([][]byte, int64) (io.Writer, error) { return nil, nil }, large, arg(size)); err != nil || res != fmt.Sprintf("9000000 head %d after", size) {
		t.Errorf("declined: %s, %v", res, err)
	}
	if res, err := run(take, "select 'a', repeat('x', $1::int), null", arg(size)); err != nil || res != "9000000 a 0 after" || calls != 4 {
		t.Errorf("NULL: %s, %v", res, err)
	}
	if now := ask(t, p, "select pg_backend_pid()::text"); now != pid {
		t.Errorf("another connection: %s after %s", now, pid)
	}
	// An error, of the function or of its writer, costs the connection alone.
	boom := errors.New("boom")
	if _, err := run(func([][]byte, int64) (io.Writer, error) { return nil, boom }, large, arg(size)); !errors.Is(err, boom) {
		t.Errorf("error: %v", err)
	}
	if _, err := run(func([][]byte, int64) (io.Writer, error) { return failing{boom}, nil }, large, arg(size)); !errors.Is(err, boom) {
		t.Errorf("error of the writer: %v", err)
	}
	if now := ask(t, p, "select pg_backend_pid()::text"); now == pid {
		t.Error("a connection in the middle of a value was used again")
	}
	// What fails behind a value that was taken is not tried again.
	calls = 0
	_, err := p.Pipeline(t.Context(), user(alice), pg.AsOptions{}, []pg.Statement{{SQL: large, Args: arg(size), Large: take}, {SQL: "select 1/0"}}, nil)
	if pg.SQLState(err) != "22012" || calls != 1 {
		t.Errorf("%v, %d calls", err, calls)
	}
}

// failing is a writer that takes nothing.
type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
