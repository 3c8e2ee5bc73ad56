package auth_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

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
