package token

import (
	"errors"
	"regexp"
	"strings"

	"github.com/sluice-dev/sluice"
)

const (
	publishablePrefix = "sb_publishable_"
	secretPrefix      = "sb_secret_"
)

// IsOpaque reports whether s has the form of an opaque API key: such a value is
// never a user's token, wherever it stands.
func IsOpaque(s string) bool { return strings.HasPrefix(s, "sb_") }

// ResolveKey tells what an API key stands for: opaque keys by comparison in
// constant time, anything in three parts as a JWT. The error is a
// *sluice.Refusal whose text says what the value looks like instead.
func (k *Keyring) ResolveKey(key string) (Key, error) {
	if key = clean(key); key == "" {
		return Key{Kind: sluice.KeyNone}, sluice.Refuse(sluice.CodeMissingAPIKey)
	}
	if len(key) > maxToken {
		return Key{}, sluice.Refuse(sluice.CodeNotAnAPIKey).WithText("The API key is longer than %d bytes", maxToken)
	}
	if found, ok := k.findOpaque(key); ok {
		return found, nil
	}
	if IsOpaque(key) {
		return Key{}, unknownOpaque(key)
	}
	if strings.Count(key, ".") != 2 || strings.HasPrefix(strings.ToLower(key), "bearer") || strings.ContainsAny(key, quotes) {
		if k.isSecret(key) {
			return Key{}, sluice.Refuse(sluice.CodeNotAnAPIKey).WithText("The API key is the project's JWT secret").
				WithRemedy("Take it out of the app: whoever has it can act as any user. Use the publishable key, which `sluice status` prints.")
		}
		return Key{}, notAKey(key)
	}
	claims, err := k.Verify(key)
	if err != nil {
		var r *sluice.Refusal
		if errors.As(err, &r) && r.Code == sluice.CodeJwtSignatureError {
			err = r.WithRemedy("The key was signed with another secret: it belongs to another project or stack. Compare it with `sluice status`.")
		}
		return Key{}, err
	}
	return Key{Kind: sluice.KeyJWT, Claims: claims}, nil
}

// unknownOpaque refuses a key that has the form of an opaque one.
func unknownOpaque(key string) *sluice.Refusal {
	r := sluice.Refuse(sluice.CodeInvalidAPIKey)
	if !strings.HasPrefix(key, publishablePrefix) && !strings.HasPrefix(key, secretPrefix) {
		return r.WithText("The API key starts with sb_ but is neither sb_publishable_… nor sb_secret_…")
	}
	return r.WithText("The API key %s is not a key of this project", sluice.RedactKey(key))
}

const quotes = "\"'`"

var (
	hex32 = regexp.MustCompile(`^[0-9a-f]{32}$`)
	hex64 = regexp.MustCompile(`^[0-9a-f]{64}$`)
)

// notAKey says what a value that is no API key looks like.
func notAKey(key string) *sluice.Refusal {
	r := sluice.Refuse(sluice.CodeNotAnAPIKey)
	lower := strings.ToLower(key)
	switch {
	case strings.HasPrefix(lower, "bearer"):
		return r.WithText("The API key starts with the word Bearer").
			WithRemedy("Send the key alone; Bearer belongs into the Authorization header.")
	case strings.ContainsAny(key, quotes):
		return r.WithText("The API key has quotes around it").
			WithRemedy("Remove the quotes from the value in the environment file.")
	case hex32.MatchString(lower):
		return r.WithText("The API key looks like an S3 access key (32 hexadecimal digits)")
	case hex64.MatchString(lower):
		return r.WithText("The API key looks like an S3 secret key (64 hexadecimal digits)")
	case strings.HasPrefix(lower, "postgres://"), strings.HasPrefix(lower, "postgresql://"):
		return r.WithText("The API key is a database URL")
	case strings.Contains(lower, "secret"):
		return r.WithText("The API key looks like the JWT secret")
	case key == "undefined", key == "null":
		return r.WithText("The API key is the word %q: the variable that should hold it is not set", key).
			WithRemedy("Set the environment variable and restart the app's dev server; `sluice status` prints the keys.")
	}
	return r.WithText("The value sent as API key is not an API key: it has no dots and does not start with sb_")
}
