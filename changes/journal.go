package changes

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"sync"

	"github.com/sluice-dev/sluice"
)

// Journal keeps the positions of clients over a restart: a file to which is only
// appended, and which is written anew when it has grown. It is not forced to the
// disk: a process that is killed loses nothing by that, and a machine that goes
// down loses its clients' positions alone. It holds no token and no claim; who a
// position belongs to is a hash.
type Journal struct {
	path  string
	about string // which database

	// read by OpenJournal
	places []place
	mark   sluice.LSN

	bufMu sync.Mutex
	buf   []byte

	fileMu sync.Mutex // held while writing; before bufMu
	file   *os.File
	size   int64
}

// Kinds of records.
const (
	recordOpen  = 1 // a subscription that may be resumed: id, key, ref, position, tables
	recordPlace = 2 // id, ref, position
	recordGone  = 3 // id
	recordMark  = 4 // what committed before this was handed on
)

const (
	journalMagic = "sluice positions 1\n"
	maxRecord    = 60 << 10
	maxJournal   = 256 << 20 // beyond it the file is no journal of ours
)

// OpenJournal reads the file at path, which need not exist, and writes it anew.
// about names the database that the positions are of: in another one they mean
// nothing, and clients that come back are told that they have missed changes. A
// file that ends in the middle of a record is used up to there.
func OpenJournal(path, about string) (*Journal, error) {
	j := &Journal{path: path, about: about}
	text, err := readJournal(path)
	if err != nil {
		return nil, err
	}
	j.places, j.mark = decodeJournal(text, about)
	if err := j.rewrite(func() []byte { return encodeJournal(nil, j.places, j.mark) }); err != nil {
		return nil, err
	}
	return j, nil
}

func readJournal(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open journal of positions: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxJournal))
	if err != nil {
		return nil, fmt.Errorf("read journal of positions %s: %w", path, err)
	}
	return text, nil
}

// Mark returns the position before which an earlier process had handed everything
// on, 0 if it did not say.
func (j *Journal) Mark() sluice.LSN { return j.mark }

// Lose notes that the positions mean nothing any more, of a database that was put
// back to an earlier state: clients that come back are told that they have missed
// changes. It is for before the journal is given to a Service.
func (j *Journal) Lose(mark sluice.LSN) error {
	for i := range j.places {
		j.places[i].at = 0
	}
	j.mark = mark
	return j.rewrite(func() []byte { return encodeJournal(nil, j.places, j.mark) })
}

// Close closes the file. What was appended and not flushed is lost.
func (j *Journal) Close() error {
	j.fileMu.Lock()
	defer j.fileMu.Unlock()
	return j.file.Close()
}

// append puts records into the buffer; it does no I/O.
func (j *Journal) append(records ...[]byte) {
	j.bufMu.Lock()
	defer j.bufMu.Unlock()
	for _, r := range records {
		j.buf = appendFrame(j.buf, r)
	}
}

// flush writes the buffer.
func (j *Journal) flush() error {
	j.fileMu.Lock()
	defer j.fileMu.Unlock()
	j.bufMu.Lock()
	buf := j.buf
	j.buf = nil
	j.bufMu.Unlock()
	if len(buf) == 0 {
		return nil
	}
	n, err := j.file.Write(buf)
	j.size += int64(n)
	if err != nil {
		return fmt.Errorf("write journal of positions: %w", err)
	}
	return nil
}

// length returns the size of the file.
func (j *Journal) length() int64 {
	j.fileMu.Lock()
	defer j.fileMu.Unlock()
	return j.size
}

// rewrite replaces the file by what snapshot returns, which has to hold all that
// was appended before it is called, and drops the buffer with it.
func (j *Journal) rewrite(snapshot func() []byte) error {
	j.fileMu.Lock()
	defer j.fileMu.Unlock()
	text := append([]byte(journalMagic), appendFrame(nil, []byte(j.about))...)
	text = append(text, snapshot()...)
	tmp := j.path + ".new"
	if err := os.MkdirAll(filepath.Dir(j.path), 0o700); err != nil {
		return fmt.Errorf("make folder for the journal of positions: %w", err)
	}
	f, err := os.OpenFile(tmp, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write journal of positions: %w", err)
	}
	if _, err = f.Write(text); err == nil {
		err = os.Rename(tmp, j.path)
	}
	if err != nil {
		_ = f.Close()
		return fmt.Errorf("write journal of positions: %w", err)
	}
	if j.file != nil {
		_ = j.file.Close() // it has no name any more
	}
	j.file, j.size = f, int64(len(text))
	return nil
}

// take empties the buffer; see rewrite.
func (j *Journal) take() {
	j.bufMu.Lock()
	defer j.bufMu.Unlock()
	j.buf = nil
}

// appendFrame wraps a record: checksum, length, text.
func appendFrame(dst, record []byte) []byte {
	dst = binary.LittleEndian.AppendUint32(dst, crc32.ChecksumIEEE(record))
	dst = binary.LittleEndian.AppendUint16(dst, uint16(len(record)))
	return append(dst, record...)
}

// nextFrame returns the first record of b and what follows it, nil when there is
// none that is whole.
func nextFrame(b []byte) (record, rest []byte) {
	if len(b) < 6 {
		return nil, nil
	}
	sum, n := binary.LittleEndian.Uint32(b), int(binary.LittleEndian.Uint16(b[4:]))
	if len(b) < 6+n || crc32.ChecksumIEEE(b[6:6+n]) != sum {
		return nil, nil
	}
	return b[6 : 6+n : 6+n], b[6+n:]
}

func appendOpen(p *place) []byte {
	b := binary.AppendUvarint([]byte{recordOpen}, p.id)
	b = append(b, p.key[:]...)
	b = binary.AppendUvarint(binary.AppendUvarint(b, p.ref), uint64(p.at))
	for _, n := range p.names {
		b = appendText(appendText(b, n.schema), n.table)
	}
	return b
}

func appendPlace(p *place) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(binary.AppendUvarint([]byte{recordPlace}, p.id), p.ref), uint64(p.at))
}

func appendGone(id uint64) []byte { return binary.AppendUvarint([]byte{recordGone}, id) }

func appendMark(at sluice.LSN) []byte { return binary.AppendUvarint([]byte{recordMark}, uint64(at)) }

func appendText(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}

func encodeJournal(dst []byte, places []place, mark sluice.LSN) []byte {
	for i := range places {
		dst = appendFrame(dst, appendOpen(&places[i]))
	}
	return appendFrame(dst, appendMark(mark))
}

// decodeJournal returns what was open at the end of a file, in the order in which
// it was opened.
func decodeJournal(text []byte, about string) (places []place, mark sluice.LSN) {
	text, ok := bytes.CutPrefix(text, []byte(journalMagic))
	if !ok {
		return nil, 0
	}
	head, text := nextFrame(text)
	lost := string(head) != about
	at := map[uint64]int{}
	gone := map[int]bool{}
	for {
		record, rest := nextFrame(text)
		if len(record) == 0 {
			break
		}
		text = rest
		r := reader{b: record[1:]}
		switch record[0] {
		case recordOpen:
			p := place{id: r.number()}
			copy(p.key[:], r.take(len(p.key)))
			p.ref, p.at = r.number(), sluice.LSN(r.number())
			for len(r.b) > 0 && !r.bad {
				p.names = append(p.names, tableName{r.text(), r.text()})
			}
			if !r.bad {
				at[p.id] = len(places)
				places = append(places, p)
			}
		case recordPlace:
			id, ref, pos := r.number(), r.number(), sluice.LSN(r.number())
			if i, ok := at[id]; ok && !r.bad {
				places[i].ref, places[i].at = ref, pos
			}
		case recordGone:
			if i, ok := at[r.number()]; ok && !r.bad {
				gone[i] = true
			}
		case recordMark:
			if m := sluice.LSN(r.number()); !r.bad {
				mark = m
			}
		}
	}
	live := places[:0]
	for i := range places {
		if gone[i] || at[places[i].id] != i {
			continue
		}
		if lost {
			places[i].at = 0
		}
		live = append(live, places[i])
	}
	if lost {
		mark = 0
	}
	return live, mark
}

// reader takes a record apart; bad is set when it is too short.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) number() uint64 {
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.bad, r.b = true, nil
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) take(n int) []byte {
	if n < 0 || n > len(r.b) {
		r.bad, r.b = true, nil
		return nil
	}
	out := r.b[:n]
	r.b = r.b[n:]
	return out
}

func (r *reader) text() string { return string(r.take(int(min(r.number(), maxRecord)))) }
