package project

import (
	"fmt"
	"time"
)

// Config is supabase/config.toml with defaults and environment applied. Field
// comments give the default where it is not the zero value; the rules are those
// of the Supabase CLI (spec gateway-and-local-stack C.4).
type Config struct {
	// ProjectID names the project. Default: the folder's name. Characters
	// outside of [a-zA-Z0-9_.-] become "_"; at most 40 are kept.
	ProjectID string `toml:"project_id"`

	API      API      `toml:"api"`
	DB       DB       `toml:"db"`
	Realtime Realtime `toml:"realtime"`
	Auth     Auth     `toml:"auth"`
	Inbucket Inbucket `toml:"inbucket"`
	Studio   Studio   `toml:"studio"`

	// Sections that are read so that their keys are known, and not served: one
	// warning each.
	Storage      map[string]any `toml:"storage"`
	EdgeRuntime  map[string]any `toml:"edge_runtime"`
	Functions    map[string]any `toml:"functions"`
	Analytics    map[string]any `toml:"analytics"`
	Experimental map[string]any `toml:"experimental"`
	Remotes      map[string]any `toml:"remotes"`
}

// API is section [api]: the gateway and REST.
type API struct {
	Enabled bool `toml:"enabled"` // default true
	Port    int  `toml:"port"`    // default 54321
	// Schemas that REST exposes; the first is the default. Default public,
	// graphql_public.
	Schemas         []string `toml:"schemas"`
	ExtraSearchPath []string `toml:"extra_search_path"` // default public, extensions
	MaxRows         int      `toml:"max_rows"`          // default 1000
	// AutoExposeNewTables false revokes the API roles' default privileges in
	// schema public before migrations. nil (unset) means true.
	AutoExposeNewTables *bool  `toml:"auto_expose_new_tables"`
	ExternalURL         string `toml:"external_url"` // default http://127.0.0.1:PORT
	TLS                 TLS    `toml:"tls"`
}

// TLS is section [api.tls].
type TLS struct {
	Enabled  bool   `toml:"enabled"`
	CertPath string `toml:"cert_path"`
	KeyPath  string `toml:"key_path"`
}

// DB is section [db].
type DB struct {
	Port                int               `toml:"port"` // default 54322
	ShadowPort          int               `toml:"shadow_port"`
	MajorVersion        int               `toml:"major_version"`  // informational; Sluice runs the version that is installed
	HealthTimeout       Duration          `toml:"health_timeout"` // default 2m
	RootKey             string            `toml:"root_key"`
	Migrations          Migrations        `toml:"migrations"`
	Seed                Seed              `toml:"seed"`
	Settings            map[string]any    `toml:"settings"` // PostgreSQL settings of the cluster
	Vault               map[string]string `toml:"vault"`
	Pooler              map[string]any    `toml:"pooler"`
	NetworkRestrictions map[string]any    `toml:"network_restrictions"`
	SSLEnforcement      map[string]any    `toml:"ssl_enforcement"`
}

// Migrations is section [db.migrations].
type Migrations struct {
	Enabled     bool     `toml:"enabled"` // default true
	SchemaPaths []string `toml:"schema_paths"`
}

// Seed is section [db.seed].
type Seed struct {
	Enabled  bool     `toml:"enabled"`   // default true
	SQLPaths []string `toml:"sql_paths"` // globs relative to supabase/; default ./seed.sql
}

// Realtime is section [realtime].
type Realtime struct {
	Enabled         bool   `toml:"enabled"` // default true
	IPVersion       string `toml:"ip_version"`
	MaxHeaderLength int    `toml:"max_header_length"`
}

// Studio is section [studio], the console.
type Studio struct {
	Enabled      bool   `toml:"enabled"`        // default true
	Port         int    `toml:"port"`           // default 54323
	APIURL       string `toml:"api_url"`        // not needed: the console knows the API
	OpenAIAPIKey string `toml:"openai_api_key"` // not used
}

// Inbucket is section [inbucket], the mail catcher.
type Inbucket struct {
	Enabled    bool   `toml:"enabled"`     // default true
	Port       int    `toml:"port"`        // default 54324
	SMTPPort   int    `toml:"smtp_port"`   // not served: Auth hands mails over in process
	POP3Port   int    `toml:"pop3_port"`   // not served
	AdminEmail string `toml:"admin_email"` // default admin@email.com
	SenderName string `toml:"sender_name"` // default Admin
}

// Auth is section [auth]. Sub-sections that this version does not serve are
// kept as maps so that their keys are known.
type Auth struct {
	Enabled                    bool     `toml:"enabled"`                  // default true
	SiteURL                    string   `toml:"site_url"`                 // default http://127.0.0.1:3000
	AdditionalRedirectURLs     []string `toml:"additional_redirect_urls"` // default https://127.0.0.1:3000
	ExternalURL                string   `toml:"external_url"`             // default API URL + /auth/v1
	JWTIssuer                  string   `toml:"jwt_issuer"`               // default ExternalURL
	JWTExpiry                  int      `toml:"jwt_expiry"`               // seconds, default 3600, at most 604800
	JWTSecret                  string   `toml:"jwt_secret"`               // at least 16 characters; default: the public development secret
	SigningKeysPath            string   `toml:"signing_keys_path"`        // file with an array of private JWKs, relative to supabase/
	PublishableKey             string   `toml:"publishable_key"`
	SecretKey                  string   `toml:"secret_key"`
	AnonKey                    string   `toml:"anon_key"`
	ServiceRoleKey             string   `toml:"service_role_key"`
	EnableSignup               bool     `toml:"enable_signup"` // default true
	EnableAnonymousSignIns     bool     `toml:"enable_anonymous_sign_ins"`
	EnableManualLinking        bool     `toml:"enable_manual_linking"`
	EnableRefreshTokenRotation bool     `toml:"enable_refresh_token_rotation"` // default true
	RefreshTokenReuseInterval  int      `toml:"refresh_token_reuse_interval"`  // seconds, default 10
	MinimumPasswordLength      int      `toml:"minimum_password_length"`       // default 6
	PasswordRequirements       string   `toml:"password_requirements"`

	Email     AuthEmail     `toml:"email"`
	Sessions  AuthSessions  `toml:"sessions"`
	RateLimit AuthRateLimit `toml:"rate_limit"`

	MFA  AuthMFA             `toml:"mfa"`
	Hook map[string]AuthHook `toml:"hook"` // by point

	SMS      AuthSMS                 `toml:"sms"`
	Captcha  AuthCaptcha             `toml:"captcha"`
	External map[string]AuthProvider `toml:"external"` // by provider; "custom:NAME" is any OpenID provider

	ThirdParty  map[string]any `toml:"third_party"`
	OAuthServer map[string]any `toml:"oauth_server"`
	Web3        map[string]any `toml:"web3"`
	Passkey     map[string]any `toml:"passkey"`
	WebAuthn    map[string]any `toml:"webauthn"`
}

// AuthEmail is section [auth.email].
type AuthEmail struct {
	EnableSignup         bool     `toml:"enable_signup"`          // default true: the email provider, sign-up and sign-in
	DoubleConfirmChanges bool     `toml:"double_confirm_changes"` // default true
	EnableConfirmations  bool     `toml:"enable_confirmations"`   // default false: addresses are confirmed at sign-up
	SecurePasswordChange bool     `toml:"secure_password_change"`
	MaxFrequency         Duration `toml:"max_frequency"` // default 1s
	OTPLength            int      `toml:"otp_length"`    // 6 to 10, default 6
	OTPExpiry            int      `toml:"otp_expiry"`    // seconds, default 3600, at most 86400
	SMTP                 AuthSMTP `toml:"smtp"`
	// Template and Notification are the project's own mails, by name.
	Template     map[string]AuthMail `toml:"template"`
	Notification map[string]AuthMail `toml:"notification"`
}

// AuthSMTP is section [auth.email.smtp]: the mail server in place of the catcher.
type AuthSMTP struct {
	// Enabled is nil when it is not set: a section with a host is on then.
	Enabled    *bool  `toml:"enabled"`
	Host       string `toml:"host"`
	Port       int    `toml:"port"`
	User       string `toml:"user"`
	Pass       string `toml:"pass"`
	AdminEmail string `toml:"admin_email"`
	SenderName string `toml:"sender_name"`
}

// On reports whether mail goes to the server.
func (s AuthSMTP) On() bool {
	if s.Enabled != nil {
		return *s.Enabled
	}
	return s.Host != ""
}

// AuthMail is one of [auth.email.template.NAME] and [auth.email.notification.NAME].
type AuthMail struct {
	Enabled bool   `toml:"enabled"` // of a notification
	Subject string `toml:"subject"`
	// ContentPath is a file, relative to the folder that holds supabase/.
	ContentPath string `toml:"content_path"`
}

// AuthRateLimit is section [auth.rate_limit]. As in the Supabase CLI's stack, what
// counts requests of one address has no effect in a local stack, and email_sent has
// one with an SMTP server alone.
type AuthRateLimit struct {
	EmailSent          int `toml:"email_sent"`          // in an hour, default 2
	SMSSent            int `toml:"sms_sent"`            // in an hour, default 30
	AnonymousUsers     int `toml:"anonymous_users"`     // in an hour, default 30
	TokenRefresh       int `toml:"token_refresh"`       // in 5 minutes, default 150
	SignInSignUps      int `toml:"sign_in_sign_ups"`    // in 5 minutes, default 30
	TokenVerifications int `toml:"token_verifications"` // in 5 minutes, default 30
	Web3               int `toml:"web3"`                // in 5 minutes, default 30
}

// AuthMFA is section [auth.mfa]: second factors.
type AuthMFA struct {
	MaxEnrolledFactors int            `toml:"max_enrolled_factors"` // default 10
	TOTP               AuthFactor     `toml:"totp"`
	Phone              AuthPhone      `toml:"phone"`
	WebAuthn           map[string]any `toml:"web_authn"`
}

// AuthHook is one of [auth.hook.POINT].
type AuthHook struct {
	Enabled bool   `toml:"enabled"`
	URI     string `toml:"uri"`
	Secrets string `toml:"secrets"`
}

// AuthFactor is one type of second factor.
type AuthFactor struct {
	EnrollEnabled bool `toml:"enroll_enabled"`
	VerifyEnabled bool `toml:"verify_enabled"`
}

// AuthPhone is section [auth.mfa.phone]: a phone as second factor.
type AuthPhone struct {
	EnrollEnabled bool     `toml:"enroll_enabled"`
	VerifyEnabled bool     `toml:"verify_enabled"`
	OTPLength     int      `toml:"otp_length"`    // 6 to 10, default 6
	Template      string   `toml:"template"`      // default Your code is {{ .Code }}
	MaxFrequency  Duration `toml:"max_frequency"` // default 5s
}

// AuthSMS is section [auth.sms]: the phone provider. Messages go to the hook send_sms,
// else to the service that is enabled.
type AuthSMS struct {
	EnableSignup        bool              `toml:"enable_signup"`        // the phone provider, sign-up and sign-in
	EnableConfirmations bool              `toml:"enable_confirmations"` // default false: numbers are confirmed at sign-up
	Template            string            `toml:"template"`             // default Your code is {{ .Code }}
	MaxFrequency        Duration          `toml:"max_frequency"`        // default 5s
	TestOTP             map[string]string `toml:"test_otp"`             // codes of numbers that get no message
	Twilio              AuthTwilio        `toml:"twilio"`

	TwilioVerify map[string]any `toml:"twilio_verify"`
	MessageBird  map[string]any `toml:"messagebird"`
	Textlocal    map[string]any `toml:"textlocal"`
	Vonage       map[string]any `toml:"vonage"`
}

// AuthTwilio is section [auth.sms.twilio].
type AuthTwilio struct {
	Enabled           bool   `toml:"enabled"`
	AccountSID        string `toml:"account_sid"`
	MessageServiceSID string `toml:"message_service_sid"` // or the number of the sender
	AuthToken         string `toml:"auth_token"`
}

// AuthCaptcha is section [auth.captcha].
type AuthCaptcha struct {
	Enabled  bool   `toml:"enabled"`
	Provider string `toml:"provider"` // hcaptcha or turnstile
	Secret   string `toml:"secret"`
}

// AuthProvider is one of [auth.external.NAME]: where users may sign in.
type AuthProvider struct {
	Enabled        bool   `toml:"enabled"`
	ClientID       string `toml:"client_id"` // several, separated by commas, are accepted in ID tokens
	Secret         string `toml:"secret"`
	RedirectURI    string `toml:"redirect_uri"`     // default auth.external_url + /callback
	URL            string `toml:"url"`              // in place of the provider's own address; of custom:NAME the issuer
	SkipNonceCheck bool   `toml:"skip_nonce_check"` // takes ID tokens whatever their nonce is
	EmailOptional  bool   `toml:"email_optional"`   // lets users in of whom the provider tells no address
}

// AuthSessions is section [auth.sessions].
type AuthSessions struct {
	Timebox           Duration `toml:"timebox"`
	InactivityTimeout Duration `toml:"inactivity_timeout"`
}

// Duration is a time.Duration written as in Go ("2m", "1h30m").
type Duration time.Duration

// UnmarshalText parses Go's notation.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 30s or 2m", text)
	}
	*d = Duration(v)
	return nil
}

// MarshalText writes Go's notation.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// codeTemplate is the text of a message with a code.
const codeTemplate = "Your code is {{ .Code }}"

func defaults() Config {
	return Config{
		API: API{
			Enabled: true, Port: 54321, MaxRows: 1000,
			Schemas:         []string{"public", "graphql_public"},
			ExtraSearchPath: []string{"public", "extensions"},
		},
		DB: DB{
			Port: 54322, HealthTimeout: Duration(2 * time.Minute),
			Migrations: Migrations{Enabled: true},
			Seed:       Seed{Enabled: true, SQLPaths: []string{"./seed.sql"}},
		},
		Realtime: Realtime{Enabled: true},
		Studio:   Studio{Enabled: true, Port: 54323},
		Inbucket: Inbucket{Enabled: true, Port: 54324, AdminEmail: "admin@email.com", SenderName: "Admin"},
		Auth: Auth{
			Enabled: true, SiteURL: "http://127.0.0.1:3000",
			AdditionalRedirectURLs:     []string{"https://127.0.0.1:3000"},
			JWTExpiry:                  3600,
			EnableSignup:               true,
			EnableRefreshTokenRotation: true, RefreshTokenReuseInterval: 10,
			MinimumPasswordLength: 6,
			SMS:                   AuthSMS{Template: codeTemplate, MaxFrequency: Duration(5 * time.Second)},
			MFA: AuthMFA{
				MaxEnrolledFactors: 10,
				Phone:              AuthPhone{OTPLength: 6, Template: codeTemplate, MaxFrequency: Duration(5 * time.Second)},
			},
			Email: AuthEmail{
				EnableSignup: true, DoubleConfirmChanges: true,
				MaxFrequency: Duration(time.Second), OTPLength: 6, OTPExpiry: 3600,
			},
			RateLimit: AuthRateLimit{
				EmailSent: 2, SMSSent: 30, AnonymousUsers: 30, TokenRefresh: 150,
				SignInSignUps: 30, TokenVerifications: 30, Web3: 30,
			},
		},
	}
}
