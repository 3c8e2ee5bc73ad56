package inspect_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/inspect"
	"github.com/sluice-dev/sluice/internal/pgtest"
)

const alice = "00000000-0000-4000-8000-00000000000a"

// tracer is the change feed's answer.
type tracer struct {
	asked sluice.TraceRequest
	out   sluice.Trace
	err   error
}

func (f *tracer) Trace(_ context.Context, r sluice.TraceRequest) (*sluice.Trace, error) {
	f.asked = r
	return &f.out, f.err
}

// node is what a test may change of a node.
type node struct {
	*inspect.Server
	tracer   *tracer
	stream   inspect.Stream
	sockets  []sluice.SocketView
	refusals *inspect.Refusals
}

func newNode(t *testing.T) *node {
	t.Helper()
	db := pgtest.New(t)
	db.Exec(`insert into auth.users (instance_id, id, aud, role, email, raw_app_meta_data) values
('00000000-0000-0000-0000-000000000000', $1, 'authenticated', 'authenticated', 'alice@example.com', '{"org":7}')`, alice)
	n := &node{
		tracer: &tracer{out: sluice.Trace{Table: "public.notes", Published: []string{"INSERT"}}}, stream: inspect.Stream{Streaming: true, Slot: "sluice"},
		refusals: inspect.NewRefusals(),
	}
	var err error
	n.Server, err = inspect.New(inspect.Config{
		Sockets: func(_ context.Context, only sluice.Only) (list []sluice.SocketView, total int) {
			for _, v := range n.sockets {
				if only.Subject == "" || len(v.Channels) > 0 && v.Channels[0].Subject == only.Subject {
					list = append(list, v)
				}
			}
			return list, len(list)
		},
		Tracer: n.tracer, Stream: func() inspect.Stream { return n.stream }, Refusals: n.refusals,
		Admin: db.Pool("supabase_admin"), Version: "test", Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func channel(sub, state string, tables ...string) sluice.ChannelView {
	ch := sluice.ChannelView{Topic: "room", State: state, Role: "authenticated", Subject: sub}
	if sub == "" {
		ch.Role = "anon"
	}
	for _, name := range tables {
		ch.Subscriptions = append(ch.Subscriptions, sluice.BindingView{Schema: "public", Table: name, Event: "*"})
	}
	return ch
}

func change(stages ...sluice.Stage) []sluice.TraceChange {
	c := sluice.TraceChange{Kind: "INSERT", At: "0/1"}
	for _, s := range stages {
		c.Outcomes = append(c.Outcomes, sluice.TraceOutcome{Conn: 1, Topic: "room", Stage: s, Text: "text of " + string(s)})
	}
	return []sluice.TraceChange{c}
}

// Why names the first hop that stops a change.
func TestWhy(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	socket := func(chs ...sluice.ChannelView) []sluice.SocketView {
		return []sluice.SocketView{{Conn: 1, Channels: chs}}
	}
	good := socket(channel(alice, sluice.ChannelJoined, "notes"))
	for _, tt := range []struct {
		name    string
		sockets []sluice.SocketView
		changes []sluice.TraceChange
		stream  bool
		publish bool
		user    string
		want    string // the hop, empty when nothing stops it
		says    string
	}{
		{"delivered", good, change(sluice.StageDelivered), true, true, alice, "", "joined as authenticated"},
		{"policy", good, change(sluice.StagePolicy), true, true, "Alice@example.com", "policy", "text of policy"},
		{"one channel has it", good, change(sluice.StageFilter, sluice.StageSent), true, true, alice, "", "text of filter"},
		{"stream down", good, change(sluice.StageDecision), false, true, alice, "stream", "not being read"},
		{"not published", good, nil, true, false, alice, "publication", "add table public.notes"},
		{"no socket", nil, change(sluice.StageVisible), true, true, alice, "socket", "no channel of this user"},
		{"joined too early", socket(channel("", sluice.ChannelJoined, "notes")), change(sluice.StageVisible), true, true, alice, "token", "without a user's token"},
		{"another table", socket(channel(alice, sluice.ChannelJoined, "other")), change(sluice.StageVisible), true, true, alice, "binding", "none of the user's channels"},
		{"wildcard", socket(channel(alice, sluice.ChannelJoined, "*")), change(sluice.StageSent), true, true, alice, "", ""},
		{"expired", socket(channel(alice, sluice.ChannelMuted, "notes")), change(sluice.StageSent), true, true, alice, "token", "is muted"},
		{"joining", socket(channel(alice, sluice.ChannelJoining, "notes")), nil, true, true, alice, "socket", "still joining"},
		{"anonymous", socket(channel("", sluice.ChannelJoined, "notes")), change(sluice.StagePolicy), true, true, "", "policy", ""},
	} {
		n.sockets, n.tracer.out.Changes, n.stream.Streaming, n.tracer.out.Published = tt.sockets, tt.changes, tt.stream, nil
		if tt.publish {
			n.tracer.out.Published = []string{"INSERT"}
		}
		y, err := n.Why(t.Context(), inspect.WhyRequest{Table: "notes", User: tt.user})
		if err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
		text, _ := json.Marshal(y)
		if y.Stopped != tt.want || !strings.Contains(string(text), tt.says) {
			t.Errorf("%s: stops at %q: %s", tt.name, y.Stopped, text)
		}
		if tt.user != "" && (y.User != alice || !strings.Contains(string(n.tracer.asked.Claims.JSON), `"org": 7`)) {
			t.Errorf("%s: %q with claims %s", tt.name, y.User, n.tracer.asked.Claims.JSON)
		}
	}
	for name, r := range map[string]inspect.WhyRequest{"no user": {Table: "notes", User: "bob@example.com"}, "no table": {}, "half a name": {Table: "public."}} {
		if y, err := n.Why(t.Context(), r); !errors.Is(err, sluice.ErrNotFound) && !errors.Is(err, sluice.ErrInvalid) {
			t.Errorf("%s: %+v, %v", name, y, err)
		}
	}
}

// Only the secret key looks into a node; everybody learns who he is taken for.
func TestWhoMayLook(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	n.sockets = []sluice.SocketView{{Conn: 1, Channels: []sluice.ChannelView{channel(alice, sluice.ChannelJoined, "notes")}}}
	get := func(path string, id sluice.Identity) *httptest.ResponseRecorder {
		w := httptest.NewRecorder()
		n.ServeHTTP(w, httptest.NewRequestWithContext(sluice.WithIdentity(t.Context(), id), http.MethodGet, path, nil))
		return w
	}
	anon := sluice.Identity{Key: sluice.KeyPublishable, Claims: sluice.Claims{Role: "anon"}}
	user := sluice.Identity{Key: sluice.KeyPublishable, Claims: sluice.Claims{Role: "authenticated", Subject: alice, ExpiresAt: time.Unix(2e9, 0)}}
	expired := sluice.Identity{Key: sluice.KeySecret, Claims: sluice.Claims{Role: "service_role"}, BearerErr: sluice.Refuse(sluice.CodeInvalidJWTToken)}
	service := sluice.Identity{Key: sluice.KeySecret, Claims: sluice.Claims{Role: "service_role"}}
	for _, tt := range []struct {
		path   string
		id     sluice.Identity
		status int
		says   string
	}{
		{"/me", anon, 200, `"role":"anon"`},
		{"/me", user, 200, `"topic":"room"`},
		{"/me", expired, 200, `"token_refused":{"code":"InvalidJWTToken"`},
		{"/view", anon, 403, "secret key"},
		{"/view", user, 403, "secret key"},
		{"/view", expired, 401, "expired"},
		{"/view", service, 200, `"sockets_total":1`},
		{"/view?limit=x", service, 400, "positive number"},
		{"/why?table=notes&user=" + alice + "&key.a=1&key.b=2", service, 200, `"stopped":"row"`},
		{"/why?table=notes", anon, 403, "secret key"},
		{"/why?table=notes&user=nobody@example.com", service, 400, "nobody@example.com"},
		{"/nothing", service, 404, ""},
	} {
		w := get(tt.path, tt.id)
		if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.says) {
			t.Errorf("%s as %s: %d %s", tt.path, tt.id.Claims.Role, w.Code, w.Body)
		}
		if strings.Contains(w.Body.String(), `"topic":"room"`) && tt.id.Claims.Role == "anon" {
			t.Errorf("%s shows channels to %s", tt.path, tt.id.Claims.Role)
		}
	}
	if k := n.tracer.asked.Key; len(k) != 2 || k["a"] != "1" || k["b"] != "2" {
		t.Errorf("key %v", k)
	}
}

// Whatever the log says with a code is remembered, the latest first, within bounds.
func TestRefusals(t *testing.T) {
	t.Parallel()
	r := inspect.NewRefusals()
	log := slog.New(r.Handler()).With("node", "n1")
	changed := r.Changed()
	log.Info("nothing refused")
	select {
	case <-changed:
		t.Error("a line without a code is remembered")
	default:
	}
	log.Debug("too fine", sluice.LogCode, sluice.CodeInvalidAPIKey)
	log.Warn("join refused", sluice.LogCode, sluice.CodeInvalidAPIKey, sluice.LogTopic, strings.Repeat("é", 1000), "key", sluice.Secret("sb_secret_x"))
	<-changed
	got := r.Latest()
	if len(got) != 1 || got[0].Code != sluice.CodeInvalidAPIKey || got[0].Remedy == "" || got[0].Fields["node"] != "n1" {
		t.Fatalf("%+v", got)
	}
	if text, _ := json.Marshal(got); strings.Contains(string(text), "sb_secret_x") || len(text) > 2000 {
		t.Errorf("%d bytes: %s", len(text), text)
	}
	for range 500 {
		log.Info("again", sluice.LogCode, "bad_jwt")
	}
	if got := r.Latest(); len(got) != 200 || got[0].Code != "bad_jwt" || got[0].Remedy != "" {
		t.Errorf("%d, %+v", len(got), got[0])
	}
}
