package auth

import (
	"net/http"

	"github.com/google/uuid"

	"github.com/sluice-dev/sluice/pg"
)

// logout ends sessions of the caller: all (global, the default), this one
// (local), or the others. Access tokens stay valid for REST and Realtime until
// they expire.
func (s *Server) logout(w http.ResponseWriter, r *http.Request) error {
	c, err := s.caller(r)
	if err != nil {
		return err
	}
	scope := r.URL.Query().Get("scope")
	ctx := r.Context()
	err = s.inTx(ctx, func(tx pg.Tx) error {
		var err error
		switch scope {
		case "", "global":
			err = s.endSessions(ctx, tx, c.ID, uuid.Nil)
		case "local":
			err = exec(ctx, tx, "session_delete", c.sessionID())
		case "others":
			err = s.endSessions(ctx, tx, c.ID, c.sessionID())
		default:
			return errLogoutScope.with(scope)
		}
		if err != nil {
			return err
		}
		return s.audit(ctx, tx, byUser(c.user), "logout", s.clientOf(r), nil)
	})
	if err != nil {
		return databaseError(err, errUnexpected)
	}
	w.WriteHeader(http.StatusNoContent)
	return nil
}
