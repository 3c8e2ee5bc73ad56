package changes

import (
	"context"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/policy"
)

// roster is everybody who listens to a table, sorted by what decides for them. It
// is made once and used as long as nobody comes, goes or becomes somebody else,
// and the table's definition holds. One goroutine uses it.
type roster struct {
	table   *table
	version uint64
	classes []*class
	left    bool // somebody wants to know which rows leave
}

// class is those who act as one role.
type class struct {
	role   *tableRole
	groups []*group
	left   []seat // who wants to know which rows leave

	// Seats whose filters begin with an equality stand under its value, by the
	// column's position: a change finds them without looking at the others.
	plain []seat
	equal map[int]map[string][]seat
	// every holds the events for which somebody wants every row.
	every map[sluice.ChangeKind]bool

	// What the policies' tier needs; see policy.Plan.
	judge   *policy.Judge
	byIndex map[string][]*group // tier 1, by the value of the index
	bySlot  map[string][]*group // tier 2, by the value of the open slot
	asking  [][]*group          // tier 2: those whom no policy can tell apart
	odd     []*group            // only PostgreSQL knows what their claims mean
}

// group is everybody who acts as the same role with the same claims.
type group struct {
	key    identityKey
	claims sluice.Claims
	bound  *policy.Bound // nil without policies
	subs   []*candidate
}

// candidate is a subscription with its bindings for this table.
type candidate struct {
	sub      *subscription
	bindings []*binding
}

type seat struct {
	g *group
	c *candidate
}

// rosters keeps those of the tables that are being served.
type rosters struct {
	mu    sync.Mutex         // guards known; a roster belongs to its table's worker
	known map[uint32]*roster // by table
}

// rosterFor returns the roster of a table, or for a replay and for what is decided
// again one of some bindings alone.
func (s *Service) rosterFor(ctx context.Context, t *table, work *task) *roster {
	if work.replay || work.bindings != nil {
		return s.newRoster(ctx, t, work.bindings)
	}
	version := s.index.version(t.def.Schema, t.def.Name)
	s.rosters.mu.Lock()
	known := s.rosters.known[t.oid]
	s.rosters.mu.Unlock()
	if known != nil && known.table == t && known.version == version {
		return known
	}
	x := s.newRoster(ctx, t, s.index.find(t.def.Schema, t.def.Name))
	x.version = version
	s.rosters.mu.Lock()
	defer s.rosters.mu.Unlock()
	if s.rosters.known == nil || len(s.rosters.known) >= maxTables {
		s.rosters.known = map[uint32]*roster{}
	}
	unknown := slices.ContainsFunc(x.classes, func(cl *class) bool { return cl.role.unknown })
	if s.rosters.known[t.oid] = x; len(x.classes) == 0 || unknown {
		delete(s.rosters.known, t.oid)
	}
	return x
}

// newRoster sorts bindings by role and identity.
func (s *Service) newRoster(ctx context.Context, t *table, bindings []*binding) *roster {
	x := &roster{table: t}
	byRole, byKey, seen := map[string]*class{}, map[identityKey]*group{}, map[*subscription]*candidate{}
	for _, b := range bindings {
		x.left = x.left || b.left
		if c := seen[b.sub]; c != nil {
			c.bindings = append(c.bindings, b)
			continue
		}
		claims, who, open := b.sub.identity()
		if !open {
			continue
		}
		g := byKey[who]
		if g == nil {
			cl := byRole[claims.Role]
			if cl == nil {
				cl = &class{role: s.roleOf(ctx, t, claims.Role), equal: map[int]map[string][]seat{}, every: map[sluice.ChangeKind]bool{}}
				byRole[claims.Role] = cl
				x.classes = append(x.classes, cl)
			}
			g = &group{key: who, claims: claims}
			byKey[who] = g
			cl.groups = append(cl.groups, g)
		}
		c := &candidate{sub: b.sub, bindings: []*binding{b}}
		seen[b.sub] = c
		g.subs = append(g.subs, c)
	}
	for _, cl := range x.classes {
		cl.arrange(t)
	}
	return x
}

// roleOf returns what a role may do; nothing, when that cannot be found out.
func (s *Service) roleOf(ctx context.Context, t *table, role string) *tableRole {
	var r *tableRole
	err := s.persist(ctx, func() (err error) {
		r, err = s.catalog.role(ctx, t, role)
		return err
	})
	if err == nil {
		return r
	}
	if ctx.Err() == nil {
		s.warn("role", role, "privileges of a role cannot be read", err)
	}
	return &tableRole{unknown: true}
}

// arrange makes the indexes of a class.
func (cl *class) arrange(t *table) {
	for _, g := range cl.groups {
		for _, c := range g.subs {
			cl.place(t, seat{g, c})
		}
	}
	p := cl.role.plan
	if p == nil || cl.role.tier() == policy.TierUser {
		return
	}
	cl.judge = p.Judge()
	byKey := map[string]int{}
	cl.byIndex, cl.bySlot = map[string][]*group{}, map[string][]*group{}
	for _, g := range cl.groups {
		if g.bound = p.Bind(g.claims); g.bound.Odd() {
			cl.odd = append(cl.odd, g)
			continue
		}
		if p.Indexed() {
			if v, some := g.bound.Index(); some {
				cl.byIndex[v] = append(cl.byIndex[v], g)
			}
		}
		if p.Tier != policy.TierSet {
			continue
		}
		if p.OpenSlot >= 0 {
			if v, some := g.bound.Open(); some {
				cl.bySlot[v] = append(cl.bySlot[v], g)
			}
		}
		n, known := byKey[g.bound.Key()]
		if !known {
			n = len(cl.asking)
			byKey[g.bound.Key()] = n
			cl.asking = append(cl.asking, nil)
		}
		cl.asking[n] = append(cl.asking[n], g)
	}
}

// place puts a seat under the value of its equality, or with the plain ones.
func (cl *class) place(t *table, s seat) {
	if slices.ContainsFunc(s.c.bindings, func(b *binding) bool { return b.left }) {
		cl.left = append(cl.left, s)
	}
	for _, b := range s.c.bindings {
		if len(b.filters) > 0 {
			continue
		}
		for _, k := range []sluice.ChangeKind{sluice.ChangeInsert, sluice.ChangeUpdate, sluice.ChangeDelete} {
			if b.event == 0 || b.event == k {
				cl.every[k] = true
			}
		}
	}
	if len(s.c.bindings) == 1 {
		for i := range s.c.bindings[0].filters {
			f := &s.c.bindings[0].filters[i]
			at, ok := t.columns[f.column]
			if !ok || f.op != policy.OpEq || f.negate {
				continue
			}
			if v, ok := equalKey(t.plain(at).oid, f.value); ok {
				if cl.equal[at] == nil {
					cl.equal[at] = map[string][]seat{}
				}
				cl.equal[at][v] = append(cl.equal[at][v], s)
				return
			}
		}
	}
	cl.plain = append(cl.plain, s)
}

// equalKey returns the text of a filter's value as PostgreSQL writes it, for types
// whose values are equal when their texts are.
func equalKey(typ uint32, value string) (string, bool) {
	switch typ {
	case oidInt2, oidInt4, oidInt8:
		n, err := strconv.ParseInt(value, 10, 64)
		return strconv.FormatInt(n, 10), err == nil
	case oidUUID:
		return strings.ToLower(value), plainUUID(value)
	case oidText, oidVarchar:
		return value, true
	}
	return "", false
}

// seats calls each for those who may want a row: the plain ones, and those whose
// equality it meets. A value that is missing has to be looked up by each.
func (cl *class) seats(image []sluice.Value, each func(seat)) {
	for _, s := range cl.plain {
		each(s)
	}
	for at, values := range cl.equal {
		if at >= len(image) {
			continue
		}
		switch v := image[at]; v.Kind {
		case sluice.ValueText:
			for _, s := range values[string(v.Text)] {
				each(s)
			}
		case sluice.ValueMissing:
			for _, list := range values {
				for _, s := range list {
					each(s)
				}
			}
		}
	}
}
