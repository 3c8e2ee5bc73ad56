package rest_test

import (
	"testing"

	"github.com/sluice-dev/sluice/rest"
)

// The cases are in testdata, requests and answers one after another.

// spec: rest:RT-05 rest:RT-06 rest:RT-10 rest:SC-12 rest:SE-01 rest:SE-02 rest:SE-03 rest:SE-04 rest:SE-05 rest:SE-06 rest:SE-07
// spec: rest:SE-08 rest:SE-09 rest:SE-10 rest:SE-11 rest:SE-12 rest:SE-13 rest:SE-14 rest:SE-15 rest:SE-17 rest:SE-18
func TestSelect(t *testing.T) {
	t.Parallel()
	start(t, nil).run("select", true)
}

// spec: rest:SC-11 rest:FI-01 rest:FI-02 rest:FI-03 rest:FI-04 rest:FI-05 rest:FI-06 rest:FI-07 rest:FI-08 rest:FI-09 rest:FI-10 rest:FI-11
// spec: rest:FI-12 rest:FI-13 rest:FI-14 rest:FI-15 rest:FI-16 rest:FI-17 rest:FI-18 rest:FI-19 rest:FI-20 rest:FI-21 rest:FI-22 rest:FI-23
// spec: rest:FI-24 rest:FI-25
func TestFilters(t *testing.T) {
	t.Parallel()
	start(t, nil).run("filters", true)
}

// spec: rest:LO-01 rest:LO-02 rest:LO-03 rest:LO-04 rest:LO-05 rest:LO-06 rest:LO-07 rest:LO-08 rest:LO-10 rest:LO-11 rest:LO-12
func TestLogic(t *testing.T) {
	t.Parallel()
	start(t, nil).run("logic", true)
}

// spec: rest:OR-01 rest:OR-02 rest:OR-03 rest:OR-07 rest:OR-08 rest:OR-09 rest:OR-10 rest:OR-11 rest:OR-12 rest:OR-13 rest:OR-14 rest:OR-15
func TestOrder(t *testing.T) {
	t.Parallel()
	start(t, nil).run("order", true)
}

// spec: rest:FM-01 rest:FM-02 rest:FM-03 rest:FM-05 rest:FM-06 rest:FM-07 rest:FM-08 rest:FM-09 rest:FM-10 rest:CA-15
func TestFormats(t *testing.T) {
	t.Parallel()
	start(t, nil).run("formats", true)
}

// spec: rest:IN-01 rest:IN-02 rest:IN-03 rest:IN-05 rest:IN-06 rest:IN-07 rest:IN-08 rest:IN-09 rest:IN-10 rest:IN-11 rest:IN-12 rest:IN-13
// spec: rest:IN-14 rest:IN-15 rest:IN-16 rest:IN-17 rest:IN-18 rest:IN-19 rest:IN-20 rest:IN-21 rest:IN-23 rest:IN-24 rest:JS-04
func TestInsert(t *testing.T) {
	t.Parallel()
	start(t, nil).run("insert", true)
}

// spec: rest:UP-01 rest:UP-02 rest:UP-03 rest:UP-04 rest:UP-05 rest:UP-06 rest:UP-07 rest:UP-08 rest:UP-13
func TestUpsert(t *testing.T) {
	t.Parallel()
	start(t, nil).run("upsert", true)
}

// spec: rest:PD-01 rest:PD-02 rest:PD-03 rest:PD-04 rest:PD-06 rest:PD-07 rest:PD-08 rest:PD-09 rest:PD-11 rest:PD-12
func TestChange(t *testing.T) {
	t.Parallel()
	start(t, nil).run("change", true)
}

// spec: rest:PD-15 rest:PD-16 rest:PD-17 rest:PD-18 rest:PD-19 rest:PD-22
func TestPrefer(t *testing.T) {
	t.Parallel()
	start(t, nil).run("prefer", true)
}

// spec: rest:AU-05 rest:TX-01 rest:TX-02 rest:RP-01 rest:RP-02 rest:RP-03 rest:RP-04 rest:RP-05 rest:RP-06 rest:RP-07 rest:RP-08
// spec: rest:RP-09 rest:RP-10 rest:RP-11 rest:RP-12 rest:RP-13 rest:RP-14 rest:RP-15 rest:RP-16 rest:RP-17 rest:RP-19 rest:RP-20
// spec: rest:RP-21 rest:RP-22 rest:RP-23 rest:RP-24 rest:RP-26 rest:RP-27 rest:RP-28 rest:RP-29 rest:RP-32 rest:RP-33 rest:JS-03
func TestRPC(t *testing.T) {
	t.Parallel()
	start(t, nil).run("rpc", true)
}

// spec: rest:AU-03 rest:AU-04 rest:ER-03 rest:ER-04 rest:ER-05 rest:ER-08 rest:RP-31 rest:TX-15 rest:TX-16 rest:TX-17
func TestErrors(t *testing.T) {
	t.Parallel()
	start(t, nil).run("errors", false)
}

// spec: rest:RT-02 rest:RT-03 rest:RT-04 rest:RT-07 rest:RT-08 rest:RT-12 rest:RT-13 rest:RT-14 rest:RT-15 rest:RT-16 rest:SC-01
// spec: rest:SC-02 rest:SC-03 rest:SC-06 rest:SC-09 rest:TX-06
func TestRouting(t *testing.T) {
	t.Parallel()
	start(t, nil).run("routing", false)
}

// spec: rest:SC-08 rest:IN-04 rest:LO-09 rest:OR-04 rest:OR-05 rest:OR-06 rest:OR-18 rest:OR-24 rest:PD-05 rest:PD-10 rest:RP-25
// spec: rest:EM-01 rest:EM-02 rest:EM-03 rest:EM-04 rest:EM-05 rest:EM-06 rest:EM-07 rest:EM-08 rest:EM-09 rest:EM-10 rest:EM-11
// spec: rest:EM-12 rest:EM-13 rest:EM-15 rest:EM-16 rest:EM-17 rest:EM-18 rest:EM-20 rest:EM-21 rest:EM-22 rest:EM-23 rest:EM-24 rest:EM-25
// spec: rest:EM-26 rest:EM-27 rest:EM-28 rest:EM-29 rest:EM-30 rest:EM-31 rest:EM-32 rest:EM-33 rest:EM-34 rest:EM-35 rest:EM-38
func TestEmbed(t *testing.T) {
	t.Parallel()
	start(t, nil).run("embed", true)
}

// spec: rest:SP-01 rest:SP-02 rest:SP-03 rest:SP-04 rest:SP-05 rest:SP-06 rest:SP-07 rest:SP-08 rest:SP-09 rest:SP-10 rest:SP-11
func TestSpread(t *testing.T) {
	t.Parallel()
	start(t, nil).run("spread", true)
}

// spec: rest:IN-22 rest:RP-18 rest:RP-30
func TestBodies(t *testing.T) {
	t.Parallel()
	start(t, nil).run("bodies", true)
}

// spec: rest:UP-09 rest:UP-10 rest:UP-11 rest:UP-12
func TestPut(t *testing.T) {
	t.Parallel()
	start(t, nil).run("put", true)
}

// spec: rest:AG-01 rest:AG-02 rest:AG-03 rest:AG-04 rest:AG-05 rest:AG-06 rest:AG-07 rest:AG-08 rest:AG-10 rest:AG-11
// spec: rest:AG-12
func TestAggregates(t *testing.T) {
	t.Parallel()
	start(t, func(c *rest.Config) { c.Aggregates = true }).run("aggregates", true)
}

// The text of statements: it does not vary with values, and a total that is not
// limited costs no second scan.
//
// spec: rest:OR-19
func TestStatements(t *testing.T) {
	t.Parallel()
	start(t, func(c *rest.Config) { c.MaxRows = 0 }).run("statements", true)
}
