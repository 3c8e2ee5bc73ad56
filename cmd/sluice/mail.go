package main

import (
	"net"
	"os"
	"path/filepath"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/auth"
	"github.com/sluice-dev/sluice/mailbox"
	"github.com/sluice-dev/sluice/project"
)

// catchMail opens the mail catcher of section [inbucket]; l is nil when it is off.
func catchMail(c project.Config) (box *mailbox.Box, l net.Listener, err error) {
	if !c.Inbucket.Enabled {
		return nil, nil, nil
	}
	held, err := listen(c.Inbucket.Port, "port in [inbucket]")
	if err != nil {
		return nil, nil, err
	}
	return mailbox.New(mailbox.Config{
		From: c.Inbucket.AdminEmail, SenderName: c.Inbucket.SenderName, Version: buildVersion(),
	}), held.TCPListener, nil
}

// mailerOf returns what delivers the mails of Auth: the mail server that the
// project names, else the catcher, else nothing.
func mailerOf(c project.Config, box *mailbox.Box) (auth.Mailer, error) {
	s := c.Auth.Email.SMTP
	switch {
	case s.On():
		return auth.NewSMTP(auth.SMTPConfig{
			Host: s.Host, Port: s.Port, User: s.User, Password: sluice.Secret(s.Pass),
			From: s.AdminEmail, SenderName: s.SenderName,
		})
	case box != nil:
		return box, nil
	}
	return nil, nil
}

// texterOf returns what delivers messages to phones: the service that the project
// names, else nothing.
func texterOf(c project.Config) (auth.Texter, error) {
	t := c.Auth.SMS.Twilio
	if !t.Enabled {
		return nil, nil
	}
	return auth.NewTwilio(auth.TwilioConfig{AccountSID: t.AccountSID, AuthToken: sluice.Secret(t.AuthToken), Sender: t.MessageServiceSID})
}

// mailTemplates are the project's own mails. Their files are named from the
// project's folder, or, where there is no such file, from supabase/.
func mailTemplates(p *project.Project) map[string]auth.Template {
	out := map[string]auth.Template{}
	for _, section := range []map[string]project.AuthMail{p.Config.Auth.Email.Template, p.Config.Auth.Email.Notification} {
		for name, m := range section {
			path := m.ContentPath
			if path != "" && !filepath.IsAbs(path) {
				path = filepath.Join(p.Dir, filepath.FromSlash(m.ContentPath))
				if _, err := os.Stat(path); err != nil {
					path = p.Path(m.ContentPath)
				}
			}
			out[name] = auth.Template{Subject: m.Subject, Path: path, Enabled: m.Enabled}
		}
	}
	return out
}
