package doctor

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/url"
	"regexp"
	"strings"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/token"
)

// judgeURL returns the base of all requests and what is wrong with the URL.
func judgeURL(u *url.URL) (*url.URL, []Finding) {
	base := *u
	base.User, base.RawQuery, base.Fragment = nil, "", ""
	base.Path, base.RawPath = strings.TrimRight(u.Path, "/"), ""
	var bad []Finding
	switch u.Scheme {
	case "http", "https":
	case "postgres", "postgresql":
		bad = append(bad, fail(CodeBadURL, "The project URL is a database URL").evidence("given: %s", &base).
			remedy("Give the API's address to createClient, such as http://127.0.0.1:54321: `sluice status` or `supabase status` prints it as API_URL. The database URL goes to --db-url."))
	default:
		bad = append(bad, fail(CodeBadURL, "The project URL has the scheme %s", u.Scheme).evidence("given: %s", &base).
			remedy("Write http:// or https://: the client turns it into ws:// or wss:// for the socket by itself."))
	}
	for _, service := range []string{"/rest/v1", "/auth/v1", "/realtime/v1", "/storage/v1", "/functions/v1"} {
		if i := strings.Index(base.Path, service); i >= 0 {
			bad = append(bad, fail(CodeBadURL, "The project URL holds the path of one service, %s, so the socket is looked for at %s/realtime/v1/websocket", base.Path, base.Path).evidence("given: %s", &base).
				remedy("Use the URL without a path, %s://%s%s: clients add /rest/v1 and /realtime/v1/websocket to it.", u.Scheme, u.Host, base.Path[:i]))
			break
		}
	}
	return &base, bad
}

func (v *visit) checkURL(context.Context) []Finding {
	if len(v.badURL) > 0 {
		return v.badURL
	}
	if v.base.Path != "" {
		return []Finding{warn(CodeBadURL, "The project URL has a path, %s; that works only behind a proxy that takes it off", v.base.Path).sure(Possible).evidence("given: %s", v.base).
			remedy("If there is no such proxy, use %s://%s.", v.base.Scheme, v.base.Host)}
	}
	return []Finding{ok("%s", v.base)}
}

// jwt is a JWT's header and claims, read without verifying.
type jwt struct {
	Alg  string  `json:"alg"`
	Kid  string  `json:"kid"`
	Role string  `json:"role"`
	Sub  string  `json:"sub"`
	Ref  string  `json:"ref"`
	Exp  float64 `json:"exp"`
}

func readJWT(s sluice.Secret) (j jwt, isJWT bool) {
	parts := strings.Split(string(s), ".")
	if len(parts) != 3 {
		return j, false
	}
	for _, p := range parts[:2] {
		text, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(p, "="))
		if err != nil || json.Unmarshal(text, &j) != nil {
			return j, false
		}
	}
	return j, true
}

func (j jwt) expires() time.Time { return time.Unix(int64(j.Exp), 0) }

var opaqueForm = regexp.MustCompile(`^sb_(publishable|secret)_[A-Za-z0-9_-]{22}_[A-Za-z0-9_-]{8}$`)

// checkKey looks at the key's form, without sending it anywhere.
func (v *visit) checkKey(context.Context) []Finding {
	key := v.cfg.Key
	if j, isJWT := readJWT(key); isJWT {
		return v.judgeJWTKey(j)
	}
	if !token.IsOpaque(string(key)) {
		return []Finding{notAKey(key).evidence("%d characters", len(key))}
	}
	switch {
	case strings.HasPrefix(string(key), "sb_secret_"):
		return []Finding{warn(CodeSecretInBrowser, "The key is a secret key: it passes all row level security, and hosted projects refuse it from a browser").evidence("it begins with sb_secret_").
			remedy("Use the publishable key (sb_publishable_…) in the app, and give that one to the doctor.")}
	case !opaqueForm.MatchString(string(key)):
		return []Finding{warn(sluice.CodeInvalidAPIKey, "The key starts as an opaque key does but has not its form (22 characters, an underscore, 8 characters): it may be cut off").sure(Likely).
			evidence("%d characters", len(key))}
	}
	return []Finding{ok("publishable key %s", sluice.RedactKey(string(key)))}
}

// notAKey asks package token what a value that is no key looks like.
func notAKey(key sluice.Secret) Finding {
	f := fail(sluice.CodeNotAnAPIKey, "The value is not an API key: it has no dots and does not start with sb_")
	ring, err := token.New(token.Config{Secret: token.DevJWTSecret})
	if err != nil {
		return f
	}
	var r *sluice.Refusal
	if _, err := ring.ResolveKey(string(key)); errors.As(err, &r) && r.Code == sluice.CodeNotAnAPIKey {
		f.Text, f.Remedy = r.Text, r.Remedy
	}
	return f
}

// judgeJWTKey looks at a legacy key: its time, its project, its role and, when
// a secret is known, its signature.
func (v *visit) judgeJWTKey(j jwt) []Finding {
	now := v.cfg.Now()
	host := v.base.Hostname()
	ref, hosted := strings.CutSuffix(host, ".supabase.co")
	switch {
	case j.Role == "" || j.Exp == 0:
		return []Finding{fail(sluice.CodeInvalidJWTToken, "The API key is a JWT without role or exp, both of which Realtime requires").evidence("its claims: role %q, exp %.0f", j.Role, j.Exp).
			remedy("Use the publishable key or the project's anon JWT: `sluice status` or `supabase status -o env` prints them.")}
	case !j.expires().After(now):
		return []Finding{fail(sluice.CodeInvalidJWTToken, "The API key, a JWT for role %s, has expired", j.Role).
			evidence("exp is %s, now is %s", j.expires().UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339)).
			remedy("Use the publishable key, which does not expire, or sign a new anon key with the project's JWT secret; if the time is wrong, set this machine's clock.")}
	case hosted && j.Ref != "" && j.Ref != ref:
		return []Finding{fail(CodeWrongProject, "The key belongs to the project %s, the URL to %s", j.Ref, ref).evidence("the key's claim ref is %s, the host %s", j.Ref, host).
			remedy("Copy URL and key from the same project: Project Settings, API Keys.")}
	case j.Role == "authenticated":
		return []Finding{fail(sluice.CodeNotAnAPIKey, "The key is a user's access token: it ends when the session does").evidence("its claim role is authenticated").
			remedy("Give the publishable key or the anon JWT to createClient; a user's token goes to --token.")}
	case v.cfg.JWTSecret != "":
		if f := v.verifyKey(); f != nil {
			return []Finding{*f}
		}
	}
	if j.Role == "service_role" {
		return []Finding{warn(CodeSecretInBrowser, "The key is the service_role JWT: it passes all row level security").evidence("its claim role is service_role").
			remedy("Use the publishable key or the anon JWT in the app, and give that one to the doctor.")}
	}
	return []Finding{ok("legacy JWT for role %s, signed with %s", j.Role, j.Alg)}
}

// verifyKey checks the key's signature against the project's JWT secret.
func (v *visit) verifyKey() *Finding {
	ring, err := token.New(token.Config{Secret: v.cfg.JWTSecret, Now: v.cfg.Now})
	if err != nil {
		return nil // the secret cannot sign; the socket will tell
	}
	var r *sluice.Refusal
	if _, err := ring.ResolveKey(string(v.cfg.Key)); errors.As(err, &r) && r.Code == sluice.CodeJwtSignatureError {
		f := fail(r.Code, "The API key was signed with another secret than the JWT secret that was given").evidence("the key's signature was computed again with that secret, and differs").
			remedy("Make the anon and service_role keys again from the project's JWT secret, put them into the app's environment, and restart the stack: its realtime keeps a copy of the secret.")
		return &f
	}
	return nil
}
