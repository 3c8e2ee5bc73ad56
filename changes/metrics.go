package changes

import (
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sluice-dev/sluice/policy"
)

// Metrics are counters of a Service. As a prometheus.Collector they are
// registered by main.
type Metrics struct {
	Subscriptions  atomic.Int64    // gauge
	Changes        atomic.Int64    // that had a candidate
	Tiers          [4]atomic.Int64 // pairs of a row and somebody who asks, by policy.Tier; what an index skips is not counted
	SetErrors      atomic.Int64    // rows whose statement of tier 2 raised an error
	Disagreements  atomic.Int64    // see Config.Verify
	Deliveries     atomic.Int64
	DeniedByError  atomic.Int64
	NotVisible     atomic.Int64 // commits that were not visible in time
	TooLarge       atomic.Int64
	VisibleRetries atomic.Int64
	Runs           atomic.Int64 // transactions of a table that were decided together are one
	Rows           atomic.Int64 // changes in them
	GivenUp        atomic.Int64 // changes of tables whose policies are too slow
	Resumes        atomic.Int64 // subscriptions that went on where they were cut
	Gaps           atomic.Int64 // and those whose changes were gone
	Replayed       atomic.Int64 // changes sent to those that went on
	JournalErrors  atomic.Int64

	workers *workers // fixed after New
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("sluice_changes_"+name, help, labels, nil)
}

var (
	descSubscriptions = desc("subscriptions", "Live subscriptions.")
	descQueue         = desc("queue_changes", "Changes that wait, by worker: its number, or the table that has one of its own.", "worker")
	descRuns          = desc("runs_total", "Rounds of decisions about one table.")
	descRows          = desc("run_rows_total", "Changes in them; by runs it is how many share one.")
	descCandidates    = desc("candidates_total", "Changes that somebody might see.")
	descDecisions     = desc("decisions_total", "Pairs of a row and a set of claims that were decided, by tier: predicate (evaluated here), set (one statement for all), user (asked as each).", "tier")
	descSetErrors     = desc("set_errors_total", "Rows whose set-based statement raised an error, so that everybody was asked as the user.")
	descDisagreements = desc("disagreements_total", "Decisions of a compiled policy that PostgreSQL did not share; the table is asked as the user since.")
	descDeliveries    = desc("deliveries_total", "Changes handed to a channel.")
	descDropped       = desc("dropped_total", "Changes that were not delivered, by reason: given_up by change, policy_error by identity and row.", "reason")
	descVisible       = desc("commit_waits_total", "Looks at commits that were not visible yet, by result.", "result")
	descResumes       = desc("resumes_total", "Channels that came back, by result: resumed, or gap when changes were lost.", "result")
	descReplayed      = desc("replayed_total", "Changes sent to those that came back.")
	descJournal       = desc("journal_errors_total", "Failed writes of the file of positions.")
	descTooLarge      = desc("records_cut_total", "Rows sent without their large values.")
)

// Describe implements prometheus.Collector.
func (m *Metrics) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

// Collect implements prometheus.Collector.
func (m *Metrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v *atomic.Int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v.Load()), labels...)
	}
	gauge(descSubscriptions, float64(m.Subscriptions.Load()))
	m.workers.depths(func(worker string, changes int) { gauge(descQueue, float64(changes), worker) })
	counter(descRuns, &m.Runs)
	counter(descRows, &m.Rows)
	counter(descCandidates, &m.Changes)
	for t := policy.TierPredicate; t <= policy.TierUser; t++ {
		counter(descDecisions, &m.Tiers[t], t.String())
	}
	counter(descSetErrors, &m.SetErrors)
	counter(descDisagreements, &m.Disagreements)
	counter(descDeliveries, &m.Deliveries)
	counter(descDropped, &m.GivenUp, "given_up")
	counter(descDropped, &m.DeniedByError, "policy_error")
	counter(descVisible, &m.VisibleRetries, "again")
	counter(descVisible, &m.NotVisible, "given_up")
	counter(descTooLarge, &m.TooLarge)
	counter(descResumes, &m.Resumes, "resumed")
	counter(descResumes, &m.Gaps, "gap")
	counter(descReplayed, &m.Replayed)
	counter(descJournal, &m.JournalErrors)
}
