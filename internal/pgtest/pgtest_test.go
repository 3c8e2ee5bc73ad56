package pgtest_test

import (
	"testing"

	"github.com/sluice-dev/sluice/internal/pgtest"
)

func TestDatabasesAreApart(t *testing.T) {
	t.Parallel()
	a, b := pgtest.New(t), pgtest.New(t)
	a.ExecAs("postgres", "create table public.only_here (id int primary key)")
	var n int
	if err := b.Admin().QueryRow(t.Context(), "select count(*) from pg_class where relname = 'only_here'").Scan(&n); err != nil || n != 0 {
		t.Fatalf("table is in the other database: %d, %v", n, err)
	}
}

func TestPrivateRestarts(t *testing.T) {
	t.Parallel()
	db := pgtest.Private(t)
	db.Exec("create table t (id int)")
	db.Restart()
	db.Exec("insert into t values (1)")
}
