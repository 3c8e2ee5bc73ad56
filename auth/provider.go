package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/coreos/go-oidc/v3/oidc"
	"golang.org/x/oauth2"

	"github.com/sluice-dev/sluice"
)

// Provider is where users of the project may sign in: one of the known names, or
// custom:NAME for any OpenID provider.
type Provider struct {
	// ClientID is the project's name there. Several, separated by commas, are
	// accepted in ID tokens; the first is used to sign in. Required.
	ClientID string
	// Secret of the client.
	Secret sluice.Secret
	// RedirectURI is where the provider sends browsers back.
	// Default ExternalURL + /callback.
	RedirectURI string
	// URL replaces the provider's own address: a company's GitLab, the realm of a
	// Keycloak, the tenant of an Azure, the issuer of custom:NAME.
	URL string
	// SkipNonceCheck takes ID tokens whatever their nonce is.
	SkipNonceCheck bool
	// EmailOptional lets users in of whom the provider tells no address.
	EmailOptional bool
}

// customPrefix begins the name of a provider that the project describes.
const customPrefix = "custom:"

// providerKind is a row of the table of providers: where one is, and how it is read.
// One without authorize is an OpenID provider, whose document at base names the rest.
type providerKind struct {
	base       string // address; the setting's URL replaces it
	issuerPath string // below base, where the document is
	authorize  string // path below base
	token      string // path below base, or below api when it begins with "api:"
	api        string // address of the API, where it is another one
	apiPath    string // path of the API below a URL of the settings
	scopes     []string
	basic      bool       // the client's secret goes in a header
	pkce       bool       // requires a challenge of ours
	params     url.Values // of the redirect
	read       reader     // asks the API who the user is
	emails     emailRule  // decides about the address in an ID token
}

// kinds is the table.
var kinds = map[string]providerKind{
	"apple": {
		base: "https://appleid.apple.com", scopes: []string{"email", "name"},
		params: url.Values{"response_mode": {"form_post"}},
	},
	"azure":         {base: "https://login.microsoftonline.com/common", issuerPath: "/v2.0", scopes: []string{"openid", "email", "profile"}, emails: azureEmail},
	"google":        {base: "https://accounts.google.com", scopes: []string{"openid", "email", "profile"}},
	"kakao":         {base: "https://kauth.kakao.com", scopes: []string{"openid", "account_email", "profile_image", "profile_nickname"}},
	"keycloak":      {scopes: []string{"openid", "email", "profile"}},
	"linkedin_oidc": {base: "https://www.linkedin.com/oauth", scopes: []string{"openid", "email", "profile"}},
	"slack_oidc":    {base: "https://slack.com", scopes: []string{"openid", "email", "profile"}},
	"discord": {
		base: "https://discord.com", authorize: "/api/oauth2/authorize", token: "/api/oauth2/token",
		scopes: []string{"email", "identify"}, read: readDiscord,
	},
	"facebook": {
		base: "https://www.facebook.com", authorize: "/dialog/oauth", token: "api:/oauth/access_token", api: "https://graph.facebook.com",
		scopes: []string{"email"}, read: readFacebook,
	},
	"github": {
		base: "https://github.com", authorize: "/login/oauth/authorize", token: "/login/oauth/access_token",
		api: "https://api.github.com", apiPath: "/api/v3", scopes: []string{"user:email"}, read: readGitHub,
	},
	"gitlab": {
		base: "https://gitlab.com", authorize: "/oauth/authorize", token: "/oauth/token", scopes: []string{"read_user"}, read: readGitLab,
	},
	"x": {
		base: "https://x.com", authorize: "/i/oauth2/authorize", token: "api:/2/oauth2/token", api: "https://api.x.com", basic: true, pkce: true,
		scopes: []string{"users.email", "tweet.read", "users.read", "offline.access"}, read: readX,
	},
}

// customKind is any OpenID provider.
var customKind = providerKind{scopes: []string{"openid", "email", "profile"}}

// providerNames are those that clients know. Which of them are not in the table
// answers as one that is off.
var providerNames = []string{
	"apple", "azure", "bitbucket", "discord", "facebook", "snapchat", "figma", "fly", "github", "gitlab", "google",
	"keycloak", "kakao", "linkedin", "linkedin_oidc", "notion", "spotify", "slack", "slack_oidc", "workos", "twitch",
	"twitter", "x", "zoom", "vercel_marketplace",
}

// provider is a Provider that is on.
type provider struct {
	// fixed after newProvider
	Provider
	name   string
	kind   providerKind
	base   string
	api    string
	client *http.Client // asks the provider
	now    func() time.Time

	// owned by who took the turn: one request is enough for all who wait
	turn    chan struct{}
	doc     *openIDDocument
	docTime time.Time
}

// openIDDocument is what an OpenID provider says about itself.
type openIDDocument struct {
	provider *oidc.Provider
	Issuer   string   `json:"issuer"`
	Auth     []string `json:"token_endpoint_auth_methods_supported"`
	PKCE     []string `json:"code_challenge_methods_supported"`
}

// documentLife is how long a document counts, as in the original.
const documentLife = time.Hour

// kindOf finds the row of a provider's name.
func kindOf(name string) (providerKind, bool) {
	if strings.HasPrefix(name, customPrefix) && len(name) > len(customPrefix) {
		return customKind, true
	}
	kind, found := kinds[name]
	return kind, found
}

// Serves reports whether there is a provider of this name.
func Serves(name string) bool {
	_, found := kindOf(name)
	return found
}

func newProvider(name string, p Provider, callback string, now func() time.Time) (*provider, error) {
	kind, found := kindOf(name)
	p.URL = strings.TrimRight(p.URL, "/")
	switch {
	case !found:
		return nil, errors.New("it is not served; write custom:NAME for an OpenID provider")
	case p.ClientID == "":
		return nil, errors.New("client_id is missing")
	case p.URL == "" && kind.base == "":
		return nil, errors.New("url is missing: the address of the issuer")
	}
	out := &provider{Provider: p, name: name, kind: kind, base: kind.base, api: kind.api, now: now, turn: make(chan struct{}, 1)}
	if p.URL != "" {
		out.base, out.api = p.URL, p.URL+kind.apiPath
	}
	if out.api == "" {
		out.api = out.base
	}
	if out.RedirectURI == "" {
		out.RedirectURI = callback
	}
	for _, address := range []string{out.base, out.RedirectURI} {
		u, err := url.Parse(address)
		if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			return nil, fmt.Errorf("%q is no web address", address)
		}
		if address == out.base && u.Scheme == "http" && !isLoopback(u.Hostname()) {
			return nil, fmt.Errorf("%q is http; secrets travel by https, except on this machine", address)
		}
	}
	out.client = outbound(hostOf(out.base), hostOf(out.api))
	return out, nil
}

func (p *provider) openID() bool { return p.kind.authorize == "" }

// clientIDs are those whose ID tokens are accepted, the first is the one that signs in.
func (p *provider) clientIDs() []string {
	ids := strings.Split(p.ClientID, ",")
	for i := range ids {
		ids[i] = strings.TrimSpace(ids[i])
	}
	return ids
}

// reach gives ctx the client that asks the provider.
func (p *provider) reach(ctx context.Context) context.Context {
	return context.WithValue(ctx, oauth2.HTTPClient, p.client)
}

// document reads what an OpenID provider says about itself, or remembers it.
func (p *provider) document(ctx context.Context) (*openIDDocument, error) {
	select {
	case p.turn <- struct{}{}:
		defer func() { <-p.turn }()
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	if p.doc != nil && p.now().Sub(p.docTime) < documentLife {
		return p.doc, nil
	}
	address := p.base + p.kind.issuerPath
	if p.name == "facebook" {
		address = p.base // signs in without OpenID, and issues ID tokens to apps
	}
	ctx = p.reach(ctx)
	if p.name == "azure" {
		// One document for all tenants names no issuer: checkIssuer compares.
		ctx = oidc.InsecureIssuerURLContext(ctx, address)
	}
	found, err := oidc.NewProvider(ctx, address)
	if err != nil {
		return nil, fmt.Errorf("read the document of %s: %w", address, err)
	}
	doc := &openIDDocument{provider: found}
	if err := found.Claims(doc); err != nil {
		return nil, fmt.Errorf("read the document of %s: %w", address, err)
	}
	if p.name == "azure" && hostOf(doc.Issuer) != hostOf(p.base) {
		return nil, fmt.Errorf("the document of %s names the issuer %q", address, doc.Issuer)
	}
	p.doc, p.docTime = doc, p.now()
	return doc, nil
}

// oauth describes the provider to the OAuth 2 library. challenge tells whether the
// provider takes a challenge of ours (PKCE).
func (p *provider) oauth(ctx context.Context, more []string) (c oauth2.Config, challenge bool, err error) {
	c = oauth2.Config{
		ClientID: p.clientIDs()[0], ClientSecret: string(p.Secret), RedirectURL: p.RedirectURI,
		Scopes: slices.Clone(p.kind.scopes),
	}
	for _, scope := range more {
		if !slices.Contains(c.Scopes, scope) {
			c.Scopes = append(c.Scopes, scope)
		}
	}
	if !p.openID() {
		token, onAPI := strings.CutPrefix(p.kind.token, "api:")
		c.Endpoint = oauth2.Endpoint{AuthURL: p.base + p.kind.authorize, TokenURL: p.base + token, AuthStyle: oauth2.AuthStyleInParams}
		if onAPI {
			c.Endpoint.TokenURL = p.api + token
		}
		if p.kind.basic {
			c.Endpoint.AuthStyle = oauth2.AuthStyleInHeader
		}
		return c, p.kind.pkce, nil
	}
	doc, err := p.document(ctx)
	if err != nil {
		return c, false, err
	}
	c.Endpoint = doc.provider.Endpoint()
	c.Endpoint.AuthStyle = oauth2.AuthStyleInHeader // the default where the document is silent
	if slices.Contains(doc.Auth, "client_secret_post") {
		c.Endpoint.AuthStyle = oauth2.AuthStyleInParams
	}
	return c, slices.Contains(doc.PKCE, "S256"), nil
}

// tenantMark stands in Azure's document in place of the tenant.
const tenantMark = "{tenantid}"

// verifyID checks an ID token: its signature by the provider's keys, issuer,
// audience, expiry, and at_hash when an access token came with it.
func (p *provider) verifyID(ctx context.Context, raw, access string) (*oidc.IDToken, idClaims, error) {
	var c idClaims
	doc, err := p.document(ctx)
	if err != nil {
		return nil, c, err
	}
	ctx = p.reach(ctx)
	azure := p.name == "azure"
	tok, err := doc.provider.Verifier(&oidc.Config{SkipClientIDCheck: true, SkipIssuerCheck: azure, Now: p.now}).Verify(ctx, raw)
	if err != nil {
		return nil, c, err
	}
	if err := tok.Claims(&c); err != nil {
		return nil, c, err
	}
	if want := strings.ReplaceAll(doc.Issuer, tenantMark, c.Tenant); azure && tok.Issuer != want {
		return nil, c, fmt.Errorf("issuer %q is not %q", tok.Issuer, want)
	}
	if !slices.ContainsFunc(tok.Audience, func(aud string) bool { return aud != "" && slices.Contains(p.clientIDs(), aud) }) {
		return nil, c, &audienceError{tok.Audience}
	}
	if access != "" && tok.AccessTokenHash != "" {
		if err := tok.VerifyAccessToken(access); err != nil {
			return nil, c, err
		}
	}
	return tok, c, nil
}

// audienceError tells for whom an ID token was issued, which is not us.
type audienceError struct{ audience []string }

func (e *audienceError) Error() string { return fmt.Sprintf("unacceptable audience %q", e.audience) }

// provider finds one by the name in a request.
func (s *Server) provider(name string) (*provider, error) {
	if p := s.providers[name]; p != nil {
		return p, nil
	}
	if slices.Contains(providerNames, name) || strings.HasPrefix(name, customPrefix) {
		return nil, errProviderOff
	}
	return nil, errProviderName.with(name)
}
