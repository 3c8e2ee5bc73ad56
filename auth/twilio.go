package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/sluice-dev/sluice"
)

// TwilioConfig is an account of Twilio's.
type TwilioConfig struct {
	AccountSID string
	AuthToken  sluice.Secret
	// Sender is a messaging service's SID, or a number.
	Sender string
	// URL of the API. Default https://api.twilio.com.
	URL string
}

// Twilio sends messages by Twilio's API.
type Twilio struct {
	cfg    TwilioConfig
	client *http.Client
}

// NewTwilio checks cfg. It does no I/O.
func NewTwilio(cfg TwilioConfig) (*Twilio, error) {
	if cfg.AccountSID == "" || cfg.AuthToken == "" || cfg.Sender == "" {
		return nil, fmt.Errorf("twilio: account, token and sender are needed: %w", sluice.ErrInvalid)
	}
	if cfg.URL == "" {
		cfg.URL = "https://api.twilio.com"
	}
	return &Twilio{cfg, outbound(hostOf(cfg.URL))}, nil
}

// String names the account, without its secret.
func (t *Twilio) String() string { return "Twilio account " + t.cfg.AccountSID }

// Send hands a message over.
func (t *Twilio) Send(ctx context.Context, m Text) (string, error) {
	to, from := "+"+m.To, t.cfg.Sender
	if m.Channel == "whatsapp" {
		to = "whatsapp:" + to
		if strings.Trim(from, "+0123456789") == "" {
			from = "whatsapp:" + from
		}
	}
	form := url.Values{"To": {to}, "From": {from}, "Body": {m.Body}, "Channel": {m.Channel}}
	at := t.cfg.URL + "/2010-04-01/Accounts/" + url.PathEscape(t.cfg.AccountSID) + "/Messages.json"
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, at, strings.NewReader(form.Encode()))
	if err != nil {
		return "", err
	}
	r.SetBasicAuth(t.cfg.AccountSID, string(t.cfg.AuthToken))
	r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	res, err := t.client.Do(r)
	if err != nil {
		return "", err
	}
	defer res.Body.Close()
	var answer struct {
		SID     string `json:"sid"`
		Status  string `json:"status"`
		Message string `json:"message"`       // of an error
		Failure string `json:"error_message"` // of a message that is not delivered
	}
	if err := json.NewDecoder(res.Body).Decode(&answer); err != nil {
		return "", fmt.Errorf("read Twilio's answer (%s): %w", res.Status, err)
	}
	switch {
	case res.StatusCode >= http.StatusInternalServerError:
		return "", errors.New("Twilio answers " + res.Status)
	case res.StatusCode >= http.StatusBadRequest:
		return "", &TextError{answer.Message}
	case answer.Status == "failed", answer.Status == "undelivered":
		return "", &TextError{answer.Failure}
	}
	return answer.SID, nil
}
