package realtime_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sluice-dev/sluice/realtime"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

type metas struct{ Metas []map[string]any }

type diff struct{ Joins, Leaves map[string]metas }

// diffOf reads a presence_diff.
func diffOf(t testing.TB, m msg) diff {
	t.Helper()
	var d diff
	if m.Event != "presence_diff" || json.Unmarshal(m.Payload, &d) != nil || d.Joins == nil || d.Leaves == nil {
		t.Fatalf("not a presence_diff: %v", m)
	}
	return d
}

func stateOf(t testing.TB, m msg) map[string]metas {
	t.Helper()
	var s map[string]metas
	if m.Event != "presence_state" || json.Unmarshal(m.Payload, &s) != nil {
		t.Fatalf("not a presence_state: %v", m)
	}
	return s
}

func presenceJoin(key string) string {
	return fmt.Sprintf(`{"config":{"presence":{"key":%q,"enabled":true}}}`, key)
}

func track(payload string) string {
	return `{"type":"presence","event":"track","payload":` + payload + `}`
}

const untrack = `{"type":"presence","event":"untrack"}`

// split tells replies from the rest: reply and own diff may come in any order.
func split(got []msg) (replies, rest []msg) {
	for _, m := range got {
		if m.Event == "phx_reply" {
			replies = append(replies, m)
		} else {
			rest = append(rest, m)
		}
	}
	return replies, rest
}

func generous(cfg *realtime.Config) { cfg.MaxPresenceCalls = 1000 }

// spec: realtime:101
func TestPresenceState(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		a, b, off := w.connect(v), w.connect(v), w.connect(v)
		join, rest := a.joined("realtime:r", presenceJoin("ka"))
		want(t, rest, `presence_state {}`)
		if v == phoenix.V2 && rest[0].JoinRef != join || rest[0].Ref != nil {
			t.Errorf("refs of %v", rest[0])
		}
		a.push(join, "realtime:r", "presence", track(`{"user":"a"}`))
		_, own := split(a.got())
		ref := diffOf(t, own[0]).Joins["ka"].Metas[0]["phx_ref"]
		_, rest = b.joined("realtime:r", presenceJoin("kb"))
		state := stateOf(t, rest[0])
		if len(state) != 1 || len(state["ka"].Metas) != 1 || state["ka"].Metas[0]["user"] != "a" || state["ka"].Metas[0]["phx_ref"] != ref {
			t.Errorf("state is %v, want the ref %v of the diff", state, ref)
		}
		_, rest = off.joined("realtime:r", emptyJoin)
		want(t, rest)
	})
}

// spec: realtime:103
func TestTrack(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		a, b := w.connect(v), w.connect(v)
		join, _ := a.joined("realtime:r", presenceJoin("ka"))
		b.joined("realtime:r", emptyJoin) // public members get diffs in any case
		a.push(join, "realtime:r", "presence", track(`{"f":1.5,"phx_ref":"mine","phx_ref_prev":"x","n":{"m":[1]}}`))
		replies, own := split(a.got())
		want(t, replies, okReply)
		others := b.got()
		for _, got := range [][]msg{own, others} {
			if len(got) != 1 || got[0].Ref != nil || got[0].JoinRef != nil {
				t.Fatalf("got %v", got)
			}
			d := diffOf(t, got[0])
			if len(d.Joins) != 1 || len(d.Leaves) != 0 {
				t.Fatalf("diff is %v", d)
			}
			m := d.Joins["ka"].Metas[0]
			if m["f"] != 1.5 || fmt.Sprint(m["n"]) != "map[m:[1]]" || len(m["phx_ref"].(string)) != 16 || m["phx_ref_prev"] != nil {
				t.Errorf("meta is %v", m)
			}
			if strings.Count(string(got[0].Payload), "phx_ref") != 1 {
				t.Errorf("phx_ref is not overwritten: %s", got[0].Payload)
			}
		}
	})
}

// spec: realtime:104 realtime:105
func TestTrackAgain(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		a := w.connect(v)
		join, _ := a.joined("realtime:r", presenceJoin("ka"))
		do := func(payload string) []msg {
			a.push(join, "realtime:r", "presence", payload)
			replies, rest := split(a.got())
			want(t, replies, okReply)
			return rest
		}
		first := diffOf(t, do(track(`{"a":1,"b":2}`))[0]).Joins["ka"].Metas[0]["phx_ref"]
		want(t, do(track(`{"b":2,"a":1}`))) // the same: no diff
		got := do(track(`{"a":2}`))
		if len(got) != 1 {
			t.Fatalf("an update gives %v", got)
		}
		d := diffOf(t, got[0])
		joined, left := d.Joins["ka"].Metas, d.Leaves["ka"].Metas
		if len(joined) != 1 || len(left) != 1 || joined[0]["phx_ref_prev"] != first || left[0]["phx_ref"] != first || joined[0]["phx_ref"] == first || left[0]["a"] != 1.0 {
			t.Errorf("update is %v", d)
		}
		second := joined[0]["phx_ref"]
		d = diffOf(t, do(untrack)[0])
		if len(d.Joins) != 0 || d.Leaves["ka"].Metas[0]["phx_ref"] != second {
			t.Errorf("untrack gives %v", d)
		}
		want(t, do(untrack))
		d = diffOf(t, do(track(`{"a":2}`))[0])
		if len(d.Leaves) != 0 || len(d.Joins) != 1 {
			t.Errorf("tracking again gives %v", d)
		}
	}, generous)
}

// spec: realtime:106 realtime:107
func TestTrackEnablesPresence(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		a := w.connect(v)
		join, _ := a.joined("realtime:r", emptyJoin)
		a.push(join, "realtime:r", "presence", untrack)
		want(t, a.got(), okReply)
		a.push(join, "realtime:r", "presence", `{"event":"TRACK"}`) // an older client
		replies, rest := split(a.got())
		want(t, replies, okReply)
		if len(rest) != 1 || len(diffOf(t, rest[0]).Joins) != 1 { // and no presence_state
			t.Errorf("got %v", rest)
		}
		for key := range diffOf(t, rest[0]).Joins {
			if len(key) != 36 {
				t.Errorf("key is %q, not a UUID", key)
			}
		}
		a.push(join, "realtime:r", "presence", `{"type":"presence"}`) // no event: accepted, ignored
		want(t, a.got(), okReply)
	})
}

// spec: realtime:39
func TestPresenceKeys(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		for i, tt := range []struct{ key, want string }{
			{`"k"`, "k"}, {`7`, "7"}, {`-1.5`, "-1.5"}, {`""`, ""}, {`null`, ""}, {`"ids"`, ""}, {`{}`, ""}, {`"q\"\u00e9"`, `q"é`},
		} {
			topic := fmt.Sprint("realtime:", i)
			join, _ := c.joined(topic, `{"config":{"presence":{"key":`+tt.key+`}}}`)
			c.push(join, topic, "presence", track(`{}`))
			_, rest := split(c.got())
			for key := range diffOf(t, rest[0]).Joins {
				if key != tt.want && (tt.want != "" || len(key) != 36) {
					t.Errorf("key %s became %q", tt.key, key)
				}
			}
		}
	})
}

// spec: realtime:108 realtime:109
func TestBadPresence(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		join, _ := c.joined("realtime:r", presenceJoin("k"))
		c.push(join, "realtime:r", "presence", `{"event":"other"}`)
		want(t, c.got(), `phx_reply {"status":"error","response":{}}`)
		if w.logs.count("UnknownPresenceEvent") != 1 {
			t.Error("not logged")
		}
		for _, bad := range []string{`"x"`, `[]`, `null`} {
			c.push(join, "realtime:r", "presence", track(bad))
			want(t, c.got(), `phx_reply {"status":"error","response":{"reason":"Presence track payload must be a map"}}`)
		}
		c.push(join, "realtime:r", "presence", track(`{}`))
		replies, rest := split(c.got())
		want(t, replies, okReply)
		if len(rest) != 1 {
			t.Error("the channel is not usable afterwards")
		}
	})
}

// spec: realtime:110
func TestOversizeTrack(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		join, _ := c.joined("realtime:r", presenceJoin("k"))
		c.push(join, "realtime:r", "presence", track(`{"x":"`+strings.Repeat("x", 1600)+`"}`))
		want(t, c.got(), system("system", "error", "Track message size exceeded", "r"), `phx_close {}`)
	}, func(cfg *realtime.Config) { cfg.MaxPayloadKB = 1 })
}

// spec: realtime:111
func TestPresenceRate(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c, other := w.connect(v), w.connect(v)
		join, _ := c.joined("realtime:r", presenceJoin("k"))
		second, _ := other.joined("realtime:r", presenceJoin("l"))
		five := func() {
			for i := range 5 {
				c.push(join, "realtime:r", "presence", track(fmt.Sprintf(`{"n":%d}`, i)))
			}
			replies, rest := split(c.got())
			if len(replies) != 5 || rest[len(rest)-1].Event == "phx_close" {
				t.Fatalf("got %v %v", replies, rest)
			}
		}
		five()
		time.Sleep(31 * time.Second)
		c.push(nil, "phoenix", "heartbeat", `{}`)
		other.push(nil, "phoenix", "heartbeat", `{}`)
		c.got()
		five()
		other.push(second, "realtime:r", "presence", track(`{}`)) // counts for itself
		c.got()
		c.push(join, "realtime:r", "presence", untrack)
		got := c.got()
		want(t, got, system("system", "error", "Client presence rate limit exceeded", "r"), `phx_close {}`)
		rest := other.got()
		if d := diffOf(t, rest[len(rest)-1]); len(d.Leaves["k"].Metas) != 1 {
			t.Error("the presence of the closed channel stays")
		}
	})
}

// Presence leaves with its channel, whatever ends it.
func TestPresenceLeaves(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		watcher := w.connect(v)
		watcher.joined("realtime:r", presenceJoin("watcher"))
		for name, end := range map[string]func(c *client, join string){
			"leave":         func(c *client, join string) { c.push(join, "realtime:r", "phx_leave", `{}`) },
			"rejoin":        func(c *client, _ string) { c.join("realtime:r", presenceJoin("k2")) },
			"failed rejoin": func(c *client, _ string) { c.join("realtime:r", withToken("access_token", "garbage")) },
			"bad token":     func(c *client, join string) { c.push(join, "realtime:r", "access_token", tokenPush("garbage")) },
			"socket cut":    func(c *client, _ string) { c.nc.Close() },
			"close frame":   func(c *client, _ string) { c.raw(closeFrame(1001)) },
			"bad frame":     func(c *client, _ string) { c.nc.Write([]byte{0x81, 0x01, 0x78}) },
		} {
			c := w.connect(v)
			join, _ := c.joined("realtime:r", presenceJoin("k"))
			c.push(join, "realtime:r", "presence", track(`{"n":1}`))
			c.got()
			watcher.got()
			end(c, join)
			got := watcher.got()
			if len(got) != 1 {
				t.Errorf("%s: watcher got %v", name, got)
				continue
			}
			d := diffOf(t, got[0])
			if len(d.Joins) != 0 || len(d.Leaves["k"].Metas) != 1 || d.Leaves["k"].Metas[0]["n"] != 1.0 {
				t.Errorf("%s: diff is %v", name, d)
			}
			c.nc.Close()
			watcher.got()
		}
	})
}

// One key from several channels has several metas, and loses them one by one.
func TestPresenceOfManyChannels(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		var all []*client
		for i := range 3 {
			c := w.connect(v)
			join, _ := c.joined("realtime:r", presenceJoin("same"))
			c.push(join, "realtime:r", "presence", track(fmt.Sprintf(`{"n":%d}`, i)))
			c.got()
			all = append(all, c)
		}
		all[1].nc.Close()
		synctest.Wait()
		watcher := w.connect(v)
		_, rest := watcher.joined("realtime:r", presenceJoin("w"))
		state := stateOf(t, rest[0])
		if m := state["same"].Metas; len(m) != 2 || m[0]["n"] != 0.0 || m[1]["n"] != 2.0 {
			t.Errorf("state is %v", state)
		}
	})
}
