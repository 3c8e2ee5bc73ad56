package auth

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // RFC 6238's default, the one that every app knows
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"fmt"
	"net/url"
	"strings"
	"time"

	"github.com/boombuler/barcode/qr"
)

const (
	totpPeriod = 30 * time.Second
	totpDigits = 6
	// totpSteps is how many periods a phone's clock may be off.
	totpSteps = 1
)

var base32Plain = base32.StdEncoding.WithPadding(base32.NoPadding)

// newTOTPSecret returns 160 random bits, as many as SHA-1 has, in 32 characters.
func newTOTPSecret() string {
	secret := make([]byte, 20)
	_, _ = rand.Read(secret) // never fails
	return base32Plain.EncodeToString(secret)
}

// totpStep returns the period whose code this is, of those that the secret's owner may
// see now (RFC 6238); of two with the same code the later one. A secret that cannot be
// read has no codes.
func totpStep(secret, code string, now time.Time) (step int64, found bool) {
	key, err := base32Plain.DecodeString(strings.TrimRight(strings.ToUpper(secret), "="))
	if err != nil || len(key) == 0 {
		return 0, false
	}
	fits, off := 0, 0
	step = now.Unix() / int64(totpPeriod/time.Second)
	for i := -totpSteps; i <= totpSteps; i++ {
		same := subtle.ConstantTimeCompare([]byte(totpAt(key, step+int64(i))), []byte(code))
		fits, off = fits|same, subtle.ConstantTimeSelect(same, i, off)
	}
	return step + int64(off), fits == 1
}

// totpAt is the code of one period.
func totpAt(key []byte, step int64) string {
	mac := hmac.New(sha1.New, key)
	_ = binary.Write(mac, binary.BigEndian, step) // a hash does not fail
	sum := mac.Sum(nil)
	at := sum[len(sum)-1] & 0xf
	n := binary.BigEndian.Uint32(sum[at:]) & 0x7fffffff
	return fmt.Sprintf("%0*d", totpDigits, n%1_000_000)
}

// totpURI is what an authenticator app reads.
func totpURI(issuer, account, secret string) string {
	q := url.Values{
		"algorithm": {"SHA1"}, "digits": {"6"}, "issuer": {issuer}, "period": {"30"}, "secret": {secret},
	}
	return "otpauth://totp/" + url.PathEscape(issuer) + ":" + url.PathEscape(account) + "?" + strings.ReplaceAll(q.Encode(), "+", "%20")
}

// qrSVG draws a text as a QR code, one rectangle for each run of dark modules.
func qrSVG(text string) (string, error) {
	code, err := qr.Encode(text, qr.M, qr.Auto)
	if err != nil {
		return "", err
	}
	const border, scale = 4, 5 // modules that are light, pixels of one
	size := code.Bounds().Dx()
	dark := func(x, y int) bool {
		r, _, _, _ := code.At(x, y).RGBA()
		return r == 0
	}
	var out strings.Builder
	whole := (size + 2*border) * scale
	fmt.Fprintf(&out, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %d %d" shape-rendering="crispEdges">`, whole, whole, whole, whole)
	fmt.Fprintf(&out, `<rect width="%d" height="%d" fill="#fff"/><g fill="#000">`, whole, whole)
	for y := range size {
		for x := 0; x < size; x++ {
			run := 0
			for ; x+run < size && dark(x+run, y); run++ {
			}
			if run > 0 {
				fmt.Fprintf(&out, `<rect x="%d" y="%d" width="%d" height="%d"/>`, (x+border)*scale, (y+border)*scale, run*scale, scale)
				x += run
			}
		}
	}
	out.WriteString("</g></svg>")
	return out.String(), nil
}
