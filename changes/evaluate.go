package changes

import (
	"bytes"
	"context"
	"database/sql"
	"strconv"
	"strings"

	"github.com/sluice-dev/sluice"
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
		key := c.String()
		yes, known := w.filters[key]
		if !known {
			yes = r.holds(ctx, w, c, at)
			w.filters[key] = yes
		}
		if !yes {
			return false
		}
	}
	return true
}

func (r *run) holds(ctx context.Context, w *row, c condition, at int) bool {
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
			return c.value == "{}" && c.negate
		}
		return false
	}
	col := r.t.def.Columns[at]
	if yes, known := compare(c, col, v.Text); known {
		return yes != c.negate
	}
	var res sql.NullBool
	err := r.s.persist(ctx, func() error {
		return r.s.cfg.Admin.QueryRow(ctx, policy.CompareSQL(c.op, col.Cast), string(v.Text), c.value).Scan(&res)
	})
	if err != nil {
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
// booleans, and equality of UUIDs and of text.
func compare(c condition, col columnDef, text []byte) (yes, known bool) {
	if c.op == policy.OpIn {
		values, ok := arrayElements(c.value)
		if !ok {
			return false, false
		}
		eq := condition{op: policy.OpEq}
		for _, v := range values {
			eq.value = v
			same, known := compare(eq, col, text)
			if !known {
				return false, false
			}
			yes = yes || same
		}
		return yes, true
	}
	switch col.Type {
	case oidInt2, oidInt4, oidInt8:
		a, err1 := strconv.ParseInt(string(text), 10, 64)
		b, err2 := strconv.ParseInt(c.value, 10, 64)
		if err1 != nil || err2 != nil {
			return false, false
		}
		return order(c.op, a, b)
	case oidUUID:
		// PostgreSQL writes one form; a value in another is left to it.
		if len(c.value) != 36 {
			return false, false
		}
		return equal(c.op, string(text) == strings.ToLower(c.value))
	case oidText, oidVarchar:
		return equal(c.op, string(text) == c.value)
	case oidBool:
		if c.value != "true" && c.value != "false" {
			return false, false
		}
		return equal(c.op, bytes.Equal(text, []byte{c.value[0]}))
	}
	return false, false
}

const oidText, oidVarchar, oidUUID = 25, 1043, 2950

func equal(op policy.Op, same bool) (yes, known bool) {
	switch op {
	case policy.OpEq:
		return same, true
	case policy.OpNeq, policy.OpIsDistinct:
		return !same, true
	}
	return false, false
}

func order(op policy.Op, a, b int64) (yes, known bool) {
	switch op {
	case policy.OpLt:
		return a < b, true
	case policy.OpLte:
		return a <= b, true
	case policy.OpGt:
		return a > b, true
	case policy.OpGte:
		return a >= b, true
	}
	return equal(op, a == b)
}

// arrayElements reads a flat array literal without NULLs.
func arrayElements(s string) ([]string, bool) {
	if s == "{}" {
		return nil, true
	}
	text := []byte(s)
	pos := 1
	var out []string
	for pos < len(text) {
		for pos < len(text) && (text[pos] == ' ' || text[pos] == '\t') {
			pos++
		}
		v, quoted, ok := readQuoted(text, &pos, ',', '}')
		if !ok || pos >= len(text) || bytes.ContainsAny(v, "{}") && !quoted {
			return nil, false
		}
		if !quoted {
			v = bytes.TrimRight(v, " \t")
			if len(v) == 0 || strings.EqualFold(string(v), "null") {
				return nil, false
			}
		}
		out = append(out, string(v))
		end := text[pos] == '}'
		pos++
		if end {
			return out, pos == len(text)
		}
	}
	return nil, false
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
	found := make([]sql.NullString, len(want))
	into := make([]any, len(want))
	for i := range found {
		into[i] = &found[i]
	}
	err := r.s.persist(ctx, func() error {
		return r.s.cfg.Admin.QueryRow(ctx, r.t.check.LookupSQL(want, r.t.key), key...).Scan(into...)
	})
	if err != nil {
		return w.lookup // gone, or not to be read: missing
	}
	w.lookup = append([]sluice.Value(nil), w.new...)
	for i, at := range want {
		w.lookup[at].Kind = sluice.ValueNull
		if found[i].Valid {
			w.lookup[at] = sluice.Value{Kind: sluice.ValueText, Text: []byte(found[i].String)}
		}
	}
	return w.lookup
}
