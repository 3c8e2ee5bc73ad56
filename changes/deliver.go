package changes

import (
	"slices"
	"strings"

	"github.com/sluice-dev/sluice"
)

// encodeKey tells the forms of one change apart: who may read which columns,
// which of them were asked for, and how much of the old row is shown.
type encodeKey struct {
	role    *tableRole
	columns string // select, joined
	old     oldForm
	out     outcome
}

type oldForm uint8

const (
	oldNone oldForm = iota
	oldKey          // the primary key
	oldAll          // everything that the stream has
)

// send delivers in the order of the changes: one message for a channel and a
// list of columns, rendered once for all who get the same. It returns the bindings
// of subscriptions that act as somebody else by now, with the change from which on
// they are to be decided again: a token that is renewed must not cost a change.
func (r *run) send() (again []*binding, from map[*subscription]int) {
	r.tellTimeouts()
	from = map[*subscription]int{}
	for i := range r.rows {
		w := &r.rows[i]
		for k := range w.hits {
			h := &w.hits[k]
			if _, moved := from[h.c.sub]; moved {
				continue
			}
			old, visible := r.visible(h, i)
			if visible && !r.sendTo(h, i, old) {
				from[h.c.sub] = w.place
				again = append(again, h.c.bindings...)
			}
		}
	}
	return again, from
}

// tellTimeouts tells those for whom a policy took too long that changes they
// might have seen do not come.
func (r *run) tellTimeouts() {
	if !r.timedOut.Load() {
		return
	}
	table := r.t.def.Schema + "." + r.t.def.Name
	n := sluice.Refuse(sluice.CodePolicyTimeout).
		WithText("Changes of %s were not delivered: its policies took longer than %s for this user", table, r.s.cfg.CheckTimeout)
	for i := range r.rows {
		for k := range r.rows[i].hits {
			if h := &r.rows[i].hits[k]; h.pending && r.asking[h.g].timedOut {
				h.c.sub.tell(table, n)
			}
		}
	}
}

// visible tells whether a hit sees change i, and how much of the old row.
func (r *run) visible(h *hit, i int) (oldForm, bool) {
	w := &r.rows[i]
	sees, old := true, h.old
	if h.pending {
		allowed := r.asking[h.g].allowed
		sees, old = allowed[decisive(w, i)], allowed[2*i+1]
		if h.unless > 0 && allowed[h.unless-1] {
			sees = false
		}
	}
	switch {
	case h.out != outDecide || w.ch.Kind == sluice.ChangeInsert:
		return oldNone, sees
	case w.ch.Kind == sluice.ChangeUpdate:
		// An old row that no policy was asked about shows its key alone.
		if w.old == nil || h.cl.role.ask && !(w.ch.OldFull && old) {
			return oldKey, sees
		}
		return oldAll, sees
	case !h.cl.role.ask || w.ch.OldFull:
		return oldAll, sees
	}
	return oldKey, sees
}

// sendTo delivers change i to one subscription. It reports false when that one
// acts as somebody else by now.
func (r *run) sendTo(h *hit, i int, old oldForm) bool {
	matched, out := h.matched, h.out
	for len(matched) > 0 {
		columns := matched[0].columns
		var ids []int64
		var rest []*binding
		for _, b := range matched {
			if out != outDecide || slices.Equal(b.columns, columns) {
				ids = append(ids, b.id)
			} else {
				rest = append(rest, b)
			}
		}
		if out != outDecide {
			columns = nil
		}
		e := sluice.ChangeEvent{IDs: ids, Type: r.rows[i].ch.Kind.String(), Data: r.encoded(h.cl.role, columns, i, out, old)}
		e.At, e.Index, e.Table = r.rows[i].commit, r.rows[i].index, r.t.oid
		sent, moved := h.c.sub.send(h.g.key, e, r.replay)
		if moved {
			return false
		}
		if sent {
			r.s.metrics.Deliveries.Add(1)
		}
		matched = rest
	}
	return true
}

func (r *run) encoded(role *tableRole, columns []string, i int, out outcome, old oldForm) []byte {
	w := &r.rows[i]
	key := encodeKey{role, strings.Join(columns, "\x00"), old, out}
	data, ok := w.encoded[key]
	if !ok {
		data = r.encode(w, key, columns)
		w.encoded[key] = data
	}
	return data
}

// Texts of the errors member.
const (
	errorNoKey    = `["Error 400: Bad Request, no primary key"]`
	errorNoSelect = `["Error 401: Unauthorized"]`
	errorTooLarge = `["Error 413: Payload Too Large"]`
	// smallValue is the size of a value's JSON that stays in a row that is too
	// large.
	smallValue = 64
)

// encode renders the data member (spec postgres-changes 4.3).
func (r *run) encode(w *row, key encodeKey, columns []string) []byte {
	t := r.t
	dst := make([]byte, 0, 256+2*rawSize(w))
	dst = append(append(append(dst, `{"type":"`...), w.ch.Kind.String()...), `","schema":`...)
	dst = append(appendString(dst, []byte(t.def.Schema)), `,"table":`...)
	dst = append(appendString(dst, []byte(t.def.Name)), `,"commit_timestamp":`...)
	if key.out != outDecide {
		dst = append(dst, `null,"columns":[],"record":{}`...)
		if w.ch.Kind == sluice.ChangeUpdate {
			dst = append(dst, `,"old_record":{}`...)
		}
		text := errorNoKey
		if key.out == outNoSelect {
			text = errorNoSelect
		}
		return append(append(append(dst, `,"errors":`...), text...), '}')
	}
	dst = append(dst, '"')
	dst = w.time.AppendFormat(dst, "2006-01-02T15:04:05.000Z") // cuts, does not round
	dst = append(dst, `","columns":[`...)
	shown := make([]bool, len(t.def.Columns))
	n := 0
	for i, c := range t.def.Columns {
		shown[i] = r.streamed[i] && key.role.readable[i] && (columns == nil || c.Key || slices.Contains(columns, c.Name))
		if !shown[i] {
			continue
		}
		if n++; n > 1 {
			dst = append(dst, ',')
		}
		dst = append(appendString(append(dst, `{"name":`...), []byte(c.Name)), `,"type":`...)
		dst = append(appendString(dst, []byte(c.TypName)), '}')
	}
	dst = append(dst, ']')
	large := rawSize(w) > r.s.cfg.MaxRecord
	if w.new != nil {
		dst = r.appendRecord(append(dst, `,"record":`...), w.new, shown, large)
	}
	if w.ch.Kind != sluice.ChangeInsert {
		dst = r.appendRecord(append(dst, `,"old_record":`...), r.oldImage(w, key.old), shown, large)
	}
	if w.update > 0 {
		dst = append(dst, `,"left":true`...)
	}
	dst = append(dst, `,"errors":`...)
	if large {
		r.s.metrics.TooLarge.Add(1)
		return append(append(dst, errorTooLarge...), '}')
	}
	return append(dst, `null}`...)
}

// oldImage returns the values of the old row that may be shown. An UPDATE that
// left the identity as it was comes without an old row: the new one has it.
func (r *run) oldImage(w *row, form oldForm) []sluice.Value {
	from, which := w.old, r.t.key
	switch {
	case from != nil && form == oldAll:
		return from
	case from == nil:
		from, which = w.new, r.identity
	}
	out := make([]sluice.Value, len(r.t.def.Columns))
	for _, k := range which {
		out[k] = from[k]
	}
	return out
}

func (r *run) appendRecord(dst []byte, values []sluice.Value, shown []bool, large bool) []byte {
	dst = append(dst, '{')
	n := 0
	for i, v := range values {
		if !shown[i] || v.Kind == sluice.ValueMissing || large && v.Kind == sluice.ValueNull {
			continue
		}
		start := len(dst)
		if n > 0 {
			dst = append(dst, ',')
		}
		dst = append(appendString(dst, []byte(r.t.def.Columns[i].Name)), ':')
		value := len(dst)
		if v.Kind == sluice.ValueNull {
			dst = append(dst, "null"...)
		} else {
			dst = appendJSON(dst, v.Text, r.t.types[r.t.def.Columns[i].Type])
		}
		if large && len(dst)-value > smallValue {
			dst = dst[:start]
			continue
		}
		n++
	}
	return append(dst, '}')
}

// rawSize is what a change's values take, and a little for every column.
func rawSize(w *row) int {
	n := 0
	for _, t := range [][]sluice.Value{w.new, w.old} {
		for _, v := range t {
			n += 16 + len(v.Text)
		}
	}
	return n
}
