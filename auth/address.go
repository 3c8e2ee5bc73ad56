package auth

import "strings"

// Widths of auth.users.email and of its columns role, aud and encrypted_password.
const (
	maxAddress = 255
	maxName    = 255
)

// emailOf checks an address by the rule of HTML5's input type email and returns
// it as it is stored, in lower case. Nothing is trimmed.
func emailOf(s string) (string, error) {
	switch {
	case s == "":
		return "", errEmailRequired
	case len(s) > maxAddress:
		return "", errEmailTooLong
	case !validEmail(s):
		return "", errEmailFormat
	}
	return strings.ToLower(s), nil
}

func validEmail(s string) bool {
	local, domain, found := strings.Cut(s, "@")
	if !found || local == "" {
		return false
	}
	for _, c := range []byte(local) {
		if !alphanumeric(c) && strings.IndexByte(".!#$%&'*+/=?^_{|}~`-", c) < 0 {
			return false
		}
	}
	for label := range strings.SplitSeq(domain, ".") {
		if n := len(label); n == 0 || n > 63 || label[0] == '-' || label[n-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if !alphanumeric(c) && c != '-' {
				return false
			}
		}
	}
	return true
}

func alphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

// phoneOf checks a number by E.164 and returns it as it is stored: digits alone.
func phoneOf(s string) (string, error) {
	s = strings.ReplaceAll(strings.TrimPrefix(s, "+"), " ", "")
	if len(s) < 2 || len(s) > 15 || s[0] < '1' || s[0] > '9' {
		return "", errPhoneFormat
	}
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return "", errPhoneFormat
		}
	}
	return s, nil
}
