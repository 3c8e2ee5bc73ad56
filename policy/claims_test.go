package policy_test

import (
	"testing"

	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/policy"
)

// PostgreSQL takes the statement of a policy over two claims, as one set.
func TestTwoClaimsAreASet(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.Exec(`create table public.docs (id int primary key, org text);
create table public.members (org text, user_id uuid);
grant select on public.members, public.docs to authenticated;
alter table public.docs enable row level security;
create policy p on public.docs using (org = (auth.jwt() ->> 'org') and exists (select from public.members m where m.org = docs.org and m.user_id = auth.uid()))`)
	var oid uint32
	if err := db.Admin().QueryRow(t.Context(), "select 'public.docs'::regclass::oid").Scan(&oid); err != nil {
		t.Fatal(err)
	}
	in := policy.Input{Table: &policy.Table{Schema: "public", Name: "docs", Columns: []string{"id", "org"}}, Guard: oid, Role: "authenticated"}
	p, err := policy.Compile(t.Context(), db.Pool("supabase_admin"), in)
	if err != nil {
		t.Fatal(err)
	}
	if p.Tier != policy.TierSet {
		t.Errorf("tier %s: %s", p.Tier, p.Why)
	}
}
