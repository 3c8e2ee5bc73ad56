package cluster_test

import (
	"context"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/cluster"
	"github.com/sluice-dev/sluice/cluster/clustertest"
	"github.com/sluice-dev/sluice/internal/leak"
)

// Each kind goes to its own handler before publishing returns, in order; what
// nobody handles is dropped.
func TestKinds(t *testing.T) {
	t.Parallel()
	var got []string
	refused := errors.New("refused")
	bus := cluster.NewLocal(cluster.Handlers{
		Broadcast: func(b *sluice.Broadcast) { got = append(got, "broadcast "+b.Event) },
		Messages:  func(b sluice.ChangeBatch) { got = append(got, "messages "+b.Commit.String()) },
		Changes: func(_ context.Context, b sluice.ChangeBatch) error {
			got = append(got, "changes "+b.Commit.String())
			return refused
		},
	})
	for range 2 {
		if err := bus.PublishBroadcast(t.Context(), &sluice.Broadcast{Event: "ev"}); err != nil {
			t.Error(err)
		}
		if err := bus.PublishMessages(t.Context(), sluice.ChangeBatch{Commit: 1}); err != nil {
			t.Error(err)
		}
		if err := bus.PublishChanges(t.Context(), sluice.ChangeBatch{Commit: 2}); !errors.Is(err, refused) {
			t.Error(err)
		}
		bus2 := cluster.NewLocal(cluster.Handlers{})
		if err := errors.Join(bus2.PublishBroadcast(t.Context(), nil), bus2.PublishMessages(t.Context(), sluice.ChangeBatch{}), bus2.PublishChanges(t.Context(), sluice.ChangeBatch{})); err != nil {
			t.Error(err)
		}
	}
	want := []string{"broadcast ev", "messages 0/1", "changes 0/2", "broadcast ev", "messages 0/1", "changes 0/2"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestMain(m *testing.M) { leak.Main(m) }

func TestLocal(t *testing.T) {
	t.Parallel()
	clustertest.Exercise(t, 1, func(_ testing.TB, handlers ...cluster.Handlers) []clustertest.Bus {
		return []clustertest.Bus{cluster.NewLocal(handlers[0])}
	})
}
