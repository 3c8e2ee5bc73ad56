package realtime

import (
	"context"
	_ "embed" // the statements
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

//go:embed sql/probe_rows.sql
var probeRowsSQL string

//go:embed sql/probe_read.sql
var probeReadSQL string

//go:embed sql/probe_write.sql
var probeWriteSQL string

//go:embed sql/make_partitions.sql
var makePartitionsSQL string

// extension tells broadcast from presence, as policies do by the column
// extension of realtime.messages.
type extension int

const (
	broadcasts extension = iota
	presences
	extensions // how many there are
)

var extensionNames = [extensions]string{"broadcast", "presence"}

// probe asks what one identity may do on one private topic. The policies of
// realtime.messages decide: who sees a row of the topic that is put there for
// the moment may read, who may insert one may write. Nothing of it stays.
type probe struct {
	claims  sluice.Claims
	topic   string
	headers []byte // what policies see as request.headers, a JSON object; nil is {}
	write   bool
	of      []extension

	// owned by policies
	ctx   context.Context // of whoever waits for the answer
	taken atomic.Bool     // a worker has it
	done  chan struct{}   // closed behind answer
	answer
}

// answer says yes or no for each extension that was asked about.
type answer struct {
	allowed [extensions]bool
	err     *sluice.Refusal // the question could not be decided, which counts as no
}

// policies asks the policies of realtime.messages as the users. Probes that
// come at the same time share a flush; a probe's error is its own.
type policies struct {
	// fixed after newPolicies
	users    *pg.Pool // nil: nothing can be decided
	admin    *pg.Pool // nil: missing partitions stay missing
	log      *slog.Logger
	metrics  *Metrics
	timeout  time.Duration // of one statement
	deadline time.Duration // of one flush

	queue chan *probe
}

// Bounds of one flush. With policies that take long it holds fewer probes, so
// that a quick one does not wait for many slow ones.
const (
	probesAtOnce = 32
	flushTime    = 100 * time.Millisecond
)

// policySearchPath is what functions called by policies run under, here as in
// REST and in Postgres Changes.
const policySearchPath = "public, extensions"

func newPolicies(cfg *Config, m *Metrics) *policies {
	return &policies{
		users: cfg.Users, admin: cfg.Admin, log: cfg.Logger, metrics: m,
		timeout: cfg.PolicyTimeout, deadline: cfg.JoinTimeout, queue: make(chan *probe, cfg.MaxPolicyChecks),
	}
}

// run asks, with as many workers as the pool has connections, until ctx ends.
func (p *policies) run(ctx context.Context) {
	if p.users == nil {
		return
	}
	var workers sync.WaitGroup
	for range p.users.Config().MaxConns {
		workers.Go(func() { p.work(ctx) }) // ends with ctx
	}
	workers.Wait()
}

// ask waits for the answer to q. When ctx ends first the answer is a no.
func (p *policies) ask(ctx context.Context, q *probe) answer {
	p.submit(ctx, q)
	return p.wait(q)
}

// submit hands q to the workers; wait follows.
func (p *policies) submit(ctx context.Context, q *probe) {
	q.ctx, q.done = ctx, make(chan struct{})
	if p.users == nil {
		q.refuse(sluice.Refuse(sluice.CodeUnableToConnect))
		return
	}
	select {
	case p.queue <- q:
	default:
		q.refuse(sluice.Refuse(sluice.CodePoolExhausted))
	}
}

func (p *policies) wait(q *probe) answer {
	select {
	case <-q.done:
		return q.answer
	case <-q.ctx.Done():
	}
	code := connectCode(q.ctx.Err())
	if !q.taken.Load() && errors.Is(q.ctx.Err(), context.DeadlineExceeded) {
		code = sluice.CodePoolExhausted
	}
	return answer{err: sluice.Refuse(code).WithCause(q.ctx.Err())}
}

func (q *probe) refuse(r *sluice.Refusal) {
	q.answer = answer{err: r}
	close(q.done)
}

func (p *policies) work(ctx context.Context) {
	size := probesAtOnce
	for {
		var batch []*probe
		select {
		case <-ctx.Done():
			return
		case q := <-p.queue:
			batch = append(batch, q)
		}
		for len(batch) < size && len(p.queue) > 0 {
			select {
			case q := <-p.queue:
				batch = append(batch, q)
			default: // another worker was quicker
			}
		}
		start := time.Now()
		p.decide(ctx, batch)
		each := max(time.Since(start)/time.Duration(len(batch)), 1)
		size = min(max(int(flushTime/each), 1), probesAtOnce)
	}
}

// decide answers the probes of batch whose askers still wait.
func (p *policies) decide(ctx context.Context, batch []*probe) {
	ctx, cancel := context.WithTimeout(ctx, p.deadline)
	defer cancel()
	var reads, writes []*probe
	for _, q := range batch {
		q.taken.Store(true)
		switch {
		case q.ctx.Err() != nil:
			q.refuse(sluice.Refuse(connectCode(q.ctx.Err())))
		case q.write:
			writes = append(writes, q)
		default:
			reads = append(reads, q)
		}
	}
	p.flush(ctx, reads, p.read)
	p.flush(ctx, writes, p.write)
}

// flush answers all of batch by ask. Those that found no partition for today's
// rows are asked once more when it could be made.
func (p *policies) flush(ctx context.Context, batch []*probe, ask func(context.Context, []*probe) []error) {
	for again := true; len(batch) > 0; again = false {
		p.metrics.PolicyChecks.Add(int64(len(batch)))
		p.metrics.PolicyFlushes.Add(1)
		var missing []*probe
		for i, err := range ask(ctx, batch) {
			q := batch[i]
			switch {
			case err == nil:
				close(q.done)
			case again && pg.IsNoPartition(err):
				missing = append(missing, q)
			default:
				q.refuse(checkRefusal(err))
			}
		}
		if len(missing) > 0 {
			p.makePartitions(ctx)
		}
		batch = missing
	}
}

// makePartitions makes what cmd/sluice makes every hour. A failure shows in the
// probe that is repeated.
func (p *policies) makePartitions(ctx context.Context) {
	if p.admin == nil {
		return
	}
	_, err := p.admin.Exec(ctx, makePartitionsSQL)
	p.log.Warn("realtime.messages had no partition for today", sluice.LogCode, sluice.CodeMissingPartition, sluice.LogError, err)
}

// read asks read probes: their rows are put there as service_role and looked for
// as the user. It sets what is allowed and returns an error for each probe.
func (p *policies) read(ctx context.Context, batch []*probe) []error {
	now := time.Now().UTC().AppendFormat(nil, "2006-01-02 15:04:05.000000")
	checks := make([]pg.EachCheck, len(batch))
	ids := make([][]string, len(batch))
	for i, q := range batch {
		var names []string
		for _, e := range q.of {
			ids[i], names = append(ids[i], newUUID()), append(names, extensionNames[e])
		}
		array := textArray(ids[i])
		checks[i] = q.check(array, now)
		checks[i].Given = pg.Statement{SQL: probeRowsSQL, Args: [][]byte{[]byte(q.topic), array, textArray(names), now}}
	}
	results, errs := p.asEach(ctx, probeReadSQL, checks)
	for i, q := range batch {
		for _, row := range results[i].Rows {
			if at := slices.Index(ids[i], string(row[0])); at >= 0 {
				q.allowed[q.of[at]] = true
			}
		}
	}
	return errs
}

// insufficientPrivilege is the SQLSTATE of a row that the policies refuse.
const insufficientPrivilege = "42501"

// write asks write probes: the user inserts a row for each extension, in a
// savepoint of its own. Not being permitted to is the answer no.
func (p *policies) write(ctx context.Context, batch []*probe) []error {
	var checks []pg.EachCheck
	for _, q := range batch {
		for _, e := range q.of {
			checks = append(checks, q.check([]byte(q.topic), []byte(extensionNames[e])))
		}
	}
	_, results := p.asEach(ctx, probeWriteSQL, checks)
	errs := make([]error, len(batch))
	for i, q := range batch {
		for n, e := range q.of {
			err := results[n]
			q.allowed[e] = err == nil
			if err != nil && pg.SQLState(err) != insufficientPrivilege && errs[i] == nil {
				errs[i] = err
			}
		}
		results = results[len(q.of):]
	}
	return errs
}

// asEach is Pool.AsEach; an error of the whole is everybody's, and not about
// policies.
func (p *policies) asEach(ctx context.Context, sql string, checks []pg.EachCheck) ([]pg.EachResult, []error) {
	results, err := p.users.AsEach(ctx, sql, checks, pg.AsOptions{
		StatementTimeout: p.timeout, Settings: []pg.Setting{{Name: "search_path", Value: policySearchPath}},
	})
	errs := make([]error, len(checks))
	if err != nil {
		r := sluice.Refuse(connectCode(err)).WithCause(err)
		for i := range errs {
			errs[i] = r
		}
		return make([]pg.EachResult, len(checks)), errs
	}
	for i, r := range results {
		errs[i] = r.Err
	}
	return results, errs
}

func (q *probe) check(args ...[]byte) pg.EachCheck {
	headers := "{}"
	if q.headers != nil {
		headers = string(q.headers)
	}
	return pg.EachCheck{
		Claims: q.claims, Args: args,
		Settings: []pg.Setting{{Name: "realtime.topic", Value: q.topic}, {Name: "request.headers", Value: headers}},
	}
}

// textArray is an array of words and UUIDs as PostgreSQL reads it.
func textArray(words []string) []byte {
	return fmt.Appendf(nil, "{%s}", strings.Join(words, ","))
}

// connectCode classifies an error that kept all of a flush from being asked.
func connectCode(err error) sluice.Code {
	switch {
	case pg.SQLState(err) == "53300":
		return sluice.CodeLackOfConnections
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return sluice.CodeInitializing
	}
	return sluice.CodeUnableToConnect
}

// checkRefusal classifies the error of one probe. A statement that PostgreSQL
// refused is the policies' fault or the role's, with three exceptions.
func checkRefusal(err error) *sluice.Refusal {
	var r *sluice.Refusal
	code := sluice.CodePolicyError
	switch {
	case errors.As(err, &r):
		return r
	case pg.IsNoPartition(err):
		code = sluice.CodeMissingPartition
	case errors.Is(err, sluice.ErrTimeout):
		code = sluice.CodeQueryCanceled
	case errors.Is(err, sluice.ErrUnavailable):
		code = sluice.CodeUnableToConnect
	}
	return sluice.Refuse(code).WithCause(err)
}
