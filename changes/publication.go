package changes

import (
	"context"

	"github.com/sluice-dev/sluice"
)

// watchPublication tells subscriptions when the last table of one of their
// bindings leaves the publication, and when all of them have one again.
func (s *Service) watchPublication(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.catalog.changed:
		}
		// What the stream tells of is to be read, not what was before.
		gen := s.catalog.generation()
		seen := s.untilVisible(ctx, func() bool {
			return s.persist(ctx, func() error { return s.catalog.look(ctx) }) == nil && s.catalog.visible() >= gen
		})
		if !seen {
			signal(s.catalog.changed)
		}
		bindings := s.index.all()
		if len(bindings) == 0 {
			continue
		}
		published := map[tableName]bool{}
		err := s.persist(ctx, func() error {
			refs, err := s.catalog.match(ctx, "*", "*")
			for _, ref := range refs {
				for _, k := range names(ref.schema, ref.name) {
					published[k] = true
				}
			}
			return err
		})
		if err != nil {
			if ctx.Err() == nil {
				s.warn("publication", "supabase_realtime", "the tables of the publication cannot be read", err)
			}
			continue
		}
		for len(bindings) > 0 {
			sub := bindings[0].sub
			sub.published(published)
			bindings = bindings[len(sub.bounds):]
		}
	}
}

// published compares the bindings with what is published now.
func (s *subscription) published(now map[tableName]bool) {
	lost, back := 0, false
	for _, b := range s.bounds {
		was := b.gone
		b.gone = !now[tableName{b.schema, b.table}]
		switch {
		case b.gone && !was:
			r := unpublished(&b.params)
			s.service.log.Warn("a table has left the publication; its subscription receives nothing",
				sluice.LogTopic, s.topic, sluice.LogTable, b.schema+"."+b.table, sluice.LogCode, r.Code)
			s.report(r)
			lost++
		case b.gone:
			lost++
		case was:
			back = true
		}
	}
	if back && lost == 0 {
		s.report(nil)
	}
}
