package changes

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

//go:embed sql/find.sql
var findSQL string

// Bounds of a trace.
const (
	traceChanges = 5                // without a limit
	traceListen  = 50               // subscriptions of one user
	traceTime    = 10 * time.Second // the database may be away
)

// Trace implements sluice.Tracer. The changes in the ring, and the row as it is now
// when a key names one, go through match and policies once more, for each
// subscription of the user that is for the table; without one, for a subscription to
// the whole table that the user could have. Nothing is sent.
func (s *Service) Trace(ctx context.Context, req sluice.TraceRequest) (*sluice.Trace, error) {
	ctx, cancel := context.WithTimeout(ctx, traceTime)
	defer cancel()
	var oid uint32
	if err := s.cfg.Admin.QueryRow(ctx, findSQL, req.Schema, req.Table).Scan(&oid); err != nil {
		if errors.Is(pg.Kind(err), sluice.ErrNotFound) {
			return nil, fmt.Errorf("there is no table %s.%s: %w", req.Schema, req.Table, sluice.ErrNotFound)
		}
		return nil, pg.Wrap(err, "look for table %s.%s", req.Schema, req.Table)
	}
	t, err := s.catalog.load(ctx, oid) // as it is now: the stream may not have told of it yet
	if err != nil {
		return nil, err
	}
	role, err := s.catalog.role(ctx, t, req.Claims.Role)
	if err != nil {
		return nil, err
	}
	out := &sluice.Trace{
		Table: t.def.Schema + "." + t.def.Name, Published: []string{}, Tier: role.shownTier(), Handed: s.cfg.Stream.Handed(), Settled: s.settled(),
		Watched: s.ring.wanted(t.def.Schema, t.def.Name), Changes: []sluice.TraceChange{},
	}
	for _, k := range []sluice.ChangeKind{sluice.ChangeInsert, sluice.ChangeUpdate, sluice.ChangeDelete} {
		if t.published(k) {
			out.Published = append(out.Published, k.String())
		}
	}
	for _, at := range t.key {
		out.Key = append(out.Key, t.def.Columns[at].Name)
	}
	key, err := traceKey(out.Key, req.Key)
	if err != nil {
		return nil, err
	}
	if req.Limit <= 0 {
		req.Limit = traceChanges
	}
	subs := s.listening(req.Subject, t)
	jobs := s.ring.latest(t.def.Schema, t.def.Name, req.Limit, func(j *job, i int) bool {
		return key == nil || maps.Equal(keyOfChange(j.rel, &j.changes[i], out.Key), key)
	})
	if key != nil {
		now, err := s.current(ctx, t, out.Key, key)
		switch {
		case err == nil:
			jobs = append(jobs, now)
		case !notFound(err):
			return nil, err
		}
	}
	for i := range jobs {
		out.Changes = append(out.Changes, s.trace(ctx, t, &jobs[i], out.Key, subs, req.Claims))
	}
	return out, ctx.Err()
}

// traceKey gives the values of a request's key their columns; nil without any.
func traceKey(columns []string, given map[string]string) (map[string]string, error) {
	if len(given) == 0 {
		return nil, nil
	}
	if v, ok := given[""]; ok && len(given) == 1 && len(columns) == 1 {
		return map[string]string{columns[0]: v}, nil
	}
	names := slices.Sorted(maps.Keys(given))
	if want := slices.Sorted(slices.Values(columns)); !slices.Equal(names, want) {
		if len(columns) == 0 {
			return nil, fmt.Errorf("the table has no primary key: %w", sluice.ErrInvalid)
		}
		return nil, fmt.Errorf("the primary key is %s: %w", strings.Join(columns, ", "), sluice.ErrInvalid)
	}
	return given, nil
}

// keyOfChange returns the values of some columns, of the new row or of the old.
func keyOfChange(rel *sluice.Relation, ch *sluice.Change, columns []string) map[string]string {
	values := ch.New
	if values == nil {
		values = ch.Old
	}
	out := map[string]string{}
	for i, c := range rel.Columns {
		if i < len(values) && values[i].Kind == sluice.ValueText && slices.Contains(columns, c.Name) {
			out[c.Name] = string(values[i].Text)
		}
	}
	return out
}

// listening returns the subscriptions of a user that are for a table.
func (s *Service) listening(subject string, t *table) (out []*subscription) {
	for _, b := range s.index.find(t.def.Schema, t.def.Name) {
		claims, _, open := b.sub.identity()
		if open && claims.Subject == subject && !slices.Contains(out, b.sub) && len(out) < traceListen {
			out = append(out, b.sub)
		}
	}
	return out
}

// current makes an INSERT of the row as it is now.
func (s *Service) current(ctx context.Context, t *table, columns []string, key map[string]string) (job, error) {
	rel := &sluice.Relation{OID: t.oid, Schema: t.def.Schema, Name: t.def.Name}
	all, into, found := make([]int, 0, len(t.def.Columns)), make([]any, len(t.def.Columns)), make([]*string, len(t.def.Columns))
	for i, c := range t.def.Columns {
		rel.Columns = append(rel.Columns, sluice.Column{Name: c.Name, Type: c.Type, Key: c.Key})
		all, into[i] = append(all, i), &found[i]
	}
	args := []any{pgx.QueryResultFormats{pgx.TextFormatCode}}
	for _, name := range columns {
		args = append(args, key[name])
	}
	err := s.cfg.Admin.QueryRow(ctx, t.check.LookupSQL(all, t.key), args...).Scan(into...)
	if err != nil {
		return job{}, pg.Wrap(err, "look up a row of %s.%s", t.def.Schema, t.def.Name)
	}
	row := make([]sluice.Value, len(found))
	for i, text := range found {
		row[i] = sluice.Value{Kind: sluice.ValueNull}
		if text != nil {
			row[i] = sluice.Value{Kind: sluice.ValueText, Text: []byte(*text)}
		}
	}
	// A transaction that is visible to everybody.
	return job{rel: rel, xid: 1, gen: t.gen, changes: []sluice.Change{{Kind: sluice.ChangeInsert, Relation: rel, New: row}}}, nil
}

// trace says how far one change gets towards each of some subscriptions.
func (s *Service) trace(ctx context.Context, t *table, j *job, key []string, subs []*subscription, claims sluice.Claims) sluice.TraceChange {
	ch := &j.changes[0]
	out := sluice.TraceChange{Kind: ch.Kind.String(), Time: j.time, Key: keyOfChange(j.rel, ch, key)}
	if j.commit == 0 {
		out.Kind = "ROW"
	} else {
		out.At = j.commit.String()
	}
	if len(subs) == 0 {
		who := &subscription{service: s, claims: claims, who: keyOf(claims)}
		who.bounds = []*binding{{params: params{schema: t.def.Schema, table: t.def.Name}, sub: who}}
		o := s.outcome(ctx, t, j, who)
		if o.Stage == sluice.StageVisible {
			o.Text = "the user may see it, and has no subscription to the table"
		}
		out.Outcomes = append(out.Outcomes, o)
	}
	for _, sub := range subs {
		o := s.outcome(ctx, t, j, sub)
		if o.Stage == sluice.StageVisible && j.commit != 0 {
			o.Stage, o.Text = sub.reached(j.commit)
		}
		out.Outcomes = append(out.Outcomes, o)
	}
	return out
}

// outcome decides a change for a subscription, as a replay would, and says where it
// stops.
func (s *Service) outcome(ctx context.Context, t *table, j *job, sub *subscription) sluice.TraceOutcome {
	claims, _, _ := sub.identity()
	o := sluice.TraceOutcome{Conn: sub.conn, Topic: sub.topic, Role: claims.Role}
	stop := func(at sluice.Stage, text, remedy string) sluice.TraceOutcome {
		o.Stage, o.Text, o.Remedy = at, text, remedy
		return o
	}
	kind := j.changes[0].Kind
	name := t.def.Schema + "." + t.def.Name
	if !t.published(kind) {
		n := unpublished(&params{schema: t.def.Schema, table: t.def.Name})
		if t.listed() {
			return stop(sluice.StagePublication, fmt.Sprintf("the publication leaves out %s of %s", kind, name), "Publish it: alter publication supabase_realtime set (publish = 'insert, update, delete');")
		}
		return stop(sluice.StagePublication, n.Text, n.Remedy)
	}
	bindings := sub.of(j.rel)
	if !slices.ContainsFunc(bindings, func(b *binding) bool { return b.event == 0 || b.event == kind }) {
		return stop(sluice.StageBinding, fmt.Sprintf("the channel does not listen to %s of %s", kind, name), "Subscribe with event '*' or '"+kind.String()+"'.")
	}
	role, err := s.catalog.role(ctx, t, claims.Role)
	if err != nil {
		return stop(sluice.StageDecision, "what the role may do cannot be read: "+err.Error(), "")
	}
	never := silence(t, role, claims)
	if never != nil && never.Code == sluice.CodeNoSelectGrant {
		return stop(sluice.StageGrant, never.Text, never.Remedy)
	}
	r := s.decide(ctx, &task{jobs: []job{*j}, bindings: bindings, replay: true}, true)
	if ctx.Err() != nil || r == nil {
		return stop(sluice.StageDecision, "the change could not be decided in time", "")
	}
	for i := range r.rows {
		for k := range r.rows[i].hits {
			h := &r.rows[i].hits[k]
			if _, sees := r.visible(h, i); !sees {
				continue
			}
			switch h.out {
			case outNoKey:
				return stop(sluice.StageGrant, name+" has no primary key: the client gets an error in place of the row", "Add a primary key to "+name+".")
			case outNoSelect:
				return stop(sluice.StageGrant, "the role may not select the primary key of "+name+": the client gets an error in place of the row", "Run: grant select on "+name+" to "+claims.Role+";")
			}
			return stop(sluice.StageVisible, "the user may see it", "")
		}
	}
	return r.stopped(ctx, stop, never, bindings, claims)
}

// stopped says whether filters or policies keep the only change of a run away.
func (r *run) stopped(ctx context.Context, stop func(at sluice.Stage, text, remedy string) sluice.TraceOutcome, never *sluice.Refusal, bindings []*binding, claims sluice.Claims) sluice.TraceOutcome {
	w := &r.rows[len(r.rows)-1]
	cl := r.roster.classes[0]
	if out := r.outcome(cl.role, w); out == outNothing {
		return stop(sluice.StageGrant, "the role may not select the primary key, which is all that a DELETE shows", "Grant SELECT on the primary key's columns.")
	}
	var filters []string
	for _, b := range bindings {
		if r.wants(ctx, cl, b, w, outDecide) {
			if never != nil {
				return stop(sluice.StagePolicy, never.Text, never.Remedy)
			}
			table := r.t.def.Schema + "." + r.t.def.Name
			return stop(sluice.StagePolicy, fmt.Sprintf("no SELECT policy of %s shows this row to role %s with these claims", table, claims.Role),
				"Compare the row with the policies: sluice explain policy "+table)
		}
		for i := range b.filters {
			filters = append(filters, b.filters[i].text)
		}
	}
	return stop(sluice.StageFilter, "the row does not pass the filter "+strings.Join(filters, ", "), "")
}

// reached says how far a change that may be seen has got.
func (s *subscription) reached(commit sluice.LSN) (sluice.Stage, string) {
	switch {
	case commit < s.since:
		return sluice.StageBefore, "it committed before the channel was subscribed"
	case s.Position() <= commit:
		return sluice.StageDecision, "it waits: changes before it are still being decided"
	case s.place == nil:
		return sluice.StageSent, "it was queued for the socket"
	case s.service.places.confirmed(s.place) > commit:
		return sluice.StageDelivered, "the client has confirmed it: look at the application's callback"
	}
	return sluice.StageSent, "it was queued for the socket, and the client has not confirmed it yet"
}
