package realtime_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/cluster"
	"github.com/sluice-dev/sluice/internal/leak"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/realtime"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

func TestMain(m *testing.M) {
	if order := os.Getenv(benchEnv); order != "" {
		benchMain(order)
		return
	}
	leak.Main(m, pgtest.Stop)
}

// jwt makes a token that fakeTokens accepts.
func jwt(claims map[string]any) string {
	b, err := json.Marshal(claims)
	if err != nil {
		panic(err)
	}
	enc := base64.RawURLEncoding.EncodeToString
	return enc([]byte(`{"alg":"HS256"}`)) + "." + enc(b) + ".sig"
}

// user makes a token of a user that expires after d.
func user(sub string, d time.Duration) string {
	return jwt(map[string]any{"role": "authenticated", "sub": sub, "exp": time.Now().Add(d).Unix()})
}

// fakeTokens verifies what jwt makes, with the refusals of package token.
type fakeTokens struct{}

func (fakeTokens) Verify(tok string) (sluice.Claims, error) {
	parts := strings.Split(tok, ".")
	if len(parts) != 3 {
		return sluice.Claims{}, sluice.Refuse(sluice.CodeMalformedJWT)
	}
	body, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		return sluice.Claims{}, sluice.Refuse(sluice.CodeMalformedJWT)
	}
	if parts[2] != "sig" {
		return sluice.Claims{}, sluice.Refuse(sluice.CodeJwtSignatureError)
	}
	var c struct {
		Role, Sub string
		Exp       int64
	}
	if json.Unmarshal(body, &c) != nil || c.Role == "" || c.Exp == 0 {
		return sluice.Claims{}, sluice.Refuse(sluice.CodeInvalidJWTToken).WithText("Fields `role` and `exp` are required in JWT")
	}
	exp := time.Unix(c.Exp, 0)
	if !exp.After(time.Now()) {
		return sluice.Claims{}, sluice.Refuse(sluice.CodeInvalidJWTToken).WithText("Token has expired %d seconds ago", int(time.Since(exp)/time.Second))
	}
	return sluice.Claims{Role: c.Role, Subject: c.Sub, ExpiresAt: exp, JSON: body}, nil
}

var anon = sluice.Identity{
	Claims:    sluice.Claims{Role: "anon", JSON: json.RawMessage(`{"role":"anon"}`)},
	KeyClaims: sluice.Claims{Role: "anon", JSON: json.RawMessage(`{"role":"anon"}`)},
	Key:       sluice.KeyPublishable, KeyPlace: "query",
}

// world is a running server.
type world struct {
	t    testing.TB
	srv  *realtime.Server
	bus  *cluster.Local
	logs *logBuffer
	feed *fakeFeed
	wg   sync.WaitGroup
	stop func()
}

type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) count(s string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.buf.String(), s)
}

// newWorld starts a server. Within a synctest bubble its owner must call stop
// before the bubble ends; run does.
func newWorld(t testing.TB, change ...func(*realtime.Config)) *world {
	t.Helper()
	w := &world{t: t, logs: &logBuffer{}, feed: &fakeFeed{}}
	w.bus = cluster.NewLocal(cluster.Handlers{
		Broadcast: func(b *sluice.Broadcast) { w.srv.Deliver(b) },
		Messages:  func(b sluice.ChangeBatch) { w.srv.DeliverRows(b) },
	})
	cfg := realtime.Config{
		Logger: slog.New(slog.NewTextHandler(w.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
		Tokens: fakeTokens{},
		Feed:   w.feed,
		Bus:    w.bus,
	}
	for _, c := range change {
		c(&cfg)
	}
	srv, err := realtime.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w.srv = srv
	ctx, cancel := context.WithCancel(context.Background())
	w.wg.Add(1)
	go func() {
		defer w.wg.Done()
		if err := srv.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	w.stop = sync.OnceFunc(func() { cancel(); w.wg.Wait() })
	return w
}

// run calls fn with a server in a bubble of fake time.
func run(t *testing.T, fn func(t *testing.T, w *world), change ...func(*realtime.Config)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, change...)
		defer w.stop()
		fn(t, w)
	})
}

// both runs fn under both protocol versions.
func both(t *testing.T, fn func(t *testing.T, w *world, v phoenix.Version), change ...func(*realtime.Config)) {
	t.Helper()
	for _, v := range []phoenix.Version{phoenix.V1, phoenix.V2} {
		t.Run(fmt.Sprintf("vsn=%d.0.0", v), func(t *testing.T) {
			run(t, func(t *testing.T, w *world) { fn(t, w, v) }, change...)
		})
	}
}

// msg is a message as the client sees it.
type msg struct {
	JoinRef, Ref any
	Topic, Event string
	Payload      json.RawMessage
	Binary       []byte // the whole binary frame
}

func (m msg) String() string {
	if m.Binary != nil {
		return fmt.Sprintf("binary %q", m.Binary)
	}
	return fmt.Sprintf("[%v %v %s %s %s]", m.JoinRef, m.Ref, m.Topic, m.Event, m.Payload)
}

// client is a client of one protocol version.
type client struct {
	t   testing.TB
	nc  net.Conn
	vsn phoenix.Version
	ref int

	mu     sync.Mutex
	cond   *sync.Cond
	inbox  []msg
	pongs  []string
	pings  int
	deaf   bool                          // answers no ping
	stall  atomic.Pointer[chan struct{}] // no more is read until it is closed
	code   ws.StatusCode                 // of the close frame
	reason string
	err    error // why reading ended
}

// connect opens a socket over a pipe.
func (w *world) connect(v phoenix.Version, id ...sluice.Identity) *client {
	w.t.Helper()
	ident := anon
	if len(id) > 0 {
		ident = id[0]
	}
	ours, theirs := net.Pipe()
	w.wg.Add(1)
	go func() {
		defer w.wg.Done()
		w.srv.ServeConn(theirs, v, ident)
	}()
	return w.client(ours, ours, v)
}

// client reads from r and writes to nc.
func (w *world) client(nc net.Conn, r io.Reader, v phoenix.Version) *client {
	c := &client{t: w.t, nc: nc, vsn: v}
	c.cond = sync.NewCond(&c.mu)
	w.wg.Add(1)
	go func() {
		defer w.wg.Done()
		c.read(r)
	}()
	return c
}

func (c *client) read(r io.Reader) {
	for {
		if stall := c.stall.Load(); stall != nil {
			<-*stall
		}
		f, err := ws.ReadFrame(r) //lint:ignore SA1019 the peer is our own server
		c.mu.Lock()
		switch {
		case err != nil:
			c.err = err
		case f.Header.Masked || !f.Header.Fin:
			c.err = errors.New("server frame is masked or fragmented")
		case f.Header.OpCode == ws.OpClose:
			c.code, c.reason = ws.ParseCloseFrameData(f.Payload)
			c.err = errors.New("closed")
		case f.Header.OpCode == ws.OpPong:
			c.pongs = append(c.pongs, string(f.Payload))
		case f.Header.OpCode == ws.OpPing:
			c.pings++
			if !c.deaf {
				c.mu.Unlock()
				werr := c.write(ws.NewPongFrame(f.Payload))
				c.mu.Lock()
				c.err = werr
			}
		case f.Header.OpCode == ws.OpBinary:
			c.inbox = append(c.inbox, msg{Binary: f.Payload})
		default:
			m, derr := c.decode(f.Payload)
			if derr != nil {
				c.err = fmt.Errorf("%w in %q", derr, f.Payload)
			}
			c.inbox = append(c.inbox, m)
		}
		err = c.err
		c.cond.Broadcast()
		c.mu.Unlock()
		if err != nil {
			c.nc.Close()
			return
		}
	}
}

func (c *client) decode(p []byte) (m msg, err error) {
	if c.vsn == phoenix.V2 {
		var a []json.RawMessage
		if err := json.Unmarshal(p, &a); err != nil || len(a) != 5 {
			return m, fmt.Errorf("not an array of 5: %v", err)
		}
		m.Payload = a[4]
		return m, errors.Join(json.Unmarshal(a[0], &m.JoinRef), json.Unmarshal(a[1], &m.Ref), json.Unmarshal(a[2], &m.Topic), json.Unmarshal(a[3], &m.Event))
	}
	var o map[string]json.RawMessage
	if err := json.Unmarshal(p, &o); err != nil || len(o) != 4 {
		return m, fmt.Errorf("not an object of 4: %v", err)
	}
	m.Payload = o["payload"]
	return m, errors.Join(json.Unmarshal(o["ref"], &m.Ref), json.Unmarshal(o["topic"], &m.Topic), json.Unmarshal(o["event"], &m.Event))
}

// raw sends a frame as a client does, masked.
func (c *client) raw(f ws.Frame) {
	c.t.Helper()
	if err := c.write(f); err != nil {
		c.t.Logf("send: %v", err)
	}
}

// write sends a frame in one piece: the test and the reader may both write.
func (c *client) write(f ws.Frame) error {
	b, err := ws.CompileFrame(ws.MaskFrame(f))
	if err == nil {
		_, err = c.nc.Write(b)
	}
	return err
}

func (c *client) text(s string) { c.t.Helper(); c.raw(ws.NewTextFrame([]byte(s))) }

// push sends an event and returns its ref.
func (c *client) push(joinRef any, topic, event, payload string) string {
	c.t.Helper()
	c.ref++
	ref := fmt.Sprint(c.ref)
	c.pushRef(joinRef, ref, topic, event, payload)
	return ref
}

func (c *client) pushRef(joinRef, ref any, topic, event, payload string) {
	c.t.Helper()
	var b []byte
	if c.vsn == phoenix.V2 {
		b, _ = json.Marshal([]any{joinRef, ref, topic, event, json.RawMessage(payload)})
	} else {
		b, _ = json.Marshal(map[string]any{"join_ref": joinRef, "ref": ref, "topic": topic, "event": event, "payload": json.RawMessage(payload)})
	}
	c.text(string(b))
}

func (c *client) setDeaf(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deaf = on
}

// pong answers the ping with number n.
func (c *client) pong(n byte) { c.raw(ws.NewPongFrame([]byte{0, 0, 0, n})) }

// join sends phx_join, whose join_ref is its ref, and returns that.
func (c *client) join(topic, payload string) string {
	c.t.Helper()
	ref := fmt.Sprint(c.ref + 1)
	return c.push(ref, topic, "phx_join", payload)
}

// got waits until everything is still and returns what has come since the last
// call. Only within a bubble.
func (c *client) got() []msg {
	c.t.Helper()
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	out := c.inbox
	c.inbox = nil
	return out
}

// next waits for the next message, in real time.
func (c *client) next() msg {
	c.t.Helper()
	timer := time.AfterFunc(10*time.Second, func() {
		c.mu.Lock()
		c.err = errors.New("nothing came within 10 s")
		c.cond.Broadcast()
		c.mu.Unlock()
	})
	defer timer.Stop()
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.inbox) == 0 {
		if c.err != nil {
			c.t.Fatalf("read: %v (close code %d %s)", c.err, c.code, c.reason)
		}
		c.cond.Wait()
	}
	m := c.inbox[0]
	c.inbox = c.inbox[1:]
	return m
}

// closed returns the close code, 0 while the socket is open.
func (c *client) closed() (ws.StatusCode, string) {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.code, c.reason
}

// joined joins and fails the test unless the reply is ok. It returns the join
// ref and what followed the reply.
func (c *client) joined(topic, payload string) (string, []msg) {
	c.t.Helper()
	ref := c.join(topic, payload)
	got := c.got()
	if len(got) == 0 || got[0].Event != "phx_reply" || !strings.Contains(string(got[0].Payload), `"status":"ok"`) {
		c.t.Fatalf("join %s: %v", topic, got)
	}
	return ref, got[1:]
}

// want compares messages, each given as "EVENT PAYLOAD".
func want(t testing.TB, got []msg, wants ...string) {
	t.Helper()
	var have []string
	for _, m := range got {
		if m.Binary != nil {
			have = append(have, "binary "+string(m.Binary))
			continue
		}
		have = append(have, m.Event+" "+string(m.Payload))
	}
	if strings.Join(have, "\n") != strings.Join(wants, "\n") {
		t.Errorf("got\n\t%s\nwant\n\t%s", strings.Join(have, "\n\t"), strings.Join(wants, "\n\t"))
	}
}

const okReply = `phx_reply {"status":"ok","response":{}}`

func refusedReply(reason string) string {
	b, _ := json.Marshal(reason)
	return `phx_reply {"status":"error","response":{"reason":` + strings.ReplaceAll(string(b), `\u0026`, "&") + `}}`
}

func system(extension, status, message, channel string) string {
	return fmt.Sprintf(`system {"extension":%q,"status":%q,"message":%q,"channel":%q}`, extension, status, message, channel)
}

func closeFrame(code ws.StatusCode) ws.Frame {
	return ws.NewCloseFrame(ws.NewCloseFrameBody(code, ""))
}

const emptyJoin = `{"config":{}}`

// fakeFeed is a change feed that the test drives.
type fakeFeed struct {
	mu      sync.Mutex
	subs    []*fakeSub
	notices []*sluice.Refusal
	err     error
	setErr  error
	gate    chan struct{} // Subscribe and SetClaims wait for it when not nil
	early   []sluice.ChangeEvent
	told    []*sluice.Refusal // as early
}

type fakeSub struct {
	feed   *fakeFeed
	sub    sluice.ChangeSubscription
	mu     sync.Mutex
	claims []sluice.Claims
	closed int
	held   int
	at     sluice.LSN // Position
	has    sluice.LSN // Confirm
	ref    uint64
}

func (s *fakeSub) Seen() []sluice.Seen                             { return nil }
func (s *fakeSub) View(context.Context, bool) []sluice.BindingView { return nil }

func (s *fakeSub) Position() sluice.LSN {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at
}

func (s *fakeSub) Confirm(at sluice.LSN, ref uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.has, s.ref = at, ref
}

func (s *fakeSub) Hold() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed++
	s.held++
}

// move sets the position up to which the feed has delivered.
func (s *fakeSub) move(at sluice.LSN) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at = at
}

// state returns what the client has confirmed, and whether it may come back.
func (s *fakeSub) state() (has sluice.LSN, ref uint64, held bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.has, s.ref, s.held > 0
}

func (f *fakeFeed) wait(ctx context.Context) error {
	if f.gate == nil {
		return nil
	}
	select {
	case <-f.gate:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (f *fakeFeed) Subscribe(ctx context.Context, s sluice.ChangeSubscription) (sluice.LiveSubscription, []*sluice.Refusal, error) {
	for _, r := range f.told {
		s.Notify(r)
	}
	for _, e := range f.early {
		s.Deliver(e)
	}
	if err := f.wait(ctx); err != nil {
		return nil, nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return nil, nil, f.err
	}
	sub := &fakeSub{feed: f, sub: s, claims: []sluice.Claims{s.Claims}}
	f.subs = append(f.subs, sub)
	return sub, f.notices, nil
}

func (s *fakeSub) SetClaims(ctx context.Context, c sluice.Claims) ([]*sluice.Refusal, error) {
	if err := s.feed.wait(ctx); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.claims = append(s.claims, c)
	return s.feed.notices, s.feed.setErr
}

func (s *fakeSub) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed++
}

func (s *fakeSub) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed > 0
}

// deliver hands one change to every subscription, for its first binding.
func (f *fakeFeed) deliver(action string) {
	f.mu.Lock()
	subs := append([]*fakeSub(nil), f.subs...)
	f.mu.Unlock()
	for _, s := range subs {
		s.sub.Deliver(sluice.ChangeEvent{IDs: []int64{s.sub.Bindings[0].ID}, Type: action, Data: json.RawMessage(`{"type":"` + action + `"}`)})
	}
}

// memory returns the live heap and the stacks, after everything that can be
// given back was.
func memory() (heap, stack int64) {
	for range 3 {
		runtime.GC() // pools keep what they hold for two collections
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc), int64(m.StackInuse)
}
