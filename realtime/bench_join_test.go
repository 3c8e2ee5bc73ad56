package realtime_test

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/realtime"
	"github.com/sluice-dev/sluice/realtime/phoenix"
	"github.com/sluice-dev/sluice/token"
)

// BenchmarkJoin counts joins per second, of 64 users at once, each with a token
// that has to be verified and, on private topics, with policies that have to be
// asked. Each join replaces the one before on its socket.
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
	frames := make([][2][]byte, users) // two tokens of a user take turns: a socket keeps the last one verified
	socks := make([]net.Conn, users)
	for i := range frames {
		for j := range frames[i] {
			tok, err := keys.Sign(map[string]any{
				"role": "authenticated", "aud": "authenticated", "sub": fmt.Sprintf("00000000-0000-4000-8000-%012d", i),
				"exp": time.Now().Add(time.Hour).Unix(), "iat": j, "email": "user@example.com", "session_id": fmt.Sprint(i),
			})
			if err != nil {
				b.Fatal(err)
			}
			frames[i][j] = masked(ws.NewTextFrame([]byte(fmt.Sprintf(
				`["1","1","realtime:room%d","phx_join",{"config":{"private":%t,"broadcast":{"ack":false,"self":false},"presence":{"key":"","enabled":false},"postgres_changes":[]},"access_token":%q}]`, i, private, tok))))
		}
		socks[i] = w.stalled(phoenix.V2)
	}
	b.ResetTimer()
	var left atomic.Int64
	left.Store(int64(b.N))
	var wg sync.WaitGroup
	for i := range users {
		wg.Go(func() {
			defer socks[i].Close()
			for n := 0; left.Add(-1) >= 0; n++ {
				if _, err := socks[i].Write(frames[i][n%2]); err != nil {
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
