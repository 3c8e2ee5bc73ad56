package schema

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/internal/backoff"
	"github.com/sluice-dev/sluice/pg"
)

//go:embed sql/relations.sql
var relationsSQL string

//go:embed sql/functions.sql
var functionsSQL string

//go:embed sql/comments.sql
var commentsSQL string

//go:embed sql/roles.sql
var rolesSQL string

//go:embed sql/settings.sql
var settingsSQL string

//go:embed sql/foreign_keys.sql
var foreignKeysSQL string

//go:embed sql/views.sql
var viewsSQL string

//go:embed sql/primary_keys.sql
var primaryKeysSQL string

// Config describes a Cache.
type Config struct {
	// Admin reads the catalog. Required.
	Admin *pg.Pool
	// Login is the role whose members may be acted as. Default authenticator.
	Login string
	// Schemas are exposed. At least one.
	Schemas []string
	// Logger is required.
	Logger *slog.Logger
}

// Cache holds the newest snapshot.
type Cache struct {
	cfg  Config
	snap atomic.Pointer[Snapshot]

	// mu is held while loading: a burst of notifications is one load or two.
	mu sync.Mutex
}

// New checks cfg. It loads nothing: Reload or Run does.
func New(cfg Config) (*Cache, error) {
	if cfg.Admin == nil || cfg.Logger == nil || len(cfg.Schemas) == 0 {
		return nil, errors.New("schema needs Admin, Logger and Schemas")
	}
	for _, s := range cfg.Schemas {
		if s == "pg_catalog" || s == "information_schema" {
			return nil, fmt.Errorf("schema %q cannot be exposed: %w", s, sluice.ErrInvalid)
		}
	}
	if cfg.Login == "" {
		cfg.Login = "authenticator"
	}
	return &Cache{cfg: cfg}, nil
}

// Snapshot returns the newest snapshot, nil before the first load.
func (c *Cache) Snapshot() *Snapshot { return c.snap.Load() }

// Reload reads the catalog again. seen is the version that the caller found
// lacking: when a newer one is there already, nothing is read.
func (c *Cache) Reload(ctx context.Context, seen uint64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.snap.Load()
	if old != nil && old.Version > seen {
		return nil
	}
	s, err := c.load(ctx)
	if err != nil {
		return err
	}
	s.Version = 1
	if old != nil {
		s.Version = old.Version + 1
	}
	c.snap.Store(s)
	return nil
}

// Run loads the catalog and again whenever NOTIFY pgrst says so, with the payload
// reload schema, reload config or none, until ctx ends. A connection that is lost
// is made again, and what it missed loaded.
func (c *Cache) Run(ctx context.Context) error {
	var wait backoff.Backoff
	for {
		err := c.listen(ctx, wait.Reset)
		if ctx.Err() != nil {
			return nil
		}
		c.cfg.Logger.Warn("following the schema was interrupted, the last one known stays in force; trying again", sluice.LogError, err)
		if wait.Wait(ctx) != nil {
			return nil
		}
	}
}

// settle is the time between two loads: the first notification of a burst, such
// as a migration's, is followed at once, the others together.
const settle = 100 * time.Millisecond

func (c *Cache) listen(ctx context.Context, up func()) error {
	conn, err := c.cfg.Admin.Acquire(ctx)
	if err != nil {
		return pg.Wrap(err, "connect to listen")
	}
	// It has a LISTEN in force: it does not go back to the pool.
	raw := conn.Hijack()
	defer func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = raw.Close(ctx)
	}()
	if _, err := raw.Exec(ctx, "listen pgrst"); err != nil {
		return pg.Wrap(err, "listen")
	}
	for {
		// What is notified while this loads is waiting when it has ended.
		if err := c.reload(ctx); err != nil {
			return err
		}
		up()
		next := time.Now().Add(settle)
		if err := await(ctx, raw); err != nil {
			return pg.Wrap(err, "wait for notification")
		}
		burst, cancel := context.WithDeadline(ctx, next)
		for err == nil {
			err = await(burst, raw)
		}
		cancel()
		if raw.IsClosed() {
			return pg.Wrap(err, "wait for notification")
		}
		err = nil
	}
}

// await returns at the next notification that asks for a load.
func await(ctx context.Context, conn *pgx.Conn) error {
	for {
		n, err := conn.WaitForNotification(ctx)
		if err != nil {
			return err
		}
		switch n.Payload {
		case "", "reload schema", "reload config":
			return nil
		}
	}
}

// reload is Reload whatever the version. When it fails, the old snapshot stays in
// force.
func (c *Cache) reload(ctx context.Context) error {
	seen := uint64(0)
	if s := c.snap.Load(); s != nil {
		seen = s.Version
	}
	start := time.Now()
	if err := c.Reload(ctx, seen); err != nil {
		return err
	}
	c.cfg.Logger.Info("schema cache loaded", "took", time.Since(start).Round(time.Millisecond))
	return nil
}

func (c *Cache) load(ctx context.Context) (*Snapshot, error) {
	s := &Snapshot{relations: map[key]*Relation{}, functions: map[key][]*Function{}, relationships: map[*Relation][]*Relationship{}, Roles: map[string][]Setting{}, Settings: map[string]string{}, Comments: map[string]string{}}
	err := pgx.BeginTxFunc(ctx, c.cfg.Admin, pgx.TxOptions{IsoLevel: pgx.RepeatableRead, AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		// Names in expressions and types are to be qualified.
		if _, err := tx.Exec(ctx, "set local search_path to ''"); err != nil {
			return err
		}
		for _, read := range []func(context.Context, pgx.Tx, *Snapshot) error{c.loadRelations, c.loadFunctions, c.loadRelationships, c.loadRoles, c.loadSettings, c.loadComments} {
			if err := read(ctx, tx, s); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, pg.Wrap(err, "load schema cache")
	}
	return s, nil
}

// Bits of pg_relation_is_updatable.
const (
	canUpdate = 1 << 2
	canInsert = 1 << 3
	canDelete = 1 << 4
)

func (c *Cache) loadRelations(ctx context.Context, tx pgx.Tx, s *Snapshot) error {
	rows, err := tx.Query(ctx, relationsSQL, c.cfg.Schemas)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		r := &Relation{byName: map[string]int{}}
		var kind string
		var columns, pk []byte
		var can int
		if err := rows.Scan(&r.Schema, &r.Name, &r.oid, &r.rowType, &kind, &columns, &pk, &can, &r.Comment); err != nil {
			return err
		}
		if err := errors.Join(json.Unmarshal(columns, &r.Columns), json.Unmarshal(pk, &r.PrimaryKey)); err != nil {
			return fmt.Errorf("read relation %s.%s: %w", r.Schema, r.Name, err)
		}
		r.Kind = kind[0]
		r.Insertable, r.Updatable, r.Deletable = can&canInsert != 0, can&canUpdate != 0, can&canDelete != 0
		for i, col := range r.Columns {
			r.byName[col.Name] = i
		}
		s.relations[key{r.Schema, r.Name}] = r
	}
	return rows.Err()
}

func (c *Cache) loadFunctions(ctx context.Context, tx pgx.Tx, s *Snapshot) error {
	rows, err := tx.Query(ctx, functionsSQL, c.cfg.Schemas)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		f := &Function{}
		var volatility string
		var args, settings []byte
		if err := rows.Scan(&f.Schema, &f.Name, &volatility, &f.ReturnsSet, &f.ReturnsVoid, &f.ReturnsRow, &f.Anonymous, &f.returns, &f.oneRow, &f.Variadic, &args, &settings, &f.Comment); err != nil {
			return err
		}
		if err := json.Unmarshal(args, &f.Args); err != nil {
			return fmt.Errorf("read function %s.%s: %w", f.Schema, f.Name, err)
		}
		if f.Settings, err = readSettings(settings); err != nil {
			return err
		}
		f.Volatility = volatility[0]
		if callable(f) {
			k := key{f.Schema, f.Name}
			s.functions[k] = append(s.functions[k], f)
		} else {
			s.unnamed = append(s.unnamed, f)
		}
	}
	return rows.Err()
}

// Types of a single unnamed argument that takes the body of a request.
const (
	OIDJSON  = 114
	OIDJSONB = 3802
	OIDText  = 25
	OIDXML   = 142
	OIDBytea = 17
)

// callable leaves out functions with unnamed arguments, but for a single one
// that can take a body.
func callable(f *Function) bool {
	if len(f.Args) == 1 && f.Args[0].Name == "" {
		switch f.Args[0].OID {
		case OIDJSON, OIDJSONB, OIDText, OIDXML, OIDBytea:
			return true
		}
		return false
	}
	for _, a := range f.Args {
		if a.Name == "" {
			return false
		}
	}
	return true
}

func (c *Cache) loadRoles(ctx context.Context, tx pgx.Tx, s *Snapshot) error {
	rows, err := tx.Query(ctx, rolesSQL, c.cfg.Login)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var name string
		var settings []byte
		if err := rows.Scan(&name, &settings); err != nil {
			return err
		}
		if s.Roles[name], err = readSettings(settings); err != nil {
			return err
		}
	}
	return rows.Err()
}

func (c *Cache) loadSettings(ctx context.Context, tx pgx.Tx, s *Snapshot) error {
	rows, err := tx.Query(ctx, settingsSQL, c.cfg.Login)
	if err != nil {
		return err
	}
	var name, value string
	_, err = pgx.ForEachRow(rows, []any{&name, &value}, func() error {
		s.Settings[name] = value
		return nil
	})
	return err
}

func (c *Cache) loadComments(ctx context.Context, tx pgx.Tx, s *Snapshot) error {
	rows, err := tx.Query(ctx, commentsSQL, c.cfg.Schemas)
	if err != nil {
		return err
	}
	var name, text string
	_, err = pgx.ForEachRow(rows, []any{&name, &text}, func() error {
		s.Comments[name] = text
		return nil
	})
	return err
}

// unsafeSettings would undermine the gateway when copied from a role.
var unsafeSettings = map[string]bool{
	"role": true, "session_authorization": true, "search_path": true, "standard_conforming_strings": true,
	"backslash_quote": true, "client_encoding": true,
}

func readSettings(text []byte) ([]Setting, error) {
	var pairs [][2]string
	if err := json.Unmarshal(text, &pairs); err != nil {
		return nil, fmt.Errorf("read settings: %w", err)
	}
	var out []Setting
	for _, p := range pairs {
		if !unsafeSettings[p[0]] {
			out = append(out, Setting{p[0], p[1]})
		}
	}
	return out, nil
}
