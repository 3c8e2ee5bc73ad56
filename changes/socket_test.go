package changes_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/cluster"
	"github.com/sluice-dev/sluice/realtime"
)

// noTokens refuses every token: these tests act as their key's role.
type noTokens struct{}

func (noTokens) Verify(string) (sluice.Claims, error) {
	return sluice.Claims{}, sluice.Refuse(sluice.CodeMalformedJWT)
}

// socket is a client of one protocol version.
type socket struct {
	t   *testing.T
	nc  net.Conn
	vsn string
}

// serveSockets puts a realtime server before f and returns its address.
func serveSockets(t *testing.T, f *feed) string {
	t.Helper()
	var srv *realtime.Server
	srv, err := realtime.New(realtime.Config{
		Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Tokens: noTokens{}, Feed: f,
		Bus: cluster.NewLocal(cluster.Handlers{Broadcast: func(b *sluice.Broadcast) { srv.Deliver(b) }}),
	})
	if err != nil {
		t.Fatal(err)
	}
	anon := sluice.Identity{Claims: claimsOf("anon", ""), KeyClaims: claimsOf("anon", ""), Key: sluice.KeyPublishable, KeyPlace: "query"}
	h := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		srv.ServeHTTP(w, r.WithContext(sluice.WithIdentity(r.Context(), anon)))
	}))
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	ended.Go(func() {
		if err := srv.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() { cancel(); ended.Wait(); h.Close() })
	return strings.TrimPrefix(h.URL, "http")
}

func dial(t *testing.T, addr, vsn string) *socket {
	t.Helper()
	nc, _, _, err := ws.Dial(t.Context(), "ws"+addr+"/websocket?vsn="+vsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	return &socket{t, nc, vsn}
}

func (s *socket) send(ref, topic, event, payload string) {
	s.t.Helper()
	text := fmt.Sprintf(`[%q,%q,%q,%q,%s]`, ref, ref, topic, event, payload)
	if s.vsn == "1.0.0" {
		text = fmt.Sprintf(`{"join_ref":%q,"ref":%q,"topic":%q,"event":%q,"payload":%s}`, ref, ref, topic, event, payload)
	}
	if err := wsutil.WriteClientText(s.nc, []byte(text)); err != nil {
		s.t.Fatal(err)
	}
}

// next returns the next message but presence's: topic, event, ref and payload.
func (s *socket) next() (topic, event string, ref any, payload string) {
	s.t.Helper()
	if err := s.nc.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		s.t.Fatal(err)
	}
	text, err := wsutil.ReadServerText(s.nc)
	if err != nil {
		s.t.Fatal(err)
	}
	var m struct {
		Topic, Event string
		Ref          any
		Payload      json.RawMessage
	}
	if s.vsn == "1.0.0" {
		err = json.Unmarshal(text, &m)
	} else {
		var join any
		err = json.Unmarshal(text, &[]any{&join, &m.Ref, &m.Topic, &m.Event, &m.Payload})
	}
	if err != nil {
		s.t.Fatalf("%v: %s", err, text)
	}
	if m.Event == "presence_state" {
		return s.next()
	}
	return m.Topic, m.Event, m.Ref, string(m.Payload)
}

func (s *socket) want(topic, event, payload string) {
	s.t.Helper()
	gotTopic, gotEvent, _, got := s.next()
	if d := cmp.Diff([]string{topic, event, payload}, []string{gotTopic, gotEvent, got}); d != "" {
		s.t.Error(d)
	}
}

// From a join to a change, through slot and socket, by both serializers.
// spec: pgchanges:19 pgchanges:21 pgchanges:84 pgchanges:85 pgchanges:86
func TestSocket(t *testing.T) {
	t.Parallel()
	f := published(t, "create table public.t (id int primary key); create table public.u (id int primary key)")
	addr := serveSockets(t, f)
	for i, vsn := range []string{"1.0.0", "2.0.0"} {
		s := dial(t, addr, vsn)
		s.send("1", "realtime:any", "phx_join", `{"config":{"postgres_changes":[{"event":"INSERT","schema":"public","table":"t"},null,{"event":"DELETE","table":"t","x":1}]}}`)
		_, _, ref, reply := s.next()
		var r struct {
			Status   string
			Response struct {
				Changes []struct {
					ID                   int64
					Event, Schema, Table string
					X                    int
				} `json:"postgres_changes"`
			}
		}
		if err := json.Unmarshal([]byte(reply), &r); err != nil || r.Status != "ok" || ref != "1" || len(r.Response.Changes) != 2 {
			t.Fatalf("vsn %s: reply %v %s (%v)", vsn, ref, reply, err)
		}
		insert, del := r.Response.Changes[0], r.Response.Changes[1]
		if insert.ID == 0 || del.ID == 0 || insert.ID == del.ID || insert.Event != "INSERT" || del.Event != "DELETE" || del.Schema != "" || del.X != 1 {
			t.Errorf("vsn %s: echo %s", vsn, reply)
		}
		s.want("realtime:any", "system", `{"extension":"postgres_changes","status":"ok","message":"Subscribed to PostgreSQL","channel":"any"}`)
		f.db.Exec("insert into public.t values ($1)", i)
		topic, event, ref, payload := s.next()
		var p struct {
			IDs  []int64
			Data json.RawMessage
		}
		if err := json.Unmarshal([]byte(payload), &p); err != nil || topic != "realtime:any" || event != "postgres_changes" || ref != nil {
			t.Fatalf("vsn %s: %s %s %v %s (%v)", vsn, topic, event, ref, payload, err)
		}
		if d := cmp.Diff([]int64{insert.ID}, p.IDs); d != "" || keys(t, payload) != "data ids" || strings.Contains(string(p.Data), `"ids"`) {
			t.Errorf("vsn %s: %s", vsn, payload)
		}

		// A list of nothing is no subscription.
		s.send("2", "realtime:none", "phx_join", `{"config":{"postgres_changes":[null]}}`)
		s.want("realtime:none", "phx_reply", `{"status":"ok","response":{"postgres_changes":[]}}`)
		s.send("3", "phoenix", "heartbeat", `{}`)
		s.want("phoenix", "phx_reply", `{"status":"ok","response":{}}`)
	}
}

// Joins without config: the topic is the subscription, and events have the
// action's name and the bare body.
// spec: pgchanges:93
func TestLegacySocket(t *testing.T) {
	t.Parallel()
	f := published(t, "create table public.t (id int primary key, a text)")
	s := dial(t, serveSockets(t, f), "1.0.0")
	s.send("1", "realtime:public:t:a=eq.x", "phx_join", `{}`)
	if _, event, _, payload := s.next(); event != "phx_reply" || !strings.Contains(payload, `"status":"ok"`) {
		t.Fatalf("%s %s", event, payload)
	}
	for event := ""; event != "system"; {
		_, event, _, _ = s.next()
	}
	f.db.Exec("insert into public.t values (1, 'y'), (2, 'x')")
	topic, event, _, payload := s.next()
	if topic != "realtime:public:t:a=eq.x" || event != "INSERT" || keys(t, payload) != "columns commit_timestamp errors record schema table type" {
		t.Errorf("%s %s %s", topic, event, payload)
	}
}

// What is not published: the join succeeds, a system message tells, once.
// spec: pgchanges:87 pgchanges:88
func TestSocketNotPublished(t *testing.T) {
	t.Parallel()
	f := published(t, "create table public.t (id int primary key); create table public.hidden (id int primary key)")
	s := dial(t, serveSockets(t, f), "2.0.0")
	const text = "Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the given connect parameters: "
	refused := func(ref, entry, rendered string) {
		t.Helper()
		s.send(ref, "realtime:any", "phx_join", `{"config":{"postgres_changes":[`+entry+`]}}`)
		if _, event, _, payload := s.next(); event != "phx_reply" || !strings.Contains(payload, `"status":"ok"`) || !strings.Contains(payload, `"id":`) {
			t.Errorf("%s: %s %s", entry, event, payload)
		}
		b, _ := json.Marshal(text + rendered)
		s.want("realtime:any", "system", `{"extension":"postgres_changes","status":"error","message":`+string(b)+`,"channel":"any"}`)
		s.send("0", "phoenix", "heartbeat", `{}`)
		s.want("phoenix", "phx_reply", `{"status":"ok","response":{}}`)
		s.send(ref, "realtime:any", "phx_leave", `{}`)
		s.next() // the reply
		s.next() // phx_close
	}
	refused("1", `{"event":"*","schema":"public","table":"hidden"}`, "[event: *, schema: public, table: hidden, filters: [], select: nil]")
	refused("2", `{"event":"*","schema":"public","table":"missing"}`, "[event: *, schema: public, table: missing, filters: [], select: nil]")
	f.db.Exec("drop publication supabase_realtime")
	refused("3", `{"event":"INSERT","schema":"public"}`, "[event: INSERT, schema: public, table: *, filters: [], select: nil]")
}

// change reads messages until a row change and returns its data.
func (s *socket) change() (data struct {
	Type              string
	Columns           []struct{ Name string }
	Record, OldRecord map[string]any
},
) {
	s.t.Helper()
	for {
		_, event, _, payload := s.next()
		if event != "postgres_changes" {
			continue
		}
		var p struct{ Data json.RawMessage }
		if err := json.Unmarshal([]byte(payload), &p); err != nil {
			s.t.Fatal(err)
		}
		// old_record is not Go's OldRecord.
		if err := json.Unmarshal(bytes.ReplaceAll(p.Data, []byte(`"old_record"`), []byte(`"OldRecord"`)), &data); err != nil {
			s.t.Fatal(err)
		}
		return data
	}
}

// select and bytea, as both serializers carry them.
// spec: realtime:144 realtime:145
func TestSocketSelection(t *testing.T) {
	t.Parallel()
	f := published(t, "create table public.t (id int primary key, a text, b text, raw bytea); alter table public.t replica identity full")
	addr := serveSockets(t, f)
	for i, vsn := range []string{"1.0.0", "2.0.0"} {
		some, all := dial(t, addr, vsn), dial(t, addr, vsn)
		some.send("1", "realtime:some", "phx_join", `{"config":{"postgres_changes":[{"event":"*","schema":"public","table":"t","select":["a"]}]}}`)
		all.send("1", "realtime:all", "phx_join", `{"config":{"postgres_changes":[{"event":"*","schema":"public","table":"t"}]}}`)
		for _, s := range []*socket{some, all} {
			for event := ""; event != "system"; {
				_, event, _, _ = s.next()
			}
		}
		f.db.Exec(`insert into public.t values ($1, 'a', 'b', '\x0102ff')`, i)
		f.db.Exec("update public.t set b = 'c' where id = $1", i)
		id := float64(i)
		for _, kind := range []string{"INSERT", "UPDATE"} {
			got := some.change()
			if d := cmp.Diff(map[string]any{"id": id, "a": "a"}, got.Record); d != "" || got.Type != kind || len(got.Columns) != 2 {
				t.Errorf("vsn %s, selected: %s %v %s", vsn, got.Type, got.Columns, d)
			}
			if d := cmp.Diff(map[string]any{"id": id, "a": "a"}, got.OldRecord); kind == "UPDATE" && d != "" {
				t.Errorf("vsn %s, selected of the old row: %s", vsn, d)
			}
			got = all.change()
			if len(got.Record) != 4 || len(got.Columns) != 4 || got.Record["raw"] != "0102ff" {
				t.Errorf("vsn %s, whole: %v %v", vsn, got.Columns, got.Record)
			}
		}
	}
}

// Every operator through the socket, negated, two at once, and on deletes.
// spec: realtime:146
func TestSocketFilters(t *testing.T) {
	t.Parallel()
	f := published(t, "create table public.t (id int primary key, a text, n int); alter table public.t replica identity full")
	addr := serveSockets(t, f)
	for _, vsn := range []string{"1.0.0", "2.0.0"} {
		for i, filter := range []string{
			"a=eq.Yes", "a=neq.other", "n=lt.6", "n=lte.5", "n=gt.4", "n=gte.5", "a=in.(Yes,x)", "a=like.Y%", "a=ilike.yE%", "n=not.is.null",
			"a=match.^Y", "a=imatch.^y", "a=isdistinct.other", "a=not.eq.other", "a=eq.Yes,n=gt.4",
		} {
			s := dial(t, addr, vsn)
			s.send("1", "realtime:f", "phx_join", fmt.Sprintf(`{"config":{"postgres_changes":[{"event":"*","schema":"public","table":"t","filter":%q}]}}`, filter))
			for event := ""; event != "system"; {
				var payload string
				if _, event, _, payload = s.next(); event == "system" && !strings.Contains(payload, `"status":"ok"`) {
					t.Errorf("%s: %s", filter, payload)
				}
			}
			other := "'other', 9"
			if strings.HasPrefix(filter, "n=g") {
				other = "'other', 1"
			} else if strings.HasPrefix(filter, "n=not") {
				other = "'other', null"
			}
			f.db.Exec("insert into public.t values (1, " + other + "), (2, 'Yes', 5)")
			f.db.Exec("delete from public.t")
			if got := s.change(); got.Type != "INSERT" || got.Record["id"] != 2.0 {
				t.Errorf("vsn %s, %s (%d): %s %v", vsn, filter, i, got.Type, got.Record)
			}
			if got := s.change(); got.Type != "DELETE" || got.OldRecord["id"] != 2.0 {
				t.Errorf("vsn %s, %s (%d): %s %v", vsn, filter, i, got.Type, got.OldRecord)
			}
			s.nc.Close()
		}
	}
}
