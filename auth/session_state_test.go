package auth_test

import (
	"log/slog"
	"testing"

	"github.com/sluice-dev/sluice/auth"
	"github.com/sluice-dev/sluice/pg"
)

// A trigger or a hook that sets something for the session sets it for one
// transaction: the connection's next user does not find it.
func TestNothingIsLeftToTheNextUser(t *testing.T) {
	t.Parallel()
	s := hooked(t, nil, nil)
	s.Exec(`
create table public.seen (what text, setting text, path text, role text);
grant insert on public.seen to public;
create function public.look(what text) returns void language plpgsql as $$
begin
  insert into public.seen values (what, current_setting('app.actor', true), current_setting('search_path'), current_user);
  perform set_config('app.actor', what, false), set_config('search_path', 'nowhere', false);
end $$;
create function public.on_user() returns trigger language plpgsql as $$
begin
  perform public.look(coalesce(new.email, 'deleted ' || old.email));
  return coalesce(new, old);
end $$;
create trigger on_user after insert or delete on auth.users for each row execute function public.on_user();
create function hooks.on_token(input jsonb) returns jsonb language plpgsql as $$
begin
  perform public.look('token of ' || (input -> 'claims' ->> 'email'));
  return input;
end $$;`)
	one, err := pg.Open(t.Context(), pg.Config{URL: s.URL("supabase_auth_admin"), MaxConns: 1, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(one.Close)
	server := s.serve(func(c *auth.Config) {
		c.Pool, c.AnonymousLife, c.EnableAnonymous = one, 1, true
		c.Hooks = map[string]auth.Hook{"custom_access_token": {URI: "pg-functions://postgres/hooks/on_token"}}
	})
	signUp := func(email string) {
		s.doOn(server, "POST", "/signup", object{"email": email, "password": password}).ok(200)
	}
	signUp("a@example.com")
	s.doOn(server, "POST", "/token?grant_type=password", object{"email": "a@example.com", "password": password}).ok(200)
	// The clean-up deletes, and so runs triggers.
	s.Exec("insert into auth.users (id, email, is_anonymous, created_at) values (gen_random_uuid(), 'old@example.com', true, '2020-01-01')")
	if err := server.Clean(t.Context()); err != nil {
		t.Fatal(err)
	}
	signUp("b@example.com")
	// Within one transaction the project's own functions may see each other's.
	same(t, "what they found", s.text(`select string_agg(concat_ws(' ', what, nullif(setting, '')), ', ' order by ctid) from public.seen
		where role = 'supabase_auth_admin'`),
		"a@example.com, token of a@example.com a@example.com, token of a@example.com, deleted old@example.com, "+
			"b@example.com, token of b@example.com b@example.com")
	same(t, "search paths at the beginning", s.count(`select count(distinct path) from public.seen where coalesce(setting, '') = '' and role = 'supabase_auth_admin'`), 1)
}
