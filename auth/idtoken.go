package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"github.com/google/uuid"

	"github.com/sluice-dev/sluice/pg"
)

// issuers are those whose ID tokens the original takes by client and issuer.
var issuers = map[string]string{
	"https://accounts.google.com": "google",
	"https://appleid.apple.com":   "apple",
	"https://kauth.kakao.com":     "kakao",
	"https://www.facebook.com":    "facebook",
	"https://facebook.com":        "facebook",
}

type idTokenBody struct {
	Provider string `json:"provider"`
	ClientID string `json:"client_id"`
	Issuer   string `json:"issuer"`
	IDToken  string `json:"id_token"`
	Access   string `json:"access_token"`
	Nonce    string `json:"nonce"`
	Link     bool   `json:"link_identity"`
}

// idTokenGrant answers grant_type=id_token: a token that an application got from the
// provider by itself, as those of phones do.
func (s *Server) idTokenGrant(w http.ResponseWriter, r *http.Request) error {
	var body idTokenBody
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	p, err := s.providerOfToken(&body)
	if err != nil {
		return err
	}
	link := uuid.Nil
	if body.Link {
		c, err := s.linker(r)
		if err != nil {
			return err
		}
		link = c.ID
	}
	ctx := r.Context()
	who, err := s.readIDToken(ctx, p, &body)
	if err != nil {
		return err
	}
	var g *grant
	err = s.again(func() error {
		g, err = s.concludeIDToken(ctx, r, &accounts{s: s, r: r, provider: p.name, who: who}, link)
		return err
	})
	if err != nil {
		return databaseError(err, errSavingNewUser)
	}
	return s.respond(w, r, g, nil)
}

// providerOfToken finds the provider that a request names, by name or by issuer.
func (s *Server) providerOfToken(body *idTokenBody) (*provider, error) {
	switch {
	case body.IDToken == "":
		return nil, errIDTokenMissing
	case body.Provider == "" && (body.ClientID == "" || body.Issuer == ""):
		return nil, errIDTokenProvider
	case body.Provider == "":
		body.Provider = issuers[strings.TrimRight(body.Issuer, "/")]
		p := s.providers[body.Provider]
		if p == nil {
			return nil, errProviderIssuer.with(body.Issuer)
		}
		return p, nil
	}
	kind, known := kindOf(body.Provider)
	if !known || kind.authorize != "" && body.Provider != "facebook" {
		return nil, errProviderUnknown.with(body.Provider)
	}
	if p := s.providers[body.Provider]; p != nil {
		return p, nil
	}
	return nil, errProviderIssuer.with(kind.base)
}

// readIDToken verifies the token and its nonce.
func (s *Server) readIDToken(ctx context.Context, p *provider, body *idTokenBody) (*profile, error) {
	tok, claims, err := p.verifyID(ctx, body.IDToken, body.Access)
	var foreign *audienceError
	switch {
	case errors.As(err, &foreign):
		return nil, oauthError("invalid request", fmt.Sprintf("Unacceptable audience in id_token: %v", foreign.audience))
	case err != nil:
		return nil, oauthError("invalid request", "Bad ID token").because(err)
	case tok.Subject == "":
		return nil, oauthError("invalid request", "Missing sub claim in id_token")
	}
	if !p.SkipNonceCheck {
		if (body.Nonce == "") != (tok.Nonce == "") {
			return nil, oauthError("invalid request", "Passed nonce and nonce in id_token should either both exist or not.")
		}
		sum := sha256.Sum256([]byte(body.Nonce))
		want := hex.EncodeToString(sum[:])
		if body.Nonce != "" && subtle.ConstantTimeCompare([]byte(want), []byte(tok.Nonce)) != 1 {
			return nil, oauthError("invalid nonce", "Nonces mismatch")
		}
	}
	who, err := p.profileOfID(tok.Issuer, tok.Subject, claims)
	if err != nil {
		return nil, err
	}
	if who.email().address == "" && !p.EmailOptional {
		return nil, errTokenEmail
	}
	return who, nil
}

// oauthError is a refusal in the form of OAuth 2.
func oauthError(code, text string) *apiError {
	return &apiError{status: http.StatusBadRequest, oauth: true, code: code, message: text}
}

// concludeIDToken is one transaction: the account and its session. That an address
// must be confirmed first is stored, although it is an error.
func (s *Server) concludeIDToken(ctx context.Context, r *http.Request, a *accounts, link uuid.UUID) (*grant, error) {
	var g *grant
	var refused *unconfirmed
	err := s.inAccountTx(ctx, a.who, func(tx pg.Tx) error {
		a.tx = tx
		var u *user
		var err error
		if link != uuid.Nil {
			u, err = a.link(ctx, link)
		} else {
			u, err = a.signIn(ctx)
		}
		switch {
		case errors.As(err, &refused):
			return nil
		case err != nil:
			return err
		}
		g, err = s.signIn(ctx, tx, u, byOAuth, s.clientOf(r))
		return err
	})
	if err == nil && refused != nil {
		return nil, refused.answer
	}
	return g, err
}
