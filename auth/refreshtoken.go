package auth

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"

	"github.com/google/uuid"
)

// Refresh tokens come in two formats. Version 1 is a random word and a row of
// auth.refresh_tokens. Version 2 needs no row: base64url, without padding, of
//
//	0x00 ‖ session id (16 bytes) ‖ counter (uvarint) ‖ MAC (16) ‖ checksum (4)
//
// with the MAC, HMAC-SHA-256 with the session's key, and the checksum, SHA-256,
// over all that stands before. The checksum lets garbage be refused without a
// query, the MAC proves that the session's key was used.
const (
	tokenV1Length   = 12
	minTokenV2      = 51
	maxTokenLength  = 255 // the column's width
	macLength       = 16
	checksumLength  = 4
	tokenV2Overhead = 1 + 16 + macLength + checksumLength
)

// refreshToken is a presented token, its shape checked and nothing else.
type refreshToken struct {
	word string // version 1, else empty

	session uuid.UUID
	counter int64
	signed  []byte
	mac     []byte
}

// parseRefreshToken returns errRefreshForm for what no server ever issued.
func parseRefreshToken(s string) (refreshToken, error) {
	var t refreshToken
	switch {
	case len(s) < tokenV1Length || len(s) > maxTokenLength:
		return t, errRefreshForm
	case len(s) >= minTokenV2:
		return parseTokenV2(s)
	}
	for _, c := range []byte(s) {
		lower := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		// Older servers issued longer words of base64url.
		if !lower && (len(s) == tokenV1Length || !alphanumeric(c) && c != '-' && c != '_') {
			return t, errRefreshForm
		}
	}
	t.word = s
	return t, nil
}

func parseTokenV2(s string) (refreshToken, error) {
	var t refreshToken
	raw, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || len(raw) <= tokenV2Overhead || raw[0] != 0 {
		return t, errRefreshForm
	}
	body, checksum := raw[:len(raw)-checksumLength], raw[len(raw)-checksumLength:]
	if sum := sha256.Sum256(body); subtle.ConstantTimeCompare(sum[:checksumLength], checksum) != 1 {
		return t, errRefreshForm
	}
	t.signed, t.mac = body[:len(body)-macLength], body[len(body)-macLength:]
	t.session = uuid.UUID(t.signed[1:17])
	counter, n := binary.Uvarint(t.signed[17:])
	if n <= 0 || n != len(t.signed)-17 || counter > 1<<62 {
		return t, errRefreshForm
	}
	t.counter = int64(counter)
	return t, nil
}

// signedBy reports whether the token was made with a session's key.
func (t refreshToken) signedBy(key string) bool {
	mac, ok := tokenMAC(key, t.signed)
	return ok && subtle.ConstantTimeCompare(mac, t.mac) == 1
}

// token returns the session's current token of version 2.
func (v *session) token() string {
	raw := make([]byte, 1, tokenV2Overhead+binary.MaxVarintLen64)
	raw = append(raw, v.id[:]...)
	raw = binary.AppendUvarint(raw, uint64(v.counter))
	mac, _ := tokenMAC(v.key, raw)
	raw = append(raw, mac...)
	sum := sha256.Sum256(raw)
	return base64.RawURLEncoding.EncodeToString(append(raw, sum[:checksumLength]...))
}

// tokenMAC reports false for a key that is none.
func tokenMAC(key string, signed []byte) ([]byte, bool) {
	k, err := base64.RawURLEncoding.DecodeString(key)
	if err != nil || len(k) == 0 {
		return nil, false
	}
	h := hmac.New(sha256.New, k)
	h.Write(signed)
	return h.Sum(nil)[:macLength], true
}
