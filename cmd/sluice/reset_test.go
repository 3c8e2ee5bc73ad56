package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice/devpg"
	"github.com/sluice-dev/sluice/token"
)

// TestResetUnderSockets is what a page sees of a reset: its socket is closed for
// a restart, the next one is taken at once, and changes of the new database
// arrive on it. Not parallel: it sets the environment.
func TestResetUnderSockets(t *testing.T) {
	if ok, err := condition("postgres"); !ok || err != nil {
		t.Skip("no PostgreSQL server binaries", err)
	}
	dir := room(t)
	t.Cleanup(func() { _ = devpg.Remove(filepath.Join(dir, ".sluice", "pg")) })
	migration := filepath.Join(dir, "supabase", "migrations", "1_notes.sql")
	if err := os.MkdirAll(filepath.Dir(migration), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(migration, []byte("create table notes (id int primary key); alter publication supabase_realtime add table notes;"), 0o644); err != nil {
		t.Fatal(err)
	}
	ports, err := freePorts(4)
	if err != nil {
		t.Fatal(err)
	}
	api, db := ports[0], ports[1]
	t.Setenv("SUPABASE_API_PORT", strconv.Itoa(api))
	t.Setenv("SUPABASE_DB_PORT", strconv.Itoa(db))
	t.Setenv("SUPABASE_INBUCKET_PORT", strconv.Itoa(ports[2]))
	t.Setenv("SUPABASE_STUDIO_PORT", strconv.Itoa(ports[3]))

	ctx, cancel := context.WithCancel(context.Background())
	var stdout, stderr syncBuffer
	code := make(chan int, 1)
	go func() { code <- run(ctx, []string{"start", "--workdir", dir}, &stdout, &stderr) }() // ends with ctx
	t.Cleanup(func() {
		cancel()
		if c := <-code; c != 0 {
			t.Errorf("start ends with %d:\n%s", c, stderr.String())
		}
	})
	limit, done := context.WithTimeout(t.Context(), time.Minute)
	defer done()
	for status := 1; status != 0; status = run(limit, []string{"status", "--workdir", dir}, new(bytes.Buffer), new(bytes.Buffer)) {
		select {
		case <-time.After(20 * time.Millisecond):
		case c := <-code:
			code <- c
			t.Fatal("start ended")
		case <-limit.Done():
			t.Fatalf("not ready:\n%s", stderr.String())
		}
	}

	first := dialChanges(t, api)
	insert(t, db, 1)
	first.wait(t, `"record":{"id":1}`)
	var said bytes.Buffer
	if c := run(t.Context(), []string{"db", "reset", "--workdir", dir}, new(bytes.Buffer), &said); c != 0 {
		t.Fatalf("db reset ends with %d:\n%s", c, said.String())
	}
	const serviceRestart = 1012
	if code := first.closed(t); code != serviceRestart {
		t.Errorf("the socket was closed with %d, want %d", code, serviceRestart)
	}
	second := dialChanges(t, api)
	insert(t, db, 1) // again: the row is gone
	second.wait(t, `"record":{"id":1}`)
}

// socket is a realtime connection that has joined a channel.
type socket struct {
	conn net.Conn
	text string // what has arrived
}

// dialChanges joins a channel for all changes of table notes.
func dialChanges(t *testing.T, port int) *socket {
	t.Helper()
	url := fmt.Sprintf("ws://127.0.0.1:%d/realtime/v1/websocket?vsn=1.0.0&apikey=%s", port, token.DevPublishableKey)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	conn, _, _, err := ws.Dial(ctx, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	join, err := json.Marshal(map[string]any{
		"topic": "realtime:notes", "event": "phx_join", "ref": "1", "join_ref": "1",
		"payload": map[string]any{"config": map[string]any{
			"postgres_changes": []any{map[string]string{"event": "*", "schema": "public", "table": "notes"}},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := wsutil.WriteClientText(conn, join); err != nil {
		t.Fatal(err)
	}
	s := &socket{conn: conn}
	s.wait(t, `"status":"ok"`)
	return s
}

// wait reads until what arrived holds part.
func (s *socket) wait(t *testing.T, part string) {
	t.Helper()
	for !strings.Contains(s.text, part) {
		frame, err := wsutil.ReadServerText(s.conn)
		if err != nil {
			t.Fatalf("wait for %s: %v\nso far: %s", part, err, s.text)
		}
		s.text += string(frame)
	}
}

// closed reads until the server closes and returns the code.
func (s *socket) closed(t *testing.T) ws.StatusCode {
	t.Helper()
	for {
		header, err := ws.ReadHeader(s.conn)
		if err == nil && header.Length > 1<<20 {
			err = fmt.Errorf("a frame of %d bytes", header.Length)
		}
		if err != nil {
			t.Fatalf("wait for the end of the socket: %v", err)
		}
		payload := make([]byte, header.Length)
		if _, err := io.ReadFull(s.conn, payload); err != nil {
			t.Fatalf("wait for the end of the socket: %v", err)
		}
		if header.OpCode == ws.OpClose {
			code, _ := ws.ParseCloseFrameData(payload)
			return code
		}
	}
}

func insert(t *testing.T, port, id int) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), fmt.Sprintf("postgresql://postgres:postgres@127.0.0.1:%d/postgres", port))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "insert into notes values ($1)", id); err != nil {
		t.Fatal(err)
	}
}

// syncBuffer is a bytes.Buffer that may be read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
