package auth_test

import (
	"maps"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/sluice-dev/sluice/auth"
	"github.com/sluice-dev/sluice/internal/oidctest"
)

// idp is an identity provider of the test's own, under the names of many.
type idp struct {
	*oidctest.Provider
	s *stack
}

// withIDP serves Auth with every provider at one of the test's own.
func withIDP(t *testing.T, change func(*auth.Config)) (*stack, *idp) {
	t.Helper()
	p := &idp{Provider: oidctest.New(t)}
	p.s = start(t, func(c *auth.Config) {
		c.Providers = map[string]auth.Provider{}
		for _, name := range []string{
			"custom:corp", "keycloak", "google", "apple", "azure", "linkedin_oidc", "slack_oidc", "github", "gitlab", "discord", "facebook", "x",
		} {
			c.Providers[name] = auth.Provider{ClientID: oidctest.ClientID + ", second-client", Secret: oidctest.ClientSecret, URL: p.URL}
		}
		if change != nil {
			change(c)
		}
	})
	p.Now = p.s.clock.now
	return p.s, p
}

// away opens an address of Auth as a browser does and returns where it is sent.
func (p *idp) away(path string, options ...option) *url.URL {
	p.s.t.Helper()
	r := p.s.do("GET", path, nil, append([]option{with("apikey", ""), with("Authorization", "")}, options...)...).ok(302)
	u, err := url.Parse(r.header.Get("Location"))
	if err != nil {
		p.s.t.Fatal(err)
	}
	return u
}

// approve lets the provider answer and returns the address of the callback.
func (p *idp) approve(at *url.URL) string {
	p.s.t.Helper()
	client := http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Get(at.String())
	if err != nil {
		p.s.t.Fatal(err)
	}
	res.Body.Close()
	back := res.Header.Get("Location")
	if res.StatusCode != 302 || !strings.HasPrefix(back, issuer+"/callback?") {
		p.s.t.Fatalf("the provider answers %s to %q", res.Status, back)
	}
	return strings.TrimPrefix(back, issuer)
}

// back opens the callback and returns where the browser lands.
func (p *idp) back(path string, status int) landed {
	p.s.t.Helper()
	return p.s.land(p.s.do("GET", path, nil, with("apikey", ""), with("Authorization", "")).ok(status))
}

// signIn goes the whole way of an implicit flow.
func (p *idp) signIn(provider string) landed {
	p.s.t.Helper()
	return p.back(p.approve(p.away("/authorize?provider="+provider)), 302)
}

// user is who signs in at the provider.
func (p *idp) user(subject, email string, verified bool) {
	p.SetUser(object{"sub": subject, "email": email, "email_verified": verified, "name": "Name of " + subject, "picture": "https://pictures.example/" + subject})
}

// spec: auth:124 auth-sec:31
func TestAuthorize(t *testing.T) {
	t.Parallel()
	s, p := withIDP(t, nil)
	s.do("GET", "/authorize?provider=twitch", nil).refused(400, "validation_failed", "Unsupported provider: provider is not enabled")
	s.do("GET", "/authorize?provider=custom:other", nil).refused(400, "validation_failed", "Unsupported provider: provider is not enabled")
	s.do("GET", "/authorize?provider=acme", nil).refused(400, "validation_failed", "Unsupported provider: Provider acme could not be found")
	s.do("GET", "/authorize", nil).refused(400, "validation_failed", "Unsupported provider: Provider  could not be found")
	s.do("GET", "/authorize?provider=google&code_challenge=short&code_challenge_method=s256", nil).
		refused(400, "validation_failed", "code challenge has to be between 43 and 128 characters")
	s.do("GET", "/authorize?provider=google&invite_token=nobody", nil).refused(404, "user_not_found", "User identified by token not found")

	at := p.away("/authorize?provider=google&scopes=calendar%20email&redirect_to=https://app.example.com/x&prompt=consent&nonce=n1&access_type=offline" +
		"&State=mine&CLIENT_ID=evil&client_secret=y&Redirect_Uri=https://evil.example&response_type=token&code_verifier=v&REQUEST=r&response_mode=fragment")
	q := at.Query()
	same(t, "at", at.Scheme+"://"+at.Host+at.Path, p.URL+"/authorize")
	state := q.Get("state")
	if _, err := uuid.Parse(state); err != nil {
		t.Errorf("state %q: %v", state, err)
	}
	challenge := q.Get("code_challenge")
	same(t, "query", q, url.Values{
		"client_id": {oidctest.ClientID}, "redirect_uri": {issuer + "/callback"}, "response_type": {"code"}, "scope": {"openid email profile calendar"},
		"state": {state}, "prompt": {"consent"}, "nonce": {"n1"}, "access_type": {"offline"},
		"code_challenge": {challenge}, "code_challenge_method": {"S256"},
	})
	same(t, "length of our challenge", len(challenge), 43)
	same(t, "apple", p.away("/authorize?provider=apple").Query().Get("response_mode"), "form_post")
	same(t, "github", p.away("/authorize?provider=github").Query().Get("scope"), "user:email")
	same(t, "flow", s.text("select provider_type || ' ' || referrer || ' ' || authentication_method from auth.flow_state where id = $1", state),
		"google https://app.example.com/x oauth")

	// A provider that cannot be reached is no fault of the client's, and not told at length.
	off := s.serve(func(c *auth.Config) {
		c.Providers = map[string]auth.Provider{"google": {ClientID: "x", URL: "http://127.0.0.1:1"}}
	})
	s.doOn(off, "GET", "/authorize?provider=google", nil).refused(500, "unexpected_failure", "The provider cannot be reached")
}

// spec: auth:125 auth-sec:30
func TestCallback(t *testing.T) {
	t.Parallel()
	s, p := withIDP(t, nil)
	p.user("1", "a@example.com", true)
	s.do("GET", "/callback?code=x", nil).refused(400, "bad_oauth_callback", "OAuth state parameter missing")
	refused := func(path string, code, text string) {
		t.Helper()
		same(t, path, p.back(path, 303).whole, "http://127.0.0.1:3000?error=invalid_request&error_code="+code+"&error_description="+url.QueryEscape(text))
	}
	refused("/callback?state=x&code=y", "bad_oauth_state", "OAuth state parameter is invalid")
	refused("/callback?code=y&state="+uuid.NewString(), "bad_oauth_state", "OAuth state not found or expired")
	late := p.approve(p.away("/authorize?provider=google"))
	s.clock.pass(5*time.Minute + time.Second)
	refused(late, "bad_oauth_state", "OAuth state has expired")

	path := p.approve(p.away("/authorize?provider=google&code_challenge=" + challenge + "&code_challenge_method=S256"))
	if code := p.back(path, 302).query.Get("code"); code == "" {
		t.Error("no code")
	}
	refused(path, "flow_state_already_used", "State has already been used")

	// What the provider says, and what fails behind it, leads to where the flow came from.
	failed := func(back, want string) {
		t.Helper()
		at := p.away("/authorize?provider=google&redirect_to=https://app.example.com/x?y=1")
		got := p.back("/callback?state="+at.Query().Get("state")+back, 302)
		same(t, back, got.whole, "https://app.example.com/x?"+want+"&y=1#"+want+"&sb=")
	}
	failed("&error=access_denied&error_description=no+thanks", "error=access_denied&error_description=no+thanks")
	failed("", "error=invalid_request&error_code=bad_oauth_callback&error_description=OAuth+callback+with+missing+authorization+code+missing")
	failed("&code=wrongcode", "error=server_error&error_code=unexpected_failure&error_description=Unable+to+exchange+external+code%3A+wron")
	if strings.Contains(s.log.String(), "must-not-be-logged") {
		t.Error("the provider's answer is logged")
	}
	p.SetUser(object{"sub": "1", "aud": "somebody else", "email": "a@example.com"})
	got := p.signIn("google")
	same(t, "foreign token", got.fragment.Get("error_description"), "Error getting user profile from external provider")
	p.SetUser(object{"sub": "1"})
	same(t, "no address", p.signIn("google").fragment.Get("error_description"), "Error getting user email from external provider")

	// The state of one provider does not take the code of another, nor is a state used twice.
	p.user("2", "b@example.com", true)
	once := p.approve(p.away("/authorize?provider=google"))
	var wg sync.WaitGroup
	results := make(chan string, 8)
	for range cap(results) {
		wg.Go(func() { results <- s.do("GET", once, nil).header.Get("Location") })
	}
	wg.Wait()
	close(results)
	signedIn := 0
	for at := range results {
		if strings.Contains(at, "access_token") {
			signedIn++
		}
	}
	same(t, "sign-ins by one state", signedIn, 1)

	// The redirect is judged again when it is used.
	at := p.away("/authorize?provider=google&redirect_to=https://app.example.com/x")
	s.server = s.serve(func(c *auth.Config) {
		c.RedirectURLs = nil
		c.Providers = map[string]auth.Provider{"google": {ClientID: oidctest.ClientID, Secret: oidctest.ClientSecret, URL: p.URL}}
	})
	same(t, "target", p.back(p.approve(at), 302).at, "http://127.0.0.1:3000")
}

// spec: auth:126
func TestOAuthSignIn(t *testing.T) {
	t.Parallel()
	s, p := withIDP(t, nil)
	p.user("17", "A@Example.com", true)
	got := p.signIn("custom:corp")
	same(t, "at", got.at, "http://127.0.0.1:3000")
	for _, name := range []string{"access_token", "refresh_token", "expires_in", "expires_at", "provider_token", "provider_refresh_token"} {
		if got.fragment.Get(name) == "" {
			t.Errorf("no %s in %s", name, got.whole)
		}
	}
	same(t, "sb", got.fragment.Has("sb"), true)
	same(t, "provider's refresh token", got.fragment.Get("provider_refresh_token"), "refresh-"+got.fragment.Get("provider_token"))
	u := s.do("GET", "/user", nil, as(got.fragment.Get("access_token"))).ok(200)
	same(t, "email", u.str("email"), "a@example.com")
	same(t, "identity", u.at("identities.0.identity_data"), any(object{
		"iss": p.URL, "sub": "17", "provider_id": "17", "email": "a@example.com", "email_verified": true, "phone_verified": false,
		"name": "Name of 17", "full_name": "Name of 17", "picture": "https://pictures.example/17", "avatar_url": "https://pictures.example/17",
	}))
	same(t, "subject", u.at("identities.0.id"), any("17"))
	same(t, "app_metadata", u.at("app_metadata"), any(object{"provider": "custom:corp", "providers": []any{"custom:corp"}}))
	same(t, "user_metadata", u.at("user_metadata.full_name"), any("Name of 17"))
	same(t, "confirmed", u.at("email_confirmed_at") != nil, true)
	s.renew(got.fragment.Get("refresh_token")).ok(200)

	// By PKCE: a code in the query, tokens for who has the verifier.
	p.SetUser(object{"sub": "17", "email": "a@example.com", "email_verified": true, "name": "New Name"})
	at := p.back(p.approve(p.away("/authorize?provider=custom:corp&redirect_to=https://app.example.com/cb?x=1&code_challenge="+challenge+"&code_challenge_method=S256")), 302)
	code := at.query.Get("code")
	same(t, "landed", at.whole, "https://app.example.com/cb?code="+code+"&x=1")
	s.exchange(code, "x"+verifier).refused(400, "bad_code_verifier", "code challenge does not match previously saved code verifier")
	r := s.exchange(code, verifier).ok(200)
	same(t, "provider's token", strings.HasPrefix(r.str("provider_token"), "provider-"), true)
	same(t, "provider's refresh token", r.str("provider_refresh_token"), "refresh-"+r.str("provider_token"))
	same(t, "amr", r.claims()["amr"].([]any)[0].(object)["method"], any("oauth"))
	same(t, "same user", r.id(), u.str("id"))
	same(t, "refreshed", r.str("user.user_metadata.name"), "New Name")
	same(t, "one user", s.count("select count(*) from auth.users"), 1)
	same(t, "no tokens stay", s.count("select count(*) from auth.flow_state"), 0)
	s.exchange(code, verifier).refused(404, "flow_state_not_found", "invalid flow state, no valid flow state found")
	s.do("GET", "/user", nil, as(r.access())).ok(200)

	// Bans and closed doors.
	s.do("PUT", "/admin/users/"+r.id(), object{"ban_duration": "1h"}, admin).ok(200)
	got = p.signIn("custom:corp")
	same(t, "banned", []string{got.fragment.Get("error"), got.fragment.Get("error_code")}, []string{"access_denied", "user_banned"})
	closed := s.serve(func(c *auth.Config) {
		c.EnableSignup = false
		c.Providers = map[string]auth.Provider{"google": {ClientID: oidctest.ClientID, Secret: oidctest.ClientSecret, URL: p.URL}}
	})
	s.server = closed
	p.user("18", "new@example.com", true)
	got = p.signIn("google")
	same(t, "closed", []string{got.query.Get("error"), got.query.Get("error_code")}, []string{"access_denied", "signup_disabled"})
}

// Every row of the table of providers, as each answers.
func TestProviders(t *testing.T) {
	t.Parallel()
	s, p := withIDP(t, func(c *auth.Config) { c.EmailAutoconfirm = false })
	p.SetUser(object{"sub": "oidc", "email": "oidc@example.com", "email_verified": "true", "name": "O", "xms_edov": "1", "locale": object{"language": "en"}, "hd": "example.com"})
	p.Serve("/api/v3/user", object{"id": 583231, "login": "octocat", "name": "The Cat", "avatar_url": "https://a.example/1"})
	p.Serve("/api/v3/user/emails", []object{{"email": "old@example.com", "verified": true}, {"email": "cat@example.com", "primary": true, "verified": true}})
	p.Serve("/api/v4/user", object{"id": 7, "username": "lab", "name": "Lab", "email": "lab@example.com", "confirmed_at": "2020-01-01T00:00:00Z"})
	p.Serve("/api/users/@me", object{"id": "80351110224678912", "username": "nelly", "discriminator": "0", "email": "nelly@example.com", "verified": true, "avatar": "a_1f", "global_name": "Nelly"})
	p.Serve("/me", object{"id": "9", "name": "Face", "email": "face@example.com", "picture": object{"data": object{"url": "https://f.example/9"}}})
	p.Serve("/2/users/me", object{"data": object{"id": "12", "username": "jack", "name": "Jack", "confirmed_email": "jack@example.com"}})
	for name, want := range map[string]object{
		"google":        {"sub": "oidc", "email": "oidc@example.com", "custom_claims": object{"hd": "example.com"}},
		"apple":         {"sub": "oidc", "email": "oidc@example.com"},
		"azure":         {"sub": "oidc", "email": "oidc@example.com"},
		"keycloak":      {"sub": "oidc", "email": "oidc@example.com"},
		"linkedin_oidc": {"sub": "oidc", "email": "oidc@example.com"},
		"slack_oidc":    {"sub": "oidc", "email": "oidc@example.com"},
		"github":        {"sub": "583231", "email": "cat@example.com", "user_name": "octocat", "preferred_username": "octocat", "avatar_url": "https://a.example/1", "iss": p.URL + "/api/v3"},
		"gitlab":        {"sub": "7", "email": "lab@example.com", "user_name": "lab", "full_name": "Lab"},
		"discord":       {"sub": "80351110224678912", "email": "nelly@example.com", "name": "nelly#0", "full_name": "nelly", "picture": "https://cdn.discordapp.com/avatars/80351110224678912/a_1f.gif", "custom_claims": object{"global_name": "Nelly"}},
		"facebook":      {"sub": "9", "email": "face@example.com", "picture": "https://f.example/9"},
		"x":             {"sub": "12", "email": "jack@example.com", "user_name": "jack"},
	} {
		got := p.signIn(name)
		if got.fragment.Get("access_token") == "" {
			t.Errorf("%s: %s", name, got.whole)
			continue
		}
		u := s.do("GET", "/user", nil, as(got.fragment.Get("access_token"))).ok(200)
		want["email_verified"] = true
		for _, i := range u.at("identities").([]any) {
			if i := i.(object); i["provider"] == name {
				data := i["identity_data"].(object)
				maps.DeleteFunc(data, func(k string, _ any) bool { _, wanted := want[k]; return !wanted })
				same(t, name, data, want)
			}
		}
	}
	// One address, verified by six of them, is one user.
	same(t, "users", s.count("select count(*) from auth.users"), 6)
	for _, r := range p.Requests() {
		if r.URL.Path == "/me" && len(r.URL.Query().Get("appsecret_proof")) != 64 {
			t.Errorf("Facebook is asked %s without a proof", r.URL)
		}
	}

	// Apple comes back by POST and tells the name once, by way of the browser.
	p.SetUser(object{"sub": "a2", "email": "a2@privaterelay.appleid.com", "email_verified": true, "is_private_email": "true"})
	back, _ := url.Parse(p.approve(p.away("/authorize?provider=apple")))
	form := back.Query()
	form.Set("user", `{"name":{"firstName":"Ada","lastName":"L"},"email":"evil@example.com"}`)
	r := s.do("POST", "/callback", form.Encode(), with("Content-Type", "application/x-www-form-urlencoded")).ok(302)
	u := s.do("GET", "/user", nil, as(s.land(r).fragment.Get("access_token"))).ok(200)
	same(t, "name", u.at("user_metadata.full_name"), any("Ada L"))
	same(t, "email", u.at("email"), any("a2@privaterelay.appleid.com"))
}

// What a directory of Azure says of an address counts where the project named the
// directory, or where the directory owns the address's domain.
func TestAzureAddresses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		path string
		edov any
		want bool
	}{
		{"/common", nil, false},
		{"/organizations", nil, false},
		{"/common", true, true},
		{"/common", false, false},
		{"/9188040d", nil, true},
		{"/9188040d", "0", false},
		{"/common", "1", true},
	} {
		if got := auth.AzureVerified("https://login.example"+c.path, c.edov); got != c.want {
			t.Errorf("%s with %v: %v", c.path, c.edov, got)
		}
	}
	s, p := withIDP(t, nil)
	p.SetDocument("issuer", p.URL+"/{tenantid}/v2.0")
	p.SetUser(object{"sub": "1", "tid": "t1", "iss": p.URL + "/t1/v2.0", "email": "a@example.com", "xms_edov": true})
	if got := p.signIn("azure"); got.fragment.Get("access_token") == "" {
		t.Error(got.whole)
	}
	p.SetUser(object{"sub": "1", "tid": "t1", "iss": p.URL + "/t2/v2.0", "email": "a@example.com"})
	same(t, "another tenant", p.signIn("azure").fragment.Get("error_code"), "unexpected_failure")
	same(t, "users", s.count("select count(*) from auth.users"), 1)
}

// spec: auth:127
func TestLinkingByAddress(t *testing.T) {
	t.Parallel()
	s, p := withIDP(t, confirming)
	s.do("POST", "/admin/users", object{"email": "a@example.com", "password": password, "email_confirm": true, "user_metadata": object{"own": 1}}, admin).ok(200)
	in := s.login("a@example.com", password).ok(200)

	// Unverified: another user, without the address, who cannot sign in.
	p.user("evil", "A@example.com", false)
	got := p.signIn("google")
	same(t, "refused", []string{got.query.Get("error"), got.query.Get("error_code"), got.query.Get("error_description")},
		[]string{"access_denied", "provider_email_needs_verification", "Unverified email with google. Verify the email with google in order to sign in"})
	s.noLetter()
	same(t, "separate user", s.count("select count(*) from auth.users where email is null"), 1)
	same(t, "sessions", s.count("select count(*) from auth.sessions"), 1)

	// Verified: the user of the address, with one identity more.
	p.user("good", "a@example.com", true)
	got = p.signIn("google")
	u := s.do("GET", "/user", nil, as(got.fragment.Get("access_token"))).ok(200)
	same(t, "same user", u.str("id"), in.id())
	same(t, "providers", u.at("app_metadata"), any(object{"provider": "email", "providers": []any{"email", "google"}}))
	same(t, "metadata", []any{u.at("user_metadata.own"), u.at("user_metadata.full_name")}, []any{1.0, "Name of good"})
	s.do("GET", "/user", nil, as(in.access())).ok(200)
	s.login("a@example.com", password).ok(200)
	same(t, "audit", s.count("select count(*) from auth.audit_log_entries where payload ->> 'action' = 'identity_linked'"), 1)

	// The second provider finds it by the first one's identity as well; the address of
	// an unverified identity finds nobody.
	s.Exec("update auth.users set email = 'moved@example.com' where id = '" + in.id() + "'")
	p.user("k", "a@example.com", true)
	same(t, "by identity", p.subjectOf("keycloak"), in.id())

	// Unverified and free: a mail first, and nobody is signed in.
	p.user("u", "u@example.com", false)
	got = p.signIn("google")
	same(t, "mailed", got.fragment.Get("error_description"), "Unverified email with google. A confirmation email has been sent to your google email")
	at := s.follow(s.letter("u@example.com").link)
	if at.fragment.Get("access_token") == "" {
		t.Error(at.whole)
	}
	same(t, "then", p.subjectOf("google"), s.text("select id::text from auth.users where email = 'u@example.com'"))

	// Two accounts have a claim: none is taken.
	s.do("POST", "/admin/users", object{"email": "a@example.com", "password": password, "email_confirm": true}, admin).ok(200)
	p.user("both", "a@example.com", true)
	same(t, "two accounts", p.signIn("slack_oidc").fragment.Get("error_code"), "unexpected_failure")
}

// subjectOf signs in and returns whose session it is.
func (p *idp) subjectOf(provider string) string {
	p.s.t.Helper()
	got := p.signIn(provider)
	return p.s.do("GET", "/user", nil, as(got.fragment.Get("access_token"))).ok(200).str("id")
}

// Under autoconfirm, an address that the provider did not verify makes a user, but
// opens nobody's account.
func TestAutoconfirmOpensNoAccount(t *testing.T) {
	t.Parallel()
	s, p := withIDP(t, nil)
	in := s.signUp("a@example.com")
	p.user("evil", "a@example.com", false)
	id := p.subjectOf("google")
	if id == in.id() {
		t.Fatal("an unverified address opened an account")
	}
	same(t, "address", s.text("select coalesce(email, '') from auth.users where id = $1", id), "")
	same(t, "again", p.subjectOf("google"), id)
	p.user("new", "b@example.com", false)
	same(t, "a new one", s.text("select email from auth.users where id = $1", p.subjectOf("google")), "b@example.com")
}

// spec: auth:128 auth-sec:24
func TestUnconfirmedAccountIsDisarmed(t *testing.T) {
	t.Parallel()
	s, p := withIDP(t, confirming)
	s.do("POST", "/signup", object{"email": "victim@example.com", "password": "attacker knows", "data": object{"evil": true}}).ok(200)
	link := s.letter("victim@example.com").link
	id := s.text("select id::text from auth.users")
	s.Exec(`insert into auth.identities (provider_id, user_id, identity_data, provider, created_at, updated_at)
		values ('attacker', '` + id + `', '{"sub":"attacker"}', 'github', now(), now());
		insert into auth.sessions (id, user_id, created_at, aal) values (gen_random_uuid(), '` + id + `', now(), 'aal1')`)

	p.user("v", "victim@example.com", true)
	same(t, "same user", p.subjectOf("google"), id)
	s.login("victim@example.com", "attacker knows").refused(400, "invalid_credentials", "Invalid login credentials")
	same(t, "identities", s.text("select string_agg(provider, ' ') from auth.identities"), "google")
	same(t, "sessions", s.count("select count(*) from auth.sessions"), 1)
	same(t, "metadata", s.count("select count(*) from auth.users where raw_user_meta_data ? 'evil'"), 0)
	same(t, "app_metadata", s.text("select raw_app_meta_data ->> 'provider' from auth.users"), "google")
	same(t, "the old link", s.follow(link).fragment.Get("error_code"), "otp_expired")
}

func TestInviteByProvider(t *testing.T) {
	t.Parallel()
	s, p := withIDP(t, confirming)
	s.do("POST", "/invite", object{"email": "guest@example.com"}, admin).ok(200)
	hash := s.letter("guest@example.com").hash(t)
	p.user("g", "other@example.com", true)
	invited := func() landed { return p.back(p.approve(p.away("/authorize?provider=google&invite_token="+hash)), 302) }
	same(t, "other address", invited().fragment.Get("error_description"), "Invited email does not match emails from external provider")
	p.user("g", "guest@example.com", false)
	got := invited()
	u := s.do("GET", "/user", nil, as(got.fragment.Get("access_token"))).ok(200)
	same(t, "user", u.str("email"), "guest@example.com")
	same(t, "identities", s.text("select string_agg(provider, ' ') from auth.identities"), "google")
	s.do("GET", "/authorize?provider=google&invite_token="+hash, nil).ok(404)
}

// spec: auth-sec:32
func TestOutboundRequests(t *testing.T) {
	t.Parallel()
	for addr, want := range map[string][2]bool{ // public, named in the settings
		"93.184.216.34": {true, true}, "2606:2800:220:1::1": {true, true},
		"127.0.0.1": {false, true}, "::1": {false, true}, "10.1.2.3": {false, true}, "192.168.0.1": {false, true}, "172.16.0.1": {false, true},
		"fd12::1": {false, true}, "100.64.0.1": {false, true}, "::ffff:10.0.0.1": {false, true}, "64:ff9b::a00:1": {false, true},
		"169.254.169.254": {false, false}, "fe80::1": {false, false}, "0.0.0.0": {false, false}, "fd00:ec2::254": {false, false},
		"::": {false, false}, "224.0.0.1": {false, false}, "::ffff:169.254.169.254": {false, false},
	} {
		a := netip.MustParseAddr(addr)
		if got := [2]bool{auth.MayFetch(a, false), auth.MayFetch(a, true)}; got != want {
			t.Errorf("%s: %v, want %v", addr, got, want)
		}
	}
	// A document of the provider leads into our own network: not followed, neither by
	// address nor by name, nor by http.
	for _, keys := range []string{"https://127.0.0.2:1/keys", "https://localhost:1/keys", "http://example.com/keys", "file:///etc/passwd"} {
		_, p := withIDP(t, nil)
		p.user("1", "a@example.com", true)
		p.SetDocument("jwks_uri", keys)
		same(t, keys, p.signIn("google").fragment.Get("error_code"), "unexpected_failure")
		if log := p.s.log.String(); !strings.Contains(log, "not https") && !strings.Contains(log, "not a public one") {
			t.Errorf("%s: %s", keys, log)
		}
	}
	p := oidctest.New(t)
	client := auth.Outbound("127.0.0.1")
	if _, err := client.Get("http://example.com/"); err == nil {
		t.Error("http leaves the machine")
	}
	other := oidctest.New(t)
	for to, want := range map[string]int{p.URL + "/keys": 200, other.URL + "/keys": 302} {
		res, err := client.Get(p.URL + "/authorize?client_id=" + oidctest.ClientID + "&response_type=code&redirect_uri=" + to)
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		same(t, "redirect to "+to, res.StatusCode, want)
	}
	same(t, "requests to another host", len(other.Requests()), 0)
	if _, err := auth.Outbound("other.example").Get(p.URL + "/keys"); err == nil {
		t.Error("this machine is asked although nobody named it")
	}
}

// The trigger that most projects have runs for users of providers and phones as well,
// and sees what it is written against.
func TestProfileTriggerByProvider(t *testing.T) {
	t.Parallel()
	s, p := withIDP(t, func(c *auth.Config) {
		c.EnablePhone, c.SMS.TestCodes = true, map[string]string{phone: "123456"}
	})
	s.ExecAs("postgres", profiles)
	p.SetUser(object{"sub": "1", "email": "a@example.com", "email_verified": true, "name": "Ann"})
	id := p.subjectOf("google")
	same(t, "provider", s.text("select email || ' ' || name from public.profiles where id = $1", id), "a@example.com Ann")
	same(t, "what the trigger saw", strings.HasPrefix(s.text("select seen from public.profiles where id = $1", id), "|t|{"), true)
	in := s.do("POST", "/token?grant_type=id_token", object{"provider": "google", "id_token": p.IDToken(object{"sub": "2", "email": "b@example.com", "name": "Bob"}, "")}).ok(200)
	same(t, "ID token", s.text("select name from public.profiles where id = $1", in.id()), "Bob")
	s.do("POST", "/otp", object{"phone": phone, "data": object{"name": "Cy"}}).ok(200)
	in = s.verifyText("sms", phone, "123456").ok(200)
	same(t, "phone", s.text("select name from public.profiles where id = $1", in.id()), "Cy")

	s.Exec("create or replace function public.handle_new_user() returns trigger language plpgsql as $$ begin raise exception 'no'; end $$")
	p.SetUser(object{"sub": "3", "email": "c@example.com", "email_verified": true})
	got := p.signIn("google")
	same(t, "refused", []string{got.query.Get("error_code"), got.query.Get("error_description")}, []string{"unexpected_failure", "Database error saving new user"})
	same(t, "users", s.count("select count(*) from auth.users"), 3)
}
