package auth

import (
	"context"
	"crypto/subtle"
	"errors"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice/pg"
)

const (
	// challengeLife is how long a challenge waits for its code, and how long a
	// factor that nobody challenged stays unverified.
	challengeLife = 5 * time.Minute
	// codesAtOnce is how many codes a factor takes in challengeLife, right or wrong;
	// further ones are refused unread.
	codesAtOnce = 10
)

// factorCaller is the caller of a factor's routes. Who has no address has no second
// factor either.
func (s *Server) factorCaller(r *http.Request) (*caller, error) {
	c, err := s.caller(r)
	if err == nil && c.IsAnonymous {
		err = errAnonymousBearer
	}
	return c, err
}

// ownFactor finds the factor that a path names among the caller's.
func ownFactor(r *http.Request, factors []factor) (*factor, error) {
	id, ok := parseUUID(r.PathValue("factor"))
	if !ok {
		return nil, errFactorID
	}
	for i := range factors {
		if factors[i].ID == id {
			return &factors[i], nil
		}
	}
	return nil, errFactorNotFound
}

// aal2 reports whether the caller's session was raised by a second factor.
func (c *caller) aal2() bool { return c.session != nil && c.session.aal != "aal1" }

// enroll answers POST /factors: a new factor, which counts once it was verified.
func (s *Server) enroll(w http.ResponseWriter, r *http.Request) error {
	c, err := s.factorCaller(r)
	if err != nil {
		return err
	}
	var body struct {
		Type   string `json:"factor_type"`
		Name   string `json:"friendly_name"`
		Issuer string `json:"issuer"`
		Phone  string `json:"phone"`
	}
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	switch {
	case body.Type == "phone":
		return s.enrollPhone(w, r, c, body.Name, body.Phone)
	case body.Type == "webauthn":
		return errEnrollWebAuthn
	case body.Type != "totp":
		return errFactorType
	case !s.cfg.EnableTOTPEnroll:
		return errEnrollTOTP
	case len(body.Name) > maxName || len(body.Issuer) > maxName:
		return errFactorName
	}
	if body.Issuer == "" {
		if site, err := url.Parse(s.cfg.SiteURL); err == nil {
			body.Issuer = site.Host
		}
	}
	id, secret := uuid.New(), newTOTPSecret()
	uri := totpURI(body.Issuer, c.name(), secret)
	picture, err := qrSVG(uri)
	if err != nil {
		return errUnexpected.because(err)
	}
	if err := s.addFactor(r, c, &factor{ID: id, FactorType: "totp", FriendlyName: body.Name}, secret); err != nil {
		return err
	}
	type totp struct {
		Picture string `json:"qr_code"`
		Secret  string `json:"secret"`
		URI     string `json:"uri"`
	}
	w.Header().Set("Cache-Control", "no-store")
	writeJSON(w, http.StatusOK, struct {
		ID   uuid.UUID `json:"id"`
		Type string    `json:"type"`
		Name string    `json:"friendly_name,omitempty"`
		TOTP totp      `json:"totp"`
	}{id, body.Type, body.Name, totp{picture, secret, uri}})
	return nil
}

// addFactor stores a factor of the caller, who must be let have another one.
func (s *Server) addFactor(r *http.Request, c *caller, f *factor, secret string) error {
	ctx, now := r.Context(), s.cfg.Now()
	err := s.inTx(ctx, func(tx pg.Tx) error {
		u, err := lockUser(ctx, tx, c.ID)
		if err != nil {
			return notFound(err)
		}
		if err := exec(ctx, tx, "factor_delete_forgotten", u.ID, now.Add(-challengeLife)); err != nil {
			return err
		}
		if f.Phone != "" {
			if err := exec(ctx, tx, "factor_delete_phone", u.ID, f.Phone); err != nil {
				return err
			}
		}
		if u, err = loadUser(ctx, tx, u.ID); err != nil {
			return err
		}
		for _, other := range u.Factors {
			switch {
			case f.Phone != "" && other.Phone == f.Phone:
				return errPhoneFactor
			case other.FriendlyName == f.FriendlyName:
				return errFactorExists.with(f.FriendlyName)
			}
		}
		switch {
		case len(u.Factors) >= s.cfg.MaxFactors:
			return errTooManyFactors
		case u.hasVerifiedFactor() && !c.aal2():
			return errEnrollAAL
		}
		if err := exec(ctx, tx, "factor_insert", f.ID, u.ID, f.FriendlyName, f.FactorType, secret, f.Phone, now); err != nil {
			return err
		}
		return s.audit(ctx, tx, byUser(u), "factor_in_progress", s.clientOf(r), map[string]any{"factor_id": f.ID, "factor_type": f.FactorType})
	})
	return databaseError(err, errUpdatingUser)
}

// challenge answers POST /factors/{id}/challenge: the begin of a verification.
func (s *Server) challenge(w http.ResponseWriter, r *http.Request) error {
	if !s.challenges.allow(s.clientIP(r), s.cfg.Now()) {
		return errRateLimit
	}
	c, err := s.factorCaller(r)
	if err != nil {
		return err
	}
	f, err := s.servedFactor(r, c)
	if err != nil {
		return err
	}
	var body struct {
		Channel string `json:"channel"`
	}
	if err := readOptionalBody(w, r, &body); err != nil {
		return err
	}
	channel, err := s.channelOf(body.Channel)
	if err != nil {
		return err
	}
	ctx, id, from, now := r.Context(), uuid.New(), s.clientOf(r), s.cfg.Now()
	begin := s.inTx
	if f.FactorType == "phone" {
		begin = s.inMailTx
	}
	err = begin(ctx, func(tx pg.Tx) error {
		var hash string
		if f.FactorType == "phone" {
			if hash, err = s.textFactor(ctx, tx, c.user, f, channel); err != nil {
				return err
			}
		}
		if err := exec(ctx, tx, "factor_challenged", f.ID); err != nil {
			return err
		}
		if err := exec(ctx, tx, "challenge_insert", id, f.ID, from.ip, hash, now); err != nil {
			return err
		}
		return s.audit(ctx, tx, byUser(c.user), "challenge_created", from, map[string]any{"factor_id": f.ID, "factor_status": f.Status})
	})
	if err != nil {
		return databaseError(err, errUpdatingUser)
	}
	writeJSON(w, http.StatusOK, struct {
		ID      uuid.UUID `json:"id"`
		Type    string    `json:"type"`
		Expires int64     `json:"expires_at"`
	}{id, f.FactorType, now.Add(challengeLife).Unix()})
	return nil
}

// servedFactor finds the caller's factor of a path, of a type that is served.
func (s *Server) servedFactor(r *http.Request, c *caller) (*factor, error) {
	f, err := ownFactor(r, c.Factors)
	switch {
	case err != nil:
		return nil, err
	case f.FactorType == "phone" && !s.cfg.EnablePhoneVerify:
		return nil, errVerifyPhone
	case f.FactorType == "webauthn":
		return nil, errVerifyWebAuthn
	case f.FactorType == "totp" && !s.cfg.EnableTOTPVerify:
		return nil, errVerifyTOTP
	}
	return f, nil
}

// verifyFactor answers POST /factors/{id}/verify: the right code raises the session
// to aal2. Sessions of the user that are below it end, and so do the session's older
// refresh tokens.
func (s *Server) verifyFactor(w http.ResponseWriter, r *http.Request) error {
	if !s.factorVerifies.allow(s.clientIP(r), s.cfg.Now()) {
		return errRateLimit
	}
	c, err := s.factorCaller(r)
	if err != nil {
		return err
	}
	var body struct {
		Challenge string `json:"challenge_id"`
		Code      string `json:"code"`
	}
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	f, err := s.servedFactor(r, c)
	switch {
	case err != nil:
		return err
	case c.session == nil:
		return errSessionGone
	case body.Code == "":
		return errFactorCode
	}
	challenge, ok := parseUUID(body.Challenge)
	if !ok {
		return errChallengeNotFound
	}
	ctx, from := r.Context(), s.clientOf(r)
	var g *grant
	var refused error
	err = s.inTx(ctx, func(tx pg.Tx) error {
		u, err := lockUser(ctx, tx, c.ID)
		if err != nil {
			return notFound(err)
		}
		if f.Status != "verified" && c.hasVerifiedFactor() && !c.aal2() { // as when it is enrolled
			refused = errEnrollAAL
			return nil
		}
		right, err := s.checkFactorCode(ctx, tx, f, challenge, from.ip, body.Code)
		if err != nil {
			return err
		}
		traits := map[string]any{"factor_id": f.ID, "challenge_id": challenge, "factor_type": f.FactorType, "valid": right}
		if err := s.audit(ctx, tx, byUser(u), "verification_attempted", from, traits); err != nil {
			return err
		}
		if refused, err = s.mfaAttempt(ctx, tx, u, f, right); err != nil || refused != nil {
			return err
		}
		if !right {
			refused = errTOTPCode // committed: the guess counts
			if f.FactorType == "phone" {
				refused = errPhoneCode
			}
			return nil
		}
		g, err = s.stepUp(ctx, tx, u, c.session.id, f, challenge)
		return err
	})
	if err == nil {
		err = refused
	}
	if err != nil {
		return databaseError(err, errUpdatingUser)
	}
	if f.Status != "verified" {
		s.notify(ctx, g.user, letter{template: "mfa_factor_enrolled", to: g.user.Email, factor: f.FactorType})
	}
	return s.respond(w, r, g, nil)
}

// checkFactorCode decides about a code for a challenge, which must be of the factor,
// unused, and from the address that asked for it.
func (s *Server) checkFactorCode(ctx context.Context, tx pg.Tx, f *factor, challenge uuid.UUID, from netip.Addr, code string) (right bool, err error) {
	var secret, phone, sent string
	var created time.Time
	var used *time.Time
	var ip netip.Addr
	err = tx.QueryRow(ctx, sql("challenge_lock"), challenge, f.ID).Scan(&secret, &phone, &sent, &created, &used, &ip)
	now := s.cfg.Now()
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return false, errChallengeNotFound
	case err != nil:
		return false, pg.Wrap(err, "challenge_lock")
	case used != nil, ip.Unmap() != from.Unmap():
		return false, errChallengeIP
	case now.After(created.Add(challengeLife)):
		return false, errChallengeExpired.with(challenge)
	}
	wait, err := s.take(ctx, tx, "factor:"+f.ID.String(), challengeLife/codesAtOnce, codesAtOnce-1)
	if err != nil {
		return false, err
	}
	if wait > 0 {
		return false, errRateLimit
	}
	if f.FactorType == "phone" {
		return sent != "" && subtle.ConstantTimeCompare([]byte(s.hashCode(phone, code)), []byte(sent)) == 1, nil
	}
	step, fits := totpStep(secret, code, now)
	if !fits {
		return false, nil
	}
	return s.takeStep(ctx, tx, f, step)
}

// takeStep reports whether the factor's code of this period is still good. A code is
// good once (RFC 6238, 5.2), and one from before another that was taken is not good
// either, on all nodes together: the bucket of one use is full again when the period
// ends behind which nobody accepts the code.
func (s *Server) takeStep(ctx context.Context, tx pg.Tx, f *factor, step int64) (first bool, err error) {
	until := time.Unix(0, 0).Add(time.Duration(step+totpSteps+1) * totpPeriod)
	wait, err := takeAt(ctx, tx, "totp:"+f.ID.String(), until, totpPeriod, 0)
	return wait == 0, err
}

// methodOf is what claim amr says of a factor.
func methodOf(f *factor) string {
	if f.FactorType == "phone" {
		return byPhone
	}
	return byTOTP
}

// stepUp makes the factor count and raises the session.
func (s *Server) stepUp(ctx context.Context, tx pg.Tx, u *user, session uuid.UUID, f *factor, challenge uuid.UUID) (*grant, error) {
	now := s.cfg.Now()
	if err := s.endFlows(ctx, tx, u.ID); err != nil {
		return nil, err
	}
	rows, _ := tx.Query(ctx, sql("session_lock_wait"), session) // its error is also the rows'
	sess, err := pgx.CollectExactlyOneRow(rows, scanSession)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, errSessionGone
	}
	if err != nil {
		return nil, pg.Wrap(err, "session_lock_wait")
	}
	// What was issued or began before the second factor is worth nothing after it.
	if err := exec(ctx, tx, "refresh_token_delete_all", sess.id); err != nil {
		return nil, err
	}
	g := &grant{session: sess.id, method: methodOf(f)}
	if s.cfg.RefreshTokenVersion == 2 || sess.key != "" {
		sess.key, sess.counter = newTokenKey(), sess.counter+2
		g.refreshToken = sess.token()
	} else {
		g.refreshToken = newTokenV1()
		if err := exec(ctx, tx, "refresh_token_insert", g.refreshToken, u.ID.String(), "", sess.id, now); err != nil {
			return nil, err
		}
	}
	for _, step := range []struct {
		name string
		args []any
	}{
		{"challenge_verified", []any{challenge, now}},
		{"factor_verified", []any{f.ID, now}},
		{"factor_delete_unverified", []any{u.ID, f.FactorType}},
		{"amr_add", []any{sess.id, g.method, now}},
		{"session_raise", []any{sess.id, f.ID, sess.key, sess.counter, now}},
		{"session_delete_lower", []any{u.ID, sess.id}},
	} {
		if err := exec(ctx, tx, step.name, step.args...); err != nil {
			return nil, err
		}
	}
	if g.methods, err = loadAMR(ctx, tx, sess.id); err != nil {
		return nil, err
	}
	if g.user, err = loadUser(ctx, tx, u.ID); err != nil {
		return nil, err
	}
	return g, s.claim(ctx, tx, g)
}

// unenroll answers DELETE /factors/{id}. Sessions that the factor raised fall to
// aal1 at their next refresh.
func (s *Server) unenroll(w http.ResponseWriter, r *http.Request) error {
	c, err := s.factorCaller(r)
	if err != nil {
		return err
	}
	f, err := ownFactor(r, c.Factors)
	switch {
	case err != nil:
		return err
	case f.Status == "verified" && !c.aal2():
		return errUnenrollAAL
	}
	if err := s.dropFactor(r, c.user, byUser(c.user), f, "factor_unenrolled"); err != nil {
		return err
	}
	if f.Status == "verified" {
		s.notify(r.Context(), c.user, letter{template: "mfa_factor_unenrolled", to: c.Email, factor: f.FactorType})
	}
	writeJSON(w, http.StatusOK, struct {
		ID uuid.UUID `json:"id"`
	}{f.ID})
	return nil
}

func (s *Server) dropFactor(r *http.Request, u *user, who actor, f *factor, action string) error {
	ctx := r.Context()
	err := s.inTx(ctx, func(tx pg.Tx) error {
		if _, err := lockUser(ctx, tx, u.ID); err != nil {
			return notFound(err)
		}
		// Sessions in one order, as sign-outs lock them.
		for _, name := range []string{"amr_delete_factor", "session_lower", "factor_delete"} {
			if err := exec(ctx, tx, name, f.ID); err != nil {
				return err
			}
		}
		return s.audit(ctx, tx, who, action, s.clientOf(r), map[string]any{"user_id": u.ID, "factor_id": f.ID, "factor_type": f.FactorType})
	})
	return databaseError(err, errUpdatingUser)
}
