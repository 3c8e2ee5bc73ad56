package auth

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/oauth2"

	"github.com/sluice-dev/sluice"
)

// profile is what a provider tells about a user: the subject, by which the provider
// knows it, what is kept as identity_data, and the addresses.
type profile struct {
	subject string
	data    metadata
	emails  []providerEmail
}

// providerEmail is an address. Verified is the provider's word, and never ours.
type providerEmail struct {
	address  string
	verified bool
	primary  bool
}

// email is the address that the user has here: the provider's primary one.
func (p *profile) email() providerEmail {
	var found providerEmail
	for _, e := range p.emails {
		if found = e; e.primary {
			break
		}
	}
	return found
}

// complete notes subject and address in the data. Addresses that could not be one
// of ours are none.
func (p *profile) complete() error {
	if p.subject == "" {
		return errors.New("the provider names no subject")
	}
	kept := p.emails[:0]
	for _, e := range p.emails {
		address, err := emailOf(e.address)
		if err == nil {
			kept = append(kept, providerEmail{address, e.verified, e.primary})
		}
	}
	p.emails = kept
	email := p.email()
	p.data = p.data.set("sub", p.subject).set("provider_id", p.subject).
		set("email_verified", email.verified).set("phone_verified", false)
	if email.address != "" {
		p.data = p.data.set("email", email.address)
	}
	return p.data.check()
}

// facts makes identity_data of texts; empty ones are left out.
func facts(pairs ...string) metadata {
	m := metadata{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			m = m.set(pairs[i], strings.ToValidUTF8(strings.ReplaceAll(pairs[i+1], "\x00", ""), ""))
		}
	}
	return m
}

// flexible is a boolean that some providers write as a text or a number.
type flexible bool

// UnmarshalJSON takes true, "true", 1 and "1"; anything else is false.
func (f *flexible) UnmarshalJSON(text []byte) error {
	word := strings.Trim(string(text), `"`)
	*f = word == "true" || word == "1"
	return nil
}

// idClaims are the claims of an ID token that we read.
type idClaims struct {
	Email         string    `json:"email"`
	EmailVerified flexible  `json:"email_verified"`
	EmailOwned    *flexible `json:"xms_edov"` // Azure: the tenant owns the address's domain
	Tenant        string    `json:"tid"`      // Azure
	Name          string    `json:"name"`
	FamilyName    string    `json:"family_name"`
	GivenName     string    `json:"given_name"`
	Nickname      string    `json:"nickname"`
	Preferred     string    `json:"preferred_username"`
	Picture       string    `json:"picture"`
	Website       string    `json:"website"`
	Locale        any       `json:"locale"`           // an object at LinkedIn
	Hosted        string    `json:"hd"`               // Google: the organisation's domain
	Private       flexible  `json:"is_private_email"` // Apple: an address that hides the real one
}

// emailRule decides whether an ID token tells that its address is verified.
type emailRule func(p *provider, c idClaims) bool

// azureEmail decides for Azure, whose administrators may write any address into
// their directory. A directory that the project named is trusted; one of somebody
// else must own the address's domain.
func azureEmail(p *provider, c idClaims) bool {
	if c.EmailOwned != nil {
		return bool(*c.EmailOwned)
	}
	tenant := p.base[strings.LastIndexByte(p.base, '/')+1:]
	return tenant != "common" && tenant != "organizations" && tenant != "consumers"
}

// profileOfID reads an ID token that was verified.
func (p *provider) profileOfID(issuer, subject string, c idClaims) (*profile, error) {
	locale, _ := c.Locale.(string)
	out := &profile{subject: subject, data: facts(
		"iss", issuer, "name", c.Name, "full_name", c.Name, "family_name", c.FamilyName, "given_name", c.GivenName,
		"nickname", c.Nickname, "preferred_username", c.Preferred, "picture", c.Picture, "avatar_url", c.Picture,
		"website", c.Website, "locale", locale,
	)}
	more := map[string]any{}
	if c.Hosted != "" {
		more["hd"] = c.Hosted
	}
	if c.Private {
		more["is_private_email"] = true
	}
	if len(more) > 0 {
		out.data = out.data.set("custom_claims", more)
	}
	verified := bool(c.EmailVerified)
	if p.kind.emails != nil {
		verified = p.kind.emails(p, c)
	}
	if c.Email != "" {
		out.emails = []providerEmail{{c.Email, verified, true}}
	}
	return out, out.complete()
}

// reader asks a provider's API who the user of a token is.
type reader func(ctx context.Context, a *apiCaller) (*profile, error)

// apiCaller asks a provider's API with a user's token.
type apiCaller struct {
	client *http.Client
	base   string
	token  string
	secret sluice.Secret
}

// get reads the JSON below a path.
func (a *apiCaller) get(ctx context.Context, path string, into any) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, a.base+path, nil)
	if err != nil {
		return err
	}
	r.Header.Set("Accept", "application/json")
	r.Header.Set("Authorization", "Bearer "+a.token)
	res, err := a.client.Do(r)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	if res.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answers %s", strings.SplitN(path, "?", 2)[0], res.Status)
	}
	return json.NewDecoder(res.Body).Decode(into)
}

// profileOf reads who signed in: from the ID token, or from the API.
func (p *provider) profileOf(ctx context.Context, t *oauth2.Token) (*profile, error) {
	if !p.openID() {
		out, err := p.kind.read(ctx, &apiCaller{p.client, p.api, t.AccessToken, p.Secret})
		if err == nil {
			err = out.complete()
		}
		return out, err
	}
	raw, ok := t.Extra("id_token").(string)
	if !ok {
		return nil, errors.New("the provider sent no ID token")
	}
	tok, c, err := p.verifyID(ctx, raw, t.AccessToken)
	if err != nil {
		return nil, err
	}
	return p.profileOfID(tok.Issuer, tok.Subject, c)
}

func readGitHub(ctx context.Context, a *apiCaller) (*profile, error) {
	var u struct {
		ID     int64  `json:"id"`
		Login  string `json:"login"`
		Name   string `json:"name"`
		Avatar string `json:"avatar_url"`
	}
	if err := a.get(ctx, "/user", &u); err != nil {
		return nil, err
	}
	var emails []struct {
		Email    string `json:"email"`
		Primary  bool   `json:"primary"`
		Verified bool   `json:"verified"`
	}
	if err := a.get(ctx, "/user/emails", &emails); err != nil {
		return nil, err
	}
	out := &profile{data: facts("iss", a.base, "name", u.Name, "full_name", u.Name,
		"preferred_username", u.Login, "user_name", u.Login, "avatar_url", u.Avatar)}
	if u.ID != 0 {
		out.subject = strconv.FormatInt(u.ID, 10)
	}
	for _, e := range emails {
		out.emails = append(out.emails, providerEmail{e.Email, e.Verified, e.Primary})
	}
	return out, nil
}

func readGitLab(ctx context.Context, a *apiCaller) (*profile, error) {
	var u struct {
		ID        int64  `json:"id"`
		Email     string `json:"email"`
		Name      string `json:"name"`
		User      string `json:"username"`
		Avatar    string `json:"avatar_url"`
		Confirmed string `json:"confirmed_at"`
	}
	if err := a.get(ctx, "/api/v4/user", &u); err != nil {
		return nil, err
	}
	out := &profile{data: facts("iss", a.base, "name", u.Name, "full_name", u.Name, "picture", u.Avatar, "avatar_url", u.Avatar,
		"preferred_username", u.User, "user_name", u.User)}
	if u.ID != 0 {
		out.subject = strconv.FormatInt(u.ID, 10)
	}
	if u.Email != "" {
		out.emails = []providerEmail{{u.Email, u.Confirmed != "", true}}
	}
	return out, nil
}

func readDiscord(ctx context.Context, a *apiCaller) (*profile, error) {
	var u struct {
		ID       string `json:"id"`
		Username string `json:"username"`
		Number   string `json:"discriminator"`
		Global   string `json:"global_name"`
		Avatar   string `json:"avatar"`
		Email    string `json:"email"`
		Verified bool   `json:"verified"`
	}
	if err := a.get(ctx, "/api/users/@me", &u); err != nil {
		return nil, err
	}
	picture := ""
	if u.Avatar != "" {
		kind := "png"
		if strings.HasPrefix(u.Avatar, "a_") {
			kind = "gif"
		}
		picture = "https://cdn.discordapp.com/avatars/" + url.PathEscape(u.ID) + "/" + url.PathEscape(u.Avatar) + "." + kind
	}
	out := &profile{subject: u.ID, data: facts("iss", a.base+"/api", "name", u.Username+"#"+u.Number, "full_name", u.Username,
		"picture", picture, "avatar_url", picture).set("custom_claims", map[string]any{"global_name": u.Global})}
	if u.Email != "" {
		out.emails = []providerEmail{{u.Email, u.Verified, true}}
	}
	return out, nil
}

// readFacebook reads a profile. Facebook tells an address only once its owner has
// confirmed it.
func readFacebook(ctx context.Context, a *apiCaller) (*profile, error) {
	mac := hmac.New(sha256.New, []byte(a.secret))
	mac.Write([]byte(a.token))
	var u struct {
		ID      string `json:"id"`
		Email   string `json:"email"`
		Name    string `json:"name"`
		Picture struct {
			Data struct {
				URL string `json:"url"`
			} `json:"data"`
		} `json:"picture"`
	}
	err := a.get(ctx, "/me?fields=email,first_name,last_name,name,picture&appsecret_proof="+hex.EncodeToString(mac.Sum(nil)), &u)
	if err != nil {
		return nil, err
	}
	out := &profile{subject: u.ID, data: facts("iss", a.base, "name", u.Name, "full_name", u.Name,
		"picture", u.Picture.Data.URL, "avatar_url", u.Picture.Data.URL)}
	if u.Email != "" {
		out.emails = []providerEmail{{u.Email, true, true}}
	}
	return out, nil
}

// readX reads a profile with the one address that X tells: the confirmed one.
func readX(ctx context.Context, a *apiCaller) (*profile, error) {
	var u struct {
		Data struct {
			ID      string `json:"id"`
			Name    string `json:"name"`
			User    string `json:"username"`
			Picture string `json:"profile_image_url"`
			Email   string `json:"confirmed_email"`
		} `json:"data"`
	}
	if err := a.get(ctx, "/2/users/me?user.fields=confirmed_email,id,name,profile_image_url,username", &u); err != nil {
		return nil, err
	}
	d := u.Data
	out := &profile{subject: d.ID, data: facts("iss", a.base, "name", d.Name, "full_name", d.Name,
		"preferred_username", d.User, "user_name", d.User, "picture", d.Picture, "avatar_url", d.Picture)}
	if d.Email != "" {
		out.emails = []providerEmail{{d.Email, true, true}}
	}
	return out, nil
}
