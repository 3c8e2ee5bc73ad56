package doctor

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// binding is an entry of postgres_changes.
type binding struct {
	Event  string `json:"event"`
	Schema string `json:"schema"`
	Table  string `json:"table"`
}

// checkSubscribe subscribes to each table that was named and listens to what
// the server says about it.
func (v *visit) checkSubscribe(ctx context.Context) []Finding {
	if len(v.cfg.Tables) == 0 {
		return []Finding{skip("no table was named (--table)")}
	}
	var findings []Finding
	for _, name := range v.cfg.Tables {
		b := binding{Event: "*"}
		b.Schema, b.Table = named(name)
		ch, found := v.subscribe(ctx, b)
		if ch != nil && v.cfg.WriteProbe != nil {
			v.listening = ch
		} else if ch != nil {
			ch.close()
		}
		findings = append(findings, found...)
	}
	return findings
}

// system is the payload of a system message.
type system struct {
	Extension string `json:"extension"`
	Status    string `json:"status"`
	Message   string `json:"message"`
}

func (v *visit) subscribe(ctx context.Context, b binding) (*channel, []Finding) {
	raw, err := json.Marshal(b)
	if err != nil { // strings
		return nil, []Finding{skip("the subscription cannot be sent: %v", err)}
	}
	tok, who := v.identity()
	cfg := loud()
	cfg.Changes = []json.RawMessage{raw}
	ch, err := v.join(ctx, probeTopic(), tok, cfg)
	if err != nil {
		return nil, []Finding{v.noJoin(err, fmt.Sprintf("a channel on %s.%s as %s", b.Schema, b.Table, who))}
	}
	if f := v.judgeEcho(b, ch.echo); f != nil {
		ch.close()
		return nil, []Finding{*f}
	}
	said, err := v.listen(ctx, ch)
	if err != nil {
		ch.close()
		return nil, []Finding{v.noReply(err, fmt.Sprintf("the subscription to %s.%s (SUBSCRIBED comes, the change feed stays away)", b.Schema, b.Table)).
			byRule(20, causes[CodeSlot].link)}
	}
	if f := v.judgeSubscription(b, who, said); f != nil {
		ch.close()
		return nil, []Finding{*f}
	}
	return ch, []Finding{ok("%s.%s: subscribed as %s", b.Schema, b.Table, who)}
}

// judgeEcho compares the reply's bindings with those that were sent, as clients
// do.
func (v *visit) judgeEcho(b binding, echo []json.RawMessage) *Finding {
	var got struct {
		binding
		ID json.Number `json:"id"`
	}
	if len(echo) == 1 && json.Unmarshal(echo[0], &got) == nil && got.binding == b && got.ID != "" && got.ID != "0" {
		return nil
	}
	text, _ := json.Marshal(echo) // what was read is JSON
	f := fail(CodeBindings, "The server echoes the subscription to %s.%s otherwise than it was sent: clients report \"mismatch between server and client bindings for postgres changes\"", b.Schema, b.Table).
		evidence("sent {event: %s, schema: %s, table: %s}, the reply has %s", b.Event, b.Schema, b.Table, v.hide.cut(string(text), 300)).
		remedy("Name schema and table exactly as in the database (they are case-sensitive), and upgrade Realtime: a server must echo the bindings in their order, each with an id.")
	return &f
}

// listen collects the system messages of a fresh subscription: up to the first
// that says ok or error, and what follows it at once.
func (v *visit) listen(ctx context.Context, ch *channel) ([]system, error) {
	var said []system
	take := func(m message) (system, bool) {
		var s system
		isOurs := m.Event == phoenix.EventSystem && m.Topic == ch.topic && json.Unmarshal(m.Payload, &s) == nil && s.Extension == "postgres_changes"
		if isOurs {
			said = append(said, s)
		}
		return s, isOurs
	}
	last := system{}
	if err := v.await(ctx, ch.socket, func(m message) bool {
		s, isOurs := take(m)
		last = s
		return isOurs && s.Status != "warning"
	}); err != nil {
		return nil, err
	}
	if last.Status == phoenix.StatusError {
		return said, nil
	}
	err := v.fence(ctx, ch, func(m message) bool {
		s, isOurs := take(m)
		return isOurs && s.Status == phoenix.StatusError
	})
	return said, err
}

// judgeSubscription reads what the server said.
func (v *visit) judgeSubscription(b binding, who string, said []system) *Finding {
	for _, s := range said {
		if s.Status == phoenix.StatusOK {
			continue
		}
		text, remedy, _ := strings.Cut(s.Message, " | ")
		code := codeOf(text)
		if code == "" {
			code = codeOf(remedy) // Sluice puts it before the remedy of a refused subscription
		}
		f := fail(code, "The subscription to %s.%s as %s receives nothing: %s", b.Schema, b.Table, who, text)
		switch {
		case strings.Contains(text, "Please check Realtime is enabled"):
			f = fail(sluice.CodeTableNotPublished, "The table %s.%s is not in the publication supabase_realtime, or its name is another: %s", b.Schema, b.Table, text).sure(Likely)
			remedy = fmt.Sprintf("Run: alter publication supabase_realtime add table %s; names are case-sensitive, and one such table fails all subscriptions of its channel.", table{Schema: b.Schema, Name: b.Table}.sql())
		case code == CodeSlot:
			remedy = slotRemedy(text)
		case code == "":
			f.Code = CodeSubscription
			if remedy == "" {
				remedy = "Compare schema, table and filter with the database, and look for the text in Realtime's log."
			}
		}
		if remedy != "" {
			f = f.remedy("%s", remedy)
		}
		f = f.evidence("system %s: %q", s.Status, text)
		return &f
	}
	return nil
}

// checkChange inserts the probe's row through REST and waits for its change,
// then deletes the row.
func (v *visit) checkChange(ctx context.Context) []Finding {
	if v.listening == nil {
		return []Finding{skip("no row was given to write (--write-probe)")}
	}
	b := binding{}
	b.Schema, b.Table = named(v.cfg.Tables[0])
	path := "/rest/v1/" + url.PathEscape(b.Table)
	header := v.writer(b)
	header["Prefer"] = "return=representation"
	a, err := v.send(ctx, http.MethodPost, path, header, v.cfg.WriteProbe)
	if err != nil {
		return []Finding{v.noAnswer(err)}
	}
	var rows []map[string]json.RawMessage
	if a.status != http.StatusCreated || json.Unmarshal(a.body, &rows) != nil || len(rows) != 1 {
		return []Finding{v.probeRefused(a, b)}
	}
	finding := v.awaitChange(ctx, b, rows[0])
	// The row goes even when the visit's time is over.
	if f := v.removeProbe(context.WithoutCancel(ctx), b, rows[0]); f != nil {
		return []Finding{finding, *f}
	}
	return []Finding{finding}
}

func (v *visit) writer(b binding) map[string]string {
	tok, _ := v.identity()
	return map[string]string{
		"Apikey": string(v.cfg.Key), "Authorization": "Bearer " + string(tok),
		"Content-Type": "application/json", "Content-Profile": b.Schema, "Accept-Profile": b.Schema,
	}
}

func (v *visit) probeRefused(a *answer, b binding) Finding {
	_, who := v.identity()
	return fail(CodeProbeRefused, "The row cannot be inserted into %s.%s as %s: %s", b.Schema, b.Table, who, a.message()).evidence("%s", a).
		remedy("Give a row that this role may insert and read again: values for all columns without a default, and policies for INSERT and SELECT.")
}

func (v *visit) awaitChange(ctx context.Context, b binding, row map[string]json.RawMessage) Finding {
	start := v.cfg.Now()
	err := v.await(ctx, v.listening.socket, func(m message) bool {
		var payload struct {
			Data struct {
				Type   string
				Record map[string]json.RawMessage
			}
		}
		return m.Event == phoenix.EventPostgresChanges && json.Unmarshal(m.Payload, &payload) == nil &&
			payload.Data.Type == "INSERT" && v.isProbe(row, payload.Data.Record)
	})
	_, who := v.identity()
	if err == nil {
		return ok("the insert into %s.%s arrived after %s", b.Schema, b.Table, v.cfg.Now().Sub(start).Round(100*time.Microsecond))
	}
	f := fail(CodeChangeLost, "The channel says SUBSCRIBED as %s, a row was inserted, and its change does not arrive", who).
		evidence("POST %s.%s → 201; no INSERT within %s: %v", b.Schema, b.Table, v.cfg.Timeout, err)
	if v.userToken == "" {
		return f.byRule(10, causes[sluice.CodeJoinedWithoutToken].link).
			remedy("The channel has no user: a policy for authenticated users lets nothing through. Sign the doctor in (--email), and in the app await supabase.auth.getSession() (or await supabase.realtime.setAuth()) before subscribe().")
	}
	return f.remedy("The SELECT policy must let this user see this row, the publication must publish inserts, and Realtime must read its slot: give --db-url to have them checked, and look at Realtime's log.")
}

// isProbe recognises the row by its id, or else by the values that were sent.
func (v *visit) isProbe(row, record map[string]json.RawMessage) bool {
	if id, has := row["id"]; has {
		return string(id) == string(record["id"])
	}
	var sent map[string]json.RawMessage
	_ = json.Unmarshal(v.cfg.WriteProbe, &sent) // newVisit has checked it
	for name := range sent {
		if string(row[name]) != string(record[name]) {
			return false
		}
	}
	return true
}

// removeProbe deletes the row, if its values name it and no other.
func (v *visit) removeProbe(ctx context.Context, b binding, row map[string]json.RawMessage) *Finding {
	path := "/rest/v1/" + url.PathEscape(b.Table) + "?" + filterFor(row)
	header := v.writer(b)
	a, err := v.send(ctx, http.MethodGet, path+"&limit=2", header, nil)
	var rows []json.RawMessage
	if err == nil && json.Unmarshal(a.body, &rows) == nil && len(rows) == 1 {
		header["Prefer"] = "return=representation"
		a, err = v.send(ctx, http.MethodDelete, path, header, nil)
		if err == nil && a.status == http.StatusOK && json.Unmarshal(a.body, &rows) == nil && len(rows) == 1 {
			return nil
		}
	}
	text, _ := json.Marshal(row) // it was read from JSON
	f := warn(CodeProbeStays, "The probe's row stays in %s.%s: this role may not delete it, or its values name other rows too", b.Schema, b.Table).
		evidence("the row is %s", v.hide.cut(string(text), 300)).remedy("Delete it by hand.")
	return &f
}

// filterFor names a row by all of its plain values.
func filterFor(row map[string]json.RawMessage) string {
	q := url.Values{}
	for name, raw := range row {
		var value any
		d := json.NewDecoder(strings.NewReader(string(raw)))
		d.UseNumber()
		if d.Decode(&value) != nil {
			continue
		}
		switch value := value.(type) {
		case nil:
			q.Set(name, "is.null")
		case string, json.Number, bool:
			q.Set(name, fmt.Sprintf("eq.%v", value))
		}
	}
	return q.Encode()
}
