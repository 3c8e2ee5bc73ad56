package auth

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

// flow is what a PKCE client (RFC 7636) sends ahead, so that nobody else can use
// what its link leads to. The zero flow is implicit: the link brings the tokens.
type flow struct{ method, challenge string }

func (f flow) pkce() bool { return f.challenge != "" }

// flowOf reads the pair of a request's body.
func flowOf(method, challenge string) (flow, error) {
	if err := checkPKCE(method, challenge); err != nil {
		return flow{}, err
	}
	return flow{strings.ToLower(method), challenge}, nil
}

// checkPKCE checks the pair.
func checkPKCE(method, challenge string) error {
	switch {
	case method == "" && challenge == "":
		return nil
	case method == "" || challenge == "":
		return errPKCEPair
	case !strings.EqualFold(method, "s256") && !strings.EqualFold(method, "plain"):
		return errPKCEMethod
	case len(challenge) < 43 || len(challenge) > 128:
		return errPKCELength
	}
	for _, c := range []byte(challenge) {
		if !alphanumeric(c) && strings.IndexByte("-._~", c) < 0 {
			return errPKCECharacters
		}
	}
	return nil
}

// flowLife is how long the code of a flow may be exchanged after it was handed out.
const flowLife = 5 * time.Minute

// beginFlow remembers the challenge of a PKCE client; method is what claim amr
// will say. There is nothing to remember of an implicit flow.
func (s *Server) beginFlow(ctx context.Context, tx pg.Tx, id uuid.UUID, f flow, method string) error {
	if !f.pkce() {
		return nil
	}
	return exec(ctx, tx, "flow_insert", id, uuid.NewString(), f.method, f.challenge, method, s.cfg.Now())
}

// issueCode hands out the code of the flow that the user's token of a purpose
// belongs to.
func (s *Server) issueCode(ctx context.Context, tx pg.Tx, id uuid.UUID, p purpose) (string, error) {
	methods := []string{"email_change"}
	switch p {
	case toConfirm:
		methods = []string{"email/signup"}
	case toRecover:
		methods = []string{"magiclink", "recovery"}
	}
	var code string
	err := tx.QueryRow(ctx, sql("flow_issue"), id, methods, s.cfg.Now()).Scan(&code)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", errFlowNotFound
	}
	return code, pg.Wrap(err, "flow_issue")
}

// pkceGrant exchanges the code of a flow for a session. A code is good once, and a
// wrong verifier leaves it good.
func (s *Server) pkceGrant(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Code     string `json:"auth_code"`
		Verifier string `json:"code_verifier"`
	}
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	if body.Code == "" || body.Verifier == "" {
		return errPKCEExchange
	}
	var g *grant
	ctx, from := r.Context(), s.clientOf(r)
	err := s.inTx(ctx, func(tx pg.Tx) error {
		var err error
		g, err = s.exchange(ctx, tx, body.Code, body.Verifier, from)
		return err
	})
	if err != nil {
		return databaseError(err, errGrantingSession)
	}
	return s.respond(w, r, g, nil)
}

func (s *Server) exchange(ctx context.Context, tx pg.Tx, code, verifier string, from client) (*grant, error) {
	var (
		id, userID uuid.UUID
		f          flow
		method     string
		issued     time.Time

		access, refresh string // of a provider
	)
	err := tx.QueryRow(ctx, sql("flow_find"), code).Scan(&id, &userID, &f.method, &f.challenge, &method, &issued, &access, &refresh)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil, errFlowNotFound
	case err != nil:
		return nil, pg.Wrap(err, "flow_find")
	case s.cfg.Now().After(issued.Add(flowLife)):
		return nil, errFlowExpired
	case !f.provenBy(verifier):
		return nil, errCodeVerifier
	}
	u, err := lockUser(ctx, tx, userID)
	switch {
	case errors.Is(err, sluice.ErrNotFound):
		return nil, errFlowNotFound
	case err != nil:
		return nil, err
	case u.banned(s.cfg.Now()):
		return nil, errBannedBearer
	}
	// Behind the lock: another may have used the code, or ended the user's sessions.
	switch there, err := changed(ctx, tx, "flow_delete", id); {
	case err != nil:
		return nil, err
	case !there:
		return nil, errFlowNotFound
	}
	if err := s.audit(ctx, tx, byUser(u), "login", from, map[string]any{"provider_type": method}); err != nil {
		return nil, err
	}
	g, err := s.signIn(ctx, tx, u, method, from)
	if err == nil {
		g.providerToken, g.providerRefresh = access, refresh
	}
	return g, err
}

// provenBy reports whether verifier is what the challenge was made from.
func (f flow) provenBy(verifier string) bool {
	made := verifier
	if f.method == "s256" {
		sum := sha256.Sum256([]byte(verifier))
		made = base64.RawURLEncoding.EncodeToString(sum[:])
	}
	return subtle.ConstantTimeCompare([]byte(made), []byte(f.challenge)) == 1
}
