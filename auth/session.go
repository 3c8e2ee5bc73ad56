package auth

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice/pg"
)

// session is a row of auth.sessions: one sign-in, until it is signed out.
type session struct {
	id          uuid.UUID
	userID      uuid.UUID
	createdAt   time.Time
	aal         string
	notAfter    *time.Time
	refreshedAt *time.Time
	tag         string
	oauthClient bool
	key         string // of its refresh tokens; empty for version 1
	counter     int64
}

func scanSession(row pgx.CollectableRow) (*session, error) {
	var v session
	err := row.Scan(&v.id, &v.userID, &v.createdAt, &v.aal, &v.notAfter, &v.refreshedAt, &v.tag, &v.oauthClient, &v.key, &v.counter)
	return &v, err
}

// lastUsed is the sign-in or the last refresh.
func (v *session) lastUsed() time.Time {
	if v.refreshedAt != nil {
		return *v.refreshedAt
	}
	return v.createdAt
}

// client is what a session remembers of the request that opened or refreshed it.
type client struct {
	userAgent string
	ip        netip.Addr
}

func (s *Server) clientOf(r *http.Request) client {
	return client{userAgent: userAgent(r), ip: s.clientIP(r)}
}

// amr is one entry of claim amr: how the user proved to be it, and when.
type amr struct {
	Method    string `json:"method"`
	Timestamp int64  `json:"timestamp"`
}

// Methods of claim amr.
const (
	byPassword  = "password"
	byAnonymous = "anonymous"
	byOTP       = "otp"
	byTOTP      = "totp"
	byPhone     = "mfa/phone"
)

// aalOf derives the assurance level: a second factor among the methods raises it.
func aalOf(methods []amr) string {
	for _, m := range methods {
		switch m.Method {
		case byTOTP, byPhone, "mfa/webauthn":
			return "aal2"
		}
	}
	return "aal1"
}

func loadAMR(ctx context.Context, db pg.Tx, session uuid.UUID) ([]amr, error) {
	rows, _ := db.Query(ctx, sql("amr_list"), session) // its error is also the rows'
	list, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (amr, error) {
		var m amr
		var at time.Time
		err := row.Scan(&m.Method, &at)
		m.Timestamp = at.Unix()
		return m, err
	})
	return list, pg.Wrap(err, "amr_list")
}

// grant is what a client needs after signing in or refreshing.
type grant struct {
	user         *user
	session      uuid.UUID
	methods      []amr
	refreshToken string
	method       string // how this token came about, for the claims' hook
	expires      time.Time
	claims       map[string]any // of the access token, once the hook has seen them

	// providerToken and providerRefresh are of the provider that was signed in with.
	providerToken, providerRefresh string
}

// signIn opens a session for u, whose password hash is the one that was checked.
// The answer's user is read again, as triggers may have changed it.
func (s *Server) signIn(ctx context.Context, tx pg.Tx, u *user, method string, from client) (*grant, error) {
	now := s.cfg.Now()
	found, err := changed(ctx, tx, "user_signed_in", u.ID, now, u.password)
	if err != nil {
		return nil, err
	}
	if !found {
		return nil, errCredentials
	}
	sess := session{id: uuid.New(), userID: u.ID}
	g := &grant{session: sess.id, methods: []amr{{method, now.Unix()}}, method: method}
	if s.cfg.RefreshTokenVersion == 2 {
		sess.key = newTokenKey()
	}
	if err := exec(ctx, tx, "session_insert", sess.id, u.ID, now, from.userAgent, from.ip, sess.key, sess.counter); err != nil {
		return nil, err
	}
	if err := exec(ctx, tx, "amr_add", sess.id, method, now); err != nil {
		return nil, err
	}
	if sess.key != "" {
		g.refreshToken = sess.token()
	} else {
		g.refreshToken = newTokenV1()
		if err := exec(ctx, tx, "refresh_token_insert", g.refreshToken, u.ID.String(), "", sess.id, now); err != nil {
			return nil, err
		}
	}
	if g.user, err = loadUser(ctx, tx, u.ID); err != nil {
		return nil, err
	}
	return g, s.claim(ctx, tx, g)
}

// tokenResponse is the answer to every grant.
type tokenResponse struct {
	AccessToken  string        `json:"access_token"`
	TokenType    string        `json:"token_type"`
	ExpiresIn    int64         `json:"expires_in"`
	ExpiresAt    int64         `json:"expires_at"`
	RefreshToken string        `json:"refresh_token"`
	User         *user         `json:"user"`
	WeakPassword *weakPassword `json:"weak_password,omitempty"`

	ProviderToken   string `json:"provider_token,omitempty"`
	ProviderRefresh string `json:"provider_refresh_token,omitempty"`
}

type weakPassword struct {
	Message string   `json:"message"`
	Reasons []string `json:"reasons"`
}

// warnTokenSize is where cookies and proxies begin to have trouble with a token.
const warnTokenSize = 4096

// respond writes the answer to a grant.
func (s *Server) respond(w http.ResponseWriter, r *http.Request, g *grant, weak *weakPassword) error {
	t, err := s.issue(r.Context(), g)
	if err != nil {
		return err
	}
	t.WeakPassword = weak
	h := w.Header()
	h.Set("Cache-Control", "no-store")
	h.Set("sb-auth-user-id", g.user.ID.String())
	h.Set("sb-auth-session-id", g.session.String())
	writeJSON(w, http.StatusOK, t)
	return nil
}

// claim makes the claims of a grant's access token, which the project's hook may
// write or refuse: within the transaction of a sign-in, so that a refusal leaves
// nothing behind.
func (s *Server) claim(ctx context.Context, tx pg.Tx, g *grant) error {
	now := s.cfg.Now()
	g.expires = now.Add(s.cfg.JWTExpiry)
	u := g.user
	var err error
	g.claims, err = s.customClaims(ctx, tx, g, map[string]any{
		"iss":           s.cfg.Issuer,
		"sub":           u.ID.String(),
		"aud":           u.Aud,
		"exp":           g.expires.Unix(),
		"iat":           now.Unix(),
		"email":         u.Email,
		"phone":         u.Phone,
		"app_metadata":  u.AppMetadata,
		"user_metadata": u.UserMetadata,
		"role":          u.Role,
		"aal":           aalOf(g.methods),
		"amr":           g.methods,
		"session_id":    g.session.String(),
		"is_anonymous":  u.IsAnonymous,
	})
	return err
}

// issue signs the access token of a grant. The claims of a refresh are made here,
// when nobody waits for its session any more.
func (s *Server) issue(ctx context.Context, g *grant) (*tokenResponse, error) {
	u := g.user
	if g.claims == nil {
		err := s.inTx(ctx, func(tx pg.Tx) error { return s.claim(ctx, tx, g) })
		if err != nil {
			return nil, databaseError(err, errHook)
		}
	}
	access, err := s.cfg.Keys.Sign(g.claims)
	if err != nil {
		return nil, errUnexpected.because(err)
	}
	if len(access) > warnTokenSize {
		s.cfg.Logger.Warn("auth: an access token is large; cookies and proxies may cut it: keep less in user_metadata",
			"bytes", len(access), "user", u.ID)
	}
	return &tokenResponse{
		AccessToken: access, TokenType: "bearer",
		ExpiresIn: int64(s.cfg.JWTExpiry / time.Second), ExpiresAt: g.expires.Unix(),
		RefreshToken: g.refreshToken, User: u, ProviderToken: g.providerToken, ProviderRefresh: g.providerRefresh,
	}, nil
}

// sessionValid returns the refusal of a session that has ended by the rules of
// the project, nil for one that may go on.
func (s *Server) sessionValid(ctx context.Context, db pg.Tx, v *session) error {
	now := s.cfg.Now()
	switch {
	case v.notAfter != nil && !now.Before(*v.notAfter),
		s.cfg.SessionTimebox > 0 && !now.Before(v.createdAt.Add(s.cfg.SessionTimebox)):
		return errRefreshExpired
	case s.cfg.SessionInactivity > 0 && !now.Before(v.lastUsed().Add(s.cfg.SessionInactivity)):
		return errRefreshInactive
	case !s.cfg.SingleSession:
		return nil
	}
	var newer bool
	err := db.QueryRow(ctx, sql("session_newer"), v.userID, v.id, v.tag, now,
		since(now, s.cfg.SessionTimebox), since(now, s.cfg.SessionInactivity), v.lastUsed()).Scan(&newer)
	if err != nil {
		return pg.Wrap(err, "session_newer")
	}
	if newer {
		return errRefreshNewerLogin
	}
	return nil
}

// since returns the time that lies d back, nil when there is no limit.
func since(now time.Time, d time.Duration) *time.Time {
	if d <= 0 {
		return nil
	}
	t := now.Add(-d)
	return &t
}

// newTokenKey returns a session's key, as its column holds it.
func newTokenKey() string {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	return base64.RawURLEncoding.EncodeToString(key)
}

// newTokenV1 returns 60 random bits in the alphabet of the original.
func newTokenV1() string {
	return strings.ToLower(rand.Text()[:tokenV1Length])
}

// endSessions ends every session of a user but one; the nil UUID spares none. What
// would open another without a new proof goes with them.
func (s *Server) endSessions(ctx context.Context, tx pg.Tx, id, spare uuid.UUID) error {
	if err := s.endFlows(ctx, tx, id); err != nil {
		return err
	}
	return exec(ctx, tx, "session_delete_all", id, spare)
}

// endFlows voids codes that were handed out and links that began. It comes ahead of
// what is done to sessions: a code that is being exchanged has become one behind it,
// and nobody waits for a flow who holds a session.
func (s *Server) endFlows(ctx context.Context, tx pg.Tx, id uuid.UUID) error {
	// A link whose provider is being asked began up to flowLife before that.
	return exec(ctx, tx, "flow_delete_all", id, s.cfg.Now().Add(-2*flowLife))
}
