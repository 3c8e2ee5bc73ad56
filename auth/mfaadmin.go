package auth

import (
	"net/http"
	"strings"

	"github.com/sluice-dev/sluice/pg"
)

// userOfFactors finds the user whom an administrator's path names.
func (s *Server) userOfFactors(r *http.Request) (*user, error) {
	id, ok := parseUUID(r.PathValue("id"))
	if !ok {
		return nil, errUserIDForm
	}
	u, err := loadUser(r.Context(), s.cfg.Pool, id)
	return u, notFound(err)
}

// adminFactors answers GET /admin/users/{id}/factors.
func (s *Server) adminFactors(w http.ResponseWriter, r *http.Request) error {
	u, err := s.userOfFactors(r)
	if err != nil {
		return err
	}
	if u.Factors == nil {
		u.Factors = []factor{}
	}
	writeJSON(w, http.StatusOK, u.Factors)
	return nil
}

// adminFactorUpdate answers PUT /admin/users/{id}/factors/{factor}.
func (s *Server) adminFactorUpdate(w http.ResponseWriter, r *http.Request) error {
	u, err := s.userOfFactors(r)
	if err != nil {
		return err
	}
	f, err := ownFactor(r, u.Factors)
	if err != nil {
		return err
	}
	var body struct {
		Name  string `json:"friendly_name"`
		Phone string `json:"phone"`
	}
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	if len(body.Name) > maxName {
		return errFactorName
	}
	if body.Phone != "" && f.FactorType == "phone" {
		if f.Phone, err = phoneOf(body.Phone); err != nil {
			return err
		}
	}
	if body.Name != "" {
		f.FriendlyName = body.Name
	}
	ctx, now := r.Context(), s.cfg.Now()
	err = s.inTx(ctx, func(tx pg.Tx) error {
		if err := exec(ctx, tx, "factor_update", f.ID, f.FriendlyName, f.Phone, now); err != nil {
			return err
		}
		return s.audit(ctx, tx, byAdmin(r), "factor_updated", s.clientOf(r), map[string]any{"user_id": u.ID, "factor_id": f.ID})
	})
	if strings.HasPrefix(uniqueViolation(err), "mfa_factors_user_friendly_name") {
		return errFactorExists.with(f.FriendlyName)
	}
	if err != nil {
		return databaseError(err, errUpdatingUser)
	}
	f.UpdatedAt = now.UTC()
	writeJSON(w, http.StatusOK, f)
	return nil
}

// adminFactorDelete answers DELETE /admin/users/{id}/factors/{factor}.
func (s *Server) adminFactorDelete(w http.ResponseWriter, r *http.Request) error {
	u, err := s.userOfFactors(r)
	if err != nil {
		return err
	}
	f, err := ownFactor(r, u.Factors)
	if err != nil {
		return err
	}
	if err := s.dropFactor(r, u, byAdmin(r), f, "factor_deleted"); err != nil {
		return err
	}
	writeJSON(w, http.StatusOK, f)
	return nil
}
