package token

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"

	"github.com/sluice-dev/sluice"
)

// The development defaults are public and the same on every machine: existing
// .env files of projects hold them. They serve loopback listeners alone.
// Source: spec gateway-and-local-stack C.3 and A.4.6.
const (
	DevJWTSecret      = "super-secret-jwt-token-with-at-least-32-characters-long"
	DevPublishableKey = "sb_publishable_ACJWlzQHlZjBrEguHvfOxg_3BJgxAaH"
	DevSecretKey      = "sb_secret_N7UND0UgjKTVK-Uodkm0Hg_xSvEMPvz"
	// DevSigningKeys signs users' access tokens (ES256).
	DevSigningKeys = `[{"kty":"EC","kid":"b81269f1-21d8-4f2e-b719-c2240a840d90","use":"sig","key_ops":["sign","verify"],"alg":"ES256","ext":true,"crv":"P-256",` +
		`"x":"M5Sjqn5zwC9Kl1zVfUUGvv9boQjCGd45G8sdopBExB4","y":"P6IXMvA2WYXSHSOMTBH2jsw_9rrzGy89FjPf6oOsIxQ","d":"dIhR8wywJlqlua4y_yMq2SLhlFXDZJBCvFrY1DCHyVU"}]`
)

// LegacyKey returns the anon or service_role JWT that the Supabase CLI derives
// from a JWT secret, byte for byte.
func LegacyKey(secret sluice.Secret, role string) string {
	b64 := base64.RawURLEncoding.EncodeToString
	signed := b64([]byte(`{"alg":"HS256","typ":"JWT"}`)) + "." + b64([]byte(`{"iss":"supabase-demo","role":"`+role+`","exp":1983812996}`))
	mac := hmac.New(sha256.New, []byte(secret))
	mac.Write([]byte(signed))
	return signed + "." + b64(mac.Sum(nil))
}
