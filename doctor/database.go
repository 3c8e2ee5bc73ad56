package doctor

import (
	"cmp"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

var (
	//go:embed sql/server.sql
	serverSQL string
	//go:embed sql/tables.sql
	tablesSQL string
	//go:embed sql/tenants.sql
	tenantsSQL string
)

// catalog is what one READ ONLY transaction found.
type catalog struct {
	Version           string `json:"version"`
	WALLevel          string `json:"walLevel"`
	KeepSize          string `json:"keepSize"`
	MaxSlots          int    `json:"maxSlots"`
	Publication       bool   `json:"publication"`
	Published         int    `json:"published"`
	Tenants           bool   `json:"tenants"` // Supabase Realtime's table can be read
	Messages          bool   `json:"messages"`
	Partition         bool   `json:"partition"` // of today
	MessagesPublished bool   `json:"messagesPublished"`
	ReadPolicies      int    `json:"readPolicies"` // on realtime.messages
	Slots             []slot `json:"slots"`

	tenants []string
	tables  []table
}

type slot struct {
	Name      string `json:"name"`
	Active    bool   `json:"active"`
	Temporary bool   `json:"temporary"`
	Status    string `json:"status"` // wal_status
	Kept      int64  `json:"kept"`   // bytes of WAL
}

type table struct {
	Schema    string `json:"schema"`
	Name      string `json:"name"`
	Exists    bool   `json:"exists"`
	Published bool   `json:"published"`
	RLS       bool   `json:"rls"`
	Identity  string `json:"identity"` // relreplident
	Key       bool   `json:"key"`
	Policies  int    `json:"policies"` // permissive, for SELECT
	Roles     []role `json:"roles"`
}

// role is what one role may do with the table.
type role struct {
	Role     string `json:"role"`
	Usage    bool   `json:"usage"`
	Select   bool   `json:"select"`
	Bypass   bool   `json:"bypass"`
	Policies int    `json:"policies"` // that apply to it
}

func (t table) String() string { return t.Schema + "." + t.Name }

// sql is the table's name in a statement.
func (t table) sql() string { return pgx.Identifier{t.Schema, t.Name}.Sanitize() }

// openTo is a comment for who publishes the table.
func (t table) openTo() string {
	if t.RLS {
		return ""
	}
	return " -- row level security is off for " + t.sql() + ": its changes go to every role that may select"
}

// named splits schema.table; the schema is public when there is none.
func named(s string) (schema, name string) {
	if schema, name, hasSchema := strings.Cut(s, "."); hasSchema {
		return schema, name
	}
	return "public", s
}

// checkDatabase reads everything that the database hops judge.
func (v *visit) checkDatabase(ctx context.Context) []Finding {
	if v.cfg.DatabaseURL == "" {
		return []Finding{skip("no database URL was given (--db-url)")}
	}
	ctx, cancel := v.within(ctx)
	defer cancel()
	db, err := v.readCatalog(ctx)
	if err != nil {
		return []Finding{fail(CodeDatabase, "The database cannot be asked").evidence("%v", err).
			remedy("Use the DB_URL that `sluice status` or `supabase status` prints (port 54322 in a development stack); hosted projects: the session pooler's or the direct connection string.")}
	}
	v.db = db
	switch {
	case db.WALLevel != "logical":
		return []Finding{fail(CodeWALLevel, "wal_level is %s: no change can be streamed", db.WALLevel).evidence("show wal_level → %s", db.WALLevel).
			remedy("Run: alter system set wal_level = logical; then restart PostgreSQL.")}
	case db.Tenants && len(db.tenants) == 0:
		return []Finding{fail(CodeTenantNotFound, "Realtime's table of tenants is empty, so it refuses every socket").
			evidence("select external_id from _realtime.tenants → no rows").
			remedy("Realtime seeds it at its first start (SEED_SELF_HOST=true): restart Realtime; in the Supabase CLI's stack `supabase stop --no-backup` and start (data is lost).")}
	case db.Tenants && v.noTenant:
		return []Finding{fail(CodeTenantNotFound, "Realtime has tenants, and the gateway reaches it by a host name that names none of them").
			byRule(5, "https://github.com/supabase-community/supabase-kubernetes/issues/92").
			evidence("select external_id from _realtime.tenants → %s", strings.Join(db.tenants, ", ")).
			remedy("Give Realtime a host name whose first part is the tenant's id, such as %s.supabase-realtime, and use it as upstream in the gateway.", db.tenants[0])}
	}
	return []Finding{ok("PostgreSQL %s, wal_level logical", db.Version)}
}

// readOnly runs fn in one READ ONLY transaction.
func (v *visit) readOnly(ctx context.Context, fn func(pgx.Tx) error) error {
	pool, err := pg.Open(ctx, pg.Config{
		URL: v.cfg.DatabaseURL, Name: "sluice doctor", MaxConns: 1, StatementTimeout: v.cfg.Timeout, Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return err
	}
	defer pool.Close()
	tx, err := pool.BeginTx(ctx, pgx.TxOptions{AccessMode: pgx.ReadOnly})
	if err != nil {
		return pg.Wrap(err, "connect")
	}
	defer tx.Rollback(context.WithoutCancel(ctx)) //nolint:errcheck // nothing was written
	return fn(tx)
}

func (v *visit) readCatalog(ctx context.Context) (*catalog, error) {
	db := &catalog{}
	if err := v.readOnly(ctx, func(tx pgx.Tx) error { return v.readInto(ctx, tx, db) }); err != nil {
		return nil, err
	}
	return db, nil
}

func (v *visit) readInto(ctx context.Context, tx pgx.Tx, db *catalog) error {
	if err := readJSON(ctx, tx, db, serverSQL); err != nil {
		return pg.Wrap(err, "read settings")
	}
	if db.Tenants {
		if err := readJSON(ctx, tx, &db.tenants, tenantsSQL); err != nil {
			return pg.Wrap(err, "read Realtime's tenants")
		}
	}
	schemas, names := []string{}, []string{}
	for _, t := range v.cfg.Tables {
		schema, name := named(t)
		schemas, names = append(schemas, schema), append(names, name)
	}
	return pg.Wrap(readJSON(ctx, tx, &db.tables, tablesSQL, schemas, names, v.roles()), "read the tables")
}

func readJSON(ctx context.Context, tx pgx.Tx, into any, sql string, args ...any) error {
	var text []byte
	if err := tx.QueryRow(ctx, sql, args...).Scan(&text); err != nil {
		return err
	}
	return json.Unmarshal(text, into)
}

// roles are those whose eyes count: the user's, or both kinds of clients.
func (v *visit) roles() []string {
	if v.userRole != "" {
		return []string{v.userRole}
	}
	return []string{"anon", "authenticated"}
}

func (v *visit) checkTables(context.Context) []Finding {
	switch {
	case v.db == nil:
		return []Finding{skip("no database")}
	case !v.db.Publication:
		return []Finding{fail(CodeNoPublication, "The publication supabase_realtime does not exist, so no table sends changes").evidence("select from pg_publication where pubname = 'supabase_realtime' → no row").
			remedy("Run: create publication supabase_realtime; then: alter publication supabase_realtime add table SCHEMA.TABLE;").
			fix("%s", v.createPublication())}
	case len(v.db.tables) == 0:
		return []Finding{warn(sluice.CodeTableNotPublished, "The publication supabase_realtime holds no table, so no table sends changes").evidence("select from pg_publication_tables where pubname = 'supabase_realtime' → no row").
			remedy("For every table that an app listens to: alter publication supabase_realtime add table SCHEMA.TABLE;")}
	}
	var findings []Finding
	for _, t := range v.db.tables {
		for _, f := range judgeTable(t) {
			if f.Status == Fail && len(v.cfg.Tables) == 0 {
				f.Status = Warn // nobody said that the app listens to it
			}
			findings = append(findings, f)
		}
	}
	return findings
}

// createPublication is the statement for a database without one: it holds the
// tables that the app listens to.
func (v *visit) createPublication() string {
	var tables []string
	open := ""
	for _, t := range v.db.tables {
		if t.Exists {
			tables, open = append(tables, t.sql()), cmp.Or(open, t.openTo())
		}
	}
	if len(tables) == 0 {
		return "create publication supabase_realtime;"
	}
	return "create publication supabase_realtime for table " + strings.Join(tables, ", ") + ";" + open
}

// judgeTable says whether a change of the table can reach anybody.
func judgeTable(t table) []Finding {
	switch {
	case !t.Exists:
		return []Finding{fail(CodeNoTable, "There is no table %s", t).evidence("pg_class has none of this name and schema").
			remedy("Names are case-sensitive in a subscription: compare schema and table with the database, and apply its migrations.")}
	case !t.Published:
		return []Finding{fail(sluice.CodeTableNotPublished, "The table %s is not in the publication supabase_realtime", t).
			evidence("select from pg_publication_tables where pubname = 'supabase_realtime' → no row for it").
			remedy("Run: alter publication supabase_realtime add table %s;", t.sql()).
			fix("alter publication supabase_realtime add table %s;%s", t.sql(), t.openTo())}
	}
	var findings []Finding
	silent := 0
	var last Finding
	for _, r := range t.Roles {
		if f, hears := hears(t, r); !hears {
			silent++
			last = f
			f.Status = Warn
			findings = append(findings, f)
		}
	}
	if silent == len(t.Roles) && silent > 0 {
		last.Status = Fail
		findings = []Finding{last}
	}
	if f := judgeIdentity(t); f != nil {
		findings = append(findings, *f)
	}
	if len(findings) == 0 {
		findings = append(findings, ok("%s is published and %s may see rows of it", t, roleNames(t.Roles)))
	}
	return findings
}

// hears reports whether a role can receive anything, and else why not.
func hears(t table, r role) (Finding, bool) {
	switch {
	case !r.Usage:
		return fail(sluice.CodeNoSelectGrant, "Role %s has no USAGE on the schema of %s, so no change arrives", r.Role, t).evidence("has_schema_privilege('%s', '%s', 'usage') → false", r.Role, t.Schema).
			remedy("Run: grant usage on schema %s to %s;", pgx.Identifier{t.Schema}.Sanitize(), r.Role), false
	case !r.Select:
		return fail(sluice.CodeNoSelectGrant, "Role %s may not select from %s, so no change arrives", r.Role, t).evidence("has_any_column_privilege('%s', '%s', 'select') → false", r.Role, t).
			remedy("Run: grant select on %s to %s;", t.sql(), r.Role), false
	case !t.RLS || r.Bypass || r.Policies > 0:
		return Finding{}, true
	case t.Policies == 0:
		return fail(sluice.CodeNoSelectPolicy, "Row level security is on for %s and it has no SELECT policy, so no change arrives", t).evidence("pg_policies has none for SELECT or ALL on it; relrowsecurity is true").
			remedy("Create one, for example: create policy \"read\" on %s for select to authenticated using (auth.uid() = user_id);", t.sql()), false
	}
	f := fail(sluice.CodeNoPolicyForRole, "No SELECT policy of %s applies to role %s: it says SUBSCRIBED and receives nothing", t, r.Role).
		evidence("%d SELECT policies, none for %s", t.Policies, r.Role)
	if r.Role == "anon" {
		return f.remedy("The user's token must be in the join: await supabase.auth.getSession() (or await supabase.realtime.setAuth()) before subscribe(). If everybody may read, create a policy for anon."), false
	}
	return f.remedy("Run: create policy \"read\" on %s for select to %s using (…);", t.sql(), r.Role), false
}

// judgeIdentity looks at what an UPDATE or DELETE carries of the old row.
func judgeIdentity(t table) *Finding {
	var f Finding
	switch {
	case t.Identity == "n" && t.Key:
		f = warn(CodeIdentity, "%s has replica identity NOTHING: PostgreSQL refuses its UPDATE and DELETE while it is published", t).
			remedy("Run: alter table %s replica identity default;", t.sql()).
			fix("alter table %s replica identity default;", t.sql())
	case t.Identity == "n", t.Identity == "d" && !t.Key:
		f = warn(CodeIdentity, "%s has no replica identity: PostgreSQL refuses its UPDATE and DELETE while it is published", t).
			remedy("Add a primary key, or run: alter table %s replica identity full;", t.sql()).
			fix("alter table %s replica identity full;", t.sql())
	case t.Identity == "d" && t.RLS:
		f = ok("%s sends keys alone with DELETE; old rows need: alter table %s replica identity full;", t, t.sql())
	default:
		return nil
	}
	f = f.evidence("pg_class.relreplident is %s, primary key: %t", t.Identity, t.Key)
	return &f
}

func roleNames(roles []role) string {
	names := make([]string, len(roles))
	for i, r := range roles {
		names[i] = r.Role
	}
	return strings.Join(names, " and ")
}

// slotRemedy mends what PostgreSQL says of a slot that cannot be read.
func slotRemedy(text string) string {
	if strings.Contains(text, slotsInUse) {
		return "Drop a slot that nobody reads: select slot_name from pg_replication_slots where not active; then select pg_drop_replication_slot('NAME'); or raise max_replication_slots."
	}
	return "Another process reads Realtime's replication slot, such as a second stack on this database: find it (select slot_name, active_pid from pg_replication_slots;) and stop it, or end its connection with select pg_terminate_backend(active_pid) from pg_replication_slots where slot_name = 'NAME'; Realtime takes the slot then."
}

// muchWAL is when a slot that nobody reads is worth a word.
const muchWAL = 64 << 20

func (v *visit) checkSlots(context.Context) []Finding {
	if v.db == nil {
		return []Finding{skip("no database")}
	}
	var findings []Finding
	for _, s := range v.db.Slots {
		evidence := fmt.Sprintf("pg_replication_slots: %s, active %t, wal_status %s, %d MB of WAL kept", s.Name, s.Active, s.Status, s.Kept>>20)
		drop := fmt.Sprintf("select pg_drop_replication_slot('%s');", strings.ReplaceAll(s.Name, "'", "''"))
		switch {
		case s.Status == "lost":
			findings = append(findings, warn(CodeSlot, "The replication slot %s is lost: WAL that it needed is gone", s.Name).evidence("%s", evidence).
				remedy("Sluice makes its slot again by itself and says what was missed; drop any other: %s", drop))
		case s.Status == "unreserved":
			findings = append(findings, warn(CodeSlot, "The replication slot %s is past its budget of WAL: PostgreSQL may drop what it needs at the next checkpoint", s.Name).evidence("%s; max_slot_wal_keep_size is %s", evidence, v.db.KeepSize).
				remedy("Let its reader catch up, or start it; raise max_slot_wal_keep_size if that is the usual load; if nothing reads it any more: %s", drop))
		case !s.Active && !s.Temporary && (s.Kept > muchWAL || s.Name == "sluice"):
			findings = append(findings, warn(CodeSlot, "Nobody reads the replication slot %s, and PostgreSQL keeps all WAL for it", s.Name).sure(Likely).evidence("%s; max_slot_wal_keep_size is %s", evidence, v.db.KeepSize).
				remedy("Start what reads it, or drop it before the disk is full: %s If max_slot_wal_keep_size is -1, set a bound.", drop))
		}
	}
	if permanent := slices.IndexFunc(v.db.Slots, func(s slot) bool { return !s.Temporary }); permanent >= 0 && v.db.KeepSize == "-1" {
		findings = append(findings, warn(CodeSlot, "Nothing bounds the WAL that PostgreSQL keeps for a slot: one without its reader fills the disk").sure(Possible).
			evidence("max_slot_wal_keep_size is -1; the slot %s is permanent", v.db.Slots[permanent].Name).
			remedy("Run: alter system set max_slot_wal_keep_size = '4GB'; select pg_reload_conf(); past it PostgreSQL gives the slot up rather than its disk."))
	}
	if len(v.db.Slots) >= v.db.MaxSlots {
		findings = append(findings, warn(CodeSlot, "All %d replication slots are taken, so Realtime cannot make another", v.db.MaxSlots).evidence("max_replication_slots is %d, pg_replication_slots has %d rows", v.db.MaxSlots, len(v.db.Slots)).
			remedy("%s", slotRemedy(slotsInUse)))
	}
	if len(findings) == 0 {
		findings = append(findings, ok("%d of %d replication slots in use", len(v.db.Slots), v.db.MaxSlots))
	}
	return findings
}

func (v *visit) checkMessages(context.Context) []Finding {
	switch {
	case v.db == nil:
		return []Finding{skip("no database")}
	case !v.db.Messages:
		return []Finding{warn(CodeNoPartition, "There is no table realtime.messages: private channels and broadcasts from the database do not work").evidence("to_regclass('realtime.messages') → null").
			remedy("Realtime makes it when it starts: connect a client once, and look at Realtime's log.")}
	case !v.db.Partition:
		return []Finding{warn(CodeNoPartition, "Today's partition of realtime.messages is missing: realtime.send() from SQL is lost").evidence("pg_inherits has no partition messages_%s", v.cfg.Now().UTC().Format("2006_01_02")).
			remedy("Connect a client once, so that Realtime makes its partitions; with Sluice: select sluice.make_message_partitions();")}
	case !v.db.MessagesPublished:
		return []Finding{warn(CodeNoPartition, "realtime.messages is in no publication: broadcasts from the database do not arrive").evidence("select from pg_publication_tables where schemaname = 'realtime' → no row").
			remedy("Connect a client once, so that Realtime publishes it, and look at Realtime's log.")}
	case v.db.ReadPolicies == 0 && v.cfg.PrivateTopic != "":
		return []Finding{fail(CodeNoMessagePolicy, "realtime.messages has no SELECT policy, so nobody may join a private channel").evidence("pg_policies has none for SELECT or ALL on it").
			remedy("Run: create policy \"read\" on realtime.messages for select to authenticated using (realtime.topic() = '%s');", strings.ReplaceAll(v.cfg.PrivateTopic, "'", "''"))}
	}
	return []Finding{ok("realtime.messages has today's partition, is published, and has %d SELECT policies", v.db.ReadPolicies)}
}
