package schema

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A view's tree, shortened; a brace in a name is escaped, as PostgreSQL does.
const viewTree = `({QUERY :commandType 1 :querySource 0 :utilityStmt <> :rtable ({RTE :alias {ALIAS :aliasname a\{b\)\ c :colnames <>} :subquery {QUERY :targetList ({TARGETENTRY :expr {VAR} :resno 1 :resorigtbl 99 :resorigcol 9 :resjunk false}) :setOperations {X}}}) ` +
	`:targetList ({TARGETENTRY :expr {VAR :varno 1} :resno 1 :resname id :ressortgroupref 0 :resorigtbl 16390 :resorigcol 3 :resjunk false} ` +
	`{TARGETENTRY :expr {CONST :constvalue 4 [ 1 0 0 0 ]} :resno 2 :resname x\:resorigtbl :resorigtbl 0 :resorigcol 0 :resjunk false}) :override 0 :setOperations <> :constraintDeps <>})`

func TestViewOrigins(t *testing.T) {
	t.Parallel()
	if diff := cmp.Diff(map[int16]origin{1: {16390, 3}}, viewOrigins(viewTree), cmp.AllowUnexported(origin{})); diff != "" {
		t.Error(diff)
	}
	union := `({QUERY :targetList ({TARGETENTRY :resno 1 :resorigtbl 1 :resorigcol 1}) :setOperations {SETOPERATIONSTMT :op 0}})`
	if got := viewOrigins(union); got != nil {
		t.Errorf("a set operation leads to %v", got)
	}
}

func FuzzViewOrigins(f *testing.F) {
	f.Add(viewTree)
	f.Add(`({QUERY :targetList ({TARGETENTRY :resno 1 :resorigtbl 1 :resorigcol 1}) :setOperations {S}})`)
	f.Add(`({QUERY :targetList ({TARGETENTRY :resno \`)
	f.Add(`:setOperations`)
	f.Fuzz(func(t *testing.T, tree string) {
		for number, o := range viewOrigins(tree) {
			if o.relation == 0 || o.column <= 0 {
				t.Fatalf("column %d leads to %v", number, o)
			}
		}
	})
}
