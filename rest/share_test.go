package rest_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/rest"
	"github.com/sluice-dev/sluice/schema"
)

// smallMemory is a Server with room for two bodies of 500 KB, and no database.
func smallMemory(t *testing.T) *rest.Server {
	t.Helper()
	s, err := rest.New(rest.Config{Pool: noPool, Schema: new(schema.Cache), Schemas: []string{"public"}, Logger: discard, BodyLimit: 1_000_000, BodyMemory: 1_000_000})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// wantCode compares the code of an error, which is empty without.
func wantCode(t *testing.T, what string, err error, want sluice.Code) {
	t.Helper()
	var e *rest.Error
	if errors.As(err, &e); err != nil && e == nil || e == nil && want != "" || e != nil && e.Code != string(want) {
		t.Errorf("%s: %v, want %q", what, err, want)
	}
}

// Large bodies wait for room for as long as for a connection, whether their length
// is announced or not; small ones never wait.
func TestBodiesShareTheirMemory(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := smallMemory(t)
		hold := func(size int, announced bool) (func(), error) {
			length := int64(-1)
			if announced {
				length = int64(size)
			}
			return s.Hold(t.Context(), strings.NewReader(strings.Repeat("x", size)), length)
		}
		first, err := hold(500_000, true)
		wantCode(t, "the first", err, "")
		second, err := hold(500_000, true)
		wantCode(t, "the second", err, "")
		for _, announced := range []bool{true, false} {
			begin := time.Now()
			_, err = hold(100_000, announced)
			wantCode(t, "one too many", err, sluice.CodeTooManyBodies)
			if waited := time.Since(begin); waited != 10*time.Second {
				t.Errorf("it waited %v", waited)
			}
			small, err := hold(32_000, announced)
			wantCode(t, "a small one", err, "")
			small()
		}
		for i, announced := range []bool{true, false} {
			time.AfterFunc(5*time.Second, []func(){first, second}[i])
			third, err := hold(100_000, announced)
			wantCode(t, "one that waited", err, "")
			third()
		}
		for _, announced := range []bool{true, false} {
			whole, err := hold(1_000_000, announced)
			wantCode(t, "the largest", err, "")
			whole()
			_, err = hold(1_000_001, announced)
			if status := rest.Status(err); status != http.StatusRequestEntityTooLarge {
				t.Errorf("one that is too large: %d, %v", status, err)
			}
		}
		gone, cancel := context.WithCancel(t.Context())
		first, _ = hold(1_000_000, true)
		time.AfterFunc(time.Second, cancel)
		begin := time.Now()
		_, err = s.Hold(gone, strings.NewReader(strings.Repeat("x", 100_000)), 100_000)
		if wantCode(t, "whose client has gone", err, sluice.CodeTooManyBodies); time.Since(begin) != time.Second {
			t.Errorf("it waited %v", time.Since(begin))
		}
		first()
		// Nothing of all that is left.
		_, err = hold(1_000_000, true)
		wantCode(t, "the last", err, "")
	})
}

// trickle gives a part at a time, with a pause before each.
type trickle struct {
	io.Reader
	part  int
	pause time.Duration
}

func (r trickle) Read(p []byte) (int, error) {
	time.Sleep(r.pause)
	return r.Reader.Read(p[:min(len(p), r.part)])
}

// Who announces much and sends little does not keep others' room.
func TestSlowBody(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := smallMemory(t)
		send := func(part int, pause time.Duration) error {
			release, err := s.Hold(t.Context(), trickle{strings.NewReader(strings.Repeat("x", 1_000_000)), part, pause}, 1_000_000)
			if err == nil {
				release()
			}
			return err
		}
		wantCode(t, "in time", send(10_000, 300*time.Millisecond), "")
		begin := time.Now()
		wantCode(t, "too slow", send(10_000, 10*time.Second), sluice.CodeSlowSender)
		if took := time.Since(begin); took > 2*time.Minute {
			t.Errorf("it held its share for %v", took)
		}
		wantCode(t, "another", send(1_000_000, 0), "")
	})
}

// A body is held until its request is answered, and what is made of it counts.
func TestBodiesOfRequests(t *testing.T) {
	t.Parallel()
	s := startWith(t, `
create table public.t (a text);
create function public.wait(a text) returns int language sql volatile as $$ select pg_advisory_xact_lock(7); select length(a) $$;`,
		func(c *rest.Config) {
			c.BodyLimit, c.BodyMemory, c.AcquireTimeout = 500_000, 500_000, 100*time.Millisecond
		})
	body := `{"a":"` + strings.Repeat("x", 300_000) + `"}`
	admin := s.Pool("supabase_admin")
	lock, err := admin.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Release()
	if _, err := lock.Exec(t.Context(), "select pg_advisory_lock(7)"); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { s.want("200 0-0/* 300000", "POST /rpc/wait", body, "As", "service") })
	for waits := false; !waits; {
		if err := admin.QueryRow(t.Context(), "select exists (select from pg_locks where locktype = 'advisory' and not granted)").Scan(&waits); err != nil {
			t.Fatal(err)
		}
	}
	w := s.do("POST /t", body)
	wantError(t, w, http.StatusServiceUnavailable, "RequestBodiesLimitReached", "")
	if w.Header().Get(sluice.HeaderCode) != "RequestBodiesLimitReached" || w.Header().Get("Retry-After") == "" {
		t.Errorf("headers %v", w.Header())
	}
	s.want("201 */*", "POST /t", `{"a":"small"}`)
	if _, err := lock.Exec(t.Context(), "select pg_advisory_unlock(7)"); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	s.want("201 */*", "POST /t", body)
	wantError(t, s.do("POST /t", "{"+body), http.StatusBadRequest, "PGRST102", "")
	// 200 KB of CSV are 400 KB of JSON, which is not too much for one body.
	wantError(t, s.do("POST /t", "a\n"+strings.Repeat("xxxxxx\n", 30_000), "Content-Type", "text/csv"), http.StatusRequestEntityTooLarge, "BodyTooLarge", "")
	s.want("201 */*", "POST /t", body)
}
