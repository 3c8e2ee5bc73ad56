package pg

import (
	"container/list"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// What bounds the prepared statements of a connection. One takes 50 to 120 times
// the length of its text in the server (measured on 15), so that all of them take
// some 25 MB at most; and at the end of each transaction the server goes through
// them (forgedSQL).
const (
	maxPrepared      = 512
	maxPreparedText  = 16 << 10  // bytes of a statement's text; longer ones are never prepared
	maxPreparedTexts = 256 << 10 // bytes of all texts, with their scopes
)

// preparedKey is where a connection's registry is kept.
const preparedKey = "sluice.prepared"

// registry remembers which statements a connection has prepared. A statement is
// prepared when it is sent for the second time, so that what is sent once costs
// no memory in the server; the least recently used make room.
//
// Statements are told apart by scope: PostgreSQL plans a statement anew when the
// role changes on a table with row level security, or the search_path, and a
// shared name would be planned at every use.
//
// What a user's function does to prepared statements (DEALLOCATE) shows as
// 26000; Pipeline then forgets them all and runs the transaction again.
type registry struct {
	entries map[statementKey]*list.Element // of *entry
	recent  list.List                      // the front is the newest
	size    int                            // bytes of all keys
	next    int
	evicted []string // to be deallocated
}

// statementKey tells statements apart.
type statementKey struct{ scope, sql string }

func (k statementKey) size() int { return len(k.scope) + len(k.sql) }

type entry struct {
	key  statementKey
	desc *pgconn.StatementDescription // nil until prepared
	name string                       // empty until it is sent to be prepared
}

// registryOf returns the registry of a connection.
func registryOf(conn *pgconn.PgConn) *registry {
	if r, ok := conn.CustomData()[preparedKey].(*registry); ok {
		return r
	}
	r := &registry{entries: map[statementKey]*list.Element{}}
	conn.CustomData()[preparedKey] = r
	return r
}

// use returns the entry of a statement, made at its first use; none for a text that
// is not worth its memory.
func (r *registry) use(scope, sql string) (e *entry, first bool) {
	if len(sql) > maxPreparedText {
		return nil, true
	}
	key := statementKey{scope, sql}
	if el, ok := r.entries[key]; ok {
		r.recent.MoveToFront(el)
		return el.Value.(*entry), false
	}
	for r.recent.Len() >= maxPrepared || r.recent.Len() > 0 && r.size+key.size() > maxPreparedTexts {
		r.drop(r.recent.Back().Value.(*entry))
	}
	e = &entry{key: statementKey{strings.Clone(scope), strings.Clone(sql)}}
	r.entries[e.key] = r.recent.PushFront(e)
	r.size += key.size()
	return e, true
}

// drop forgets a statement; it is deallocated with the next pipeline.
func (r *registry) drop(e *entry) {
	if el, ok := r.entries[e.key]; ok && el.Value == e {
		delete(r.entries, e.key)
		r.recent.Remove(el)
		r.size -= e.key.size()
		if e.name != "" {
			r.evicted = append(r.evicted, e.name)
		}
	}
}

// clear forgets all of them.
func (r *registry) clear() {
	for r.recent.Len() > 0 {
		r.drop(r.recent.Back().Value.(*entry))
	}
}

// name gives an entry that is about to be prepared its name.
func (r *registry) name(e *entry) {
	r.next++
	e.name = "s" + strconv.Itoa(r.next)
}

// sender queues the statements of one pipeline, through the registry of its
// connection.
type sender struct {
	pipe     *pgconn.Pipeline
	registry *registry
	// preparing are the entries whose descriptions are due, in order; reused
	// tells that an older one is used.
	preparing []*entry
	reused    bool
}

// send queues a statement in scope; the empty scope is for those that are the
// same for everybody.
func (s *sender) send(scope, sql string, args [][]byte) {
	e, first := s.registry.use(scope, sql)
	switch {
	case first:
		s.pipe.SendQueryParams(sql, args, nil, nil, nil)
	case e.desc != nil:
		s.reused = true
		s.pipe.SendQueryStatement(e.desc, args, nil, nil)
	default:
		if e.name == "" {
			s.registry.name(e)
			s.pipe.SendPrepare(e.name, sql, nil)
			s.preparing = append(s.preparing, e)
		}
		s.pipe.SendQueryPrepared(e.name, args, nil, nil)
	}
}

// deallocate queues the end of what the registry has dropped.
func (s *sender) deallocate() {
	for _, name := range s.registry.evicted {
		s.pipe.SendDeallocate(name)
	}
	s.registry.evicted = s.registry.evicted[:0]
}

// described notes that the next of the statements is prepared.
func (s *sender) described(d *pgconn.StatementDescription) {
	e := s.preparing[0]
	s.preparing = s.preparing[1:]
	d.Name, d.SQL = e.name, ""
	e.desc = d
}

// settle forgets what was not prepared after all.
func (s *sender) settle() {
	for _, e := range s.preparing {
		s.registry.drop(e)
	}
	s.preparing = nil
}
