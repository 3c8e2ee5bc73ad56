package mailbox

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-dev/sluice"
)

// Config describes a Box.
type Config struct {
	// From and SenderName are the sender of every message.
	From, SenderName string
	// MaxMessages and MaxBytes bound what is kept; the oldest goes first. Default
	// 500, as in Mailpit, and 32 MiB.
	MaxMessages, MaxBytes int
	// Now is the clock. Default time.Now.
	Now func() time.Time
	// Version is shown by the API. Default "dev".
	Version string
}

// Box keeps the newest messages. It may be used by many goroutines at once.
type Box struct {
	// fixed after New
	cfg     Config
	guarded http.Handler

	mu    sync.Mutex
	mails []*message // newest first
	bytes int        // of all of them
}

// message is a mail that was caught. All but read is fixed.
type message struct {
	id      string
	created time.Time
	sluice.Mail
	text string // the HTML as words
	read bool   // guarded by Box.mu
}

// size counts what the message keeps in memory, about as much as it would have on
// the wire.
func (m *message) size() int {
	const headers = 300
	return headers + len(m.To) + len(m.Subject) + len(m.HTML) + len(m.text)
}

// New makes an empty box.
func New(cfg Config) *Box {
	if cfg.MaxMessages <= 0 {
		cfg.MaxMessages = 500
	}
	if cfg.MaxBytes <= 0 {
		cfg.MaxBytes = 32 << 20
	}
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Version == "" {
		cfg.Version = "dev"
	}
	b := &Box{cfg: cfg}
	b.routes()
	return b
}

// Send takes a message. One that alone is larger than the box is an error.
func (b *Box) Send(_ context.Context, m sluice.Mail) error {
	caught := &message{id: rand.Text(), created: b.cfg.Now().UTC(), Mail: m, text: plainText(m.HTML)}
	if caught.size() > b.cfg.MaxBytes {
		return fmt.Errorf("mail of %d bytes to %q is larger than the catcher: %w", caught.size(), m.To, sluice.ErrInvalid)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mails = slices.Insert(b.mails, 0, caught)
	b.bytes += caught.size()
	for len(b.mails) > b.cfg.MaxMessages || b.bytes > b.cfg.MaxBytes {
		last := len(b.mails) - 1
		b.bytes -= b.mails[last].size()
		b.mails[last] = nil
		b.mails = b.mails[:last]
	}
	return nil
}

// find returns the messages that match, newest first, as they are now.
func (b *Box) find(match func(*message) bool) []message {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []message
	for _, m := range b.mails {
		if match(m) {
			out = append(out, *m)
		}
	}
	return out
}

// Caught is a mail in a list.
type Caught struct {
	ID, To, Subject string
	At              time.Time
}

// Latest returns the newest mails, at most n.
func (b *Box) Latest(n int) []Caught {
	var out []Caught
	for _, m := range b.find(everything) {
		if len(out) == n {
			break
		}
		out = append(out, Caught{m.id, m.To, m.Subject, m.created})
	}
	return out
}

// open returns one message, by its id or as the latest, and marks it as read.
func (b *Box) open(id string) (message, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, m := range b.mails {
		if id == "latest" || m.id == id {
			m.read = true
			return *m, true
		}
	}
	return message{}, false
}

// remove deletes the messages that match.
func (b *Box) remove(match func(*message) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mails = slices.DeleteFunc(b.mails, func(m *message) bool {
		if !match(m) {
			return false
		}
		b.bytes -= m.size()
		return true
	})
}

// parseQuery reads a search in Mailpit's words: to:, from:, subject: and is:, each
// with a text that may be quoted, anything else in any field; a minus before a word
// means without it. All of them must hold.
func parseQuery(query, from string) func(*message) bool {
	type term struct {
		field, text string
		not         bool
	}
	var terms []term
	for query = strings.TrimSpace(query); query != ""; query = strings.TrimLeft(query, " ") {
		var t term
		if query[0] == '-' {
			t.not, query = true, query[1:]
		}
		for _, field := range []string{"to", "from", "subject", "is"} {
			if len(query) > len(field) && strings.EqualFold(query[:len(field)], field) && query[len(field)] == ':' {
				t.field, query = field, query[len(field)+1:]
				break
			}
		}
		if quoted, found := strings.CutPrefix(query, `"`); found {
			t.text, query, _ = strings.Cut(quoted, `"`)
		} else {
			t.text, query, _ = strings.Cut(query, " ")
		}
		if t.text != "" {
			t.text = strings.ToLower(t.text)
			terms = append(terms, t)
		}
	}
	has := func(s, text string) bool { return strings.Contains(strings.ToLower(s), text) }
	return func(m *message) bool {
		for _, t := range terms {
			var holds bool
			switch t.field {
			case "to":
				holds = has(m.To, t.text)
			case "from":
				holds = has(from, t.text)
			case "subject":
				holds = has(m.Subject, t.text)
			case "is":
				holds = t.text == "read" && m.read || t.text == "unread" && !m.read
			default:
				holds = has(m.To, t.text) || has(m.Subject, t.text) || has(m.text, t.text) || has(from, t.text)
			}
			if holds == t.not {
				return false
			}
		}
		return true
	}
}
