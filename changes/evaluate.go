package changes

import (
	"bytes"
	"cmp"
	"context"
	"database/sql"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/policy"
)

// passes reports whether a row meets all conditions. Filters look at the new row,
// for DELETE at the old one. NULL, a missing value and a column that the role
// may no longer read are no.
func (r *run) passes(ctx context.Context, w *row, role *tableRole, filters []condition) bool {
	for _, c := range filters {
		at, ok := r.t.columns[c.column]
		if !ok || !role.readable[at] {
			return false
		}
		if !r.holds(ctx, w, &c, at) {
			return false
		}
	}
	return true
}

func (r *run) holds(ctx context.Context, w *row, c *condition, at int) bool {
	image := w.new
	if w.ch.Kind == sluice.ChangeDelete {
		image = w.old
	}
	if image == nil {
		return false
	}
	v := image[at]
	if v.Kind == sluice.ValueMissing && w.ch.Kind != sluice.ChangeDelete {
		v = r.complete(ctx, w)[at]
	}
	if v.Kind == sluice.ValueMissing {
		return false
	}
	if c.op == policy.OpIs {
		return is(v, c.value) != c.negate
	}
	if v.Kind == sluice.ValueNull {
		switch c.op {
		case policy.OpIsDistinct:
			return !c.negate
		case policy.OpIn: // NULL = any of nothing is false
			return c.list != nil && len(c.list) == 0 && c.negate
		}
		return false
	}
	typ, text := r.t.plain(at), v.Text
	if yes, known := compare(c, typ.oid, text); known {
		return yes != c.negate
	}
	// Asking is worth remembering; the rest is not.
	yes, known := w.filters[c.text]
	if !known {
		yes = r.compareSQL(ctx, c, typ, text)
		if w.filters == nil {
			w.filters = map[string]bool{}
		}
		w.filters[c.text] = yes
	}
	return yes
}

// compareSQL lets PostgreSQL evaluate a condition. An error is no.
func (r *run) compareSQL(ctx context.Context, c *condition, typ *sqlType, text []byte) bool {
	value := typ.value
	if typ.oid == oidBytea { // only patterns get here
		value, text = policy.ValueType{Name: "text"}, hexOf(text)
	}
	var res sql.NullBool
	err := r.s.persist(ctx, func() error {
		err := r.s.cfg.Admin.QueryRow(ctx, policy.CompareSQL(c.op, value), string(text), c.value).Scan(&res)
		return pg.Wrap(err, "evaluate filter %s", c.text)
	})
	if err != nil {
		r.failed.Store(true)
		if ctx.Err() == nil {
			r.s.warn("filter", r.t.def.Schema+"."+r.t.def.Name+" "+c.column, "a filter cannot be evaluated and counts as no", err)
		}
		return false
	}
	return res.Valid && res.Bool != c.negate
}

func is(v sluice.Value, what string) bool {
	if v.Kind == sluice.ValueNull {
		return what == "null" || what == "unknown"
	}
	return what == "true" && string(v.Text) == "t" || what == "false" && string(v.Text) == "f"
}

// compare evaluates the conditions whose meaning needs no database: integers,
// booleans, equality of UUIDs and of text, and bytea, which clients write as bare
// hexadecimal digits.
func compare(c *condition, typ uint32, text []byte) (yes, known bool) {
	if c.op != policy.OpIn {
		return compareTo(c.op, c.value, typ, text)
	}
	if c.list == nil {
		return false, false
	}
	for _, v := range c.list {
		same, known := compareTo(policy.OpEq, v, typ, text)
		if !known {
			return false, false
		}
		yes = yes || same
	}
	return yes, true
}

func compareTo(op policy.Op, value string, typ uint32, text []byte) (yes, known bool) {
	switch typ {
	case oidInt2, oidInt4, oidInt8:
		a, err1 := strconv.ParseInt(string(text), 10, 64)
		b, err2 := strconv.ParseInt(value, 10, 64)
		if err1 != nil || err2 != nil {
			return false, false
		}
		return order(op, cmp.Compare(a, b))
	case oidUUID:
		// PostgreSQL writes one form; a value in another is left to it.
		if !plainUUID(value) {
			return false, false
		}
		return order(op, cmp.Compare(string(text), strings.ToLower(value)))
	case oidBytea:
		return order(op, bytes.Compare(hexOf(text), hexOf([]byte(strings.ToLower(value)))))
	case oidText, oidVarchar:
		if c := strings.Compare(string(text), value); c == 0 || !isOrder(op) {
			return order(op, c) // equal in any collation, or equality is asked for
		}
	case oidBool:
		if value == "true" || value == "false" {
			return order(op, bytes.Compare(text, []byte{value[0]}))
		}
	}
	return false, false
}

// hexOf returns the digits of a bytea, as clients see it.
func hexOf(text []byte) []byte { return bytes.TrimPrefix(text, []byte(`\x`)) }

func plainUUID(s string) bool {
	return len(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-' && strings.Count(s, "-") == 4
}

const oidName, oidText, oidBpchar, oidVarchar, oidUUID = 19, 25, 1042, 1043, 2950

func isOrder(op policy.Op) bool { return op >= policy.OpLt && op <= policy.OpGte }

// order turns a three-way comparison into the answer of an operator.
func order(op policy.Op, c int) (yes, known bool) {
	switch op {
	case policy.OpEq:
		return c == 0, true
	case policy.OpNeq, policy.OpIsDistinct:
		return c != 0, true
	case policy.OpLt:
		return c < 0, true
	case policy.OpLte:
		return c <= 0, true
	case policy.OpGt:
		return c > 0, true
	case policy.OpGte:
		return c >= 0, true
	}
	return false, false
}

// complete returns the new row with the current values of the columns that the
// stream left out (unchanged TOAST, generated columns), read by key. What cannot
// be found stays missing. It is for decisions alone, never for delivery.
func (r *run) complete(ctx context.Context, w *row) []sluice.Value {
	if w.lookedUp {
		return w.lookup
	}
	w.lookedUp, w.lookup = true, w.new
	var want []int
	for i, v := range w.new {
		if v.Kind == sluice.ValueMissing {
			want = append(want, i)
		}
	}
	if len(want) == 0 || len(r.t.key) == 0 {
		return w.lookup
	}
	key := make([]any, len(r.t.key))
	for i, k := range r.t.key {
		if w.new[k].Kind != sluice.ValueText {
			return w.lookup
		}
		key[i] = string(w.new[k].Text)
	}
	found := make([]*string, len(want))
	into := make([]any, len(want))
	for i := range found {
		into[i] = &found[i]
	}
	args := append([]any{pgx.QueryResultFormats{pgx.TextFormatCode}}, key...)
	if !r.waitVisible(ctx) {
		return w.lookup
	}
	// The table may be locked for as long as somebody likes.
	ctx, cancel := context.WithTimeout(ctx, r.s.cfg.CheckTimeout)
	defer cancel()
	err := r.s.persist(ctx, func() error {
		err := r.s.cfg.Admin.QueryRow(ctx, r.t.check.LookupSQL(want, r.t.key), args...).Scan(into...)
		return pg.Wrap(err, "look up a row of %s.%s", r.t.def.Schema, r.t.def.Name)
	})
	if err != nil {
		if !notFound(err) {
			r.failed.Store(true)
		}
		return w.lookup // gone, or not to be read: missing
	}
	w.lookup = append([]sluice.Value(nil), w.new...)
	for i, at := range want {
		w.lookup[at].Kind = sluice.ValueNull
		if found[i] != nil {
			w.lookup[at] = sluice.Value{Kind: sluice.ValueText, Text: []byte(*found[i])}
		}
	}
	return w.lookup
}
