package auth_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice/auth"
	"github.com/sluice-dev/sluice/internal/pgtest"
)

func TestEveryStatementPrepares(t *testing.T) {
	t.Parallel()
	pool := pgtest.New(t).Pool("supabase_auth_admin")
	conn, err := pool.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Release()
	for name, text := range auth.Statements() {
		if _, err := conn.Conn().Prepare(t.Context(), name, text); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestStatementNames holds names in the code against files: none is missing,
// none is left over.
func TestStatementNames(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var code strings.Builder
	for _, f := range files {
		if strings.HasSuffix(f, "_test.go") {
			continue
		}
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(text)
	}
	text := code.String()
	// Names made of two parts.
	text = strings.ReplaceAll(text, `"user_set_"+`, `"user_set_email" "user_set_phone"`)
	text = strings.ReplaceAll(text, `"user_confirm_"+`, `"user_confirm_email" "user_confirm_phone"`)
	all := auth.Statements()
	for name := range all {
		if !strings.Contains(text, `"`+name+`"`) {
			t.Errorf("sql/%s.sql is not used", name)
		}
	}
	for _, m := range regexp.MustCompile(`(?:sql\(|exec\(ctx, \w+, |changed\(ctx, \w+, )"(\w+)"`).FindAllStringSubmatch(text, -1) {
		if _, found := all[m[1]]; !found && !strings.HasSuffix(m[1], "_") {
			t.Errorf("there is no sql/%s.sql", m[1])
		}
	}
}

// Signing out does not read the flows of everybody else: strangers begin as many as
// they like.
func TestEndingSessionsUsesIndexes(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.Exec(`insert into auth.flow_state (id, user_id, provider_type, authentication_method, auth_code_issued_at, created_at)
		select gen_random_uuid(), case when i % 2 = 0 then gen_random_uuid() end, 'google', 'oauth', case when i % 3 = 0 then now() end,
		       now() - i * interval '2 seconds'
		from generate_series(1, 40000) i`)
	s.Exec("analyze auth.flow_state")
	text := strings.NewReplacer("$1", "'0b8ab45c-8f1b-4c3e-9d5e-5a3c1d0e7f60'", "$2", "now() - interval '10 minutes'").
		Replace(auth.Statements()["flow_delete_all"])
	rows, err := s.Admin().Query(t.Context(), "explain "+text)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	plan := strings.Join(lines, "\n")
	if strings.Contains(plan, "Seq Scan") || !strings.Contains(plan, "Index") {
		t.Errorf("the plan reads all flows:\n%s", plan)
	}
}
