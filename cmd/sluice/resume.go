package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/changes"
	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/wal"
)

// resumeSettings say how long and how much is kept for clients that were cut off.
// Zero is the component's default.
type resumeSettings struct {
	grace    time.Duration
	memory   int    // bytes of changes
	wal      int64  // bytes of WAL that may be held back
	journal  string // file of positions, empty for none
	failover bool
}

// resumeConfig reads the settings of docs/config.md. All mistakes are reported at
// once. positions is where the file stands unless it is named.
func resumeConfig(lookup func(string) (string, bool), positions string) (resumeSettings, error) {
	r := resumeSettings{journal: positions}
	var errs []error
	megabytes := func(name string) int64 {
		text, _ := lookup(name)
		if text == "" {
			return 0
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < 1 || n > math.MaxInt32 {
			errs = append(errs, fmt.Errorf("%s is %q: it must be a number of megabytes, at least 1", name, text))
			return 0
		}
		return n << 20
	}
	r.memory = int(megabytes("SLUICE_RESUME_MEMORY_MB"))
	r.wal = megabytes("SLUICE_RESUME_WAL_MB")
	if text, _ := lookup("SLUICE_RESUME_GRACE"); text != "" {
		var err error
		if r.grace, err = time.ParseDuration(text); err != nil || r.grace <= 0 {
			errs = append(errs, fmt.Errorf("SLUICE_RESUME_GRACE is %q: it must be a time such as 60s", text))
		}
	}
	switch text, _ := lookup("SLUICE_RESUME_JOURNAL"); text {
	case "":
	case "off":
		r.journal = ""
	default:
		r.journal = text
	}
	if text, _ := lookup("SLUICE_SLOT_FAILOVER"); text != "" {
		var err error
		if r.failover, err = strconv.ParseBool(text); err != nil {
			errs = append(errs, fmt.Errorf("SLUICE_SLOT_FAILOVER is %q: it must be true or false", text))
		}
	}
	return r, errors.Join(errs...)
}

// aboutSQL names the database and the timeline of its server, and how far that is.
const aboutSQL = `select concat_ws(' ', s.system_identifier, (select oid from pg_database where datname = current_database()),
       substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8)), pg_current_wal_insert_lsn()::text
  from pg_control_system() s`

// openJournal opens the file of positions for the database that admin is connected
// to. In another one they mean nothing, nor in one that was put back to an earlier
// state meanwhile.
func openJournal(ctx context.Context, admin *pg.Pool, path string) (*changes.Journal, error) {
	if path == "" {
		return nil, nil
	}
	var about, text string
	if err := admin.QueryRow(ctx, aboutSQL).Scan(&about, &text); err != nil {
		return nil, pg.Wrap(err, "ask which database this is")
	}
	at, err := sluice.ParseLSN(text)
	if err != nil {
		return nil, fmt.Errorf("ask how far the server is: %w", err)
	}
	j, err := changes.OpenJournal(path, about)
	if err == nil && j.Mark() > at {
		if err = j.Lose(at); err != nil {
			_ = j.Close()
		}
	}
	return j, err
}

// keptCollector shows what is kept for clients that may come back, and the lag.
type keptCollector struct {
	feed   *changes.Service
	reader *wal.Reader
}

// Describe implements prometheus.Collector.
func (c keptCollector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

// Collect implements prometheus.Collector.
func (c keptCollector) Collect(ch chan<- prometheus.Metric) {
	one := func(kind prometheus.ValueType, name, help string, v float64) {
		ch <- prometheus.MustNewConstMetric(prometheus.NewDesc("sluice_changes_"+name, help, nil, nil), kind, v)
	}
	gauge := func(name, help string, v int64) { one(prometheus.GaugeValue, name, help, float64(v)) }
	counter := func(name, help string, v int64) { one(prometheus.CounterValue, name, help, float64(v)) }
	kept, s := c.feed.Kept(), c.reader.State()
	gauge("ring_bytes", "Changes kept for who comes back.", int64(kept.Bytes))
	gauge("held_positions", "Channels whose clients may come back.", int64(kept.Held))
	counter("held_positions_dropped_total", "Channels forgotten because too many are held.", int64(kept.Dropped))
	gauge("slot_lag_bytes", "WAL that the server keeps for the slot.", int64(s.Server)-int64(s.Confirmed))
	gauge("stream_lag_bytes", "WAL that was not handed on yet.", int64(s.Server)-int64(s.Handed))
	counter("slot_gaps_total", "Times that changes of the slot were given up.", int64(s.Gaps))
	counter("slot_let_go_total", "Times that more WAL was held back than the budget allows.", int64(s.LetGo))
}
