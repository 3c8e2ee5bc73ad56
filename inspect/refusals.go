package inspect

import (
	"context"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/sluice-dev/sluice"
)

// keptRefusals is how many refusals are remembered.
const keptRefusals = 200

// maxField bounds what is kept of one value, in bytes.
const maxField = 500

// Refused is one line of the log that carries a refusal's code.
type Refused struct {
	At    time.Time   `json:"at"`
	Level string      `json:"level"`
	Code  sluice.Code `json:"code"`
	What  string      `json:"what"` // the line's message
	// Remedy is the table's for the code; empty when it has none.
	Remedy string `json:"remedy,omitempty"`
	// Fields are the line's attributes, redacted as in the log.
	Fields map[string]string `json:"fields"`
}

// Refusals remembers the latest lines of a log that carry a refusal's code. Every
// refusal is one such line, whichever service refused; so this is all of them.
type Refusals struct {
	mu    sync.Mutex
	lines [keptRefusals]Refused
	count int // of all that came
	watch chan struct{}
}

// NewRefusals returns an empty memory.
func NewRefusals() *Refusals { return &Refusals{watch: make(chan struct{})} }

// Latest returns what is remembered, the latest first.
func (r *Refusals) Latest() []Refused {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := min(r.count, keptRefusals)
	out := make([]Refused, 0, n)
	for i := range n {
		out = append(out, r.lines[(r.count-1-i)%keptRefusals])
	}
	return out
}

// Changed returns a channel that is closed at the next refusal.
func (r *Refusals) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.watch
}

func (r *Refusals) add(x Refused) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.lines[r.count%keptRefusals] = x
	r.count++
	close(r.watch)
	r.watch = make(chan struct{})
}

// Handler returns a log handler that remembers refusals and writes nothing.
func (r *Refusals) Handler() slog.Handler { return &handler{refusals: r} }

// handler sees every line of info and above, whatever the log shows.
type handler struct {
	refusals *Refusals
	attrs    []slog.Attr
}

func (h *handler) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelInfo }

func (h *handler) Handle(_ context.Context, record slog.Record) error {
	h.keep(record)
	return nil
}

func (h *handler) keep(record slog.Record) {
	var code string
	record.Attrs(func(a slog.Attr) bool {
		if a.Key == sluice.LogCode {
			code = a.Value.Resolve().String()
		}
		return code == ""
	})
	if code == "" {
		return
	}
	x := Refused{At: record.Time.UTC(), Level: record.Level.String(), Code: sluice.Code(code), What: record.Message, Fields: map[string]string{}}
	if r := sluice.Refuse(x.Code); r.Code == x.Code {
		x.Remedy = r.Remedy
	}
	field := func(a slog.Attr) bool {
		if a.Key != sluice.LogCode {
			if text := a.Value.Resolve().String(); text != "" {
				x.Fields[a.Key] = shorten(text)
			}
		}
		return true
	}
	for _, a := range h.attrs {
		field(a)
	}
	record.Attrs(field)
	h.refusals.add(x)
}

func shorten(s string) string {
	if len(s) > maxField {
		return strings.ToValidUTF8(s[:maxField], "") + "…"
	}
	return s
}

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &handler{h.refusals, append(append([]slog.Attr(nil), h.attrs...), attrs...)}
}

// WithGroup leaves the names as they are: nobody groups what a refusal says.
func (h *handler) WithGroup(string) slog.Handler { return h }
