package project

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"

	"github.com/sluice-dev/sluice"
)

// maxConfigBytes bounds config.toml.
const maxConfigBytes = 1 << 20

// Project is one project's folder.
type Project struct {
	Dir    string // the folder that holds supabase/
	Config Config
	// HasFolder tells whether supabase/ exists.
	HasFolder bool
	// Hostname stands in printed addresses: $SUPABASE_SERVICES_HOSTNAME, default
	// 127.0.0.1. It changes nothing about what is listened on.
	Hostname string
}

// Warning is something in the configuration that has no effect, or another one
// than its author may think.
type Warning struct {
	Key  string // dotted path, empty for the file as a whole
	Text string
}

// String returns one line for a person.
func (w Warning) String() string {
	if w.Key == "" {
		return w.Text
	}
	return w.Key + ": " + w.Text
}

// Load reads the project in dir. environ has the form of os.Environ; variables
// in it win over those of dotenv files. A missing supabase/ folder is not an
// error: the defaults apply. All mistakes are reported at once, as an error of
// kind sluice.ErrInvalid.
func Load(dir string, environ []string) (*Project, []Warning, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("resolve project folder %q: %w", dir, err)
	}
	p := &Project{Dir: abs, Config: defaults()}
	if fi, err := os.Stat(p.path()); err == nil && fi.IsDir() {
		p.HasFolder = true
	}
	env, err := readEnvironment(abs, environ)
	if err != nil {
		return nil, nil, err
	}
	file := p.path("config.toml")
	raw := map[string]any{}
	switch text, err := readBounded(file); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, nil, fmt.Errorf("read %s: %w", rel(abs, file), err)
	default:
		// A line that has no end would have no number in the library's errors.
		if _, err := toml.Decode(string(text)+"\n", &raw); err != nil {
			var pe toml.ParseError
			if errors.As(err, &pe) {
				return nil, nil, fmt.Errorf("%s: %s: %w", rel(abs, file), pe.ErrorWithPosition(), sluice.ErrInvalid)
			}
			return nil, nil, fmt.Errorf("%s: %w: %w", rel(abs, file), err, sluice.ErrInvalid)
		}
	}
	var warnings []Warning
	substitute(raw, "", env, &warnings)
	var mistakes []error
	override(raw, reflect.TypeFor[Config](), "", env, &mistakes)
	decoded, wrong := p.decode(raw)
	mistakes = append(mistakes, wrong...)
	warnings = append(warnings, decoded...)
	warnings = append(warnings, p.Config.notServed()...)
	p.Hostname = cmp.Or(env["SUPABASE_SERVICES_HOSTNAME"], "127.0.0.1")
	p.Config.finish(abs, p.Hostname)
	mistakes = append(mistakes, p.Config.check()...)
	if len(mistakes) > 0 {
		return nil, warnings, &configError{rel(abs, file), mistakes}
	}
	return p, warnings, nil
}

// configError is everything that is wrong with a configuration. Its kind is
// sluice.ErrInvalid.
type configError struct {
	file     string
	mistakes []error
}

func (e *configError) Error() string {
	if len(e.mistakes) == 1 {
		return e.file + ": " + e.mistakes[0].Error()
	}
	text := fmt.Sprintf("%s has %d mistakes:", e.file, len(e.mistakes))
	for _, m := range e.mistakes {
		text += "\n  " + m.Error()
	}
	return text
}

// Unwrap returns the mistakes and the kind.
func (e *configError) Unwrap() []error { return append(slices.Clip(e.mistakes), sluice.ErrInvalid) }

// path returns a path below supabase/.
func (p *Project) path(parts ...string) string {
	return filepath.Join(append([]string{p.Dir, "supabase"}, parts...)...)
}

// Path returns a path below supabase/; an absolute last part stays as it is.
func (p *Project) Path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return p.path(filepath.FromSlash(name))
}

func rel(base, file string) string {
	if r, err := filepath.Rel(base, file); err == nil {
		return filepath.ToSlash(r)
	}
	return file
}

func readBounded(file string) ([]byte, error) {
	fi, err := os.Stat(file)
	if err != nil {
		return nil, err
	}
	if fi.Size() > maxConfigBytes {
		return nil, fmt.Errorf("%d bytes, at most %d are read: %w", fi.Size(), maxConfigBytes, sluice.ErrInvalid)
	}
	return os.ReadFile(file)
}

var envCall = regexp.MustCompile(`^env\(([A-Za-z_][A-Za-z0-9_]*)\)$`)

// substitute replaces "env(NAME)" in all strings. An unset name stays literal,
// as in the CLI, with a warning.
func substitute(v any, key string, env map[string]string, warnings *[]Warning) any {
	switch v := v.(type) {
	case map[string]any:
		if off, is := v["enabled"].(bool); is && !off || unused(key) {
			warnings = &[]Warning{} // nobody looks at its values
		}
		for _, k := range sortedKeys(v) {
			v[k] = substitute(v[k], join(key, k), env, warnings)
		}
	case []any:
		for i := range v {
			v[i] = substitute(v[i], key, env, warnings)
		}
	case []map[string]any:
		for i := range v {
			substitute(v[i], key, env, warnings)
		}
	case string:
		m := envCall.FindStringSubmatch(v)
		if m == nil {
			return v
		}
		if s, ok := env[m[1]]; ok {
			if strings.HasPrefix(s, "encrypted:") {
				*warnings = append(*warnings, Warning{key, fmt.Sprintf("%s is encrypted with dotenvx, which Sluice does not undo; run sluice under dotenvx", m[1])})
			}
			return s
		}
		if unused(key) {
			return v
		}
		*warnings = append(*warnings, Warning{key, fmt.Sprintf("the environment variable %s is not set; the value stays %q", m[1], v)})
	}
	return v
}

// unused reports whether nothing of Sluice reads a section or key; see notServed.
func unused(key string) bool {
	section, _, _ := strings.Cut(key, ".")
	return slices.Contains([]string{"experimental", "functions", "edge_runtime", "analytics", "storage"}, section) || key == "studio.openai_api_key"
}

func sortedKeys(m map[string]any) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}

func join(prefix, key string) string {
	if prefix == "" {
		return key
	}
	return prefix + "." + key
}

// override applies SUPABASE_<PATH>, with "." as "_", to every known leaf.
func override(raw map[string]any, t reflect.Type, prefix string, env map[string]string, mistakes *[]error) {
	for i := range t.NumField() {
		f := t.Field(i)
		name := f.Tag.Get("toml")
		key := join(prefix, name)
		ft := f.Type
		if ft.Kind() == reflect.Struct {
			sub, ok := raw[name].(map[string]any)
			if !ok {
				if raw[name] != nil {
					continue // a wrong type: decode says so
				}
				sub = map[string]any{}
			}
			override(sub, ft, key, env, mistakes)
			if len(sub) > 0 {
				raw[name] = sub
			}
			continue
		}
		if ft.Kind() == reflect.Map {
			overrideSections(raw, name, ft.Elem(), key, env, mistakes)
			continue
		}
		variable, s := variableOf(key, env)
		if s == "" {
			continue
		}
		v, err := parseAs(s, ft)
		if err != nil {
			*mistakes = append(*mistakes, fmt.Errorf("%s (for %s): %w", variable, key, err))
			continue
		}
		raw[name] = v
	}
}

// originalNames are the environment names of the original's Auth, for who moves a
// self-hosted stack: the key's last parts stand behind them.
var originalNames = map[string]string{
	"auth.external":   "GOTRUE_EXTERNAL",
	"auth.captcha":    "GOTRUE_SECURITY_CAPTCHA",
	"auth.sms.twilio": "GOTRUE_SMS_TWILIO",
}

// environmentNames are the variables that a key is read from, the first wins.
func environmentNames(key string) []string {
	form := func(key string) string { return strings.ToUpper(strings.ReplaceAll(key, ".", "_")) }
	names := []string{"SUPABASE_" + form(key)}
	for section, prefix := range originalNames {
		if rest, below := strings.CutPrefix(key, section); below && (rest == "" || rest[0] == '.') {
			names = append(names, prefix+form(rest))
		}
	}
	return names
}

// variableOf returns the variable that is set for a key and its value. An empty
// variable is as good as none, as in the CLI.
func variableOf(key string, env map[string]string) (name, value string) {
	for _, name = range environmentNames(key) {
		if value = env[name]; value != "" {
			return name, value
		}
	}
	return name, ""
}

// overrideSections applies the environment to the sections below a key whose names
// are free, such as [auth.external.NAME]: those of the file and those of which the
// environment alone knows.
func overrideSections(raw map[string]any, name string, t reflect.Type, key string, env map[string]string, mistakes *[]error) {
	sections, ok := raw[name].(map[string]any)
	if t.Kind() != reflect.Struct || !ok && raw[name] != nil {
		return
	}
	named := map[string]bool{}
	for section := range sections {
		named[section] = true
	}
	for variable := range env {
		if section := sectionOf(variable, key, t); section != "" {
			named[section] = true
		}
	}
	for section := range named {
		sub, ok := sections[section].(map[string]any)
		if !ok && sections[section] != nil {
			continue // a wrong type: decode says so
		}
		if sub == nil {
			sub = map[string]any{}
		}
		if override(sub, t, join(key, section), env, mistakes); len(sub) == 0 {
			continue
		}
		if sections == nil {
			sections = map[string]any{}
			raw[name] = sections
		}
		sections[section] = sub
	}
}

// sectionOf returns the section below key that a variable is for, or "".
func sectionOf(variable, key string, t reflect.Type) string {
	for _, prefix := range environmentNames(key) {
		rest, found := strings.CutPrefix(variable, prefix+"_")
		if !found {
			continue
		}
		longest := ""
		for i := range t.NumField() {
			field := "_" + strings.ToUpper(t.Field(i).Tag.Get("toml"))
			if strings.HasSuffix(rest, field) && len(field) > len(longest) {
				longest = field
			}
		}
		if longest != "" {
			return strings.ToLower(strings.TrimSuffix(rest, longest))
		}
	}
	return ""
}

// decode fills Config from the raw tree, warns about keys nobody knows, and
// returns the values that do not fit. raw loses those.
func (p *Project) decode(raw map[string]any) ([]Warning, []error) {
	wrong := fit(raw, reflect.TypeFor[Config](), "")
	var buf bytes.Buffer
	if err := toml.NewEncoder(&buf).Encode(raw); err != nil {
		return nil, append(wrong, err)
	}
	meta, err := toml.Decode(buf.String(), &p.Config)
	if err != nil {
		return nil, append(wrong, err) // fit lets nothing through that does not decode
	}
	var warnings []Warning
	known, open := knownKeys(reflect.TypeFor[Config](), "")
	for _, k := range meta.Undecoded() {
		key := k.String()
		if isBelow(warnings, key) || slices.ContainsFunc(open, func(o string) bool { return strings.HasPrefix(key, o+".") }) {
			continue
		}
		text := "unknown key, ignored"
		if n := nearest(key, known); n != "" {
			text += fmt.Sprintf("; did you mean %s?", n)
		}
		warnings = append(warnings, Warning{key, text})
	}
	return warnings, wrong
}

func isBelow(ws []Warning, key string) bool {
	return slices.ContainsFunc(ws, func(w Warning) bool { return strings.HasPrefix(key, w.Key+".") })
}

// knownKeys returns all keys, and those below which any key may stand.
func knownKeys(t reflect.Type, prefix string) (known, open []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		key := join(prefix, f.Tag.Get("toml"))
		known = append(known, key)
		switch f.Type.Kind() {
		case reflect.Struct:
			k, o := knownKeys(f.Type, key)
			known, open = append(known, k...), append(open, o...)
		case reflect.Map:
			open = append(open, key)
		}
	}
	return known, open
}

// nearest returns the known key that is closest to an unknown one, or "".
func nearest(key string, known []string) string {
	best, dist := "", 4
	for _, k := range known {
		if d := editDistance(key, k); d < dist {
			best, dist = k, d
		}
	}
	return best
}

// editDistance counts insertions, deletions and replacements of bytes.
func editDistance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diag := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diag
			if a[i] != b[j] {
				cost++
			}
			diag = row[j+1]
			row[j+1] = min(cost, row[j]+1, diag+1)
		}
	}
	return row[len(b)]
}

// notServed names the sections that have no effect, each with what will fail.
func (c *Config) notServed() []Warning {
	var out []Warning
	say := func(set bool, key, what string) {
		if set {
			out = append(out, Warning{key, "not served by Sluice; " + what})
		}
	}
	say(len(c.Storage) > 0 && c.Storage["enabled"] != false, "storage", "/storage/v1 answers 501; tables and policies of schema storage work")
	say(len(c.Functions) > 0 || len(c.EdgeRuntime) > 0 && c.EdgeRuntime["enabled"] != false, "functions", "/functions/v1 answers 501")
	say(len(c.Analytics) > 0 && c.Analytics["enabled"] != false, "analytics", "there are no logs of this service")
	say(len(c.Experimental) > 0, "experimental", "the keys have no effect")
	say(c.Inbucket.SMTPPort != 0, "inbucket.smtp_port", "the mail catcher takes the mails of Auth alone")
	say(c.Inbucket.POP3Port != 0, "inbucket.pop3_port", "mails are read on its page and by its API")
	say(c.DB.Pooler["enabled"] == true, "db.pooler", "connect to the database's own port")
	say(c.API.TLS.Enabled, "api.tls", "the API is plain http")
	for _, s := range []struct {
		key string
		m   map[string]any
	}{
		{"auth.sms.twilio_verify", c.Auth.SMS.TwilioVerify},
		{"auth.sms.messagebird", c.Auth.SMS.MessageBird},
		{"auth.sms.textlocal", c.Auth.SMS.Textlocal},
		{"auth.sms.vonage", c.Auth.SMS.Vonage},
		{"auth.third_party", c.Auth.ThirdParty},
		{"auth.oauth_server", c.Auth.OAuthServer},
		{"auth.web3", c.Auth.Web3},
		{"auth.mfa.web_authn", c.Auth.MFA.WebAuthn},
	} {
		say(anyEnabled(s.m), s.key, "requests for it are answered as for a disabled feature")
	}
	return out
}

// anyEnabled reports whether a section switches something on, at any depth.
func anyEnabled(m map[string]any) bool {
	for k, v := range m {
		if v == true && strings.Contains(k, "enable") {
			return true
		}
		if sub, ok := v.(map[string]any); ok && anyEnabled(sub) {
			return true
		}
	}
	return false
}

var notInID = regexp.MustCompile(`[^a-zA-Z0-9_.-]`)

// finish derives the values that depend on others.
func (c *Config) finish(dir, hostname string) {
	if c.ProjectID == "" {
		c.ProjectID = filepath.Base(dir)
	}
	c.ProjectID = notInID.ReplaceAllString(c.ProjectID, "_")
	if len(c.ProjectID) > 40 {
		c.ProjectID = c.ProjectID[:40]
	}
	if c.API.ExternalURL == "" {
		c.API.ExternalURL = "http://" + net.JoinHostPort(hostname, strconv.Itoa(c.API.Port))
	}
	c.API.ExternalURL = strings.TrimRight(c.API.ExternalURL, "/")
	if c.Auth.ExternalURL == "" {
		c.Auth.ExternalURL = c.API.ExternalURL + "/auth/v1"
	}
	if c.Auth.JWTIssuer == "" {
		c.Auth.JWTIssuer = c.Auth.ExternalURL
	}
}

// check returns every mistake, each with its key.
func (c *Config) check() []error {
	var out []error
	bad := func(wrong bool, key, format string, args ...any) {
		if wrong {
			out = append(out, fmt.Errorf("%s: %s", key, fmt.Sprintf(format, args...)))
		}
	}
	port := func(key string, n int) { bad(n < 1 || n > 65535, key, "%d is not a port", n) }
	port("api.port", c.API.Port)
	port("db.port", c.DB.Port)
	bad(c.API.Port == c.DB.Port, "db.port", "%d is also api.port", c.DB.Port)
	bad(c.API.MaxRows < 0, "api.max_rows", "must not be negative")
	bad(len(c.API.Schemas) == 0, "api.schemas", "names no schema")
	bad(c.Auth.JWTExpiry < 1 || c.Auth.JWTExpiry > 604800, "auth.jwt_expiry", "%d is not between 1 and 604800 seconds", c.Auth.JWTExpiry)
	bad(c.Auth.JWTSecret != "" && len(c.Auth.JWTSecret) < 16, "auth.jwt_secret", "must have at least 16 characters")
	bad(c.Auth.MinimumPasswordLength < 1 || c.Auth.MinimumPasswordLength > 72, "auth.minimum_password_length", "%d is not between 1 and 72", c.Auth.MinimumPasswordLength)
	if c.Studio.Enabled {
		port("studio.port", c.Studio.Port)
		bad(c.Studio.Port == c.API.Port || c.Studio.Port == c.DB.Port, "studio.port", "%d is also the API's or the database's", c.Studio.Port)
		bad(c.Inbucket.Enabled && c.Studio.Port == c.Inbucket.Port, "studio.port", "%d is also inbucket.port", c.Studio.Port)
	}
	if c.Inbucket.Enabled {
		port("inbucket.port", c.Inbucket.Port)
		bad(c.Inbucket.Port == c.API.Port || c.Inbucket.Port == c.DB.Port, "inbucket.port", "%d is also the API's or the database's", c.Inbucket.Port)
	}
	e := c.Auth.Email
	bad(e.OTPLength < 6 || e.OTPLength > 10, "auth.email.otp_length", "%d is not between 6 and 10 digits", e.OTPLength)
	bad(e.OTPExpiry < 1 || e.OTPExpiry > 86400, "auth.email.otp_expiry", "%d is not between 1 and 86400 seconds", e.OTPExpiry)
	bad(e.MaxFrequency < 0, "auth.email.max_frequency", "must not be negative")
	if e.SMTP.On() {
		bad(e.SMTP.Host == "", "auth.email.smtp.host", "is missing")
		bad(e.SMTP.AdminEmail == "", "auth.email.smtp.admin_email", "is missing: it is the sender of mails")
		port("auth.email.smtp.port", e.SMTP.Port)
	}
	for name, p := range c.Auth.External {
		bad(p.Enabled && p.ClientID == "", "auth.external."+name+".client_id", "is missing")
	}
	if t := c.Auth.SMS.Twilio; t.Enabled {
		bad(t.AccountSID == "" || t.AuthToken == "" || t.MessageServiceSID == "", "auth.sms.twilio", "account_sid, message_service_sid and auth_token are needed")
	}
	for number, code := range c.Auth.SMS.TestOTP {
		bad(!allDigits(number) || !allDigits(code), "auth.sms.test_otp", "%q = %q: both are digits alone", number, code)
	}
	bad(c.Auth.SMS.MaxFrequency < 0, "auth.sms.max_frequency", "must not be negative")
	bad(c.Auth.MFA.Phone.MaxFrequency < 0, "auth.mfa.phone.max_frequency", "must not be negative")
	bad(c.Auth.MFA.Phone.OTPLength < 6 || c.Auth.MFA.Phone.OTPLength > 10, "auth.mfa.phone.otp_length", "%d is not between 6 and 10 digits", c.Auth.MFA.Phone.OTPLength)
	if k := c.Auth.Captcha; k.Enabled {
		bad(k.Provider != "hcaptcha" && k.Provider != "turnstile", "auth.captcha.provider", "%q is neither hcaptcha nor turnstile", k.Provider)
		bad(k.Secret == "", "auth.captcha.secret", "is missing")
	}
	bad(c.Auth.RefreshTokenReuseInterval < 0, "auth.refresh_token_reuse_interval", "must not be negative")
	bad(!slices.Contains([]string{"", "letters_digits", "lower_upper_letters_digits", "lower_upper_letters_digits_symbols"}, c.Auth.PasswordRequirements),
		"auth.password_requirements", "%q is none of letters_digits, lower_upper_letters_digits, lower_upper_letters_digits_symbols", c.Auth.PasswordRequirements)
	bad(!utf8.ValidString(c.ProjectID), "project_id", "is not UTF-8")
	for k, v := range c.DB.Settings {
		switch v.(type) {
		case string, int64, bool, float64:
		default:
			bad(true, "db.settings."+k, "must be a string, number or boolean")
		}
	}
	return out
}

func allDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// PostgresSettings returns [db.settings] as PostgreSQL reads them.
func (c *Config) PostgresSettings() map[string]string {
	out := make(map[string]string, len(c.DB.Settings))
	for k, v := range c.DB.Settings {
		out[k] = fmt.Sprint(v)
	}
	return out
}
