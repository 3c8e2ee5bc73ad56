package schema_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/schema"
)

// BenchmarkLoad reads a large catalog: 500 tables of 12 columns with two foreign
// keys each, 100 junctions, 200 views, 200 functions. The time is that of a
// reload, during which the last snapshot serves (budget: half a second).
//
// spec: rest:CA-09
func BenchmarkLoad(b *testing.B) {
	db := pgtest.New(b)
	var sql strings.Builder
	for i := range 500 {
		fmt.Fprintf(&sql, "create table public.t%d (id int primary key, a int references public.t%d, b int references public.t%d, c text not null default 'x', d timestamptz default now(), e jsonb, f text[], g numeric, h uuid, i bool, j varchar(20), k date);\n",
			i, max(0, i-1), i/2)
	}
	for i := range 100 {
		fmt.Fprintf(&sql, "create table public.j%d (x int references public.t%d, y int references public.t%d, primary key (x, y));\n", i, i, 499-i)
	}
	for i := range 200 {
		fmt.Fprintf(&sql, "create view public.v%d as select t.*, u.c as other from public.t%d t join public.t%d u on u.id = t.a;\n", i, i, i+1)
		fmt.Fprintf(&sql, "create function public.f%d(a int, b text default 'x') returns setof public.t%d language sql stable as 'select * from public.t%d where id = a';\n", i, i, i)
	}
	db.ExecAs("postgres", sql.String())
	c, err := schema.New(schema.Config{Admin: db.Pool("supabase_admin"), Schemas: []string{"public"}, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		seen := uint64(0)
		if s := c.Snapshot(); s != nil {
			seen = s.Version
		}
		if err := c.Reload(b.Context(), seen); err != nil {
			b.Fatal(err)
		}
	}
	s := c.Snapshot()
	relations := 0
	s.Relations("public", func(*schema.Relation) { relations++ })
	if relations != 800 || len(s.Relationships(s.Relation("public", "t5"))) < 6 {
		b.Errorf("%d relations, %d relationships of t5", relations, len(s.Relationships(s.Relation("public", "t5"))))
	}
}
