package realtime_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/realtime"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// openPolicies let a token say what it may read and write: see may. Presence is
// asked about only where somebody wants it.
const openPolicies = `
create policy may_read on realtime.messages for select to authenticated
  using (realtime.topic() = topic and (auth.jwt() -> 'read') ? extension);
create policy may_write on realtime.messages for insert to authenticated
  with check (realtime.topic() = topic and (auth.jwt() -> 'write') ? extension);`

// may makes a token of alice that may read and write what the letters say:
// b for broadcast, p for presence.
func may(read, write string) string { return mayAs("authenticated", read, write) }

func mayAs(role, read, write string) string {
	list := func(letters string) []string {
		out := []string{}
		for _, l := range letters {
			out = append(out, map[rune]string{'b': "broadcast", 'p': "presence"}[l])
		}
		return out
	}
	return jwt(map[string]any{
		"role": role, "sub": "00000000-0000-4000-8000-00000000000a",
		"exp": time.Now().Add(time.Hour).Unix(), "read": list(read), "write": list(write),
	})
}

// realWorld is a server over a database, in real time.
func realWorld(t *testing.T, db *pgtest.DB, change ...func(*realtime.Config)) *world {
	t.Helper()
	pools := func(cfg *realtime.Config) { cfg.Users, cfg.Admin = db.Pool("authenticator"), db.Pool("supabase_admin") }
	w := newWorld(t, append([]func(*realtime.Config){pools}, change...)...)
	t.Cleanup(w.stop)
	return w
}

// bothReal runs fn under both protocol versions over one database of its own.
func bothReal(t *testing.T, sql string, fn func(t *testing.T, w *world, v phoenix.Version), change ...func(*realtime.Config)) {
	t.Helper()
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(sql)
	for _, v := range []phoenix.Version{phoenix.V1, phoenix.V2} {
		t.Run(fmt.Sprintf("vsn=%d.0.0", v), func(t *testing.T) { fn(t, realWorld(t, db, change...), v) })
	}
}

// private is the payload of a join. Options are words: ack, self, presence.
func private(token string, options ...string) string {
	on := func(name string) bool { return strings.Contains(strings.Join(options, " "), name) }
	return fmt.Sprintf(`{"config":{"private":true,"broadcast":{"ack":%t,"self":%t},"presence":{"enabled":%t}},"access_token":%q}`,
		on("ack"), on("self"), on("presence"), token)
}

// expect reads as many messages as wanted and compares them.
func (c *client) expect(wants ...string) {
	c.t.Helper()
	var got []msg
	for range wants {
		got = append(got, c.next())
	}
	want(c.t, got, wants...)
}

const joinedReply = `phx_reply {"status":"ok","response":{"postgres_changes":[]}}`

// open joins and returns the join ref.
func (c *client) open(topic, payload string) string {
	c.t.Helper()
	ref := c.join(topic, payload)
	c.expect(joinedReply)
	return ref
}

// quiet fails the test if anything came but the answer to this heartbeat. What
// the topic's other members had sent before is in the queue by then.
func (c *client) quiet() {
	c.t.Helper()
	c.push(nil, "phoenix", "heartbeat", `{}`)
	c.expect(okReply)
}

// fence waits until the channel has acted on everything that was pushed: an
// empty presence push is answered, behind whatever waits for a check.
func (c *client) fence(topic string) {
	c.t.Helper()
	c.push(nil, topic, "presence", `{"type":"presence"}`)
	c.expect(okReply)
}

func (c *client) refresh(topic, token string) {
	c.t.Helper()
	c.push(nil, topic, "access_token", fmt.Sprintf(`{"access_token":%q}`, token))
}

func noRead(topic string) string {
	return "You do not have permissions to read from this Channel topic: " + topic
}

// next two messages: system error, then the end of the channel.
func (c *client) expectShutdown(text, topic string) {
	c.t.Helper()
	c.expect(system("system", "error", text, topic), `phx_close {}`)
}

// Members with read and write policies talk; who may only read hears them and
// reaches nobody; who may not read is refused with one reply.
// spec: realtime:78 realtime:81 realtime:82
func TestPrivateBroadcast(t *testing.T) {
	bothReal(t, openPolicies, func(t *testing.T, w *world, v phoenix.Version) {
		a, b, reader, stranger := w.connect(v), w.connect(v), w.connect(v), w.connect(v)
		join := a.open("realtime:room", private(may("b", "b"), "ack"))
		b.open("realtime:room", private(may("b", "b")))
		muzzled := reader.open("realtime:room", private(may("b", ""), "ack"))
		stranger.join("realtime:room", private(may("", "b")))
		stranger.expect(refusedReply("Unauthorized: " + noRead("room")))
		stranger.quiet()

		const payload = `{"type":"broadcast","event":"e","payload":{"n":1}}`
		a.push(join, "realtime:room", "broadcast", payload)
		a.expect(okReply)
		b.expect(`broadcast ` + payload)
		reader.expect(`broadcast ` + payload)

		for range 3 {
			reader.push(muzzled, "realtime:room", "broadcast", payload)
		}
		reader.fence("realtime:room") // no ack came before its reply
		for _, c := range []*client{a, b, stranger} {
			c.quiet()
		}
		if n := w.srv.Metrics().DroppedDenied.Load(); n != 3 {
			t.Errorf("%d counted as denied", n)
		}
	})
}

// Explain mode says once why what a channel sends reaches nobody; the log does so
// in any case.
func TestDeniedWriteIsExplained(t *testing.T) {
	for _, explain := range []bool{true, false} {
		t.Run(fmt.Sprintf("explain=%t", explain), func(t *testing.T) {
			bothReal(t, openPolicies, func(t *testing.T, w *world, v phoenix.Version) {
				c := w.connect(v)
				c.join("realtime:room", private(may("bp", ""), "presence"))
				c.expect(joinedReply, `presence_state {}`)
				explained := func(extension string) {
					if explain {
						c.expect(system("system", "warning", "Unauthorized: You do not have permissions to write to this Channel topic: room | "+
							"Add an INSERT policy on realtime.messages for this role and topic, for rows whose extension is '"+extension+"'.", "room"))
					}
				}
				for range 3 {
					c.push(nil, "realtime:room", "broadcast", `{}`)
				}
				explained("broadcast")
				c.fence("realtime:room")
				c.push(nil, "realtime:room", "presence", track(`{}`))
				c.expect(`phx_reply {"status":"error","response":{}}`)
				c.quiet()
				if w.logs.count("code=Unauthorized extension=broadcast") != 1 {
					t.Error("not logged once")
				}
			}, func(cfg *realtime.Config) { cfg.Explain = explain })
		})
	}
}

// A send, its leave right behind it: the message goes out before the channel ends.
func TestSendAndLeave(t *testing.T) {
	bothReal(t, openPolicies, func(t *testing.T, w *world, v phoenix.Version) {
		c, other := w.connect(v), w.connect(v)
		other.open("realtime:room", private(may("b", "")))
		join := c.open("realtime:room", private(may("b", "b"), "ack"))
		c.push(join, "realtime:room", "broadcast", `{"last":true}`)
		c.push(join, "realtime:room", "phx_leave", `{}`)
		c.expect(okReply, okReply, `phx_close {}`)
		other.expect(`broadcast {"last":true}`)
	})
}

// spec: realtime:79
func TestPrivateBinary(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(openPolicies)
	w := realWorld(t, db)
	c := w.connect(phoenix.V2)
	c.open("realtime:room1", private(may("b", "b"), "ack self"))
	c.binary([]byte("\x03\x01\x01\x0e\x03\x00\x0016realtime:room1bin\xde\xad"))
	c.expect(kind4("realtime:room1", "bin", 0, "\xde\xad"), okReply)
}

// A private topic and a public one of the same name, or of the name that the
// original gives it inside, never meet: broadcast, presence and HTTP alike.
// spec: realtime:80
func TestPrivateAndPublicNeverMeet(t *testing.T) {
	bothReal(t, openPolicies, func(t *testing.T, w *world, v phoenix.Version) {
		token := may("bp", "bp")
		inside, outside := w.connect(v), w.connect(v)
		in := inside.join("realtime:X", private(token, "ack presence"))
		inside.expect(joinedReply, `presence_state {}`)
		for _, name := range []string{"realtime:X", "realtime:private:X", "realtime:-private:X"} {
			outside.open(name, `{"config":{"broadcast":{"ack":true}}}`)
		}
		inside.push(in, "realtime:X", "broadcast", `{"secret":true}`)
		inside.expect(okReply)
		inside.push(in, "realtime:X", "presence", track(`{"secret":true}`))
		replies, rest := split([]msg{inside.next(), inside.next()})
		if len(replies) != 1 || len(rest) != 1 {
			t.Fatalf("track: %v %v", replies, rest)
		}
		claims, err := fakeTokens{}.Verify(token)
		if err != nil {
			t.Fatal(err)
		}
		if rec := w.post(&sluice.Identity{Claims: claims}, "/api/broadcast/X/events/e?private=true", "application/json", `{"secret":true}`); rec.Code != 202 {
			t.Errorf("answer is %d %s", rec.Code, rec.Body)
		}
		inside.next()
		outside.quiet()
		for _, name := range []string{"realtime:X", "realtime:private:X", "realtime:-private:X"} {
			outside.push(nil, name, "broadcast", `{"public":true}`)
			outside.expect(okReply)
			outside.push(nil, name, "presence", track(`{"public":true}`))
			outside.next()
			outside.next()
		}
		inside.quiet()
	})
}

// counted counts how often the write policy is evaluated, by extension;
// sequences stay when the probe is rolled back.
const counted = `
create sequence public.asked_broadcast; create sequence public.asked_presence;
create function public.counted(extension text) returns boolean language plpgsql security definer as $$
begin return nextval(('public.asked_' || extension)::regclass) > 0; end $$;
create policy may_read on realtime.messages for select to authenticated using (true);
create policy may_write on realtime.messages for insert to authenticated with check (public.counted(extension) and (auth.jwt() -> 'write') ? extension);`

// The write policy is evaluated once for all sends and tracks of a channel,
// whether it allows them or not, and never for a public one.
// spec: realtime:83 realtime:84 realtime:117
func TestWritePolicyIsAskedOnce(t *testing.T) {
	t.Parallel()
	asked := func(db *pgtest.DB, extension string) (n int) {
		if err := db.Admin().QueryRow(t.Context(), `select case when is_called then last_value else 0 end from public.asked_`+extension).Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for _, v := range []phoenix.Version{phoenix.V1, phoenix.V2} {
		for _, write := range []string{"bp", ""} {
			t.Run(fmt.Sprintf("vsn=%d.0.0 write=%q", v, write), func(t *testing.T) {
				t.Parallel()
				db := pgtest.New(t)
				db.Exec(counted)
				w := realWorld(t, db, generous)
				c := w.connect(v)
				c.open("realtime:room", private(may("bp", write)))
				if n := asked(db, "broadcast") + asked(db, "presence"); n != 0 {
					t.Fatalf("asked %d times at the join", n)
				}
				for range 100 {
					c.push(nil, "realtime:room", "broadcast", `{}`)
				}
				c.fence("realtime:room")
				if b, p := asked(db, "broadcast"), asked(db, "presence"); b != 1 || p != 0 {
					t.Errorf("asked %d and %d times for 100 broadcasts", b, p)
				}
				if n := w.srv.Metrics().Broadcasts.Load(); n != int64(50*len(write)) {
					t.Errorf("%d sends went out", n)
				}
				if n := w.metric("limit_counted_total", "events"); n != float64(50*len(write)) {
					t.Errorf("%v sends counted as events", n)
				}

				c.push(nil, "realtime:room", "presence", track(`{"n":-1}`))
				for c.next().Event != "phx_reply" {
				}
				if b, p := asked(db, "broadcast"), asked(db, "presence"); b != 1 || p != 1 {
					t.Errorf("asked %d and %d times when a track followed", b, p)
				}

				public := w.connect(v)
				public.open("realtime:room", emptyJoin)
				join := c.join("realtime:tracked", private(may("bp", write), "presence"))
				c.expect(joinedReply, `presence_state {}`)
				for i := range 300 {
					c.push(join, "realtime:tracked", "presence", track(fmt.Sprintf(`{"n":%d}`, i)))
					public.push(nil, "realtime:room", "presence", track(fmt.Sprintf(`{"n":%d}`, i)))
				}
				status := okReply
				if write == "" {
					status = `phx_reply {"status":"error","response":{}}`
				}
				for n := 0; n < 300; {
					if m := c.next(); m.Event == "phx_reply" {
						n++
						want(t, []msg{m}, status)
					}
				}
				for n := 0; n < 300; {
					if m := public.next(); m.Event == "phx_reply" {
						n++
						want(t, []msg{m}, okReply)
					}
				}
				if b, p := asked(db, "broadcast"), asked(db, "presence"); b != 2 || p != 2 {
					t.Errorf("asked %d and %d times for two channels and 300 tracks", b, p)
				}
			})
		}
	}
}

// Members who may not read broadcasts get neither text nor binary ones, but do
// get what the server itself has to say.
// spec: realtime:89
func TestDeafMember(t *testing.T) {
	bothReal(t, openPolicies, func(t *testing.T, w *world, v phoenix.Version) {
		speaker, deaf := w.connect(phoenix.V2), w.connect(v)
		speaker.open("realtime:room1", private(may("b", "b"), "ack"))
		deaf.join("realtime:room1", private(may("p", "b"), "presence ack"))
		deaf.expect(joinedReply, `presence_state {}`)
		speaker.push(nil, "realtime:room1", "broadcast", `{"event":"text"}`)
		speaker.expect(okReply)
		speaker.binary([]byte("\x03\x01\x01\x0e\x03\x00\x0016realtime:room1bin\xde\xad"))
		speaker.expect(okReply)
		speaker.binary([]byte("\x03\x01\x01\x0e\x03\x00\x0116realtime:room1bin{}"))
		speaker.expect(okReply)
		deaf.quiet()
		deaf.push(nil, "realtime:room1", "broadcast", `{"event":"may write, though"}`)
		deaf.expect(okReply)
		speaker.expect(`broadcast {"event":"may write, though"}`)
		deaf.refresh("realtime:room1", may("", ""))
		deaf.expectShutdown(noRead("room1"), "room1")
	})
}

// spec: realtime:120
func TestPrivateOnly(t *testing.T) {
	bothReal(t, openPolicies, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		c.join("realtime:room", emptyJoin)
		c.expect(refusedReply("PrivateOnly: This project only allows private channels"))
		c.open("realtime:room", private(may("b", "")))
		rec := w.post(&anon, batchPath, "application/json", `{"messages":[{"topic":"room","event":"e","payload":{}}]}`)
		if rec.Code != 202 {
			t.Errorf("public broadcast over HTTP: %d %s", rec.Code, rec.Body)
		}
		c.quiet()
	}, func(cfg *realtime.Config) { cfg.PrivateOnly = true })
}

// Policies see role and sub, by the helpers and by the old settings, the topic
// and the handshake's headers; a role unknown to PostgreSQL, or one that users
// may not become, is refused.
// spec: realtime:121
func TestPoliciesSeeTheUser(t *testing.T) {
	bothReal(t, `
create policy owner on realtime.messages for select to authenticated using (
  realtime.topic() = 'user:' || auth.uid() and auth.role() = 'authenticated' and auth.jwt() ->> 'sub' = auth.uid()::text
  and current_setting('request.jwt.claim.sub') = auth.uid()::text and current_setting('request.jwt.claim.role') = 'authenticated'
  and current_setting('request.headers')::jsonb = '{}' and event is null and payload is null and not private);
create policy lobby on realtime.messages for select to anon using (realtime.topic() = 'lobby');`,
		func(t *testing.T, w *world, v phoenix.Version) {
			const me = "user:00000000-0000-4000-8000-00000000000a"
			for _, tt := range []struct {
				role, topic string
				ok          bool
			}{
				{"authenticated", me, true},
				{"authenticated", "user:00000000-0000-4000-8000-00000000000b", false},
				{"authenticated", "lobby", false},
				{"anon", me, false},
				{"anon", "lobby", true},
				{"service_role", "anything", true},
				{"nobody", "lobby", false},
				{"postgres", "lobby", false},
				{"none", "lobby", false},
				{"authenticator", "lobby", false},
				{"anon", "lobby\x00", false},
			} {
				c := w.connect(v)
				c.join("realtime:"+tt.topic, private(mayAs(tt.role, "", "")))
				if tt.ok {
					c.expect(joinedReply)
					c.push(nil, "realtime:"+tt.topic, "broadcast", `{}`)
					c.fence("realtime:" + tt.topic)
					continue
				}
				m := c.next()
				if reason := string(m.Payload); !strings.Contains(reason, `"Unauthorized: You do not have permissions`) {
					t.Errorf("%s on %s: %s", tt.role, tt.topic, reason)
				}
				c.quiet()
			}
			if n := w.srv.Metrics().Broadcasts.Load(); n != 1 {
				t.Errorf("%d could send, only service_role may", n)
			}
		})
}

// A policy that raises an error is a no, for the user who raises it alone.
// spec: realtime:122 pgchanges:138
func TestRaisingPolicy(t *testing.T) {
	bothReal(t, openPolicies+`
create function public.boom() returns boolean language plpgsql as $$ begin raise exception 'secret detail'; end $$;
create policy boom on realtime.messages as restrictive for select using (auth.jwt() ->> 'role' <> 'service_role' and (realtime.topic() <> 'boom' or public.boom()));`,
		func(t *testing.T, w *world, v phoenix.Version) {
			c := w.connect(v)
			c.join("realtime:boom", private(may("b", "b")))
			c.expect(refusedReply("Unauthorized: " + noRead("boom")))
			c.quiet()
			if n := w.logs.count("code=RlsPolicyError"); n != 1 {
				t.Errorf("RlsPolicyError is logged %d times", n)
			}
			c.open("realtime:calm", private(may("b", "b")))
		})
}

// Read and write are asked one by one for each extension; presence is left out
// as long as nobody wants it, and counts as not allowed.
// spec: realtime:123 pgchanges:135
func TestPresenceIsNotAskedUnlessEnabled(t *testing.T) {
	bothReal(t, openPolicies+`
create function public.boom() returns boolean language plpgsql as $$ begin raise exception 'asked about presence'; end $$;
create policy boom on realtime.messages as restrictive using (extension <> 'presence' or realtime.topic() <> 'boom' or public.boom());`,
		func(t *testing.T, w *world, v phoenix.Version) {
			c, other := w.connect(v), w.connect(v)
			c.open("realtime:boom", private(may("b", "b"), "ack"))
			c.push(nil, "realtime:boom", "broadcast", `{}`)
			c.expect(okReply)
			// A presence-only reader is not let in without presence.
			c.join("realtime:room", private(may("p", "p")))
			c.expect(refusedReply("Unauthorized: " + noRead("room")))
			c.join("realtime:boom", private(may("b", "b"), "presence"))
			c.expect(refusedReply("Unauthorized: "+noRead("boom")), `phx_close {}`)
			// Without presence, no diffs; but see TestAutoEnabledPresence.
			c.open("realtime:room", private(may("bp", "")))
			other.join("realtime:room", private(may("bp", "p"), "presence"))
			other.expect(joinedReply, `presence_state {}`)
			other.push(nil, "realtime:room", "presence", track(`{"a":1}`))
			other.next()
			other.next()
			c.quiet()
			for _, write := range []string{"b", "p"} {
				topic := "realtime:" + write
				c.join(topic, private(may("bp", write), "presence ack"))
				c.expect(joinedReply, `presence_state {}`)
				c.push(nil, topic, "broadcast", `{}`)
				c.push(nil, topic, "presence", track(`{"a":1}`))
				if write == "b" {
					c.expect(okReply, `phx_reply {"status":"error","response":{}}`)
				} else if replies, rest := split([]msg{c.next(), c.next()}); len(replies) != 1 || len(rest) != 1 {
					t.Errorf("presence alone: %v %v", replies, rest)
				}
				c.quiet()
			}
		})
}

// spec: realtime:124 pgchanges:136
func TestProbesLeaveNothing(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(openPolicies)
	db.Exec(`create publication all_of_it for table realtime.messages`)
	db.Exec(`select pg_create_logical_replication_slot('probes', 'pgoutput')`)
	w := realWorld(t, db)
	c := w.connect(phoenix.V2)
	for i := range 5 {
		topic := fmt.Sprintf("realtime:%d", i)
		c.join(topic, private(may("bp", "bp"), "presence ack"))
		c.expect(joinedReply, `presence_state {}`)
		c.push(nil, topic, "broadcast", `{}`)
		c.expect(okReply)
	}
	db.Exec(`insert into realtime.messages (topic, extension) values ('kept', 'broadcast')`)
	var rows, replicated int
	err := db.Admin().QueryRow(t.Context(), `select (select count(*) from realtime.messages),
		(select count(*) from pg_logical_slot_get_binary_changes('probes', null, null, 'proto_version', '1', 'publication_names', 'all_of_it') where get_byte(data, 0) = ascii('I'))`).Scan(&rows, &replicated)
	if err != nil || rows != 1 || replicated != 1 {
		t.Errorf("%d rows, %d replicated, %v; want the one that is no probe", rows, replicated, err)
	}
}
