package main

import (
	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/changes"
	"github.com/sluice-dev/sluice/inspect"
	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/realtime"
	"github.com/sluice-dev/sluice/wal"
)

// newInspect lets the services be looked into.
func newInspect(cfg serveConfig, admin *pg.Pool, rt *realtime.Server, feed *changes.Service, reader *wal.Reader) (*inspect.Server, error) {
	return inspect.New(inspect.Config{
		Sockets: rt.View, Tracer: feed, Stream: func() inspect.Stream { return streamView(reader) },
		Refusals: cfg.refusals, Admin: admin, Version: buildVersion(), Logger: cfg.log,
	})
}

func streamView(reader *wal.Reader) inspect.Stream {
	st := reader.State()
	v := inspect.Stream{
		Streaming: st.Streaming, Slot: reader.Slot(), Handed: st.Handed.String(), Confirmed: st.Confirmed.String(), Server: st.Server.String(), Gaps: st.Gaps,
		Behind: behind(st.Server, st.Handed), Held: behind(st.Server, st.Confirmed),
	}
	if st.Err != nil {
		v.Error = st.Err.Error()
	}
	return v
}

func behind(end, at sluice.LSN) int64 {
	if at == 0 || end < at {
		return 0
	}
	return int64(end - at)
}
