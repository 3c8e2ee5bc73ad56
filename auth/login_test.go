package auth_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"golang.org/x/crypto/argon2"
	"golang.org/x/crypto/bcrypt"
	"golang.org/x/crypto/scrypt"

	"github.com/sluice-dev/sluice/auth"
)

// spec: auth:45 auth:48 auth-sec:13
func TestLoginRefusals(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *auth.Config) { c.EnablePhone = true })
	s.signUp("a@example.com")
	s.signUp("none@example.com")
	s.Exec("update auth.users set encrypted_password = null where email = 'none@example.com'")
	s.signUp("broken@example.com")
	s.Exec("update auth.users set encrypted_password = '$2a$garbage' where email = 'broken@example.com'")
	var bodies []string
	for _, body := range []object{
		{"email": "a@example.com", "password": "wrong"},
		{"email": "a@example.com", "password": ""},
		{"email": "a@example.com"},
		{"email": "nobody@example.com", "password": password},
		{"email": "not an address", "password": password},
		{"email": "none@example.com", "password": ""},
		{"email": "none@example.com", "password": password},
		{"email": "broken@example.com", "password": password},
		{"phone": "+49123456", "password": password},
		{"phone": "not a number", "password": password},
	} {
		r := s.do("POST", "/token?grant_type=password", body).refused(400, "invalid_credentials", "Invalid login credentials")
		bodies = append(bodies, r.text)
	}
	for _, b := range bodies {
		same(t, "answer", b, bodies[0])
	}
	s.do("POST", "/token?grant_type=password", object{"password": password}).refused(400, "validation_failed", "missing email or phone")
	s.do("POST", "/token?grant_type=password", object{"email": "a@b", "phone": "12", "password": password}).
		refused(400, "validation_failed", "Only an email address or phone number should be provided on login.")
	for _, grant := range []string{"", "?grant_type=", "?grant_type=authorization_code"} {
		s.do("POST", "/token"+grant, object{}).refused(400, "invalid_credentials", "unsupported_grant_type")
	}
}

// spec: auth:46
func TestUnconfirmedLogin(t *testing.T) {
	t.Parallel()
	s := start(t, func(c *auth.Config) { c.EmailAutoconfirm, c.EnablePhone = false, true })
	s.do("POST", "/admin/users", object{"email": "a@example.com", "phone": "+49123456", "password": password}, admin).ok(200)
	s.login("a@example.com", password).refused(400, "email_not_confirmed", "Email not confirmed")
	s.login("a@example.com", "wrong").refused(400, "invalid_credentials", "Invalid login credentials")
	s.do("POST", "/token?grant_type=password", object{"phone": "49 123456", "password": password}).
		refused(400, "phone_not_confirmed", "Phone not confirmed")
}

// spec: auth:47
func TestBannedLogin(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	s.do("PUT", "/admin/users/"+in.id(), object{"ban_duration": "1h"}, admin).ok(200)
	s.login("a@example.com", password).refused(400, "user_banned", "User is banned")
	s.login("a@example.com", "wrong").refused(400, "invalid_credentials", "Invalid login credentials")
	s.clock.pass(time.Hour)
	s.login("a@example.com", password).ok(200)
}

// spec: auth:49
func TestWeakPasswordStillSignsIn(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.signUp("a@example.com")
	if r := s.login("a@example.com", password); r.at("weak_password") != nil {
		t.Errorf("a good password is called weak: %s", r.text)
	}
	strict := s.serve(func(c *auth.Config) { c.MinPasswordLength = 20 })
	r := s.doOn(strict, "POST", "/token?grant_type=password", object{"email": "a@example.com", "password": password}).ok(200)
	same(t, "weak_password", r.at("weak_password"), any(object{
		"message": "Password should be at least 20 characters.", "reasons": []any{"length"},
	}))
}

func phc(variant string, v int, m, t uint32, p uint8, password string) string {
	salt := []byte("some salt bytes!")
	derive := argon2.Key
	if variant == "argon2id" {
		derive = argon2.IDKey
	}
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$%s$v=%d$m=%d,t=%d,p=%d$%s$%s", variant, v, m, t, p, b64(salt), b64(derive([]byte(password), salt, t, m, p, 32)))
}

func firebase(password string, logN int) string {
	salt, separator, signer := []byte("salt of the user"), []byte("\x07"), []byte("the project's own signer key, 64 bytes in truth")
	key, err := scrypt.Key([]byte(password), append(append([]byte{}, salt...), separator...), 1<<logN, 8, 1, 32)
	if err != nil {
		panic(err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		panic(err)
	}
	hash := make([]byte, len(signer))
	cipher.NewCTR(block, make([]byte, aes.BlockSize)).XORKeyStream(hash, signer)
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("$fbscrypt$v=1,n=%d,r=8,p=1,ss=%s,sk=%s$%s$%s", logN, b64(separator), b64(signer), b64(salt), b64(hash))
}

// spec: auth:50 auth-sec:14
func TestImportedHashes(t *testing.T) {
	t.Parallel()
	bc, err := bcrypt.GenerateFromPassword([]byte(password), 4)
	if err != nil {
		t.Fatal(err)
	}
	good := map[string]string{
		"bcrypt 2y": "$2y" + string(bc[3:]), "bcrypt 2b": "$2b" + string(bc[3:]), "bcrypt 2a": string(bc),
		"argon2id": phc("argon2id", 19, 64, 1, 1, password), "argon2i": phc("argon2i", 19, 64, 2, 2, password),
		"firebase": firebase(password, 4),
	}
	s := start(t, nil)
	for name, hash := range good {
		email := strings.ReplaceAll(name, " ", "-") + "@example.com"
		s.do("POST", "/admin/users", object{"email": email, "password_hash": hash, "email_confirm": true}, admin).ok(200)
		s.login(email, password).ok(200)
		s.login(email, password+"x").ok(400)
	}
	for name, hash := range map[string]string{
		"argon2d":           strings.Replace(good["argon2i"], "argon2i", "argon2d", 1),
		"version 16":        strings.Replace(good["argon2id"], "v=19", "v=16", 1),
		"key id":            strings.Replace(good["argon2id"], ",p=1$", ",p=1,keyid=abc$", 1),
		"too much memory":   strings.Replace(good["argon2id"], "m=64", "m=1048577", 1),
		"too many rounds":   strings.Replace(good["argon2id"], "t=1,", "t=21,", 1),
		"too many lanes":    strings.Replace(good["argon2id"], "p=1$", "p=17$", 1),
		"no rounds":         strings.Replace(good["argon2id"], "t=1,", "t=0,", 1),
		"scrypt too large":  strings.Replace(good["firebase"], "n=4,", "n=20,", 1),
		"scrypt version":    strings.Replace(good["firebase"], "v=1,", "v=2,", 1),
		"scrypt no key":     "$fbscrypt$v=1,n=4,r=8,p=1$c2FsdA==$aGFzaA==",
		"bcrypt of cost 31": "$2a$31" + string(bc[6:]),
		"bcrypt cut":        string(bc[:20]),
		"plain text":        password,
		"nothing":           "",
	} {
		if right, err := auth.CheckHash(hash, password); right || err == nil {
			t.Errorf("%s is taken: %v, %v", name, right, err)
		}
		// However it came into the table, it is a wrong password.
		id := uuid.New()
		s.Exec(`insert into auth.users (id, aud, role, email, encrypted_password, email_confirmed_at) values ($1, 'authenticated', 'authenticated', $2, $3, now())`,
			id, id.String()+"@example.com", hash)
		s.login(id.String()+"@example.com", password).refused(400, "invalid_credentials", "Invalid login credentials")
	}
}

// spec: auth:51
func TestLastSignIn(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	in := s.signUp("a@example.com")
	s.clock.pass(time.Minute)
	r := s.renew(in.refresh()).ok(200)
	same(t, "after refresh", r.str("user.last_sign_in_at"), "2026-05-01T12:00:00Z")
	s.clock.pass(time.Minute)
	same(t, "after sign-in", s.login("a@example.com", password).str("user.last_sign_in_at"), "2026-05-01T12:02:00Z")
}

// Whoever the address belongs to, a wrong password costs one hash: with the
// workers held, each of these sign-ins waits for one.
// spec: auth:52
func TestLoginTakesAsLongForUnknownUsers(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.signUp("a@example.com")
	s.signUp("none@example.com")
	s.Exec("update auth.users set encrypted_password = '' where email = 'none@example.com'")
	s.server.UseHashCost(4, 1, 10)
	release := s.server.HoldHashWorkers()
	var wg sync.WaitGroup
	for i, email := range []string{"a@example.com", "nobody@example.com", "not an address", "none@example.com"} {
		wg.Go(func() { s.login(email, "wrong").ok(400) })
		deadline := time.Now().Add(10 * time.Second)
		for s.server.WaitingHashes() < i+2 && time.Now().Before(deadline) { // the held worker is one
			s.do("GET", "/health", nil)
		}
		same(t, email, fmt.Sprint(s.server.WaitingHashes()), fmt.Sprint(i+2))
	}
	release()
	wg.Wait()
	same(t, "at the end", fmt.Sprint(s.server.WaitingHashes()), "0")
}

// The hash that stands in for a missing user costs what real ones cost.
// spec: auth-sec:12
func TestCostOfHashes(t *testing.T) {
	t.Parallel()
	if auth.BcryptCost < 10 {
		t.Errorf("cost %d", auth.BcryptCost)
	}
	cost, err := bcrypt.Cost([]byte(auth.DummyHash))
	if err != nil || cost != auth.BcryptCost {
		t.Errorf("the dummy's cost is %d: %v", cost, err)
	}
	s := start(t, nil)
	s.server.UseHashCost(auth.BcryptCost, 1, 10)
	s.signUp("a@example.com")
	same(t, "stored", s.text("select left(encrypted_password, 7) from auth.users"), "$2a$10$")
}

// spec: auth-sec:15
func TestHashingIsBounded(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.signUp("a@example.com")
	s.server.UseHashCost(4, 2, 3)
	release := s.server.HoldHashWorkers()
	var wg sync.WaitGroup
	for range 3 { // fill the queue
		wg.Go(func() { s.login("a@example.com", password).ok(200) })
	}
	deadline := time.Now().Add(10 * time.Second)
	for s.server.WaitingHashes() < 5 && time.Now().Before(deadline) {
		s.do("GET", "/health", nil)
	}
	s.login("a@example.com", password).refused(429, "over_request_rate_limit", "Request rate limit reached")
	release()
	wg.Wait()
	s.login("a@example.com", password).ok(200)
	same(t, "waiting", s.server.WaitingHashes(), 0)
}

// spec: auth:144
func TestSeededUser(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	// As seeds do it: hashed by pgcrypto, tokens left NULL, letters in any case.
	s.ExecAs("postgres", `
		insert into auth.users (id, aud, role, email, encrypted_password, email_confirmed_at)
		values ('a11ce000-0000-4000-8000-000000000001', 'authenticated', 'authenticated', 'Alice@Example.com',
			extensions.crypt('sluice-chat', extensions.gen_salt('bf')), now());`)
	r := s.login("alice@example.com", "sluice-chat").ok(200)
	for field, want := range map[string]any{"user_metadata": object{}, "app_metadata": object{}, "identities": []any{}} {
		same(t, field, r.at("user").(object)[field], want)
	}
	for _, field := range []string{"created_at", "updated_at"} {
		if r.at("user."+field) == nil {
			t.Errorf("%s is missing", field)
		}
	}
	s.do("GET", "/user", nil, as(r.access())).ok(200)
	s.do("PUT", "/user", object{"data": object{"a": 1}, "password": "another word"}, as(r.access())).ok(200)
	s.do("GET", "/admin/users", nil, admin).ok(200)
	s.do("DELETE", "/admin/users/"+r.id(), object{"should_soft_delete": true}, admin).ok(200)
}

// spec: auth:148
func TestManySignIns(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	hash, err := bcrypt.GenerateFromPassword([]byte(password), 4)
	if err != nil {
		t.Fatal(err)
	}
	_, err = s.Admin().Exec(context.Background(), `
		insert into auth.users (id, aud, role, email, encrypted_password, email_confirmed_at)
		select gen_random_uuid(), 'authenticated', 'authenticated', 'u' || n || '@example.com', $1, now() from generate_series(1, 500) n`, string(hash))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 500 {
		s.login(fmt.Sprintf("u%d@example.com", i+1), password).ok(200)
	}
}
