package pg_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/pg"
)

// BenchmarkAsEach: one flush of a question over ten rows, for so many identities.
func BenchmarkAsEach(b *testing.B) {
	p := pgtest.New(b).Pool("authenticator")
	const sql = `select (auth.uid() = x.owner and x.n > 3) is true from unnest($1::text[]) with ordinality r (t, i)
		cross join lateral (select r.t::int as n, '00000000-0000-4000-8000-000000000001'::uuid as owner) x order by r.i`
	opt := pg.AsOptions{StatementTimeout: 5 * time.Second, Settings: []pg.Setting{{Name: "search_path", Value: "public, extensions"}}}
	for _, n := range []int{1, 32, 256} {
		b.Run(fmt.Sprintf("identities=%d", n), func(b *testing.B) {
			checks := make([]pg.EachCheck, n)
			for i := range checks {
				checks[i] = pg.EachCheck{Claims: user(fmt.Sprintf("00000000-0000-4000-8000-%012d", i)), Args: [][]byte{[]byte("{1,2,3,4,5,6,7,8,9,10}")}}
			}
			b.ReportAllocs()
			for b.Loop() {
				got, err := p.AsEach(b.Context(), sql, checks, opt)
				if err != nil || got[n-1].Err != nil || len(got[n-1].Rows) != 10 {
					b.Fatal(err, got[n-1])
				}
			}
		})
	}
}
