package changes

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/policy"
)

//go:embed sql/table.sql
var tableSQL string

//go:embed sql/role.sql
var roleSQL string

//go:embed sql/match.sql
var matchSQL string

//go:embed sql/types.sql
var typesSQL string

//go:embed sql/fingerprint.sql
var fingerprintSQL string

// table is what the catalog says about one table. It is thrown away, with what
// is known of roles, when the catalog changes.
type table struct {
	// fixed after load
	oid     uint32
	gen     uint64
	def     tableDef
	types   map[uint32]*sqlType
	check   policy.Table
	columns map[string]int // by name
	key     []int          // positions of the primary key
	// settings are those of the sessions in which users are asked, for statements
	// that decide in their place.
	settings []pg.Setting

	keysOnly sync.Once // the log says what a DELETE gives up

	// mu guards roles.
	mu    sync.Mutex
	roles map[string]*tableRole
}

type tableDef struct {
	Schema     string          `json:"schema"`
	Name       string          `json:"name"`
	Owner      int64           `json:"owner"`
	Identity   string          `json:"identity"`
	Insert     bool            `json:"insert"` // published
	Update     bool            `json:"update"`
	Delete     bool            `json:"delete"`
	Guard      *int64          `json:"guard"` // nil: row level security is off
	Alias      string          `json:"alias"`
	Force      bool            `json:"force"`
	GuardOwner int64           `json:"guardOwner"`
	Columns    []columnDef     `json:"columns"`
	Policies   []policy.Policy `json:"policies"`
}

type columnDef struct {
	Name    string `json:"name"`
	Num     int    `json:"num"`
	Type    uint32 `json:"type"`
	TypName string `json:"typname"`
	Key     bool   `json:"key"` // of the primary key
}

// plain returns the type of column at, or what its domain stands on.
func (t *table) plain(at int) *sqlType { return t.types[t.def.Columns[at].Type].plain() }

// published reports whether the user's publication carries this kind.
func (t *table) published(k sluice.ChangeKind) bool {
	switch k {
	case sluice.ChangeInsert:
		return t.def.Insert
	case sluice.ChangeUpdate:
		return t.def.Update
	case sluice.ChangeDelete:
		return t.def.Delete
	}
	return false
}

func (t *table) listed() bool { return t.def.Insert || t.def.Update || t.def.Delete }

// tableRole is what one role may do with one table.
type tableRole struct {
	usage    bool
	readable []bool // by column
	keyOK    bool   // may read the whole primary key
	any      bool   // may read at least one column
	ask      bool   // row level security applies
	sql      string // the check, "" when nobody sees anything
	unknown  bool   // it could not be read

	plan     *policy.Plan // nil when ask is false
	disabled atomic.Bool  // the plan has disagreed with PostgreSQL
	dense    atomic.Int64 // runs for which the statement that says who asks is used
}

// tier returns how the policies are decided.
func (r *tableRole) tier() policy.Tier {
	if r.plan == nil || r.disabled.Load() {
		return policy.TierUser
	}
	return r.plan.Tier
}

// catalog reads definitions and keeps them until the catalog changes.
type catalog struct {
	admin   *pg.Pool
	user    *pg.Pool      // whose sessions decide
	changed chan struct{} // holds a token after a change

	// mu guards the rest.
	mu     sync.Mutex
	gen    uint64
	unseen []unseen // in the order of the stream
	tables map[uint32]*table
}

// unseen is a transaction that has changed the catalog and that queries perhaps do
// not see yet: the log shows a commit before other connections do, by as long as a
// synchronous standby takes.
type unseen struct {
	xid uint64
	gen uint64 // of the catalog with it
}

func newCatalog(admin, user *pg.Pool) *catalog {
	return &catalog{admin: admin, user: user, changed: make(chan struct{}, 1), tables: map[uint32]*table{}}
}

// invalidate makes everything be read again, once queries see transaction xid; 0 is
// for a change that they see already.
func (c *catalog) invalidate(xid uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.gen++
	if n := len(c.unseen); xid != 0 && (n == 0 || c.unseen[n-1].xid != xid) {
		c.unseen = append(c.unseen, unseen{xid, c.gen})
	}
	signal(c.changed)
}

// visible returns the generation that a query shows, as far as that is known.
func (c *catalog) visible() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.unseen) > 0 {
		return c.unseen[0].gen - 1
	}
	return c.gen
}

// look asks which transactions queries see by now. What one query sees the next
// one does too.
func (c *catalog) look(ctx context.Context) error {
	c.mu.Lock()
	xids := make([]string, len(c.unseen))
	for i, u := range c.unseen {
		xids[i] = strconv.FormatUint(u.xid, 10)
	}
	c.mu.Unlock()
	if len(xids) == 0 {
		return nil
	}
	var seen []string
	if err := c.admin.QueryRow(ctx, seenSQL, xids).Scan(&seen); err != nil {
		return pg.Wrap(err, "ask whether changes of the catalog are visible")
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unseen = slices.DeleteFunc(c.unseen, func(u unseen) bool { return slices.Contains(seen, strconv.FormatUint(u.xid, 10)) })
	return nil
}

// seenSQL returns which of some transactions ($1) are visible.
const seenSQL = "select array(select x::text from unnest($1::text[]::xid8[]) x where pg_visible_in_snapshot(x, pg_current_snapshot()))"

func (c *catalog) generation() uint64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.gen
}

// maxTables bounds the definitions that are kept.
const maxTables = 4096

// table returns a definition of generation gen or later; one that is older, but
// the latest there is, while queries do not see what makes the difference. A table
// that does not exist is an error of kind sluice.ErrNotFound.
func (c *catalog) table(ctx context.Context, oid uint32, gen uint64) (*table, error) {
	c.mu.Lock()
	t := c.tables[oid]
	c.mu.Unlock()
	if t != nil && t.gen >= gen {
		return t, nil
	}
	if err := c.look(ctx); err != nil {
		return nil, err
	}
	if t != nil && t.gen >= c.visible() {
		return t, nil
	}
	return c.reload(ctx, oid)
}

// reload reads a definition and keeps it in place of the one that is known.
func (c *catalog) reload(ctx context.Context, oid uint32) (*table, error) {
	now := c.visible()
	t, err := c.load(ctx, oid)
	if err != nil {
		return nil, err
	}
	t.gen = now // read before the load: a change meanwhile makes it old
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tables) >= maxTables {
		clear(c.tables)
	}
	c.tables[oid] = t
	return t, nil
}

func (c *catalog) load(ctx context.Context, oid uint32) (*table, error) {
	t := &table{oid: oid, roles: map[string]*tableRole{}, columns: map[string]int{}}
	err := pgx.BeginTxFunc(ctx, c.admin, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		// Expressions are written for the search_path under which they are read
		// again: a name stands alone only where it means the same there.
		if _, err := tx.Exec(ctx, "set local search_path to "+searchPath); err != nil {
			return err
		}
		var text []byte
		if err := tx.QueryRow(ctx, tableSQL, oid).Scan(&text); err != nil {
			return err
		}
		if err := json.Unmarshal(text, &t.def); err != nil {
			return fmt.Errorf("read definition: %w", err)
		}
		var err error
		if _, err = tx.Exec(ctx, "set local search_path to ''"); err != nil {
			return err
		}
		if t.types, err = loadTypes(ctx, tx, t.def.Columns); err != nil {
			return err
		}
		for _, c := range t.def.Columns {
			if t.types[c.Type] == nil {
				return fmt.Errorf("type %d of column %q is gone", c.Type, c.Name)
			}
		}
		return nil
	})
	if err != nil {
		return nil, pg.Wrap(err, "load definition of table %d", oid)
	}
	if t.settings, err = policy.SessionSettings(ctx, c.user); err != nil {
		return nil, err
	}
	for i, col := range t.def.Columns {
		t.columns[col.Name] = i
		t.check.Columns = append(t.check.Columns, col.Name)
		t.check.Types = append(t.check.Types, t.plain(i).value)
		if col.Key {
			t.key = append(t.key, i)
		}
	}
	t.check.Schema, t.check.Name, t.check.Alias, t.check.Policies = t.def.Schema, t.def.Name, t.def.Alias, t.def.Policies
	return t, nil
}

// role returns what a role may do with t. A role that does not exist is an error
// of kind sluice.ErrNotFound.
func (c *catalog) role(ctx context.Context, t *table, role string) (*tableRole, error) {
	t.mu.Lock()
	r := t.roles[role]
	t.mu.Unlock()
	if r != nil {
		return r, nil
	}
	guard := int64(0)
	if t.def.Guard != nil {
		guard = *t.def.Guard
	}
	var text []byte
	if err := c.admin.QueryRow(ctx, roleSQL, role, t.oid, guard, t.def.GuardOwner).Scan(&text); err != nil {
		return nil, pg.Wrap(err, "load privileges of role %q on %s.%s", role, t.def.Schema, t.def.Name)
	}
	var d struct {
		Usage    bool     `json:"usage"`
		Bypass   bool     `json:"bypass"`
		Owner    bool     `json:"owner"`
		Columns  []int    `json:"columns"`
		Policies []string `json:"policies"`
	}
	if err := json.Unmarshal(text, &d); err != nil {
		return nil, fmt.Errorf("load privileges of role %q: %w", role, err)
	}
	r = &tableRole{usage: d.Usage, keyOK: true, readable: make([]bool, len(t.def.Columns))}
	for i, col := range t.def.Columns {
		r.readable[i] = slices.Contains(d.Columns, col.Num)
		r.any = r.any || r.readable[i]
		r.keyOK = r.keyOK && (r.readable[i] || !col.Key)
	}
	r.ask = t.def.Guard != nil && !d.Bypass && (!d.Owner || t.def.Force)
	if r.ask {
		var applicable []int
		for i, p := range t.def.Policies {
			if slices.Contains(d.Policies, p.Name) {
				applicable = append(applicable, i)
			}
		}
		r.sql = t.check.CheckSQL(applicable)
		var err error
		r.plan, err = policy.Compile(ctx, c.admin, policy.Input{Table: &t.check, Guard: uint32(guard), Role: role, SearchPath: searchPath})
		if err != nil {
			return nil, err
		}
		r.ask = r.plan.Tier != policy.TierConstant || !r.plan.Shows
	}
	t.mu.Lock()
	t.roles[role] = r
	t.mu.Unlock()
	return r, nil
}

// tableRef is a published table.
type tableRef struct {
	oid          uint32
	schema, name string
}

// match returns the published tables that a binding names.
func (c *catalog) match(ctx context.Context, schema, name string) ([]tableRef, error) {
	rows, err := c.admin.Query(ctx, matchSQL, schema, name)
	if err != nil {
		return nil, pg.Wrap(err, "look for published tables")
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (t tableRef, err error) {
		return t, row.Scan(&t.oid, &t.schema, &t.name)
	})
	// A missing publication is an error of the set-returning function.
	if pg.SQLState(err) == "42704" {
		return nil, nil
	}
	return out, pg.Wrap(err, "look for published tables")
}

func notFound(err error) bool { return errors.Is(err, sluice.ErrNotFound) }
