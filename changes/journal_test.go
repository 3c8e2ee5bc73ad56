package changes

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice"
)

func somePlaces() []place {
	return []place{
		{id: 1, key: placeKey{1}, ref: 7, at: 100, names: []tableName{{"public", "a"}, {"*", "*"}}},
		{id: 300, key: placeKey{2}, ref: 1 << 40, at: 1 << 50, names: nil},
	}
}

// told is what a place has on file.
type told struct {
	ID    uint64
	Key   placeKey
	Ref   uint64
	At    sluice.LSN
	Names []string
}

func tell(list []place) (out []told) {
	for _, p := range list {
		t := told{p.id, p.key, p.ref, p.at, nil}
		for _, n := range p.names {
			t.Names = append(t.Names, n.schema+"."+n.table)
		}
		out = append(out, t)
	}
	return out
}

// A file that was cut anywhere gives what stood before the cut; the file is for its
// owner alone, and is not another database's.
func TestJournalIsCut(t *testing.T) {
	path := filepath.Join(t.TempDir(), "positions")
	j, err := OpenJournal(path, "db")
	if err != nil {
		t.Fatal(err)
	}
	list := somePlaces()
	moved := list[0]
	moved.ref, moved.at = 8, 200
	j.append(appendOpen(&list[0]), appendMark(90), appendOpen(&list[1]), appendPlace(&moved), appendGone(list[1].id), appendMark(300))
	if err := j.flush(); err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("%v %v", fi.Mode(), err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for n := range text {
		got, mark := decodeJournal(text[:n], "db")
		for _, p := range tell(got) {
			for _, ok := range tell([]place{list[0], list[1], moved}) {
				if cmp.Equal(p, ok) {
					seen[p.At.String()] = true
				}
			}
		}
		if mark != 0 && mark != 90 {
			t.Errorf("cut at %d: mark %s", n, mark)
		}
	}
	if len(seen) != 3 {
		t.Errorf("states seen: %v", seen)
	}
	got, mark := decodeJournal(text, "db")
	if d := cmp.Diff(tell([]place{moved}), tell(got)); d != "" || mark != 300 {
		t.Errorf("mark %s, %s", mark, d)
	}
	lost := moved
	lost.at = 0
	other, mark := decodeJournal(text, "another")
	if d := cmp.Diff(tell([]place{lost}), tell(other)); d != "" || mark != 0 {
		t.Errorf("another database's: mark %s, %s", mark, d)
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	if j, err = OpenJournal(path, "db"); err != nil || len(j.places) != 1 || j.Mark() != 300 {
		t.Errorf("opened again: %v", err)
	}
	_ = j.Close()
}

// The journal does not grow for ever, and loses nothing when it is written anew.
func TestJournalIsRewritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "positions")
	j, err := OpenJournal(path, "db")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	p := newPlaces(time.Minute, 100, j, now)
	a := &place{key: placeKey{1}, durable: true, names: []tableName{{"public", "a"}}, at: 5}
	b := &place{key: placeKey{2}, durable: true, at: 6}
	private := &place{key: placeKey{3}, at: 1}
	for _, pl := range []*place{a, b, private} {
		p.open(pl, nil, now)
	}
	for i := range 1000 {
		p.confirm(a, sluice.LSN(10+i), uint64(i), now)
		p.turn(now, sluice.LSN(i))
		if err := j.flush(); err != nil {
			t.Fatal(err)
		}
	}
	p.close(b)
	p.confirm(a, 5000, 2000, now)
	p.turn(now, 0)
	grown := j.length()
	if err := j.rewrite(p.snapshot); err != nil || j.length() >= grown/10 {
		t.Errorf("%d bytes after %d: %v", j.length(), grown, err)
	}
	p.hold(a, now)
	if err := j.flush(); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	got, mark := decodeJournal(text, "db")
	if d := cmp.Diff(tell([]place{*a}), tell(got)); d != "" || mark != 999 {
		t.Errorf("mark %s, %s", mark, d)
	}
	_ = j.Close()
}

func FuzzDecodeJournal(f *testing.F) {
	text := append([]byte(journalMagic), appendFrame(nil, []byte("db"))...)
	text = encodeJournal(text, somePlaces(), 77)
	f.Add(text)
	f.Add(text[:len(text)-3])
	f.Add([]byte(journalMagic))
	// A record whose text says more than is there.
	f.Add(append(append([]byte(journalMagic), appendFrame(nil, []byte("db"))...), appendFrame(nil, append([]byte{recordOpen, 1}, bytes.Repeat([]byte{0xff}, 40)...))...))
	f.Fuzz(func(t *testing.T, text []byte) {
		list, mark := decodeJournal(text, "db")
		again := append([]byte(journalMagic), appendFrame(nil, []byte("db"))...)
		again = encodeJournal(again, list, mark)
		got, m := decodeJournal(again, "db")
		if d := cmp.Diff(tell(list), tell(got)); d != "" || m != mark {
			t.Error(d)
		}
	})
}

// Tabs of one session count for themselves: each takes its own place.
func TestTabsOfOneSession(t *testing.T) {
	now := time.Now()
	p := newPlaces(time.Minute, 100, nil, now)
	key := placeKey{1}
	hold := func(conn int64, ref uint64, at sluice.LSN) {
		pl := &place{key: key, conn: conn, durable: true, at: at, ref: ref}
		p.open(pl, nil, now)
		p.hold(pl, now)
	}
	take := func(first uint64) sluice.LSN {
		at, before := p.take(key, &sluice.Resume{Conn: 99, First: first})
		if before != nil {
			pl := &place{key: placeKey{2}}
			p.open(pl, before, now)
		}
		return at
	}
	hold(1, 100, 1000)
	hold(2, 500, 2000)
	if at := take(1); at != 0 {
		t.Errorf("a reload takes %s", at)
	}
	if at := take(501); at != 2000 {
		t.Errorf("the tab that counted to 500 takes %s", at)
	}
	if at := take(502); at != 1000 {
		t.Errorf("another takes %s", at) // it has no place of its own any more
	}
	// So close that they cannot be told apart: both go on from the older place.
	hold(3, 700, 3000)
	hold(4, 705, 2500)
	hold(5, 100, 1)
	if a, b := take(706), take(706); a != 2500 || b != 2500 {
		t.Errorf("tabs side by side take %s and %s", a, b)
	}
}

// What is held is bounded in time and number, and what is too old is told apart from
// what never was.
func TestPlacesExpire(t *testing.T) {
	now := time.Now()
	p := newPlaces(time.Minute, 3, nil, now)
	var all []*place
	for i := range 5 {
		pl := &place{key: placeKey{byte(i + 1)}, conn: 1, durable: true, at: sluice.LSN(10 + i)}
		p.open(pl, nil, now)
		p.hold(pl, now)
		all = append(all, pl)
	}
	if held, gone := p.counts(); held != 3 || gone != 2 {
		t.Errorf("%d held, %d gone", held, gone)
	}
	if oldest, _ := p.turn(now.Add(30*time.Second), 100); oldest != 12 {
		t.Errorf("oldest %s", oldest)
	}
	silent := &place{key: placeKey{9}, conn: 2, durable: true, at: 5}
	p.open(silent, nil, now)
	if oldest, durable := p.turn(now.Add(59*time.Second), 100); oldest != 5 || durable != 5 {
		t.Errorf("oldest %s, in the journal %s", oldest, durable)
	}
	if oldest, _ := p.turn(now.Add(61*time.Second), 100); oldest != 0 {
		t.Errorf("after the grace time %s holds back", oldest)
	}
	if _, before := p.take(placeKey{5}, &sluice.Resume{Conn: 7, First: 9}); before != all[4] {
		t.Error("who comes late is not told")
	}
	p.turn(now.Add(20*time.Minute), 100)
	if _, before := p.take(placeKey{4}, &sluice.Resume{Conn: 7, First: 9}); before != nil {
		t.Error("kept for ever")
	}
}
