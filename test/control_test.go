package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// control is what the scripts may ask of the Go side: SQL beside the API, the
// log, and failures.
func control(t *testing.T, s *stack) string {
	t.Helper()
	mux := http.NewServeMux()
	answer := func(path string, fn func(r *http.Request) (any, error)) {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) {
			v, err := fn(r)
			if err != nil {
				http.Error(w, err.Error(), http.StatusInternalServerError)
				return
			}
			if v != nil {
				_ = json.NewEncoder(w).Encode(v)
			}
		})
	}
	answer("/log", func(*http.Request) (any, error) { return s.log.String(), nil })
	answer("/kill", func(*http.Request) (any, error) { return nil, s.kill() })
	answer("/start", func(*http.Request) (any, error) { return nil, s.up() })
	answer("/postgres/stop", func(*http.Request) (any, error) { return nil, s.stopPostgres() })
	answer("/postgres/start", func(r *http.Request) (any, error) { return nil, s.startPostgres(r.Context()) })
	answer("/sql", func(r *http.Request) (any, error) {
		var q struct {
			SQL  string
			Args []any
		}
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			return nil, err
		}
		return s.query(r.Context(), q.SQL, q.Args...)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	return server.URL
}

// query runs one statement as role postgres and returns its rows by column name.
func (s *stack) query(ctx context.Context, sql string, args ...any) ([]map[string]any, error) {
	config, err := pgx.ParseConfig(s.vars["DB_URL"])
	if err != nil {
		return nil, fmt.Errorf("read DB_URL: %w", err)
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec // arguments are JSON's types
	conn, err := pgx.ConnectConfig(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("connect to DB_URL: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for i, a := range args {
		if f, ok := a.(float64); ok && f == float64(int64(f)) {
			args[i] = int64(f)
		}
	}
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	out, err := pgx.CollectRows(rows, pgx.RowToMap)
	if out == nil {
		out = []map[string]any{}
	}
	return out, err
}

// stopPostgres stops the stack's PostgreSQL behind Sluice's back, as a restart
// of a database server does.
func (s *stack) stopPostgres() error {
	pid := s.postmaster()
	if pid == 0 {
		return errors.New("PostgreSQL does not run")
	}
	if err := syscall.Kill(pid, syscall.SIGINT); err != nil { // "fast": sessions are ended
		return fmt.Errorf("stop PostgreSQL, process %d: %w", pid, err)
	}
	return wait(stopLimit, func() error {
		if syscall.Kill(pid, 0) == nil {
			return fmt.Errorf("process %d is still there", pid)
		}
		return nil
	})
}

// startPostgres waits for PostgreSQL to answer again, and starts it with the
// options of its last start if nobody else does.
func (s *stack) startPostgres(ctx context.Context) error {
	answers := func() error {
		_, err := s.query(ctx, "select 1")
		return err
	}
	if wait(5*time.Second, answers) == nil {
		return nil
	}
	data := s.cluster()
	text, err := os.ReadFile(filepath.Join(data, "postmaster.opts"))
	if err != nil {
		return fmt.Errorf("read the options of the last start: %w", err)
	}
	words := regexp.MustCompile(`"[^"]*"|[^\s"]+`).FindAllString(string(text), -1)
	for i := range words {
		words[i] = strings.Trim(words[i], `"`)
	}
	info, err := os.Stat(data)
	if err != nil {
		return err
	}
	cmd := exec.Command(words[0], words[1:]...)
	cmd.Dir = data
	cmd.Stdout, cmd.Stderr = s.log, s.log
	if owner, ok := info.Sys().(*syscall.Stat_t); ok && int(owner.Uid) != os.Getuid() {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}}
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start PostgreSQL: %w", err)
	}
	go cmd.Wait() //nolint:errcheck // reaped; the stack's end stops it
	return wait(stopLimit, answers)
}

// wait asks fn until it returns nil; its last error after the limit.
func wait(limit time.Duration, fn func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	end := time.Now().Add(limit)
	for {
		err := fn()
		if err == nil || time.Now().After(end) {
			return err
		}
		<-tick.C
	}
}
