// Package clustertest holds every implementation of the bus to the same
// promises. A test of an implementation calls Exercise and nothing more.
package clustertest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/cluster"
)

// Bus is what the services use of a node.
type Bus interface {
	PublishBroadcast(ctx context.Context, b *sluice.Broadcast) error
	PublishChanges(ctx context.Context, b sluice.ChangeBatch) error
}

// NewCluster joins one node for each of handlers to a new cluster and returns
// their buses. What it started ends with t.
type NewCluster func(t testing.TB, handlers ...cluster.Handlers) []Bus

// Exercise runs the suite on clusters of up to nodes nodes.
func Exercise(t *testing.T, nodes int, newCluster NewCluster) {
	for n := 1; n <= nodes; n++ {
		t.Run(fmt.Sprintf("%d nodes", n), func(t *testing.T) {
			t.Parallel()
			s := suite{n, newCluster}
			t.Run("broadcast reaches every node once", s.broadcast)
			t.Run("changes reach every node in order", s.changes)
			t.Run("changes wait for the handler", s.backpressure)
			t.Run("handler's error is returned", s.handlerError)
			t.Run("context ends a publication", s.context)
			t.Run("publishers do not mix", s.publishers)
			t.Run("nobody listens", s.nobody)
		})
	}
}

type suite struct {
	nodes      int
	newCluster NewCluster
}

// record is what the nodes have received.
type record struct {
	mu         sync.Mutex
	arrived    chan struct{}        // one for each arrival
	broadcasts [][]sluice.Broadcast // by node, copied
	changes    [][]sluice.ChangeBatch
}

func (s suite) record(t *testing.T) (*record, []Bus) {
	r := &record{
		arrived:    make(chan struct{}, 10000),
		broadcasts: make([][]sluice.Broadcast, s.nodes), changes: make([][]sluice.ChangeBatch, s.nodes),
	}
	handlers := make([]cluster.Handlers, s.nodes)
	for i := range handlers {
		handlers[i] = cluster.Handlers{
			Broadcast: func(b *sluice.Broadcast) {
				r.mu.Lock()
				defer r.mu.Unlock()
				m := *b
				m.Payload, m.Meta = slices.Clone(b.Payload), slices.Clone(b.Meta)
				r.broadcasts[i] = append(r.broadcasts[i], m)
				r.arrived <- struct{}{}
			},
			Changes: func(_ context.Context, b sluice.ChangeBatch) error {
				r.mu.Lock()
				defer r.mu.Unlock()
				r.changes[i] = append(r.changes[i], b)
				r.arrived <- struct{}{}
				return nil
			},
		}
	}
	return r, s.newCluster(t, handlers...)
}

// wait returns after n arrivals.
func (r *record) wait(n int) {
	for range n {
		<-r.arrived
	}
}

func (s suite) broadcast(t *testing.T) {
	r, buses := s.record(t)
	room := sluice.Topic{Name: "room:1"}
	sent := []sluice.Broadcast{
		{Topic: room, Payload: []byte(`{"type":"broadcast"}`)},
		{Topic: room, Form: sluice.BroadcastJSON, Event: "typing", Payload: []byte(`{"a":1}`), Meta: []byte(`{"id":"x"}`)},
		{Topic: sluice.Topic{Name: "room:1", Private: true}, Form: sluice.BroadcastBinary, Event: "ü", Payload: []byte{0, 255}, Sender: 7},
	}
	for _, b := range buses {
		for _, m := range sent {
			if err := b.PublishBroadcast(t.Context(), &m); err != nil {
				t.Fatal(err)
			}
			r.wait(s.nodes)
		}
	}
	for node, got := range r.broadcasts {
		var want []sluice.Broadcast
		for publisher := range buses {
			for _, m := range sent {
				if publisher != node {
					m.Sender = 0 // a number of the publishing node
				}
				want = append(want, m)
			}
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("node %d: %s", node, d)
		}
	}
}

func (s suite) changes(t *testing.T) {
	r, buses := s.record(t)
	const batches = 100
	for i := range batches {
		batch := sluice.ChangeBatch{Commit: sluice.LSN(i/2 + 1), First: i % 2, Last: i%2 == 1}
		if err := buses[0].PublishChanges(t.Context(), batch); err != nil {
			t.Fatal(err)
		}
	}
	r.wait(batches * s.nodes)
	for node, got := range r.changes {
		for i, b := range got {
			if b.Commit != sluice.LSN(i/2+1) || b.First != i%2 || b.Last != (i%2 == 1) {
				t.Fatalf("node %d: batch %d is %+v", node, i, b)
			}
		}
	}
}

// backpressure: the publisher's own node holds it up, or memory would not.
func (s suite) backpressure(t *testing.T) {
	entered, release := make(chan struct{}), make(chan struct{})
	handlers := make([]cluster.Handlers, s.nodes)
	handlers[0].Changes = func(context.Context, sluice.ChangeBatch) error {
		close(entered)
		<-release
		return nil
	}
	buses := s.newCluster(t, handlers...)
	returned := make(chan error, 1)
	go func() { returned <- buses[0].PublishChanges(context.Background(), sluice.ChangeBatch{Commit: 1}) }() // received below
	<-entered
	select {
	case err := <-returned:
		t.Errorf("PublishChanges returned (%v) before the handler", err)
	default:
	}
	close(release)
	if err := <-returned; err != nil {
		t.Error(err)
	}
}

func (s suite) handlerError(t *testing.T) {
	refused := errors.New("refused")
	handlers := make([]cluster.Handlers, s.nodes)
	handlers[0].Changes = func(context.Context, sluice.ChangeBatch) error { return refused }
	buses := s.newCluster(t, handlers...)
	if err := buses[0].PublishChanges(t.Context(), sluice.ChangeBatch{Commit: 1}); !errors.Is(err, refused) {
		t.Errorf("error %v", err)
	}
}

func (s suite) context(t *testing.T) {
	handlers := make([]cluster.Handlers, s.nodes)
	handlers[0].Changes = func(ctx context.Context, _ sluice.ChangeBatch) error {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	buses := s.newCluster(t, handlers...)
	why := errors.New("shutting down")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(why)
	if err := buses[0].PublishChanges(ctx, sluice.ChangeBatch{Commit: 1}); !errors.Is(err, why) {
		t.Errorf("error %v", err)
	}
}

// publishers send at once from every node: each one's order holds.
func (s suite) publishers(t *testing.T) {
	r, buses := s.record(t)
	const each = 50
	var all sync.WaitGroup
	for i, b := range buses {
		for j := range 4 {
			all.Go(func() {
				for n := range each {
					m := &sluice.Broadcast{Topic: sluice.Topic{Name: fmt.Sprintf("%d.%d", i, j)}, Event: strconv.Itoa(n)}
					if err := b.PublishBroadcast(context.Background(), m); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	all.Wait()
	r.wait(len(buses) * 4 * each * s.nodes)
	for node, got := range r.broadcasts {
		next := map[string]int{}
		for _, m := range got {
			from := m.Topic.Name
			if m.Event != strconv.Itoa(next[from]) {
				t.Fatalf("node %d: message %s of %s arrived as number %d", node, m.Event, from, next[from])
			}
			next[from]++
		}
	}
}

// nobody: a node without handlers drops what it would get.
func (s suite) nobody(t *testing.T) {
	for _, b := range s.newCluster(t, make([]cluster.Handlers, s.nodes)...) {
		if err := errors.Join(
			b.PublishBroadcast(t.Context(), &sluice.Broadcast{Topic: sluice.Topic{Name: "room"}}),
			b.PublishChanges(t.Context(), sluice.ChangeBatch{Commit: 1}),
		); err != nil {
			t.Error(err)
		}
	}
}
