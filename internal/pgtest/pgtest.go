// Package pgtest gives tests a real PostgreSQL: one server for a test process,
// one database for a test, bootstrapped and migrated. Servers are copies of a
// template cluster that is made once per version of PostgreSQL and of our SQL.
package pgtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/gofrs/flock"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/devpg"
	"github.com/sluice-dev/sluice/pg"
)

// settings trade durability for speed and give room for many slots. They hold
// for the template as well: a standby or recovery checks some of them.
var settings = map[string]string{
	"fsync":                 "off",
	"full_page_writes":      "off",
	"max_wal_senders":       "100",
	"max_replication_slots": "100",
	"max_connections":       "300",
	"autovacuum":            "off",
	"shared_buffers":        "32MB",
	"min_wal_size":          "8MB",
	"max_wal_size":          "256MB",
	"checkpoint_timeout":    "1h",
	"log_min_messages":      "warning",
}

// DB is one test's database.
type DB struct {
	Name   string
	t      testing.TB
	server *server
	admin  *pgxpool.Pool
}

// New returns a database of t's own in the server of this test process. It is
// dropped when t ends. Without server binaries t is skipped, or fails when
// SLUICE_TEST_PG=required is set.
func New(t testing.TB) *DB {
	t.Helper()
	shared.once.Do(func() { shared.server, shared.err = startServer() })
	need(t, shared.err)
	return shared.server.database(t)
}

// Private returns a database in a server of its own, which may be stopped and
// started, and in which a long transaction disturbs nobody.
func Private(t testing.TB) *DB {
	t.Helper()
	s, err := startServer()
	need(t, err)
	t.Cleanup(func() {
		stop(s)
		os.RemoveAll(s.dir)
	})
	db := &DB{Name: "postgres", t: t, server: s}
	db.admin = db.pool("supabase_admin")
	t.Cleanup(db.admin.Close)
	return db
}

var shared struct {
	once   sync.Once
	server *server
	err    error
}

// Stop ends the server of this test process; for TestMain of a package that looks
// for goroutines left behind. Without it the server ends with the process.
func Stop() {
	if shared.server != nil {
		stop(shared.server)
	}
}

func need(t testing.TB, err error) {
	t.Helper()
	switch {
	case err == nil:
	case errors.Is(err, devpg.ErrNoBinaries) && os.Getenv("SLUICE_TEST_PG") != "required":
		t.Skip(err)
	default:
		t.Fatalf("test server: %v", err)
	}
}

// server is one running cluster.
type server struct {
	*devpg.Server
	dir string
	// mu: a template can be copied by one session at a time.
	mu sync.Mutex
	n  atomic.Int64
}

// root holds templates and the data of running servers. The server's user must
// be able to enter it.
func root() (string, error) {
	dir := filepath.Join(os.TempDir(), "sluice-pgtest-"+strconv.Itoa(os.Getuid()))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	return dir, nil
}

func startServer() (*server, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	bin, err := devpg.Find(ctx)
	if err != nil {
		return nil, err
	}
	base, err := root()
	if err != nil {
		return nil, err
	}
	sweep(base)
	template, err := makeTemplate(ctx, base, bin)
	if err != nil {
		return nil, fmt.Errorf("make template cluster: %w", err)
	}
	dir, err := os.MkdirTemp(base, fmt.Sprintf("run-%d-", os.Getpid()))
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return nil, err
	}
	if err := copyTree(template, filepath.Join(dir, "data")); err != nil {
		return nil, err
	}
	s, err := launch(ctx, filepath.Join(dir, "data"), bin)
	if err != nil {
		return nil, err
	}
	s.dir = dir
	return s, nil
}

func launch(ctx context.Context, data string, bin devpg.Binaries) (*server, error) {
	var err error
	for range 5 { // another process may take the port between choice and use
		var s *devpg.Server
		s, err = devpg.New(devpg.Config{
			DataDir: data, Port: freePort(), Settings: settings, Binaries: bin,
			InitArgs: []string{"--wal-segsize=1"}, Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
		})
		if err != nil {
			return nil, err
		}
		if _, err = s.Start(ctx); err == nil {
			return &server{Server: s}, nil
		}
	}
	return nil, err
}

func freePort() int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// makeTemplate returns the folder of a stopped, bootstrapped cluster.
func makeTemplate(ctx context.Context, base string, bin devpg.Binaries) (string, error) {
	sum, err := sqlHash(bin)
	if err != nil {
		return "", err
	}
	dir := filepath.Join(base, "template-"+sum)
	lock := flock.New(dir + ".lock")
	if err := lock.Lock(); err != nil {
		return "", err
	}
	defer lock.Unlock() //nolint:errcheck // the kernel does it at the latest
	data, done := filepath.Join(dir, "data"), filepath.Join(dir, "done")
	if _, err := os.Stat(done); err == nil {
		return data, nil
	}
	if err := os.RemoveAll(dir); err != nil {
		return "", err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return "", err
	}
	s, err := launch(ctx, data, bin)
	if err != nil {
		return "", err
	}
	defer stop(s)
	url := sluice.Secret(s.URL("supabase_admin", "postgres"))
	// As devpg's callers do: initdb makes the database postgres.
	if err := pg.Bootstrap(ctx, url, pg.BootstrapOptions{}); err != nil {
		return "", err
	}
	if err := pg.Migrate(ctx, url, slog.New(slog.NewTextHandler(io.Discard, nil))); err != nil {
		return "", err
	}
	stop(s)
	return data, os.WriteFile(done, nil, 0o644)
}

// sqlHash tells templates of different SQL, settings, servers and days apart.
func sqlHash(bin devpg.Binaries) (string, error) {
	_, file, _, _ := runtime.Caller(0)
	repo := filepath.Join(filepath.Dir(file), "..", "..")
	h := sha256.New()
	// Migrations make the partitions of the days around today.
	fmt.Fprintln(h, bin.Full, bin.Dir, settings, time.Now().UTC().Format(time.DateOnly))
	for _, dir := range []string{"pg", "devpg"} {
		err := filepath.WalkDir(filepath.Join(repo, dir), func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || strings.HasSuffix(path, "_test.go") {
				return err
			}
			text, err := os.ReadFile(path)
			fmt.Fprintln(h, path, len(text))
			h.Write(text)
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8]), nil
}

// copyTree copies a cluster with its owners and modes.
func copyTree(from, to string) error {
	args := []string{"-Rp", from, to}
	if runtime.GOOS == "linux" {
		args = []string{"-a", "--reflink=auto", from, to}
	}
	if out, err := exec.Command("cp", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("copy template cluster: %w: %s", err, out)
	}
	return nil
}

// sweep deletes what test processes that are gone have left.
func sweep(base string) {
	dirs, _ := filepath.Glob(filepath.Join(base, "run-*")) // the pattern is well-formed
	for _, dir := range dirs {
		pid, err := strconv.Atoi(strings.Split(filepath.Base(dir), "-")[1])
		if err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			os.RemoveAll(dir)
		}
	}
}

func stop(s *server) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	_ = s.Stop(ctx) // a server that does not stop is killed with this process
}

// database copies the template database.
func (s *server) database(t testing.TB) *DB {
	t.Helper()
	db := &DB{Name: fmt.Sprintf("t%d", s.n.Add(1)), t: t, server: s}
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, s.URL("supabase_admin", "template1"))
	if err != nil {
		t.Fatalf("connect to the test server: %v", err)
	}
	defer conn.Close(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := conn.Exec(ctx, "create database "+db.Name+" template postgres owner postgres"); err != nil {
		t.Fatalf("create test database: %v", err)
	}
	// Settings and privileges of a database are not part of its template.
	rows, err := conn.Query(ctx, `select unnest(setconfig) from pg_db_role_setting where setrole = 0 and setdatabase = (select oid from pg_database where datname = 'postgres')`)
	if err == nil {
		var all []string
		all, err = pgx.CollectRows(rows, pgx.RowTo[string])
		for _, kv := range all {
			k, v, _ := strings.Cut(kv, "=")
			if err == nil {
				_, err = conn.Exec(ctx, fmt.Sprintf("alter database %s set %s = '%s'", db.Name, k, strings.ReplaceAll(v, "'", "''")))
			}
		}
	}
	if err != nil {
		t.Fatalf("copy database settings: %v", err)
	}
	db.admin = db.pool("supabase_admin")
	t.Cleanup(db.drop)
	return db
}

// drop deletes the database; slots go first, as they would block it.
func (db *DB) drop() {
	db.admin.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	conn, err := pgx.Connect(ctx, db.server.URL("supabase_admin", "template1"))
	if err != nil {
		db.t.Errorf("drop test database: %v", err)
		return
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, `select pg_terminate_backend(active_pid) from pg_replication_slots where database = $1 and active_pid is not null`, db.Name)
	for err == nil {
		var left int
		// An active slot cannot be dropped; its process ends in its own time.
		_, _ = conn.Exec(ctx, `select pg_drop_replication_slot(slot_name) from pg_replication_slots where database = $1 and not active`, db.Name)
		if err = conn.QueryRow(ctx, `select count(*) from pg_replication_slots where database = $1`, db.Name).Scan(&left); left == 0 {
			break
		}
	}
	if err == nil {
		_, err = conn.Exec(ctx, "drop database "+db.Name+" with (force)")
	}
	if err != nil {
		db.t.Errorf("drop test database: %v", err)
	}
}

// URL returns the connection URL of a login role: supabase_admin, postgres,
// authenticator, supabase_auth_admin and so on.
func (db *DB) URL(role string) sluice.Secret {
	return sluice.Secret(db.server.URL(role, db.Name))
}

// Admin returns a pool of the superuser supabase_admin.
func (db *DB) Admin() *pgxpool.Pool { return db.admin }

func (db *DB) pool(role string) *pgxpool.Pool {
	db.t.Helper()
	p, err := pgxpool.New(context.Background(), string(db.URL(role)))
	if err != nil {
		db.t.Fatalf("open pool as %s: %v", role, err)
	}
	return p
}

// Pool returns a pool of package pg that logs in as role, closed with the test.
func (db *DB) Pool(role string) *pg.Pool {
	db.t.Helper()
	p, err := pg.Open(context.Background(), pg.Config{
		URL: db.URL(role), Name: "pgtest", Own: role != "authenticator", Logger: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		db.t.Fatalf("open pool as %s: %v", role, err)
	}
	db.t.Cleanup(p.Close)
	return p
}

// Exec runs SQL as supabase_admin and fails the test on an error. Without args
// it may hold several statements.
func (db *DB) Exec(sql string, args ...any) {
	db.t.Helper()
	if err := execOn(db.admin, sql, args); err != nil {
		db.t.Fatalf("as supabase_admin: %v\n%s", err, sql)
	}
}

// ExecAs runs SQL on a login of role and fails the test on an error.
func (db *DB) ExecAs(role, sql string) {
	db.t.Helper()
	p := db.pool(role)
	defer p.Close()
	if err := execOn(p, sql, nil); err != nil {
		db.t.Fatalf("as %s: %v\n%s", role, err, sql)
	}
}

func execOn(p *pgxpool.Pool, sql string, args []any) error {
	ctx := context.Background()
	if len(args) == 0 {
		_, err := p.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
		return err
	}
	_, err := p.Exec(ctx, sql, args...)
	return err
}

// StopServer ends a Private server with a fast shutdown.
func (db *DB) StopServer() {
	db.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := db.server.Stop(ctx); err != nil {
		db.t.Fatalf("stop server: %v", err)
	}
}

// StartServer starts a Private server again on the same port.
func (db *DB) StartServer() {
	db.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := db.server.Start(ctx); err != nil {
		db.t.Fatalf("start server: %v", err)
	}
	db.admin.Reset() // its connections died with the server
}

// Restart stops and starts a Private server.
func (db *DB) Restart() {
	db.t.Helper()
	db.StopServer()
	db.StartServer()
}
