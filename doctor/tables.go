package doctor

import (
	"context"
	_ "embed"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

var (
	//go:embed sql/all_tables.sql
	allTablesSQL string
	//go:embed sql/policies.sql
	policiesSQL string
)

// Policy is one policy of a table, its expressions as PostgreSQL writes them.
type Policy struct {
	Schema     string `json:"schema"`
	Table      string `json:"table"`
	Name       string `json:"name"`
	Command    string `json:"command"` // SELECT, INSERT, UPDATE, DELETE, ALL
	Permissive bool   `json:"permissive"`
	Roles      string `json:"roles"`
	Using      string `json:"using"`
	Check      string `json:"check"`
}

// TableReport is one table of an app, and what hinders its changes.
type TableReport struct {
	Schema, Name string
	Published    bool
	RLS          bool
	Policies     []Policy
	Findings     []Finding
}

func (t TableReport) String() string { return t.Schema + "." + t.Name }

// Tables reads all tables of an app in one READ ONLY transaction, and judges them as
// Check judges those that an app listens to.
func Tables(ctx context.Context, database sluice.Secret) ([]TableReport, error) {
	v := &visit{cfg: Config{DatabaseURL: database, Timeout: 10 * time.Second}}
	var out []TableReport
	err := v.readOnly(ctx, func(tx pgx.Tx) error {
		var names []struct{ Schema, Name string }
		if err := readJSON(ctx, tx, &names, allTablesSQL); err != nil {
			return pg.Wrap(err, "list the tables")
		}
		schemas, tables := make([]string, len(names)), make([]string, len(names))
		for i, n := range names {
			schemas[i], tables[i] = n.Schema, n.Name
		}
		if len(names) == 0 {
			return nil
		}
		db := &catalog{}
		if err := readJSON(ctx, tx, db, serverSQL); err != nil {
			return pg.Wrap(err, "read settings")
		}
		if err := readJSON(ctx, tx, &db.tables, tablesSQL, schemas, tables, v.roles()); err != nil {
			return pg.Wrap(err, "read the tables")
		}
		var policies []Policy
		if err := readJSON(ctx, tx, &policies, policiesSQL, schemas, tables); err != nil {
			return pg.Wrap(err, "read the policies")
		}
		for _, t := range db.tables {
			r := TableReport{Schema: t.Schema, Name: t.Name, Published: t.Published, RLS: t.RLS, Findings: judgeTable(t)}
			if !db.Publication {
				r.Findings[0] = r.Findings[0].fix("create publication supabase_realtime for table %s;%s", t.sql(), t.openTo())
				r.Findings[0].Remedy = "Run: " + r.Findings[0].Fix
			}
			for _, p := range policies {
				if p.Schema == t.Schema && p.Table == t.Name {
					r.Policies = append(r.Policies, p)
				}
			}
			out = append(out, r)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("look at the tables: %w", err)
	}
	return out, nil
}
