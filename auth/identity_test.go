package auth_test

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/url"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/sluice-dev/sluice/auth"
)

func linking(c *auth.Config) { c.EnableManualLinking = true }

// link begins to link an identity as auth-js does, and returns where the browser
// lands.
func (p *idp) link(provider, access string) landed {
	p.s.t.Helper()
	r := p.s.do("GET", "/user/identities/authorize?skip_http_redirect=true&redirect_to=https://app.example.com/x&provider="+provider, nil, as(access)).ok(200)
	at, err := url.Parse(r.str("url"))
	if err != nil {
		p.s.t.Fatal(err)
	}
	return p.back(p.approve(at), 302)
}

func TestLinkIdentity(t *testing.T) {
	t.Parallel()
	s, p := withIDP(t, func(c *auth.Config) {
		linking(c)
		c.EnableAnonymous = true
		c.Templates = map[string]auth.Template{"identity_linked": {Enabled: true}, "identity_unlinked": {Enabled: true}}
	})
	in := s.signUp("a@example.com")
	p.user("1", "other@example.com", true)
	same(t, "without skip_http_redirect", p.away("/user/identities/authorize?provider=google", as(in.access())).Host != "", true)
	s.do("GET", "/user/identities/authorize?provider=google", nil).refused(403, "bad_jwt", "invalid claim: missing sub claim")
	s.do("GET", "/user/identities/authorize?provider=acme", nil, as(in.access())).ok(400)

	got := p.link("google", in.access())
	u := s.do("GET", "/user", nil, as(got.fragment.Get("access_token"))).ok(200)
	same(t, "at", got.at, "https://app.example.com/x")
	same(t, "user", u.str("id"), in.id())
	same(t, "address stays", u.str("email"), "a@example.com")
	same(t, "providers", u.at("app_metadata.providers"), any([]any{"email", "google"}))
	same(t, "mailed", s.letter("a@example.com").Subject, "A new way to sign in was added")
	same(t, "signs in", p.subjectOf("google"), in.id())

	said := func(got landed) string {
		return got.query.Get("error_code") + ": " + got.fragment.Get("error_description")
	}
	same(t, "twice", said(p.link("google", in.access())), "identity_already_exists: Identity is already linked")
	other := s.signUp("b@example.com")
	same(t, "another user's", said(p.link("google", other.access())), "identity_already_exists: Identity is already linked to another user")

	// Anonymous users become permanent, and take the address.
	anon := s.do("POST", "/signup", object{}).ok(200)
	p.user("2", "a@example.com", true)
	same(t, "taken address", said(p.link("keycloak", anon.access())), "email_exists: A user with this email address has already been registered")
	p.user("2", "c@example.com", true)
	got = p.link("keycloak", anon.access())
	u = s.do("GET", "/user", nil, as(got.fragment.Get("access_token"))).ok(200)
	same(t, "same user", u.str("id"), anon.id())
	same(t, "permanent", []any{u.at("is_anonymous"), u.at("email"), u.at("email_confirmed_at") != nil}, []any{false, "c@example.com", true})

	// Administrators see identities; a flow that began before the user went links nothing.
	seen := s.do("GET", "/admin/users/"+in.id(), nil, admin).ok(200)
	same(t, "admin", len(seen.at("identities").([]any)), 2)
	r := s.do("GET", "/user/identities/authorize?skip_http_redirect=true&provider=github", nil, as(other.access())).ok(200)
	at, _ := url.Parse(r.str("url"))
	p.Serve("/api/v3/user", object{"id": 5, "login": "x"})
	p.Serve("/api/v3/user/emails", []object{{"email": "x@example.com", "verified": true, "primary": true}})
	s.do("DELETE", "/admin/users/"+other.id(), object{}, admin).ok(200)
	same(t, "gone", p.back(p.approve(at), 302).fragment.Get("error_code"), "user_not_found")
}

// A thief who has begun to link an identity of his own, or to sign in by a code, has
// got nothing of it when the owner ends all sessions.
func TestEndedSessionsEndWhatBegan(t *testing.T) {
	t.Parallel()
	s, p := withIDP(t, linking)
	id := s.signUp("a@example.com").id()
	secret := password
	p.user("1", "thief@example.com", true)
	for name, end := range map[string]func(owner *reply){
		"new password": func(owner *reply) {
			secret += "!"
			s.do("PUT", "/user", object{"password": secret}, as(owner.access())).ok(200)
		},
		"new password by an administrator": func(*reply) {
			secret += "!"
			s.do("PUT", "/admin/users/"+id, object{"password": secret}, admin).ok(200)
		},
		"sign-out":      func(owner *reply) { s.do("POST", "/logout", nil, as(owner.access())).ok(204) },
		"of the others": func(owner *reply) { s.do("POST", "/logout?scope=others", nil, as(owner.access())).ok(204) },
	} {
		s.clock.pass(time.Minute)
		thief, owner := s.login("a@example.com", secret).ok(200), s.login("a@example.com", secret).ok(200)
		var asked []*url.URL
		for _, q := range []string{"", "&code_challenge_method=s256&code_challenge=" + challenge} {
			r := s.do("GET", "/user/identities/authorize?skip_http_redirect=true&provider=google"+q, nil, as(thief.access())).ok(200)
			at, err := url.Parse(r.str("url"))
			if err != nil {
				t.Fatal(err)
			}
			asked = append(asked, at)
		}
		s.do("POST", "/otp", pkce(object{"email": "a@example.com"})).ok(200)
		code := s.follow(s.letter("a@example.com").link).query.Get("code")
		s.clock.pass(299 * time.Second) // all of it is still good
		end(owner)
		for _, at := range asked {
			same(t, name+": link", p.back(p.approve(at), 303).query.Get("error_code"), "bad_oauth_state")
		}
		s.exchange(code, verifier).refused(404, "flow_state_not_found", "invalid flow state, no valid flow state found")
	}
	same(t, "identities", s.count("select count(*) from auth.identities"), 1)
}

// meanwhile is an answer that is made after something else has happened.
type meanwhile struct {
	do     func()
	answer any
}

func (m meanwhile) MarshalJSON() ([]byte, error) {
	m.do()
	return json.Marshal(m.answer)
}

// The same when the owner does it while the provider is asked.
func TestEndedSessionsEndALinkInFlight(t *testing.T) {
	t.Parallel()
	s, p := withIDP(t, linking)
	s.signUp("a@example.com")
	owner := s.login("a@example.com", password).ok(200)
	p.Serve("/api/v3/user", object{"id": 5, "login": "thief"})
	p.Serve("/api/v3/user/emails", meanwhile{
		func() { s.do("POST", "/logout?scope=others", nil, as(owner.access())).ok(204) },
		[]object{{"email": "thief@example.com", "verified": true, "primary": true}},
	})
	for _, q := range []string{"", "&code_challenge_method=s256&code_challenge=" + challenge} {
		thief := s.login("a@example.com", password).ok(200)
		r := s.do("GET", "/user/identities/authorize?skip_http_redirect=true&provider=github"+q, nil, as(thief.access())).ok(200)
		at, err := url.Parse(r.str("url"))
		if err != nil {
			t.Fatal(err)
		}
		same(t, "link"+q, p.back(p.approve(at), 302).query.Get("error_code"), "bad_oauth_state")
	}
	same(t, "identities", s.count("select count(*) from auth.identities"), 1)
}

// Who has the password alone cannot make an account with a second factor his own by
// its identities: what is linked signs in, and what is unlinked takes the address along.
//
// spec: auth-sec:38
func TestIdentitiesNeedTheSecondFactor(t *testing.T) {
	t.Parallel()
	s, p := withIDP(t, func(c *auth.Config) { linking(c); withTOTP(c) })
	owner := s.signUp("a@example.com")
	p.user("1", "mine@example.com", true)
	p.link("google", owner.access())
	email := s.text("select id::text from auth.identities where provider = 'email'")
	p.user("2", "thief@example.com", true)
	begin := "/user/identities/authorize?skip_http_redirect=true&provider=keycloak"

	// A link that began before there was a factor ends with the sessions of before.
	early, err := url.Parse(s.do("GET", begin, nil, as(s.login("a@example.com", password).access())).ok(200).str("url"))
	if err != nil {
		t.Fatal(err)
	}
	strong := s.stepUp(owner.access(), s.enroll(owner.access(), "phone"))
	same(t, "begun before", p.back(p.approve(early), 303).query.Get("error_code"), "bad_oauth_state")

	weak := s.login("a@example.com", password).ok(200)
	const text = "AAL2 required to link or unlink an identity"
	s.do("GET", begin, nil, as(weak.access())).refused(403, "insufficient_aal", text)
	token := object{"provider": "keycloak", "id_token": p.IDToken(object{"sub": "2", "email": "thief@example.com"}, ""), "link_identity": true}
	s.do("POST", "/token?grant_type=id_token", token, as(weak.access())).refused(403, "insufficient_aal", text)
	s.do("DELETE", "/user/identities/"+email, nil, as(weak.access())).refused(403, "insufficient_aal", text)
	same(t, "identities", s.text("select string_agg(provider, ' ' order by provider) from auth.identities"), "email google")

	p.link("keycloak", strong.access())
	s.do("DELETE", "/user/identities/"+email, nil, as(strong.access())).ok(200)
	same(t, "identities", s.text("select string_agg(provider, ' ' order by provider) from auth.identities"), "google keycloak")
}

// An anonymous user whose provider did not verify the address proves it by mail.
func TestLinkUnverified(t *testing.T) {
	t.Parallel()
	s, p := withIDP(t, func(c *auth.Config) { confirming(c); linking(c); c.EnableAnonymous = true })
	anon := s.do("POST", "/signup", object{}).ok(200)
	p.user("1", "a@example.com", false)
	same(t, "refused", p.link("google", anon.access()).fragment.Get("error_code"), "provider_email_needs_verification")
	s.do("GET", "/user", nil, as(anon.access())).ok(200)
	got := s.follow(s.letter("a@example.com").link)
	u := s.do("GET", "/user", nil, as(got.fragment.Get("access_token"))).ok(200)
	same(t, "user", []any{u.at("id"), u.at("is_anonymous"), u.at("email")}, []any{anon.id(), false, "a@example.com"})
	same(t, "signs in", p.subjectOf("google"), anon.id())
}

// spec: auth:129
func TestUnlinkIdentity(t *testing.T) {
	t.Parallel()
	s, p := withIDP(t, func(c *auth.Config) { linking(c); confirming(c); c.EnablePhone, c.PhoneAutoconfirm = true, true })
	s.do("POST", "/admin/users", object{"email": "a@example.com", "password": password, "email_confirm": true}, admin).ok(200)
	in := s.login("a@example.com", password).ok(200)
	id := func(provider string) string {
		return s.text("select id::text from auth.identities where provider = $1 and user_id = $2", provider, in.id())
	}
	unlink := func(id string) *reply { return s.do("DELETE", "/user/identities/"+id, nil, as(in.access())) }
	unlink("x").refused(404, "validation_failed", "identity_id must be an UUID")
	unlink(id("email")).refused(422, "single_identity_not_deletable", "User must have at least 1 identity after unlinking")
	p.user("1", "g@example.com", true)
	p.link("google", in.access())
	p.user("2", "k@example.com", false)
	p.link("keycloak", in.access())
	unlink(uuid.NewString()).refused(422, "identity_not_found", "Identity doesn't exist")
	s.do("DELETE", "/user/identities/"+id("google"), nil, as(in.access()), with("X-JWT-AUD", "other")).
		refused(403, "unexpected_audience", "Token audience doesn't match request audience")

	// The address goes with its identity, and a verified one takes its place; what was
	// pending is void.
	s.clock.pass(time.Minute)
	s.do("POST", "/recover", object{"email": "a@example.com"}).ok(200)
	link := s.letter("a@example.com").link
	unlink(id("email")).ok(200)
	u := s.do("GET", "/user", nil, as(in.access())).ok(200)
	same(t, "promoted", []any{u.at("email"), u.at("email_confirmed_at") != nil}, []any{"g@example.com", true})
	same(t, "providers", u.at("app_metadata"), any(object{"provider": "google", "providers": []any{"google", "keycloak"}}))
	same(t, "pending link", s.follow(link).fragment.Get("error_code"), "otp_expired")

	// An unverified one un-confirms the user; one that somebody else has is a conflict.
	s.do("POST", "/admin/users", object{"email": "k@example.com", "email_confirm": true}, admin).ok(200)
	unlink(id("google")).refused(422, "email_conflict_identity_not_deletable", "Unable to unlink identity due to email conflict")
	s.Exec("delete from auth.users where email = 'k@example.com'")
	unlink(id("google")).ok(200)
	u = s.do("GET", "/user", nil, as(in.access())).ok(200)
	same(t, "unverified", []any{u.at("email"), u.body["email_confirmed_at"]}, []any{"k@example.com", nil})

	// The number goes with the phone's identity.
	s.do("PUT", "/user", object{"phone": "15550001111"}, as(in.access())).ok(200)
	u = s.do("GET", "/user", nil, as(in.access())).ok(200)
	same(t, "phone", u.str("phone"), "15550001111")
	unlink(id("phone")).ok(200)
	u = s.do("GET", "/user", nil, as(in.access())).ok(200)
	same(t, "no phone", []any{u.at("phone"), u.body["phone_confirmed_at"]}, []any{"", nil})
	same(t, "audit", s.count("select count(*) from auth.audit_log_entries where payload ->> 'action' = 'identity_unlinked'"), 3)
}

// spec: auth-sec:33
func TestIDTokenGrant(t *testing.T) {
	t.Parallel()
	s, p := withIDP(t, linking)
	sum := sha256.Sum256([]byte("raw nonce"))
	hashed := hex.EncodeToString(sum[:])
	claims := func(change object) object {
		c := object{"sub": "1", "email": "a@example.com", "email_verified": true, "nonce": hashed}
		for k, v := range change {
			if v == nil {
				delete(c, k)
			} else {
				c[k] = v
			}
		}
		return c
	}
	grant := func(body object) *reply { return s.do("POST", "/token?grant_type=id_token", body) }
	in := grant(object{"provider": "google", "id_token": p.IDToken(claims(nil), "access"), "access_token": "access", "nonce": "raw nonce"}).ok(200)
	same(t, "user", in.str("user.email"), "a@example.com")
	same(t, "amr", in.claims()["amr"].([]any)[0].(object)["method"], any("oauth"))
	s.do("GET", "/user", nil, as(in.access())).ok(200)
	second := grant(object{"provider": "google", "id_token": p.IDToken(claims(object{"aud": "second-client", "nonce": nil}), "")}).ok(200)
	same(t, "another client of the project", second.id(), in.id())

	now := s.clock.now()
	for name, c := range map[string]struct {
		body       object
		code, text string
	}{
		"no token":        {object{"provider": "google"}, "invalid request", "id_token required"},
		"no provider":     {object{"id_token": "x"}, "invalid request", "provider or client_id and issuer required"},
		"garbage":         {object{"provider": "google", "id_token": "x.y.z"}, "invalid request", "Bad ID token"},
		"another issuer":  {object{"id_token": p.IDToken(claims(object{"iss": "https://evil.example"}), "")}, "invalid request", "Bad ID token"},
		"expired":         {object{"id_token": p.IDToken(claims(object{"exp": now.Unix() - 1}), "")}, "invalid request", "Bad ID token"},
		"wrong audience":  {object{"id_token": p.IDToken(claims(object{"aud": []string{"evil"}}), "")}, "invalid request", "Unacceptable audience in id_token: [evil]"},
		"no subject":      {object{"id_token": p.IDToken(claims(object{"sub": nil}), "")}, "invalid request", "Missing sub claim in id_token"},
		"wrong at_hash":   {object{"id_token": p.IDToken(claims(nil), "access"), "access_token": "other", "nonce": "raw nonce"}, "invalid request", "Bad ID token"},
		"nonce not sent":  {object{"id_token": p.IDToken(claims(nil), "")}, "invalid request", "Passed nonce and nonce in id_token should either both exist or not."},
		"nonce not there": {object{"id_token": p.IDToken(claims(object{"nonce": nil}), ""), "nonce": "raw nonce"}, "invalid request", "Passed nonce and nonce in id_token should either both exist or not."},
		"wrong nonce":     {object{"id_token": p.IDToken(claims(nil), ""), "nonce": hashed}, "invalid nonce", "Nonces mismatch"},
		"plain nonce":     {object{"id_token": p.IDToken(claims(object{"nonce": "raw nonce"}), ""), "nonce": "raw nonce"}, "invalid nonce", "Nonces mismatch"},
	} {
		if c.body["provider"] == nil && name != "no provider" {
			c.body["provider"] = "google"
		}
		r := grant(c.body).ok(400)
		same(t, name, r.body, object{"error": c.code, "error_description": c.text})
	}
	// A token of another key: of a second provider with the same name for everything.
	_, foreign := withIDP(t, nil)
	foreign.Now = s.clock.now
	r := grant(object{"provider": "google", "id_token": foreign.IDToken(claims(object{"iss": p.URL, "nonce": nil}), "")}).ok(400)
	same(t, "foreign key", r.str("error_description"), "Bad ID token")

	grant(object{"provider": "github", "id_token": "x"}).refused(400, "validation_failed", `Custom OIDC provider "github" not allowed`)
	grant(object{"client_id": "x", "issuer": "https://evil.example", "id_token": "x"}).
		refused(400, "provider_disabled", `Provider (issuer "https://evil.example") is not enabled`)
	grant(object{"client_id": "x", "issuer": "https://accounts.google.com", "id_token": p.IDToken(claims(object{"nonce": nil}), "")}).ok(200)

	// Linking by token needs the user, and is off unless manual linking is on.
	link := object{"provider": "keycloak", "id_token": p.IDToken(claims(object{"sub": "9", "nonce": nil}), ""), "link_identity": true}
	grant(link).refused(403, "bad_jwt", "invalid claim: missing sub claim")
	linked := s.do("POST", "/token?grant_type=id_token", link, as(in.access())).ok(200)
	same(t, "linked", linked.at("user.app_metadata.providers"), any([]any{"google", "keycloak"}))
	s.do("POST", "/token?grant_type=id_token", link, as(in.access())).refused(422, "identity_already_exists", "Identity is already linked")

	lax := s.serve(func(c *auth.Config) {
		c.Providers = map[string]auth.Provider{"google": {ClientID: "sluice-tests", URL: p.URL, SkipNonceCheck: true}}
	})
	s.doOn(lax, "POST", "/token?grant_type=id_token", object{"provider": "google", "id_token": p.IDToken(claims(nil), "")}).ok(200)
	s.doOn(lax, "POST", "/token?grant_type=id_token", link, as(in.access())).refused(400, "provider_disabled", `Provider (issuer "") is not enabled`)
}
