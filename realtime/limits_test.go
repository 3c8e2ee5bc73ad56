package realtime_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

const okJoin = `phx_reply {"status":"ok","response":{"postgres_changes":[]}}`

// pass lets d pass, and what is due at its end happen.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// beat keeps the sockets open and lets d pass, in steps that no idle limit
// notices.
func beat(d time.Duration, clients ...*client) {
	for d > 0 {
		step := min(d, 30*time.Second)
		pass(step)
		d -= step
		for _, c := range clients {
			c.push(nil, "phoenix", "heartbeat", `{}`)
		}
		synctest.Wait()
	}
}

// upgrade asks for a socket and returns the refusal.
func (w *world) upgrade() *httptest.ResponseRecorder {
	r := httptest.NewRequest("GET", "/websocket?vsn=2.0.0", nil)
	for k, v := range map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="} {
		r.Header.Set(k, v)
	}
	rec := httptest.NewRecorder()
	w.srv.ServeHTTP(rec, r.WithContext(sluice.WithIdentity(r.Context(), anon)))
	return rec
}

// metric returns a value of the page of metrics, by name and label value.
func (w *world) metric(name, label string) float64 {
	w.t.Helper()
	for _, m := range gather(w.t, w.srv) {
		if m.name == "sluice_realtime_"+name && m.label == label {
			return m.value
		}
	}
	w.t.Fatalf("no metric %s %s", name, label)
	return 0
}

// spec: realtime:8
func TestHandshakeRefusedWhenFull(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		c, waiting := w.connect(phoenix.V2), w.connect(phoenix.V2)
		synctest.Wait()
		c.joined("realtime:a", emptyJoin)
		rec := w.upgrade()
		var body map[string]string
		if rec.Code != 429 || json.Unmarshal(rec.Body.Bytes(), &body) != nil || body["error"] != "Too many connected users" ||
			body["code"] != "ConnectionRateLimitReached" || !strings.Contains(body["remedy"], "limit") {
			t.Errorf("answer is %d %s", rec.Code, rec.Body)
		}
		if rec.Header().Get(sluice.HeaderCode) != "ConnectionRateLimitReached" {
			t.Errorf("headers are %v", rec.Header())
		}
		if n := w.metric("users", ""); n != 1 {
			t.Errorf("%v users", n)
		}
		c.nc.Close()
		synctest.Wait()
		if n := w.metric("users", ""); n != 0 {
			t.Errorf("%v users are left", n)
		}
		waiting.joined("realtime:a", emptyJoin)
	}, func(cfg *realtime.Config) { cfg.MaxUsers = 1 })
}

// A socket over the limit may join once there is room, without reconnecting.
//
// spec: realtime:42
func TestConcurrentUsers(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		first, second := w.connect(v), w.connect(v)
		synctest.Wait() // both have shaken hands
		first.joined("realtime:a", emptyJoin)
		join, _ := first.joined("realtime:b", emptyJoin)
		second.join("realtime:a", emptyJoin)
		want(t, second.got(), refusedReply("ConnectionRateLimitReached: Too many connected users"))
		first.push(join, "realtime:b", "phx_leave", `{}`) // the socket still counts
		first.got()
		second.join("realtime:a", emptyJoin)
		want(t, second.got(), refusedReply("ConnectionRateLimitReached: Too many connected users"))
		first.nc.Close()
		synctest.Wait()
		second.joined("realtime:a", emptyJoin)
	}, func(cfg *realtime.Config) { cfg.MaxUsers = 1 })
}

// spec: realtime:44
func TestLastChannelIsLogged(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		c := w.connect(phoenix.V2)
		c.joined("realtime:a", emptyJoin)
		if n := w.logs.count("ChannelRateLimitReached"); n != 0 {
			t.Errorf("logged %d times before the last place was taken", n)
		}
		c.joined("realtime:b", emptyJoin)
		for range 5 {
			c.join("realtime:c", emptyJoin)
			want(t, c.got(), refusedReply("ChannelRateLimitReached: Too many channels"))
		}
		if n := w.logs.count("ChannelRateLimitReached"); n != 1 {
			t.Errorf("logged %d times, want 1", n)
		}
	}, func(cfg *realtime.Config) { cfg.MaxChannels = 2 })
}

// The average of two ticks reaches the limit: the next join closes its socket,
// handshakes are refused, and one line is logged. After a minute of rest all is
// well again.
//
// spec: realtime:45
func TestJoinsPerSecond(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		a, b := w.connect(v), w.connect(v)
		synctest.Wait()
		for range 20 { // over (0 + 20) / 2 / 5 s = 2 a second
			a.joined("realtime:a", emptyJoin)
		}
		if rec := w.upgrade(); rec.Code == 429 {
			t.Error("the limit is reached before the tick")
		}
		pass(5 * time.Second)
		for _, c := range []*client{a, b} {
			c.join("realtime:a", emptyJoin)
			got := c.got()
			if len(got) == 0 || !strings.Contains(string(got[0].Payload), `"reason":"ClientJoinRateLimitReached: Too many joins per second"`) {
				t.Errorf("join: %v", got)
			}
			if code, reason := c.closed(); code != 1001 || reason != "" {
				t.Errorf("closed with %d %q", code, reason)
			}
		}
		rec := w.upgrade()
		if rec.Code != 429 || !strings.Contains(rec.Body.String(), `"error":"Too many joins per second"`) || rec.Header().Get(sluice.HeaderCode) != "JoinsRateLimitReached" {
			t.Errorf("handshake is answered %d %s", rec.Code, rec.Body)
		}
		if n := w.logs.count("ClientJoinRateLimitReached"); n != 1 {
			t.Errorf("logged %d times, want 1", n)
		}
		pass(5 * time.Second)
		w.connect(v).joined("realtime:a", emptyJoin)
		if got := w.metric("closed_total", "joins_rate"); got != 2 {
			t.Errorf("%v closed", got)
		}
	}, func(cfg *realtime.Config) { cfg.MaxJoinsPerSecond = 2 })
}

// Receivers pay: once the average has reached the limit, the next message closes
// the channel that gets it. The sender, which receives nothing, goes on.
//
// spec: realtime:94
func TestEventsPerSecond(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		sender, receiver := w.connect(v), w.connect(v)
		join, _ := sender.joined("realtime:a", `{"config":{"broadcast":{"ack":true}}}`)
		receiver.joined("realtime:a", emptyJoin)
		receiver.joined("realtime:other", emptyJoin)
		for range 10 { // 10 sent + 10 delivered: 20 over two ticks are 2 a second
			sender.push(join, "realtime:a", "broadcast", `{"event":"x"}`)
		}
		if got := receiver.got(); len(got) != 10 {
			t.Errorf("got %v", got)
		}
		sender.got()
		pass(5 * time.Second)
		sender.push(join, "realtime:a", "broadcast", `{"event":"x"}`)
		sender.push(join, "realtime:a", "broadcast", `{"event":"y"}`)
		want(t, sender.got(), okReply, okReply)
		want(t, receiver.got(), `broadcast {"event":"x"}`, system("system", "error", "Too many messages per second", "a"), `phx_close {}`)
		if n := w.logs.count("MessagePerSecondRateLimitReached"); n != 1 {
			t.Errorf("logged %d times, want 1", n)
		}
		if got := w.metric("channels_shut_total", "events_rate"); got != 1 {
			t.Errorf("%v channels shut", got)
		}
		receiver.joined("realtime:a", emptyJoin) // the socket is open
		beat(70*time.Second, sender, receiver)
		sender.got()
		receiver.got()
		sender.push(join, "realtime:a", "broadcast", `{"event":"z"}`)
		want(t, receiver.got(), `broadcast {"event":"z"}`)
	}, func(cfg *realtime.Config) { cfg.MaxEventsPerSecond = 2 })
}

// The counting example of the protocol: two members with self, five messages
// are fifteen events. An oversize message counts, one of a muted channel does
// not, nor do diffs; an unknown event does.
func TestEventsAreCounted(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		a, b := w.connect(phoenix.V2), w.connect(phoenix.V2)
		const self = `{"config":{"broadcast":{"self":true},"presence":{"enabled":true}}}`
		join, _ := a.joined("realtime:a", self)
		b.joined("realtime:a", self)
		for range 5 {
			a.push(join, "realtime:a", "broadcast", `{"event":"x"}`)
		}
		a.got()
		if n := w.metric("limit_counted_total", "events"); n != 15 {
			t.Errorf("%v events, want 15", n)
		}
		a.push(join, "realtime:a", "broadcast", `{"x":"`+strings.Repeat("x", 2000)+`"}`)
		a.push(join, "realtime:a", "nonsense", `{}`)
		a.push(join, "realtime:a", "access_token", `{}`)
		a.push(join, "realtime:a", "presence", track(`{}`))
		a.got()
		if n := w.metric("limit_counted_total", "events"); n != 18 {
			t.Errorf("%v events, want 18", n)
		}
	}, func(cfg *realtime.Config) { cfg.MaxPayloadKB = 1 })
}

// spec: realtime:113
func TestPresenceIsCounted(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		for i := range 2 {
			c := w.connect(phoenix.V2)
			join, _ := c.joined("realtime:a", presenceJoin(fmt.Sprint(i)))
			c.push(join, "realtime:a", "presence", track(`{}`))
			c.push(join, "realtime:a", "presence", track(`{ }`)) // changes nothing, counts nothing
			c.got()
		}
		if n := w.metric("limit_counted_total", "presence"); n != 7 {
			t.Errorf("%v presence events, want 7: 2 states, 2 tracks, 3 diffs", n)
		}
	})
}

// spec: realtime:112
func TestPresencePerSecond(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		a, b := w.connect(v), w.connect(v)
		join, _ := a.joined("realtime:a", presenceJoin("a"))
		second, _ := b.joined("realtime:a", presenceJoin("b"))
		for i := range 7 { // 2 states + 7 tracks + 14 diffs: 2.3 a second over two ticks
			a.push(join, "realtime:a", "presence", track(fmt.Sprintf(`{"n":%d}`, i)))
		}
		if got := a.got(); len(got) != 14 {
			t.Errorf("got %v", got)
		}
		b.got()
		pass(5 * time.Second)
		b.push(second, "realtime:a", "presence", track(`{}`))
		want(t, b.got(), system("system", "error", "Too many presence messages per second", "a"), `phx_close {}`)
		c := w.connect(v)
		c.join("realtime:a", presenceJoin("c")) // its state would be one more
		want(t, c.got(), okJoin, system("system", "error", "Too many presence messages per second", "a"), `phx_close {}`)
		_, rest := c.joined("realtime:a", emptyJoin)
		want(t, rest)
		if n := w.logs.count("code=PresenceRateLimitReached"); n != 1 {
			t.Errorf("logged %d times, want 1", n)
		}
	}, func(cfg *realtime.Config) { cfg.MaxPresencePerSecond = 2; cfg.MaxPresenceCalls = realtime.Unlimited })
}

// spec: realtime:102
func TestPresenceForEveryone(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		for _, join := range []string{emptyJoin, `{"config":{"presence":{"enabled":false}}}`} {
			_, rest := w.connect(v).joined("realtime:a", join)
			want(t, rest, `presence_state {}`)
		}
	}, func(cfg *realtime.Config) { cfg.PresenceEnabled = true })
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		_, rest := w.connect(v).joined("realtime:a", presenceJoin("k")) // the client may ask all the same
		want(t, rest, `presence_state {}`)
	})
}

// Deliveries of changes have a counter of their own.
//
// spec: realtime:147
func TestChangesAreCounted(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		for range 2 {
			w.connect(phoenix.V2).joined("realtime:a", changesJoin(""))
		}
		for range 5 {
			w.feed.deliver("INSERT")
		}
		if n := w.metric("limit_counted_total", "changes"); n != 10 {
			t.Errorf("%v change events, want 10", n)
		}
		if n := w.metric("limit_counted_total", "events"); n != 0 {
			t.Errorf("%v broadcast events, want 0", n)
		}
	})
}

// Over the rate changes are dropped, but not in silence: the channel is told
// once, with what to do.
//
// spec: pgchanges:99
func TestChangesPerSecond(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		c.joined("realtime:a", changesJoin(""))
		for range 20 {
			w.feed.deliver("INSERT")
		}
		if got := c.got(); len(got) != 20 {
			t.Errorf("got %d of 20", len(got))
		}
		pass(5 * time.Second)
		for range 3 {
			w.feed.deliver("INSERT")
		}
		got := c.got()
		if len(got) != 1 || got[0].Event != "system" || !strings.Contains(string(got[0].Payload), "ChangesPerSecondRateLimitReached: Read the table again") {
			t.Errorf("got %v", got)
		}
		if n := w.metric("dropped_total", "changes_rate"); n != 3 {
			t.Errorf("%v dropped", n)
		}
		if n := w.logs.count("ChangesPerSecondRateLimitReached"); n != 1 {
			t.Errorf("logged %d times, want 1", n)
		}
		beat(70*time.Second, c)
		c.got()
		w.feed.deliver("INSERT")
		if got := c.got(); len(got) != 1 || got[0].Event != "postgres_changes" {
			t.Errorf("got %v", got)
		}
	}, func(cfg *realtime.Config) { cfg.MaxEventsPerSecond = 2; cfg.Explain = true })
}

// One request and three events, and as many deliveries.
//
// spec: realtime:126
func TestBatchIsCounted(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		rec := w.post(&anon, batchPath, "application/json", batchOf(3))
		if rec.Code != 202 || rec.Body.Len() != 0 {
			t.Errorf("answer is %d %s", rec.Code, rec.Body)
		}
		if n, m := w.metric("limit_counted_total", "requests"), w.metric("limit_counted_total", "events"); n != 1 || m != 3 {
			t.Errorf("%v requests and %v events, want 1 and 3", n, m)
		}
		c := w.connect(v)
		c.joined("realtime:a", emptyJoin)
		w.post(&anon, batchPath, "application/json", batchOf(3))
		const one = `broadcast {"type":"broadcast","event":"e","payload":{"n":%d}}`
		want(t, c.got(), fmt.Sprintf(one, 0), fmt.Sprintf(one, 1), fmt.Sprintf(one, 2))
	})
}

func batchOf(n int) string {
	messages := make([]string, n)
	for i := range messages {
		messages[i] = fmt.Sprintf(`{"topic":"a","event":"e","payload":{"n":%d}}`, i)
	}
	return `{"messages":[` + strings.Join(messages, ",") + `]}`
}

const singlePath = "/api/broadcast/a/events/e"

// spec: realtime:130
func TestHTTPRates(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		answer := func(path, body, message string) {
			t.Helper()
			rec := w.post(&anon, path, "application/json", body)
			if message == "" && rec.Code != 202 || message != "" && (rec.Code != 429 || rec.Body.String() != `{"message":"`+message+`"}`) {
				t.Errorf("%s %s: answer is %d %s, want %q", path, body, rec.Code, rec.Body, message)
			}
		}
		// 80 events over two ticks are 8 a second, of 10.
		for range 8 {
			answer(batchPath, batchOf(10), "")
		}
		pass(5 * time.Second)
		answer(batchPath, batchOf(2), "") // exactly the limit
		answer(batchPath, batchOf(3), "Too many messages to broadcast, please reduce the batch size")
		answer(singlePath, `{}`, "")
		// 70 more: (80 + 73) over three ticks are just above.
		for range 7 {
			answer(batchPath, batchOf(2), "")
		}
		c := w.connect(phoenix.V2)
		join, _ := c.joined("realtime:b", `{"config":{"broadcast":{"self":true}}}`)
		for range 27 + 1 { // 56 events; 17 came before: 80 + 73
			c.push(join, "realtime:b", "broadcast", `{"event":"x"}`)
		}
		c.got()
		pass(5 * time.Second)
		answer(batchPath, batchOf(1), "You have exceeded your rate limit")
		answer(singlePath, `{}`, "You have exceeded your rate limit")
	}, func(cfg *realtime.Config) { cfg.MaxEventsPerSecond = 10 })
}

// A single message is refused at exactly the limit, with another text than a
// batch.
func TestSingleAtTheLimit(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		for range 10 {
			w.post(&anon, batchPath, "application/json", batchOf(10)) // 10 a second over two ticks
		}
		pass(5 * time.Second)
		rec := w.post(&anon, singlePath, "application/json", `{}`)
		if rec.Code != 429 || rec.Body.String() != `{"message":"You have exceeded your rate limit"}` {
			t.Errorf("answer is %d %s", rec.Code, rec.Body)
		}
		rec = w.post(&anon, batchPath, "application/json", batchOf(1))
		if rec.Code != 429 || rec.Body.String() != `{"message":"Too many messages to broadcast, please reduce the batch size"}` {
			t.Errorf("answer is %d %s", rec.Code, rec.Body)
		}
	}, func(cfg *realtime.Config) { cfg.MaxEventsPerSecond = 10 })
}

// spec: realtime:138
func TestRateHeaders(t *testing.T) {
	headers := func(rec *httptest.ResponseRecorder) string {
		return rec.Header().Get("x-rate-rolling") + " " + rec.Header().Get("x-rate-limit") + " " + rec.Header().Get("x-rate-limit-remaining")
	}
	run(t, func(t *testing.T, w *world) {
		if rec := w.post(&anon, singlePath, "application/json", `{}`); rec.Code != 202 || headers(rec) != "0 3 3" {
			t.Errorf("%d, headers are %s", rec.Code, headers(rec))
		}
		for range 4 {
			w.post(&anon, "/api/broadcast", "application/json", ``)
		}
		pass(time.Second) // 5 requests over two ticks of a second
		if rec := w.post(&anon, singlePath, "application/json", `{}`); rec.Code != 202 || headers(rec) != "2 3 1" {
			t.Errorf("%d, headers are %s", rec.Code, headers(rec))
		}
		for range 20 {
			w.post(&anon, "/api/broadcast", "application/json", ``)
		}
		pass(time.Second) // 26 over three
		for _, path := range []string{singlePath, batchPath} {
			rec := w.post(&anon, path, "application/json", `{}`)
			if rec.Code != 429 || rec.Body.String() != `{"message":"Too many requests"}` || headers(rec) != "8 3 0" {
				t.Errorf("%d %s, headers are %s", rec.Code, rec.Body, headers(rec))
			}
		}
	}, func(cfg *realtime.Config) { cfg.MaxEventsPerSecond = 3 })
	run(t, func(t *testing.T, w *world) {
		if rec := w.post(&anon, singlePath, "application/json", `{}`); rec.Code != 429 || headers(rec) != "0 0 0" {
			t.Errorf("limit 0: %d, headers are %s", rec.Code, headers(rec))
		}
	}, func(cfg *realtime.Config) { cfg.MaxEventsPerSecond = realtime.Nothing })
	run(t, func(t *testing.T, w *world) {
		for range 1000 {
			if rec := w.post(&anon, singlePath, "application/json", `{}`); rec.Code != 202 || headers(rec) != "  " {
				t.Fatalf("no limit: %d, headers are %s", rec.Code, headers(rec))
			}
		}
		pass(5 * time.Second)
		if rec := w.post(&anon, singlePath, "application/json", `{}`); rec.Code != 202 {
			t.Errorf("no limit: %d", rec.Code)
		}
	}, func(cfg *realtime.Config) { cfg.MaxEventsPerSecond = realtime.Unlimited })
}

// Without limits nothing is closed, whatever is sent.
func TestUnlimited(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		c := w.connect(phoenix.V2)
		for range 100 {
			for range 30 {
				c.join("realtime:a", `{"config":{"broadcast":{"self":true}}}`)
			}
			c.push("1", "realtime:a", "broadcast", `{"event":"x"}`)
			c.push("1", "realtime:a", "presence", track(fmt.Sprintf(`{"n":%d}`, c.ref)))
			c.got()
			pass(time.Second)
		}
		if code, _ := c.closed(); code != 0 {
			t.Errorf("closed with %d", code)
		}
		c.joined("realtime:b", emptyJoin)
	}, func(cfg *realtime.Config) {
		cfg.MaxUsers, cfg.MaxJoinsPerSecond, cfg.MaxEventsPerSecond = realtime.Unlimited, realtime.Unlimited, realtime.Unlimited
		cfg.MaxPresencePerSecond, cfg.MaxPresenceCalls = realtime.Unlimited, realtime.Unlimited
	})
}

// A counter that rests for five minutes begins anew: what the next burst is
// averaged over is two ticks again, not the whole window.
func TestCounterBeginsAnew(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		send := func(n int) {
			for range n {
				w.post(&anon, batchPath, "application/json", batchOf(1))
			}
		}
		send(1)
		pass(2 * time.Minute)
		send(60)
		pass(5 * time.Second)
		if r := w.metric("limit_per_second", "events"); r != 1 {
			t.Errorf("60 in a full window are %v a second, want 1", r)
		}
		pass(6 * time.Minute)
		send(60)
		pass(5 * time.Second)
		if r := w.metric("limit_per_second", "events"); r != 6 {
			t.Errorf("60 in a new one are %v a second, want 6", r)
		}
	})
}

// The page of metrics is for who holds a secret key.
func TestMetricsPage(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		admin := anon
		admin.Claims.Role = "service_role"
		bad := admin
		bad.BearerErr = sluice.Refuse(sluice.CodeInvalidJWTToken)
		for name, tt := range map[string]struct {
			id     *sluice.Identity
			status int
			body   string
		}{
			"nobody": {nil, 403, ""}, "anon": {&anon, 403, ""}, "bad token": {&bad, 403, ""}, "service": {&admin, 200, "page"},
		} {
			r := httptest.NewRequest("GET", "/metrics", nil)
			if tt.id != nil {
				r = r.WithContext(sluice.WithIdentity(r.Context(), *tt.id))
			}
			rec := httptest.NewRecorder()
			w.srv.ServeHTTP(rec, r)
			if rec.Code != tt.status || rec.Body.String() != tt.body {
				t.Errorf("%s: %d %q", name, rec.Code, rec.Body)
			}
		}
	}, func(cfg *realtime.Config) {
		cfg.MetricsPage = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "page") })
	})
}

// Two members that track close together are both on everybody's list, in
// however many diffs.
//
// spec: realtime:118
func TestTrackTogether(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		a, b, watcher := w.connect(v), w.connect(v), w.connect(v)
		ja, _ := a.joined("realtime:r", presenceJoin("a"))
		jb, _ := b.joined("realtime:r", presenceJoin("b"))
		watcher.joined("realtime:r", presenceJoin("w"))
		a.push(ja, "realtime:r", "presence", track(`{"n":1}`))
		b.push(jb, "realtime:r", "presence", track(`{"n":2}`))
		seen := map[string]any{}
		for _, m := range watcher.got() {
			d := diffOf(t, m)
			for key, joined := range d.Joins {
				seen[key] = joined.Metas[0]["n"]
			}
			if len(d.Leaves) != 0 {
				t.Errorf("leaves in %v", m)
			}
		}
		if len(seen) != 2 || seen["a"] != 1.0 || seen["b"] != 2.0 {
			t.Errorf("seen %v", seen)
		}
	})
}
