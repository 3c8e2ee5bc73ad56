package token

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/golang-jwt/jwt/v5"

	"github.com/sluice-dev/sluice"
)

// Config lists the keys of one project.
type Config struct {
	// Secret signs and verifies HS256, HS384 and HS512 tokens. Required, at
	// least 16 bytes.
	Secret sluice.Secret
	// OldSecrets verify only; for rotation.
	OldSecrets []sluice.Secret
	// SigningKeys is a JSON array of private JWKs, or a JWK set. The one with
	// "sign" in key_ops signs, else the first; all verify. Empty: Secret signs.
	SigningKeys sluice.Secret
	// VerifyKeys is a JWK set of further public keys, such as a third-party
	// issuer's.
	VerifyKeys []byte
	// PublishableKeys and SecretKeys are the opaque API keys, sb_publishable_…
	// and sb_secret_…; several of each while they are rotated.
	PublishableKeys []sluice.Secret
	SecretKeys      []sluice.Secret
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// minSecret is the shortest secret that the Supabase CLI accepts, in bytes.
const minSecret = 16

// Keyring verifies keys and tokens and signs tokens. It does not change after
// New and may be used from many goroutines.
type Keyring struct {
	now     func() time.Time
	secrets [][]byte
	public  map[string]verifyKey // by kid
	signer  *signer              // nil: the secret signs
	jwks    []byte
	opaque  []opaqueKey
	dev     bool

	// mu guards cache. A hit saves the signature check alone: times are looked
	// at again.
	mu    sync.Mutex
	cache map[[sha256.Size]byte]cached
}

type cached struct {
	claims              sluice.Claims
	hasExp              bool
	issuedAt, notBefore time.Time
	badNotBefore        bool // nbf is no number
}

// maxCached bounds the cache; past it an arbitrary half is dropped.
const maxCached = 4096

type verifyKey struct {
	key  any // *rsa.PublicKey, *ecdsa.PublicKey, ed25519.PublicKey or []byte
	algs []string
}

type signer struct {
	kid    string
	method jwt.SigningMethod
	key    crypto.Signer
}

type opaqueKey struct {
	sum [sha256.Size]byte
	key Key
}

// Key is a resolved API key.
type Key struct {
	Kind   sluice.KeyKind
	Claims sluice.Claims
}

// New checks cfg. All mistakes are reported at once.
func New(cfg Config) (*Keyring, error) {
	k := &Keyring{now: cfg.Now, public: map[string]verifyKey{}, cache: map[[sha256.Size]byte]cached{}}
	if k.now == nil {
		k.now = time.Now
	}
	var errs []error
	for i, s := range append([]sluice.Secret{cfg.Secret}, cfg.OldSecrets...) {
		if len(s) < minSecret {
			errs = append(errs, fmt.Errorf("JWT secret %d has %d characters, at least %d are needed", i+1, len(s), minSecret))
		}
		k.secrets = append(k.secrets, []byte(s))
	}
	errs = append(errs, k.addKeys([]byte(cfg.SigningKeys), true), k.addKeys(cfg.VerifyKeys, false))
	for _, set := range []struct {
		keys   []sluice.Secret
		kind   sluice.KeyKind
		prefix string
		role   string
	}{
		{cfg.PublishableKeys, sluice.KeyPublishable, publishablePrefix, "anon"},
		{cfg.SecretKeys, sluice.KeySecret, secretPrefix, "service_role"},
	} {
		for _, s := range set.keys {
			if len(s) < len(set.prefix)+8 || string(s[:len(set.prefix)]) != set.prefix {
				errs = append(errs, fmt.Errorf("%s key does not start with %s", set.kind, set.prefix))
				continue
			}
			k.opaque = append(k.opaque, opaqueKey{sha256.Sum256([]byte(s)), Key{set.kind, apiKeyClaims(set.role)}})
			k.dev = k.dev || s == DevPublishableKey || s == DevSecretKey
		}
	}
	k.dev = k.dev || cfg.Secret == DevJWTSecret || cfg.SigningKeys == DevSigningKeys
	if err := errors.Join(errs...); err != nil {
		return nil, fmt.Errorf("keys: %w", err)
	}
	return k, nil
}

// apiKeyClaims are the claims of the JWT that the original's gateway puts in an
// opaque key's place.
func apiKeyClaims(role string) sluice.Claims {
	return sluice.Claims{Role: role, JSON: json.RawMessage(`{"iss":"supabase-demo","role":"` + role + `","exp":1983812996}`)}
}

// UsesDevDefaults reports whether a key or secret is one of the public
// development defaults, which anyone can forge with.
func (k *Keyring) UsesDevDefaults() bool { return k.dev }

// JWKS returns the public keys as a JWK set. Symmetric keys are never listed.
func (k *Keyring) JWKS() []byte { return k.jwks }

// addKeys reads private (sign) or public JWKs.
func (k *Keyring) addKeys(text []byte, sign bool) error {
	if len(text) == 0 {
		if sign {
			k.jwks = []byte(`{"keys":[]}`)
		}
		return nil
	}
	raw, err := keyList(text)
	if err != nil {
		return err
	}
	var public []json.RawMessage
	var errs []error
	for i, r := range raw {
		var key jose.JSONWebKey
		var ops struct {
			Alg    string   `json:"alg"`
			KeyOps []string `json:"key_ops"`
		}
		if err := errors.Join(json.Unmarshal(r, &key), json.Unmarshal(r, &ops)); err != nil {
			errs = append(errs, fmt.Errorf("JWK %d cannot be read", i+1)) // the cause may quote the key
			continue
		}
		v, err := verifyKeyOf(key)
		if err != nil {
			errs = append(errs, fmt.Errorf("JWK %d (kid %q): %w", i+1, key.KeyID, err))
			continue
		}
		if key.KeyID == "" {
			errs = append(errs, fmt.Errorf("JWK %d has no kid", i+1))
			continue
		}
		if _, twice := k.public[key.KeyID]; twice {
			errs = append(errs, fmt.Errorf("JWK %d: kid %q stands twice", i+1, key.KeyID))
			continue
		}
		k.public[key.KeyID] = v
		if !sign {
			continue
		}
		if _, symmetric := v.key.([]byte); !symmetric {
			p, err := publicJWK(key.KeyID, v)
			errs = append(errs, err)
			public = append(public, p)
		}
		priv, ok := key.Key.(crypto.Signer)
		if ok && (k.signer == nil || slices.Contains(ops.KeyOps, "sign")) && !(k.signer != nil && len(ops.KeyOps) == 0) {
			k.signer = &signer{key.KeyID, jwt.GetSigningMethod(v.algs[0]), priv}
		}
	}
	if sign {
		k.jwks, err = json.Marshal(map[string]any{"keys": public})
		errs = append(errs, err)
		if k.signer == nil && len(errs) == 0 {
			errs = append(errs, errors.New("signing keys hold no private key"))
		}
	}
	return errors.Join(errs...)
}

func keyList(text []byte) ([]json.RawMessage, error) {
	var list []json.RawMessage
	if json.Unmarshal(text, &list) == nil {
		return list, nil
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if json.Unmarshal(text, &set) != nil || set.Keys == nil {
		return nil, errors.New("keys are neither a JSON array of JWKs nor a JWK set")
	}
	return set.Keys, nil
}

// verifyKeyOf decides from the key alone which algorithms it may verify.
func verifyKeyOf(key jose.JSONWebKey) (verifyKey, error) {
	pub := key.Key
	if s, ok := pub.(crypto.Signer); ok {
		pub = s.Public()
	}
	var algs []string
	switch p := pub.(type) {
	case *rsa.PublicKey:
		algs = []string{"RS256", "RS384", "RS512"}
	case *ecdsa.PublicKey:
		alg, ok := map[int]string{256: "ES256", 384: "ES384", 521: "ES512"}[p.Curve.Params().BitSize]
		if !ok {
			return verifyKey{}, fmt.Errorf("curve %s is not served", p.Curve.Params().Name)
		}
		algs = []string{alg}
	case ed25519.PublicKey:
		algs = []string{"EdDSA"}
	case []byte:
		algs = []string{"HS256", "HS384", "HS512"}
	default:
		return verifyKey{}, fmt.Errorf("key type %T is not served", key.Key)
	}
	if key.Algorithm != "" {
		i := slices.Index(algs, key.Algorithm)
		if i < 0 {
			return verifyKey{}, fmt.Errorf("alg %q does not fit the key", key.Algorithm)
		}
		algs[0], algs[i] = algs[i], algs[0] // the named one signs
	}
	return verifyKey{pub, algs}, nil
}

func publicJWK(kid string, v verifyKey) (json.RawMessage, error) {
	text, err := jose.JSONWebKey{Key: v.key, KeyID: kid, Algorithm: v.algs[0], Use: "sig"}.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("write public key %q: %w", kid, err)
	}
	// WebCrypto's import in auth-js wants key_ops.
	return append(text[:len(text)-1], `,"key_ops":["verify"]}`...), nil
}

// MAC returns the HMAC-SHA256 of text under a key that is made of the secret for
// this alone. Another secret gives another MAC.
func (k *Keyring) MAC(text string) []byte {
	key := hmac.New(sha256.New, k.secrets[0])
	key.Write([]byte("sluice MAC"))
	m := hmac.New(sha256.New, key.Sum(nil))
	m.Write([]byte(text))
	return m.Sum(nil)
}

// Sign returns a JWT with these claims, signed by the signing key, or by the
// secret when there is none.
func (k *Keyring) Sign(claims map[string]any) (string, error) {
	if k.signer == nil {
		s, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims(claims)).SignedString(k.secrets[0])
		if err != nil {
			return "", fmt.Errorf("sign token: %w", err)
		}
		return s, nil
	}
	t := jwt.NewWithClaims(k.signer.method, jwt.MapClaims(claims))
	t.Header["kid"] = k.signer.kid
	s, err := t.SignedString(k.signer.key)
	if err != nil {
		return "", fmt.Errorf("sign token with key %q: %w", k.signer.kid, err)
	}
	return s, nil
}

// findOpaque compares with every key, so that the time tells nothing.
func (k *Keyring) findOpaque(key string) (Key, bool) {
	sum := sha256.Sum256([]byte(key))
	var found Key
	ok := false
	for _, o := range k.opaque {
		if subtle.ConstantTimeCompare(sum[:], o.sum[:]) == 1 {
			found, ok = o.key, true
		}
	}
	return found, ok
}

// isSecret compares with every JWT secret, so that the time tells nothing.
func (k *Keyring) isSecret(key string) bool {
	sum := sha256.Sum256([]byte(key))
	found := false
	for _, s := range k.secrets {
		own := sha256.Sum256(s)
		found = subtle.ConstantTimeCompare(sum[:], own[:]) == 1 || found
	}
	return found
}
