package realtime_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-dev/sluice/realtime"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// fakeStream is up once its channel is closed.
type fakeStream chan struct{}

func (s fakeStream) Live(ctx context.Context) error {
	select {
	case <-s:
		return nil
	default:
	}
	select {
	case <-s:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

const readyJoin = `{"config":{"broadcast":{"replication_ready":true}}}`

// spec: realtime:56 realtime:57 pgchanges:128
func TestReplicationReady(t *testing.T) {
	for _, v := range []phoenix.Version{phoenix.V1, phoenix.V2} {
		t.Run(fmt.Sprintf("vsn=%d.0.0", v), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				up := make(fakeStream)
				w := newWorld(t, func(cfg *realtime.Config) { cfg.Stream, cfg.IdleTimeout = up, time.Hour })
				defer w.stop()
				ready := system("system", "ok", "Replication connection established", "room")
				c, without := w.connect(v), w.connect(v)
				_, rest := c.joined("realtime:room", readyJoin)
				want(t, rest)
				for _, config := range []string{`{}`, `{"broadcast":{"replication_ready":false}}`, `{"broadcast":{"replication_ready":null}}`} {
					_, rest = without.joined("realtime:room", `{"config":`+config+`}`)
					for _, m := range rest {
						if m.Event != "phx_close" { // of the join before
							t.Errorf("without asking: %v", m)
						}
					}
				}
				// Not yet, and meanwhile the channel works.
				time.Sleep(59 * time.Second)
				w.srv.DeliverRows(rowsNow(eventRow("ev")))
				if got := c.got(); len(got) != 1 || got[0].broadcast(t).Event != "ev" {
					t.Errorf("while waiting: %v", got)
				}
				close(up)
				want(t, c.got(), ready)
				time.Sleep(2 * time.Second)
				want(t, c.got()) // once
				if got := without.got(); len(got) != 1 {
					t.Errorf("without asking: %v", got)
				}

				// Who comes later is told at once, between the reply and the presence.
				for range 3 {
					late := w.connect(v)
					_, rest := late.joined("realtime:room", `{"config":{"broadcast":{"replication_ready":"yes"},"presence":{"enabled":true}}}`)
					want(t, rest, ready, "presence_state {}")
				}
			})
		})
	}
}

func TestReplicationIsNotReadyInTime(t *testing.T) {
	for name, stream := range map[string]realtime.Stream{"down": make(fakeStream), "none": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if stream != nil {
					stream = make(fakeStream) // of this bubble
				}
				w := newWorld(t, func(cfg *realtime.Config) { cfg.Stream, cfg.IdleTimeout = stream, time.Hour })
				defer w.stop()
				c, left := w.connect(phoenix.V2), w.connect(phoenix.V2)
				c.joined("realtime:room", readyJoin)
				ref, _ := left.joined("realtime:room", readyJoin)
				left.push(ref, "realtime:room", "phx_leave", "{}")
				left.got()
				time.Sleep(time.Minute - time.Millisecond)
				want(t, c.got())
				time.Sleep(time.Millisecond)
				want(t, c.got(), system("system", "error", "Replication connection was not established in time", "room"), "phx_close {}")
				want(t, left.got())
			})
		})
	}
}
