package rest

import (
	"cmp"
	_ "embed"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"

	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/schema"
)

//go:embed sql/visible.sql
var visibleSQL string

// object is a JSON object of the document.
type object = map[string]any

// planRoot describes the schema as an OpenAPI 2.0 document (spec rest 6.4), as
// far as the role may use it, or answers what a function says in its place.
func (s *Server) planRoot(r *request, snap *schema.Snapshot, opt *options) (*plan, error) {
	p := &plan{readOnly: true, rollback: true}
	if r.method == http.MethodOptions {
		p.empty = s.base(r)
		p.empty.status, p.empty.allow, p.empty.length = http.StatusOK, "OPTIONS,GET,HEAD", true
		return p, nil
	}
	var text func(pg.Result) ([]byte, error)
	switch {
	case opt.rootSpec != "":
		p.describing = noArguments(opt.rootSpec, "::text").statement()
		text = func(res pg.Result) ([]byte, error) {
			if len(res.Rows) != 1 {
				return nil, fmt.Errorf("%s returned %d rows", opt.rootSpec, len(res.Rows))
			}
			return res.Rows[0][0], nil
		}
	case opt.openAPI == "disabled":
		return nil, fail(http.StatusNotFound, "PGRST126", "Root endpoint metadata is disabled")
	default:
		p.describing = pg.Statement{SQL: visibleSQL, Args: [][]byte{[]byte(r.schema)}}
		text = func(res pg.Result) ([]byte, error) {
			visible := map[string]bool{}
			for _, row := range res.Rows {
				visible[string(row[0])+string(row[1])] = true
			}
			shown := func(kind, name string) bool { return opt.openAPI == "ignore-privileges" || visible[kind+name] }
			return marshal(document(r.schema, snap, opt, shown))
		}
	}
	p.describe = func(res pg.Result) (*answer, error) {
		body, err := text(res)
		if err != nil {
			return nil, fmt.Errorf("write OpenAPI document: %w", err)
		}
		a := s.base(r)
		a.status, a.contentType, a.body = http.StatusOK, "application/openapi+json; charset=utf-8", body
		return a, nil
	}
	return p, nil
}

// document renders the relations and functions of a schema that are shown.
func document(name string, snap *schema.Snapshot, opt *options, shown func(kind, name string) bool) object {
	paths := object{"/": object{"get": operation("Introspection", "OpenAPI description (this document)")}}
	definitions := object{}
	snap.Relations(name, func(rel *schema.Relation) {
		if shown("r", rel.Name) {
			paths["/"+rel.Name] = relationPath(rel)
			definitions[rel.Name] = definition(rel, snap)
		}
	})
	snap.FunctionNames(name, func(function string, overloads []*schema.Function) {
		if shown("f", function) {
			paths["/rpc/"+function] = functionPath(function, overloads)
		}
	})
	title, description := headline(snap.Comments[name])
	info := object{"title": cmp.Or(title, "standard "+name+" schema"), "version": "1", "description": cmp.Or(description, "Served by Sluice")}
	doc := object{
		"swagger": "2.0", "info": info,
		"consumes": []string{"application/json", "application/vnd.pgrst.object+json", "text/csv"},
		"produces": []string{"application/json", "application/vnd.pgrst.object+json", "text/csv"},
		"paths":    paths, "definitions": definitions,
	}
	if opt.security {
		doc["security"] = []object{{"JWT": []string{}}}
		doc["securityDefinitions"] = object{"JWT": object{
			"type": "apiKey", "in": "header", "name": "Authorization", "description": `Add the token prepending "Bearer " (without quotes) to it`,
		}}
	}
	if u, err := url.Parse(opt.serverURI); err == nil && u.Host != "" {
		doc["schemes"], doc["host"], doc["basePath"] = []string{u.Scheme}, u.Host, cmp.Or(u.Path, "/")
	}
	return doc
}

// headline splits a comment into its first line and the rest.
func headline(comment string) (first, rest string) {
	first, rest, _ = strings.Cut(comment, "\n")
	return first, strings.TrimSpace(rest)
}

// describe puts a comment into an operation.
func describe(o object, comment string) {
	summary, description := headline(comment)
	if summary != "" {
		o["summary"] = summary
	}
	if description != "" {
		o["description"] = description
	}
}

func operation(tag, summary string) object {
	return object{"tags": []string{tag}, "summary": summary, "responses": object{"200": object{"description": "OK"}}}
}

func relationPath(rel *schema.Relation) object {
	filters := []object{}
	for _, c := range rel.Columns {
		filters = append(filters, object{"name": c.Name, "in": "query", "required": false, "type": "string", "format": c.Type})
	}
	query := func(names ...string) []object {
		out := slices.Clone(filters)
		for _, n := range names {
			out = append(out, object{"name": n, "in": "query", "required": false, "type": "string"})
		}
		return append(out, object{"name": "Prefer", "in": "header", "required": false, "type": "string"})
	}
	body := object{"name": rel.Name, "in": "body", "required": false, "schema": object{"$ref": "#/definitions/" + rel.Name}}
	get := operation(rel.Name, "")
	describe(get, rel.Comment)
	get["parameters"] = append(query("select", "order", "limit", "offset"), object{"name": "Range", "in": "header", "required": false, "type": "string"})
	get["responses"] = object{"200": object{"description": "OK", "schema": object{"type": "array", "items": object{"$ref": "#/definitions/" + rel.Name}}}}
	path := object{"get": get}
	add := func(allowed bool, method string, parameters []object) {
		if allowed {
			o := operation(rel.Name, "")
			describe(o, rel.Comment)
			o["parameters"] = parameters
			path[method] = o
		}
	}
	add(rel.Insertable, "post", append(query("select"), body)[len(filters):])
	add(rel.Updatable, "patch", append(query(), body))
	add(rel.Deletable, "delete", query())
	return path
}

// definition describes the rows of a relation.
func definition(rel *schema.Relation, snap *schema.Snapshot) object {
	keys := map[string]string{}
	for _, r := range snap.Relationships(rel) {
		if r.Forward && r.Junction == nil && !r.Target.IsView() && len(r.Columns) == 1 {
			keys[r.Columns[0]] = fmt.Sprintf("This is a Foreign Key to `%s.%s`.<fk table='%s' column='%s'/>", r.Target.Name, r.TargetColumns[0], r.Target.Name, r.TargetColumns[0])
		}
	}
	properties, required := object{}, []string{}
	for i := range rel.Columns {
		c := &rel.Columns[i]
		p := property(c)
		var notes []string
		if slices.Contains(rel.PrimaryKey, c.Name) {
			notes = append(notes, "This is a Primary Key.<pk/>")
		}
		if fk := keys[c.Name]; fk != "" {
			notes = append(notes, fk)
		}
		var parts []string
		if c.Comment != "" {
			parts = append(parts, c.Comment)
		}
		if len(notes) > 0 {
			parts = append(parts, "Note:\n"+strings.Join(notes, "\n"))
		}
		if len(parts) > 0 {
			p["description"] = strings.Join(parts, "\n\n")
		}
		properties[c.Name] = p
		if !c.Nullable && c.Default == nil && c.Identity == "" {
			required = append(required, c.Name)
		}
	}
	out := object{"type": "object", "properties": properties}
	if rel.Comment != "" {
		out["description"] = rel.Comment
	}
	if len(required) > 0 {
		out["required"] = required
	}
	return out
}

// property describes the values of a column.
func property(c *schema.Column) object {
	p := typeOf(c.Base, c.Item)
	p["format"] = c.Type
	if c.Length > 0 {
		p["maxLength"] = c.Length
	}
	if len(c.Labels) > 0 {
		p["enum"] = c.Labels
	}
	if c.Default != nil && c.Generated == "" {
		if v := constant(*c.Default, p["type"] == "string"); v != nil {
			p["default"] = v
		}
	}
	return p
}

// constant is the value of a default as JSON: of a string the expression itself
// unless it is a literal, of others nil unless it is one.
func constant(expression string, isText bool) any {
	if isText {
		if m := stringLiteral.FindStringSubmatch(expression); m != nil {
			return strings.ReplaceAll(m[1], "''", "'")
		}
		return expression
	}
	bare := strings.Trim(numberCast.ReplaceAllString(expression, ""), "'()")
	if json.Valid([]byte(bare)) {
		return json.RawMessage(bare)
	}
	return nil
}

var (
	stringLiteral = regexp.MustCompile(`^'((?:[^']|'')*)'(?:::.*)?$`)
	numberCast    = regexp.MustCompile(`::[a-z ]+$`)
)

// typeOf maps a type of PostgreSQL to one of JSON schema. item is that of an
// array's elements, or 0.
func typeOf(oid, item uint32) object {
	switch {
	case item != 0:
		return object{"type": "array", "items": typeOf(item, 0)}
	case oid == 20 || oid == 21 || oid == 23:
		return object{"type": "integer"}
	case oid == 1700 || oid == 700 || oid == 701:
		return object{"type": "number"}
	case oid == 16:
		return object{"type": "boolean"}
	case oid == schema.OIDJSON || oid == schema.OIDJSONB:
		return object{}
	}
	return object{"type": "string"}
}

// functionPath describes a function by its first overload: POST always, GET when
// it only reads.
func functionPath(name string, overloads []*schema.Function) object {
	f := overloads[0]
	properties, required := object{}, []string{}
	for _, a := range f.Args {
		if a.Name == "" {
			continue
		}
		p := typeOf(a.OID, a.Item)
		p["format"] = a.Type
		properties[a.Name] = p
		if !a.Optional {
			required = append(required, a.Name)
		}
	}
	args := object{"type": "object", "properties": properties}
	if f.Comment != "" {
		args["description"] = f.Comment
	}
	if len(required) > 0 {
		args["required"] = required
	}
	post := operation("(rpc) "+name, "")
	describe(post, f.Comment)
	post["parameters"] = []object{{"name": "args", "in": "body", "required": true, "schema": args}}
	path := object{"post": post}
	if f.Volatility != 'v' {
		get := operation("(rpc) "+name, "")
		describe(get, f.Comment)
		get["parameters"] = queryParameters(f, properties, required)
		path["get"] = get
	}
	return path
}

// queryParameters describes the arguments of a GET. Those of a VARIADIC one are
// given one by one; other arrays and JSON as text.
func queryParameters(f *schema.Function, properties object, required []string) []object {
	out := []object{}
	for i, a := range f.Args {
		if a.Name == "" {
			continue
		}
		q := maps.Clone(properties[a.Name].(object))
		switch {
		case f.Variadic && i == len(f.Args)-1:
			q["collectionFormat"] = "multi"
		case q["type"] == nil || q["type"] == "array":
			q["type"] = "string"
			delete(q, "items")
		}
		q["name"], q["in"], q["required"] = a.Name, "query", slices.Contains(required, a.Name)
		out = append(out, q)
	}
	return out
}
