package auth

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"net/netip"
	"time"

	"github.com/google/uuid"

	"github.com/sluice-dev/sluice"
)

// UseHashCost makes passwords cheaper than New allows.
func (s *Server) UseHashCost(cost, workers, queue int) { s.hasher = newHasher(cost, workers, queue) }

// UseFullHashes makes passwords as dear as in New, with so many workers; 0 is New's
// number.
func (s *Server) UseFullHashes(workers int) {
	if workers == 0 {
		workers = defaultHashWorkers()
	}
	s.hasher = newHasher(bcryptCost, workers, 512)
}

// HoldHashWorkers occupies every worker until the returned function is called.
func (s *Server) HoldHashWorkers() (release func()) {
	var free []func()
	for range cap(s.hasher.running) {
		done, err := s.hasher.turn(context.Background())
		if err != nil {
			panic(err)
		}
		free = append(free, done)
	}
	return func() {
		for _, f := range free {
			f()
		}
	}
}

// WaitingHashes is how many passwords are hashed or wait for it.
func (s *Server) WaitingHashes() int { return len(s.hasher.waiting) }

// Statements are the names of all embedded statements with their text.
func Statements() map[string]string { return maps.Clone(statements) }

// EmailOf, PhoneOf and Wants2024 are the pure readers of what clients send.
var (
	EmailOf     = emailOf
	PhoneOf     = phoneOf
	Wants2024   = wants2024
	CheckPKCE   = checkPKCE
	UnknownHash = unknownHash
)

// BcryptCost is the cost of stored passwords.
const BcryptCost = bcryptCost

// DecodeSignup decodes a body of POST /signup and returns its metadata as stored.
func DecodeSignup(text []byte) ([]byte, error) {
	var body signupBody
	if err := decode(text, &body); err != nil {
		return nil, err
	}
	if body.Data == nil {
		return nil, nil
	}
	return body.Data.json(), nil
}

// MaxMetadata bounds what DecodeSignup returns.
const MaxMetadata = maxMetadata

// RefreshTokenParts parses a token.
func RefreshTokenParts(s string) (word string, session uuid.UUID, counter int64, err error) {
	t, err := parseRefreshToken(s)
	return t.word, t.session, t.counter, err
}

// MakeRefreshToken returns a token of version 2.
func MakeRefreshToken(key string, id uuid.UUID, counter int64) string {
	return (&session{id: id, key: key, counter: counter}).token()
}

// RefreshTokenSignedBy reports whether a token of version 2 was made with key.
func RefreshTokenSignedBy(token, key string) bool {
	t, err := parseRefreshToken(token)
	return err == nil && t.signedBy(key)
}

// NewTokenKey returns a session's key.
var NewTokenKey = newTokenKey

// NewBuckets returns the allowance of rate buckets.
func NewBuckets(requests int, in time.Duration) (allow func(netip.Addr, time.Time) bool, size func() int) {
	b := newBuckets(requests, in)
	return b.allow, func() int { return len(b.full) }
}

// ClientIP is the address that a request counts for.
func (s *Server) ClientIP(r *http.Request) netip.Addr { return s.clientIP(r) }

// CheckHash compares a password with an imported hash.
func CheckHash(stored, password string) (bool, error) {
	check, err := checkerOf(stored)
	if err != nil {
		return false, err
	}
	return check(password), nil
}

// PublicKeys is how a keyring's JWKS is served.
func PublicKeys(jwks []byte) json.RawMessage { return withKeyOps(jwks) }

// DummyHash is compared where there is no password.
const DummyHash = dummyHash

// NewTokenWord returns a token of version 1.
var NewTokenWord = newTokenV1

// Allows reports whether a site and its allow list let a redirect pass.
func Allows(site string, allowed []string, target string) (bool, error) {
	rs, err := newRedirects(site, allowed)
	if err != nil {
		return false, err
	}
	return rs.allow(target), nil
}

// OpenHost, Landing and OneLine are the pure parts of redirects and mails.
var (
	OpenHost = openHost
	Landing  = landing
	OneLine  = oneLine
)

// MatchGlob matches a whole text.
func MatchGlob(glob, text string) (bool, error) {
	re, err := compileGlob(glob)
	return err == nil && re.MatchString(text), err
}

// Render writes a mail.
func (s *Server) Render(name string, vars map[string]any) (subject, body string, err error) {
	return s.templates.render(name, vars)
}

// Fill executes a template.
var Fill = fill

// Clean deletes what has ended, once.
func (s *Server) Clean(ctx context.Context) error { return s.clean(ctx) }

// TOTPAt is the code of a secret at a time.
func TOTPAt(secret string, at time.Time) string {
	key, err := base32Plain.DecodeString(secret)
	if err != nil {
		panic(err)
	}
	return totpAt(key, at.Unix()/30)
}

// TOTPFits compares a code.
func TOTPFits(secret, code string, now time.Time) bool {
	_, fits := totpStep(secret, code, now)
	return fits
}

// TOTPStep finds the period of a code.
var TOTPStep = totpStep

// QRSVG draws a QR code.
var QRSVG = qrSVG

// WaitForLocks lets refreshes wait for as long.
func (s *Server) WaitForLocks(d time.Duration) { s.busyFor = d }

// NoHookPause repeats requests of hooks at once.
func (s *Server) NoHookPause() { s.hookPause = 0 }

// HookOK reports whether a hook can be used.
func HookOK(uri, secrets string) bool {
	_, err := newHook(Hook{URI: uri, Secrets: sluice.Secret(secrets)})
	return err == nil
}

// ReadHook reads an answer with claims; the status is of the refusal, if any.
func ReadHook(answer []byte) (status int) {
	var out struct {
		Claims map[string]any `json:"claims"`
	}
	err := readHook(answer, &out)
	if err == nil && out.Claims != nil {
		err = checkClaims(out.Claims)
	}
	var e *apiError
	if errors.As(err, &e) {
		return e.status
	}
	return 0
}

// AuditQuery reads the parameter of the audit list.
var AuditQuery = auditQuery

// MayFetch and Outbound guard requests to other servers.
var (
	MayFetch = mayFetch
	Outbound = outbound
)

// AzureVerified decides about the address in an ID token of an Azure at base.
func AzureVerified(base string, edov any) bool {
	text, err := json.Marshal(map[string]any{"email": "a@example.com", "xms_edov": edov})
	if err != nil {
		panic(err) // of a test
	}
	var c idClaims
	if err := json.Unmarshal(text, &c); err != nil {
		panic(err) // the same
	}
	return azureEmail(&provider{base: base}, c)
}

// HashCode is what is stored of a code.
func HashCode(keys Keys, address, code string) string {
	return (&Server{cfg: Config{Keys: keys}}).hashCode(address, code)
}
