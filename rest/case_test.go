package rest_test

import (
	"testing"

	"github.com/sluice-dev/sluice/rest"
)

func TestSelect(t *testing.T)  { t.Parallel(); start(t, nil).run("select", false) }
func TestFilters(t *testing.T) { t.Parallel(); start(t, nil).run("filters", false) }
func TestLogic(t *testing.T)   { t.Parallel(); start(t, nil).run("logic", false) }
func TestOrder(t *testing.T)   { t.Parallel(); start(t, nil).run("order", false) }
func TestFormats(t *testing.T) { t.Parallel(); start(t, nil).run("formats", false) }
func TestInsert(t *testing.T)  { t.Parallel(); start(t, nil).run("insert", false) }
func TestUpsert(t *testing.T)  { t.Parallel(); start(t, nil).run("upsert", false) }
func TestChange(t *testing.T)  { t.Parallel(); start(t, nil).run("change", false) }
func TestPrefer(t *testing.T)  { t.Parallel(); start(t, nil).run("prefer", false) }
func TestRPC(t *testing.T)     { t.Parallel(); start(t, nil).run("rpc", false) }
func TestErrors(t *testing.T)  { t.Parallel(); start(t, nil).run("errors", false) }
func TestRouting(t *testing.T) { t.Parallel(); start(t, nil).run("routing", false) }

func TestEmbed(t *testing.T)  { t.Parallel(); start(t, nil).run("embed", false) }
func TestSpread(t *testing.T) { t.Parallel(); start(t, nil).run("spread", false) }

func TestAggregates(t *testing.T) {
	t.Parallel()
	start(t, func(c *rest.Config) { c.Aggregates = true }).run("aggregates", false)
}
