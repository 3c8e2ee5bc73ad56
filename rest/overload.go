package rest

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"slices"
	"strings"

	"github.com/sluice-dev/sluice/schema"
)

// planCall chooses the overload and builds the call (spec rest 4).
func (s *Server) planCall(r *request, snap *schema.Snapshot, opt *options) (*plan, error) {
	all := snap.Functions(r.schema, r.target)
	if r.method == http.MethodOptions {
		if len(all) == 0 {
			return nil, noFunction(r, snap, nil)
		}
		return &plan{function: all[0]}, nil
	}
	c, err := chooseCall(r, snap, all)
	if err != nil {
		return nil, err
	}
	f := c.f
	p := &plan{function: f, readOnly: r.reads() || f.Volatility != 'v', answer: s.callAnswer(f)}
	for _, v := range f.Settings {
		switch v.Name {
		case "statement_timeout":
			p.hoisted = append(p.hoisted, v)
		case isolationSetting:
			p.isolation = v.Value
		}
	}
	if !f.ReturnsRow || f.Anonymous {
		if len(r.filter) > 0 || len(r.trees) > 0 || len(r.embeds) > 0 {
			return nil, fail(http.StatusBadRequest, "PGRST127", "Feature not implemented").details("Filters and embedded resources need a function that returns rows of known columns.")
		}
	} else {
		r.source = source{alias: f.Name, relation: f.Returns}
		if err := resolve(r, snap, opt); err != nil {
			return nil, err
		}
	}
	if r.prefer.maxAffected >= 0 && !f.ReturnsSet {
		return nil, fail(http.StatusBadRequest, "PGRST128", "Function must return SETOF or TABLE when max-affected preference is used with handling=strict")
	}
	r.limit = capped(r.limit, opt.maxRows)
	p.controlled = p.readOnly
	p.query = callQuery(r, c, p.controlled)
	veto := vetoWrite(r, true)
	switch {
	case !f.ReturnsSet:
	case p.readOnly || r.offset == 0 || r.prefer.count != "exact":
		p.veto = veto
	default: // a page behind the end is refused before what was written stays
		p.veto = func(c counts) error {
			if _, _, err := pageRange(r, c); err != nil || veto == nil {
				return err
			}
			return veto(c)
		}
	}
	return p, nil
}

// chooseCall finds the overload that takes the request's arguments.
func chooseCall(r *request, snap *schema.Snapshot, all []*schema.Function) (*call, error) {
	if r.reads() || r.bodyType == formType {
		args := r.arguments(all)
		keys := argumentNames(args)
		f, err := chooseOverload(r, snap, all, keys)
		if err != nil {
			return nil, err
		}
		body, err := queryArguments(args, f)
		return &call{f: f, args: taken(f, keys), body: body}, err
	}
	if oid := unnamedOID[r.bodyType]; oid != 0 {
		for _, f := range all {
			if unnamed(f) && f.Args[0].OID == oid {
				return &call{f: f, body: rawBody(r.body, oid), whole: true}, nil
			}
		}
		return nil, noFunction(r, snap, nil)
	}
	keys, body, err := bodyArguments(r)
	if err != nil {
		return nil, err
	}
	f, err := chooseOverload(r, snap, all, keys)
	if err != nil {
		return nil, err
	}
	if unnamed(f) && !slices.Contains(keys, "") && !f.Args[0].Optional {
		return &call{f: f, body: r.body, whole: true}, nil
	}
	return &call{f: f, args: taken(f, keys), body: body}, nil
}

// taken are the arguments of f that the keys name.
func taken(f *schema.Function, keys []string) []*schema.Arg {
	var out []*schema.Arg
	for i := range f.Args {
		if slices.Contains(keys, f.Args[i].Name) {
			out = append(out, &f.Args[i])
		}
	}
	return out
}

// unnamed reports whether f has a single argument without a name.
func unnamed(f *schema.Function) bool { return len(f.Args) == 1 && f.Args[0].Name == "" }

// unnamedOID is the type of the argument that takes a body of a media type as it
// is; JSON is not among them, as its keys may be names.
var unnamedOID = map[string]uint32{"text/plain": schema.OIDText, "text/xml": schema.OIDXML, "application/octet-stream": schema.OIDBytea}

// rawBody is a body as the text of a value.
func rawBody(body []byte, oid uint32) []byte {
	if oid == schema.OIDBytea {
		return hex.AppendEncode(append(make([]byte, 0, 2+hex.EncodedLen(len(body))), `\x`...), body)
	}
	return body
}

// arguments are the pairs of a GET that are arguments: those whose value is no
// filter, and all of them when no overload returns rows to be filtered.
func (r *request) arguments(all []*schema.Function) []argument {
	if len(r.args) == 0 || slices.ContainsFunc(all, func(f *schema.Function) bool { return f.ReturnsRow }) {
		return slices.DeleteFunc(slices.Clone(r.args), func(a argument) bool { return a.filter })
	}
	r.filter = nil
	return r.args
}

// bodyArguments returns the keys of a POST's JSON object, and the object.
func bodyArguments(r *request) (keys []string, body []byte, err error) {
	text := bytes.TrimSpace(r.body)
	switch {
	case len(text) == 0:
		r.body = []byte("{}")
		return nil, r.body, nil
	case !json.Valid(r.body):
		return nil, nil, invalidJSON()
	case text[0] == '[':
		for first := range elements(text) {
			text = first
			break
		}
	}
	if text[0] != '{' {
		return nil, r.body, nil // for a single unnamed parameter
	}
	c := collector{at: map[string]int{}}
	c.add(0, text)
	if r.columns != nil {
		c.keys = slices.DeleteFunc(c.keys, func(k string) bool { return !slices.Contains(r.columns, k) })
	}
	slices.Sort(c.keys)
	return c.keys, text, nil
}

// argumentNames are the different names, sorted.
func argumentNames(args []argument) []string {
	var out []string
	for _, a := range args {
		if !slices.Contains(out, a.name) {
			out = append(out, a.name)
		}
	}
	slices.Sort(out)
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
			case (p.OID == schema.OIDJSON || p.OID == schema.OIDJSONB) && json.Valid([]byte(a.value)):
				v = json.RawMessage(a.value)
			}
		}
		o[a.name] = v
	}
	text, err := marshal(o)
	if err != nil {
		return nil, fail(http.StatusBadRequest, "PGRST100", "The arguments are not valid").details(err.Error())
	}
	return text, nil
}

// chooseOverload finds the function whose required parameters are among the
// keys, and whose parameters are all of them; for a JSON body else the one that
// takes it as a whole.
func chooseOverload(r *request, snap *schema.Snapshot, all []*schema.Function, keys []string) (*schema.Function, error) {
	var found []*schema.Function
	for _, f := range all {
		if accepts(f, keys) {
			found = append(found, f)
		}
	}
	if len(found) == 0 && r.method == http.MethodPost {
		for _, f := range all {
			if unnamed(f) && (f.Args[0].OID == schema.OIDJSON || f.Args[0].OID == schema.OIDJSONB) {
				found = append(found, f)
			}
		}
	}
	switch len(found) {
	case 0:
		return nil, noFunction(r, snap, keys)
	case 1:
		return found[0], nil
	}
	slices.SortFunc(found, func(a, b *schema.Function) int {
		return cmp.Or(cmp.Compare(len(a.Args), len(b.Args)), cmp.Compare(signature(a), signature(b)))
	})
	var list []string
	for _, f := range found {
		list = append(list, signature(f))
	}
	return nil, fail(http.StatusMultipleChoices, "PGRST203", "Could not choose the best candidate function between: "+strings.Join(list, ", ")).
		hint("Try renaming the parameters or the function itself in the database so function overloading can be resolved")
}

func accepts(f *schema.Function, keys []string) bool {
	for _, a := range f.Args {
		if !a.Optional && !slices.Contains(keys, a.Name) {
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

// noFunction answers that nothing takes the arguments, with the nearest thing.
func noFunction(r *request, snap *schema.Snapshot, keys []string) error {
	name := r.schema + "." + r.target
	found, with := name+" without parameters", " without parameters"
	switch {
	case unnamedOID[r.bodyType] != 0:
		_, kind, _ := strings.Cut(r.bodyType, "/")
		kind = map[string]string{"plain": "text", "octet-stream": "bytea"}[kind]
		if kind == "" {
			kind = "xml"
		}
		found, with = name, " with a single unnamed "+kind+" parameter"
	case len(keys) == 1:
		list := listed(keys)
		found, with = name+"("+list+")", " with parameter "+list
	case len(keys) > 1:
		list := listed(keys)
		found, with = name+"("+list+")", " with parameters "+list
	}
	raw := unnamedOID[r.bodyType] != 0
	if r.method == http.MethodPost && !raw {
		with += " or with a single unnamed json/jsonb parameter"
	}
	e := fail(http.StatusNotFound, "PGRST202", "Could not find the function "+found+" in the schema cache").
		details("Searched for the function " + name + with + ", but no matches were found in the schema cache.")
	if raw {
		return e
	}
	if all := snap.Functions(r.schema, r.target); len(all) > 0 {
		if list := nearestArguments(all, keys); list != "" {
			e.Hint = "Perhaps you meant to call the function " + name + list
		}
	} else if n := snap.NearestFunction(r.schema, r.target); n != "" {
		e.Hint = "Perhaps you meant to call the function " + r.schema + "." + n
	}
	return e
}

// maxListed bounds what a message repeats of a client's names, in bytes.
const maxListed = 1000

// listed are names in a message, cut where they become too long.
func listed(names []string) string {
	var b strings.Builder
	for i, n := range names {
		if i > 0 {
			b.WriteString(", ")
		}
		if room := max(0, maxListed-b.Len()); len(n) > room {
			return b.String() + strings.ToValidUTF8(n[:room], "") + "…"
		}
		b.WriteString(n)
	}
	return b.String()
}

// nearestArguments is the parameter list that is most like the keys, when it is
// like enough to be meant.
func nearestArguments(all []*schema.Function, keys []string) string {
	best, score := "", 0.25
	given := "(" + listed(keys) + ")"
	for _, f := range all {
		var names []string
		for _, a := range f.Args {
			names = append(names, a.Name)
		}
		slices.Sort(names)
		list := "(" + strings.Join(names, ", ") + ")"
		if s := schema.Similarity(list, given); s >= score {
			best, score = list, s
		}
	}
	return best
}
