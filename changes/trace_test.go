package changes_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice"
)

// A trace names, for every hop, the one that stops a change; and it sends nothing.
func TestTrace(t *testing.T) {
	t.Parallel()
	db := flowDB(t, "a", "b", "c")
	db.Exec(`alter table public.a enable row level security;
create policy own on public.a for select to authenticated using (author = auth.uid());
create table public.hidden (id int primary key); grant select on public.hidden to authenticated;
create table public.denied (id int primary key); revoke all on public.denied from authenticated; alter publication supabase_realtime add table public.denied;
create table public.pairs (x int, y int, primary key (x, y)); grant select on public.pairs to authenticated; alter publication supabase_realtime add table public.pairs;
create view public.everybody as select 1 as one; grant select on public.everybody to authenticated;
alter table public.c enable row level security;
create policy third on public.c for select to authenticated using (author = auth.uid() and exists (select from public.everybody))`)
	f := newFeed(t, db)
	x := f.join(t, session(1, "s1"), 7, 1, nil, anyA, onTable("c"), `{"schema":"public","table":"b","event":"INSERT","filter":"room=eq.2"}`)
	ask := func(table string, key map[string]string, c sluice.Claims) *sluice.Trace {
		t.Helper()
		tr, err := f.Trace(t.Context(), sluice.TraceRequest{Schema: "public", Table: table, Key: key, Subject: c.Subject, Claims: c})
		if err != nil {
			t.Fatalf("Trace: %v", err)
		}
		return tr
	}
	id := func(v string) map[string]string { return map[string]string{"": v} }
	stages := func(tr *sluice.Trace) (out []string) {
		for _, c := range tr.Changes {
			for _, o := range c.Outcomes {
				out = append(out, c.Kind+" "+string(o.Stage))
				if o.Conn != 0 && (o.Conn != 7 || o.Topic != "topic") {
					t.Errorf("outcome of %d %q", o.Conn, o.Topic)
				}
			}
		}
		return out
	}
	db.Exec("insert into public.a values (1, 1, $1), (2, 1, $2)", user(1), user(2))
	db.Exec("insert into public.b values (1, 1, $1), (2, 2, $1)", user(1))
	db.Exec("update public.b set room = 2 where id = 1")
	db.Exec("insert into public.c values (1, 1, $1), (2, 1, $2)", user(1), user(2))
	db.Exec("insert into public.denied values (1)")
	x.wait(3)
	x.settled(db)
	for _, tt := range []struct {
		name, table, key string
		who              sluice.Claims
		want             []string
	}{
		{"own row", "a", "1", session(1, "s1"), []string{"INSERT sent", "ROW visible"}},
		{"another's row", "a", "2", session(1, "s1"), []string{"INSERT policy", "ROW policy"}},
		{"not there", "a", "3", session(1, "s1"), nil},
		{"filter, event", "b", "1", session(1, "s1"), []string{"UPDATE binding", "INSERT filter", "ROW visible"}},
		{"passes the filter", "b", "2", session(1, "s1"), []string{"INSERT sent", "ROW visible"}},
		{"no socket", "a", "2", session(2, ""), []string{"INSERT visible", "ROW visible"}},
		{"no socket, no right", "a", "1", session(2, ""), []string{"INSERT policy", "ROW policy"}},
		{"nobody", "a", "1", claimsOf("anon", ""), []string{"INSERT policy", "ROW policy"}},
		{"asked as the user", "c", "1", session(1, "s1"), []string{"INSERT sent", "ROW visible"}},
		{"asked as the user, denied", "c", "2", session(1, "s1"), []string{"INSERT policy", "ROW policy"}},
		{"no grant", "denied", "1", session(1, "s1"), []string{"ROW grant"}},
	} {
		if d := cmp.Diff(tt.want, stages(ask(tt.table, id(tt.key), tt.who))); d != "" {
			t.Errorf("%s: %s", tt.name, d)
		}
	}
	x.sub.Confirm(x.sub.Position(), 2)
	if d := cmp.Diff([]string{"INSERT delivered", "ROW visible"}, stages(ask("a", id("1"), session(1, "s1")))); d != "" {
		t.Errorf("confirmed: %s", d)
	}
	late := f.join(t, session(2, "s2"), 7, 1, nil, anyA)
	if d := cmp.Diff([]string{"INSERT before", "ROW visible"}, stages(ask("a", id("2"), session(2, "s2")))); d != "" {
		t.Errorf("late: %s", d)
	}
	if n := len(late.got()) + len(x.got()); n != 3 {
		t.Errorf("a trace has sent something: %d events", n)
	}
	if tr := ask("hidden", nil, session(1, "s1")); len(tr.Published) != 0 || tr.Watched || len(tr.Changes) != 0 {
		t.Errorf("%+v", tr)
	}
	if tr := ask("a", nil, session(1, "s1")); len(tr.Changes) != 2 || tr.Tier != 1 || tr.Changes[0].Key["id"] != "2" {
		t.Errorf("the latest: %+v", tr)
	}
	for name, r := range map[string]sluice.TraceRequest{
		"no table":  {Schema: "public", Table: "nowhere", Claims: session(1, "s1")},
		"no role":   {Schema: "public", Table: "a", Claims: claimsOf("nobody", "")},
		"a column":  {Schema: "public", Table: "a", Key: map[string]string{"room": "1"}, Claims: session(1, "s1")},
		"one value": {Schema: "public", Table: "pairs", Key: id("1"), Claims: session(1, "s1")},
		"no number": {Schema: "public", Table: "a", Key: id("x"), Claims: session(1, "s1")},
	} {
		if tr, err := f.Trace(t.Context(), r); !errors.Is(err, sluice.ErrNotFound) && !errors.Is(err, sluice.ErrInvalid) {
			t.Errorf("%s: %v, %v", name, tr, err)
		}
	}
}
