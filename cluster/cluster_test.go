package cluster_test

import (
	"testing"

	"github.com/sluice-dev/sluice/cluster"
	"github.com/sluice-dev/sluice/cluster/clustertest"
	"github.com/sluice-dev/sluice/internal/leak"
)

func TestMain(m *testing.M) { leak.Main(m) }

func TestLocal(t *testing.T) {
	t.Parallel()
	clustertest.Exercise(t, 1, func(_ testing.TB, handlers ...cluster.Handlers) []clustertest.Bus {
		return []clustertest.Bus{cluster.NewLocal(handlers[0])}
	})
}
