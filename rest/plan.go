package rest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-dev/sluice/schema"
)

// plan is a request that was checked against one snapshot.
type plan struct {
	relation *schema.Relation
	function *schema.Function
	query    *builder
	readOnly bool
	hoisted  []schema.Setting
	// empty is the answer when nothing has to be run.
	empty *answer
	// veto may refuse the result before it is committed.
	veto   func(counts) error
	answer func(*request, counts) (*answer, error)
}

// limit is the rows that a read may return.
func (s *Server) limit(r *request) *int64 {
	if s.cfg.MaxRows <= 0 || r.limit != nil && *r.limit <= int64(s.cfg.MaxRows) {
		return r.limit
	}
	n := int64(s.cfg.MaxRows)
	return &n
}

func (s *Server) plan(r *request, snap *schema.Snapshot) (*plan, error) {
	if r.function {
		return s.planCall(r, snap)
	}
	rel := snap.Relation(r.schema, r.name)
	if rel == nil {
		e := fail(http.StatusNotFound, "PGRST205", fmt.Sprintf("Could not find the table '%s.%s' in the schema cache", r.schema, r.name))
		if n := snap.NearestRelation(r.schema, r.name); n != "" {
			e.Hint = fmt.Sprintf("Perhaps you meant the table '%s.%s'", r.schema, n)
		}
		return nil, e
	}
	p := &plan{relation: rel}
	switch r.method {
	case http.MethodGet, http.MethodHead:
		p.readOnly = true
		p.query = readQuery(r, rel, s.limit(r))
		p.answer = s.readAnswer
		if r.media.single {
			p.veto = vetoSingle
		}
	case http.MethodPost:
		return p, s.planInsert(r, p)
	case http.MethodPatch:
		return p, s.planUpdate(r, p)
	case http.MethodDelete:
		p.query = deleteQuery(r, rel)
		p.answer = s.deleteAnswer
		p.veto = vetoWrite(r)
	}
	return p, nil
}

// vetoSingle refuses anything but one row when an object was asked for.
func vetoSingle(c counts) error {
	if c.page == 1 {
		return nil
	}
	return fail(http.StatusNotAcceptable, "PGRST116", "Cannot coerce the result to a single JSON object").
		details(fmt.Sprintf("The result contains %d rows", c.page))
}

// vetoWrite refuses a write that touches more rows than the request allows.
func vetoWrite(r *request) func(counts) error {
	if !r.media.single && r.prefer.maxAffected < 0 {
		return nil
	}
	return func(c counts) error {
		if r.prefer.maxAffected >= 0 && c.total > r.prefer.maxAffected {
			return fail(http.StatusBadRequest, "PGRST124", "Query result exceeds max-affected preference constraint").
				details(fmt.Sprintf("The query affects %d rows", c.total))
		}
		if r.media.single {
			return vetoSingle(counts{page: c.total})
		}
		return nil
	}
}

// columnsOf returns the columns that a payload writes.
func columnsOf(r *request, rel *schema.Relation, p *payload) ([]*schema.Column, error) {
	names := p.keys
	if r.columns != nil {
		names = r.columns
	} else if !p.same {
		if r.prefer.missing != "default" {
			return nil, fail(http.StatusBadRequest, "PGRST102", "All object keys must match")
		}
		names = p.any
	}
	out := make([]*schema.Column, 0, len(names))
	for _, n := range names {
		c := rel.Column(n)
		if c == nil {
			return nil, fail(http.StatusBadRequest, "PGRST204", fmt.Sprintf("Could not find the '%s' column of '%s' in the schema cache", n, rel.Name))
		}
		out = append(out, c)
	}
	return out, nil
}

func (s *Server) planInsert(r *request, p *plan) error {
	body, err := readPayload(r.body)
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
			return fail(http.StatusBadRequest, "PGRST204", fmt.Sprintf("Could not find the '%s' column of '%s' in the schema cache", n, p.relation.Name))
		}
	}
	if len(arbiter) == 0 {
		r.prefer.resolution = ""
	}
	if body.rows == 0 {
		p.empty, err = s.insertAnswer(p.relation)(r, counts{body: []byte("[]")})
		return err
	}
	p.query = insertQuery(r, p.relation, &body, columns, arbiter)
	p.answer = s.insertAnswer(p.relation)
	p.veto = vetoWrite(r)
	return nil
}

func (s *Server) planUpdate(r *request, p *plan) error {
	body, err := readPayload(r.body)
	if err != nil {
		return err
	}
	columns, err := columnsOf(r, p.relation, &body)
	if err != nil {
		return err
	}
	p.answer = s.updateAnswer
	if len(columns) == 0 {
		p.empty, err = s.updateAnswer(r, counts{body: []byte("[]")})
		return err
	}
	p.query = updateQuery(r, p.relation, &body, columns)
	p.veto = vetoWrite(r)
	return nil
}

// planCall chooses the overload and builds the call (spec rest 4).
func (s *Server) planCall(r *request, snap *schema.Snapshot) (*plan, error) {
	body := r.body
	var keys []string
	var err error
	switch {
	case r.method == http.MethodOptions:
		all := snap.Functions(r.schema, r.name)
		if len(all) == 0 {
			return nil, noFunction(r, snap, nil)
		}
		return &plan{function: all[0]}, nil
	case r.method == http.MethodPost:
		if keys, body, err = bodyArguments(r); err != nil {
			return nil, err
		}
	default:
		keys = argumentNames(r.args)
	}
	f, whole, err := chooseOverload(r, snap, keys)
	if err != nil {
		return nil, err
	}
	if r.reads() {
		if body, err = queryArguments(r.args, f); err != nil {
			return nil, err
		}
	}
	var args []*schema.Arg
	for i := range f.Args {
		if slices.Contains(keys, f.Args[i].Name) {
			args = append(args, &f.Args[i])
		}
	}
	if whole {
		body = r.body
	}
	p := &plan{function: f, readOnly: r.reads() || f.Volatility != 'v', answer: s.callAnswer(f)}
	for _, v := range f.Settings {
		if v.Name == "statement_timeout" {
			p.hoisted = append(p.hoisted, v)
		}
	}
	if !f.ReturnsRow && (len(r.filters) > 0 || len(r.trees) > 0 || len(r.order) > 0 || len(r.items) > 0) {
		return nil, fail(http.StatusBadRequest, "PGRST127", "Feature not implemented").details("select, order and filters need a function that returns rows.")
	}
	p.query = callQuery(r, f, args, body, whole, s.limit(r))
	if r.media.single && f.ReturnsRow {
		p.veto = vetoSingle
	}
	return p, nil
}

// bodyArguments returns the keys of a POST's JSON object.
func bodyArguments(r *request) (keys []string, body []byte, err error) {
	text := strings.TrimSpace(string(r.body))
	if text == "" {
		r.body = []byte("{}")
		return nil, r.body, nil
	}
	if text[0] == '[' {
		var list []json.RawMessage
		if json.Unmarshal([]byte(text), &list) == nil && len(list) > 0 {
			text = string(list[0])
		}
	}
	var o map[string]json.RawMessage
	if json.Unmarshal([]byte(text), &o) != nil {
		if json.Valid(r.body) {
			return nil, r.body, nil // for a single unnamed parameter
		}
		return nil, nil, fail(http.StatusBadRequest, "PGRST102", "Empty or invalid json")
	}
	for k := range o {
		if r.columns == nil || slices.Contains(r.columns, k) {
			keys = append(keys, k)
		}
	}
	slices.Sort(keys)
	return keys, []byte(text), nil
}

func argumentNames(args []argument) []string {
	var out []string
	for _, a := range args {
		if !slices.Contains(out, a.name) {
			out = append(out, a.name)
		}
	}
	return out
}

// queryArguments renders a GET's arguments as one JSON object. Values are text,
// which PostgreSQL reads as the parameter's type; JSON stays JSON.
func queryArguments(args []argument, f *schema.Function) ([]byte, error) {
	o := map[string]any{}
	for _, a := range args {
		var v any = a.value
		for i, p := range f.Args {
			switch {
			case p.Name != a.name:
			case f.Variadic && i == len(f.Args)-1:
				list, _ := o[a.name].([]string)
				v = append(list, a.value)
			case (p.OID == oidJSON || p.OID == oidJSONB) && json.Valid([]byte(a.value)):
				v = json.RawMessage(a.value)
			}
		}
		o[a.name] = v
	}
	text, err := json.Marshal(o)
	if err != nil {
		return nil, fail(http.StatusBadRequest, "PGRST100", "The arguments are not valid").details(err.Error())
	}
	return text, nil
}

// chooseOverload finds the function whose required parameters are among the
// keys, and whose parameters are all of them. whole: the body as it is goes to a
// single unnamed parameter.
func chooseOverload(r *request, snap *schema.Snapshot, keys []string) (f *schema.Function, whole bool, err error) {
	var found []*schema.Function
	for _, f := range snap.Functions(r.schema, r.name) {
		if accepts(f, keys) {
			found = append(found, f)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], false, nil
	case len(found) > 1:
		var list []string
		for _, f := range found {
			list = append(list, signature(f))
		}
		slices.Sort(list)
		return nil, false, fail(http.StatusMultipleChoices, "PGRST203", "Could not choose the best candidate function between: "+strings.Join(list, ", ")).
			hint("Try renaming the parameters or the function itself in the database so function overloading can be resolved")
	}
	if r.method == http.MethodPost {
		for _, f := range snap.Functions(r.schema, r.name) {
			if len(f.Args) == 1 && f.Args[0].Name == "" && (f.Args[0].OID == oidJSON || f.Args[0].OID == oidJSONB) {
				return f, true, nil
			}
		}
	}
	return nil, false, noFunction(r, snap, keys)
}

func accepts(f *schema.Function, keys []string) bool {
	for _, a := range f.Args {
		if a.Name == "" || !a.Optional && !slices.Contains(keys, a.Name) {
			return false
		}
	}
	for _, k := range keys {
		if !slices.ContainsFunc(f.Args, func(a schema.Arg) bool { return a.Name == k }) {
			return false
		}
	}
	return true
}

func signature(f *schema.Function) string {
	parts := make([]string, len(f.Args))
	for i, a := range f.Args {
		parts[i] = a.Name + " => " + a.Type
	}
	return f.Schema + "." + f.Name + "(" + strings.Join(parts, ", ") + ")"
}

func noFunction(r *request, snap *schema.Snapshot, keys []string) error {
	name := r.schema + "." + r.name
	call, with := name+" without parameters", "without parameters"
	switch {
	case len(keys) == 1:
		call, with = name+"("+keys[0]+")", "with parameter "+keys[0]
	case len(keys) > 1:
		list := strings.Join(keys, ", ")
		call, with = name+"("+list+")", "with parameters "+list
	}
	if r.method == http.MethodPost {
		with += " or with a single unnamed json/jsonb parameter"
	}
	e := fail(http.StatusNotFound, "PGRST202", "Could not find the function "+call+" in the schema cache").
		details("Searched for the function " + name + " " + with + ", but no matches were found in the schema cache.")
	if all := snap.Functions(r.schema, r.name); len(all) > 0 {
		var names []string
		for _, a := range all[0].Args {
			names = append(names, a.Name)
		}
		e.Hint = "Perhaps you meant to call the function " + name + "(" + strings.Join(names, ", ") + ")"
	} else if n := snap.NearestFunction(r.schema, r.name); n != "" {
		e.Hint = "Perhaps you meant to call the function " + r.schema + "." + n
	}
	return e
}

// allow lists the methods of a relation or function.
func (p *plan) allow() string {
	if p.function != nil {
		if p.function.Volatility == 'v' {
			return "OPTIONS,POST"
		}
		return "OPTIONS,GET,HEAD,POST"
	}
	out := "OPTIONS,GET,HEAD"
	rel := p.relation
	if rel.Insertable {
		out += ",POST"
	}
	if rel.Insertable && rel.Updatable && len(rel.PrimaryKey) > 0 {
		out += ",PUT"
	}
	if rel.Updatable {
		out += ",PATCH"
	}
	if rel.Deletable {
		out += ",DELETE"
	}
	return out
}

func itoa(n int64) string { return strconv.FormatInt(n, 10) }
