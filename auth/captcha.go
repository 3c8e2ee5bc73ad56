package auth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"github.com/sluice-dev/sluice"
)

// Captcha is a service that tells people from machines, asked before what costs a
// mail, a message or a password's hash.
type Captcha struct {
	// Provider is hcaptcha or turnstile; empty is none.
	Provider string
	Secret   sluice.Secret
	// URL of the service. Default the provider's.
	URL string
}

// captchaURLs are where tokens are verified.
var captchaURLs = map[string]string{
	"hcaptcha":  "https://hcaptcha.com/siteverify",
	"turnstile": "https://challenges.cloudflare.com/turnstile/v0/siteverify",
}

// captcha is a checked Captcha; nil lets everybody pass.
type captcha struct {
	secret sluice.Secret
	url    string
	client *http.Client
}

func newCaptcha(c Captcha) (*captcha, error) {
	if c.Provider == "" {
		return nil, nil
	}
	at, known := captchaURLs[c.Provider]
	switch {
	case !known:
		return nil, fmt.Errorf("captcha %q is neither hcaptcha nor turnstile", c.Provider)
	case c.Secret == "":
		return nil, errors.New("the captcha's secret is missing")
	}
	if c.URL != "" {
		at = c.URL
	}
	return &captcha{c.Secret, at, outbound(hostOf(at))}, nil
}

// human guards a route: the body must hold the token of a solved captcha, unless an
// administrator asks.
func (s *Server) human(next answer) answer {
	if s.captcha == nil {
		return next
	}
	return func(w http.ResponseWriter, r *http.Request) error {
		id, _ := sluice.IdentityFrom(r.Context())
		if id.BearerErr == nil && slices.Contains(s.cfg.AdminRoles, id.Claims.Role) {
			return next(w, r)
		}
		text, err := bodyText(w, r)
		if err != nil {
			return err
		}
		var body struct {
			Security struct {
				Token string `json:"captcha_token"`
			} `json:"gotrue_meta_security"`
		}
		if err := decode(text, &body); err != nil {
			return err
		}
		token := strings.TrimSpace(body.Security.Token)
		if token == "" {
			return errCaptcha.with("no captcha_token found")
		}
		codes, err := s.captcha.verify(r.Context(), token, s.clientIP(r).String())
		switch {
		case err != nil:
			return errCaptchaFailed.because(err)
		case codes != nil:
			return errCaptcha.with(strings.Join(codes, ", "))
		}
		r.Body = io.NopCloser(bytes.NewReader(text))
		return next(w, r)
	}
}

// verify asks the service about a token; codes are why it refuses it, nil when it
// does not. That it cannot be asked is a no.
func (c *captcha) verify(ctx context.Context, token, ip string) (codes []string, err error) {
	form := url.Values{"secret": {string(c.secret)}, "response": {token}, "remoteip": {ip}}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url, strings.NewReader(form.Encode()))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := c.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer res.Body.Close()
	var answer struct {
		Success bool     `json:"success"`
		Codes   []string `json:"error-codes"`
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return nil, fmt.Errorf("read the captcha service's answer (%s): %w", res.Status, err)
	}
	switch {
	case answer.Success && res.StatusCode == http.StatusOK:
		return nil, nil
	case len(answer.Codes) == 0:
		answer.Codes = []string{"unknown"}
	}
	return answer.Codes, nil
}
