package policy

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

//go:embed sql/explain.sql
var explainSQL string

// Explanation says how the changes of a table are decided.
type Explanation struct {
	Schema string `json:"schema"`
	Table  string `json:"table"`
	// Guard is the table that the policies belong to; empty without row level
	// security.
	Guard string            `json:"guard"`
	Force bool              `json:"force"`
	Roles []RoleExplanation `json:"roles"`
}

// RoleExplanation says it for one role.
type RoleExplanation struct {
	Role string `json:"role"`
	Decision
	Policies []PolicyExplanation `json:"policies"`
}

// PolicyExplanation is one policy by itself.
type PolicyExplanation struct {
	Name       string   `json:"name"`
	Permissive bool     `json:"permissive"`
	To         []string `json:"to"`
	Using      string   `json:"using"`
	Decision
}

// Decision is a plan for people.
type Decision struct {
	Tier Tier `json:"tier"`
	// How is what a change costs; Why what keeps it from being cheaper.
	How  string   `json:"how"`
	Why  string   `json:"why,omitempty"`
	Seen []string `json:"claims,omitempty"`
	SQL  string   `json:"sql,omitempty"`
}

// Explain compiles a table's policies for some roles, together and each by itself.
// A name without a schema is looked for in searchPath. The error is of kind
// sluice.ErrNotFound when there is no such table or role.
func Explain(ctx context.Context, db *pg.Pool, name string, roles []string, searchPath string) (*Explanation, error) {
	var d struct {
		OID       uint32   `json:"oid"`
		Schema    string   `json:"schema"`
		Name      string   `json:"name"`
		Columns   []string `json:"columns"`
		Guard     *uint32  `json:"guard"`
		GuardName *string  `json:"guardName"`
		Force     bool     `json:"force"`
		Policies  []struct {
			Name       string   `json:"name"`
			Permissive bool     `json:"permissive"`
			Using      string   `json:"using"`
			To         []string `json:"to"`
		} `json:"policies"`
	}
	rows, err := db.ReadOnly(ctx, 0, []pg.Setting{{Name: "search_path", Value: searchPath}}, pg.Statement{SQL: explainSQL, Args: [][]byte{[]byte(name)}})
	if err != nil {
		return nil, pg.Wrap(err, "look for table %s", name)
	}
	if len(rows) == 0 {
		return nil, fmt.Errorf("there is no table %s: %w", name, sluice.ErrNotFound)
	}
	if err := json.Unmarshal(rows[0][0], &d); err != nil {
		return nil, fmt.Errorf("read table %s: %w", name, err)
	}
	out := &Explanation{Schema: d.Schema, Table: d.Name, Force: d.Force}
	if d.Guard != nil {
		out.Guard = *d.GuardName
	}
	table := &Table{Schema: d.Schema, Name: d.Name, Columns: d.Columns}
	for _, role := range roles {
		r := RoleExplanation{Role: role, Policies: []PolicyExplanation{}}
		if d.Guard == nil {
			r.Decision = Decision{How: "row level security is off: every row, to whoever may select it"}
			out.Roles = append(out.Roles, r)
			continue
		}
		in := Input{Table: table, Guard: *d.Guard, Role: role, SearchPath: searchPath}
		if r.Decision, err = explainOne(ctx, db, in); err != nil {
			return nil, err
		}
		for _, p := range d.Policies {
			e := PolicyExplanation{Name: p.Name, Permissive: p.Permissive, To: p.To, Using: p.Using}
			in.Only, in.Permissive = []string{p.Name}, true
			if e.Decision, err = explainOne(ctx, db, in); err != nil {
				return nil, err
			}
			if e.Using != "" && e.Using != "false" && e.How == howNone {
				e.How = "not for this role"
			}
			r.Policies = append(r.Policies, e)
		}
		out.Roles = append(out.Roles, r)
	}
	return out, nil
}

const howNone = "no row is seen; nothing is asked"

func explainOne(ctx context.Context, db *pg.Pool, in Input) (Decision, error) {
	p, err := Compile(ctx, db, in)
	if err != nil {
		return Decision{}, err
	}
	d := Decision{Tier: p.Tier, Why: p.Why, Seen: p.Seen, SQL: p.SQL}
	switch {
	case p.OpenSQL != "":
		d.SQL = p.OpenSQL
		fallthrough
	case p.Tier == TierSet:
		d.How = "one statement for a batch of changes, whatever the number of subscribers"
	case p.Tier == TierConstant && p.Shows:
		d.How = "every row is seen; nothing is asked"
	case p.Tier == TierConstant:
		d.How = howNone
	case p.Indexed():
		d.How = "no statement: only subscribers with the row's " + in.Table.Columns[p.index.at] + " are looked at"
	case p.Tier == TierPredicate:
		d.How = "no statement: evaluated for each subscriber over the row and the claims"
	default:
		d.How = "one check for each distinct token, as that user"
	}
	return d, nil
}
