package pg

import (
	"context"
	"embed"
	"fmt"
	"log/slog"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice"
)

//go:embed bootstrap/*.sql
var bootstrapFiles embed.FS

// BootstrapOptions are the parts of a local cluster that a project chooses.
type BootstrapOptions struct {
	// Password of all roles that can log in. Default "postgres".
	Password sluice.Secret
	// JWTSecret becomes the database setting app.settings.jwt_secret, which old
	// policies read. Empty leaves the setting as it is.
	JWTSecret sluice.Secret
	// JWTExp becomes app.settings.jwt_exp, in seconds. 0 leaves it as it is.
	JWTExp int
	// AutoExposeNewTables says whether tables, sequences and functions that
	// postgres makes in schema public are granted to the API roles by default.
	// nil means true. It is applied when it changes, so that a migration's own
	// ALTER DEFAULT PRIVILEGES stays.
	AutoExposeNewTables *bool
	// Logger receives what was done. Default: nowhere.
	Logger *slog.Logger
}

// loginRoles are given BootstrapOptions.Password.
var loginRoles = []string{
	"supabase_admin", "postgres", "authenticator", "supabase_auth_admin", "supabase_storage_admin",
	"supabase_functions_admin", "supabase_replication_admin", "supabase_read_only_user",
	"supabase_etl_admin", "pgbouncer",
}

// Bootstrap makes a private cluster look like Supabase's before the first
// migration: roles, extensions, schema public, default privileges, event
// triggers. It needs the superuser supabase_admin that initdb made and is never
// run on a database that Sluice does not own; Migrate comes after it. It acts on
// the database that superuserURL names. It may be repeated: when nothing is to
// do it costs two round trips.
func Bootstrap(ctx context.Context, superuserURL sluice.Secret, opt BootstrapOptions) error {
	if opt.Password == "" {
		opt.Password = "postgres"
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	if opt.JWTExp < 0 {
		return fmt.Errorf("jwt_exp %d: %w", opt.JWTExp, sluice.ErrInvalid)
	}
	conn, err := connectForSetup(ctx, superuserURL, opt.Logger)
	if err != nil {
		return err
	}
	defer closeSetup(conn)
	if user := conn.Config().User; user != "supabase_admin" || conn.PgConn().ParameterStatus("is_superuser") != "on" {
		return fmt.Errorf("bootstrap as %q: it takes the superuser supabase_admin (initdb --username=supabase_admin): %w", user, sluice.ErrForbidden)
	}
	set, err := loadMigrations("bootstrap", bootstrapFiles)
	if err != nil {
		return err
	}
	if err := set.apply(ctx, conn, opt.Logger); err != nil {
		return err
	}
	state, err := readBootstrapState(ctx, conn)
	if err != nil {
		return err
	}
	todo, err := state.statements(opt)
	if err != nil || len(todo) == 0 {
		return err
	}
	unlock, err := lockSetup(ctx, conn)
	if err != nil {
		return err
	}
	defer unlock()
	return inTx(ctx, conn, func(tx pgx.Tx) error {
		// Another database's bootstrap may alter the same roles.
		if _, err := tx.Exec(ctx, "lock table pg_catalog.pg_authid in share row exclusive mode"); err != nil {
			return Wrap(err, "lock roles")
		}
		for _, s := range todo {
			if _, err := tx.Exec(ctx, s.sql); err != nil {
				return Wrap(err, "bootstrap: %s", s.what)
			}
		}
		return nil
	})
}

// bootstrapState is what the options compare with.
type bootstrapState struct {
	database  string
	verifiers map[string]string // role → rolpassword
	jwtSecret string
	jwtExp    string
	expose    string // last applied AutoExposeNewTables
}

func readBootstrapState(ctx context.Context, conn *pgx.Conn) (bootstrapState, error) {
	var s bootstrapState
	err := conn.QueryRow(ctx, `
select current_database(),
       (select jsonb_object_agg(rolname, coalesce(rolpassword, '')) from pg_authid where rolname = any ($1::text[])),
       coalesce((select value from sluice.settings where name = 'auto_expose_new_tables'), 'true'),
       coalesce(jwt.secret, ''), coalesce(jwt.exp, '')
  from (select max(substr(c, length('app.settings.jwt_secret=') + 1)) filter (where starts_with(c, 'app.settings.jwt_secret=')) as secret,
               max(substr(c, length('app.settings.jwt_exp=') + 1)) filter (where starts_with(c, 'app.settings.jwt_exp=')) as exp
          from pg_db_role_setting s, unnest(s.setconfig) c
         where s.setrole = 0 and s.setdatabase = (select oid from pg_database where datname = current_database())) jwt`,
		loginRoles).Scan(&s.database, &s.verifiers, &s.expose, &s.jwtSecret, &s.jwtExp)
	return s, Wrap(err, "read roles and database settings")
}

// A setupStatement is SQL with the words to use for it in errors: the text
// itself may hold a secret.
type setupStatement struct{ what, sql string }

// statements returns what makes the cluster agree with opt.
func (s bootstrapState) statements(opt BootstrapOptions) ([]setupStatement, error) {
	var out []setupStatement
	if !s.passwordIs(opt.Password) {
		// One verifier for all roles: they share the password, and a restart
		// then checks it once. The server never sees the password, so neither
		// does its log.
		v, err := scramVerifier(opt.Password)
		if err != nil {
			return nil, err
		}
		for _, role := range loginRoles {
			out = append(out, setupStatement{
				"password of role " + role,
				"alter role " + quoteIdent(role) + " password " + quoteLiteral(v),
			})
		}
	}
	database := "alter database " + quoteIdent(s.database)
	if want := string(opt.JWTSecret); want != "" && want != s.jwtSecret {
		if strings.ContainsRune(want, 0) {
			return nil, fmt.Errorf("JWT secret holds a NUL: %w", sluice.ErrInvalid)
		}
		out = append(out, setupStatement{
			"app.settings.jwt_secret",
			database + " set app.settings.jwt_secret to " + quoteLiteral(want),
		})
	}
	if want := strconv.Itoa(opt.JWTExp); opt.JWTExp > 0 && want != s.jwtExp {
		out = append(out, setupStatement{
			"app.settings.jwt_exp",
			database + " set app.settings.jwt_exp to " + quoteLiteral(want),
		})
	}
	expose := opt.AutoExposeNewTables == nil || *opt.AutoExposeNewTables
	if want := strconv.FormatBool(expose); want != s.expose {
		verb, prep := "revoke", "from"
		if expose {
			verb, prep = "grant", "to"
		}
		for _, kind := range []string{"tables", "sequences", "functions"} {
			out = append(out, setupStatement{
				"auto_expose_new_tables",
				"alter default privileges for role postgres in schema public " + verb + " all on " + kind + " " + prep + " anon, authenticated, service_role",
			})
		}
		out = append(out, setupStatement{
			"auto_expose_new_tables",
			"insert into sluice.settings (name, value) values ('auto_expose_new_tables', " + quoteLiteral(want) + ") on conflict (name) do update set value = excluded.value",
		})
	}
	return out, nil
}

// passwordIs reports whether every login role has this password.
func (s bootstrapState) passwordIs(password sluice.Secret) bool {
	first := s.verifiers[loginRoles[0]]
	for _, role := range loginRoles {
		if s.verifiers[role] != first {
			return false
		}
	}
	return verifyScram(first, password)
}

func quoteIdent(s string) string { return pgx.Identifier{s}.Sanitize() }

// quoteLiteral quotes a string constant; s holds no NUL.
func quoteLiteral(s string) string {
	q := "'" + strings.ReplaceAll(s, "'", "''") + "'"
	if strings.ContainsRune(s, '\\') {
		return "E" + strings.ReplaceAll(q, `\`, `\\`)
	}
	return q
}
