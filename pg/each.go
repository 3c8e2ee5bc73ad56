package pg

import (
	"context"
	"slices"

	"github.com/jackc/pgx/v5/pgconn"
)

// AsEach runs one statement as every identity in turn, in one transaction and
// one network flush: settings, what is given, statement, back to the savepoint. The whole
// transaction is rolled back, so side effects of functions do not stay.
// opt.Rollback is implied. Errors of single statements are in the results; the
// returned error means that nothing was decided. The caller bounds the number of
// checks and the rows of each.
//
// Statements that are sent more than once are prepared (see registry). What fails
// because of one that was prepared earlier is asked again without.
func (p *Pool) AsEach(ctx context.Context, sql string, checks []EachCheck, opt AsOptions) ([]EachResult, error) {
	if len(checks) == 0 {
		return nil, nil
	}
	e := each{sql: sql, checks: checks, readOnly: opt.ReadOnly, out: make([]EachResult, len(checks)), sets: make([]eachSets, len(checks))}
	for i := range checks {
		e.sets[i].own, e.sets[i].given, e.out[i].Err = checks[i].settings(opt)
		if e.sets[i].own != nil {
			e.turn = append(e.turn, i)
		}
	}
	c, err := p.Acquire(ctx)
	if err != nil {
		return nil, Wrap(err, "acquire connection")
	}
	clean := false
	defer func() { release(c, clean) }()
	e.conn = c.Conn().PgConn()
	if err := e.ask(ctx); err != nil {
		if e.conn.IsClosed() {
			// Cancelling ends one statement, and the server would go on with the
			// checks behind it; without its client it stops.
			_ = e.conn.Conn().Close()
		}
		return nil, Wrap(err, "run checks")
	}
	clean = !e.forged
	return e.out, nil
}

// each is one call of AsEach.
type each struct {
	// fixed
	conn     *pgconn.PgConn
	sql      string
	checks   []EachCheck
	sets     []eachSets
	readOnly bool

	turn   []int // the checks to be asked
	plain  bool  // nothing is prepared
	reused bool  // a statement was prepared
	forged bool  // somebody has prepared statements in SQL
	out    []EachResult

	// of one conversation
	statements map[statementKey]*entry // nil: sent as text
	fronts     []front
}

// eachSets are the settings of a check and of what is given for it.
type eachSets struct{ own, given []Setting }

// front is what is prepared ahead of the checks, under one role and search_path.
type front struct {
	scope   string
	set     []Setting
	entries []*entry
	texts   []string
}

// ask has the conversation, and once more, without prepared statements, what
// failed for their sake.
func (e *each) ask(ctx context.Context) error {
	err := e.converse(ctx)
	switch {
	case e.conn.IsClosed():
		return err
	case err == nil && e.forged, err != nil && e.reused && staleStates[SQLState(err)]:
		// A function has dropped all of them, or may have put others in their
		// place: nothing of this can be relied upon.
		registryOf(e.conn).clear()
		if _, rerr := e.conn.Exec(ctx, "rollback").ReadAll(); rerr != nil {
			return rerr
		}
		e.plain = true
		return e.converse(ctx)
	case err != nil:
		return err
	}
	before := e.turn
	e.turn = nil
	for _, i := range before {
		if e.reused && staleStates[SQLState(e.out[i].Err)] {
			e.turn = append(e.turn, i)
		}
	}
	if len(e.turn) == 0 {
		return nil
	}
	first := make([]string, len(e.turn))
	for k, i := range e.turn {
		first[k] = SQLState(e.out[i].Err)
	}
	e.plain = true
	if err := e.converse(ctx); err != nil {
		return err
	}
	for k, i := range e.turn {
		if SQLState(e.out[i].Err) != first[k] { // so it was the statement's fault
			registryOf(e.conn).clear()
			break
		}
	}
	return nil
}

// converse asks the checks whose turn it is, in one flush.
func (e *each) converse(ctx context.Context) error {
	for _, i := range e.turn {
		e.out[i] = EachResult{}
	}
	pipe := e.conn.StartPipeline(ctx)
	s := sender{pipe: pipe, registry: registryOf(e.conn)}
	s.deallocate()
	e.statements, e.fronts = nil, nil
	if !e.plain {
		e.prepare(s.registry)
	}
	e.send(pipe, s.registry)
	err := pipe.Flush()
	if err == nil {
		err = e.read(pipe)
	}
	if cerr := pipe.Close(); err == nil {
		err = cerr
	}
	for i := range e.fronts {
		for _, en := range e.fronts[i].entries { // what is left was not prepared
			s.registry.drop(en)
		}
	}
	return err
}

// eachScope is what tells prepared statements of equal text apart.
func eachScope(set []Setting) string {
	scope := set[0].Value // the role
	for _, v := range set {
		if v.Name == "search_path" {
			scope += "\x00" + v.Value
		}
	}
	return scope
}

// prepare decides which statements are prepared, and for those that are not yet
// notes that they are to be: ahead of the checks, under their role and
// search_path, so that the failure of one check takes nothing from the others.
func (e *each) prepare(r *registry) {
	uses := map[statementKey]int{}
	count := func(scope, sql string, set []Setting) {
		key := statementKey{scope, sql}
		uses[key]++
		if uses[key] > 2 {
			return
		}
		en, fresh := r.use(scope, sql) // again: others may have taken its room
		e.statements[key] = en
		if fresh || en.name != "" {
			return
		}
		r.name(en)
		i := slices.IndexFunc(e.fronts, func(f front) bool { return f.scope == scope })
		if i < 0 {
			i = len(e.fronts)
			e.fronts = append(e.fronts, front{scope: scope, set: set})
		}
		f := &e.fronts[i]
		f.entries, f.texts = append(f.entries, en), append(f.texts, sql)
	}
	e.statements = map[statementKey]*entry{}
	for _, i := range e.turn {
		set := e.sets[i]
		after := ""
		if set.given != nil {
			after = eachScope(set.given)
			count("", settingsSQL(len(set.given)), nil)
			count(after, e.checks[i].Given.SQL, set.given)
		}
		count(after, settingsSQL(len(set.own)), set.given)
		count(eachScope(set.own), e.sql, set.own)
	}
	for _, en := range e.statements {
		e.reused = e.reused || en != nil && en.name != ""
	}
}

// send queues the whole conversation. Each check is two groups: an error in
// the first skips to its sync, and the second runs in the failed transaction,
// where ROLLBACK TO is allowed. One savepoint serves all; it survives ROLLBACK
// TO, which also takes back the identity's settings. The way back and the end are
// never prepared: a function can drop prepared statements, and prepare others
// under their names, which the end looks for.
func (e *each) send(pipe *pgconn.Pipeline, r *registry) {
	text := func(sql string) { pipe.SendQueryParams(sql, nil, nil, nil, nil) }
	back := func() {
		pipe.SendPipelineSync()
		text("rollback to savepoint s")
		pipe.SendPipelineSync()
	}
	text(beginSQL(e.readOnly, ""))
	text("savepoint s")
	pipe.SendPipelineSync()
	for i := range e.fronts {
		f := &e.fronts[i]
		if set := identityOnly(f.set); len(set) > 0 {
			pipe.SendQueryParams(settingsSQL(len(set)), settingsArgs(set), nil, nil, nil)
		}
		for k, en := range f.entries {
			pipe.SendPrepare(en.name, f.texts[k], nil)
		}
		back()
	}
	for _, i := range e.turn {
		set, ch := e.sets[i], &e.checks[i]
		after := ""
		if set.given != nil {
			after = eachScope(set.given)
			e.query(pipe, "", settingsSQL(len(set.given)), settingsArgs(set.given))
			e.query(pipe, after, ch.Given.SQL, ch.Given.Args)
		}
		e.query(pipe, after, settingsSQL(len(set.own)), settingsArgs(set.own))
		e.query(pipe, eachScope(set.own), e.sql, ch.Args)
		back()
	}
	text("rollback")
	// Advisory locks of the session are the one thing that outlives rollback,
	// beside prepared statements: those made in SQL are not ours.
	text("select pg_catalog.pg_advisory_unlock_all(), exists (select from pg_catalog.pg_prepared_statement() where from_sql)")
	pipe.SendPipelineSync()
}

// identityOnly leaves of settings those that a statement is analysed under.
func identityOnly(set []Setting) []Setting {
	var out []Setting
	for _, v := range set {
		if v.Name == "role" || v.Name == "search_path" {
			out = append(out, v)
		}
	}
	return out
}

// query queues one statement of a check.
func (e *each) query(pipe *pgconn.Pipeline, scope, sql string, args [][]byte) {
	switch en := e.statements[statementKey{scope, sql}]; {
	case en == nil || en.name == "":
		pipe.SendQueryParams(sql, args, nil, nil, nil)
	case en.desc != nil:
		pipe.SendQueryStatement(en.desc, args, nil, nil)
	default:
		pipe.SendQueryPrepared(en.name, args, nil, nil)
	}
}

// read reads the answers to send. An error means that the conversation is broken,
// not that a check failed.
func (e *each) read(pipe *pgconn.Pipeline) error {
	if err := readGroup(pipe, nil); err != nil {
		return err
	}
	for i := range e.fronts {
		// What cannot be prepared fails again, for the checks concerned.
		if err := e.fronts[i].read(pipe); err != nil && SQLState(err) == "" {
			return err
		}
		if err := readGroup(pipe, nil); err != nil {
			return err
		}
	}
	for _, i := range e.turn {
		if err := readGroup(pipe, &e.out[i]); err != nil {
			return err
		}
		if err := readGroup(pipe, nil); err != nil {
			return err
		}
	}
	var end EachResult
	err := readGroup(pipe, &end)
	if err == nil {
		err = end.Err
	}
	e.forged = err == nil && (len(end.Rows) != 1 || string(end.Rows[0][1]) != "f")
	return err
}

// read takes the descriptions of what was prepared, up to the next sync.
func (f *front) read(pipe *pgconn.Pipeline) error {
	return readResults(pipe, func(d *pgconn.StatementDescription) {
		en := f.entries[0]
		f.entries = f.entries[1:]
		d.Name, d.SQL = en.name, ""
		en.desc = d
	}, nil)
}
