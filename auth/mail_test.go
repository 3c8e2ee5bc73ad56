package auth_test

import (
	"context"
	"html"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/auth"
)

// post keeps what Auth mails.
type post struct {
	mu   sync.Mutex
	got  []sluice.Mail
	fail error
}

func (p *post) Send(_ context.Context, m sluice.Mail) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fail != nil {
		return p.fail
	}
	p.got = append(p.got, m)
	return nil
}

func (p *post) breakWith(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.fail = err
}

// letter is a mail as its reader sees it.
type letter struct {
	sluice.Mail
	link string
	code string
}

var (
	hrefs = regexp.MustCompile(`href="([^"]*/verify[^"]*)"`)
	codes = regexp.MustCompile(`the code: (\d+)`)
)

// letters returns what was mailed since it was last asked, in order.
func (s *stack) letters() []letter {
	s.post.mu.Lock()
	defer s.post.mu.Unlock()
	var out []letter
	for _, m := range s.post.got {
		l := letter{Mail: m}
		if found := hrefs.FindStringSubmatch(m.HTML); found != nil {
			l.link = html.UnescapeString(found[1])
		}
		if found := codes.FindStringSubmatch(m.HTML); found != nil {
			l.code = found[1]
		}
		out = append(out, l)
	}
	s.post.got = nil
	return out
}

// letter returns the one mail that was sent, to this address.
func (s *stack) letter(to string) letter {
	s.t.Helper()
	all := s.letters()
	if len(all) != 1 || all[0].To != to {
		s.t.Fatalf("%d mails, want one to %s: %+v", len(all), to, all)
	}
	return all[0]
}

// noLetter fails the test if something was mailed.
func (s *stack) noLetter() {
	s.t.Helper()
	if all := s.letters(); len(all) > 0 {
		s.t.Fatalf("mailed: %+v", all)
	}
}

// query returns a parameter of the link.
func (l letter) query(t testing.TB, name string) string {
	t.Helper()
	u, err := url.Parse(l.link)
	if err != nil {
		t.Fatal(err)
	}
	return u.Query().Get(name)
}

// hash is the token in the link.
func (l letter) hash(t testing.TB) string { t.Helper(); return l.query(t, "token") }

// landed is where a browser is sent: the address without query and fragment, and
// both of them.
type landed struct {
	at              string
	query, fragment url.Values
	whole           string
}

// follow opens a link as a browser does, without a key.
func (s *stack) follow(link string, options ...option) landed {
	s.t.Helper()
	path, found := strings.CutPrefix(link, issuer)
	if !found {
		s.t.Fatalf("the link leads elsewhere: %s", link)
	}
	options = append([]option{with("apikey", ""), with("Authorization", "")}, options...)
	return s.landed(s.do("GET", path, nil, options...))
}

func (s *stack) landed(r *reply) landed {
	s.t.Helper()
	return s.land(r.ok(303))
}

// land reads where an answer sends a browser, which must not tell where it was.
func (s *stack) land(r *reply) landed {
	s.t.Helper()
	same(s.t, "Referrer-Policy", r.header.Get("Referrer-Policy"), "no-referrer")
	same(s.t, "Cache-Control", r.header.Get("Cache-Control"), "no-store")
	to := r.header.Get("Location")
	at, fragment, _ := strings.Cut(to, "#")
	at, query, _ := strings.Cut(at, "?")
	out := landed{at: at, whole: to}
	var err error
	if out.query, err = url.ParseQuery(query); err != nil {
		s.t.Fatal(err)
	}
	if out.fragment, err = url.ParseQuery(fragment); err != nil {
		s.t.Fatal(err)
	}
	return out
}

// confirming makes new addresses wait for a mail.
func confirming(c *auth.Config) { c.EmailAutoconfirm = false }

const linkExpired = "Email link is invalid or has expired"

// expired fails the test unless a link led to the refusal of a dead one.
func (l landed) expired(t testing.TB) {
	t.Helper()
	same(t, "refusal", l.whole, "http://127.0.0.1:3000#error=access_denied&error_code=otp_expired&error_description=Email+link+is+invalid+or+has+expired&sb=")
}

// actions are the audit log's, oldest first.
func (s *stack) actions() []string {
	s.t.Helper()
	text := s.text("select coalesce(string_agg(payload ->> 'action', ' ' order by created_at, id), '') from auth.audit_log_entries")
	out := strings.Fields(text)
	slices.Sort(out)
	return out
}
