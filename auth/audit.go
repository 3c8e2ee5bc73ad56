package auth

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/google/uuid"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

// actor is who did what the audit log tells.
type actor struct {
	id   uuid.UUID
	name string
	sso  bool
}

func byUser(u *user) actor { return actor{id: u.ID, name: u.name(), sso: u.isSSO} }

// byAdmin is the nil UUID with the name of the role.
func byAdmin(r *http.Request) actor {
	id, _ := sluice.IdentityFrom(r.Context())
	return actor{name: id.Claims.Role}
}

// logTypes groups the actions that Auth records.
var logTypes = map[string]string{
	"login":                 "account",
	"logout":                "account",
	"user_signedup":         "team",
	"user_deleted":          "team",
	"user_repeated_signup":  "user",
	"user_modified":         "user",
	"user_updated_password": "user",
	"token_revoked":         "token",

	"invite_accepted":               "account",
	"user_invited":                  "team",
	"user_recovery_requested":       "user",
	"user_reauthenticate_requested": "user",
	"user_confirmation_requested":   "user",

	"identity_linked":   "user",
	"identity_unlinked": "user",

	"factor_in_progress":     "factor",
	"factor_unenrolled":      "factor",
	"challenge_created":      "factor",
	"verification_attempted": "factor",
	"factor_deleted":         "factor",
	"factor_updated":         "factor",
}

// audit records an action in the transaction that does it. Refreshes are not
// recorded: they would be most of the table.
func (s *Server) audit(ctx context.Context, tx pg.Tx, who actor, action string, from client, traits map[string]any) error {
	payload := map[string]any{
		"actor_id":       who.id,
		"actor_username": who.name,
		"actor_via_sso":  who.sso,
		"action":         action,
		"log_type":       logTypes[action],
	}
	if id, found := sluice.IdentityFrom(ctx); found && id.RequestID != "" {
		payload["request_id"] = id.RequestID
	}
	if traits != nil {
		payload["traits"] = traits
	}
	text, err := json.Marshal(payload)
	if err != nil {
		return err
	}
	return exec(ctx, tx, "audit_insert", text, s.cfg.Now(), from.ip.String())
}
