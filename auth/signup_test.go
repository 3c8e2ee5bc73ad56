package auth_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/sluice-dev/sluice/auth"
)

// spec: auth:16 auth:18 auth:44 auth:53
func TestSignUp(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	r := s.do("POST", "/signup", object{"email": "New.User@Example.com", "password": password, "data": object{"name": "New"}}).ok(200)
	check := func(r *reply) {
		t.Helper()
		now := s.clock.now()
		same(t, "token_type", r.str("token_type"), "bearer")
		same(t, "expires_in", r.at("expires_in"), any(3600.0))
		same(t, "expires_at", r.at("expires_at"), any(float64(now.Unix()+3600)))
		same(t, "Cache-Control", r.header.Get("Cache-Control"), "no-store")
		claims := r.claims()
		session := claims["session_id"].(string)
		same(t, "claims", claims, object{
			"iss": issuer, "sub": r.id(), "aud": "authenticated", "exp": float64(now.Unix() + 3600), "iat": float64(now.Unix()),
			"email": "new.user@example.com", "phone": "", "role": "authenticated", "aal": "aal1",
			"amr":           []any{object{"method": "password", "timestamp": float64(now.Unix())}},
			"session_id":    session,
			"is_anonymous":  false,
			"app_metadata":  object{"provider": "email", "providers": []any{"email"}},
			"user_metadata": object{"name": "New", "sub": r.id(), "email": "new.user@example.com", "email_verified": true, "phone_verified": false},
		})
		same(t, "session row", s.count("select count(*) from auth.sessions where id = $1 and user_id = $2 and aal = 'aal1'", session, r.id()), 1)
	}
	check(r)
	same(t, "sessions", s.count("select count(*) from auth.sessions"), 1)

	const at = "2026-05-01T12:00:00Z"
	data := object{"sub": r.id(), "email": "new.user@example.com", "email_verified": false, "phone_verified": false}
	same(t, "user", r.at("user").(object), object{
		"id": r.id(), "aud": "authenticated", "role": "authenticated", "email": "new.user@example.com", "phone": "",
		"email_confirmed_at": at, "confirmed_at": at, "last_sign_in_at": at, "created_at": at, "updated_at": at, "is_anonymous": false,
		"app_metadata":  object{"provider": "email", "providers": []any{"email"}},
		"user_metadata": object{"name": "New", "sub": r.id(), "email": "new.user@example.com", "email_verified": true, "phone_verified": false},
		"identities": []any{object{
			"identity_id": r.str("user.identities.0.identity_id"), "id": r.id(), "user_id": r.id(), "identity_data": data, "provider": "email",
			"last_sign_in_at": at, "created_at": at, "updated_at": at, "email": "new.user@example.com",
		}},
	})
	same(t, "stored hash", s.text("select left(encrypted_password, 7) from auth.users"), "$2a$04$") // the tests' cost
	same(t, "nil instance", s.count("select count(*) from auth.users where instance_id = '00000000-0000-0000-0000-000000000000'"), 1)

	s.clock.pass(time.Minute)
	check(s.login("NEW.user@example.COM", password).ok(200))
	same(t, "sessions", s.count("select count(*) from auth.sessions"), 2)
	same(t, "audit", s.text("select string_agg(payload ->> 'action', ' ' order by created_at, payload ->> 'action') from auth.audit_log_entries"), "login user_signedup login")
}

// spec: auth:19 auth-sec:6 auth-sec:43 auth-sec:44
func TestSubmittedDataGrantsNothing(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	r := s.do("POST", "/signup", object{
		"email": "a@example.com", "password": password, "role": "service_role", "aud": "admins", "id": uuid.NewString(),
		"app_metadata": object{"admin": true}, "is_super_admin": true, "email_confirm": true, "banned_until": nil,
		"data": object{
			"sub": "other", "email": "other@example.com", "email_verified": "yes", "phone_verified": true,
			"role": "service_role", "app_metadata": object{"admin": true}, "nothing": nil,
		},
	}).ok(200)
	same(t, "user_metadata", r.at("user.user_metadata"), any(object{
		"sub": r.id(), "email": "a@example.com", "email_verified": true, "phone_verified": false,
		"role": "service_role", "app_metadata": object{"admin": true}, "nothing": nil,
	}))
	same(t, "user_metadata in the token", r.claims()["user_metadata"], r.at("user.user_metadata"))
	same(t, "app_metadata", r.at("user.app_metadata"), any(object{"provider": "email", "providers": []any{"email"}}))
	same(t, "role", r.claims()["role"], any("authenticated"))
	same(t, "aud", r.claims()["aud"], any("authenticated"))
	for _, body := range []object{{"role": "service_role"}, {"aud": "x"}, {"is_anonymous": true}, {"data": object{"role": "x"}}} {
		s.do("PUT", "/user", body, as(r.access())).ok(200)
	}
	again := s.do("GET", "/user", nil, as(r.access())).ok(200)
	same(t, "role", again.str("role"), "authenticated")
	same(t, "aud", again.str("aud"), "authenticated")
}

// spec: auth:20
func TestSignUpTwice(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.signUp("a@example.com")
	for _, email := range []string{"a@example.com", "A@EXAMPLE.com"} {
		s.do("POST", "/signup", object{"email": email, "password": password}).refused(422, "user_already_exists", "User already registered")
	}
	same(t, "users", s.count("select count(*) from auth.users"), 1)

	// At the same time: one is first.
	var wg sync.WaitGroup
	status := make([]int, 8)
	for i := range status {
		wg.Go(func() {
			status[i] = s.do("POST", "/signup", object{"email": "b@example.com", "password": password}).status
		})
	}
	wg.Wait()
	made := 0
	for _, code := range status {
		switch code {
		case 200:
			made++
		case 422:
		default:
			t.Errorf("status %d", code)
		}
	}
	same(t, "users made", made, 1)
}

// spec: auth:21
func TestSignUpOfConfirmedAddressTellsNothing(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	confirming := s.serve(func(c *auth.Config) { c.EmailAutoconfirm = false })
	r := s.doOn(confirming, "POST", "/signup", object{"email": "a@example.com", "password": "something else", "data": object{"name": "x"}}).ok(200)
	if r.str("id") == in.id() {
		t.Error("the real id is shown")
	}
	same(t, "user", r.body, object{
		"id": r.str("id"), "aud": "authenticated", "role": "", "email": "a@example.com", "phone": "", "identities": []any{},
		"user_metadata": object{"name": "x"}, "app_metadata": object{"provider": "email", "providers": []any{"email"}},
		"confirmation_sent_at": "2026-05-01T12:00:00Z", "created_at": "2026-05-01T12:00:00Z", "updated_at": "2026-05-01T12:00:00Z",
		"is_anonymous": false,
	})
	same(t, "users", s.count("select count(*) from auth.users"), 1)
	s.login("a@example.com", password).ok(200)
}

// Sign-ups that need a mail fail and leave nothing where no mail can be sent.
func TestSignUpWithoutMail(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *auth.Config) { c.EmailAutoconfirm, c.Mailer = false, nil })
	s.do("POST", "/signup", object{"email": "a@example.com", "password": password}).
		refused(500, "unexpected_failure", "Error sending confirmation email")
	same(t, "users", s.count("select count(*) from auth.users"), 0)
	if !strings.Contains(s.log.String(), "no SMTP server is configured") {
		t.Error("the log does not say what is missing")
	}
}

// A user who was left unconfirmed is not handed to whoever signs up next.
func TestSignUpOfUnconfirmedAddress(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	made := s.do("POST", "/admin/users", object{"email": "a@example.com", "password": password, "app_metadata": object{"role": "owner"}}, admin).ok(200)
	s.do("POST", "/signup", object{"email": "a@example.com", "password": "not the same"}).refused(422, "user_already_exists", "User already registered")
	s.login("a@example.com", password).refused(400, "email_not_confirmed", "Email not confirmed")
	r := s.do("POST", "/signup", object{"email": "a@example.com", "password": password}).ok(200)
	same(t, "id", r.id(), made.str("id"))
	s.login("a@example.com", password).ok(200)
}

// spec: auth:24 auth:25 auth:26 auth:27 auth:28
func TestSignUpPassword(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	body := func(p any) object { return object{"email": "a@example.com", "password": p} }
	weak := object{"reasons": []any{"length"}}
	r := s.do("POST", "/signup", body("12345")).refused(422, "weak_password", "Password should be at least 6 characters.")
	same(t, "weak_password", r.at("weak_password"), any(weak))
	r = s.do("POST", "/signup", body("12345"), legacy).ok(422)
	same(t, "legacy", r.body, object{
		"code": 422.0, "error_code": "weak_password", "msg": "Password should be at least 6 characters.", "weak_password": weak,
	})
	for _, p := range []any{"", nil} {
		s.do("POST", "/signup", body(p)).refused(400, "validation_failed", "Signup requires a valid password")
	}
	const tooLong = "Password cannot be longer than 72 characters"
	s.do("POST", "/signup", body(strings.Repeat("x", 73))).refused(400, "validation_failed", tooLong)
	s.do("POST", "/signup", body(strings.Repeat("ü", 37))).refused(400, "validation_failed", tooLong)
	s.do("POST", "/signup", body(strings.Repeat("ü", 36))).ok(200)
	s.login("a@example.com", strings.Repeat("ü", 36)).ok(200)
	s.login("a@example.com", strings.Repeat("ü", 36)+"more").ok(200) // the hash reads 72 bytes
	both := body(password)
	both["phone"] = "+4912345678"
	s.do("POST", "/signup", both).refused(400, "validation_failed", "Only an email address or phone number should be provided on signup.")

	strict := s.serve(func(c *auth.Config) {
		c.MinPasswordLength, c.PasswordRequirements = 10, "lower_upper_letters_digits_symbols"
	})
	const characters = "Password should contain at least one character of each: abcdefghijklmnopqrstuvwxyz, ABCDEFGHIJKLMNOPQRSTUVWXYZ, " +
		"0123456789, !@#$%^&*()_+-=[]{};'\\:\"|<>?,./`~."
	r = s.doOn(strict, "POST", "/signup", body("aB3456789012")).refused(422, "weak_password", characters)
	same(t, "reasons", r.at("weak_password.reasons"), any([]any{"characters"}))
	r = s.doOn(strict, "POST", "/signup", body("aaaaaa")).refused(422, "weak_password", "Password should be at least 10 characters. "+characters)
	same(t, "reasons", r.at("weak_password.reasons"), any([]any{"length", "characters"}))
	s.doOn(strict, "POST", "/signup", object{"email": "b@example.com", "password": "aB3456789!"}).ok(200)
}

// spec: auth:29
func TestEmailForm(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"a@b", "a+b@ex-ample.co", "A.B@c.d", "!#$%&'*+/=?^_{|}~`-@x.y", strings.Repeat("x", 243) + "@example.com"} {
		if got, err := auth.EmailOf(good); err != nil || got != strings.ToLower(good) {
			t.Errorf("%q: %q, %v", good, got, err)
		}
	}
	for _, bad := range []string{
		"", "x", "@b", "a@", "a b@c.d", "ü@example.com", "a@exämple.com", "a@@b.c", "a@b.c ", " a@b.c", `"a b"@c.d`, "a@-b.c", "a@b-.c", "a@b..c",
		"a@.b", "a@b.", "a@" + strings.Repeat("x", 64) + ".de", strings.Repeat("x", 244) + "@example.com", "a@b.c\x00", "a@b\n.c", "a(b)@c.d",
	} {
		if got, err := auth.EmailOf(bad); err == nil {
			t.Errorf("%q is taken as %q", bad, got)
		}
	}
	s := start(t, nil)
	const text = "Unable to validate email address: invalid format"
	for _, bad := range []string{"x", "a b@c.d", "ü@example.com", "a@@b.c", "a@b.c "} {
		s.do("POST", "/signup", object{"email": bad, "password": password}).refused(400, "validation_failed", text)
	}
	s.do("POST", "/signup", object{"email": strings.Repeat("x", 244) + "@example.com", "password": password}).
		refused(400, "validation_failed", "An email address is too long")
	s.signUp("a@b")
	s.signUp("a+b@ex-ample.co")
}

func TestPhoneForm(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"+49 123 45678": "4912345678", "4912345678": "4912345678", "12": "12", "123456789012345": "123456789012345",
		"": "", "+": "", "1": "", "0123": "", "++49123": "", "1234567890123456": "", "49-123": "", "+49a": "", "٤٩١٢": "",
	} {
		if got, err := auth.PhoneOf(in); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
}

func TestPKCEParameters(t *testing.T) {
	t.Parallel()
	good := strings.Repeat("aB3-._~", 7)
	for _, c := range []struct {
		method, challenge string
		ok                bool
	}{
		{"", "", true},
		{"s256", good, true},
		{"S256", good, true},
		{"plain", good, true},
		{"PLAIN", strings.Repeat("x", 128), true},
		{"s256", "", false},
		{"", good, false},
		{"sha", good, false},
		{"s256", strings.Repeat("x", 42), false},
		{"s256", strings.Repeat("x", 129), false},
		{"s256", good + "=", false},
	} {
		if err := auth.CheckPKCE(c.method, c.challenge); (err == nil) != c.ok {
			t.Errorf("%q, %q: %v", c.method, c.challenge, err)
		}
	}
}

// spec: auth:31
func TestEmailProviderOff(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *auth.Config) { c.EnableEmail = false })
	s.do("POST", "/signup", object{"email": "a@example.com", "password": password}).refused(400, "email_provider_disabled", "Email signups are disabled")
	s.login("a@example.com", password).refused(422, "email_provider_disabled", "Email logins are disabled")
	s.do("POST", "/signup", object{"phone": "+4912345678", "password": password}).refused(400, "phone_provider_disabled", "Phone signups are disabled")
	s.do("POST", "/token?grant_type=password", object{"phone": "+4912345678", "password": password}).
		refused(422, "phone_provider_disabled", "Phone logins are disabled")
}

func TestSignupsDisabled(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *auth.Config) { c.EnableSignup, c.EnableAnonymous = false, true })
	const text = "Signups not allowed for this instance"
	s.do("POST", "/signup", object{"email": "a@example.com", "password": password}).refused(422, "signup_disabled", text)
	s.do("POST", "/signup", object{}).refused(422, "signup_disabled", text)
	s.do("POST", "/admin/users", object{"email": "a@example.com", "password": password, "email_confirm": true}, admin).ok(200)
	s.login("a@example.com", password).ok(200)
}

func TestPhoneSignUp(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *auth.Config) { c.EnablePhone, c.PhoneAutoconfirm = true, true })
	body := object{"phone": "+49 123 45678", "password": password}
	r := s.do("POST", "/signup", body).ok(200)
	same(t, "phone", r.str("user.phone"), "4912345678")
	same(t, "email", r.str("user.email"), "")
	same(t, "identity", r.str("user.identities.0.provider"), "phone")
	s.do("POST", "/token?grant_type=password", body).ok(200)
	s.do("POST", "/signup", body).refused(422, "user_already_exists", "User already registered")
	s.do("POST", "/signup", object{"phone": "x", "password": password}).refused(400, "validation_failed", "Invalid phone number format (E.164 required)")
	pkce := object{"phone": "+4912345679", "password": password, "code_challenge_method": "s256", "code_challenge": strings.Repeat("x", 43)}
	s.do("POST", "/signup", pkce).refused(400, "validation_failed", "PKCE not supported for phone signups")
	mute := s.serve(func(c *auth.Config) { c.EnablePhone = true })
	s.doOn(mute, "POST", "/signup", object{"phone": "+4912345679", "password": password}).refused(500, "unexpected_failure", "Unable to get SMS provider")
}

// profiles is the trigger that most projects have.
const profiles = `
create table public.profiles (id uuid primary key references auth.users (id) on delete cascade, email text, name text, seen text);
create function public.handle_new_user() returns trigger language plpgsql security definer set search_path = '' as $$
begin
  insert into public.profiles values (new.id, new.email, new.raw_user_meta_data ->> 'name',
    concat_ws('|', coalesce(new.role, ''), new.email_confirmed_at is null, new.raw_user_meta_data,
      (select count(*) from auth.identities where user_id = new.id), current_user));
  return new;
end $$;
create trigger on_auth_user_created after insert on auth.users for each row execute function public.handle_new_user();`

// spec: auth:34 auth:143
func TestProfileTrigger(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *auth.Config) { c.EnableAnonymous = true })
	s.ExecAs("postgres", profiles) // as a migration runs
	in := s.do("POST", "/signup", object{"email": "a@example.com", "password": password, "data": object{"name": "Ann"}}).ok(200)
	same(t, "profile", s.text("select email || ' ' || name from public.profiles where id = $1", in.id()), "a@example.com Ann")
	// The order that triggers are written against.
	same(t, "what the trigger saw", s.text("select seen from public.profiles where id = $1", in.id()), `|t|{"name": "Ann"}|0|postgres`)

	made := s.do("POST", "/admin/users", object{"email": "b@example.com", "user_metadata": object{"name": "Bob"}}, admin).ok(200)
	same(t, "admin's user", s.count("select count(*) from public.profiles where id = $1 and name = 'Bob'", made.str("id")), 1)
	anonymous := s.do("POST", "/signup", object{"data": object{"name": "Nobody"}}).ok(200)
	same(t, "anonymous user", s.count("select count(*) from public.profiles where id = $1 and name = 'Nobody'", anonymous.id()), 1)
	// The other ways in.
	s.do("POST", "/otp", object{"email": "c@example.com", "data": object{"name": "Cy"}}).ok(200)
	s.do("POST", "/invite", object{"email": "d@example.com", "data": object{"name": "Di"}}, admin).ok(200)
	s.do("POST", "/admin/generate_link", object{"type": "signup", "email": "e@example.com", "password": password, "data": object{"name": "Ed"}}, admin).ok(200)
	same(t, "others", s.count("select count(*) from public.profiles where name in ('Cy', 'Di', 'Ed')"), 3)

	s.do("DELETE", "/admin/users/"+in.id(), nil, admin).ok(200)
	same(t, "profile after delete", s.count("select count(*) from public.profiles where id = $1", in.id()), 0)
}

// spec: auth:32 auth-sec:48
func TestTriggerFails(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *auth.Config) { c.EnableAnonymous = true })
	s.ExecAs("postgres", `
		create function public.refuse() returns trigger language plpgsql as $$
		begin raise exception 'no place left' using hint = 'come back later'; end $$;
		create trigger refuse before insert on auth.users for each row execute function public.refuse();`)
	const text = "Database error saving new user"
	body := object{"email": "a@example.com", "password": password}
	r := s.do("POST", "/signup", body).refused(500, "unexpected_failure", text)
	if strings.Contains(r.text, "no place") {
		t.Errorf("the database's text is shown: %s", r.text)
	}
	r = s.do("POST", "/signup", body, legacy).ok(500)
	same(t, "legacy", r.body, object{"code": "P0001", "message": "no place left", "hint": "come back later"})
	s.do("POST", "/signup", object{}).refused(500, "unexpected_failure", text)
	s.do("POST", "/admin/users", body, admin).refused(500, "unexpected_failure", text)
	for _, table := range []string{"users", "identities", "sessions", "refresh_tokens", "audit_log_entries"} {
		same(t, table, s.count("select count(*) from auth."+table), 0)
	}
	if log := s.log.String(); !strings.Contains(log, "no place left") {
		t.Errorf("the log lacks the cause:\n%s", log)
	}
}

// A trigger that may not write is the usual failure: its function runs as
// supabase_auth_admin.
func TestTriggerWithoutRights(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.ExecAs("postgres", `create table public.profiles (id uuid);
		create function public.add() returns trigger language plpgsql as $$ begin insert into public.profiles values (new.id); return new; end $$;
		create trigger add after insert on auth.users for each row execute function public.add();`)
	for _, o := range []option{with("X", "y"), legacy} {
		r := s.do("POST", "/signup", object{"email": "a@example.com", "password": password}, o).ok(500)
		if !strings.Contains(r.text, "Database error saving new user") {
			t.Error(r.text)
		}
	}
}

// spec: auth:33
func TestTriggerRaisesStatus(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.ExecAs("postgres", `
		create function public.refuse() returns trigger language plpgsql as $$
		begin raise sqlstate 'PT403' using message = 'members only', hint = 'ask a member', detail = 'closed'; end $$;
		create trigger refuse before insert on auth.users for each row execute function public.refuse();`)
	body := object{"email": "a@example.com", "password": password}
	r := s.do("POST", "/signup", body, legacy).ok(403)
	same(t, "legacy", r.body, object{"code": "PT403", "message": "members only", "hint": "ask a member", "detail": "closed"})
	s.do("POST", "/signup", body).refused(500, "unexpected_failure", "Database error saving new user")
}
