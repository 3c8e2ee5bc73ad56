package rest_test

import (
	"encoding/json"
	"net/http"
	"testing"
)

// spec: rest:CA-10
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	type doc struct {
		Swagger     string
		Paths       map[string]map[string]struct{ Parameters []map[string]any }
		Definitions map[string]struct {
			Required   []string
			Properties map[string]map[string]any
		}
	}
	get := func(header ...string) doc {
		t.Helper()
		w := s.do("GET /", "", header...)
		var d doc
		if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil || w.Code != 200 || w.Header().Get("Content-Type") != "application/openapi+json; charset=utf-8" {
			t.Fatalf("%d %v %v", w.Code, w.Header(), err)
		}
		return d
	}
	d := get()
	p := d.Definitions["projects"]
	if d.Swagger != "2.0" || len(p.Required) != 1 || p.Required[0] != "id" ||
		p.Properties["id"]["description"] != "Note:\nThis is a Primary Key.<pk/>" || p.Properties["id"]["type"] != "integer" || p.Properties["id"]["format"] != "integer" ||
		p.Properties["client_id"]["description"] != "Note:\nThis is a Foreign Key to `clients.id`.<fk table='clients' column='id'/>" ||
		p.Properties["meta"]["type"] != nil || p.Properties["meta"]["format"] != "jsonb" || p.Properties["tags"]["type"] != "array" || p.Properties["due"]["format"] != "daterange" {
		t.Errorf("projects: %+v", p)
	}
	k := d.Definitions["kinds"].Properties
	if k["n"]["type"] != "number" || k["flag"]["type"] != "boolean" || k["mood"]["type"] != "string" || k["mood"]["format"] != "public.mood" {
		t.Errorf("kinds: %+v", k)
	}
	if m := d.Paths["/read_only"]; m["get"].Parameters == nil || len(m) != 1 {
		t.Errorf("read_only: %v", m)
	}
	if len(d.Paths["/projects"]) != 4 || d.Paths["/parts_low"] != nil {
		t.Errorf("projects: %v", d.Paths["/projects"])
	}
	if f := d.Paths["/rpc/add_them"]; len(f) != 2 || len(f["get"].Parameters) != 2 || f["get"].Parameters[0]["required"] != true {
		t.Errorf("add_them: %v", f)
	}
	if f := d.Paths["/rpc/write_it"]; len(f) != 1 || f["post"].Parameters == nil {
		t.Errorf("write_it: %v", f)
	}
	// What the role may not use is not told.
	for _, path := range []string{"/private", "/rpc/forbidden"} {
		if d.Paths[path] != nil {
			t.Errorf("anon is told of %s", path)
		}
		if get("As", "service").Paths[path] == nil && path == "/private" {
			t.Errorf("service_role is not told of %s", path)
		}
	}
	if d := get("Accept-Profile", "personal"); d.Definitions["projects"].Properties["own"] == nil || d.Definitions["items"].Properties != nil {
		t.Errorf("personal: %v", d.Definitions)
	}
	if w := s.do("HEAD /", "", "Accept", "application/openapi+json"); w.Code != 200 || w.Body.Len() > 0 {
		t.Errorf("HEAD: %d", w.Code)
	}
}

// PostGIS is stood in for by a function of the same name.
//
// spec: rest:FM-11 rest:FM-12
func TestGeoJSON(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.Exec(`create function extensions.st_asgeojson(r record) returns text language plpgsql stable as $$
begin
  if to_jsonb(r) ? 'at' then return json_build_object('type', 'Feature', 'properties', to_jsonb(r) - 'at', 'geometry', r.at); end if;
  raise sqlstate '22023' using message = 'geometry column is missing';
end $$;
create table public.places (id int, at text);
insert into public.places values (1, 'here');
create function public.places_from(first int) returns setof public.places language sql stable as $$ select * from public.places where id >= first $$;
create function public.a_place() returns public.places language sql stable as $$ select * from public.places where id = 1 $$;
grant all on public.places to anon;`)
	s.reload()
	const geo = "application/geo+json"
	w := s.want(`200 0-0/* {"type" : "FeatureCollection", "features" : [{"type" : "Feature", "properties" : {"id": 1}, "geometry" : "here"}]}`, "GET /places", "", "Accept", geo)
	if got := w.Header().Get("Content-Type"); got != geo+"; charset=utf-8" {
		t.Errorf("Content-Type %s", got)
	}
	s.want(`200 0-0/* {"type" : "FeatureCollection", "features" : [{"type" : "Feature", "properties" : {}, "geometry" : "here"}]}`, "GET /places?select=at", "", "Accept", geo)
	s.want(`200 */* {"type" : "FeatureCollection", "features" : []}`, "GET /places?id=eq.9", "", "Accept", geo)
	s.want(`201 */* {"type" : "FeatureCollection", "features" : [{"type" : "Feature", "properties" : {"id": 2}, "geometry" : "there"}]}`,
		"POST /places", `{"id":2,"at":"there"}`, "Accept", geo, "Prefer", "return=representation")
	wantError(t, s.do("GET /places?select=id", "", "Accept", geo), http.StatusBadRequest, "22023", "geometry column is missing")
	s.want(`200 0-0/* {"type" : "FeatureCollection", "features" : [{"type" : "Feature", "properties" : {"id": 2}, "geometry" : "yonder"}]}`,
		"PATCH /places?id=eq.2", `{"at":"yonder"}`, "Accept", geo, "Prefer", "return=representation")
	s.want(`200 0-0/* {"type" : "FeatureCollection", "features" : [{"type" : "Feature", "properties" : {"id": 2}, "geometry" : "yonder"}]}`,
		"GET /rpc/places_from?first=2", "", "Accept", geo)
	for _, line := range []string{"GET /rpc/a_place", "POST /rpc/a_place"} {
		s.want(`200 0-0/* {"type" : "FeatureCollection", "features" : [{"type" : "Feature", "properties" : {"id": 1}, "geometry" : "here"}]}`, line, "", "Accept", geo)
	}
	s.want(`200 */* {"type" : "FeatureCollection", "features" : [{"type" : "Feature", "properties" : {"id": 2}, "geometry" : "yonder"}]}`,
		"DELETE /places?id=eq.2", "", "Accept", geo, "Prefer", "return=representation")
}
