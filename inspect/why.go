package inspect

import (
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

//go:embed sql/user.sql
var userSQL string

// WhyRequest asks why somebody did not get a change.
type WhyRequest struct {
	// Table is schema.table, or a table of schema public. Required.
	Table string
	// User is a user's id or mail address; empty is who has not signed in.
	User string
	// Key is the row's primary key by column; with a key of one column its name may
	// be empty. Without it the latest change is looked at.
	Key map[string]string
}

// Verdict is the outcome of one step.
type Verdict string

// Verdicts.
const (
	Passes Verdict = "passes"
	Stops  Verdict = "stops"
	Notes  Verdict = "notes" // worth knowing, and no reason
)

// Hops of a change on its way to a client. Between the row and the client they are
// the stages of a trace; see sluice.Stage.
const (
	HopStream      = "stream"
	HopPublication = string(sluice.StagePublication)
	HopSocket      = "socket"
	HopToken       = "token"
	HopBinding     = string(sluice.StageBinding)
	HopRow         = "row"
	HopQueue       = "queue"
)

// Step is one hop.
type Step struct {
	Hop     string  `json:"hop"`
	Verdict Verdict `json:"verdict"`
	Text    string  `json:"text"`
	Remedy  string  `json:"remedy,omitempty"`
}

// Why is the answer, hop by hop.
type Why struct {
	Table string `json:"table"`
	User  string `json:"user,omitempty"` // id
	Role  string `json:"role"`
	Steps []Step `json:"steps"`
	// Stopped is the first hop that stops the change; empty when nothing does.
	Stopped string        `json:"stopped,omitempty"`
	Trace   *sluice.Trace `json:"trace"`
}

func (y *Why) add(hop string, v Verdict, remedy, format string, args ...any) {
	if v == Stops && y.Stopped == "" {
		y.Stopped = hop
	}
	y.Steps = append(y.Steps, Step{hop, v, fmt.Sprintf(format, args...), remedy})
}

// Why follows the latest change of a table, or of one row, to a user's sockets and
// names the hop that stops it. The error is of kind sluice.ErrNotFound when there is
// no such table or user, sluice.ErrInvalid when the request makes no sense.
func (s *Server) Why(ctx context.Context, r WhyRequest) (*Why, error) {
	schema, table, ok := strings.Cut(strings.TrimSpace(r.Table), ".")
	if !ok {
		schema, table = "public", schema
	}
	if table == "" || schema == "" {
		return nil, fmt.Errorf("name a table, as schema.table: %w", sluice.ErrInvalid)
	}
	claims, err := s.Claims(ctx, r.User)
	if err != nil {
		return nil, err
	}
	trace, err := s.cfg.Tracer.Trace(ctx, sluice.TraceRequest{Schema: schema, Table: table, Key: r.Key, Subject: claims.Subject, Claims: claims})
	if err != nil {
		return nil, err
	}
	y := &Why{Table: trace.Table, User: claims.Subject, Role: claims.Role, Trace: trace}
	s.explainStream(y)
	explainPublication(y)
	s.explainSockets(ctx, y)
	explainRow(y, len(r.Key) > 0)
	return y, nil
}

// Claims returns what a token of a user, by id or mail address, would say; without
// one, the anonymous role's. The error is of kind sluice.ErrNotFound when there is no
// such user.
func (s *Server) Claims(ctx context.Context, user string) (sluice.Claims, error) {
	user = strings.TrimSpace(user)
	if user == "" {
		return sluice.Claims{Role: "anon", JSON: json.RawMessage(`{"role":"anon"}`)}, nil
	}
	var c sluice.Claims
	var text string
	err := s.cfg.Admin.QueryRow(ctx, userSQL, user).Scan(&c.Subject, &text, &c.Role)
	if errors.Is(pg.Kind(err), sluice.ErrNotFound) {
		return c, fmt.Errorf("no user has the id or the mail address %q: %w", user, sluice.ErrNotFound)
	}
	c.JSON = json.RawMessage(text)
	return c, pg.Wrap(err, "look for user %q in auth.users", user)
}

func (s *Server) explainStream(y *Why) {
	st := s.cfg.Stream()
	switch {
	case !st.Streaming:
		y.add(HopStream, Stops, "See whether PostgreSQL runs, and `sluice slot status`.", "changes are not being read from PostgreSQL: %s", st.Error)
	case st.Behind > farBehind:
		y.add(HopStream, Notes, "Wait, or look at what writes so much.", "the stream is %d MB behind PostgreSQL", st.Behind>>20)
	default:
		y.add(HopStream, Passes, "", "changes are read from slot %s", st.Slot)
	}
}

// farBehind is how far the stream may be behind, in bytes, before it is worth a word.
const farBehind = 16 << 20

func explainPublication(y *Why) {
	if len(y.Trace.Published) == 0 {
		y.add(HopPublication, Stops, fmt.Sprintf("Run: alter publication supabase_realtime add table %s;", y.Table), "%s is not in the publication supabase_realtime", y.Table)
		return
	}
	y.add(HopPublication, Passes, "", "supabase_realtime publishes %s of %s", strings.Join(y.Trace.Published, ", "), y.Table)
}

// explainSockets looks at the user's channels, and at those of nobody that listen to
// the table: a page that joins before it has its session is one of them.
func (s *Server) explainSockets(ctx context.Context, y *Why) {
	list, _ := s.cfg.Sockets(ctx, sluice.Only{Brief: true})
	mine, bound, anonymous := 0, 0, 0
	for _, v := range list {
		found := false
		for i := range v.Channels {
			ch := &v.Channels[i]
			if ch.Subject != y.User {
				if ch.Subject == "" && boundTo(ch, y.Table) {
					anonymous++
				}
				continue
			}
			if y.User == "" && !boundTo(ch, y.Table) {
				continue // nobody's channels are everybody's
			}
			found = true
			s.explainChannel(y, &v, ch, &bound)
		}
		if found {
			mine++
			if v.Waiting > 0 {
				y.add(HopQueue, Notes, "", "%d bytes wait for socket %d, which reads slowly or not at all", v.Waiting, v.Conn)
			}
		}
	}
	switch {
	case mine == 0 && y.User != "" && anonymous > 0:
		y.add(HopToken, Stops, "Wait for the session before subscribe(): await supabase.auth.getSession(), or supabase.realtime.setAuth().",
			"the user has no channel, but %d listen to %s without a user's token: a page that subscribes before it has its session looks like this", anonymous, y.Table)
	case mine == 0:
		y.add(HopSocket, Stops, "See the browser's console and `sluice doctor`; refusals stand in `sluice logs --code`.", "no channel of this user is open")
	case bound == 0:
		y.add(HopBinding, Stops, `Subscribe with .on('postgres_changes', { event: '*', schema: 'public', table: … }, …) before subscribe().`,
			"none of the user's channels listens to %s", y.Table)
	}
}

func (s *Server) explainChannel(y *Why, v *sluice.SocketView, ch *sluice.ChannelView, bound *int) {
	switch {
	case ch.State == sluice.ChannelMuted:
		y.add(HopToken, Stops, "The client has to send a fresh token: refresh the session, and keep autoRefreshToken on.",
			"channel %q on socket %d is muted: its token expired at %s", ch.Topic, v.Conn, ch.Expires.Format(time.RFC3339))
	case ch.State == sluice.ChannelJoining:
		y.add(HopSocket, Stops, "Wait, or see the log for what the join waits for.", "channel %q on socket %d is still joining", ch.Topic, v.Conn)
	default:
		y.add(HopSocket, Passes, "", "channel %q on socket %d is joined as %s; %d changes sent, %d confirmed", ch.Topic, v.Conn, ch.Role, ch.Sent, ch.Received)
	}
	if boundTo(ch, y.Table) {
		*bound++
	}
}

func boundTo(ch *sluice.ChannelView, table string) bool {
	for _, b := range ch.Subscriptions {
		if (b.Schema == "*" || strings.HasPrefix(table, b.Schema+".")) && (b.Table == "*" || strings.HasSuffix(table, "."+b.Table)) {
			return true
		}
	}
	return false
}

// explainRow says how far the latest change got.
func explainRow(y *Why, named bool) {
	switch {
	case len(y.Trace.Changes) == 0 && named:
		y.add(HopRow, Stops, "", "no row of %s has this key now, and no change of it is kept", y.Table)
		return
	case len(y.Trace.Changes) == 0 && !y.Trace.Watched:
		y.add(HopRow, Notes, "Name a row with its primary key: the row as it is now is then looked at.", "nobody has listened to %s for a while, so that no changes are kept", y.Table)
		return
	case len(y.Trace.Changes) == 0:
		y.add(HopRow, Notes, "Write a row, or name one with its primary key.", "%s has not changed since somebody listens", y.Table)
		return
	}
	ch := &y.Trace.Changes[0]
	what := "the row as it is now"
	if ch.At != "" {
		what = fmt.Sprintf("%s at %s", ch.Kind, ch.At)
	}
	got := false
	for _, o := range ch.Outcomes {
		got = got || passed(o.Stage)
	}
	for _, o := range ch.Outcomes {
		v := Stops
		switch {
		case passed(o.Stage):
			v = Passes
		case got: // another channel of the user has it
			v = Notes
		}
		to := ""
		if o.Conn != 0 {
			to = fmt.Sprintf(" to channel %q on socket %d", o.Topic, o.Conn)
		}
		y.add(string(o.Stage), v, o.Remedy, "%s%s: %s", what, to, o.Text)
	}
}

func passed(at sluice.Stage) bool {
	return at == sluice.StageSent || at == sluice.StageDelivered || at == sluice.StageVisible
}
