package auth

import (
	"context"
	"net/http"

	"github.com/google/uuid"

	"github.com/sluice-dev/sluice/pg"
)

type signupBody struct {
	Email           string   `json:"email"`
	Phone           string   `json:"phone"`
	Password        string   `json:"password"`
	Data            metadata `json:"data"`
	Channel         string   `json:"channel"`
	Challenge       string   `json:"code_challenge"`
	ChallengeMethod string   `json:"code_challenge_method"`
}

// signup answers POST /signup: with an email address or a phone number, or
// anonymously with neither.
func (s *Server) signup(w http.ResponseWriter, r *http.Request) error {
	var body signupBody
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	if body.Email == "" && body.Phone == "" {
		return s.signupAnonymously(w, r, body.Data)
	}
	n, err := s.checkSignup(r, body)
	if err != nil {
		return err
	}
	found, err := findUser(r.Context(), s.cfg.Pool, n.email, n.phone, n.aud)
	if err != nil {
		return err
	}
	// A confirmed address costs as much time as a new one.
	if n.hash, err = s.hasher.hash(r.Context(), body.Password); err != nil {
		return err
	}
	if found != nil {
		return s.signupAgain(w, r, n, found, body.Password)
	}
	if s.autoconfirms(n.provider) {
		return s.signupNew(w, r, n)
	}
	return s.signupWaiting(w, r, n)
}

// checkSignup decides about all that does not need the database, in the
// original's order.
func (s *Server) checkSignup(r *http.Request, body signupBody) (newUser, error) {
	n := newUser{id: uuid.New(), aud: s.audience(r), meta: body.Data}
	if !s.signups.allow(s.clientIP(r), s.cfg.Now()) {
		return n, errRateLimit
	}
	if !s.maySignUp(n.aud) {
		return n, errSignupDisabled
	}
	if body.Password == "" {
		return n, errSignupPassword
	}
	if err := s.checkPassword(r.Context(), body.Password); err != nil {
		return n, err
	}
	if body.Email != "" && body.Phone != "" {
		return n, errSignupBoth
	}
	var err error
	if n.flow, err = flowOf(body.ChallengeMethod, body.Challenge); err != nil {
		return n, err
	}
	if body.Email != "" {
		if !s.cfg.EnableEmail {
			return n, errSignupEmailOff
		}
		n.provider = "email"
		n.email, err = emailOf(body.Email)
		return n, err
	}
	if body.Challenge != "" {
		return n, errPKCEPhone
	}
	if n.channel, err = s.channelOf(body.Channel); err != nil {
		return n, err
	}
	if !s.cfg.EnablePhone {
		return n, errSignupPhoneOff
	}
	n.provider = "phone"
	n.phone, err = phoneOf(body.Phone)
	return n, err
}

// maySignUp reports whether strangers may become users of an audience: of the
// project's own alone. Who is in another one was let in by an administrator, and an
// address that has a user in one is taken in all.
func (s *Server) maySignUp(aud string) bool { return s.cfg.EnableSignup && aud == s.cfg.Aud }

// autoconfirms reports whether addresses of a provider need no confirmation.
func (s *Server) autoconfirms(provider string) bool {
	if provider == "phone" {
		return s.cfg.PhoneAutoconfirm
	}
	return s.cfg.EmailAutoconfirm
}

// signupAgain answers for an address that has a user. Nobody proved to own the
// address, so the row stays as it is. Without autoconfirm the answer does not
// tell that a confirmed user exists.
func (s *Server) signupAgain(w http.ResponseWriter, r *http.Request, n newUser, u *user, password string) error {
	if u.confirmed() {
		if s.cfg.EmailAutoconfirm || s.cfg.PhoneAutoconfirm {
			return errUserExists
		}
		return s.signupPretended(w, r, n)
	}
	if !s.autoconfirms(n.provider) {
		return s.confirmAgain(w, r, n, u)
	}
	// Left unconfirmed while confirmations were on. The original signs anybody
	// in here; we ask for the password.
	right, err := s.hasher.verify(r.Context(), u.password, password)
	if err != nil {
		return err
	}
	if !right || u.banned(s.cfg.Now()) {
		return errUserExists
	}
	var g *grant
	from := s.clientOf(r)
	err = s.inTx(r.Context(), func(tx pg.Tx) error {
		if err := s.confirm(r.Context(), tx, u.ID, n.provider, u.UserMetadata); err != nil {
			return err
		}
		var err error
		g, err = s.signedUp(r.Context(), tx, u, n.provider, byPassword, from)
		return err
	})
	if err != nil {
		return databaseError(err, errUpdatingUser)
	}
	return s.respond(w, r, g, nil)
}

// signupPretended answers as if a new user had been made, who waits for
// confirmation. A client that looks closely sees that identities is empty.
func (s *Server) signupPretended(w http.ResponseWriter, r *http.Request, n newUser) error {
	now := s.cfg.Now().UTC()
	err := s.inTx(r.Context(), func(tx pg.Tx) error {
		if n.email != "" {
			// As often as for an address that is mailed.
			if err := s.spaced(r.Context(), tx, string(toConfirm), n.email); err != nil {
				return err
			}
		} else if err := s.spacedText(r.Context(), tx, string(toConfirm), n.phone, s.cfg.SMS.Interval); err != nil {
			return err
		}
		who := actor{name: n.email + n.phone}
		return s.audit(r.Context(), tx, who, "user_repeated_signup", s.clientOf(r), map[string]any{"provider": n.provider})
	})
	if err != nil {
		return databaseError(err, errUnexpected)
	}
	if n.meta == nil {
		n.meta = metadata{}
	}
	writeJSON(w, http.StatusOK, &user{
		ID: n.id, Aud: n.aud, Email: n.email, Phone: n.phone, ConfirmationSentAt: &now,
		AppMetadata: providerMetadata(n.provider), UserMetadata: n.meta, Identities: []identity{},
		CreatedAt: now, UpdatedAt: now,
	})
	return nil
}

// signupWaiting makes a user who waits for confirmation, and sends the link or the
// code for it. Without that there is no user.
func (s *Server) signupWaiting(w http.ResponseWriter, r *http.Request, n newUser) error {
	var u *user
	ctx := r.Context()
	err := s.inMailTx(ctx, func(tx pg.Tx) error {
		var err error
		if u, err = s.createUser(ctx, tx, n); err != nil {
			return err
		}
		u, err = s.askConfirmation(ctx, tx, r, u, n)
		return err
	})
	switch uniqueViolation(err) {
	case "users_email_partial_key", "users_phone_key":
		// Another request was faster, and this one is a repetition; or it is the
		// address of a user of another audience.
		switch found, ferr := findUser(ctx, s.cfg.Pool, n.email, n.phone, n.aud); {
		case ferr != nil:
			return databaseError(err, errSavingNewUser)
		case found == nil:
			return s.signupPretended(w, r, n)
		default:
			return s.confirmAgain(w, r, n, found)
		}
	}
	if err != nil {
		return databaseError(err, errSavingNewUser)
	}
	writeJSON(w, http.StatusOK, u)
	return nil
}

// confirmAgain mails an unconfirmed user once more. Whoever asks has not proved
// to own the address: row and password stay as they are.
func (s *Server) confirmAgain(w http.ResponseWriter, r *http.Request, n newUser, u *user) error {
	ctx := r.Context()
	err := s.inMailTx(ctx, func(tx pg.Tx) error {
		var err error
		if u, err = lockUser(ctx, tx, u.ID); err != nil || u.confirmed() {
			return notFound(err)
		}
		u, err = s.askConfirmation(ctx, tx, r, u, n)
		return err
	})
	if err != nil {
		return databaseError(err, errUpdatingUser)
	}
	if u.confirmed() { // meanwhile
		return s.signupPretended(w, r, n)
	}
	writeJSON(w, http.StatusOK, s.signedUpAgain(u, n))
	return nil
}

// signedUpAgain is an unconfirmed user as the answer to this sign-up shows him if it is
// the first: of what others have written, an administrator or who signed up before,
// only id and times are seen. Of who was invited, the original shows no identity either.
func (s *Server) signedUpAgain(u *user, n newUser) *user {
	data := identityData(u.ID, n.email, false)
	out := &user{
		ID: u.ID, Aud: u.Aud, Role: s.cfg.Aud, Email: n.email, Phone: n.phone, ConfirmationSentAt: u.ConfirmationSentAt,
		AppMetadata: providerMetadata(n.provider), UserMetadata: n.meta.merge(data), Identities: []identity{},
		CreatedAt: u.CreatedAt, UpdatedAt: u.UpdatedAt,
	}
	if u.InvitedAt != nil {
		out.UserMetadata = metadata{}
		return out
	}
	for _, i := range u.Identities {
		if i.Provider == n.provider {
			i.Data = data
			out.Identities = append(out.Identities, i)
		}
	}
	return out
}

// askConfirmation sends what confirms the address of a sign-up.
func (s *Server) askConfirmation(ctx context.Context, tx pg.Tx, r *http.Request, u *user, n newUser) (*user, error) {
	if n.provider == "phone" {
		return s.textConfirmation(ctx, tx, r, u, n.channel)
	}
	return s.mailConfirmation(ctx, tx, r, u, n.flow)
}

// mailConfirmation mails an unconfirmed user and returns it as it is then.
func (s *Server) mailConfirmation(ctx context.Context, tx pg.Tx, r *http.Request, u *user, f flow) (*user, error) {
	if err := s.spaced(ctx, tx, string(toConfirm), u.Email); err != nil {
		return u, err
	}
	traits := map[string]any{"provider": "email"}
	if err := s.audit(ctx, tx, byUser(u), "user_confirmation_requested", s.clientOf(r), traits); err != nil {
		return u, err
	}
	if err := s.sendLink(ctx, tx, u, confirmationMail, f, s.redirectTarget(r)); err != nil {
		return u, err
	}
	return loadUser(ctx, tx, u.ID)
}

// signupNew makes the user and signs it in.
func (s *Server) signupNew(w http.ResponseWriter, r *http.Request, n newUser) error {
	var g *grant
	ctx, from := r.Context(), s.clientOf(r)
	err := s.inTx(ctx, func(tx pg.Tx) error {
		u, err := s.createUser(ctx, tx, n)
		if err != nil {
			return err
		}
		if err := s.confirm(ctx, tx, u.ID, n.provider, u.UserMetadata); err != nil {
			return err
		}
		g, err = s.signedUp(ctx, tx, u, n.provider, byPassword, from)
		return err
	})
	switch uniqueViolation(err) {
	case "users_email_partial_key", "users_phone_key": // another request was faster
		return errUserExists.because(err)
	}
	if err != nil {
		return databaseError(err, errSavingNewUser)
	}
	return s.respond(w, r, g, nil)
}

// signedUp signs a new user in and records both.
func (s *Server) signedUp(ctx context.Context, tx pg.Tx, u *user, provider, method string, from client) (*grant, error) {
	traits := map[string]any{"provider": provider}
	if err := s.audit(ctx, tx, byUser(u), "user_signedup", from, traits); err != nil {
		return nil, err
	}
	if err := s.audit(ctx, tx, byUser(u), "login", from, traits); err != nil {
		return nil, err
	}
	return s.signIn(ctx, tx, u, method, from)
}

// signupAnonymously makes a user without address and password.
func (s *Server) signupAnonymously(w http.ResponseWriter, r *http.Request, data metadata) error {
	switch {
	case !s.cfg.EnableAnonymous:
		return errAnonymousDisabled
	case !s.maySignUp(s.audience(r)):
		return errSignupDisabled
	case !s.anonymous.allow(s.clientIP(r), s.cfg.Now()):
		return errRateLimit
	}
	var g *grant
	ctx, from := r.Context(), s.clientOf(r)
	n := newUser{id: uuid.New(), aud: s.audience(r), meta: data, anonymous: true}
	err := s.inTx(ctx, func(tx pg.Tx) error {
		if err := s.insertUser(ctx, tx, n); err != nil {
			return err
		}
		var err error
		if g, err = s.signedUp(ctx, tx, &user{ID: n.id}, "anonymous", byAnonymous, from); err != nil {
			return err
		}
		return s.afterUser(ctx, tx, g.user)
	})
	if err != nil {
		return databaseError(err, errSavingNewUser)
	}
	return s.respond(w, r, g, nil)
}
