package auth

import (
	"net/http"
)

// health answers GET /health. Probes match the original's name.
func (s *Server) health(w http.ResponseWriter, _ *http.Request) error {
	writeJSON(w, http.StatusOK, struct {
		Version     string `json:"version"`
		Name        string `json:"name"`
		Description string `json:"description"`
	}{s.cfg.Version, "GoTrue", "Sluice Auth, compatible with GoTrue, a user registration and authentication API"})
	return nil
}

// settings answers GET /settings.
func (s *Server) settings(w http.ResponseWriter, _ *http.Request) error {
	external := map[string]bool{
		"anonymous_users": s.cfg.EnableAnonymous,
		"email":           s.cfg.EnableEmail,
		"phone":           s.cfg.EnablePhone,
	}
	for _, name := range providerNames {
		external[name] = s.providers[name] != nil
	}
	for _, name := range []string{"x", "vercel_marketplace"} {
		delete(external, name) // the original does not tell them
	}
	writeJSON(w, http.StatusOK, struct {
		External                     map[string]bool `json:"external"`
		DisableSignup                bool            `json:"disable_signup"`
		MailerAutoconfirm            bool            `json:"mailer_autoconfirm"`
		PhoneAutoconfirm             bool            `json:"phone_autoconfirm"`
		SMSProvider                  string          `json:"sms_provider"`
		SAMLEnabled                  bool            `json:"saml_enabled"`
		SAMLPrivateKeyNextConfigured bool            `json:"saml_private_key_next_configured"`
		PasskeysEnabled              bool            `json:"passkeys_enabled"`
	}{
		External:          external,
		DisableSignup:     !s.cfg.EnableSignup,
		MailerAutoconfirm: s.cfg.EmailAutoconfirm,
		PhoneAutoconfirm:  s.cfg.PhoneAutoconfirm,
		SMSProvider:       s.cfg.SMS.Provider,
	})
	return nil
}

// cacheKeys is how long clients may keep the public keys; a new key is published
// at least that long before it signs.
const cacheKeys = "public, max-age=600"

// serveJWKS answers GET /.well-known/jwks.json.
func (s *Server) serveJWKS(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Cache-Control", cacheKeys)
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(s.jwks) // the client may have gone
	return nil
}

// openID answers GET /.well-known/openid-configuration, by which third parties
// find the keys.
func (s *Server) openID(w http.ResponseWriter, _ *http.Request) error {
	w.Header().Set("Cache-Control", cacheKeys)
	base := s.cfg.ExternalURL
	writeJSON(w, http.StatusOK, map[string]any{
		"issuer":                                s.cfg.Issuer,
		"authorization_endpoint":                base + "/oauth/authorize",
		"token_endpoint":                        base + "/oauth/token",
		"jwks_uri":                              base + "/.well-known/jwks.json",
		"userinfo_endpoint":                     base + "/oauth/userinfo",
		"scopes_supported":                      []string{"openid", "profile", "email", "phone", "offline_access"},
		"response_types_supported":              []string{"code"},
		"response_modes_supported":              []string{"query"},
		"grant_types_supported":                 []string{"authorization_code", "refresh_token"},
		"subject_types_supported":               []string{"public"},
		"id_token_signing_alg_values_supported": []string{"RS256", "HS256", "ES256"},
		"token_endpoint_auth_methods_supported": []string{"client_secret_basic", "client_secret_post", "none"},
		"code_challenge_methods_supported":      []string{"S256", "plain"},
		"claims_supported": []string{
			"sub", "aud", "iss", "exp", "iat", "auth_time", "nonce", "email", "email_verified", "phone_number",
			"phone_number_verified", "name", "picture", "preferred_username", "updated_at",
		},
	})
	return nil
}
