package rest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/sluice-dev/sluice/schema"
)

// columnsOf returns the columns that a payload writes.
func columnsOf(r *request, rel *schema.Relation, p *payload) ([]*schema.Column, error) {
	names := p.keys
	if r.columns != nil {
		names = r.columns
	} else if !p.same && r.prefer.missing != "default" {
		return nil, fail(http.StatusBadRequest, "PGRST102", "All object keys must match")
	}
	out := make([]*schema.Column, 0, len(names))
	for _, n := range names {
		c := rel.Column(n)
		if c == nil {
			return nil, noColumn(rel, n)
		}
		out = append(out, c)
	}
	return out, nil
}

func (s *Server) planInsert(r *request, p *plan, snap *schema.Snapshot, opt *options) error {
	body, err := readPayload(r.body, r.columns == nil)
	if err != nil {
		return err
	}
	columns, err := columnsOf(r, p.relation, &body)
	if err != nil {
		return err
	}
	const maxDefaults = 1000
	if len(columns) == 0 && body.rows > maxDefaults {
		return fail(http.StatusBadRequest, "PGRST102", fmt.Sprintf("More than %d rows without columns", maxDefaults))
	}
	arbiter := r.onConflict
	if arbiter == nil {
		arbiter = p.relation.PrimaryKey
	}
	for _, n := range arbiter {
		if p.relation.Column(n) == nil {
			return noColumn(p.relation, n)
		}
	}
	if len(arbiter) == 0 {
		r.prefer.resolution = ""
	}
	if err := resolve(r, snap, opt); err != nil {
		return err
	}
	p.answer = s.insertAnswer(p.relation)
	p.veto = vetoWrite(r, false)
	if body.rows == 0 {
		return p.nothing(r)
	}
	p.newRows = merges(r, columns, arbiter)
	p.query = insertQuery(r, &body, columns, arbiter)
	return nil
}

func noColumn(rel *schema.Relation, name string) error {
	return fail(http.StatusBadRequest, "PGRST204", fmt.Sprintf("Could not find the '%s' column of '%s' in the schema cache", listed([]string{name}), rel.Name))
}

// nothing answers a write that writes nothing.
func (p *plan) nothing(r *request) (err error) {
	c := counts{body: []byte("[]")}
	if p.veto != nil {
		if err := p.veto(c); err != nil {
			return err
		}
	}
	p.empty, err = p.answer(r, c)
	return err
}

func (s *Server) planUpdate(r *request, p *plan, snap *schema.Snapshot, opt *options) error {
	body, err := readPayload(r.body, r.columns == nil)
	if err != nil {
		return err
	}
	columns, err := columnsOf(r, p.relation, &body)
	if err != nil {
		return err
	}
	if err := resolve(r, snap, opt); err != nil {
		return err
	}
	p.answer, p.veto = s.updateAnswer, vetoWrite(r, true)
	if len(columns) == 0 {
		return p.nothing(r)
	}
	p.query = updateQuery(r, &body, columns)
	return nil
}

// planPut writes the one row whose primary key the filters name (spec rest 3.5).
func (s *Server) planPut(r *request, p *plan, snap *schema.Snapshot, opt *options) error {
	if r.limit != nil || r.offset > 0 {
		return fail(http.StatusBadRequest, "PGRST114", "limit/offset querystring parameters are not allowed for PUT")
	}
	key := map[string]string{}
	for _, f := range r.filter {
		if f.op == "eq" && !f.negate && f.quant == "" && len(f.field.path) == 0 {
			key[f.field.name] = f.value
		}
	}
	if len(r.trees) > 0 || len(key) == 0 || len(r.filter) != len(p.relation.PrimaryKey) || len(key) != len(p.relation.PrimaryKey) ||
		slices.ContainsFunc(p.relation.PrimaryKey, func(n string) bool { _, ok := key[n]; return !ok }) {
		return fail(http.StatusMethodNotAllowed, "PGRST105", "Filters must include all and only primary key columns with 'eq' operators")
	}
	body, err := readPayload(r.body, r.columns == nil)
	if err != nil {
		return err
	}
	if body, err = body.only(r.columns == nil); err != nil {
		return err
	}
	row := map[string][]byte{}
	for name, value := range members(body.text) {
		if _, ok := key[string(name)]; ok {
			row[string(name)] = value
		}
	}
	for name, value := range key {
		text := strings.TrimSpace(string(row[name]))
		var unquoted string
		if json.Unmarshal(row[name], &unquoted) == nil {
			text = unquoted
		}
		if text != value {
			return fail(http.StatusBadRequest, "PGRST115", "Payload values do not match URL in primary key column(s)")
		}
	}
	columns, err := columnsOf(r, p.relation, &body)
	if err != nil {
		return err
	}
	if err := resolve(r, snap, opt); err != nil {
		return err
	}
	r.filter, r.prefer.resolution = nil, "merge-duplicates"
	p.query = insertQuery(r, &body, columns, p.relation.PrimaryKey)
	p.newRows = merges(r, columns, p.relation.PrimaryKey)
	p.answer, p.veto = s.putAnswer, vetoWrite(r, false)
	return nil
}
