package changes_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/changes"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/wal"
)

// feed is a running pipeline on a database of its own.
type feed struct {
	*changes.Service
	db *pgtest.DB
}

func newFeed(t testing.TB, db *pgtest.DB, change ...func(*changes.Config)) *feed {
	t.Helper()
	log := slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
	f := &feed{db: db}
	reader, err := wal.New(wal.Config{
		URL: db.URL("supabase_admin"), Slot: "sluice_" + db.Name, Logger: log,
		Handle:  func(ctx context.Context, b sluice.ChangeBatch) error { return f.Handle(ctx, b) },
		Started: func(from sluice.LSN, gap bool) { f.Started(from, gap) }, Floor: func() sluice.LSN { return f.Floor() },
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg := changes.Config{Admin: db.Pool("supabase_admin"), User: db.Pool("authenticator"), Stream: reader, Logger: log}
	for _, c := range change {
		c(&cfg)
	}
	f.Service, err = changes.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	for _, run := range []func(context.Context) error{reader.Run, f.Run} {
		ended.Add(1)
		go func() {
			defer ended.Done()
			if err := run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		}()
	}
	t.Cleanup(func() { cancel(); ended.Wait() })
	live, cancelLive := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancelLive()
	if err := reader.Live(live); err != nil {
		t.Fatalf("Live: %v (%v)", err, reader.State().Err)
	}
	return f
}

func claimsOf(role, sub string) sluice.Claims {
	c := sluice.Claims{Role: role, Subject: sub}
	c.JSON, _ = json.Marshal(map[string]any{"role": role, "sub": sub})
	if sub == "" {
		c.JSON = json.RawMessage(`{"role":"` + role + `"}`)
	}
	return c
}

// listener is one channel that notes what it gets.
type listener struct {
	t    testing.TB
	sub  sluice.LiveSubscription
	more chan struct{}

	mu     sync.Mutex
	events []event
	bodies []json.RawMessage
}

// same reports whether event i of both is the same memory: rendered once.
func (l *listener) same(other *listener, i int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	other.mu.Lock()
	defer other.mu.Unlock()
	return &l.bodies[i][0] == &other.bodies[i][0]
}

type event struct {
	IDs  []int64
	At   sluice.LSN
	Raw  string
	Data struct {
		Type            string
		Schema          string
		Table           string
		CommitTimestamp *string `json:"commit_timestamp"`
		Columns         []struct{ Name, Type string }
		Record          map[string]any
		OldRecord       map[string]any `json:"old_record"`
		Errors          []string
	}
}

func (f *feed) listen(t testing.TB, c sluice.Claims, params ...string) *listener {
	t.Helper()
	l, notices, err := f.tryListen(t, c, params...)
	if err != nil {
		t.Fatalf("Subscribe: %v", err)
	}
	_ = notices
	return l
}

func (f *feed) tryListen(t testing.TB, c sluice.Claims, params ...string) (*listener, []*sluice.Refusal, error) {
	t.Helper()
	l := &listener{t: t, more: make(chan struct{}, 1)}
	req := sluice.ChangeSubscription{Claims: c, Topic: t.Name(), Deliver: l.deliver}
	for i, p := range params {
		req.Bindings = append(req.Bindings, sluice.ChangeBinding{ID: int64(i + 1), Params: json.RawMessage(p)})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	sub, notices, err := f.Subscribe(ctx, req)
	if err != nil {
		return nil, notices, err
	}
	l.sub = sub
	t.Cleanup(sub.Close)
	return l, notices, nil
}

func (l *listener) deliver(e sluice.ChangeEvent) {
	ev := event{IDs: e.IDs, At: e.At, Raw: string(e.Data)}
	if err := json.Unmarshal(e.Data, &ev.Data); err != nil {
		l.t.Errorf("event is no JSON: %v: %s", err, e.Data)
	}
	l.mu.Lock()
	l.events, l.bodies = append(l.events, ev), append(l.bodies, e.Data)
	l.mu.Unlock()
	select {
	case l.more <- struct{}{}:
	default:
	}
}

func (l *listener) got() []event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([]event(nil), l.events...)
}

// wait returns the events once there are n, or fails when no more come.
func (l *listener) wait(n int) []event {
	l.t.Helper()
	const patience = 30 * time.Second // without any event
	deadline := time.NewTimer(patience)
	defer deadline.Stop()
	for {
		if got := l.got(); len(got) >= n {
			return got
		}
		select {
		case <-l.more:
			deadline.Reset(patience)
		case <-deadline.C:
			l.t.Fatalf("%d of %d events came", len(l.got()), n)
		}
	}
}

// ids returns the column id of the records, in order.
func ids(events []event) []int {
	out := []int{}
	for _, e := range events {
		if v, ok := e.Data.Record["id"].(float64); ok {
			out = append(out, int(v))
		}
	}
	return out
}

func user(n int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012d", n) }
