package changes

import (
	"context"
	"strings"

	"github.com/sluice-dev/sluice"
)

// maxViewTables bounds the tables that are shown of a wildcard.
const maxViewTables = 50

// view describes a binding.
func (b *binding) view() sluice.BindingView {
	v := sluice.BindingView{Schema: b.schema, Table: b.table, Event: "*"}
	if b.event != 0 {
		v.Event = b.event.String()
	}
	filters := make([]string, len(b.filters))
	for i := range b.filters {
		filters[i] = b.filters[i].String()
	}
	v.Filter = strings.Join(filters, ",")
	return v
}

// tablesOf says what a role gets of the tables that a binding is for. Of what cannot
// be read it says nothing.
func (s *Service) tablesOf(ctx context.Context, b *binding, claims sluice.Claims) (out []sluice.TableView) {
	refs, err := s.catalog.match(ctx, b.schema, b.table)
	if err != nil {
		return nil
	}
	for _, ref := range refs[:min(len(refs), maxViewTables)] {
		t, err := s.catalog.table(ctx, ref.oid, s.catalog.generation())
		if err != nil {
			continue
		}
		r, err := s.catalog.role(ctx, t, claims.Role)
		if err != nil {
			continue
		}
		out = append(out, sluice.TableView{
			Table: ref.schema + "." + ref.name, Tier: r.shownTier(), Silent: silence(t, r, claims).View(),
		})
	}
	return out
}

// shownTier is the tier by which rows are decided in the end: nobody is asked where
// no policy applies.
func (r *tableRole) shownTier() int {
	if !r.ask {
		return 0
	}
	return int(r.tier())
}
