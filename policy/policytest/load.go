package policytest

import (
	"context"
	_ "embed"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/pg"
)

//go:embed sql/roles.sql
var rolesSQL string

//go:embed sql/database.sql
var databaseSQL string

//go:embed sql/clean.sql
var cleanSQL string

// Env is a database in which worlds are loaded one after the other.
type Env struct {
	db          *pgtest.DB
	admin, user *pg.Pool
	loaded      *World // whose Setup and Rows stand in the database
	citext      bool
}

// rolesMu: roles belong to the server that all databases share.
var rolesMu sync.Mutex

// NewEnv makes a database.
func NewEnv(t testing.TB) *Env {
	t.Helper()
	db := pgtest.New(t)
	rolesMu.Lock() // advisory locks are of one database
	db.Exec(rolesSQL)
	rolesMu.Unlock()
	db.Exec(databaseSQL)
	e := &Env{db: db, admin: db.Pool("supabase_admin"), user: db.Pool("authenticator")}
	if err := db.Admin().QueryRow(context.Background(), "select exists (select from pg_extension where extname = 'citext')").Scan(&e.citext); err != nil {
		t.Fatal(err)
	}
	return e
}

func (e *Env) exec(ctx context.Context, sql string) error {
	_, err := e.db.Admin().Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
	return err
}

// Load puts a world in the place of the last one.
func (e *Env) Load(ctx context.Context, w *World) error {
	e.loaded = nil
	if err := e.exec(ctx, cleanSQL); err != nil {
		return fmt.Errorf("clean: %w", err)
	}
	if err := e.exec(ctx, strings.Join(w.sql(), ";\n")); err != nil {
		return fmt.Errorf("set up: %w", err)
	}
	if err := e.read(ctx, w); err != nil {
		return fmt.Errorf("read the rows: %w", err)
	}
	e.loaded = w
	return nil
}

// Swap replaces the policies alone: next is a world that differs from the loaded
// one in nothing else.
func (e *Env) Swap(ctx context.Context, next *World) error {
	var b strings.Builder
	for _, p := range e.loaded.Policies {
		b.WriteString("drop policy " + p.Name + " on " + next.Table + ";\n")
	}
	if err := e.exec(ctx, b.String()); err != nil {
		return fmt.Errorf("drop policies: %w", err)
	}
	none := e.loaded.clone()
	none.Policies = nil
	e.loaded = none // a set that fails leaves nothing behind
	if err := e.policies(ctx, next); err != nil {
		return err
	}
	next.Admin, next.User, next.OID, next.Keys, next.Images = e.loaded.Admin, e.loaded.User, e.loaded.OID, e.loaded.Keys, e.loaded.Images
	e.loaded = next
	return nil
}

func (e *Env) policies(ctx context.Context, w *World) error {
	var b strings.Builder
	for i := range w.Policies {
		b.WriteString(w.Policies[i].SQL(w.Table) + ";\n")
	}
	if err := e.exec(ctx, b.String()); err != nil {
		return fmt.Errorf("create policies: %w\n%s", err, b.String())
	}
	return nil
}

// read fills what deciders get: row images as the log would carry them, in the
// types' own output.
func (e *Env) read(ctx context.Context, w *World) error {
	w.Admin, w.User = e.admin, e.user
	table := w.Table
	if w.Leaf != "" {
		table = w.Leaf
	}
	if err := e.db.Admin().QueryRow(ctx, "select $1::text::regclass::oid", table).Scan(&w.OID); err != nil {
		return err
	}
	c, err := e.db.Admin().Acquire(ctx)
	if err != nil {
		return err
	}
	defer c.Release()
	read := func(what string) ([][][]byte, error) {
		res := c.Conn().PgConn().ExecParams(ctx, "select "+what+" from "+table+" order by "+w.Key, nil, nil, nil, nil).Read()
		return res.Rows, res.Err
	}
	keys, err := read(w.Key)
	if err != nil {
		return err
	}
	w.Keys = w.Keys[:0:0]
	for _, k := range keys {
		w.Keys = append(w.Keys, string(k[0]))
	}
	w.Images, err = read("*")
	return err
}
