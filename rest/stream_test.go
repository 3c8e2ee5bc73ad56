package rest_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/sluice-dev/sluice/rest"
)

// largeSQL has a table of 100 rows with a million letters each, which are
// PostgreSQL's to write out.
const largeSQL = `
create table public.large (id int primary key, body text not null);
insert into public.large select i, repeat('x', 1000000) from generate_series(1, 100) i;
create function public.large_text(n int) returns text language plpgsql stable as $$ begin
  perform set_config('response.headers', '[{"X-Said": "before the body"}]', true);
  return repeat('y', n);
end $$;
create function public.large_texts(n int) returns setof text language sql stable as $$ select repeat('y', 1000000) from generate_series(1, n) $$;
create function public.large_write(n int) returns text language sql volatile as $$ select repeat('y', n) $$;
do $$ begin -- on a busy machine it takes longer than users may
  execute format('alter role service_role in database %I set statement_timeout = %L', current_database(), '5min');
end $$;
create view public.large_broken as select id, body, 1 / (100 - id) as ratio from public.large;`

// startLarge serves over sockets, of which the client's do not take much that
// nobody reads.
func startLarge(t *testing.T, change func(*rest.Config)) (*stack, *httptest.Server) {
	t.Helper()
	s := startWith(t, largeSQL, change)
	srv := httptest.NewUnstartedServer(s.gateway)
	srv.Config.ReadHeaderTimeout = time.Minute
	srv.Start()
	t.Cleanup(srv.Close)
	return s, srv
}

// heap is what the process holds of it.
func heap() uint64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse
}

// An answer of 100 MB leaves no trace in memory: at no time is more of it there
// than fits into a few buffers. Not parallel, so that the heap is its own.
func TestLargeAnswerIsNotHeld(t *testing.T) {
	s, srv := startLarge(t, nil)
	for _, c := range []struct{ line, begin, end, rng, accept string }{
		{"/large?order=id", `[{"id":1,"body":"xxx`, `xxx"}]`, "0-99/*", ""},
		{"/large?order=id&limit=99", `[{"id":1,"body":"xxx`, `xxx"}]`, "0-98/100", ""},
		{"/large?order=id", "id,body\n1,xxx", "xxx", "0-99/*", "text/csv"},
		{"/rpc/large_texts?n=100", `["yyy`, `yyy"]`, "0-99/*", ""},
		{"/rpc/large_text?n=100000000", `"yyy`, `yyy"`, "0-0/*", ""},
	} {
		req, err := http.NewRequestWithContext(t.Context(), "GET", srv.URL+"/rest/v1"+c.line, nil)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(c.rng, "/100") {
			req.Header.Set("Prefer", "count=exact")
		}
		req.Header.Set("Accept", c.accept)
		req.Header.Set("Authorization", bearer(t, "service")) // CSV takes longer than anon may
		runtime.GC()
		before, most := heap(), uint64(0)
		res, err := srv.Client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		var n int64
		var head, tail []byte
		part := make([]byte, 1<<20)
		for {
			k, err := io.ReadFull(res.Body, part)
			n += int64(k)
			if head == nil {
				head = bytes.Clone(part[:50])
			}
			if k > 10 {
				tail = append(tail[:0], part[k-10:k]...)
			}
			most = max(most, heap())
			if err != nil {
				if !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatal(err)
				}
				break
			}
		}
		res.Body.Close()
		if n < 95_000_000 || n != res.ContentLength || !bytes.HasPrefix(head, []byte(c.begin)) || !bytes.HasSuffix(tail, []byte(c.end)) {
			t.Errorf("%s: %d bytes of %d, %q … %q", c.line, n, res.ContentLength, head, tail)
		}
		if got := res.Header.Get("Content-Range"); got != c.rng {
			t.Errorf("%s: Content-Range %q", c.line, got)
		}
		if strings.Contains(c.line, "large_text?") && res.Header.Get("X-Said") != "before the body" {
			t.Errorf("%s: headers %v", c.line, res.Header)
		}
		if held := int64(most) - int64(before); held > 16<<20 {
			t.Errorf("%s: %d MB more on the heap", c.line, held>>20)
		}
	}
	if n := s.users.Stat().AcquiredConns(); n != 0 {
		t.Errorf("%d connections are in use", n)
	}
}

// What goes wrong before the first byte is an error like any other, and what must
// not be sent before COMMIT is not.
func TestLargeAnswerErrors(t *testing.T) {
	t.Parallel()
	s, srv := startLarge(t, func(c *rest.Config) { c.LargeAnswers = 1 })
	s.Exec("alter role anon set statement_timeout to '20s'")
	s.reload()
	wantError(t, s.do("GET /large_broken", ""), http.StatusBadRequest, "22012", "division by zero")
	wantError(t, s.do("GET /large", "", "Accept", "application/vnd.pgrst.object+json"), http.StatusNotAcceptable, "PGRST116", "")
	s.Exec("update public.large set body = repeat('z', 9000000) where id = 1")
	wantError(t, s.do("GET /large?limit=2&order=id", "", "Accept", "application/vnd.pgrst.object+json"), http.StatusNotAcceptable, "PGRST116", "")
	for _, line := range []string{"GET /large?id=eq.1", "GET /large?limit=20", "HEAD /large"} {
		w := s.do(line, "")
		if w.Code != http.StatusOK || line[0] != 'H' && w.Body.Len() < 9_000_000 || line[0] == 'H' && w.Body.Len() > 0 {
			t.Errorf("%s: %d, %d bytes", line, w.Code, w.Body.Len())
		}
	}
	if w := s.do("POST /rpc/large_write", `{"n":10000000}`); w.Code != http.StatusOK || w.Body.Len() != 10_000_002 {
		t.Errorf("a function that may write: %d, %d bytes", w.Code, w.Body.Len())
	}
	if w := s.do("GET /large?limit=20", "", "Prefer", "count=planned"); w.Code != http.StatusPartialContent && w.Code != http.StatusOK || w.Body.Len() < 9_000_000 {
		t.Errorf("a planned count: %d, %d bytes", w.Code, w.Body.Len())
	}
	// While one is under way, others are taken into memory.
	res, err := srv.Client().Get(srv.URL + "/rest/v1/large")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	for range 10 {
		if w := s.do("GET /large?limit=20", ""); w.Code != http.StatusOK || w.Body.Len() < 9_000_000 {
			t.Errorf("beside a slow client: %d, %d bytes", w.Code, w.Body.Len())
		}
	}
	if n, err := io.Copy(io.Discard, res.Body); err != nil || n != res.ContentLength {
		t.Errorf("%d bytes of %d, %v", n, res.ContentLength, err)
	}
}

// A client that stops reading, goes, or closes its half of the socket, and a
// database that goes, end the answer before its length: nobody takes it for whole.
// The connection and the place are free again.
func TestLargeAnswerBrokenOff(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		stall time.Duration
		do    func(*stack, *net.TCPConn)
		level string
	}{
		{"stalls", 300 * time.Millisecond, func(*stack, *net.TCPConn) {}, "DEBUG"},
		{"goes", time.Minute, func(_ *stack, c *net.TCPConn) { c.Close() }, "DEBUG"},
		{"closes its half", time.Minute, func(_ *stack, c *net.TCPConn) { _ = c.CloseWrite() }, "DEBUG"},
		{"loses the database", time.Minute, func(s *stack, _ *net.TCPConn) {
			s.Exec("select pg_terminate_backend(pid) from pg_stat_activity where usename = 'authenticator' and datname = current_database()")
		}, "ERROR"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, srv := startLarge(t, func(cfg *rest.Config) { cfg.LargeAnswers, cfg.StallTimeout = 1, c.stall })
			conn, err := net.Dial("tcp", srv.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			tcp := conn.(*net.TCPConn)
			_ = tcp.SetReadBuffer(64 << 10)
			fmt.Fprint(tcp, "GET /rest/v1/large HTTP/1.1\r\nHost: x\r\n\r\n")
			in := bufio.NewReader(tcp)
			res, err := http.ReadResponse(in, nil)
			if err != nil || res.StatusCode != http.StatusOK || res.ContentLength < 95_000_000 {
				t.Fatalf("%v, %v", res, err)
			}
			c.do(s, tcp)
			n, err := int64(0), error(nil)
			if c.level == "ERROR" { // what is on the way hides it from who does not read
				n, err = io.Copy(io.Discard, res.Body)
			}
			line := "level=" + c.level + ` msg="large answer broken off"`
			for deadline := time.Now().Add(30 * time.Second); s.users.Stat().AcquiredConns() > 0 || !strings.Contains(s.log.String(), line); {
				s.Exec("select pg_sleep(0.01)")
				if time.Now().After(deadline) {
					t.Fatalf("%d connections are in use; %s", s.users.Stat().AcquiredConns(), s.log)
				}
			}
			if err == nil {
				n, err = io.Copy(io.Discard, res.Body)
			}
			if err == nil || n >= res.ContentLength {
				t.Errorf("%d bytes of %d, %v", n, res.ContentLength, err)
			}
			// The place is free: the next is sent straight, and whole.
			next, err := srv.Client().Get(srv.URL + "/rest/v1/large?limit=20")
			if err != nil || next.StatusCode != http.StatusOK {
				t.Fatalf("the next: %v, %v", next, err)
			}
			if text := drain(t, next); len(text) < 19_000_000 {
				t.Errorf("the next: %d bytes", len(text))
			}
		})
	}
}
