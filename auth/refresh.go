package auth

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice/pg"
)

const (
	// busyFor is how long a refresh tries to get the session's lock.
	busyFor = 5 * time.Second
	// busyWait is the shortest pause between two tries; the longest is thrice it.
	busyWait = 10 * time.Millisecond
)

// errBusy says that another refresh of the session is under way.
var errBusy = errors.New("the session is locked")

// refresh answers grant_type=refresh_token. Refreshes of one session follow one
// another under a lock on its row. The first rotates the token; whoever comes
// with the token before it gets the same current one, so that tabs and servers
// that refresh at once agree.
func (s *Server) refresh(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		RefreshToken string `json:"refresh_token"`
	}
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	presented, err := parseRefreshToken(body.RefreshToken)
	if err != nil {
		return err
	}
	ctx, from := r.Context(), s.clientOf(r)
	for begin := time.Now(); ; {
		g, err := s.tryRefresh(ctx, presented, from)
		switch {
		case err == nil:
			return s.respond(w, r, g, nil)
		case !errors.Is(err, errBusy):
			return databaseError(err, errUnexpected)
		case time.Since(begin) > s.busyFor:
			return errConflict
		}
		// No connection is held here.
		if err := pause(ctx, busyWait+rand.N(2*busyWait)); err != nil {
			return err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// tryRefresh is one transaction. The end of a session on reuse is committed,
// although the answer is an error.
func (s *Server) tryRefresh(ctx context.Context, presented refreshToken, from client) (*grant, error) {
	var g *grant
	var refused error
	err := s.inTx(ctx, func(tx pg.Tx) error {
		var err error
		g, err = s.refreshIn(ctx, tx, presented, from)
		if errors.Is(err, errRefreshUsed) {
			refused = err
			return nil
		}
		return err
	})
	if err == nil {
		err = refused
	}
	return g, err
}

func (s *Server) refreshIn(ctx context.Context, tx pg.Tx, presented refreshToken, from client) (*grant, error) {
	sess, err := lockSession(ctx, tx, presented)
	if err != nil {
		return nil, err
	}
	u, err := loadUser(ctx, tx, sess.userID)
	if err != nil {
		return nil, err
	}
	if u.banned(s.cfg.Now()) {
		return nil, errRefreshBanned
	}
	if sess.oauthClient {
		return nil, errRefreshClient
	}
	if err := s.sessionValid(ctx, tx, sess); err != nil {
		return nil, err
	}
	next, err := s.rotate(ctx, tx, sess, presented)
	if errors.Is(err, errRefreshUsed) && s.cfg.RefreshTokenRotation {
		if err := s.endReused(ctx, tx, u, sess, from); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, err
	}
	g := &grant{user: u, session: sess.id, refreshToken: next.token, method: "token_refresh"}
	if g.methods, err = loadAMR(ctx, tx, sess.id); err != nil {
		return nil, err
	}
	if next.rotated {
		err = exec(ctx, tx, "session_refreshed", sess.id, s.cfg.Now(), from.userAgent, from.ip, aalOf(g.methods), sess.key, sess.counter)
	}
	return g, err
}

// lockSession finds the session of a token and locks its row. Nothing that was
// read before the lock counts afterwards.
func lockSession(ctx context.Context, tx pg.Tx, presented refreshToken) (*session, error) {
	id := presented.session
	if presented.word != "" {
		row, err := findTokenV1(ctx, tx, presented.word)
		if err != nil {
			return nil, err
		}
		if row.session == nil {
			return nil, errRefreshNoSession
		}
		id = *row.session
	}
	rows, _ := tx.Query(ctx, sql("session_lock"), id) // its error is also the rows'
	sess, err := pgx.CollectExactlyOneRow(rows, scanSession)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		var there bool
		if err := tx.QueryRow(ctx, sql("session_exists"), id).Scan(&there); err != nil {
			return nil, pg.Wrap(err, "session_exists")
		}
		if there {
			return nil, errBusy
		}
		return nil, errRefreshNotFound
	case err != nil:
		return nil, pg.Wrap(err, "session_lock")
	case presented.word == "" && !presented.signedBy(sess.key):
		return nil, errRefreshNotFound
	}
	return sess, nil
}

// turn is the outcome of presenting a token: the one that is current now, and
// whether it is new.
type turn struct {
	token   string
	rotated bool
}

// rotate decides about a token of a locked session. errRefreshUsed means that it
// was used before and that nobody has a reason to come with it again.
func (s *Server) rotate(ctx context.Context, tx pg.Tx, sess *session, presented refreshToken) (turn, error) {
	if presented.word != "" {
		return s.rotateV1(ctx, tx, sess, presented.word)
	}
	behind := sess.counter - presented.counter
	switch {
	case behind < 0:
		return turn{}, errRefreshForeign
	case behind == 0:
		sess.counter++
		return turn{sess.token(), true}, nil
	case behind == 1, s.recent(sess.lastUsed()):
		return turn{sess.token(), false}, nil // the answer was lost, or another tab was first
	}
	return turn{}, errRefreshUsed
}

// recent reports whether at lies within the reuse interval.
func (s *Server) recent(at time.Time) bool {
	return s.cfg.Now().Sub(at) < s.cfg.ReuseInterval
}

// rotateV1 decides about a word. Where new tokens are of version 2, it is the
// last word of its session: the session gets a key, and counts from 0.
func (s *Server) rotateV1(ctx context.Context, tx pg.Tx, sess *session, word string) (turn, error) {
	row, err := findTokenV1(ctx, tx, word)
	if err != nil {
		return turn{}, err
	}
	if row.revoked {
		return s.reuseV1(ctx, tx, sess, row)
	}
	now := s.cfg.Now()
	if err := exec(ctx, tx, "refresh_token_revoke", word, now); err != nil {
		return turn{}, err
	}
	switch {
	case sess.key != "":
		sess.counter++
	case s.cfg.RefreshTokenVersion == 2:
		sess.key, sess.counter = newTokenKey(), 0
	default:
		next := newTokenV1()
		return turn{next, true}, exec(ctx, tx, "refresh_token_insert", next, sess.userID.String(), word, sess.id, now)
	}
	return turn{sess.token(), true}, nil
}

// reuseV1 decides about a word that was used before.
func (s *Server) reuseV1(ctx context.Context, tx pg.Tx, sess *session, row tokenV1) (turn, error) {
	if sess.key != "" {
		var last string
		if err := tx.QueryRow(ctx, sql("refresh_token_last"), sess.id).Scan(&last); err != nil {
			return turn{}, pg.Wrap(err, "refresh_token_last")
		}
		if last == row.word && sess.counter == 0 || s.recent(row.updatedAt) {
			return turn{sess.token(), false}, nil
		}
		return turn{}, errRefreshUsed
	}
	var active, parent string
	switch err := tx.QueryRow(ctx, sql("refresh_token_active"), sess.id).Scan(&active, &parent); {
	case errors.Is(err, pgx.ErrNoRows):
		return turn{}, errRefreshUsed
	case err != nil:
		return turn{}, pg.Wrap(err, "refresh_token_active")
	case parent == row.word, s.recent(row.updatedAt):
		return turn{active, false}, nil
	}
	return turn{}, errRefreshUsed
}

// tokenV1 is a row of auth.refresh_tokens.
type tokenV1 struct {
	word      string
	revoked   bool
	updatedAt time.Time
	session   *uuid.UUID
}

func findTokenV1(ctx context.Context, tx pg.Tx, word string) (tokenV1, error) {
	row := tokenV1{word: word}
	err := tx.QueryRow(ctx, sql("refresh_token_find"), word).Scan(&row.revoked, &row.updatedAt, &row.session)
	if errors.Is(err, pgx.ErrNoRows) {
		return row, errRefreshNotFound
	}
	return row, pg.Wrap(err, "refresh_token_find")
}

// endReused ends a session whose used token came back: either the thief or the
// owner has the newer one.
func (s *Server) endReused(ctx context.Context, tx pg.Tx, u *user, sess *session, from client) error {
	if err := exec(ctx, tx, "session_delete", sess.id); err != nil {
		return err
	}
	s.cfg.Logger.Warn("auth: a used refresh token came back; the session is ended", "user", u.ID, "session", sess.id)
	return s.audit(ctx, tx, byUser(u), "token_revoked", from, map[string]any{"session_id": sess.id})
}
