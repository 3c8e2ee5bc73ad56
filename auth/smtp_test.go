package auth_test

import (
	"bufio"
	"context"
	"fmt"
	"mime"
	"mime/quotedprintable"
	"net"
	"net/mail"
	"strconv"
	"strings"
	"testing"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/auth"
)

// smtpServer takes one message and returns the dialogue's commands and the
// message; refuse answers a command with an error.
func smtpServer(t *testing.T, refuse string) (port int, received <-chan []string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan []string, 1)
	go func() {
		defer l.Close()
		var lines []string
		defer func() { done <- lines }()
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		in := bufio.NewReader(c)
		say := func(s string) { fmt.Fprintf(c, "%s\r\n", s) }
		say("220 test")
		for inData := false; ; {
			line, err := in.ReadString('\n')
			if err != nil {
				return
			}
			line = strings.TrimRight(line, "\r\n")
			lines = append(lines, line)
			verb, _, _ := strings.Cut(strings.ToUpper(line), " ")
			switch {
			case inData && line == ".":
				inData = false
				say("250 taken")
			case inData:
			case refuse != "" && verb == refuse:
				say("550 not here")
			case verb == "DATA":
				inData = true
				say("354 go on")
			case verb == "EHLO":
				say("250-test")
				say("250 8BITMIME")
			case verb == "QUIT":
				say("221 bye")
				return
			default:
				say("250 ok")
			}
		}
	}()
	t.Cleanup(func() { l.Close() })
	return l.Addr().(*net.TCPAddr).Port, done
}

func TestSMTP(t *testing.T) {
	t.Parallel()
	port, received := smtpServer(t, "")
	client, err := auth.NewSMTP(auth.SMTPConfig{Host: "127.0.0.1", Port: port, From: "admin@example.com", SenderName: "Jürgen, \"Admin\""})
	if err != nil {
		t.Fatal(err)
	}
	const html = "<p>Grüße = 42</p>\n.\n<p>end</p>\n"
	if err := client.Send(t.Context(), sluice.Mail{To: "a@example.com", Subject: "Grüße: 123456", HTML: html}); err != nil {
		t.Fatal(err)
	}
	lines := <-received
	text := strings.Join(lines, "\r\n")
	for _, part := range []string{"MAIL FROM:<admin@example.com>", "RCPT TO:<a@example.com>"} {
		if !strings.Contains(text, part) {
			t.Errorf("no %q in\n%s", part, text)
		}
	}
	same(t, "recipients", strings.Count(text, "RCPT TO"), 1)
	_, text, _ = strings.Cut(text, "DATA\r\n")
	m, err := mail.ReadMessage(strings.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	var words mime.WordDecoder
	subject, err := words.DecodeHeader(m.Header.Get("Subject"))
	same(t, "subject", subject, "Grüße: 123456")
	from, ferr := m.Header.AddressList("From")
	if err != nil || ferr != nil || len(from) != 1 || from[0].Address != "admin@example.com" || from[0].Name != `Jürgen, "Admin"` {
		t.Errorf("From %q: %v %v", m.Header.Get("From"), err, ferr)
	}
	kind, _, _ := mime.ParseMediaType(m.Header.Get("Content-Type"))
	same(t, "Content-Type", kind, "text/html")
	same(t, "encoding", m.Header.Get("Content-Transfer-Encoding"), "quoted-printable")
	body := new(strings.Builder)
	if _, err := bufio.NewReader(quotedprintable.NewReader(m.Body)).WriteTo(body); err != nil {
		t.Fatal(err)
	}
	got, _, _ := strings.Cut(strings.ReplaceAll(body.String(), "\r\n", "\n"), "\n..\n")
	if !strings.Contains(got, "Grüße = 42") {
		t.Errorf("body %q", body)
	}
}

func TestSMTPRefuses(t *testing.T) {
	t.Parallel()
	port, received := smtpServer(t, "RCPT")
	cfg := auth.SMTPConfig{Host: "127.0.0.1", Port: port, From: "admin@example.com", SenderName: "Admin"}
	client, err := auth.NewSMTP(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Send(t.Context(), sluice.Mail{To: "a@example.com", Subject: "x", HTML: "x"}); err == nil || !strings.Contains(err.Error(), "not here") {
		t.Errorf("the refusal is %v", err)
	}
	<-received
	// Nothing that would begin another header reaches a server.
	for _, m := range []sluice.Mail{
		{To: "a@example.com", Subject: "x\r\nBcc: b@example.com"},
		{To: "a@example.com", Subject: "x\nBcc: b@example.com"},
		{To: "a@example.com\r\nBcc: b@example.com", Subject: "x"},
		{To: "a@example.com, b@example.com", Subject: "x"},
	} {
		if err := client.Send(t.Context(), m); err == nil || strings.Contains(err.Error(), strconv.Itoa(port)) {
			t.Errorf("%+v: %v", m, err)
		}
	}
	for _, bad := range []auth.SMTPConfig{
		{Host: "", Port: 25, From: "a@example.com"},
		{Host: "x", Port: 70000, From: "a@example.com"},
		{Host: "x", Port: 25, From: ""},
		{Host: "x", Port: 25, From: "a@example.com", SenderName: "x\r\nBcc: b@example.com"},
	} {
		if _, err := auth.NewSMTP(bad); err == nil {
			t.Errorf("%+v is accepted", bad)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := client.Send(ctx, sluice.Mail{To: "a@example.com", Subject: "x", HTML: "x"}); err == nil {
		t.Error("sent after the request has ended")
	}
}
