package auth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

// purpose is what a one-time token is for: a value of auth.one_time_token_type
// and the name of a column of auth.users. A user has one live token of each at
// most; a new one replaces it.
type purpose string

const (
	toConfirm        purpose = "confirmation_token"
	toRecover        purpose = "recovery_token"
	toChangeNew      purpose = "email_change_token_new"
	toChangeCurrent  purpose = "email_change_token_current"
	toReauthenticate purpose = "reauthentication_token"
	toChangePhone    purpose = "phone_change_token"
)

// sentAt is when the user's token was sent, from which on it lives.
func (p purpose) sentAt(u *user) *time.Time {
	switch p {
	case toConfirm:
		return u.ConfirmationSentAt
	case toRecover:
		return u.RecoverySentAt
	case toReauthenticate:
		return u.ReauthenticationSentAt
	case toChangePhone:
		return u.PhoneChangeSentAt
	}
	return u.EmailChangeSentAt
}

// own is the user's spelling of an address that its token proves, empty when the
// user has another one by now.
func (p purpose) own(u *user, address string) string {
	own := u.Email
	switch {
	case p == toChangeNew:
		own = u.NewEmail
	case p == toChangePhone:
		own = u.NewPhone
	case isPhone(address):
		own = u.Phone
	}
	if !strings.EqualFold(own, address) {
		return ""
	}
	return own
}

// purposesOf are the tokens that a verification of this type accepts.
func purposesOf(kind string) []purpose {
	switch kind {
	case "signup", "invite":
		return []purpose{toConfirm}
	case "magiclink", "recovery":
		return []purpose{toRecover}
	case "email":
		return []purpose{toConfirm, toRecover}
	case "email_change":
		return []purpose{toChangeCurrent, toChangeNew}
	}
	return nil
}

// oneTime is a new token: the digits, and the hash that links carry and the
// database stores. The hash begins with pkcePrefix when a PKCE client asked.
type oneTime struct{ code, hash string }

const pkcePrefix = "pkce_"

// newOneTime makes the token for an address.
func (s *Server) newOneTime(address string, f flow) oneTime {
	code := newCode(s.cfg.CodeLength)
	hash := s.hashCode(address, code)
	if f.pkce() {
		hash = pkcePrefix + hash
	}
	return oneTime{code, hash}
}

// newCode returns n random digits.
func newCode(n int) string {
	most := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(n)), nil)
	v, err := rand.Int(rand.Reader, most)
	if err != nil {
		panic(err) // crypto/rand does not fail
	}
	return fmt.Sprintf("%0*d", n, v)
}

// hashCode ties a code to its address, so that it is worth nothing for another, and
// to the project's secret: a link is as good as the code, so nobody who knows the
// address may be able to try the hashes of all codes.
func (s *Server) hashCode(address, code string) string {
	return hex.EncodeToString(s.cfg.Keys.MAC("one-time code\x00" + address + "\x00" + code)[:sha256.Size224])
}

// storeSent are the statements that note a token in auth.users.
var storeSent = map[purpose]string{
	toConfirm:        "user_confirmation_sent",
	toRecover:        "user_recovery_sent",
	toReauthenticate: "user_reauthentication_sent",
}

// storeOneTime replaces the user's token of a purpose, which is mailed.
func (s *Server) storeOneTime(ctx context.Context, tx pg.Tx, u *user, p purpose, tok oneTime) error {
	if err := exec(ctx, tx, storeSent[p], u.ID, tok.hash, s.cfg.Now()); err != nil {
		return err
	}
	return s.setOneTime(ctx, tx, u.ID, p, tok, u.Email)
}

func (s *Server) setOneTime(ctx context.Context, tx pg.Tx, id uuid.UUID, p purpose, tok oneTime, address string) error {
	return exec(ctx, tx, "one_time_token_set", id, string(p), tok.hash, strings.ToLower(address), s.cfg.Now())
}

// proof is a valid one-time token that somebody presented, and the locked user
// whose it is.
type proof struct {
	user    *user
	purpose purpose
	hash    string
	address string // that it proves
}

// proveByHash takes a token from a link, which is in mails alone.
func (s *Server) proveByHash(ctx context.Context, tx pg.Tx, hash string, accepted []purpose) (*proof, error) {
	var id uuid.UUID
	err := tx.QueryRow(ctx, sql("one_time_token_find"), hash).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, errLinkExpired
	}
	if err != nil {
		return nil, pg.Wrap(err, "one_time_token_find")
	}
	return s.prove(ctx, tx, id, accepted, errLinkExpired, func(_ string, t liveToken) bool {
		return !isPhone(t.address) && subtle.ConstantTimeCompare([]byte(t.hash), []byte(hash)) == 1
	})
}

// proveByCode takes the digits from a mail to the address. A wrong guess counts
// against the tokens that it may have meant: its error must not roll that back.
func (s *Server) proveByCode(ctx context.Context, tx pg.Tx, id uuid.UUID, address, code string, accepted []purpose) (*proof, error) {
	var tried []liveToken
	p, err := s.prove(ctx, tx, id, accepted, errCodeExpired, func(own string, t liveToken) bool {
		if !strings.EqualFold(t.address, address) {
			return false
		}
		tried = append(tried, t)
		want := strings.TrimPrefix(t.hash, pkcePrefix)
		return subtle.ConstantTimeCompare([]byte(want), []byte(s.hashCode(own, code))) == 1
	})
	if !errors.Is(err, errCodeExpired) {
		return p, err
	}
	for _, t := range tried {
		if err := s.wrongGuess(ctx, tx, id, t); err != nil {
			return nil, err
		}
	}
	return nil, errCodeExpired
}

// prove locks the user and looks for the live token that was presented.
func (s *Server) prove(ctx context.Context, tx pg.Tx, id uuid.UUID, accepted []purpose, expired error, presented func(own string, t liveToken) bool) (*proof, error) {
	u, err := lockUser(ctx, tx, id)
	if errors.Is(err, sluice.ErrNotFound) {
		return nil, expired
	}
	if err != nil {
		return nil, err
	}
	tokens, err := liveTokens(ctx, tx, id)
	if err != nil {
		return nil, err
	}
	for _, p := range accepted {
		t, found := tokens[p]
		if !found {
			continue
		}
		if own := p.own(u, t.address); own == "" || !presented(own, t) {
			continue
		}
		if sent := p.sentAt(u); sent == nil || s.cfg.Now().After(sent.Add(s.codeLife(t.address))) {
			return nil, expired
		}
		if u.banned(s.cfg.Now()) {
			return nil, errBannedBearer
		}
		return &proof{u, p, t.hash, t.address}, nil
	}
	return nil, expired
}

// liveToken is a row of auth.one_time_tokens.
type liveToken struct {
	purpose purpose
	hash    string
	address string
}

// codeLife is how long what was sent to an address lives.
func (s *Server) codeLife(address string) time.Duration {
	if isPhone(address) {
		return s.cfg.SMS.CodeExpiry
	}
	return s.cfg.CodeExpiry
}

func liveTokens(ctx context.Context, tx pg.Tx, id uuid.UUID) (map[purpose]liveToken, error) {
	rows, _ := tx.Query(ctx, sql("one_time_token_list"), id) // its error is also the rows'
	out := map[purpose]liveToken{}
	var t liveToken
	_, err := pgx.ForEachRow(rows, []any{&t.purpose, &t.hash, &t.address}, func() error {
		out[t.purpose] = t
		return nil
	})
	return out, pg.Wrap(err, "one_time_token_list")
}

// maxGuesses is the wrong code that ends a token. Six digits under a limit
// for each address alone could be guessed from many addresses.
const maxGuesses = 10

// wrongGuess counts a wrong code, on all nodes together, and ends the token when
// there were too many.
func (s *Server) wrongGuess(ctx context.Context, tx pg.Tx, id uuid.UUID, t liveToken) error {
	wait, err := s.take(ctx, tx, "guess:"+strings.TrimPrefix(t.hash, pkcePrefix), s.codeLife(t.address), maxGuesses-2)
	if err != nil || wait == 0 {
		return err
	}
	return exec(ctx, tx, "one_time_token_delete", id, string(t.purpose))
}
