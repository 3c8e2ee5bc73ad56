package auth_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-dev/sluice/auth"
)

func TestUserMetadata(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.do("POST", "/signup", object{"email": "a@example.com", "password": password, "data": object{"keep": 1, "drop": 2, "deep": object{"a": 1}}}).ok(200)
	r := s.do("PUT", "/user", object{"data": object{"drop": nil, "deep": object{"b": 2}, "new": "x"}}, as(in.access())).ok(200)
	meta := r.at("user_metadata").(object)
	for key, want := range map[string]any{"keep": 1.0, "drop": nil, "deep": object{"b": 2.0}, "new": "x", "email": "a@example.com"} {
		same(t, key, meta[key], want)
	}
	if _, found := meta["drop"]; found {
		t.Error("null did not delete the key")
	}
	got := s.do("GET", "/user", nil, as(in.access())).ok(200)
	same(t, "GET /user", got.body, r.body)
	s.do("PUT", "/user", object{}, as(in.access())).ok(200)
	s.do("PUT", "/user", `{"password":null,"email":null,"data":null}`, as(in.access())).ok(200)
}

// Two clients that change metadata at once do not undo each other.
func TestUserMetadataAtOnce(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	var wg sync.WaitGroup
	for _, key := range []string{"a", "b", "c", "d", "e", "f"} {
		wg.Go(func() { s.do("PUT", "/user", object{"data": object{key: 1}}, as(in.access())).ok(200) })
	}
	wg.Wait()
	meta := s.do("GET", "/user", nil, as(in.access())).ok(200).at("user_metadata").(object)
	for _, key := range []string{"a", "b", "c", "d", "e", "f"} {
		if meta[key] != 1.0 {
			t.Errorf("key %s is lost: %v", key, meta)
		}
	}
}

// spec: auth:73 auth:74 auth-sec:16
func TestPasswordChange(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	other := s.login("a@example.com", password).ok(200)
	s.Exec(`insert into auth.one_time_tokens (id, user_id, token_type, token_hash, relates_to) values (gen_random_uuid(), $1, 'recovery_token', 'x', 'a@example.com')`, in.id())
	s.Exec("update auth.users set recovery_token = 'abc' where id = $1", in.id())
	me := as(in.access())

	s.do("PUT", "/user", object{"password": password}, me).refused(422, "same_password", "New password should be different from the old password.")
	r := s.do("PUT", "/user", object{"password": "12345"}, me).refused(422, "weak_password", "Password should be at least 6 characters.")
	same(t, "reasons", r.at("weak_password.reasons"), any([]any{"length"}))
	s.do("PUT", "/user", object{"password": ""}, me).ok(422)
	s.do("PUT", "/user", object{"password": strings.Repeat("x", 73)}, me).refused(400, "validation_failed", "Password cannot be longer than 72 characters")
	s.do("GET", "/user", nil, as(other.access())).ok(200)

	s.do("PUT", "/user", object{"password": "a new password"}, me).ok(200)
	s.login("a@example.com", password).refused(400, "invalid_credentials", "Invalid login credentials")
	s.login("a@example.com", "a new password").ok(200)
	s.do("GET", "/user", nil, as(other.access())).refused(403, "session_not_found", "Session from session_id claim in JWT does not exist")
	s.renew(other.refresh()).refused(400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found")
	s.do("GET", "/user", nil, me).ok(200)
	s.renew(in.refresh()).ok(200)
	same(t, "pending tokens", s.count("select count(*) from auth.one_time_tokens"), 0)
	same(t, "recovery_token", s.text("select recovery_token from auth.users"), "")
}

// A sign-in with the old password that runs beside the change leaves no session.
func TestPasswordChangeAgainstSignIn(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			if r := s.login("a@example.com", password); r.status != 200 && r.status != 400 {
				t.Errorf("status %d: %s", r.status, r.text)
			}
		})
	}
	wg.Go(func() { s.do("PUT", "/user", object{"password": "a new password"}, as(in.access())).ok(200) })
	wg.Wait()
	same(t, "sessions", s.count("select count(*) from auth.sessions"), 1)
}

// spec: auth:76 auth-sec:17
func TestCurrentPassword(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *auth.Config) { c.RequireCurrentPassword = true })
	in := s.signUp("a@example.com")
	const text = "Current password required when setting new password."
	s.do("PUT", "/user", object{"password": "new password 1"}, as(in.access())).refused(400, "current_password_required", text)
	s.do("PUT", "/user", object{"password": "new password 1", "current_password": "x"}, as(in.access())).refused(400, "current_password_invalid", text)
	s.do("PUT", "/user", object{"password": "new password 1", "current_password": password}, as(in.access())).ok(200)
	for i, method := range []string{"otp", "magiclink", "recovery"} {
		s.Exec("update auth.mfa_amr_claims set authentication_method = $1", method)
		s.do("PUT", "/user", object{"password": "forgotten " + string(rune('a'+i))}, as(in.access())).ok(200)
	}
}

// spec: auth:77
func TestAppMetadataIsForAdmins(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	for _, value := range []object{{"admin": true}, {}} {
		s.do("PUT", "/user", object{"app_metadata": value, "data": object{"a": 1}}, as(in.access())).
			refused(403, "not_admin", "Updating app_metadata requires admin privileges")
	}
	s.do("PUT", "/user", `{"app_metadata":null}`, as(in.access())).ok(200)
}

// spec: auth:78
func TestTakenAddresses(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *auth.Config) { c.EnablePhone, c.PhoneAutoconfirm = true, true })
	in := s.signUp("a@example.com")
	s.do("POST", "/admin/users", object{"email": "b@example.com", "phone": "+49123456"}, admin).ok(200)
	s.do("PUT", "/user", object{"email": "B@example.com"}, as(in.access())).
		refused(422, "email_exists", "A user with this email address has already been registered")
	s.do("PUT", "/user", object{"phone": "+49 123456"}, as(in.access())).
		refused(422, "phone_exists", "A user with this phone number has already been registered")
	s.do("PUT", "/user", object{"email": "a@example.com"}, as(in.access())).ok(200) // no change
	s.do("PUT", "/user", object{"email": "no address"}, as(in.access())).refused(400, "validation_failed", "Unable to validate email address: invalid format")
	r := s.do("PUT", "/user", object{"phone": "+49 777"}, as(in.access())).ok(200)
	same(t, "phone", r.str("phone"), "49777")
	same(t, "identities", len(r.at("identities").([]any)), 2)
	same(t, "providers", r.at("app_metadata.providers"), any([]any{"email", "phone"}))
}

// spec: auth-sec:38
func TestSecondFactorGuardsCredentials(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	s.Exec(`insert into auth.mfa_factors (id, user_id, factor_type, status, created_at, updated_at, secret, friendly_name)
		values ('5ec0dfac-0000-4000-8000-000000000001', $1, 'totp', 'verified', $2, $2, 'top secret', 'phone app')`, in.id(), s.clock.now())
	const text = "AAL2 session is required to update email or password when MFA is enabled."
	s.do("PUT", "/user", object{"password": "a new password"}, as(in.access())).refused(401, "insufficient_aal", text)
	s.do("PUT", "/user", object{"email": "b@example.com"}, as(in.access())).refused(401, "insufficient_aal", text)
	r := s.do("PUT", "/user", object{"data": object{"a": 1}}, as(in.access())).ok(200)
	same(t, "factors", r.at("factors"), any([]any{object{
		"id": "5ec0dfac-0000-4000-8000-000000000001", "created_at": "2026-05-01T12:00:00Z", "updated_at": "2026-05-01T12:00:00Z",
		"status": "verified", "friendly_name": "phone app", "factor_type": "totp", "phone": "", "last_challenged_at": nil,
	}}))
	if strings.Contains(r.text, "top secret") {
		t.Error("the factor's secret is shown")
	}
	s.Exec("update auth.sessions set aal = 'aal2'")
	s.do("PUT", "/user", object{"password": "a new password"}, as(in.access())).ok(200)
}

func TestSSOUserIsManagedElsewhere(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	s.Exec("update auth.users set is_sso_user = true")
	for _, body := range []object{{"password": "a new password"}, {"email": "b@example.com"}, {"nonce": "1"}} {
		s.do("PUT", "/user", body, as(in.access())).refused(422, "user_sso_managed", "Updating email, phone, password of a SSO account only possible via SSO")
	}
	s.do("PUT", "/user", object{"data": object{"a": 1}}, as(in.access())).ok(200)
	s.login("a@example.com", password).ok(400)
}

// spec: auth:82 auth:85
func TestLogout(t *testing.T) {
	t.Parallel()
	bothVersions(t, func(t *testing.T, s *stack) {
		mine, other, stranger := s.signUp("a@example.com"), s.login("a@example.com", password).ok(200), s.signUp("b@example.com")
		alive := func(want bool, ins ...*reply) {
			t.Helper()
			for _, in := range ins {
				if got := s.do("GET", "/user", nil, as(in.access())).status == 200; got != want {
					t.Errorf("alive: %v, want %v", got, want)
				}
			}
		}
		r := s.do("POST", "/logout?scope=local", nil, as(mine.access())).ok(204)
		same(t, "body", r.text, "")
		alive(false, mine)
		alive(true, other, stranger)
		s.renew(mine.refresh()).refused(400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found")
		mine = s.login("a@example.com", password).ok(200)
		s.do("POST", "/logout?scope=others", object{}, as(mine.access())).ok(204)
		alive(false, other)
		alive(true, mine, stranger)
		other = s.login("a@example.com", password).ok(200)
		s.do("POST", "/logout", nil, as(mine.access())).ok(204)
		alive(false, mine, other)
		alive(true, stranger)
		s.renew(other.refresh()).refused(400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found")
		s.do("POST", "/logout?scope=global", nil, as(stranger.access())).ok(204)
		same(t, "rows", s.count("select (select count(*) from auth.sessions) + (select count(*) from auth.refresh_tokens) + (select count(*) from auth.mfa_amr_claims)"), 0)
	})
}

// spec: auth:83 auth:84 auth-sec:56
func TestLogoutRefusals(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	s.do("POST", "/logout?scope=x", nil, as(in.access())).refused(400, "validation_failed", `Unsupported logout scope "x"`)
	s.do("POST", "/logout", nil, with("Authorization", "")).refused(401, "no_authorization", "This endpoint requires a valid Bearer token")
	s.do("POST", "/logout", nil).refused(403, "bad_jwt", "invalid claim: missing sub claim")
	s.do("POST", "/logout", nil, as(in.access())).ok(204)
	s.do("POST", "/logout", nil, as(in.access())).refused(403, "session_not_found", "Session from session_id claim in JWT does not exist")
}

// What happens between the check of a request and its transaction counts.
func TestUserChangesMeanwhile(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		sql  string
		body object
		code string
	}{
		"signed out":       {"delete from auth.sessions", object{"data": object{"late": 1}}, "session_not_found"},
		"another password": {"update auth.users set encrypted_password = 'x'", object{"password": "a new password"}, "conflict"},
		"deleted":          {"delete from auth.users", object{"data": object{"late": 1}}, "user_not_found"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, nil)
			in := s.signUp("a@example.com")
			tx, err := s.Admin().Begin(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Rollback(context.Background()) //nolint:errcheck // committed by then
			if _, err := tx.Exec(t.Context(), "select from auth.users for update"); err != nil {
				t.Fatal(err)
			}
			answer := make(chan *reply, 1)
			go func() { answer <- s.do("PUT", "/user", c.body, as(in.access())) }()
			for s.count("select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'") == 0 {
				select {
				case r := <-answer:
					t.Fatalf("not waited for the lock: %s", r.text)
				default:
				}
			}
			if _, err := tx.Exec(t.Context(), c.sql); err != nil {
				t.Fatal(err)
			}
			if err := tx.Commit(t.Context()); err != nil {
				t.Fatal(err)
			}
			r := <-answer
			same(t, "code", r.at("code"), any(c.code))
			same(t, "late writes", s.count("select count(*) from auth.users where raw_user_meta_data ? 'late' or encrypted_password like '$2a$%' and $1", c.code == "conflict"), 0)
		})
	}
}
