package auth

import "net/http"

// laterRoutes are the routes of features that are not served. They answer as the
// original does with the feature disabled.
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
		"/user/oauth/grants":                         userOff(errOAuthServer, "GET", "DELETE"),
		"/sso":                                       off(errSAMLDisabled, "POST"),
		"/sso/saml/acs":                              off(errSAMLDisabled, "POST"),
		"/sso/saml/metadata":                         off(errSAMLDisabled, "GET"),
		"/passkeys/":                                 off(errPasskeyDisabled, every...),
		"/scim/":                                     off(errSCIM, every...),
		"/oauth/":                                    off(errOAuthServer, every...),
		"/.well-known/oauth-authorization-server":    off(errOAuthServer, "GET"),
	}
}
