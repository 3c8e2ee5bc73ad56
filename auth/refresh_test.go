package auth_test

import (
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice/auth"
)

// bothVersions runs a test with either format of new refresh tokens.
func bothVersions(t *testing.T, test func(t *testing.T, s *stack)) {
	for _, version := range []int{1, 2} {
		t.Run(fmt.Sprint("version ", version), func(t *testing.T) {
			t.Parallel()
			test(t, start(t, func(c *auth.Config) { c.RefreshTokenVersion = version }))
		})
	}
}

const usedText = "Invalid Refresh Token: Already Used"

// spec: auth:59 auth:70
func TestRefresh(t *testing.T) {
	t.Parallel()
	bothVersions(t, func(t *testing.T, s *stack) {
		in := s.signUp("a@example.com")
		s.clock.pass(10 * time.Minute)
		from := func(r *http.Request) { r.RemoteAddr = "192.0.2.77:1"; r.Header.Set("User-Agent", "another") }
		r := s.renew(in.refresh(), from).ok(200)
		if r.refresh() == in.refresh() || r.access() == in.access() {
			t.Error("tokens are not new")
		}
		for _, claim := range []string{"session_id", "amr", "aal", "sub", "app_metadata", "user_metadata"} {
			same(t, claim, r.claims()[claim], in.claims()[claim])
		}
		same(t, "session", s.text("select refreshed_at || ' ' || user_agent || ' ' || host(ip) from auth.sessions"), "2026-05-01 12:10:00 another 192.0.2.77")
		same(t, "sessions", s.count("select count(*) from auth.sessions"), 1)
		s.do("GET", "/user", nil, as(r.access())).ok(200)
		third := s.renew(r.refresh()).ok(200)
		s.clock.pass(time.Minute)
		s.renew(in.refresh()).refused(400, "refresh_token_already_used", usedText)
		s.renew(third.refresh()).ok(400)
	})
}

// spec: auth:60 auth-sec:37
func TestParallelRefresh(t *testing.T) {
	t.Parallel()
	bothVersions(t, func(t *testing.T, s *stack) {
		in := s.signUp("a@example.com")
		same(t, "one new token", len(parallelRefresh(t, s, in.refresh())), 1)
		same(t, "sessions", s.count("select count(*) from auth.sessions"), 1)
		if s.count("select count(*) from auth.refresh_tokens where not revoked") > 1 {
			t.Error("the family is forked")
		}
	})
}

// parallelRefresh presents one token 20 times at once and returns what came back.
func parallelRefresh(t *testing.T, s *stack, refresh string) map[string]bool {
	t.Helper()
	tokens := make([]*reply, 20)
	var wg sync.WaitGroup
	for i := range tokens {
		wg.Go(func() { tokens[i] = s.renew(refresh) })
	}
	wg.Wait()
	got := map[string]bool{}
	for _, r := range tokens {
		if r.status != 200 {
			t.Fatalf("status %d: %s", r.status, r.text)
		}
		got[r.refresh()] = true
	}
	if got[refresh] {
		t.Error("the old token came back")
	}
	return got
}

// spec: auth:61
func TestAnswerWasLost(t *testing.T) {
	t.Parallel()
	bothVersions(t, func(t *testing.T, s *stack) {
		in := s.signUp("a@example.com")
		second := s.renew(in.refresh()).ok(200)
		s.clock.pass(time.Hour)
		again := s.renew(in.refresh()).ok(200)
		same(t, "current token", again.refresh(), second.refresh())
		s.renew(second.refresh()).ok(200)
	})
}

// spec: auth:62 auth:63 auth-sec:36
func TestReuse(t *testing.T) {
	t.Parallel()
	bothVersions(t, func(t *testing.T, s *stack) {
		first := s.signUp("a@example.com")
		other := s.login("a@example.com", password).ok(200)
		second := s.renew(first.refresh()).ok(200)
		third := s.renew(second.refresh()).ok(200)
		s.clock.pass(9 * time.Second)
		same(t, "older token within the interval", s.renew(first.refresh()).ok(200).refresh(), third.refresh())
		s.clock.pass(2 * time.Second)
		s.renew(first.refresh()).refused(400, "refresh_token_already_used", usedText)
		if r := s.renew(third.refresh()).ok(400); r.str("code") != "refresh_token_not_found" {
			t.Errorf("newest token after reuse: %s", r.text)
		}
		s.do("GET", "/user", nil, as(third.access())).refused(403, "session_not_found", "Session from session_id claim in JWT does not exist")
		s.renew(other.refresh()).ok(200) // another session is not concerned
		same(t, "audit", s.text("select payload -> 'traits' ->> 'session_id' from auth.audit_log_entries where payload ->> 'action' = 'token_revoked'"),
			first.claims()["session_id"].(string))
	})
}

func TestReuseWithoutRotation(t *testing.T) {
	t.Parallel()
	for _, version := range []int{1, 2} {
		s := start(t, func(c *auth.Config) {
			c.RefreshTokenVersion, c.RefreshTokenRotation, c.ReuseInterval = version, false, 0
		})
		first := s.signUp("a@example.com")
		second := s.renew(first.refresh()).ok(200)
		third := s.renew(second.refresh()).ok(200)
		s.clock.pass(time.Second)
		s.renew(first.refresh()).refused(400, "refresh_token_already_used", usedText)
		s.renew(third.refresh()).ok(200)
	}
}

// spec: auth:64 auth:65 auth-sec:2
func TestForgedRefreshTokens(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	const form, notFound = "Refresh token is not valid", "Invalid Refresh Token: Refresh Token Not Found"
	for _, tok := range []string{"", "short", "elevenchars", "UPPERCASE123", "twelve chars", strings.Repeat("x", 256), strings.Repeat("A", 51), strings.Repeat("!", 30)} {
		s.renew(tok).refused(400, "validation_failed", form)
	}
	s.do("POST", "/token?grant_type=refresh_token", object{}).refused(400, "validation_failed", form)
	s.renew("abcdefghij12").refused(400, "refresh_token_not_found", notFound)
	s.renew("an-older_22-character1").refused(400, "refresh_token_not_found", notFound)

	session := uuid.MustParse(in.claims()["session_id"].(string))
	key := s.text("select refresh_token_hmac_key from auth.sessions")
	same(t, "the token is what the key makes", in.refresh(), auth.MakeRefreshToken(key, session, 0))
	raw, err := base64.RawURLEncoding.DecodeString(in.refresh())
	if err != nil {
		t.Fatal(err)
	}
	raw[len(raw)-1] ^= 1
	s.renew(base64.RawURLEncoding.EncodeToString(raw)).refused(400, "validation_failed", form)
	s.renew(auth.MakeRefreshToken(auth.NewTokenKey(), session, 0)).refused(400, "refresh_token_not_found", notFound)
	s.renew(auth.MakeRefreshToken(key, uuid.New(), 0)).refused(400, "refresh_token_not_found", notFound)
	s.renew(auth.MakeRefreshToken(key, session, 1)).refused(400, "validation_failed", "Invalid Refresh Token: Not Issued By This Server")
	s.renew(in.refresh()).ok(200) // nothing of this has harmed the session

	// A session without a key has no tokens of version 2.
	s.Exec("update auth.sessions set refresh_token_hmac_key = null")
	s.renew(auth.MakeRefreshToken("", session, 1)).refused(400, "refresh_token_not_found", notFound)
}

// spec: auth:66
func TestUpgradeOfWords(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	old := s.serve(func(c *auth.Config) { c.RefreshTokenVersion = 1 })
	in := s.doOn(old, "POST", "/signup", object{"email": "a@example.com", "password": password}).ok(200)
	if n := len(in.refresh()); n != 12 {
		t.Fatalf("a word has %d characters", n)
	}
	got := parallelRefresh(t, s, in.refresh())
	same(t, "one new token", len(got), 1)
	for tok := range got {
		if len(tok) < 51 {
			t.Fatalf("the token is no new one: %d characters", len(tok))
		}
		s.clock.pass(time.Hour)
		same(t, "lost answer", s.renew(in.refresh()).ok(200).refresh(), tok)
		next := s.renew(tok).ok(200)
		s.clock.pass(time.Hour)
		s.renew(in.refresh()).refused(400, "refresh_token_already_used", usedText)
		s.renew(next.refresh()).ok(400)
	}
	// Back on version 1, a session with a key keeps it.
	in = s.login("a@example.com", password).ok(200)
	r := s.doOn(old, "POST", "/token?grant_type=refresh_token", object{"refresh_token": in.refresh()}).ok(200)
	if len(r.refresh()) < 51 {
		t.Error("a session of version 2 got a word")
	}
}

// Words of before sessions cannot be refreshed.
func TestWordWithoutSession(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	s.Exec("insert into auth.refresh_tokens (token, user_id, revoked) values ('abcdefghijkl', $1, false)", in.id())
	s.renew("abcdefghijkl").refused(400, "session_not_found", "Invalid Refresh Token: No Valid Session Found")
}

// spec: auth:67
func TestSessionsExpire(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *auth.Config) {
		c.SessionTimebox, c.SessionInactivity = 3*time.Hour, 80*time.Minute
		c.JWTExpiry = 12 * time.Hour
	})
	idle := s.signUp("a@example.com")
	busy := s.login("a@example.com", password).ok(200)
	for range 2 {
		s.clock.pass(79 * time.Minute)
		busy = s.renew(busy.refresh()).ok(200)
	}
	s.renew(idle.refresh()).refused(400, "session_expired", "Invalid Refresh Token: Session Expired (Inactivity)")
	s.clock.pass(22 * time.Minute)
	s.renew(busy.refresh()).refused(400, "session_expired", "Invalid Refresh Token: Session Expired")
	s.do("GET", "/user", nil, as(busy.access())).ok(200)
	s.do("GET", "/user", nil, as(idle.access())).ok(200)

	fresh := s.login("a@example.com", password).ok(200)
	s.Exec("update auth.sessions set not_after = $1 where id = $2", s.clock.now(), fresh.claims()["session_id"])
	s.renew(fresh.refresh()).refused(400, "session_expired", "Invalid Refresh Token: Session Expired")
}

// spec: auth:68
func TestSingleSession(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *auth.Config) { c.SingleSession = true })
	first := s.signUp("a@example.com")
	s.clock.pass(time.Minute)
	second := s.login("a@example.com", password).ok(200)
	s.Exec("update auth.sessions set tag = 'phone' where id = $1", second.claims()["session_id"])
	first = s.renew(first.refresh()).ok(200)
	s.clock.pass(time.Minute)
	third := s.login("a@example.com", password).ok(200)
	s.renew(first.refresh()).refused(400, "session_expired", "Invalid Refresh Token: Session Expired (Revoked by Newer Login)")
	s.renew(third.refresh()).ok(200)
	s.renew(second.refresh()).ok(200)
}

// spec: auth:69
func TestRefreshOfBanned(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	s.do("PUT", "/admin/users/"+in.id(), object{"ban_duration": "1h"}, admin).ok(200)
	s.renew(in.refresh()).refused(400, "user_banned", "Invalid Refresh Token: User Banned")
}

// spec: auth:57
func TestNextTokenCarriesChanges(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	s.do("PUT", "/admin/users/"+in.id(), object{"role": "editor", "app_metadata": object{"team": "x"}, "user_metadata": object{"name": "y"}}, admin).ok(200)
	claims := s.renew(in.refresh()).ok(200).claims()
	same(t, "role", claims["role"], any("editor"))
	same(t, "app_metadata", claims["app_metadata"].(object)["team"], any("x"))
	same(t, "user_metadata", claims["user_metadata"].(object)["name"], any("y"))
	same(t, "old role", in.claims()["role"], any("authenticated"))
}

// spec: auth:71
func TestRefreshOfOAuthClient(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	s.Exec(`with c as (insert into auth.oauth_clients (id, registration_type, redirect_uris, grant_types) values (gen_random_uuid(), 'manual', '', '') returning id)
		update auth.sessions set oauth_client_id = c.id from c`)
	same(t, "code", s.renew(in.refresh()).ok(400).str("code"), "invalid_client")
}

// A session whose second factor was proved keeps its level.
func TestLevelStays(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	s.Exec("insert into auth.mfa_amr_claims (id, session_id, authentication_method, created_at, updated_at) values (gen_random_uuid(), $1, 'totp', $2, $2)",
		in.claims()["session_id"], s.clock.now().Add(time.Minute))
	claims := s.renew(in.refresh()).ok(200).claims()
	same(t, "aal", claims["aal"], any("aal2"))
	same(t, "newest method", claims["amr"].([]any)[0].(object)["method"], any("totp"))
	same(t, "stored", s.text("select aal::text from auth.sessions"), "aal2")
}

// While another transaction holds the session, refreshes wait without a
// connection and go on when it is free.
func TestRefreshWaitsForTheLock(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	tx, err := s.Admin().Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "select from auth.sessions for update"); err != nil {
		t.Fatal(err)
	}
	const waiting = 12 // more than the pool has connections
	answers := make(chan *reply, waiting)
	for range waiting {
		go func() { answers <- s.renew(in.refresh()) }()
	}
	// Others are served meanwhile.
	for range 5 {
		s.login("a@example.com", password).ok(200)
	}
	if err := tx.Commit(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range waiting {
		(<-answers).ok(200)
	}
}

func TestRefreshGivesUp(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.server.WaitForLocks(50 * time.Millisecond)
	in := s.signUp("a@example.com")
	err := pgx.BeginFunc(t.Context(), s.Admin(), func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "select from auth.sessions for update"); err != nil {
			return err
		}
		s.renew(in.refresh()).refused(409, "conflict", "Too many concurrent token refresh requests on the same session or refresh token")
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s.server.WaitForLocks(5 * time.Minute)
	s.renew(in.refresh()).ok(200)
}

// Sign-out and refresh at once: once the sign-out is answered, the session is
// gone, and no answer is a failure of the server.
// spec: auth-sec:34
func TestRefreshAgainstLogout(t *testing.T) {
	t.Parallel()
	bothVersions(t, func(t *testing.T, s *stack) {
		for i := range 10 {
			in := s.signUp(fmt.Sprintf("u%d@example.com", i))
			var wg sync.WaitGroup
			var out *reply
			renewed := make([]*reply, 4)
			wg.Go(func() { out = s.do("POST", "/logout?scope=global", nil, as(in.access())) })
			for i := range renewed {
				wg.Go(func() { renewed[i] = s.renew(in.refresh()) })
			}
			wg.Wait()
			out.ok(204)
			for _, r := range renewed {
				if r.status != 200 {
					r.refused(400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found")
					continue
				}
				s.renew(r.refresh()).refused(400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found")
			}
		}
		same(t, "sessions", s.count("select count(*) from auth.sessions"), 0)
		same(t, "tokens", s.count("select count(*) from auth.refresh_tokens"), 0)
	})
}
