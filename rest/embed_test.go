package rest_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/sluice-dev/sluice/rest"
)

// A table related to itself through a junction: the junction alone names both
// directions, its key to the target names one.
//
// spec: rest:EM-14
func TestRecursiveManyToMany(t *testing.T) {
	t.Parallel()
	s := startWith(t, `
create table public.posters (id int primary key, name text);
create table public.subscriptions (
  subscriber int constraint subscriber_key references public.posters, subscribed int constraint subscribed_key references public.posters, primary key (subscriber, subscribed));
insert into public.posters values (1, 'Ann'), (2, 'Bob'), (3, 'Cid');
insert into public.subscriptions values (1, 2), (1, 3), (2, 3);
create function public.followers(public.posters) returns setof public.posters language sql stable as
  $$ select p.* from public.posters p join public.subscriptions s on s.subscriber = p.id where s.subscribed = $1.id $$;`, nil)
	for _, hint := range []string{"subscribed_key", "subscribed"} {
		s.want(`200 0-2/* [{"name":"Ann","follows":[{"name":"Bob"}, {"name":"Cid"}]}, {"name":"Bob","follows":[{"name":"Cid"}]}, {"name":"Cid","follows":[]}]`,
			"GET /posters?select=name,follows:posters!"+hint+"(name)&order=id&follows.order=id", "")
	}
	for _, hint := range []string{"subscriber_key", "subscriber"} {
		s.want(`200 0-1/* [{"name":"Bob","by":[{"name":"Ann"}]}, {"name":"Cid","by":[{"name":"Bob"}, {"name":"Ann"}]}]`,
			"GET /posters?select=name,by:posters!"+hint+"!inner(name)&order=id&by.order=id.desc", "")
	}
	s.want(`200 0-0/* [{"name":"Cid","followers":[{"name":"Ann"}, {"name":"Bob"}]}]`, "GET /posters?select=name,followers(name)&id=eq.3&followers.order=id", "")
	for _, line := range []string{"GET /posters?select=name,posters(name)", "GET /posters?select=name,posters!subscriptions(name)"} {
		w := s.do(line, "")
		var body struct {
			Details []struct{ Cardinality, Relationship string }
		}
		if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || len(body.Details) != 2 || body.Details[0].Cardinality != "many-to-many" {
			t.Errorf("%s: %d %s", line, w.Code, w.Body)
		}
		wantError(t, w, http.StatusMultipleChoices, "PGRST201", "")
	}
}

// Views whose columns have other names than the keys below them, a key of five
// columns, and several views of a table that is not exposed.
//
// spec: rest:EM-19
func TestViewsOverKeys(t *testing.T) {
	t.Parallel()
	s := startWith(t, `
create schema inside;
create table inside.pages (a int, b int, c int, d int, e int, title text, primary key (a, b, c, d, e));
create table inside.lines (id int primary key, pa int, pb int, pc int, pd int, pe int, words text, foreign key (pa, pb, pc, pd, pe) references inside.pages);
create table inside.authors (id int primary key, name text);
create table inside.books (id int primary key, title text, author_id int references inside.authors, editor_id int references inside.authors);
insert into inside.pages values (1, 2, 3, 4, 5, 'first'), (1, 2, 3, 4, 6, 'second');
insert into inside.lines values (1, 1, 2, 3, 4, 5, 'once'), (2, 1, 2, 3, 4, 6, 'upon'), (3, 1, 2, 3, 4, 6, 'a time');
insert into inside.authors values (1, 'Ann'), (2, 'Bob');
insert into inside.books values (1, 'One', 1, 2), (2, 'Two', 2, 1);
create view public.pages as select e as five, d as four, c as three, b as two, a as one, title from inside.pages;
create view public.lines as select pe as e5, words, pd as d4, pc as c3, pb as b2, pa as a1, id as line from inside.lines;
create view public.writers as select id as writer, name from inside.authors;
create view public.editors as select id as editor, name from inside.authors;
create view public.written as select id as book, title, author_id as by from inside.books;
create view public.edited as select id as book, title, editor_id as by from inside.books;
create view public.all_books as select * from inside.books;`, nil)
	s.want(`200 0-1/* [{"title":"first","lines":[{"words":"once"}]}, {"title":"second","lines":[{"words":"upon"}, {"words":"a time"}]}]`,
		"GET /pages?select=title,lines(words)&order=five&lines.order=line", "")
	s.want(`200 0-0/* [{"line":3,"pages":{"five":6,"title":"second"}}]`, "GET /lines?select=line,pages(five,title)&line=eq.3", "")
	s.want(`200 0-0/* [{"title":"Two","writers":{"name":"Bob"}}]`, "GET /written?select=title,writers(name)&book=eq.2", "")
	s.want(`200 0-0/* [{"title":"Two","editors":{"name":"Ann"}}]`, "GET /edited?select=title,editors(name)&book=eq.2", "")
	s.want(`200 0-1/* [{"name":"Ann","written":[{"title":"One"}],"edited":[{"title":"Two"}]}, {"name":"Bob","written":[{"title":"Two"}],"edited":[{"title":"One"}]}]`,
		"GET /writers?select=name,written(title),edited(title)&order=writer", "")
	wantError(t, s.do("GET /all_books?select=title,writers(name)", ""), http.StatusMultipleChoices, "PGRST201", "")
	s.want(`200 0-0/* [{"title":"One","writers":{"name":"Bob"}}]`, "GET /all_books?select=title,writers!books_editor_id_fkey(name)&id=eq.1", "")
}

// What the planner is asked to do for an embedded resource stays cheap: no
// resource is computed for rows that are not answered.
//
// spec: rest:FM-17
func TestPlanCosts(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *rest.Config) { c.Plans = true })
	for line, most := range map[string]float64{
		"GET /clients?select=*,projects(*)&id=eq.1":                33.3,
		"GET /projects?select=*,clients(*)&id=eq.1":                16.5,
		"GET /users?select=*,tasks(*)&id=eq.1":                     70.9,
		"GET /users?select=*,tasks!inner(*)&id=eq.1&tasks.id=eq.1": 70.9,
	} {
		w := s.do(line, "", "Accept", "application/vnd.pgrst.plan+json")
		var plans []struct {
			Plan struct {
				Cost float64 `json:"Total Cost"`
			}
		}
		if err := json.Unmarshal(w.Body.Bytes(), &plans); err != nil || len(plans) != 1 || plans[0].Plan.Cost == 0 || plans[0].Plan.Cost >= most {
			t.Errorf("%s: want less than %v: %d %s", line, most, w.Code, w.Body)
		}
	}
}

// A computed column that is a set is an array; one that is a value is that.
//
// spec: rest:SE-19
func TestComputedSets(t *testing.T) {
	t.Parallel()
	s := startWith(t, `
create table public.carts (id int primary key, n int);
insert into public.carts values (1, 2), (2, 0), (3, 3);
create function public.double(c public.carts) returns int language sql immutable as $$ select c.n * 2 $$;
create function public.pair(public.carts) returns int[] language sql immutable as $$ select array[$1.id, $1.n] $$;
create function public.steps(c public.carts) returns setof int language sql immutable as $$ select generate_series(1, c.n) $$;
create function public.colors(public.carts) returns setof text language sql immutable as $$ select 'c' || generate_series(1, $1.n) $$;
create function public.all_carts() returns setof public.carts language sql stable as $$ select * from public.carts $$;
create view public.cart_view as select * from public.carts;
create function public.steps(c public.cart_view) returns setof int language sql immutable as $$ select generate_series(c.n, c.n + 1) $$;`, nil)
	s.want(`200 0-1/* [{"id":1,"double":4,"pair":[1,2],"steps":[1,2],"colors":["c1","c2"]}, {"id":2,"double":0,"pair":[2,0],"steps":[],"colors":[]}]`,
		"GET /carts?select=id,double,pair,steps,colors&order=id&limit=2", "")
	s.want(`200 0-1/* [{"id":1}, {"id":3}]`, "GET /carts?select=id&steps=cs.{2}&order=id", "")
	s.want(`200 0-0/* [{"s":"{1,2}","colors":"c2"}]`, "GET /carts?select=s:steps::text,colors->>1&id=eq.1", "")
	s.want(`200 0-2/* [{"id":3}, {"id":1}, {"id":2}]`, "GET /carts?select=id&order=steps.desc", "")
	s.want(`200 0-0/* [{"id":1,"steps":[2,3]}]`, "GET /cart_view?select=id,steps&id=eq.1", "")
	s.want(`200 0-0/* [{"id":1,"n":2}]`, "GET /carts?id=eq.1", "")
	s.want(`206 0-0/3 [{"steps":[1,2]}]`, "GET /rpc/all_carts?select=steps&limit=1&order=id", "", "Prefer", "count=exact")
	s.want(`200 0-0/* [{"steps":[1]}]`, "PATCH /carts?id=eq.1&select=steps", `{"n":1}`, "Prefer", "return=representation")
	s.want(`201 */* [{"id":4,"colors":"c1"}]`, "POST /carts?select=id,colors->>0", `{"id":4,"n":1}`, "Prefer", "return=representation")
}

// By default a resource with an alias answers to its target's name, too, with a
// warning. What has no alias comes first.
//
// spec: rest:EM-36 rest:EM-37
func TestTargetNames(t *testing.T) {
	t.Parallel()
	s := startPrivate(t)
	const aliased = "GET /projects?select=id,jobs:tasks(id)&id=eq.1"
	const answer = `200 0-0/* [{"id":1,"jobs":[{"id":2}]}]`
	const both = "GET /projects?select=id,tasks(id),jobs:tasks(name)&id=eq.1&tasks.id=eq.1&jobs.id=eq.2&jobs.limit=5&tasks.order=id"
	const bothAnswer = `200 0-0/* [{"id":1,"tasks":[{"id":1}],"jobs":[{"name":"Build"}]}]`
	if w := s.want(answer, aliased+"&jobs.id=eq.2", ""); w.Header()["Warning"] != nil {
		t.Errorf("a warning without a cause: %v", w.Header())
	}
	const warning = `299 Sluice "Embedded resource was referenced by relation name even though it has an alias. Use the alias in filters, orders and limits."`
	for _, more := range []string{"&tasks.id=eq.2", "&tasks.order=id.desc&tasks.limit=1", "&tasks.or=(id.eq.2,id.eq.7)"} {
		if w := s.want(answer, aliased+more, ""); w.Header().Get("Warning") != warning {
			t.Errorf("%s: Warning %q", more, w.Header().Get("Warning"))
		}
	}
	if w := s.do("DELETE /projects?select=id,jobs:tasks(id)&id=eq.99&tasks.id=eq.2", "", "Prefer", "return=representation"); w.Header().Get("Warning") != warning {
		t.Errorf("DELETE: %d %v", w.Code, w.Header())
	}
	s.want(bothAnswer, both, "")

	s.Exec("alter role authenticator set pgrst.url_use_legacy_target_names = 'false'")
	s.reload()
	s.want(answer, aliased+"&jobs.id=eq.2", "")
	for _, more := range []string{"&tasks.id=eq.2", "&tasks.order=id.desc&tasks.limit=1", "&tasks.or=(id.eq.2,id.eq.7)"} {
		s.want(`400 {"code":"PGRST108","details":"Target names are not allowed in filters if they have an alias","hint":"Change 'tasks' to 'jobs' in filters, orders or limits.",`+
			`"message":"'tasks' is not an embedded resource in this request"}`, aliased+more, "")
	}
	s.want(bothAnswer, both, "")
}

// An order by columns of an embedded resource names them where the resource is
// joined: what a statement has of it does not grow with the terms, nor with the
// levels above. projects and project_briefs are one to one, so that they can be
// embedded in one another.
func TestRelatedOrderKeepsTheStatementSmall(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	names, columns := []string{"project_briefs", "projects"}, []string{"body", "name"}
	for _, c := range []struct{ depth, terms int }{{1, 2}, {10, 2}, {5, 60}, {3, 300}} {
		target, embedded, path := "/projects?select=id,", "", ""
		for d := c.depth - 1; d >= 0; d-- {
			embedded = strings.TrimSuffix(names[d%2]+"("+columns[d%2]+","+embedded, ",") + ")"
		}
		target += embedded
		for d := range c.depth {
			term := names[d%2] + "(" + columns[d%2] + "),"
			target += "&" + path + "order=" + strings.TrimSuffix(strings.Repeat(term, c.terms), ",")
			path += names[d%2] + "."
		}
		r := s.request("GET "+target, "")
		r.URL.Path = "/projects"
		size := 0
		for _, sql := range s.server.Statements(r) {
			size += len(sql)
		}
		if size == 0 || size > 1000+10*len(target) {
			t.Errorf("%d levels of %d terms: a URL of %d bytes becomes a statement of %d", c.depth, c.terms, len(target), size)
		}
		if w := s.do("GET "+target, ""); w.Code != http.StatusOK {
			t.Errorf("%d levels of %d terms: %d %s", c.depth, c.terms, w.Code, w.Body)
		}
	}
}
