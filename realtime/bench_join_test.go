package realtime_test

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/realtime"
	"github.com/sluice-dev/sluice/realtime/phoenix"
	"github.com/sluice-dev/sluice/token"
)

// BenchmarkJoin counts joins per second, of 64 users at once, each with a new
// token that has to be verified and, on private topics, with policies that have to
// be asked. Each join replaces the one before on its socket.
func BenchmarkJoin(b *testing.B) {
	for _, alg := range []string{"HS256", "ES256"} {
		cfg := token.Config{Secret: token.DevJWTSecret}
		if alg == "ES256" {
			cfg.SigningKeys = token.DevSigningKeys
		}
		keys, err := token.New(cfg)
		if err != nil {
			b.Fatal(err)
		}
		b.Run("public/"+alg, func(b *testing.B) {
			benchmarkJoin(b, keys, false, func(cfg *realtime.Config) {})
		})
		b.Run("private/"+alg, func(b *testing.B) {
			db := pgtest.New(b)
			db.Exec(`create table public.members (room text, user_id uuid, primary key (room, user_id));
alter table public.members enable row level security;
create policy own on public.members for select to authenticated using (user_id = (select auth.uid()));
insert into public.members select 'room' || i, ('00000000-0000-4000-8000-' || lpad(i::text, 12, '0'))::uuid from generate_series(0, 9999) i;
create policy may_read on realtime.messages for select to authenticated
  using (exists (select from public.members m where m.room = realtime.topic() and m.user_id = (select auth.uid())));`)
			db.Exec(`analyze public.members`)
			benchmarkJoin(b, keys, true, func(cfg *realtime.Config) { cfg.Users = db.Pool("authenticator") })
		})
	}
}

func benchmarkJoin(b *testing.B, keys *token.Keyring, private bool, change func(*realtime.Config)) {
	w := newWorld(b, change, func(cfg *realtime.Config) { cfg.Tokens = keys })
	defer w.stop()
	const users = 64
	frames := make([][]byte, b.N) // one token each: nobody has verified it before
	for n := range frames {
		i := n % users
		tok, err := keys.Sign(map[string]any{
			"role": "authenticated", "aud": "authenticated", "sub": fmt.Sprintf("00000000-0000-4000-8000-%012d", i),
			"exp": time.Now().Add(time.Hour).Unix(), "email": "user@example.com", "session_id": fmt.Sprint(n),
		})
		if err != nil {
			b.Fatal(err)
		}
		frames[n] = masked(ws.NewTextFrame(fmt.Appendf(nil,
			`["1","1","realtime:room%d","phx_join",{"config":{"private":%t,"broadcast":{"ack":false,"self":false},"presence":{"key":"","enabled":false},"postgres_changes":[]},"access_token":%q}]`, i, private, tok)))
	}
	socks := make([]net.Conn, users)
	for i := range socks {
		socks[i] = w.stalled(phoenix.V2)
	}
	b.ResetTimer()
	var wg sync.WaitGroup
	for i := range users {
		wg.Go(func() {
			defer socks[i].Close()
			for n := i; n < b.N; n += users {
				if _, err := socks[i].Write(frames[n]); err != nil {
					b.Error(err)
					return
				}
				if err := readJoined(socks[i]); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "joins/s")
	if m := w.srv.Metrics(); private {
		b.ReportMetric(float64(m.PolicyChecks.Load())/float64(max(m.PolicyFlushes.Load(), 1)), "checks/flush")
	}
}

// readJoined reads up to the reply of a join, which must be ok.
func readJoined(nc net.Conn) error {
	for {
		f, err := ws.ReadFrame(nc) //lint:ignore SA1019 the peer is our own server
		if err != nil {
			return err
		}
		switch s := string(f.Payload); {
		case !strings.Contains(s, `"phx_reply"`):
		case strings.Contains(s, `"status":"ok"`):
			return nil
		default:
			return fmt.Errorf("join: %s", s)
		}
	}
}
