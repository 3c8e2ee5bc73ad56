package rest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"

	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/schema"
)

// plan is a request that was checked against one snapshot.
type plan struct {
	snapshot *schema.Snapshot
	pre      string // function to call before the query
	relation *schema.Relation
	function *schema.Function
	query    *builder
	// explain asks for the planner's number of rows, and newRows for those of
	// an upsert.
	explain *builder
	newRows bool
	// most is the total up to which an estimated count is exact.
	most     int64
	readOnly bool
	// rollback: the transaction leaves nothing behind, so that the session needs
	// less cleaning.
	rollback bool
	// immediate: deferred constraints are checked although nothing is committed.
	immediate bool
	// controlled: the query's row has the controls before the body.
	controlled bool
	hoisted    []schema.Setting
	isolation  string // a function's own; empty: the role's
	// describing is run in place of a query, and describe answers with its result.
	describing pg.Statement
	describe   func(pg.Result) (*answer, error)
	// empty is the answer when nothing has to be run.
	empty *answer
	// veto may refuse the result before it is committed.
	veto   func(counts) error
	answer func(*request, counts) (*answer, error)
}

// statements are what is run: the query, and questions about it.
func (p *plan) statements() []pg.Statement {
	var out []pg.Statement
	if p.pre != "" {
		out = append(out, noArguments(p.pre, "").statement())
	}
	if p.describe != nil {
		return append(out, p.describing)
	}
	out = append(out, p.query.statement())
	if p.explain != nil {
		out = append(out, p.explain.statement())
	}
	if p.newRows {
		out = append(out, pg.Statement{SQL: string(newRows)})
	}
	if p.immediate {
		out = append(out, pg.Statement{SQL: "SET CONSTRAINTS ALL IMMEDIATE"})
	}
	if !p.controlled {
		out = append(out, pg.Statement{SQL: string(lateControls)})
	}
	return out
}

// skip leaves the result of the function before the query out.
func (p *plan) skip(res []pg.Result) []pg.Result {
	if p.pre != "" {
		return res[1:]
	}
	return res
}

// controls is the row of what SQL has said about the answer.
func (p *plan) controls(res []pg.Result) [][]byte {
	if p.controlled {
		return res[0].Rows[0][2:4]
	}
	return res[len(res)-1].Rows[0]
}

// counts reads what the statements returned.
func (p *plan) counts(r *request, res []pg.Result) (counts, error) {
	c, err := readCounts(res[0])
	switch {
	case err != nil:
	case p.explain != nil:
		var estimate int64
		if estimate, err = planRows(res[1]); err == nil && (r.prefer.count == "planned" || c.total > p.most) {
			c.total = estimate
			if r.prefer.count == "estimated" {
				c.total = max(estimate, p.most+1)
			}
		}
	case p.newRows:
		c.inserted, err = strconv.ParseInt(string(res[1].Rows[0][0]), 10, 64)
	}
	return c, err
}

func (s *Server) plan(r *request, snap *schema.Snapshot, opt *options) (*plan, error) {
	if len(r.items) == 0 {
		r.items = []selectItem{{star: true}}
	}
	if r.target == "" {
		return s.planRoot(r, snap, opt)
	}
	p, err := s.planTarget(r, snap, opt)
	switch {
	case err != nil:
	case r.method == http.MethodOptions:
		p.empty = &answer{status: http.StatusOK, allow: p.allow(), length: true}
	case r.media.plan != nil && p.query != nil:
		p.query, p.explain, p.newRows = p.query.explained(r.media.plan), nil, false
	}
	return p, err
}

func (s *Server) planTarget(r *request, snap *schema.Snapshot, opt *options) (*plan, error) {
	if r.function {
		return s.planCall(r, snap, opt)
	}
	rel := snap.Relation(r.schema, r.target)
	if rel == nil {
		e := fail(http.StatusNotFound, "PGRST205", fmt.Sprintf("Could not find the table '%s.%s' in the schema cache", r.schema, r.target))
		if n := snap.NearestRelation(r.schema, r.target); n != "" {
			e.Hint = fmt.Sprintf("Perhaps you meant the table '%s.%s'", r.schema, n)
		}
		return nil, e
	}
	p := &plan{relation: rel}
	r.source = source{alias: rel.Name, relation: rel}
	switch r.method {
	case http.MethodGet, http.MethodHead:
		return p, s.planRead(r, p, snap, opt)
	case http.MethodPost:
		return p, s.planInsert(r, p, snap, opt)
	case http.MethodPatch:
		return p, s.planUpdate(r, p, snap, opt)
	case http.MethodPut:
		return p, s.planPut(r, p, snap, opt)
	case http.MethodDelete:
		if err := resolve(r, snap, opt); err != nil {
			return nil, err
		}
		p.query = deleteQuery(r)
		p.answer = s.deleteAnswer
		p.veto = vetoWrite(r, true)
	}
	return p, nil
}

// resolve finds the embedded resources of a request. A write returns them with
// its representation alone; its filters choose rows of its own relation.
func resolve(r *request, snap *schema.Snapshot, opt *options) error {
	v := resolver{snap: snap, schema: r.schema, maxRows: opt.maxRows, aggregates: opt.aggregates, top: r.source.alias}
	return v.resolve(&r.node, 1, r.reads() || r.function)
}

func (s *Server) planRead(r *request, p *plan, snap *schema.Snapshot, opt *options) error {
	if err := resolve(r, snap, opt); err != nil {
		return err
	}
	r.limit = capped(r.limit, opt.maxRows)
	p.readOnly, p.rollback, p.controlled, p.answer = true, true, true, s.readAnswer
	b := &builder{}
	f := func(b *builder) from {
		return func() {
			b.relation(p.relation)
			b.lit(" AS ")
			b.ident(r.source.alias)
		}
	}
	counted, atMost := r.prefer.counts() && (r.limit != nil || r.offset > 0), (*int64)(nil)
	estimated := counted && r.prefer.count == "estimated" && opt.maxRows > 0
	if r.prefer.count == "planned" || estimated {
		all := &builder{}
		all.all(&r.node, f(all))
		p.explain = all.explained(&planMedia{json: true})
	}
	if estimated {
		n := opt.maxRows + 1
		atMost, p.most = &n, opt.maxRows
	}
	b.lit("WITH ")
	counted = counted && r.prefer.count != "planned"
	b.read(&r.node, f(b), counted, atMost)
	b.result(r.media, counted, r.method != http.MethodHead, true)
	p.query = b
	return nil
}

// planRows reads the planner's number of rows from EXPLAIN (FORMAT JSON).
func planRows(res pg.Result) (int64, error) {
	var plans []struct {
		Plan struct {
			Rows int64 `json:"Plan Rows"`
		}
	}
	if len(res.Rows) != 1 {
		return 0, fmt.Errorf("EXPLAIN returned %d rows", len(res.Rows))
	}
	if err := json.Unmarshal(res.Rows[0][0], &plans); err != nil || len(plans) != 1 {
		return 0, fmt.Errorf("read EXPLAIN: %w", err)
	}
	return plans[0].Plan.Rows, nil
}

// single refuses anything but one row when an object was asked for.
func single(rows int64) error {
	if rows == 1 {
		return nil
	}
	return fail(http.StatusNotAcceptable, "PGRST116", "Cannot coerce the result to a single JSON object").
		details(fmt.Sprintf("The result contains %d rows", rows))
}

// vetoWrite refuses a write that touches more rows than the request allows.
// bounded: max-affected counts.
func vetoWrite(r *request, bounded bool) func(counts) error {
	if !bounded {
		r.prefer.maxAffected = -1
	}
	if !r.media.single && r.prefer.maxAffected < 0 {
		return nil
	}
	return func(c counts) error {
		if r.prefer.maxAffected >= 0 && c.total > r.prefer.maxAffected {
			return fail(http.StatusBadRequest, "PGRST124", "Query result exceeds max-affected preference constraint").
				details(fmt.Sprintf("The query affects %d rows", c.total))
		}
		if r.media.single {
			return single(c.total)
		}
		return nil
	}
}

// allow lists the methods of a relation or function.
func (p *plan) allow() string {
	if p.function != nil {
		if p.function.Volatility == 'v' {
			return "OPTIONS,POST"
		}
		return "OPTIONS,GET,HEAD,POST"
	}
	out := "OPTIONS,GET,HEAD"
	rel := p.relation
	if rel.Insertable {
		out += ",POST"
	}
	if rel.Insertable && rel.Updatable && len(rel.PrimaryKey) > 0 {
		out += ",PUT"
	}
	if rel.Updatable {
		out += ",PATCH"
	}
	if rel.Deletable {
		out += ",DELETE"
	}
	return out
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
