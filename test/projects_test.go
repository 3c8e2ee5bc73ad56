package e2e_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestProjects starts projects as people write them for the original, unmodified, and
// uses each with the stock client.
func TestProjects(t *testing.T) {
	_, err := node()
	need(t, err)
	need(t, postgres())
	for name, warnings := range map[string][]string{
		"todo": {"storage: not served", "functions: not served", "analytics: not served", "experimental: not served"},
		"chat": {"storage: not served", "functions: not served", "analytics: not served", "experimental: not served"},
		"squashed": {
			"storage: not served", "functions: not served", "analytics: not served", "experimental: not served",
			"extension pg_graphql is not offered", "extension supabase_vault is not offered",
		},
	} {
		t.Run(name, func(t *testing.T) {
			ports := freePorts(t, 4)
			s := &stack{bin: sluice(t), dir: t.TempDir(), args: []string{"--chat"}, log: &logBuffer{}, out: &logBuffer{}, env: []string{
				fmt.Sprintf("SUPABASE_API_PORT=%d", ports[0]), fmt.Sprintf("SUPABASE_DB_PORT=%d", ports[1]),
				fmt.Sprintf("SUPABASE_INBUCKET_PORT=%d", ports[2]), fmt.Sprintf("SUPABASE_STUDIO_PORT=%d", ports[3]), "PROJECT=" + name,
			}}
			copyFiles(t, filepath.Join("testdata", "projects", name, "supabase"), filepath.Join(s.dir, "supabase"))
			s.start(t)
			for line := range strings.SplitSeq(s.log.String(), "\n") {
				if !strings.HasPrefix(line, "WARN") {
					continue
				}
				known := false
				for _, w := range warnings {
					known = known || strings.Contains(line, w)
				}
				if !known {
					t.Errorf("a warning that helps nobody: %s", line)
				}
			}
			runScript(t, s, control(t, s), "node/projects.test.mjs")
		})
	}
}
