package auth

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"
)

// maxPassword is what bcrypt reads, in bytes.
const maxPassword = 72

const (
	lowerCase = "abcdefghijklmnopqrstuvwxyz"
	upperCase = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	digits    = "0123456789"
	symbols   = "!@#$%^&*()_+-=[]{};'\\:\"|<>?,./`~"
)

// requirements are the values of Config.PasswordRequirements: a password has one
// character of each set.
var requirements = map[string][]string{
	"":                                   nil,
	"letters_digits":                     {lowerCase + upperCase, digits},
	"lower_upper_letters_digits":         {lowerCase, upperCase, digits},
	"lower_upper_letters_digits_symbols": {lowerCase, upperCase, digits, symbols},
}

// checkPassword decides whether a password may be set.
func (s *Server) checkPassword(ctx context.Context, password string) error {
	if len(password) > maxPassword {
		return errPasswordTooLong
	}
	return s.checkStrength(ctx, password)
}

// checkStrength returns errWeakPassword with its reasons, or nil.
func (s *Server) checkStrength(ctx context.Context, password string) error {
	var messages, reasons []string
	if utf8.RuneCountInString(password) < s.cfg.MinPasswordLength {
		reasons = append(reasons, "length")
		messages = append(messages, fmt.Sprintf("Password should be at least %d characters.", s.cfg.MinPasswordLength))
	}
	sets := requirements[s.cfg.PasswordRequirements]
	for _, set := range sets {
		if !strings.ContainsAny(password, set) {
			reasons = append(reasons, "characters")
			messages = append(messages, "Password should contain at least one character of each: "+strings.Join(sets, ", ")+".")
			break
		}
	}
	if s.breached(ctx, password) {
		reasons = append(reasons, "pwned")
		messages = append(messages, "Password is known to be weak and easy to guess, please choose a different one.")
	}
	if reasons == nil {
		return nil
	}
	return weak(strings.Join(messages, " "), reasons)
}
