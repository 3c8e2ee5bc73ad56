package rest

import (
	_ "embed"
	"fmt"
	"maps"
	"net/http"
	"slices"

	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/schema"
)

//go:embed sql/visible.sql
var visibleSQL string

// object is a JSON object of the document.
type object = map[string]any

// planRoot describes the schema as an OpenAPI 2.0 document (spec rest 6.4), as
// far as the role may use it.
func (s *Server) planRoot(r *request, snap *schema.Snapshot) *plan {
	p := &plan{readOnly: true, rollback: true, schema: r.schema}
	if r.method == http.MethodOptions {
		p.empty = s.base(r)
		p.empty.status, p.empty.allow, p.empty.length = http.StatusOK, "OPTIONS,GET,HEAD", true
		return p
	}
	p.describe = func(res pg.Result) (*answer, error) {
		visible := map[string]bool{}
		for _, row := range res.Rows {
			visible[string(row[0])+string(row[1])] = true
		}
		text, err := marshal(document(r.schema, snap, visible))
		if err != nil {
			return nil, fmt.Errorf("write OpenAPI document: %w", err)
		}
		a := s.base(r)
		a.status, a.contentType, a.body = http.StatusOK, "application/openapi+json; charset=utf-8", text
		return a, nil
	}
	return p
}

// document renders the relations and functions of a schema that are visible.
func document(name string, snap *schema.Snapshot, visible map[string]bool) object {
	paths := object{"/": object{"get": operation("Introspection", "OpenAPI description (this document)")}}
	definitions := object{}
	snap.Relations(name, func(rel *schema.Relation) {
		if visible["r"+rel.Name] {
			paths["/"+rel.Name] = relationPath(rel)
			definitions[rel.Name] = definition(rel, snap)
		}
	})
	snap.FunctionNames(name, func(function string, overloads []*schema.Function) {
		if visible["f"+function] {
			paths["/rpc/"+function] = functionPath(function, overloads)
		}
	})
	return object{
		"swagger": "2.0", "info": object{"title": "standard " + name + " schema", "version": "1", "description": "Served by Sluice"},
		"consumes": []string{"application/json", "application/vnd.pgrst.object+json", "text/csv"},
		"produces": []string{"application/json", "application/vnd.pgrst.object+json", "text/csv"},
		"paths":    paths, "definitions": definitions,
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
	get["parameters"] = append(query("select", "order", "limit", "offset"), object{"name": "Range", "in": "header", "required": false, "type": "string"})
	get["responses"] = object{"200": object{"description": "OK", "schema": object{"type": "array", "items": object{"$ref": "#/definitions/" + rel.Name}}}}
	path := object{"get": get}
	add := func(allowed bool, method string, parameters []object) {
		if allowed {
			o := operation(rel.Name, "")
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
		p := typeOf(c.Base, c.Category)
		p["format"] = c.Type
		note := ""
		if slices.Contains(rel.PrimaryKey, c.Name) {
			note = "Note:\nThis is a Primary Key.<pk/>"
		}
		if fk := keys[c.Name]; fk != "" {
			if note == "" {
				note = "Note:"
			}
			note += "\n" + fk
		}
		if note != "" {
			p["description"] = note
		}
		properties[c.Name] = p
		if !c.Nullable && c.Default == nil && c.Identity == "" {
			required = append(required, c.Name)
		}
	}
	out := object{"type": "object", "properties": properties}
	if len(required) > 0 {
		out["required"] = required
	}
	return out
}

// typeOf maps a type of PostgreSQL to one of JSON schema.
func typeOf(oid uint32, category string) object {
	switch {
	case oid == 20 || oid == 21 || oid == 23:
		return object{"type": "integer"}
	case oid == 1700 || oid == 700 || oid == 701:
		return object{"type": "number"}
	case oid == 16:
		return object{"type": "boolean"}
	case oid == schema.OIDJSON || oid == schema.OIDJSONB:
		return object{}
	case category == "A":
		return object{"type": "array", "items": object{}}
	}
	return object{"type": "string"}
}

// functionPath describes a function: POST always, GET when it only reads.
func functionPath(name string, overloads []*schema.Function) object {
	f := overloads[0]
	properties, required := object{}, []string{}
	for _, a := range f.Args {
		if a.Name == "" {
			continue
		}
		p := typeOf(a.OID, "")
		p["format"] = a.Type
		properties[a.Name] = p
		if !a.Optional {
			required = append(required, a.Name)
		}
	}
	args := object{"type": "object", "properties": properties}
	if len(required) > 0 {
		args["required"] = required
	}
	post := operation("(rpc) "+name, "")
	post["parameters"] = []object{{"name": "args", "in": "body", "required": true, "schema": args}}
	path := object{"post": post}
	if f.Volatility != 'v' {
		get := operation("(rpc) "+name, "")
		parameters := []object{}
		for _, arg := range slices.Sorted(maps.Keys(properties)) {
			q := maps.Clone(properties[arg].(object))
			if q["type"] == nil || q["type"] == "array" {
				q["type"] = "string"
				delete(q, "items")
			}
			q["name"], q["in"], q["required"] = arg, "query", slices.Contains(required, arg)
			parameters = append(parameters, q)
		}
		get["parameters"] = parameters
		path["get"] = get
	}
	return path
}
