package auth

import (
	"context"
	"net/http"

	"github.com/google/uuid"

	"github.com/sluice-dev/sluice/pg"
)

// enrollPhone adds a phone as second factor, which counts once a code sent to it was
// verified.
func (s *Server) enrollPhone(w http.ResponseWriter, r *http.Request, c *caller, name, phone string) error {
	switch {
	case !s.cfg.EnablePhoneEnroll:
		return errEnrollPhone
	case len(name) > maxName:
		return errFactorName
	}
	phone, err := phoneOf(phone)
	if err != nil {
		return err
	}
	f := &factor{ID: uuid.New(), FactorType: "phone", FriendlyName: name, Phone: phone}
	if err := s.addFactor(r, c, f, ""); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, struct {
		ID    uuid.UUID `json:"id"`
		Type  string    `json:"type"`
		Name  string    `json:"friendly_name,omitempty"`
		Phone string    `json:"phone"`
	}{f.ID, f.FactorType, name, phone})
	return nil
}

// textFactor sends a code to the phone of a factor and returns what is kept of it.
func (s *Server) textFactor(ctx context.Context, tx pg.Tx, u *user, f *factor, channel string) (hash string, err error) {
	if err := s.spacedText(ctx, tx, "factor", f.Phone, s.cfg.PhoneFactor.Interval); err != nil {
		return "", err
	}
	tok := s.newTextCode(f.Phone, s.cfg.PhoneFactor.CodeLength)
	_, err = s.text(ctx, tx, u, f.Phone, tok.code, channel, "MFA", s.factorText)
	return tok.hash, err
}
