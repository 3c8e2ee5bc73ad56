package realtime_test

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-dev/sluice/realtime"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

type sample struct {
	name, label string
	value       float64
	help        string
}

// gather returns the server's metrics as a registry does.
func gather(t testing.TB, srv *realtime.Server) (out []sample) {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	if err := reg.Register(srv.Metrics()); err != nil {
		t.Fatal(err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			s := sample{name: f.GetName(), help: f.GetHelp(), value: m.GetCounter().GetValue() + m.GetGauge().GetValue()}
			for _, l := range m.GetLabel() {
				s.label = l.GetValue()
			}
			out = append(out, s)
		}
	}
	return out
}

func TestMetrics(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		c := w.connect(phoenix.V2)
		join, _ := c.joined("realtime:a", `{"config":{"broadcast":{"self":true}}}`)
		c.push(join, "realtime:a", "broadcast", `{"event":"x"}`)
		c.text("nonsense")
		c.got()
		for _, tt := range []struct {
			name, label string
			want        float64
		}{
			{"connections", "", 1},
			{"users", "", 1},
			{"channels", "", 1},
			{"joins_total", "asked", 1},
			{"frames_total", "in", 3},
			{"frames_total", "out", 2},
			{"deliveries_total", "broadcast", 1},
			{"dropped_total", "malformed", 1},
			{"queue_bytes", "", 0},
			{"held_messages", "", 0},
			{"limit_bound", "events", 100},
			{"limit_bound", "users", 200},
			{"limit_bound", "presence", 1000},
			{"limit_bound", "joins", 100},
		} {
			if got := w.metric(tt.name, tt.label); got != tt.want {
				t.Errorf("%s %s is %v, want %v", tt.name, tt.label, got, tt.want)
			}
		}
		for _, s := range gather(t, w.srv) {
			if !strings.HasPrefix(s.name, "sluice_realtime_") || s.help == "" {
				t.Errorf("metric %+v", s)
			}
		}
	})
}
