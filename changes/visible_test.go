package changes_test

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/changes"
	"github.com/sluice-dev/sluice/internal/pgtest"
)

// hanging is a transaction of which the log tells and that queries do not see yet,
// as while a synchronous standby has not answered.
type hanging struct {
	h   *hand
	tx  pgx.Tx
	xid uint64
}

func (h *hand) hang(sql string, args ...any) *hanging {
	h.t.Helper()
	tx, err := h.db.Pool("supabase_admin").Begin(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { _ = tx.Rollback(context.Background()) }) // of one that was not committed
	var xid string
	if _, err = tx.Exec(h.t.Context(), sql, args...); err == nil {
		err = tx.QueryRow(h.t.Context(), "select pg_current_xact_id()::text").Scan(&xid)
	}
	if err != nil {
		h.t.Fatal(err)
	}
	id, err := strconv.ParseUint(xid, 10, 64)
	if err != nil {
		h.t.Fatal(err)
	}
	return &hanging{h, tx, id}
}

// tell hands its rows on.
func (x *hanging) tell(list ...sluice.Change) {
	x.h.next++
	x.h.give(sluice.ChangeBatch{Commit: x.h.next, CommitTime: time.Now(), XID: x.xid, Last: true, Changes: list})
}

func (x *hanging) commit() {
	x.h.t.Helper()
	if err := x.tx.Commit(x.h.t.Context()); err != nil {
		x.h.t.Error(err)
	}
}

func (h *hand) waits() func() bool {
	return func() bool { return h.Metrics().VisibleRetries.Load() > 0 }
}

var catalogChange = sluice.Change{Kind: sluice.ChangeCatalog}

// A row is not judged by the grants and policies that its own transaction, or one
// before it, has taken away, however late that becomes visible.
func TestDefinitionWaitsForItsCommit(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		before, in string
		errors     int // events that tell of a missing privilege
	}{
		"grant":     {in: "revoke select on public.a from authenticated", errors: 1},
		"rls":       {in: "alter table public.a enable row level security"},
		"policy":    {before: "alter table public.a enable row level security; create policy p on public.a using (true)", in: "drop policy p on public.a"},
		"predicate": {before: "alter table public.a enable row level security; create policy p on public.a using (author = auth.uid())", in: "alter policy p on public.a using (false)"},
	} {
		for _, apart := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s/apart=%v", name, apart), func(t *testing.T) {
				t.Parallel()
				db := flowDB(t, "a", "b")
				if tt.before != "" {
					db.Exec(tt.before)
				}
				h := newHand(t, db)
				a, b := h.relation("a"), h.relation("b")
				l, other := h.listen(authenticated(1), onTable("a")), h.listen(authenticated(1), onTable("b"))
				h.commit(inserted(a, 1, 1, 1))
				l.wait(1)
				tx := h.hang(tt.in)
				if apart {
					tx.tell(catalogChange)
					h.commit(inserted(a, 2, 1, 1))
				} else {
					tx.tell(catalogChange, inserted(a, 2, 1, 1))
				}
				eventually(t, "the definition is waited for", h.waits())
				tx.commit()
				h.commit(inserted(b, 3, 1, 1))
				other.wait(1)
				eventually(t, "everything is settled", func() bool { return h.Settled(h.next+1) == h.next+1 })
				got := l.got()[1:]
				if len(ids(got)) != 0 || len(got) != tt.errors {
					t.Errorf("a row that its transaction hides was shown: %v", got)
				}
			})
		}
	}
}

// While a commit is not visible, nobody is shown its rows, and everybody who asked
// for them is told; what does not hang on it goes on.
func TestCommitThatStaysInvisible(t *testing.T) {
	t.Parallel()
	const member = memberPolicy
	for name, tt := range map[string]struct {
		before, in, params string
		ddl                bool
	}{
		"definition": {in: "revoke select on public.a from authenticated", ddl: true, params: onTable("a")},
		"set":        {before: fmt.Sprintf(member, "a"), in: "delete from public.members", params: onTable("a")},
		"user": {
			before: `create function public.may(r int) returns bool language plpgsql stable as 'begin return exists (select from public.members where room = r); end';
alter table public.a enable row level security; create policy p on public.a using (public.may(room))`,
			in: "delete from public.members", params: onTable("a"),
		},
		"look-up": {
			before: "alter table public.a add column more int generated always as (room * 2) stored",
			in:     "insert into public.a values (2, 7, null)", params: `{"schema":"public","table":"a","filter":"more=eq.14"}`,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := flowDB(t, "a", "b")
			db.Exec("insert into public.members values (7, $1)", user(1))
			if tt.before != "" {
				db.Exec(tt.before)
			}
			h := newHand(t, db, func(c *changes.Config) { c.VisibleTimeout = 50 * time.Millisecond })
			f := &feed{Service: h.Service, db: db}
			a, b := h.relation("a"), h.relation("b")
			l := f.join(t, session(1, "s1"), 1, 1, nil, tt.params)
			other := f.join(t, session(1, "s1"), 1, 2, nil, onTable("b"))
			tx := h.hang(tt.in)
			list := []sluice.Change{inserted(a, 2, 7, 1)}
			if tt.ddl {
				list = append(list, catalogChange)
			}
			tx.tell(list...)
			r := l.note()
			if r.Code != sluice.CodeChangesGap {
				t.Errorf("told %s: %s", r.Code, r.Text)
			}
			tx.commit()
			h.commit(inserted(b, 3, 1, 1))
			other.wait(1)
			if got := l.got(); len(got) != 0 {
				t.Errorf("shown %v", got)
			}
			if n := h.Metrics().NotVisible.Load(); n == 0 {
				t.Error("not counted")
			}
			select {
			case r := <-other.notes:
				t.Errorf("who was not asked is told %s", r.Code)
			default:
			}
		})
	}
}

// Who asks for the rows that leave its view is told too: to it an UPDATE may be a
// DELETE.
func TestGapOfWhatMayHaveLeft(t *testing.T) {
	t.Parallel()
	db := flowDB(t, "a")
	h := newHand(t, db, func(c *changes.Config) { c.VisibleTimeout = 50 * time.Millisecond })
	f := &feed{Service: h.Service, db: db}
	plain := f.join(t, session(1, "s1"), 1, 1, nil, `{"event":"DELETE","schema":"public","table":"a"}`)
	left := f.join(t, session(1, "s1"), 1, 2, nil, `{"event":"DELETE","schema":"public","table":"a","left":true}`)
	row := inserted(h.relation("a"), 1, 1, 1)
	row.Kind, row.Old, row.OldFull = sluice.ChangeUpdate, row.New, true
	h.hang("revoke select on public.a from authenticated").tell(catalogChange, row)
	if r := left.note(); r.Code != sluice.CodeChangesGap {
		t.Errorf("told %s: %s", r.Code, r.Text)
	}
	select {
	case r := <-plain.notes:
		t.Errorf("who wants no UPDATE is told %s", r.Code)
	default:
	}
}

// A table that leaves the publication is noticed when queries see it, not when
// the stream tells.
func TestPublicationWaitsForItsCommit(t *testing.T) {
	t.Parallel()
	db := flowDB(t, "a")
	h := newHand(t, db)
	l := (&feed{Service: h.Service, db: db}).join(t, session(1, "s1"), 1, 1, nil, onTable("a"))
	tx := h.hang("alter publication supabase_realtime drop table public.a")
	tx.tell(catalogChange)
	eventually(t, "the publication is waited for", h.waits())
	tx.commit()
	if r := l.note(); r == nil || r.Code != sluice.CodeTableNotPublished {
		t.Errorf("told %+v", r)
	}
}

// A client whose missed changes are lost while they are sent is told so, and not
// that it has everything.
func TestGapWhileResuming(t *testing.T) {
	t.Parallel()
	db := flowDB(t, "a")
	f := newFeed(t, db)
	who := session(1, "s1")
	first := f.join(t, who, 1, 1, nil, anyA)
	db.Exec("insert into public.a values (1, 1, null)")
	first.wait(1)
	first.settled(db)
	first.cut(7)
	room, asked := make(chan struct{}), make(chan struct{}, 9)
	second := f.join(t, who, 2, 8, func(s *sluice.ChangeSubscription) {
		s.Resume.Room = func(context.Context) error { asked <- struct{}{}; <-room; return nil }
	}, anyA)
	<-asked
	var now string
	if err := db.Admin().QueryRow(t.Context(), "select (pg_current_wal_insert_lsn() + 1000)::text").Scan(&now); err != nil {
		t.Fatal(err)
	}
	at, err := sluice.ParseLSN(now)
	if err != nil {
		t.Fatal(err)
	}
	f.Started(at, true) // as after a lost slot
	close(room)
	if r := second.note(); r.Code != sluice.CodeChangesGap {
		t.Errorf("changes are lost, and the client is told %s: %s", r.Code, r.Text)
	}
	db.Exec("insert into public.a values (2, 1, null)")
	second.wait(1)
	select {
	case r := <-second.notes:
		t.Errorf("then it is told %s", r.Code)
	default:
	}
}

// A row whose columns have exchanged their names since is not judged by what the
// names mean now.
func TestColumnsThatChangedPlaces(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(`create table public.a (id int primary key, room int, author uuid, hidden uuid); grant select (id, room, author) on public.a to authenticated;
alter table public.a enable row level security; create policy p on public.a using (author = auth.uid()); alter publication supabase_realtime add table public.a`)
	h := newHand(t, db)
	rel := h.relation("a")
	rel.Columns = append(rel.Columns, sluice.Column{Name: "hidden", Type: 2950})
	row := func(id, author, hidden int) sluice.Change {
		ch := inserted(rel, id, 1, author)
		ch.New = append(ch.New, sluice.Value{Kind: sluice.ValueText, Text: []byte(user(hidden))})
		return ch
	}
	l := (&feed{Service: h.Service, db: db}).join(t, session(1, "s1"), 1, 1, nil, onTable("a"))
	h.commit(row(1, 1, 2))
	l.wait(1)
	db.Exec("alter table public.a rename author to x; alter table public.a rename hidden to author; alter table public.a rename x to hidden")
	h.commit(catalogChange)
	h.commit(row(2, 2, 1))
	if r := l.note(); r.Code != sluice.CodeChangesGap || !strings.Contains(r.Text, "changed their names") {
		t.Errorf("told %s: %s", r.Code, r.Text)
	}
	if got := ids(l.got()); len(got) != 1 {
		t.Errorf("shown %v", got)
	}
}
