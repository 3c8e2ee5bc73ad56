package realtime_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

var errUnavailable = fmt.Errorf("connect: %w", sluice.ErrUnavailable)

// idsOf returns the ids of a join reply's bindings.
func idsOf(t testing.TB, m msg) (ids []int64) {
	t.Helper()
	var p struct {
		Response struct {
			Bindings []struct{ ID int64 } `json:"postgres_changes"`
		}
	}
	if err := json.Unmarshal(m.Payload, &p); err != nil {
		t.Fatal(err)
	}
	for _, b := range p.Response.Bindings {
		ids = append(ids, b.ID)
	}
	return ids
}

// The echo, the ids, the system message and the delivery.
// spec: realtime:139 realtime:140
func TestChanges(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		feed := w.feed
		c := w.connect(v)
		bindings := []string{
			`{"event":"INSERT","schema":"public","table":"todos","filter":"id=eq.1","select":["id"]}`,
			`{"table":"todos", "event":"*","schema":"public","filter":null,"extra":{"a":"b"}}`,
			`{}`,
		}
		ref := c.join("realtime:a", `{"config":{"presence":{"enabled":true},"postgres_changes":[`+strings.Join(bindings, ",")+`]}}`)
		got := c.got()
		ids := idsOf(t, got[0])
		echo := []string{
			fmt.Sprintf(`{"event":"INSERT","schema":"public","table":"todos","filter":"id=eq.1","select":["id"],"id":%d}`, ids[0]),
			fmt.Sprintf(`{"table":"todos","event":"*","schema":"public","filter":null,"extra":{"a":"b"},"id":%d}`, ids[1]),
			fmt.Sprintf(`{"id":%d}`, ids[2]),
		}
		want(t, got, `phx_reply {"status":"ok","response":{"postgres_changes":[`+strings.Join(echo, ",")+`]}}`,
			system("postgres_changes", "ok", "Subscribed to PostgreSQL", "a"), `presence_state {}`)
		if got[0].Ref != ref || v == phoenix.V2 && got[1].JoinRef != ref || got[1].Ref != nil {
			t.Errorf("refs of %v", got)
		}
		seen := map[int64]bool{0: true}
		sub := feed.subs[len(feed.subs)-1].sub
		for i, id := range ids {
			if seen[id] || sub.Bindings[i].ID != id || id > 1<<27 {
				t.Errorf("ids are %v", ids)
			}
			seen[id] = true
		}
		const data = `{"type":"INSERT","record":{"id":1}}`
		sub.Deliver(sluice.ChangeEvent{IDs: ids[:2], Type: "INSERT", Data: json.RawMessage(data)})
		got = c.got()
		want(t, got, fmt.Sprintf(`postgres_changes {"ids":[%d,%d],"data":%s}`, ids[0], ids[1], data))
		if got[0].Ref != nil || got[0].JoinRef != nil {
			t.Errorf("refs of %v", got[0])
		}
		c.push(ref, "realtime:a", "phx_leave", `{}`)
		c.got()
		if !feed.subs[len(feed.subs)-1].isClosed() {
			t.Error("left, but still subscribed")
		}
	})
}

// Equal objects share an id; one subscription is made for them.
func TestEqualBindings(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		c.join("realtime:a", `{"config":{"postgres_changes":[{"event":"*","table":"t"},{"table":"t","event":"*"},null,{"table":"u"}]}}`)
		ids := idsOf(t, c.got()[0])
		if len(ids) != 3 || ids[0] != ids[1] || ids[0] == ids[2] {
			t.Errorf("ids are %v", ids)
		}
		if n := len(w.feed.subs[0].sub.Bindings); n != 2 {
			t.Errorf("%d bindings", n)
		}
	})
}

// The reply waits for the subscription; meanwhile the socket works, and what
// the channel is sent is held in order.
func TestSlowSubscribe(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		w.feed.gate = make(chan struct{})
		w.feed.early = []sluice.ChangeEvent{{IDs: []int64{7}, Data: json.RawMessage(`{"n":1}`)}, {IDs: []int64{7}, Data: json.RawMessage(`{"n":2}`)}}
		c := w.connect(v)
		join := c.join("realtime:a", `{"config":{"broadcast":{"ack":true},"postgres_changes":[{"table":"t"}]}}`)
		c.push(join, "realtime:a", "broadcast", `{"event":"x"}`)
		c.push(nil, "phoenix", "heartbeat", `{}`)
		want(t, c.got(), okReply) // the heartbeat's
		c.joined("realtime:b", emptyJoin)
		close(w.feed.gate)
		got := c.got()
		if len(got) != 5 || got[0].Ref != join {
			t.Fatalf("got %v", got)
		}
		want(t, got[1:], system("postgres_changes", "ok", "Subscribed to PostgreSQL", "a"),
			`postgres_changes {"ids":[7],"data":{"n":1}}`, `postgres_changes {"ids":[7],"data":{"n":2}}`, okReply)
	})
}

// A subscription that takes too long fails the join before the client gives up.
func TestSubscribeTimeout(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		w.feed.gate = make(chan struct{})
		c := w.connect(v)
		c.join("realtime:a", changesJoin(""))
		time.Sleep(9 * time.Second)
		want(t, c.got(), refusedReply("InitializingProjectConnection: Realtime is initializing the project connection"))
		if w.srv.Topics() != 0 {
			t.Error("subscribed all the same")
		}
	})
}

// Leave and another join while the first is under way.
func TestLeaveWhileJoining(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		w.feed.gate = make(chan struct{})
		c := w.connect(v)
		first := c.join("realtime:a", changesJoin(""))
		c.push(first, "realtime:a", "phx_leave", `{}`)
		second := c.join("realtime:a", emptyJoin)
		got := c.got()
		last := got[len(got)-1]
		if last.Ref != second || !strings.Contains(string(last.Payload), `"ok"`) {
			t.Errorf("got %v", got)
		}
		for _, s := range w.feed.subs {
			if !s.isClosed() {
				t.Error("a subscription is left over")
			}
		}
	})
}

// The socket ends while a subscription is being made.
func TestSocketEndsWhileJoining(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		w.feed.gate = make(chan struct{})
		c := w.connect(v)
		c.join("realtime:a", changesJoin(""))
		synctest.Wait()
		c.nc.Close()
		synctest.Wait()
		close(w.feed.gate)
		synctest.Wait()
		if w.srv.Metrics().Conns.Load() != 0 || w.srv.Topics() != 0 {
			t.Error("something is left")
		}
		for _, s := range w.feed.subs {
			if !s.isClosed() {
				t.Error("a subscription is left over")
			}
		}
	})
}

// Too much sent before the join is answered ends the socket.
func TestHeldIsBounded(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		w.feed.gate = make(chan struct{})
		c := w.connect(v)
		join := c.join("realtime:a", changesJoin(""))
		for range 5 {
			c.push(join, "realtime:a", "broadcast", `{}`)
		}
		if code, reason := c.closed(); code != 1008 || reason == "" {
			t.Errorf("closed with %d %q", code, reason)
		}
		close(w.feed.gate)
	}, func(cfg *realtime.Config) { cfg.HeldFrames = 4 })
}

// spec: realtime:141 realtime:143
func TestSubscribeErrors(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		for _, text := range []string{
			"Error parsing `filter` params: [\"wrong\"]",
			"Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the given connect parameters: [event: *, schema: public, table: doesnotexist, filters: [], select: nil]",
		} {
			w.feed.err = &sluice.SubscribeError{Message: text}
			ref := c.join("realtime:a", changesJoin(""))
			got := c.got()
			if got[0].Ref != ref || len(idsOf(t, got[0])) != 1 || !strings.Contains(string(got[0].Payload), `"status":"ok"`) {
				t.Errorf("reply is %v", got[0])
			}
			b, _ := json.Marshal(text)
			want(t, got[1:2], `system {"extension":"postgres_changes","status":"error","message":`+string(b)+`,"channel":"a"}`)
			c.push(ref, "realtime:a", "phx_leave", `{}`)
			time.Sleep(20 * time.Second)
			c.push(nil, "phoenix", "heartbeat", `{}`)
			want(t, c.got(), okReply, `phx_close {}`, okReply) // not retried
		}
	})
}

// A database that is away fails the join, so that the client comes back.
func TestDatabaseAway(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		for _, tt := range []struct {
			err    error
			reason string
		}{
			{sluice.Refuse(sluice.CodeUnableToConnect), "UnableToConnectToProject: Realtime was unable to connect to the project database"},
			{errUnavailable, "UnableToConnectToProject: Realtime was unable to connect to the project database"},
			{sluice.Refuse(sluice.CodeInitializing), "InitializingProjectConnection: Realtime is initializing the project connection"},
			{errors.New("secret detail"), "InternalError: Something went wrong inside Sluice"},
		} {
			w.feed.err = tt.err
			c.join("realtime:a", changesJoin(""))
			want(t, c.got(), refusedReply(tt.reason))
		}
		w.feed.err = nil
		c.joined("realtime:a", changesJoin(""))
	})
}

// Explain mode tells a channel that it will never receive anything; the log
// says so in any case.
func TestNotices(t *testing.T) {
	for _, explain := range []bool{false, true} {
		both(t, func(t *testing.T, w *world, v phoenix.Version) {
			notice := sluice.Refuse(sluice.CodeNoPolicyForRole)
			w.feed.notices = []*sluice.Refusal{notice}
			c := w.connect(v)
			_, rest := c.joined("realtime:a", changesJoin(`,"access_token":"sb_publishable_x"`))
			wants := []string{system("postgres_changes", "ok", "Subscribed to PostgreSQL", "a")}
			if explain {
				wants = append(wants, system("postgres_changes", "warning", notice.Explain(), "a"))
			}
			want(t, rest, wants...)
			if w.logs.count("code=NoPolicyForRole") != 1 {
				t.Error("not logged once")
			}

			w.feed.notices = nil
			w.feed.err = &sluice.SubscribeError{Message: "Unable", Refusal: sluice.Refuse(sluice.CodeTableNotPublished)}
			_, rest = c.joined("realtime:b", changesJoin(""))
			text := "Unable"
			if explain {
				text += " | TableNotPublished: " + sluice.Refuse(sluice.CodeTableNotPublished).Remedy
			}
			want(t, rest, system("postgres_changes", "error", text, "b"))
			w.feed.err = sluice.Refuse(sluice.CodeUnableToConnect)
			c.join("realtime:c", changesJoin(""))
			reason := sluice.Refuse(sluice.CodeUnableToConnect).Error()
			if explain {
				reason = sluice.Refuse(sluice.CodeUnableToConnect).Explain()
			}
			want(t, c.got(), refusedReply(reason))
		}, func(cfg *realtime.Config) { cfg.Explain = explain })
	}
}

// A client that has not looked for its session is sent back once for a topic
// when it could receive nothing without one; what a token does not mend, and
// what a client that sends its key asks for, is accepted with the warning.
func TestJoinedWithoutToken(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		sentBack := refusedReply(sluice.Refuse(sluice.CodeJoinedWithoutToken).Error())
		ok := system("postgres_changes", "ok", "Subscribed to PostgreSQL", "a")
		for _, code := range []sluice.Code{sluice.CodeNoPolicyForRole, sluice.CodeNoSelectGrant} {
			w.feed.notices = []*sluice.Refusal{sluice.Refuse(code)}
			c.join("realtime:a", changesJoin(""))
			want(t, c.got(), sentBack)
			if last := w.feed.subs[len(w.feed.subs)-1]; last.closed != 1 {
				t.Error("the subscription of a join that was sent back lives on")
			}
			ref, rest := c.joined("realtime:a", changesJoin(""))
			want(t, rest, ok)
			c.push(ref, "realtime:a", "phx_leave", `{}`)
			c.got()
		}
		w.feed.notices = []*sluice.Refusal{sluice.Refuse(sluice.CodeNoSelectPolicy)}
		c.joined("realtime:a", changesJoin(""))
		w.feed.notices = nil
		c.joined("realtime:a", changesJoin(""))
	})
}

// A join without config names its table in the topic.
func TestLegacyJoin(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		c.join("realtime:public:todos:id=eq.a:b", `{}`)
		got := c.got()
		ids := idsOf(t, got[0])
		want(t, got[:1], fmt.Sprintf(`phx_reply {"status":"ok","response":{"postgres_changes":[{"schema":"public","table":"todos","filter":"id=eq.a:b","id":%d}]}}`, ids[0]))
		w.feed.subs[0].sub.Deliver(sluice.ChangeEvent{IDs: ids, Type: "DELETE", Data: json.RawMessage(`{"old_record":{}}`)})
		want(t, c.got(), `DELETE {"old_record":{}}`)
	})
}

// A slow consumer of changes that come before the reply is closed, not cheated.
func TestChangesBeforeReplyAreBounded(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		w.feed.gate = make(chan struct{})
		for range 20 {
			w.feed.early = append(w.feed.early, sluice.ChangeEvent{IDs: []int64{7}, Data: json.RawMessage(`{}`)})
		}
		c := w.connect(phoenix.V2)
		c.join("realtime:a", changesJoin(""))
		if code, reason := c.closed(); code != 1013 || reason != "SlowReader" {
			t.Errorf("closed with %d %q", code, reason)
		}
	}, func(cfg *realtime.Config) { cfg.QueueFrames = 10 })
}

// What becomes of a live subscription is told on its channel, behind the join
// reply.
func TestChangesNotices(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		gone := sluice.Refuse(sluice.CodeTableNotPublished)
		for range 16 {
			w.feed.told = append(w.feed.told, gone)
		}
		c.join("realtime:a", `{"config":{"postgres_changes":[{"schema":"public"}]}}`)
		got := c.got()
		if len(got) != 2+16 {
			t.Fatalf("%d messages: %v", len(got), got)
		}
		want(t, got[1:3], system("postgres_changes", "ok", "Subscribed to PostgreSQL", "a"), system("postgres_changes", "error", gone.Error(), "a"))
		sub := w.feed.subs[len(w.feed.subs)-1].sub
		sub.Notify(nil)
		sub.Notify(sluice.Refuse(sluice.CodePolicyTimeout))
		want(t, c.got(), system("postgres_changes", "ok", "Subscribed to PostgreSQL", "a"),
			system("postgres_changes", "error", sluice.Refuse(sluice.CodePolicyTimeout).Error(), "a"))
	})
}
