package mailbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/mailbox"
)

func newBox(change func(*mailbox.Config)) *mailbox.Box {
	cfg := mailbox.Config{
		From: "admin@email.com", SenderName: "Admin",
		Now: func() time.Time { return time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC) },
	}
	if change != nil {
		change(&cfg)
	}
	return mailbox.New(cfg)
}

func send(t *testing.T, b *mailbox.Box, to, subject, html string) {
	t.Helper()
	if err := b.Send(t.Context(), sluice.Mail{To: to, Subject: subject, HTML: html}); err != nil {
		t.Fatal(err)
	}
}

func call(t *testing.T, b *mailbox.Box, method, path, body string) *httptest.ResponseRecorder {
	t.Helper()
	r := httptest.NewRequest(method, "http://127.0.0.1:54324"+path, strings.NewReader(body))
	w := httptest.NewRecorder()
	b.ServeHTTP(w, r)
	return w
}

type mail struct {
	ID, Subject, Snippet, Text, HTML string
	From                             struct{ Name, Address string }
	To                               []struct{ Name, Address string }
	Read                             bool
	Created, Date                    time.Time
}

type listing struct {
	Total         int `json:"total"`
	Unread        int `json:"unread"`
	Count         int `json:"count"`
	MessagesCount int `json:"messages_count"`
	Messages      []mail
}

func get[T any](t *testing.T, b *mailbox.Box, path string) (v T) {
	t.Helper()
	w := call(t, b, "GET", path, "")
	if w.Code != 200 {
		t.Fatalf("%s: %d %s", path, w.Code, w.Body)
	}
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return v
}

func (l listing) subjects() string {
	var out []string
	for _, m := range l.Messages {
		out = append(out, m.Subject)
	}
	return strings.Join(out, " ")
}

func TestMailpitPaths(t *testing.T) {
	t.Parallel()
	b := newBox(nil)
	empty := call(t, b, "GET", "/api/v1/messages", "").Body.String()
	if !strings.Contains(empty, `"messages":[]`) {
		t.Errorf("empty: %s", empty)
	}
	send(t, b, "a@example.com", "first", "<p>One</p>")
	send(t, b, "b@example.com", "second", `<h2>Two</h2><p><a href="http://x/verify?a=1&amp;b=2">Go</a></p><p>the code: 123456</p>`)
	send(t, b, "a@example.com", "third", "<p>Three</p>")

	all := get[listing](t, b, "/api/v1/messages")
	if all.subjects() != "third second first" || all.Total != 3 || all.Unread != 3 || all.Count != 3 {
		t.Errorf("list %+v", all)
	}
	m := all.Messages[1]
	if m.From.Name != "Admin" || m.From.Address != "admin@email.com" || len(m.To) != 1 || m.To[0].Address != "b@example.com" ||
		!m.Created.Equal(time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)) || m.Snippet != "Two Go ( http://x/verify?a=1&b=2 ) the code: 123456" {
		t.Errorf("message %+v", m)
	}
	if page := get[listing](t, b, "/api/v1/messages?start=1&limit=1"); page.subjects() != "second" || page.Total != 3 || page.MessagesCount != 3 {
		t.Errorf("page %+v", page)
	}
	if page := get[listing](t, b, "/api/v1/messages?start=99&limit=x"); page.subjects() != "" {
		t.Errorf("page %+v", page)
	}

	full := get[mail](t, b, "/api/v1/message/"+m.ID)
	want := "Two\nGo ( http://x/verify?a=1&b=2 )\nthe code: 123456"
	if full.Text != want || !strings.HasPrefix(full.HTML, "<h2>") || full.Date.IsZero() {
		t.Errorf("message %+v", full)
	}
	if latest := get[mail](t, b, "/api/v1/message/latest"); latest.Subject != "third" {
		t.Errorf("latest %+v", latest)
	}
	if l := get[listing](t, b, "/api/v1/messages"); l.Unread != 1 || !l.Messages[0].Read {
		t.Errorf("after reading: %+v", l)
	}

	for query, subjects := range map[string]string{
		"to:a@example.com": "third first", "to:A@EXAMPLE": "third first", "to%3A%22b@example.com%22": "second", "subject:second": "second",
		"three": "third", "123456": "second", "-to:a@": "second", "to:a+is:unread": "first", "from:admin": "third second first", "is:read+third": "third",
		"to:nobody": "",
	} {
		if got := get[listing](t, b, "/api/v1/search?query="+query); got.subjects() != subjects || got.Total != 3 {
			t.Errorf("%s: %q, want %q", query, got.subjects(), subjects)
		}
	}

	for _, c := range []struct {
		method, path, body string
		status             int
	}{
		{"GET", "/api/v1/message/none", "", 404},
		{"GET", "/api/v1/search", "", 400},
		{"DELETE", "/api/v1/search", "", 400},
		{"DELETE", "/api/v1/messages", "{", 400},
		{"GET", "/view/none.html", "", 404},
		{"GET", "/view/latest", "", 404},
		{"GET", "/api/v1/mailbox/a", "", 410},
		{"GET", "/livez", "", 200},
		{"GET", "/readyz", "", 200},
		{"GET", "/api/v1/info", "", 200},
		{"POST", "/api/v1/messages", "", 405},
	} {
		if w := call(t, b, c.method, c.path, c.body); w.Code != c.status {
			t.Errorf("%s %s: %d, want %d", c.method, c.path, w.Code, c.status)
		}
	}

	if w := call(t, b, "DELETE", "/api/v1/messages", `{"IDs":["`+m.ID+`","none"]}`); w.Code != 200 {
		t.Error(w.Body)
	}
	if l := get[listing](t, b, "/api/v1/messages"); l.subjects() != "third first" {
		t.Errorf("after deleting one: %s", l.subjects())
	}
	call(t, b, "DELETE", "/api/v1/search?query=subject:first", "")
	if l := get[listing](t, b, "/api/v1/messages"); l.subjects() != "third" {
		t.Errorf("after deleting a search: %s", l.subjects())
	}
	call(t, b, "DELETE", "/api/v1/messages", "")
	if l := get[listing](t, b, "/api/v1/messages"); l.Total != 0 {
		t.Errorf("after deleting all: %+v", l)
	}
}

func TestBounded(t *testing.T) {
	t.Parallel()
	b := newBox(func(c *mailbox.Config) { c.MaxMessages, c.MaxBytes = 3, 10_000 })
	for i := range 5 {
		send(t, b, "a@example.com", fmt.Sprint(i), "x")
	}
	if l := get[listing](t, b, "/api/v1/messages"); l.subjects() != "4 3 2" {
		t.Errorf("kept: %s", l.subjects())
	}
	send(t, b, "a@example.com", "big", "<style>"+strings.Repeat("x", 9100)+"</style>")
	if l := get[listing](t, b, "/api/v1/messages"); l.subjects() != "big 4" {
		t.Errorf("kept: %s", l.subjects())
	}
	err := b.Send(context.Background(), sluice.Mail{To: "a@example.com", HTML: strings.Repeat("x", 10_000)})
	if !errors.Is(err, sluice.ErrInvalid) {
		t.Errorf("a mail larger than the box: %v", err)
	}
	call(t, b, "DELETE", "/api/v1/messages", "")
	for i := range 3 {
		send(t, b, "a@example.com", fmt.Sprint(i), "<style>"+strings.Repeat("x", 4000)+"</style>")
	}
	if l := get[listing](t, b, "/api/v1/messages"); l.subjects() != "2 1" {
		t.Errorf("the room of deleted mails is not free: %s", l.subjects())
	}
}

// A page elsewhere, whose name leads to this machine, reads nothing, and a mail
// runs nothing.
func TestPagesAreClosed(t *testing.T) {
	t.Parallel()
	b := newBox(nil)
	send(t, b, "a@example.com", "x", `<script>alert(1)</script><img src="https://example.com/pixel">`)
	for host, status := range map[string]int{
		"127.0.0.1:54324": 200, "localhost:54324": 200, "localhost": 200, "[::1]:54324": 200, "mail.localhost": 200, "192.168.1.5:54324": 200,
		"evil.example": 403, "evil.example:54324": 403, "localhost.evil.example": 403,
	} {
		r := httptest.NewRequest("GET", "/api/v1/messages", nil)
		r.Host = host
		w := httptest.NewRecorder()
		b.ServeHTTP(w, r)
		if w.Code != status {
			t.Errorf("host %s: %d, want %d", host, w.Code, status)
		}
		if w.Header().Get("Access-Control-Allow-Origin") != "" {
			t.Error("other pages may read mails")
		}
	}
	w := call(t, b, "GET", "/view/latest.html", "")
	policy := w.Header().Get("Content-Security-Policy")
	for _, part := range []string{"default-src 'none'", "img-src data:", "sandbox"} {
		if !strings.Contains(policy, part) {
			t.Errorf("a mail's policy %q lacks %s", policy, part)
		}
	}
	if strings.Contains(policy, "allow-scripts") || strings.Contains(policy, "allow-same-origin") {
		t.Errorf("a mail may run scripts: %q", policy)
	}
	if w := call(t, b, "GET", "/view/latest.txt", ""); w.Body.String() != "" || !strings.HasPrefix(w.Header().Get("Content-Type"), "text/plain") {
		t.Errorf("text view: %q", w.Body)
	}
}

// The page asks nobody else for anything.
func TestPage(t *testing.T) {
	t.Parallel()
	b := newBox(nil)
	for path, kind := range map[string]string{"/": "text/html", "/page.js": "text/javascript", "/page.css": "text/css"} {
		w := call(t, b, "GET", path, "")
		if w.Code != http.StatusOK || !strings.HasPrefix(w.Header().Get("Content-Type"), kind) {
			t.Errorf("%s: %d %s", path, w.Code, w.Header().Get("Content-Type"))
		}
		if text := w.Body.String(); strings.Contains(text, "http://") || strings.Contains(text, "https://") || strings.Contains(text, " style=") {
			t.Errorf("%s names an address elsewhere, or a style that its policy refuses", path)
		}
		if !strings.Contains(w.Header().Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("%s has no policy", path)
		}
	}
}

func TestAtOnce(t *testing.T) {
	t.Parallel()
	b := newBox(func(c *mailbox.Config) { c.MaxMessages = 20 })
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for range 20 {
				send(t, b, fmt.Sprint(i, "@example.com"), "s", "<p>x</p>")
				get[listing](t, b, "/api/v1/search?query=is:unread")
				call(t, b, "GET", "/api/v1/message/latest", "")
				if i == 0 {
					call(t, b, "DELETE", "/api/v1/search?query=to:3@", "")
				}
			}
		})
	}
	wg.Wait()
	if l := get[listing](t, b, "/api/v1/messages"); l.Total > 20 {
		t.Errorf("%d messages are kept", l.Total)
	}
}

func TestPlainText(t *testing.T) {
	t.Parallel()
	for html, want := range map[string]string{
		"<p>a  b\n c</p><p>d</p>":                                     "a b c\nd",
		"a<br>b<br/>c":                                                "a\nb\nc",
		"<style>p{}</style><script>x</script>y":                       "y",
		"<!-- <b>no</b> -->yes":                                       "yes",
		"1 &lt; 2 &amp; 3 < 4":                                        "1 < 2 & 3 < 4",
		`<a title="a>b" href='http://x?a=1&amp;b'>t</a>`:              "t ( http://x?a=1&b )",
		"<b>bold</b> and <i>it</i>alic":                               "bold and italic",
		"<p>Alternatively, enter the code: <b>123456</b></p>":         "Alternatively, enter the code: 123456",
		"<style>never closed":                                         "",
		"<a href=http://x class=y>t</a>":                              "t ( http://x )",
		"<ul><li>one</li><li>two</li></ul>":                           "one\ntwo",
		"<!doctype html><title>no</title><h1>Yes</h1>no'quote <q a='": "Yes\nno'quote",
	} {
		if diff := cmp.Diff(want, mailbox.PlainText(html)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", html, diff)
		}
	}
}

func FuzzPlainText(f *testing.F) {
	for _, seed := range []string{"<p>a</p>", "<a href=\"x\">y</a>", "<!--", "<", "<a href=", "&#x110000;", "<style>", "İ<a href='x'>"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, html string) {
		if text := mailbox.PlainText(html); len(text) > 2*len(html)+10 {
			t.Fatalf("%d bytes of %d", len(text), len(html))
		}
	})
}

func FuzzQuery(f *testing.F) {
	for _, seed := range []string{"to:a", `-subject:"a b"`, "is:unread x", `"`, "-", ":", "to:", "- -"} {
		f.Add(seed)
	}
	f.Fuzz(func(_ *testing.T, query string) {
		mailbox.Matches(query, "a@example.com", "subject") // ends, and does not panic
	})
}
