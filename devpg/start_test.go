//go:build unix

package devpg_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice/devpg"
)

// TestStart is the life of a cluster: made once, then used as it is.

func TestStart(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(room(t), ".sluice", "pg")
	cfg := config(t, dir)
	var said []string
	cfg.Progress = func(line string) { said = append(said, line) }
	s := server(t, cfg)
	if s.Done() != nil {
		t.Error("Done before the first start is not nil")
	}
	if !start(t, s) {
		t.Error("the first start found a cluster")
	}
	if len(said) != 1 || !strings.HasPrefix(said[0], "Creating a PostgreSQL ") {
		t.Errorf("progress of a first start: %q", said)
	}
	if _, err := s.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "running already") {
		t.Errorf("start of a running server: %v", err)
	}
	for setting, want := range map[string]string{
		"wal_level": "logical", "listen_addresses": "127.0.0.1", "unix_socket_directories": "", "max_slot_wal_keep_size": "4GB",
		"server_encoding": "UTF8", "password_encryption": "scram-sha-256", "timezone": "UTC", "port": strconv.Itoa(cfg.Port),
	} {
		if got := value(t, s, "select current_setting('"+setting+"')"); got != want {
			t.Errorf("%s is %q, want %q", setting, got, want)
		}
	}
	execute(t, s, "create table kept as select 1 as id")
	done := s.Done()
	stop(t, s)
	<-done
	if _, err := os.Stat(filepath.Join(dir, "postmaster.pid")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("postmaster.pid after a stop: %v", err)
	}
	stop(t, s) // what does not run is no error

	if start(t, s) {
		t.Error("the second start made another cluster")
	}
	if got := value(t, s, "select count(*)::text from kept"); got != "1" {
		t.Errorf("rows after the second start: %s", got)
	}
	if len(said) != 1 {
		t.Errorf("progress of a second start: %q", said[1:])
	}
}

// TestStartAnyPath uses a folder whose name other programs stumble over, and
// which is too long for a socket.
func TestStartAnyPath(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(room(t), `it's "my" app`, "$HOME `id` %s \\ &; #ü", strings.Repeat("long name ", 12)+"x", "pg")
	s := server(t, config(t, dir))
	if !start(t, s) {
		t.Error("not fresh")
	}
	stop(t, s)
	if start(t, s) {
		t.Error("the second start made another cluster")
	}
	value(t, s, "select 'x'")
}

// TestSettings checks that every value arrives as it is, and that mistakes are
// named.
func TestSettings(t *testing.T) {
	t.Parallel()
	cfg := config(t, cluster(t))
	cfg.Settings = map[string]string{"work_mem": "7MB", "app.note": `it's C:\new "x" # y`}
	s := server(t, cfg)
	start(t, s)
	for setting, want := range map[string]string{"work_mem": "7MB", "app.note": cfg.Settings["app.note"]} {
		if got := value(t, s, "select current_setting('"+setting+"')"); got != want {
			t.Errorf("%s is %q, want %q", setting, got, want)
		}
	}
	execute(t, s, "alter system set work_mem = '9MB'")
	stop(t, s)
	start(t, s)
	if got := value(t, s, "select current_setting('work_mem')"); got != "9MB" {
		t.Errorf("work_mem after ALTER SYSTEM and a start: %s", got)
	}
	stop(t, s)

	for name, value := range map[string]string{"": "x", "Work Mem": "x", "work_mem": "1\nfsync = 'off'", "1a": "x"} {
		bad := cfg
		bad.Settings = map[string]string{name: value}
		if _, err := devpg.New(bad); err == nil {
			t.Errorf("setting %q = %q is accepted", name, value)
		}
	}
}

// TestRefusedSetting shows PostgreSQL's own words.
func TestRefusedSetting(t *testing.T) {
	t.Parallel()
	cfg := config(t, cluster(t))
	cfg.Settings = map[string]string{"work_mem": "lots"}
	_, err := server(t, cfg).Start(t.Context())
	wantError(t, err, "PostgreSQL ended while it started", `invalid value for parameter "work_mem"`, cfg.DataDir[:len(cfg.DataDir)-len("pg")]+"postgres.log")
}

// TestSettingsSymlink: the server's user may put a link where this process
// writes, and this process may be root.
func TestSettingsSymlink(t *testing.T) {
	t.Parallel()
	dir := cluster(t)
	victim := filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "postgresql.conf")
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(victim, file); err != nil {
		t.Fatal(err)
	}
	start(t, server(t, config(t, dir)))
	if text, err := os.ReadFile(victim); err != nil || string(text) != "mine" {
		t.Errorf("the file that the link named: %q, %v", text, err)
	}
	if fi, err := os.Lstat(file); err != nil || !fi.Mode().IsRegular() {
		t.Errorf("postgresql.conf: %v, %v", fi, err)
	}
}

func TestPortTaken(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := config(t, bare(t))
	cfg.Port = l.Addr().(*net.TCPAddr).Port
	_, err = server(t, cfg).Start(t.Context())
	wantError(t, err, strconv.Itoa(cfg.Port), " (pid "+strconv.Itoa(os.Getpid())+")", "port in [db]")
	if got := devpg.Holder(port(t)); got != "" {
		t.Errorf("holder of a free port: %q", got)
	}
}

// TestUnusableFolder tells what is wrong with a data folder and leaves it alone.
func TestUnusableFolder(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		file, text string
		want       []string
	}{
		"old":       {"PG_VERSION", "14\n", []string{"made by PostgreSQL 14", "SLUICE_PG_BIN", "stop --no-backup"}},
		"newer":     {"PG_VERSION", "19\n", []string{"made by PostgreSQL 19", "versions 15 to 18"}},
		"damaged":   {"PG_VERSION", "1x\n", []string{`"1x\n"`, "damaged"}},
		"empty":     {"PG_VERSION", "", []string{"damaged"}},
		"no number": {"PG_VERSION", "-3", []string{"damaged"}},
		"strange":   {"holiday.jpg", "x", []string{"is not empty and holds no cluster"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := bare(t)
			if err := os.Remove(filepath.Join(dir, "PG_VERSION")); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(dir, tt.file), []byte(tt.text), 0o644); err != nil {
				t.Fatal(err)
			}
			_, err := server(t, config(t, dir)).Start(t.Context())
			wantError(t, err, append(tt.want, dir)...)
			if text, err := os.ReadFile(filepath.Join(dir, tt.file)); err != nil || string(text) != tt.text {
				t.Errorf("the file after the attempt: %q, %v", text, err)
			}
		})
	}
}

func TestNewChecksConfig(t *testing.T) {
	t.Parallel()
	log := slog.New(slog.DiscardHandler)
	for name, cfg := range map[string]devpg.Config{
		"folder": {Port: 5000, Logger: log},
		"port":   {DataDir: "x", Port: 70000, Logger: log},
		"logger": {DataDir: "x", Port: 5000},
	} {
		if _, err := devpg.New(cfg); err == nil {
			t.Errorf("New without %s: no error", name)
		}
	}
}

// TestURL holds what is in the database's address: a password with any sign.
func TestURL(t *testing.T) {
	t.Parallel()
	s, err := devpg.New(devpg.Config{DataDir: "x", Port: 5000, Password: "a@b:c/d", Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	c, err := pgx.ParseConfig(s.URL("some user", "some db"))
	if err != nil {
		t.Fatal(err)
	}
	if c.User != "some user" || c.Password != "a@b:c/d" || c.Database != "some db" || c.Host != "127.0.0.1" || c.Port != 5000 {
		t.Errorf("user %q, password %q, database %q at %s:%d", c.User, c.Password, c.Database, c.Host, c.Port)
	}
}

// TestStartTimeout ends the server that did not become ready.
func TestStartTimeout(t *testing.T) {
	t.Parallel()
	cfg := config(t, cluster(t))
	cfg.StartTimeout = 1
	s := server(t, cfg)
	_, err := s.Start(t.Context())
	wantError(t, err, "not ready after 1ns")
	<-s.Done()
	cfg.StartTimeout = 0
	start(t, server(t, cfg))
}

// TestStopDeadline: a stop that may take no time still ends the server, and
// what was committed is there after the recovery.
func TestStopDeadline(t *testing.T) {
	t.Parallel()
	cfg := config(t, cluster(t))
	s := server(t, cfg)
	start(t, s)
	execute(t, s, "create table kept as select 1 as id")
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Stop(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("stop without time: %v", err)
	}
	<-s.Done()
	start(t, s)
	if got := value(t, s, "select count(*)::text from kept"); got != "1" {
		t.Errorf("rows after recovery: %s", got)
	}
}
