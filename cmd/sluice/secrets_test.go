package main

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/sluice-dev/sluice/auth"
	"github.com/sluice-dev/sluice/project"
)

// The server's secrets come from the file and the environment, never from an argument, which
// every user of the machine sees; and what is made of them prints without them.
//
// spec: auth-sec:11
func TestSecretsStayOut(t *testing.T) {
	t.Parallel()
	const secret = "the-secret-of-this-test"
	a := project.Auth{
		External: map[string]project.AuthProvider{"github": {Enabled: true, ClientID: "x", Secret: secret}},
		Captcha:  project.AuthCaptcha{Enabled: true, Provider: "hcaptcha", Secret: secret},
		Hook:     map[string]project.AuthHook{"send_sms": {Enabled: true, URI: "https://example.com", Secrets: "v1,whsec_" + secret}},
		SMS:      project.AuthSMS{Twilio: project.AuthTwilio{Enabled: true, AccountSID: "AC1", AuthToken: secret, MessageServiceSID: "MG1"}},
	}
	texter, err := texterOf(project.Config{Auth: a})
	if err != nil {
		t.Fatal(err)
	}
	mailer, err := mailerOf(project.Config{Auth: project.Auth{Email: project.AuthEmail{SMTP: project.AuthSMTP{
		Host: "localhost", Port: 25, User: "u", Pass: secret, AdminEmail: "a@example.com",
	}}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	var log strings.Builder
	cfg := authConfig(serveConfig{project: project.Config{Auth: a}, log: slog.New(slog.NewTextHandler(&log, nil)), mailer: mailer, texter: texter}, nil)
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "config", cfg, "mailer", mailer, "texter", texter)
	text, err := json.Marshal(map[string]any{"providers": cfg.Providers, "captcha": cfg.Captcha, "hooks": cfg.Hooks})
	if err != nil {
		t.Fatal(err)
	}
	for what, printed := range map[string]string{
		"%+v": fmt.Sprintf("%+v", cfg), "%#v": fmt.Sprintf("%#v", cfg), "log": log.String(), "json": string(text),
		"mailer": fmt.Sprintf("%+v", mailer), "texter": fmt.Sprintf("%+v", texter),
		"twilio": fmt.Sprintf("%#v", auth.TwilioConfig{AuthToken: secret}),
	} {
		if strings.Contains(printed, secret) {
			t.Errorf("%s shows a secret: %.300s", what, printed)
		}
	}
	var look func(c *cobra.Command)
	look = func(c *cobra.Command) {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			for _, word := range []string{"secret", "password", "private", "signing"} {
				if strings.Contains(f.Name, word) {
					t.Errorf("%s --%s takes a secret on the command line", c.CommandPath(), f.Name)
				}
			}
		})
		for _, sub := range c.Commands() {
			if sub.Name() != "doctor" { // a client, which has the secrets of its user
				look(sub)
			}
		}
	}
	look(newRoot(io.Discard, io.Discard))
}
