package pg

import (
	"crypto/hmac"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/sluice-dev/sluice"
)

const scramIterations = 4096 // PostgreSQL's own default

// scramVerifier returns the form in which PostgreSQL stores a password.
func scramVerifier(password sluice.Secret) (string, error) {
	salt := make([]byte, 16)
	_, _ = rand.Read(salt) // never fails
	return scramVerifierWith(password, salt, scramIterations)
}

func scramVerifierWith(password sluice.Secret, salt []byte, iterations int) (string, error) {
	// SASLprep leaves printable ASCII as it is; for the rest the server and
	// clients disagree often enough that we do not start.
	for _, c := range []byte(password) {
		if c < 0x20 || c > 0x7e {
			return "", fmt.Errorf("database password must be printable ASCII: %w", sluice.ErrInvalid)
		}
	}
	salted, err := pbkdf2.Key(sha256.New, string(password), salt, iterations, sha256.Size)
	if err != nil {
		return "", fmt.Errorf("derive password verifier: %w", err)
	}
	mac := func(text string) []byte {
		h := hmac.New(sha256.New, salted)
		h.Write([]byte(text))
		return h.Sum(nil)
	}
	stored := sha256.Sum256(mac("Client Key"))
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Sprintf("SCRAM-SHA-256$%d:%s$%s:%s", iterations, b64(salt), b64(stored[:]), b64(mac("Server Key"))), nil
}

// verifyScram reports whether a stored verifier belongs to the password.
func verifyScram(verifier string, password sluice.Secret) bool {
	iterations, salt, err := parseScram(verifier)
	if err != nil {
		return false
	}
	again, err := scramVerifierWith(password, salt, iterations)
	return err == nil && hmac.Equal([]byte(again), []byte(verifier))
}

var errNotScram = errors.New("not a SCRAM-SHA-256 verifier")

func parseScram(verifier string) (iterations int, salt []byte, err error) {
	rest, ok := strings.CutPrefix(verifier, "SCRAM-SHA-256$")
	if !ok {
		return 0, nil, errNotScram
	}
	head, _, ok := strings.Cut(rest, "$")
	if !ok {
		return 0, nil, errNotScram
	}
	n, s, ok := strings.Cut(head, ":")
	if !ok {
		return 0, nil, errNotScram
	}
	iterations, err = strconv.Atoi(n)
	if err != nil || iterations < 1 || iterations > 1_000_000 {
		return 0, nil, errNotScram
	}
	if salt, err = base64.StdEncoding.DecodeString(s); err != nil {
		return 0, nil, errNotScram
	}
	return iterations, salt, nil
}
