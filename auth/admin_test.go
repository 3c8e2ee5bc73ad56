package auth_test

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/crypto/bcrypt"

	"github.com/sluice-dev/sluice/auth"
	"github.com/sluice-dev/sluice/token"
)

// spec: auth:111
func TestAdminNeedsServiceRole(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	for _, call := range []string{"GET /admin/users", "POST /admin/users", "GET /admin/users/" + in.id(), "PUT /admin/users/" + in.id(), "DELETE /admin/users/" + in.id()} {
		method, path, _ := strings.Cut(call, " ")
		s.do(method, path, object{}, with("Authorization", "")).refused(401, "no_authorization", "This endpoint requires a valid Bearer token")
		s.do(method, path, object{}, as(in.access())).refused(403, "not_admin", "User not allowed")
		s.do(method, path, object{}, as(token.LegacyKey(token.DevJWTSecret, "anon"))).refused(403, "not_admin", "User not allowed")
		s.do(method, path, object{}).refused(403, "not_admin", "User not allowed")
		// The secret key beside a user's token does not raise the user.
		s.do(method, path, object{}, with("apikey", token.DevSecretKey), as(in.access())).refused(403, "not_admin", "User not allowed")
	}
	service := token.LegacyKey(token.DevJWTSecret, "service_role")
	s.do("GET", "/admin/users", nil, as(service)).ok(200)
	s.do("GET", "/admin/users", nil, with("apikey", token.DevSecretKey), with("Authorization", "")).ok(200)
}

// spec: auth:122
func TestAdminTokenOfDeadSession(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *auth.Config) { c.SessionTimebox = time.Minute })
	in := s.signUp("a@example.com")
	s.do("PUT", "/admin/users/"+in.id(), object{"role": "service_role"}, admin).ok(200)
	boss := s.login("a@example.com", password).ok(200)
	s.do("GET", "/admin/users", nil, as(boss.access())).ok(200)
	s.clock.pass(2 * time.Minute)
	s.do("GET", "/admin/users", nil, as(boss.access())).refused(403, "session_expired", "Session is no longer valid")
	s.Exec("delete from auth.sessions")
	s.do("GET", "/admin/users", nil, as(boss.access())).refused(403, "session_not_found", "Session from session_id claim in JWT does not exist")
}

// spec: auth:112
func TestAdminCreate(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	r := s.do("POST", "/admin/users", object{
		"email": "New@Example.com", "password": "12345", "email_confirm": true, "role": "editor", "ban_duration": "none",
		"user_metadata": object{"name": "x"}, "app_metadata": object{"team": "y", "provider": "own"},
	}, admin).ok(200)
	const at = "2026-05-01T12:00:00Z"
	same(t, "user", r.body, object{
		"id": r.str("id"), "aud": "authenticated", "role": "editor", "email": "new@example.com", "phone": "",
		"email_confirmed_at": at, "confirmed_at": at, "created_at": at, "updated_at": at, "is_anonymous": false,
		"user_metadata": object{"name": "x", "email_verified": true},
		"app_metadata":  object{"provider": "own", "providers": []any{"email"}, "team": "y"},
		"identities": []any{object{
			"identity_id": r.str("identities.0.identity_id"), "id": r.str("id"), "user_id": r.str("id"), "provider": "email",
			"identity_data":   object{"sub": r.str("id"), "email": "new@example.com", "email_verified": false, "phone_verified": false},
			"last_sign_in_at": at, "created_at": at, "updated_at": at, "email": "new@example.com",
		}},
	})
	same(t, "role in the token", s.login("new@example.com", "12345").ok(200).claims()["role"], any("editor"))
}

// spec: auth:113 auth:114
func TestAdminCreateRefusals(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *auth.Config) { c.EnablePhone = true })
	id := uuid.NewString()
	r := s.do("POST", "/admin/users", object{"id": id, "email": "a@example.com", "phone": "+49123", "email_confirm": true, "phone_confirm": true}, admin).ok(200)
	same(t, "id", r.str("id"), id)
	same(t, "providers", r.at("app_metadata"), any(object{"provider": "email", "providers": []any{"email", "phone"}}))
	if r.at("phone_confirmed_at") == nil {
		t.Error("the number is not confirmed")
	}
	for _, p := range []string{"", password} {
		s.login("a@example.com", p).refused(400, "invalid_credentials", "Invalid login credentials")
	}
	if s.text("select encrypted_password from auth.users") == "" {
		t.Error("no random password is stored")
	}
	hash, err := bcrypt.GenerateFromPassword([]byte(password), 4)
	if err != nil {
		t.Fatal(err)
	}
	s.do("POST", "/admin/users", object{"email": "hash@example.com", "password_hash": string(hash), "email_confirm": true}, admin).ok(200)
	s.login("hash@example.com", password).ok(200)

	const exists = "A user with this email address has already been registered"
	for _, c := range []struct {
		body          object
		status        int
		code, message string
	}{
		{object{}, 400, "validation_failed", "Cannot create a user without either an email or phone"},
		{object{"email": "A@example.com"}, 422, "email_exists", exists},
		{object{"phone": "49123"}, 422, "phone_exists", "Phone number already registered by another user"},
		{object{"email": "b@example.com", "id": id}, 422, "user_already_exists", "A user with this ID has already been registered"},
		{object{"email": "b@example.com", "id": "x"}, 400, "validation_failed", "ID must conform to the uuid v4 format"},
		{object{"email": "b@example.com", "id": uuid.Nil.String()}, 400, "validation_failed", "ID cannot be a nil uuid"},
		{object{"email": "b@example.com", "password": "x", "password_hash": string(hash)}, 400, "validation_failed", "Only a password or a password hash should be provided"},
		{object{"email": "b@example.com", "password_hash": "x"}, 400, "validation_failed", "The password hash is not of a supported format"},
		{object{"email": "b@example.com", "password": strings.Repeat("x", 73)}, 400, "validation_failed", "Password cannot be longer than 72 characters"},
		{object{"email": "b@example.com", "ban_duration": "soon"}, 400, "validation_failed", `invalid format for ban duration: time: invalid duration "soon"`},
		{object{"email": "b@example.com", "role": strings.Repeat("x", 256)}, 400, "validation_failed", "Role is too long"},
		{object{"email": "b"}, 400, "validation_failed", "Unable to validate email address: invalid format"},
		{object{"phone": "b"}, 400, "validation_failed", "Invalid phone number format (E.164 required)"},
	} {
		s.do("POST", "/admin/users", c.body, admin).refused(c.status, c.code, c.message)
	}
	same(t, "users", s.count("select count(*) from auth.users"), 2)
}

// spec: auth:115 auth-sec:53
func TestAdminList(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	r := s.do("GET", "/admin/users", nil, admin).ok(200)
	same(t, "nobody", r.body, object{"users": []any{}, "aud": "authenticated"})
	same(t, "X-Total-Count", r.header.Get("X-Total-Count"), "0")
	s.Exec(`insert into auth.users (id, aud, role, email, created_at) select gen_random_uuid(), 'authenticated', 'authenticated', 'u' || n || '@example.com',
		timestamptz '2026-01-01' + n * interval '1 hour' from generate_series(1, 120) n`)
	s.Exec("insert into auth.users (id, aud, email) values (gen_random_uuid(), 'other', 'other@example.com')")
	emails := func(r *reply) (out []string) {
		for _, u := range r.at("users").([]any) {
			out = append(out, u.(object)["email"].(string))
		}
		return out
	}
	r = s.do("GET", "/admin/users", nil, admin).ok(200)
	same(t, "page size", len(emails(r)), 50)
	same(t, "newest first", emails(r)[:2], []string{"u120@example.com", "u119@example.com"})
	same(t, "X-Total-Count", r.header.Get("X-Total-Count"), "120")
	same(t, "Link", r.header.Get("Link"), `</admin/users?page=2&per_page=50>; rel="next", </admin/users?page=3&per_page=50>; rel="last"`)
	same(t, "identities", r.at("users.0.identities"), nil)
	if !strings.Contains(r.text, `"identities":null`) {
		t.Error("identities are not null")
	}
	r = s.do("GET", "/admin/users?page=&per_page=", nil, admin).ok(200)
	same(t, "empty values", len(emails(r)), 50)
	r = s.do("GET", "/admin/users?page=3&per_page=50", nil, admin).ok(200)
	same(t, "last page", len(emails(r)), 20)
	same(t, "Link", r.header.Get("Link"), `</admin/users?page=3&per_page=50>; rel="last"`)
	r = s.do("GET", "/admin/users?page=9&per_page=50", nil, admin).ok(200)
	same(t, "page beyond the end", r.at("users"), any([]any{}))
	r = s.do("GET", "/admin/users?per_page=100000", nil, admin).ok(200)
	same(t, "page size is capped", r.header.Get("Link"), `</admin/users?page=1&per_page=1000>; rel="last"`)
	for _, q := range []string{"page=x", "page=0", "page=-1", "per_page=0", "per_page=x", "page=99999999999999999999"} {
		r := s.do("GET", "/admin/users?"+q, nil, admin).ok(400)
		if !strings.HasPrefix(r.str("message"), "Bad Pagination Parameters: ") {
			t.Errorf("%s: %s", q, r.text)
		}
	}
	// As auth-js reads the header.
	next, last := 0, 0
	for _, link := range strings.Split(s.do("GET", "/admin/users?per_page=30&filter=u&sort=created_at+asc", nil, admin).header.Get("Link"), ",") {
		page := int(strings.SplitN(strings.SplitN(link, ";", 2)[0], "=", 3)[1][0] - '0')
		if strings.Contains(link, `rel="next"`) {
			next = page
		} else {
			last = page
		}
	}
	same(t, "next and last", []int{next, last}, []int{2, 4})
}

// spec: auth:116
func TestAdminListFilter(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	for i, u := range []struct{ email, name string }{
		{"ann@example.com", "Ann Smith"}, {"bob_x@example.com", "Bob Jones"}, {"bobbx@example.org", "Percy 100% Jones"},
	} {
		s.do("POST", "/admin/users", object{"email": u.email, "user_metadata": object{"full_name": u.name}}, admin).ok(200)
		s.clock.pass(time.Duration(i+1) * time.Minute)
	}
	for query, want := range map[string]string{
		"filter=example.com":              "bob_x@example.com ann@example.com",
		"filter=EXAMPLE.com":              "",
		"filter=jones":                    "bobbx@example.org bob_x@example.com",
		"filter=b_x":                      "bob_x@example.com",
		"filter=100%25":                   "bobbx@example.org",
		"filter=%25":                      "bobbx@example.org",
		"filter=%5C":                      "",
		"sort=created_at+asc":             "ann@example.com bob_x@example.com bobbx@example.org",
		"sort=created_at+desc":            "bobbx@example.org bob_x@example.com ann@example.com",
		"sort=created_at":                 "bobbx@example.org bob_x@example.com ann@example.com",
		"sort=":                           "bobbx@example.org bob_x@example.com ann@example.com",
		"sort=created_at+asc&filter=nn":   "ann@example.com",
		"filter=jones&page=2&per_page=1":  "bob_x@example.com",
		"filter='%20or%20true--":          "",
		"sort=created_at+asc&per_page=1":  "ann@example.com",
		"sort=created_at%20%20asc&page=1": "ann@example.com bob_x@example.com bobbx@example.org",
	} {
		r := s.do("GET", "/admin/users?"+query, nil, admin).ok(200)
		var got []string
		for _, u := range r.at("users").([]any) {
			got = append(got, u.(object)["email"].(string))
		}
		same(t, query, strings.Join(got, " "), want)
	}
	for query, message := range map[string]string{
		"sort=email+asc":           "Bad Sort Parameters: bad field for sort 'email'",
		"sort=created_at+up":       "Bad Sort Parameters: bad direction for sort 'up', only 'asc' and 'desc' allowed",
		"sort=created_at+asc,+x":   "Bad Sort Parameters: bad direction for sort 'asc, x', only 'asc' and 'desc' allowed",
		"filter=%ff":               "Bad Pagination Parameters: the filter is not a short text",
		"filter=%00":               "Bad Pagination Parameters: the filter is not a short text",
		"sort=created_at;drop+asc": "",
	} {
		if message == "" {
			continue // a semicolon is no parameter at all
		}
		s.do("GET", "/admin/users?"+query, nil, admin).refused(400, "validation_failed", message)
	}
}

// spec: auth:117
func TestAdminGet(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	r := s.do("GET", "/admin/users/"+in.id(), nil, admin).ok(200)
	same(t, "user", r.body, in.at("user").(object))
	for _, method := range []string{"GET", "PUT", "DELETE"} {
		s.do(method, "/admin/users/"+uuid.NewString(), object{}, admin).refused(404, "user_not_found", "User not found")
		for _, id := range []string{"x", "123e4567e89b12d3a456426614174000", "{123e4567-e89b-12d3-a456-426614174000}"} {
			s.do(method, "/admin/users/"+id, object{}, admin).refused(404, "validation_failed", "user_id must be an UUID")
		}
	}
	r = s.do("GET", "/admin/users/"+in.id()+"/factors", nil, admin).ok(200)
	same(t, "factors", r.text, "[]")
}

// spec: auth:118
func TestAdminUpdate(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.do("POST", "/signup", object{"email": "a@example.com", "password": password, "data": object{"keep": 1, "drop": 1}}).ok(200)
	path := "/admin/users/" + in.id()
	r := s.do("PUT", path, object{
		"email": "New@example.com", "role": "editor", "user_metadata": object{"drop": nil, "add": 2}, "app_metadata": object{"team": "x"},
		"phone": "+49123", "phone_confirm": true,
	}, admin).ok(200)
	for field, want := range map[string]any{"email": "new@example.com", "role": "editor", "phone": "49123"} {
		same(t, field, r.at(field), want)
	}
	same(t, "app_metadata", r.at("app_metadata"), any(object{"provider": "email", "providers": []any{"email", "phone"}, "team": "x"}))
	meta := r.at("user_metadata").(object)
	same(t, "user_metadata", []any{meta["keep"], meta["drop"], meta["add"], meta["phone_verified"]}, []any{1.0, nil, 2.0, true})
	same(t, "identity's address", r.str("identities.0.email"), "new@example.com")
	s.login("a@example.com", password).ok(400)
	s.login("new@example.com", password).ok(200)

	s.do("PUT", path, object{"password": "12345"}, admin).refused(422, "weak_password", "Password should be at least 6 characters.")
	s.do("PUT", path, object{"password": strings.Repeat("x", 73)}, admin).refused(400, "validation_failed", "Password cannot be longer than 72 characters")
	s.do("PUT", path, object{"ban_duration": "soon"}, admin).refused(400, "validation_failed", `invalid format for ban duration: time: invalid duration "soon"`)
	s.do("GET", "/user", nil, as(in.access())).ok(200)
	s.do("PUT", path, object{"password": "a new password"}, admin).ok(200)
	same(t, "sessions", s.count("select count(*) from auth.sessions"), 0)
	s.do("GET", "/user", nil, as(in.access())).refused(403, "session_not_found", "Session from session_id claim in JWT does not exist")
	back := s.login("new@example.com", "a new password").ok(200)

	r = s.do("PUT", path, object{"ban_duration": "24h"}, admin).ok(200)
	same(t, "banned_until", r.str("banned_until"), "2026-05-02T12:00:00Z")
	s.do("GET", "/user", nil, as(back.access())).refused(403, "user_banned", "User is banned")
	r = s.do("PUT", path, object{"ban_duration": "none"}, admin).ok(200)
	same(t, "banned_until", r.at("banned_until"), nil)
	s.do("GET", "/user", nil, as(back.access())).ok(200)

	s.signUp("taken@example.com")
	s.do("PUT", path, object{"email": "taken@example.com"}, admin).refused(422, "email_exists", "A user with this email address has already been registered")
	made := s.do("POST", "/admin/users", object{"email": "late@example.com", "password": password}, admin).ok(200)
	s.login("late@example.com", password).ok(400)
	s.do("PUT", "/admin/users/"+made.str("id"), object{"email_confirm": true}, admin).ok(200)
	s.login("late@example.com", password).ok(200)
}

// spec: auth:119
func TestAdminDelete(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.ExecAs("postgres", "create table public.notes (id int primary key, owner uuid references auth.users on delete cascade)")
	for i, body := range []any{nil, object{}, object{"should_soft_delete": false}} {
		in := s.signUp("a@example.com")
		s.Exec("insert into public.notes values ($1, $2)", i, in.id())
		r := s.do("DELETE", "/admin/users/"+in.id(), body, admin).ok(200)
		same(t, "body", r.text, "{}")
		s.do("GET", "/user", nil, as(in.access())).refused(403, "user_not_found", "User from sub claim in JWT does not exist")
		s.renew(in.refresh()).refused(400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found")
		for _, table := range []string{"public.notes", "auth.users", "auth.identities", "auth.sessions", "auth.refresh_tokens", "auth.mfa_amr_claims"} {
			same(t, table, s.count("select count(*) from "+table), 0)
		}
	}
	// What still points at the user keeps it: the answer hides the detail.
	s.ExecAs("postgres", "create table public.kept (owner uuid references auth.users)")
	in := s.signUp("a@example.com")
	s.Exec("insert into public.kept values ($1)", in.id())
	s.do("DELETE", "/admin/users/"+in.id(), nil, admin).refused(500, "unexpected_failure", "Database error deleting user")
	s.do("GET", "/user", nil, as(in.access())).ok(200)
}

// spec: auth:120
func TestSoftDelete(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *auth.Config) { c.EnablePhone = true })
	in := s.do("POST", "/signup", object{"email": "a@example.com", "password": password, "data": object{"name": "x"}}).ok(200)
	path := "/admin/users/" + in.id()
	s.do("PUT", path, object{"phone": "+49123456789", "phone_confirm": true}, admin).ok(200)
	s.do("DELETE", path, object{"should_soft_delete": true}, admin).ok(200)
	r := s.do("GET", path, nil, admin).ok(200)
	sum := func(value string) string {
		h := sha256.Sum256([]byte(in.id() + value))
		return base64.RawURLEncoding.EncodeToString(h[:])
	}
	for field, want := range map[string]any{
		"id": in.id(), "email": sum("a@example.com"), "phone": sum("49123456789")[:15], "deleted_at": "2026-05-01T12:00:00Z",
		"app_metadata": object{}, "user_metadata": object{},
	} {
		same(t, field, r.at(field), want)
	}
	for _, i := range r.at("identities").([]any) {
		same(t, "identity's subject", i.(object)["id"], any(sum(in.id())))
		if i.(object)["identity_data"] != nil {
			t.Errorf("identity_data is kept: %v", i)
		}
	}
	same(t, "sessions", s.count("select count(*) from auth.sessions"), 0)
	s.login("a@example.com", password).ok(400)
	s.do("GET", "/user", nil, as(in.access())).refused(403, "session_not_found", "Session from session_id claim in JWT does not exist")
	s.clock.pass(time.Hour)
	s.do("DELETE", path, object{"should_soft_delete": true}, admin).ok(200)
	same(t, "again", s.do("GET", path, nil, admin).body, r.body)
	if s.signUp("a@example.com").id() == in.id() {
		t.Error("the deleted user came back")
	}
}

// spec: auth-sec:54
func TestAudit(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	steps := []func(){
		func() { s.login("a@example.com", password).ok(200) },
		func() { s.do("PUT", "/user", object{"data": object{"a": 1}}, as(in.access())).ok(200) },
		func() { s.do("PUT", "/admin/users/"+in.id(), object{"role": "x"}, admin).ok(200) },
		func() { s.do("POST", "/logout", nil, as(in.access())).ok(204) },
		func() { s.do("DELETE", "/admin/users/"+in.id(), nil, admin).ok(200) },
	}
	for _, step := range steps {
		s.clock.pass(time.Second)
		step()
	}
	const list = `select string_agg(concat_ws('/', payload ->> 'action', payload ->> 'log_type', payload ->> 'actor_username'), ' ' order by created_at)
		from auth.audit_log_entries where created_at > $1`
	same(t, "entries", s.text(list, time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)), "login/account/a@example.com user_modified/user/a@example.com "+
		"user_modified/user/service_role logout/account/a@example.com user_deleted/team/service_role")
	same(t, "request and address", s.count("select count(*) from auth.audit_log_entries where payload ->> 'request_id' = 'request-1' and ip_address = '192.0.2.1'"), 7)
	same(t, "administrator", s.text("select payload ->> 'actor_id' from auth.audit_log_entries where payload ->> 'action' = 'user_deleted'"), uuid.Nil.String())
	if strings.Contains(s.text("select string_agg(payload::text, ' ') from auth.audit_log_entries"), password) {
		t.Error("the audit log holds a password")
	}
}

// spec: auth:142 auth-sec:46 auth-sec:47
func TestNobodyElseReadsAuth(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	rows, err := s.Admin().Query(t.Context(), `select r.rolname, c.relname from pg_class c cross join (values ('anon'), ('authenticated')) r (rolname)
		where c.relnamespace = 'auth'::regnamespace and c.relkind = 'r'
		and (has_table_privilege(r.rolname, c.oid, 'select, insert, update, delete, truncate, references, trigger') or not c.relrowsecurity)`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	for rows.Next() {
		var role, table string
		if err := rows.Scan(&role, &table); err != nil {
			t.Fatal(err)
		}
		t.Errorf("%s may use auth.%s, or it has no row security", role, table)
	}
	same(t, "policies", s.count("select count(*) from pg_policies where schemaname = 'auth'"), 0)
	same(t, "role of Auth", s.text("select concat_ws(' ', rolinherit, rolsuper, rolbypassrls) from pg_roles where rolname = 'supabase_auth_admin'"), "f f f")
}

// spec: auth:141
func TestClaimFunctions(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	claims := fmt.Sprintf(`{"sub":%q,"role":"authenticated","email":"a@example.com"}`, in.id())
	s.Exec("create table public.answers (who uuid, role text, email text, aal jsonb)")
	s.Exec("grant insert on public.answers to authenticated")
	s.Exec(fmt.Sprintf(`begin; set local role authenticated; set local request.jwt.claims = '%s';
		insert into public.answers values (auth.uid(), auth.role(), auth.email(), auth.jwt()); commit`, claims))
	s.Exec(`begin; set local request.jwt.claims = ''; set local request.jwt.claim.sub = '';
		insert into public.answers values (auth.uid(), auth.role(), auth.email(), auth.jwt()); commit`)
	same(t, "claims", s.count("select count(*) from public.answers where who = $1 and role = 'authenticated' and email = 'a@example.com' and aal ->> 'sub' = $2", in.id(), in.id()), 1)
	same(t, "nobody", s.count("select count(*) from public.answers where who is null and role is null and email is null and aal is null"), 1)
}
