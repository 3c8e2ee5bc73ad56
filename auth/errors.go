package auth

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

// apiError is a refusal in the words of Supabase Auth. Message is public, the
// cause is for the log.
type apiError struct {
	status  int
	code    string
	message string
	reasons []string // of weak_password
	oauth   bool     // written as {"error","error_description"}
	cause   error
}

func (e *apiError) Error() string { return e.code + ": " + e.message }
func (e *apiError) Unwrap() error { return e.cause }

// because returns a copy of e with a private cause.
func (e *apiError) because(err error) *apiError {
	c := *e
	c.cause = err
	return &c
}

// Is compares by identity of the refusal, so that errors.Is works on copies.
func (e *apiError) Is(target error) bool {
	t, ok := target.(*apiError)
	return ok && t.status == e.status && t.code == e.code && t.message == e.message
}

// The table: status, code and text of every refusal. Clients match on codes and
// show texts, so both are as the original's.
var (
	errBadBody       = refuse(400, "bad_json", "Could not parse request body as JSON: %s")
	errBodyTooLarge  = refuse(413, "request_entity_too_large", fmt.Sprintf("Request body too large (max %d bytes)", maxBody))
	errTimeout       = refuse(504, "request_timeout", "Processing this request timed out, please retry after a moment.")
	errUnexpected    = refuse(500, "unexpected_failure", "Unexpected failure, please check server logs for more information")
	errUnavailable   = refuse(503, "unexpected_failure", "The database cannot be reached, please retry after a moment.")
	errRouteNotFound = refuse(404, "unknown", "404 page not found")
	errMethod        = refuse(405, "unknown", "Method not allowed")
	errRateLimit     = refuse(429, "over_request_rate_limit", "Request rate limit reached")
	errConflict      = refuse(409, "conflict", "Too many concurrent token refresh requests on the same session or refresh token")
	errMetadata      = refuse(400, "validation_failed", "Metadata cannot be stored: %s")

	errNoBearer        = refuse(401, "no_authorization", "This endpoint requires a valid Bearer token")
	errBadJWT          = refuse(403, "bad_jwt", "invalid JWT: unable to parse or verify signature, %s")
	errNoSubject       = refuse(403, "bad_jwt", "invalid claim: missing sub claim")
	errSubjectForm     = refuse(400, "bad_jwt", "invalid claim: sub claim must be a UUID")
	errSessionForm     = refuse(403, "bad_jwt", "invalid claim: session_id claim must be a UUID")
	errSubjectGone     = refuse(403, "user_not_found", "User from sub claim in JWT does not exist")
	errSessionGone     = refuse(403, "session_not_found", "Session from session_id claim in JWT does not exist")
	errSessionInvalid  = refuse(403, "session_expired", "Session is no longer valid")
	errBannedBearer    = refuse(403, "user_banned", "User is banned")
	errNotAdmin        = refuse(403, "not_admin", "User not allowed")
	errAudience        = refuse(400, "validation_failed", "Token audience doesn't match request audience")
	errAnonymousBearer = refuse(403, "no_authorization", "Anonymous user not allowed to perform these actions")

	errEmailRequired   = refuse(400, "validation_failed", "An email address is required")
	errEmailTooLong    = refuse(400, "validation_failed", "An email address is too long")
	errEmailFormat     = refuse(400, "validation_failed", "Unable to validate email address: invalid format")
	errPhoneFormat     = refuse(400, "validation_failed", "Invalid phone number format (E.164 required)")
	errPasswordTooLong = refuse(400, "validation_failed", fmt.Sprintf("Password cannot be longer than %d characters", maxPassword))

	errSignupDisabled    = refuse(422, "signup_disabled", "Signups not allowed for this instance")
	errAnonymousDisabled = refuse(422, "anonymous_provider_disabled", "Anonymous sign-ins are disabled")
	errSignupPassword    = refuse(400, "validation_failed", "Signup requires a valid password")
	errSignupBoth        = refuse(400, "validation_failed", "Only an email address or phone number should be provided on signup.")
	errSignupEmailOff    = refuse(400, "email_provider_disabled", "Email signups are disabled")
	errSignupPhoneOff    = refuse(400, "phone_provider_disabled", "Phone signups are disabled")
	errPKCEPhone         = refuse(400, "validation_failed", "PKCE not supported for phone signups")
	errPKCEPair          = refuse(400, "validation_failed", "PKCE flow requires code_challenge_method and code_challenge")
	errPKCELength        = refuse(400, "validation_failed", "code challenge has to be between 43 and 128 characters")
	errPKCECharacters    = refuse(400, "validation_failed", "code challenge can only contain alphanumeric characters, hyphens, periods, underscores and tildes")
	errPKCEMethod        = refuse(400, "validation_failed", "code_challenge_method must be s256 or plain")
	errChannel           = refuse(400, "validation_failed", "Invalid channel, supported values are 'sms' or 'whatsapp'. 'whatsapp' is only supported if Twilio or Twilio Verify is used as the provider.")
	errUserExists        = refuse(422, "user_already_exists", "User already registered")
	errSavingNewUser     = refuse(500, "unexpected_failure", "Database error saving new user")
	errNoSMSProvider     = refuse(500, "unexpected_failure", "Unable to get SMS provider")

	errSendingText  = refuse(422, "sms_send_failed", "Error sending %s OTP to provider: %s")
	errTextLimit    = refuse(429, "over_sms_send_rate_limit", "SMS rate limit exceeded")
	errTextInterval = refuse(429, "over_sms_send_rate_limit", "For security purposes, you can only request this after %d seconds.")

	errCaptcha       = refuse(400, "captcha_failed", "captcha protection: request disallowed (%s)")
	errCaptchaFailed = refuse(500, "unexpected_failure", "captcha verification process failed")

	errGrantType        = refuse(400, "invalid_credentials", "unsupported_grant_type")
	errLoginBoth        = refuse(400, "validation_failed", "Only an email address or phone number should be provided on login.")
	errLoginNeither     = refuse(400, "validation_failed", "missing email or phone")
	errLoginEmailOff    = refuse(422, "email_provider_disabled", "Email logins are disabled")
	errLoginPhoneOff    = refuse(422, "phone_provider_disabled", "Phone logins are disabled")
	errCredentials      = refuse(400, "invalid_credentials", "Invalid login credentials")
	errLoginBanned      = refuse(400, "user_banned", "User is banned")
	errEmailUnconfirmed = refuse(400, "email_not_confirmed", "Email not confirmed")
	errPhoneUnconfirmed = refuse(400, "phone_not_confirmed", "Phone not confirmed")

	errRefreshForm       = refuse(400, "validation_failed", "Refresh token is not valid")
	errRefreshNotFound   = refuse(400, "refresh_token_not_found", "Invalid Refresh Token: Refresh Token Not Found")
	errRefreshUsed       = refuse(400, "refresh_token_already_used", "Invalid Refresh Token: Already Used")
	errRefreshForeign    = refuse(400, "validation_failed", "Invalid Refresh Token: Not Issued By This Server")
	errRefreshNoSession  = refuse(400, "session_not_found", "Invalid Refresh Token: No Valid Session Found")
	errRefreshExpired    = refuse(400, "session_expired", "Invalid Refresh Token: Session Expired")
	errRefreshInactive   = refuse(400, "session_expired", "Invalid Refresh Token: Session Expired (Inactivity)")
	errRefreshNewerLogin = refuse(400, "session_expired", "Invalid Refresh Token: Session Expired (Revoked by Newer Login)")
	errRefreshBanned     = refuse(400, "user_banned", "Invalid Refresh Token: User Banned")
	errRefreshClient     = refuse(400, "invalid_client", "Invalid Refresh Token: Client Does Not Match")

	errSendingMail  = refuse(500, "unexpected_failure", "Error sending %s email")
	errMailLimit    = refuse(429, "over_email_send_rate_limit", "email rate limit exceeded")
	errMailInterval = refuse(429, "over_email_send_rate_limit", "For security purposes, you can only request this after %d seconds.")

	errOTPBoth         = refuse(400, "validation_failed", "Only an email address or phone number should be provided")
	errOTPChannel      = refuse(400, "validation_failed", "Channel should only be specified with Phone OTP")
	errOTPNeither      = refuse(400, "validation_failed", "One of email or phone must be set")
	errOTPDisabled     = refuse(422, "otp_disabled", "Signups not allowed for otp")
	errOTPPhoneOff     = refuse(400, "phone_provider_disabled", "Unsupported phone provider")
	errMagicLinkEmail  = refuse(422, "validation_failed", "Password recovery requires an email")
	errRecoverEmail    = refuse(400, "validation_failed", "Password recovery requires an email")
	errRecoverEmailOff = refuse(400, "email_provider_disabled", "Email logins are disabled")
	errResendType      = refuse(400, "validation_failed", "Missing one of these types: signup, email_change, sms, phone_change")
	errResendEmail     = refuse(400, "validation_failed", "Type provided requires an email address")
	errResendPhone     = refuse(400, "validation_failed", "Type provided requires a phone number")
	errResendBoth      = refuse(400, "validation_failed", "Only an email address or phone number should be provided.")
	errResendNeither   = refuse(400, "validation_failed", "Missing email address or phone number")

	errVerifyKind      = refuse(400, "validation_failed", "Verify requires a verification type")
	errVerifyToken     = refuse(400, "validation_failed", "Verify requires a token or a token hash")
	errVerifyEither    = refuse(400, "validation_failed", "Verify requires either a token or a token hash")
	errVerifyHashAlone = refuse(400, "validation_failed", "Only the token_hash and type should be provided")
	errVerifyAddress   = refuse(400, "validation_failed", "Only an email address or phone number should be provided on verify")
	errVerifyType      = refuse(400, "validation_failed", "Invalid email verification type")
	errVerifyEmail     = refuse(422, "validation_failed", "Invalid email format")
	errLinkExpired     = refuse(403, "otp_expired", "Email link is invalid or has expired")
	errCodeExpired     = refuse(403, "otp_expired", "Token has expired or is invalid")
	errLinkType        = refuse(400, "validation_failed", "Invalid email action link type requested: %s")
	errLinkUser        = refuse(404, "user_not_found", "User with this email not found")
	errLinkCurrent     = refuse(400, "validation_failed", "Enable secure email change to generate link for current email")
	errAuditQuery      = refuse(400, "validation_failed", "Invalid query scope: %s")

	errFlowExpired      = refuse(422, "flow_state_expired", "invalid flow state, flow state has expired")
	errCodeVerifier     = refuse(400, "bad_code_verifier", "code challenge does not match previously saved code verifier")
	errPKCEExchange     = refuse(400, "validation_failed", "invalid request: both auth code and code verifier should be non-empty")
	errFlowNotFound     = refuse(404, "flow_state_not_found", "invalid flow state, no valid flow state found")
	errProviderIssuer   = refuse(400, "provider_disabled", "Provider (issuer %q) is not enabled")
	errProviderUnknown  = refuse(400, "validation_failed", "Custom OIDC provider %q not allowed")
	errIDTokenMissing   = &apiError{status: 400, oauth: true, code: "invalid request", message: "id_token required"}
	errIDTokenProvider  = &apiError{status: 400, oauth: true, code: "invalid request", message: "provider or client_id and issuer required"}
	errWeb3Disabled     = refuse(422, "web3_provider_disabled", "Web3 provider is disabled")
	errLogoutScope      = refuse(400, "validation_failed", "Unsupported logout scope %q")
	errAppMetadata      = refuse(403, "not_admin", "Updating app_metadata requires admin privileges")
	errAAL2Required     = refuse(401, "insufficient_aal", "AAL2 session is required to update email or password when MFA is enabled.")
	errAnonymousSecret  = refuse(422, "validation_failed", "Updating password of an anonymous user without an email or phone is not allowed")
	errManagedBySSO     = refuse(422, "user_sso_managed", "Updating email, phone, password of a SSO account only possible via SSO")
	errEmailExists      = refuse(422, "email_exists", "A user with this email address has already been registered")
	errPhoneExists      = refuse(422, "phone_exists", "A user with this phone number has already been registered")
	errReauthenticate   = refuse(400, "reauthentication_needed", "Password update requires reauthentication")
	errReauthAddress    = refuse(400, "validation_failed", "Reauthentication requires the user to have an email or a phone number")
	errReauthEmail      = refuse(422, "email_not_confirmed", "Please verify your email first.")
	errReauthPhone      = refuse(422, "phone_not_confirmed", "Please verify your phone first.")
	errNonce            = refuse(422, "reauthentication_not_valid", "Nonce has expired or is invalid")
	errCurrentMissing   = refuse(400, "current_password_required", "Current password required when setting new password.")
	errCurrentWrong     = refuse(400, "current_password_invalid", "Current password required when setting new password.")
	errSamePassword     = refuse(422, "same_password", "New password should be different from the old password.")
	errUserChanged      = refuse(409, "conflict", "The user was changed by another request")
	errUpdatingUser     = refuse(500, "unexpected_failure", "Database error updating user")
	errDeletingUser     = refuse(500, "unexpected_failure", "Database error deleting user")
	errGrantingSession  = refuse(500, "unexpected_failure", "Database error granting user")
	errAdminNeither     = refuse(400, "validation_failed", "Cannot create a user without either an email or phone")
	errAdminBothSecrets = refuse(400, "validation_failed", "Only a password or a password hash should be provided")
	errAdminHash        = refuse(400, "validation_failed", "The password hash is not of a supported format")
	errAdminID          = refuse(400, "validation_failed", "ID must conform to the uuid v4 format")
	errAdminNilID       = refuse(400, "validation_failed", "ID cannot be a nil uuid")
	errAdminIDExists    = refuse(422, "user_already_exists", "A user with this ID has already been registered")
	errAdminPhoneExists = refuse(422, "phone_exists", "Phone number already registered by another user")
	errBanDuration      = refuse(400, "validation_failed", "invalid format for ban duration: %s")
	errRoleName         = refuse(400, "validation_failed", "Role is too long")
	errPage             = refuse(400, "validation_failed", "Bad Pagination Parameters: %s")
	errSort             = refuse(400, "validation_failed", "Bad Sort Parameters: %s")
	errUserIDForm       = refuse(404, "validation_failed", "user_id must be an UUID")
	errUserNotFound     = refuse(404, "user_not_found", "User not found")

	errHook             = refuse(500, "unexpected_failure", "Error running hook")
	errHookTimeout      = refuse(422, "hook_timeout", "Failed to reach hook within maximum time of 5 seconds")
	errHookRetried      = refuse(422, "hook_timeout_after_retry", "Failed to reach hook after maximum retries")
	errHookSize         = refuse(422, "hook_payload_over_size_limit", "Payload size exceeded size limit of 200 KB")
	errHookType         = refuse(400, "hook_payload_invalid_content_type", "Invalid Content-Type in hook response: %q")
	errHookClaims       = refuse(500, "unexpected_failure", "output claims do not conform to the expected schema: %s is missing or of another type")
	errPasswordRejected = refuse(400, "invalid_credentials", "Further password verification attempts will be rejected.")
	errMFARejected      = refuse(403, "mfa_verification_rejected", "Further MFA verification attempts will be rejected.")

	errSAMLDisabled    = refuse(404, "saml_provider_disabled", "SAML 2.0 is disabled")
	errPasskeyDisabled = refuse(404, "passkey_disabled", "Passkeys are disabled")
	errManualLinking   = refuse(404, "manual_linking_disabled", "Manual linking is disabled")
	errOAuthServer     = refuse(404, "feature_disabled", "OAuth server is disabled")
	errCustomProviders = refuse(404, "feature_disabled", "Custom OAuth providers are disabled")
	errSCIM            = refuse(404, "feature_disabled", "SCIM server is disabled")
	errProviderOff     = refuse(400, "validation_failed", "Unsupported provider: provider is not enabled")
	errProviderName    = refuse(400, "validation_failed", "Unsupported provider: Provider %s could not be found")
	errNoState         = refuse(400, "bad_oauth_callback", "OAuth state parameter missing")
	errProviderReach   = refuse(500, "unexpected_failure", "The provider cannot be reached")
	errStateForm       = refuse(400, "bad_oauth_state", "OAuth state parameter is invalid")
	errStateGone       = refuse(400, "bad_oauth_state", "OAuth state not found or expired")
	errStateExpired    = refuse(400, "bad_oauth_state", "OAuth state has expired")
	errStateUsed       = refuse(400, "flow_state_already_used", "State has already been used")
	errNoOAuthCode     = refuse(400, "bad_oauth_callback", "OAuth callback with missing authorization code missing")
	errExchangeCode    = refuse(500, "unexpected_failure", "Unable to exchange external code: %s")
	errProviderProfile = refuse(500, "unexpected_failure", "Error getting user profile from external provider")
	errProviderEmail   = refuse(500, "unexpected_failure", "Error getting user email from external provider")
	errTokenEmail      = refuse(400, "validation_failed", "Error getting user email from external provider")
	errVerifyMailed    = refuse(422, "provider_email_needs_verification", "Unverified email with %s. A confirmation email has been sent to your %s email")
	errVerifyThere     = refuse(422, "provider_email_needs_verification", "Unverified email with %s. Verify the email with %s in order to sign in")
	errManyAccounts    = refuse(500, "unexpected_failure", "Multiple accounts with the same email address in the same linking domain detected: default")
	errIdentityLinked  = refuse(422, "identity_already_exists", "Identity is already linked")
	errIdentityTaken   = refuse(422, "identity_already_exists", "Identity is already linked to another user")
	errIdentityID      = refuse(404, "validation_failed", "identity_id must be an UUID")
	errLastIdentity    = refuse(422, "single_identity_not_deletable", "User must have at least 1 identity after unlinking")
	errNoIdentity      = refuse(422, "identity_not_found", "Identity doesn't exist")
	errUnlinkEmail     = refuse(422, "email_conflict_identity_not_deletable", "Unable to unlink identity due to email conflict")
	errUnlinkAudience  = refuse(403, "unexpected_audience", "Token audience doesn't match request audience")
	errInviteToken     = refuse(404, "user_not_found", "User identified by token not found")
	errInviteGone      = refuse(404, "invite_not_found", "Invite not found")
	errInviteAddress   = refuse(400, "validation_failed", "Invited email does not match emails from external provider")
	errFactorType      = refuse(400, "validation_failed", "factor_type needs to be totp, phone, or webauthn")
	errEnrollTOTP      = refuse(422, "mfa_totp_enroll_not_enabled", "MFA enroll is disabled for TOTP")
	errEnrollPhone     = refuse(422, "mfa_phone_enroll_not_enabled", "MFA enroll is disabled for Phone")
	errEnrollWebAuthn  = refuse(422, "mfa_webauthn_enroll_not_enabled", "MFA enroll is disabled for WebAuthn")
	errFactorID        = refuse(404, "validation_failed", "factor_id must be an UUID")
	errFactorNotFound  = refuse(404, "mfa_factor_not_found", "Factor not found")

	errFactorName        = refuse(400, "validation_failed", "Friendly name or issuer is too long")
	errFactorExists      = refuse(422, "mfa_factor_name_conflict", "A factor with the friendly name %q for this user already exists")
	errTooManyFactors    = refuse(422, "too_many_enrolled_mfa_factors", "Maximum number of verified factors reached, unenroll to continue")
	errEnrollAAL         = refuse(403, "insufficient_aal", "AAL2 required to enroll a new factor")
	errLinkAAL           = refuse(403, "insufficient_aal", "AAL2 required to link or unlink an identity")
	errUnenrollAAL       = refuse(422, "insufficient_aal", "AAL2 required to unenroll verified factor")
	errPhoneFactor       = refuse(422, "mfa_verified_factor_exists", "A verified phone factor already exists, unenroll the existing factor to continue")
	errVerifyPhone       = refuse(422, "mfa_phone_verify_not_enabled", "MFA verification is disabled for Phone")
	errVerifyWebAuthn    = refuse(422, "mfa_webauthn_verify_not_enabled", "MFA verification is disabled for WebAuthn")
	errPhoneCode         = refuse(422, "mfa_verification_failed", "Invalid MFA Phone code entered")
	errVerifyTOTP        = refuse(422, "mfa_totp_verify_not_enabled", "MFA verification is disabled for TOTP")
	errFactorCode        = refuse(400, "validation_failed", "Code needs to be non-empty")
	errTOTPCode          = refuse(422, "mfa_verification_failed", "Invalid TOTP code entered")
	errChallengeNotFound = refuse(422, "mfa_factor_not_found", "MFA factor with the provided challenge ID not found")
	errChallengeIP       = refuse(422, "mfa_ip_address_mismatch", "Challenge and verify IP addresses mismatch.")
	errChallengeExpired  = refuse(422, "mfa_challenge_expired", "MFA challenge %s has expired, verify against another challenge or create a new challenge.")
)

func refuse(status int, code, message string) *apiError {
	return &apiError{status: status, code: code, message: message}
}

// with fills the verbs in e's text.
func (e *apiError) with(args ...any) *apiError {
	c := *e
	c.message = fmt.Sprintf(e.message, args...)
	return &c
}

func weak(message string, reasons []string) *apiError {
	return &apiError{status: 422, code: "weak_password", message: message, reasons: reasons}
}

// databaseError returns what a failed statement is answered with: known trouble
// by its kind, anything else as fallback with err as its cause.
func databaseError(err error, fallback *apiError) error {
	var known *apiError
	switch kind := pg.Kind(err); {
	case err == nil:
		return nil
	case errors.As(err, &known):
		return err
	case errors.Is(kind, sluice.ErrUnavailable):
		return errUnavailable.because(err)
	case errors.Is(kind, sluice.ErrTimeout), errors.Is(err, context.DeadlineExceeded):
		return errTimeout.because(err)
	default:
		return fallback.because(err)
	}
}

// uniqueViolation returns the constraint that err broke, or "".
func uniqueViolation(err error) string {
	var pe *pgconn.PgError
	if errors.As(err, &pe) && pe.Code == "23505" && pe.SchemaName == "auth" {
		return pe.ConstraintName
	}
	return ""
}

const (
	versionHeader = "X-Supabase-Api-Version"
	codeHeader    = "x-sb-error-code"
	version2024   = "2024-01-01"
)

// wants2024 reads the API version header: absent, unreadable or earlier dates
// mean the legacy format.
func wants2024(header string) bool {
	if len(header) != len(version2024) {
		return false
	}
	for i, c := range []byte(header) {
		if (i == 4 || i == 7) != (c == '-') || c != '-' && (c < '0' || c > '9') {
			return false
		}
	}
	month, day := header[5:7], header[8:10]
	return header >= version2024 && month >= "01" && month <= "12" && day >= "01" && day <= "31"
}

type weakReasons struct {
	Reasons []string `json:"reasons"`
}

// writeError answers err. It is the only place that knows the formats.
func (s *Server) writeError(w http.ResponseWriter, r *http.Request, err error) {
	var e *apiError
	if !errors.As(err, &e) {
		e = databaseError(err, errUnexpected).(*apiError)
	}
	id, _ := sluice.IdentityFrom(r.Context())
	s.logFailure(r, e, err)
	h := w.Header()
	h.Set(sluice.HeaderRefusedBy, "auth")
	h.Set(sluice.HeaderCode, refusalCode(e))
	modern := wants2024(r.Header.Get(versionHeader))
	if e.oauth {
		writeJSON(w, e.status, struct {
			Error       string `json:"error"`
			Description string `json:"error_description"`
		}{e.code, e.message})
		return
	}
	h.Set(codeHeader, e.code)
	var reasons *weakReasons
	if e.reasons != nil {
		reasons = &weakReasons{e.reasons}
	}
	if modern {
		h.Set(versionHeader, version2024)
		writeJSON(w, e.status, struct {
			Code    string       `json:"code"`
			Message string       `json:"message"`
			Weak    *weakReasons `json:"weak_password,omitempty"`
		}{e.code, e.message, reasons})
		return
	}
	if status, raised := raisedBySQL(e); raised != nil {
		writeJSON(w, status, raised)
		return
	}
	legacy := struct {
		Code      int          `json:"code"`
		ErrorCode string       `json:"error_code"`
		Msg       string       `json:"msg"`
		ErrorID   string       `json:"error_id,omitempty"`
		Weak      *weakReasons `json:"weak_password,omitempty"`
	}{e.status, e.code, e.message, "", reasons}
	if e.status >= 500 {
		legacy.ErrorID = id.RequestID
	}
	writeJSON(w, e.status, legacy)
}

// logFailure tells people about what is the server's fault.
func (s *Server) logFailure(r *http.Request, e *apiError, err error) {
	if e.status < 500 || errors.Is(err, context.Canceled) {
		return
	}
	id, _ := sluice.IdentityFrom(r.Context())
	s.cfg.Logger.LogAttrs(r.Context(), levelOf(e), "request failed",
		logString(sluice.LogRequest, id.RequestID), logString(sluice.LogCode, e.code),
		logString("path", r.URL.Path), logError(e))
}

// refusalCode is the value of X-Sluice-Code: the word that clients know, or the
// refusal table's where the situation is ours alone.
func refusalCode(e *apiError) string {
	if e.status == http.StatusMethodNotAllowed {
		return string(sluice.CodeMethodNotServed)
	}
	if errors.Is(e, errRouteNotFound) {
		return string(sluice.CodeRouteNotFound)
	}
	return e.code
}

// raised is an exception of the user's own SQL, as the legacy format shows it.
type raised struct {
	Code    string `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint,omitempty"`
	Detail  string `json:"detail,omitempty"`
}

func raisedBySQL(e *apiError) (int, *raised) {
	var pe *pgconn.PgError
	if !errors.As(e.cause, &pe) {
		return 0, nil
	}
	status := http.StatusInternalServerError
	switch pe.Code {
	case "P0001", "23000", "23001", "23502", "23503", "23505", "23514", "23P01":
	default:
		n, found := strings.CutPrefix(pe.Code, "PT")
		code, err := strconv.Atoi(n)
		if !found || err != nil || code < 200 || code > 599 {
			return 0, nil
		}
		status = code
	}
	return status, &raised{Code: pe.Code, Message: pe.Message, Hint: pe.Hint, Detail: pe.Detail}
}
