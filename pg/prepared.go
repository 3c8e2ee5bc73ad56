package pg

import (
	"container/list"
	"context"
	"crypto/rand"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// What bounds the prepared statements of a connection. One takes 50 to 120 times
// the length of its text in the server (measured on 15), so that all of them take
// some 25 MB at most; and at the end of each transaction the server goes through
// them, where it has to (forgedSQL).
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
	evicted []string                       // to be deallocated
	names   names
}

// names tells who may know those of a session's prepared statements. A function can
// put a statement of its own in the place of one that was prepared for the next user,
// if it knows the name. To look for such costs a third of a small request, and more
// with every statement that is prepared; names that nobody can see or guess cost
// nothing (docs/decisions/0007).
type names uint8

const (
	namesListed names = iota // users may list them: what was forged is looked for
	namesSecret              // nobody may
	namesUnsafe              // users may, and the login may not look: nothing is prepared
)

// namesSQL tells whether a role that the login can take, superusers aside, may list
// the session's prepared statements, and whether the login itself may.
const namesSQL = `select exists (select from pg_catalog.pg_roles r where not r.rolsuper and pg_catalog.pg_has_role(session_user, r.oid, 'MEMBER')
  and pg_catalog.has_function_privilege(r.oid, 'pg_catalog.pg_prepared_statement()', 'EXECUTE')),
  pg_catalog.has_function_privilege(session_user, 'pg_catalog.pg_prepared_statement()', 'EXECUTE')`

// learnNames finds out about a new connection. Of own statements the names are pgx's
// as well, which are no secret.
func learnNames(ctx context.Context, c *pgx.Conn, own bool) error {
	var listed, mayLook bool
	if err := c.QueryRow(ctx, namesSQL, pgx.QueryExecModeExec).Scan(&listed, &mayLook); err != nil {
		return err
	}
	r := registryOf(c.PgConn())
	switch {
	case !listed && !own:
		r.names = namesSecret
	case !mayLook:
		r.names = namesUnsafe
	}
	return nil
}

// forgedSQL tells whether somebody has prepared statements in SQL, which no
// rollback undoes: one of a prepared name in the place of ours would answer for
// the next user. It is itself never sent by a prepared name; over the view of that
// name it would take 30 µs more, to be planned.
const forgedSQL = "exists (select from pg_catalog.pg_prepared_statement() where from_sql)"

// cleanSQL ends a transaction, cleans the session and says in the last row whether
// statements were forged.
func cleanSQL(conn *pgconn.PgConn, end string) string {
	return end + cleanSession + "; select " + registryOf(conn).forged()
}

// forged returns what to select to know it.
func (r *registry) forged() string {
	if r.names == namesListed {
		return forgedSQL
	}
	return "false"
}

// genuine reports whether the rows of forged say no.
func genuine(rows [][][]byte) bool { return len(rows) == 1 && string(rows[0][len(rows[0])-1]) == "f" }

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
// is not to be prepared.
func (r *registry) use(scope, sql string) (e *entry, first bool) {
	if len(sql) > maxPreparedText || r.names == namesUnsafe {
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
	e.name = "s_" + rand.Text()
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
