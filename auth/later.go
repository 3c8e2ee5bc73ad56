package auth

import (
	"net/http"
	"net/url"
	"slices"
)

// laterRoutes are the routes of features that are off or not served yet. They
// answer as the original does with the feature disabled; what the original
// cannot disable is 501, never a success that is none.
func (s *Server) laterRoutes() map[string]methods {
	off := func(why *apiError, verbs ...string) methods {
		m := methods{}
		for _, v := range verbs {
			m[v] = func(http.ResponseWriter, *http.Request) error { return why }
		}
		return m
	}
	every := []string{"GET", "POST", "PUT", "PATCH", "DELETE"}
	adminOff := func(why *apiError, verbs ...string) methods {
		m := off(why, verbs...)
		for v, do := range m {
			m[v] = s.admin(do)
		}
		return m
	}
	userOff := func(why *apiError, verbs ...string) methods {
		m := methods{}
		for _, v := range verbs {
			m[v] = func(_ http.ResponseWriter, r *http.Request) error {
				if _, err := s.caller(r); err != nil {
					return err
				}
				return why
			}
		}
		return m
	}
	return map[string]methods{
		"/admin/users/{id}/passkeys":                 adminOff(errPasskeyDisabled, "GET"),
		"/admin/users/{id}/passkeys/{passkey}":       adminOff(errPasskeyDisabled, "DELETE"),
		"/admin/sso/providers":                       adminOff(errSAMLDisabled, "GET", "POST"),
		"/admin/sso/providers/{provider}":            adminOff(errSAMLDisabled, "GET", "PUT", "DELETE"),
		"/admin/custom-providers":                    adminOff(errCustomProviders, "GET", "POST"),
		"/admin/custom-providers/{provider}":         adminOff(errCustomProviders, "GET", "PUT", "DELETE"),
		"/admin/oauth/clients":                       adminOff(errOAuthServer, "GET", "POST"),
		"/admin/oauth/clients/{client}":              adminOff(errOAuthServer, "GET", "PUT", "DELETE"),
		"/admin/oauth/clients/{c}/regenerate_secret": adminOff(errOAuthServer, "POST"),
		"/user/identities/authorize":                 userOff(errManualLinking, "GET"),
		"/user/identities/{identity}":                userOff(errManualLinking, "DELETE"),
		"/user/oauth/grants":                         userOff(errOAuthServer, "GET", "DELETE"),
		"/authorize":                                 {"GET": s.authorize},
		"/callback":                                  {"GET": s.callback, "POST": s.callback},
		"/sso":                                       off(errSAMLDisabled, "POST"),
		"/sso/saml/acs":                              off(errSAMLDisabled, "POST"),
		"/sso/saml/metadata":                         off(errSAMLDisabled, "GET"),
		"/passkeys/":                                 off(errPasskeyDisabled, every...),
		"/scim/":                                     off(errSCIM, every...),
		"/oauth/":                                    off(errOAuthServer, every...),
		"/.well-known/oauth-authorization-server":    off(errOAuthServer, "GET"),
	}
}

// issuers are the issuers of the ID tokens that the original takes.
var issuers = map[string]string{
	"apple":    "https://appleid.apple.com",
	"azure":    "https://login.microsoftonline.com/common/v2.0",
	"facebook": "https://www.facebook.com",
	"google":   "https://accounts.google.com",
	"kakao":    "https://kauth.kakao.com",
	"keycloak": "",
	"snapchat": "https://accounts.snapchat.com",
}

// idTokenGrant answers as with every provider disabled.
func (s *Server) idTokenGrant(w http.ResponseWriter, r *http.Request) error {
	var body struct {
		Provider string `json:"provider"`
		ClientID string `json:"client_id"`
		Issuer   string `json:"issuer"`
		IDToken  string `json:"id_token"`
	}
	if err := readBody(w, r, &body); err != nil {
		return err
	}
	switch {
	case body.IDToken == "":
		return errIDTokenMissing
	case body.Provider == "" && (body.ClientID == "" || body.Issuer == ""):
		return errIDTokenProvider
	case body.Provider == "":
		return errProviderIssuer.with(body.Issuer)
	}
	issuer, known := issuers[body.Provider]
	if !known {
		return errProviderUnknown.with(body.Provider)
	}
	return errProviderIssuer.with(issuer)
}

// authorize answers the begin of an OAuth sign-in.
func (s *Server) authorize(_ http.ResponseWriter, r *http.Request) error {
	name := r.URL.Query().Get("provider")
	if slices.Contains(providers, name) || name == "x" || name == "vercel_marketplace" {
		return errProviderOff
	}
	return errProviderName.with(name)
}

// callback answers the end of an OAuth sign-in. A state that is no flow of ours
// leads to the site with an error, as a browser is on its way.
func (s *Server) callback(w http.ResponseWriter, r *http.Request) error {
	state := r.URL.Query().Get("state")
	if state == "" && r.Method == http.MethodPost {
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		state = r.PostFormValue("state")
	}
	if state == "" {
		return errNoState
	}
	text := "OAuth state parameter is invalid"
	if _, ok := parseUUID(state); ok {
		text = "OAuth state not found or expired"
	}
	return sendTo(w, r, landing(s.cfg.SiteURL, url.Values{
		"error": {"invalid_request"}, "error_code": {"bad_oauth_state"}, "error_description": {text},
	}, nil))
}
