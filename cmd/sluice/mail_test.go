package main

import (
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/auth"
	"github.com/sluice-dev/sluice/mailbox"
	"github.com/sluice-dev/sluice/project"
)

// spec: auth-sec:52
func TestCatchMail(t *testing.T) {
	t.Parallel()
	var c project.Config
	if box, l, err := catchMail(c); box != nil || l != nil || err != nil {
		t.Errorf("without the section: %v %v %v", box, l, err)
	}
	c.Inbucket.Enabled = true
	box, l, err := catchMail(c)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if addr := l.Addr().(*net.TCPAddr); !addr.IP.IsLoopback() {
		t.Errorf("the catcher listens on %s", addr)
	}
	for i := range 600 {
		if err := box.Send(t.Context(), sluice.Mail{To: "a@example.com", Subject: fmt.Sprint(i), HTML: "x"}); err != nil {
			t.Fatal(err)
		}
	}
	w := httptest.NewRecorder()
	box.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "http://127.0.0.1/api/v1/messages?limit=1", nil))
	if !strings.Contains(w.Body.String(), `"total":500`) {
		t.Errorf("it keeps %s", w.Body)
	}
	// The services alone bring none: there is no catcher without a development stack.
	if m, err := mailerOf(project.Config{}, nil); m != nil || err != nil {
		t.Errorf("a mailer out of nothing: %v, %v", m, err)
	}
}

func TestMailer(t *testing.T) {
	t.Parallel()
	var c project.Config
	box := mailbox.New(mailbox.Config{})
	if m, err := mailerOf(c, box); m != auth.Mailer(box) || err != nil {
		t.Errorf("without a server: %T, %v", m, err)
	}
	c.Auth.Email.SMTP = project.AuthSMTP{Host: "mail.example.com", Port: 587, AdminEmail: "admin@example.com"}
	c.Auth.RateLimit.EmailSent = 7
	if m, err := mailerOf(c, box); err != nil {
		t.Error(err)
	} else if _, smtp := m.(*auth.SMTP); !smtp {
		t.Errorf("with a server: %T", m)
	}
	if n := mailLimit(c.Auth); n != 7 {
		t.Errorf("limit %d", n)
	}
	c.Auth.Email.SMTP.AdminEmail = "nobody"
	if _, err := mailerOf(c, box); err == nil {
		t.Error("a sender without address is accepted")
	}
	c.Auth.Email.SMTP = project.AuthSMTP{}
	if n := mailLimit(c.Auth); n != 0 {
		t.Errorf("limit without a server: %d", n)
	}
}

func TestMailTemplates(t *testing.T) {
	t.Parallel()
	p := &project.Project{Dir: t.TempDir()}
	for _, file := range []string{"mails/a.html", "supabase/templates/b.html"} {
		path := filepath.Join(p.Dir, filepath.FromSlash(file))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	p.Config.Auth.Email.Template = map[string]project.AuthMail{
		"invite": {Subject: "Come in", ContentPath: "./mails/a.html"}, "recovery": {ContentPath: "templates/b.html"}, "magic_link": {Subject: "x"},
	}
	p.Config.Auth.Email.Notification = map[string]project.AuthMail{"password_changed": {Enabled: true}}
	want := map[string]auth.Template{
		"invite":           {Subject: "Come in", Path: filepath.Join(p.Dir, "mails", "a.html")},
		"recovery":         {Path: filepath.Join(p.Dir, "supabase", "templates", "b.html")},
		"magic_link":       {Subject: "x"},
		"password_changed": {Enabled: true},
	}
	if diff := cmp.Diff(want, mailTemplates(p)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}
