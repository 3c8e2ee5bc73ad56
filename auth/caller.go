package auth

import (
	"cmp"
	"encoding/json"
	"errors"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

// caller is the user who sent a request with an access token.
type caller struct {
	*user
	// session is nil for a token without claim session_id.
	session *session
	claims  sluice.Claims
}

// sessionID is the nil UUID without a session.
func (c *caller) sessionID() uuid.UUID {
	if c.session == nil {
		return uuid.Nil
	}
	return c.session.id
}

// caller checks the bearer token of a user route against the database: user and
// session must still be there, and the user not banned.
func (s *Server) caller(r *http.Request) (*caller, error) {
	id, err := bearer(r)
	if err != nil {
		return nil, err
	}
	if err := s.plausible(id.Claims); err != nil {
		return nil, err
	}
	c := &caller{claims: id.Claims}
	if id.Claims.Subject == "" {
		return nil, errNoSubject
	}
	sub, ok := parseUUID(id.Claims.Subject)
	if !ok {
		return nil, errSubjectForm
	}
	ctx := r.Context()
	switch c.user, err = loadUser(ctx, s.cfg.Pool, sub); {
	case errors.Is(err, sluice.ErrNotFound):
		return nil, errSubjectGone
	case err != nil:
		return nil, err
	}
	if c.session, err = s.claimedSession(r, id.Claims); err != nil {
		return nil, err
	}
	if c.session != nil && c.session.userID != sub {
		return nil, errSessionGone
	}
	if c.banned(s.cfg.Now()) {
		return nil, errBannedBearer
	}
	return c, nil
}

// clockSkew is how far the clock of another node may be ahead.
const clockSkew = 10 * time.Second

// plausible refuses a token in our name that we cannot have issued: for longer than
// any setting allows, or in the future. Whoever has the secret and makes such tokens
// has made a mistake, or should not have it.
func (s *Server) plausible(c sluice.Claims) error {
	var own struct {
		Issuer string  `json:"iss"`
		Issued float64 `json:"iat"`
	}
	if json.Unmarshal(c.JSON, &own) != nil || own.Issuer != s.cfg.Issuer {
		return nil
	}
	now := s.cfg.Now()
	switch {
	case c.ExpiresAt.After(now.Add(maxJWTExpiry + clockSkew)):
		return errBadJWT.with("token has invalid claims: token lives too long")
	case own.Issued > float64(now.Add(clockSkew).Unix()):
		return errBadJWT.with("token has invalid claims: token used before issued")
	}
	return nil
}

// bearer returns the identity of a request that carries a valid bearer token.
// An opaque API key in its place has an identity, but names no user.
func bearer(r *http.Request) (sluice.Identity, error) {
	id, _ := sluice.IdentityFrom(r.Context())
	switch {
	case id.Bearer != "" && id.BearerErr != nil:
		return id, badJWT(id.BearerErr)
	case id.Bearer != "":
		return id, nil
	case hasBearer(r):
		return id, errNoSubject
	}
	return id, errNoBearer
}

// hasBearer reports whether an Authorization header was sent at all, which
// decides only between two refusals: who asks is the gateway's word alone.
func hasBearer(r *http.Request) bool {
	scheme, tok, _ := strings.Cut(strings.TrimSpace(r.Header.Get("Authorization")), " ")
	return strings.EqualFold(scheme, "bearer") && strings.TrimSpace(tok) != ""
}

// badJWT says why a token did not verify, in the original's words.
func badJWT(why *sluice.Refusal) error {
	detail := "token is unverifiable: no key for its algorithm and key id"
	switch {
	case errors.Is(why, sluice.ErrTokenExpired):
		detail = "token has invalid claims: token is expired"
	case errors.Is(why, sluice.ErrTokenForm), why.Code == sluice.CodeMalformedJWT:
		detail = "token is malformed"
	case errors.Is(why, sluice.ErrTokenSignature), why.Code == sluice.CodeJwtSignatureError:
		detail = "token signature is invalid: signature is invalid"
	case errors.Is(why, sluice.ErrTokenClaims), why.Code == sluice.CodeInvalidJWTToken:
		detail = "token has invalid claims: a claim is missing or of the wrong type"
	}
	return errBadJWT.with(detail).because(why)
}

// claimedSession reads the session that the claims name; nil when they name none.
func (s *Server) claimedSession(r *http.Request, c sluice.Claims) (*session, error) {
	if c.SessionID == "" || c.SessionID == uuid.Nil.String() {
		return nil, nil
	}
	id, ok := parseUUID(c.SessionID)
	if !ok {
		return nil, errSessionForm
	}
	rows, _ := s.cfg.Pool.Query(r.Context(), sql("session_by_id"), id) // its error is also the rows'
	sess, err := pgx.CollectExactlyOneRow(rows, scanSession)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, errSessionGone
	}
	return sess, pg.Wrap(err, "session_by_id")
}

// admin guards a route of the administration: the role of the verified identity,
// which an API key has too.
func (s *Server) admin(next answer) answer {
	return func(w http.ResponseWriter, r *http.Request) error {
		id, _ := sluice.IdentityFrom(r.Context())
		if id.Bearer != "" && id.BearerErr != nil {
			return badJWT(id.BearerErr)
		}
		if !slices.Contains(s.cfg.AdminRoles, id.Claims.Role) {
			if id.Bearer == "" && !hasBearer(r) {
				return errNoBearer
			}
			return errNotAdmin
		}
		sess, err := s.claimedSession(r, id.Claims)
		if err != nil {
			return err
		}
		if sess != nil {
			switch err := s.sessionValid(r.Context(), s.cfg.Pool, sess); {
			case errors.As(err, new(*apiError)):
				return errSessionInvalid.because(err)
			case err != nil:
				return err
			}
		}
		return next(w, r)
	}
}

// audience is the audience that a request asks about: whose users are looked for.
func (s *Server) audience(r *http.Request) string { return cmp.Or(namedAudience(r), s.cfg.Aud) }

// namedAudience is the audience that a request names, which clients need not.
func namedAudience(r *http.Request) string {
	aud := r.Header.Get("X-JWT-AUD")
	if len(aud) > maxName || !utf8.ValidString(aud) {
		return ""
	}
	return aud
}

// meant reports whether the caller is of the audience that its request names.
func (c *caller) meant(r *http.Request) bool {
	aud := audienceOf(c.claims)
	return aud != "" && aud == cmp.Or(namedAudience(r), aud)
}

// audienceOf returns the first aud of claims, which may be a string or a list.
func audienceOf(c sluice.Claims) string {
	var one struct {
		Aud string `json:"aud"`
	}
	if json.Unmarshal(c.JSON, &one) == nil {
		return one.Aud
	}
	var many struct {
		Aud []string `json:"aud"`
	}
	if json.Unmarshal(c.JSON, &many) == nil && len(many.Aud) > 0 {
		return many.Aud[0]
	}
	return ""
}

// parseUUID takes the one form that clients send.
func parseUUID(s string) (uuid.UUID, bool) {
	if len(s) != 36 {
		return uuid.Nil, false
	}
	id, err := uuid.Parse(s)
	return id, err == nil
}
