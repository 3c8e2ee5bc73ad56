package auth

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"
	"golang.org/x/oauth2"

	"github.com/sluice-dev/sluice/pg"
)

// byOAuth is the method of claim amr.
const byOAuth = "oauth"

// authorize answers GET /authorize, which a browser opens: it sends it on to the
// provider.
func (s *Server) authorize(w http.ResponseWriter, r *http.Request) error {
	address, err := s.beginOAuth(r, uuid.Nil)
	if err != nil {
		return err
	}
	return sendTo(w, r, http.StatusFound, address)
}

// ownParameters are those of a request's query that are meant for us.
var ownParameters = []string{
	"provider", "scopes", "redirect_to", "invite_token", "skip_http_redirect", "apikey", "sb_flow_id",
	// reserved: the provider must get ours
	"client_id", "client_secret", "redirect_uri", "response_type", "state", "code_challenge", "code_challenge_method", "code_verifier",
	// what would change how the answer comes back, or replace the query as a whole
	"response_mode", "request", "request_uri", "registration",
}

// beginOAuth remembers a sign-in that begins and returns the address of the provider.
// link is the user who links an identity, the nil UUID for a sign-in.
func (s *Server) beginOAuth(r *http.Request, link uuid.UUID) (string, error) {
	q := r.URL.Query()
	p, err := s.provider(q.Get("provider"))
	if err != nil {
		return "", err
	}
	f, err := flowOf(q.Get("code_challenge_method"), q.Get("code_challenge"))
	if err != nil {
		return "", err
	}
	ctx := r.Context()
	invite := q.Get("invite_token")
	if invite != "" {
		if err := s.checkInvite(ctx, invite); err != nil {
			return "", err
		}
	}
	c, challenge, err := p.oauth(ctx, strings.Fields(q.Get("scopes")))
	if err != nil {
		return "", errProviderReach.because(err)
	}
	id, verifier := uuid.New(), ""
	var options []oauth2.AuthCodeOption
	if challenge {
		verifier = oauth2.GenerateVerifier()
		options = append(options, oauth2.S256ChallengeOption(verifier))
	}
	err = s.inTx(ctx, func(tx pg.Tx) error {
		var ours *uuid.UUID
		if verifier != "" {
			state := uuid.New()
			ours = &state
			if err := exec(ctx, tx, "oauth_state_insert", state, p.name, verifier, s.cfg.Now()); err != nil {
				return err
			}
		}
		var target *uuid.UUID
		if link != uuid.Nil {
			target = &link
		}
		return exec(ctx, tx, "flow_begin_oauth", id, uuid.NewString(), f.method, f.challenge, p.name,
			s.redirectTarget(r), invite, target, ours, p.EmailOptional, s.cfg.Now())
	})
	if err != nil {
		return "", databaseError(err, errUnexpected)
	}
	for name, values := range p.kind.params {
		options = append(options, oauth2.SetAuthURLParam(name, values[0]))
	}
	for name, values := range q {
		if !slices.Contains(ownParameters, strings.ToLower(name)) {
			options = append(options, oauth2.SetAuthURLParam(name, values[0]))
		}
	}
	return c.AuthCodeURL(id.String(), options...), nil
}

// checkInvite refuses a token that invites nobody.
func (s *Server) checkInvite(ctx context.Context, token string) error {
	return s.inTx(ctx, func(tx pg.Tx) error {
		_, err := s.proveByHash(ctx, tx, token, []purpose{toConfirm})
		if errors.Is(err, errLinkExpired) {
			return errInviteToken
		}
		return err
	})
}

// comeback is what a provider sends the browser back with.
type comeback struct {
	state, code        string
	failed, failedText string // error and error_description
	user               string // of Apple, once: the name
}

func readComeback(w http.ResponseWriter, r *http.Request) comeback {
	get := r.URL.Query().Get
	if r.Method == http.MethodPost {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		if r.ParseForm() == nil {
			get = r.Form.Get
		}
	}
	return comeback{get("state"), get("code"), get("error"), get("error_description"), get("user")}
}

// callback answers /callback, the end of a sign-in with a provider. A state that is
// no flow of ours leads to the site with an error, anything else to where the flow
// came from.
func (s *Server) callback(w http.ResponseWriter, r *http.Request) error {
	back := readComeback(w, r)
	if back.state == "" {
		return errNoState
	}
	f, err := s.takeFlow(r.Context(), back.state)
	if err != nil {
		return sendTo(w, r, http.StatusSeeOther, landing(s.cfg.SiteURL, s.errorValues(r, err), nil))
	}
	target := f.target
	if !s.redirects.allow(target) {
		target = s.cfg.SiteURL
	}
	values, code, err := s.endOAuth(r, f, back)
	switch {
	case err != nil:
		query := s.errorValues(r, err)
		fragment := url.Values{"sb": {""}}
		for name, value := range query {
			fragment[name] = value
		}
		return sendTo(w, r, http.StatusFound, landing(target, query, fragment))
	case code != "":
		return sendTo(w, r, http.StatusFound, landing(target, url.Values{"code": {code}}, nil))
	}
	return sendTo(w, r, http.StatusFound, landing(target, nil, values))
}

// oauthFlow is a sign-in with a provider that began.
type oauthFlow struct {
	id            uuid.UUID
	provider      string
	flow          flow
	target        string
	invite        string
	link          *uuid.UUID // who links an identity
	emailOptional bool
	verifier      string // of our own challenge to the provider
}

// takeFlow uses a state: of two who come with it, one finds it used.
func (s *Server) takeFlow(ctx context.Context, state string) (*oauthFlow, error) {
	id, ok := parseUUID(state)
	if !ok {
		return nil, errStateForm
	}
	f := &oauthFlow{id: id}
	var created time.Time
	var used *time.Time
	err := s.inTx(ctx, func(tx pg.Tx) error {
		err := tx.QueryRow(ctx, sql("flow_lock_oauth"), id).Scan(&f.provider, &f.flow.method, &f.flow.challenge,
			&f.target, &f.invite, &f.link, &f.emailOptional, &f.verifier, &created, &used)
		switch {
		case errors.Is(err, pgx.ErrNoRows):
			return errStateGone
		case err != nil:
			return pg.Wrap(err, "flow_lock_oauth")
		case used != nil:
			return errStateUsed
		case s.cfg.Now().After(created.Add(flowLife)):
			return errStateExpired
		}
		return exec(ctx, tx, "flow_used", id, s.cfg.Now())
	})
	if err != nil {
		return nil, databaseError(err, errUnexpected)
	}
	return f, nil
}

// errProviderSays is what a provider answers in place of a code, in its own words.
type errProviderSays struct{ word, text string }

func (e *errProviderSays) Error() string { return e.word + ": " + e.text }

// endOAuth asks the provider who came back and signs in: values is the fragment of an
// implicit flow, code that of a PKCE flow.
func (s *Server) endOAuth(r *http.Request, f *oauthFlow, back comeback) (values url.Values, code string, err error) {
	switch {
	case back.failed != "":
		return nil, "", &errProviderSays{back.failed, back.failedText}
	case back.code == "":
		return nil, "", errNoOAuthCode
	}
	ctx := r.Context()
	p, err := s.provider(f.provider)
	if err != nil {
		return nil, "", err
	}
	tok, who, err := s.askProvider(ctx, p, f, back)
	if err != nil {
		return nil, "", err
	}
	var g *grant
	err = s.again(func() error {
		code = ""
		g, code, err = s.concludeOAuth(ctx, r, p, f, who, tok)
		return err
	})
	if err != nil || code != "" {
		return nil, code, err
	}
	t, err := s.issue(ctx, g)
	if err != nil {
		return nil, "", err
	}
	values = fragmentOf(t)
	values.Set("provider_token", tok.AccessToken)
	if tok.RefreshToken != "" {
		values.Set("provider_refresh_token", tok.RefreshToken)
	}
	values.Set("sb", "")
	return values, "", nil
}

// askProvider exchanges the provider's code and reads whose it is.
func (s *Server) askProvider(ctx context.Context, p *provider, f *oauthFlow, back comeback) (*oauth2.Token, *profile, error) {
	c, _, err := p.oauth(ctx, nil)
	if err != nil {
		return nil, nil, errProviderReach.because(err)
	}
	var options []oauth2.AuthCodeOption
	if f.verifier != "" {
		options = append(options, oauth2.VerifierOption(f.verifier))
	}
	tok, err := c.Exchange(p.reach(ctx), back.code, options...)
	if err != nil {
		return nil, nil, errExchangeCode.with(cutTo(strings.ToValidUTF8(back.code, ""), 4)).because(redactOAuth(err))
	}
	who, err := p.profileOf(ctx, tok)
	if err != nil {
		return nil, nil, errProviderProfile.because(err)
	}
	who.nameFromApple(p, back.user)
	if who.email().address == "" && !f.emailOptional {
		return nil, nil, errProviderEmail
	}
	return tok, who, nil
}

// redactOAuth keeps of a failed exchange what an operator needs: the provider's body
// may hold tokens.
func redactOAuth(err error) error {
	var refused *oauth2.RetrieveError
	if !errors.As(err, &refused) {
		return err
	}
	text := "the provider's token endpoint"
	if refused.Response != nil {
		text += " answers " + refused.Response.Status
	}
	return errors.New(text + " " + refused.ErrorCode + " " + refused.ErrorDescription)
}

// nameFromApple takes the name that Apple sends with the first sign-in alone, and
// not in the ID token. It comes by way of the browser: a name, and nothing else.
func (p *profile) nameFromApple(from *provider, text string) {
	var sent struct {
		Name struct {
			First string `json:"firstName"`
			Last  string `json:"lastName"`
		} `json:"name"`
	}
	if from.name != "apple" || text == "" || len(text) > maxName*4 || json.Unmarshal([]byte(text), &sent) != nil {
		return
	}
	if name := strings.TrimSpace(sent.Name.First + " " + sent.Name.Last); name != "" {
		p.data = p.data.merge(facts("name", name, "full_name", name))
	}
}

// again runs fn once more when another request made the same user or identity at the
// same time: then there is one to be found.
func (s *Server) again(fn func() error) error {
	err := fn()
	if uniqueViolation(err) != "" {
		err = fn()
	}
	return err
}

// concludeOAuth is one transaction: the account, and the session or the code. An
// answer that asks for a confirmation first is stored although it is an error.
func (s *Server) concludeOAuth(ctx context.Context, r *http.Request, p *provider, f *oauthFlow, who *profile, tok *oauth2.Token) (g *grant, code string, err error) {
	var refused error
	var linked *user
	err = s.inAccountTx(ctx, who, func(tx pg.Tx) error {
		a := &accounts{s: s, tx: tx, r: r, provider: p.name, who: who}
		var u *user
		var err error
		switch {
		case f.link != nil:
			u, err = a.link(ctx, *f.link)
			linked = u
		case f.invite != "":
			u, err = a.acceptInvite(ctx, f.invite)
		default:
			u, err = a.signIn(ctx)
		}
		if errors.As(err, new(*unconfirmed)) {
			refused = err
			return exec(ctx, tx, "flow_delete", f.id)
		}
		if err != nil {
			return err
		}
		if f.flow.pkce() {
			err := tx.QueryRow(ctx, sql("flow_issue_oauth"), f.id, u.ID, tok.AccessToken, tok.RefreshToken, s.cfg.Now()).Scan(&code)
			if errors.Is(err, pgx.ErrNoRows) {
				return errStateGone // the user's sessions were ended
			}
			return pg.Wrap(err, "flow_issue_oauth")
		}
		switch there, err := changed(ctx, tx, "flow_delete", f.id); {
		case err != nil:
			return err
		case !there:
			return errStateGone // the same
		}
		g, err = s.signIn(ctx, tx, u, byOAuth, s.clientOf(r))
		return err
	})
	if err == nil && refused != nil {
		return nil, "", refused.(*unconfirmed).answer
	}
	if err == nil && linked != nil {
		s.notify(ctx, linked, letter{template: "identity_linked", to: linked.Email, provider: p.name})
	}
	if uniqueViolation(err) != "" {
		return nil, "", err
	}
	return g, code, databaseError(err, errSavingNewUser)
}

// fragmentOf is a token response as an application reads it from its address.
func fragmentOf(t *tokenResponse) url.Values {
	return url.Values{
		"access_token": {t.AccessToken}, "token_type": {t.TokenType}, "refresh_token": {t.RefreshToken},
		"expires_in": {strconv.FormatInt(t.ExpiresIn, 10)}, "expires_at": {strconv.FormatInt(t.ExpiresAt, 10)},
	}
}
