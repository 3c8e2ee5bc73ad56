package mailbox

import (
	"embed"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-dev/sluice/internal/loopback"
)

//go:embed page
var pageFiles embed.FS

func (b *Box) routes() {
	mux := http.NewServeMux()
	for pattern, h := range map[string]http.HandlerFunc{
		"GET /{$}":                 page("index.html", "text/html; charset=utf-8"),
		"GET /page.js":             page("page.js", "text/javascript; charset=utf-8"),
		"GET /page.css":            page("page.css", "text/css; charset=utf-8"),
		"GET /api/v1/messages":     b.listMessages,
		"DELETE /api/v1/messages":  b.deleteMessages,
		"GET /api/v1/search":       b.searchMessages,
		"DELETE /api/v1/search":    b.deleteSearch,
		"GET /api/v1/message/{id}": b.getMessage,
		"GET /api/v1/info":         b.info,
		"GET /view/{file}":         b.view,
		"GET /livez":               ok,
		"GET /readyz":              ok,
		"/api/v1/mailbox/":         gone,
	} {
		mux.HandleFunc(pattern, h)
	}
	b.guarded = loopback.Guard("the mail catcher", mux)
}

// ServeHTTP answers page and API. A host name that is not this machine's is
// refused: a page elsewhere, whose name was made to point here, could read mails
// otherwise.
func (b *Box) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cache-Control", "no-store")
	r.Body = http.MaxBytesReader(w, r.Body, 1<<20)
	b.guarded.ServeHTTP(w, r)
}

func page(name, kind string) http.HandlerFunc {
	text, err := pageFiles.ReadFile("page/" + name)
	if err != nil {
		panic(err) // embedded
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", kind)
		h.Set("Content-Security-Policy", "default-src 'none'; img-src data:; script-src 'self'; style-src 'self'; connect-src 'self'; frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'")
		_, _ = w.Write(text) // the browser may have gone
	}
}

func ok(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) }

// gone answers the paths of Inbucket, which Mailpit has replaced.
func gone(w http.ResponseWriter, _ *http.Request) {
	http.Error(w, "Inbucket's paths are gone; use Mailpit's: /api/v1/search?query=to:ADDRESS and /api/v1/message/ID", http.StatusGone)
}

// address is a mail address in Mailpit's JSON.
type address struct{ Name, Address string }

// header is what every form of a message has, summary the form in a list.
type header struct {
	ID        string
	MessageID string
	From      address
	To        []address
	Cc        []address
	Bcc       []address
	ReplyTo   []address
	Subject   string
	Username  string
	Tags      []string
	Size      int
}

type summary struct {
	header
	Read        bool
	Created     time.Time
	Attachments int
	Snippet     string
}

type listing struct {
	Total          int       `json:"total"`
	Unread         int       `json:"unread"`
	Count          int       `json:"count"`
	MessagesCount  int       `json:"messages_count"`
	MessagesUnread int       `json:"messages_unread"`
	Start          int       `json:"start"`
	Tags           []string  `json:"tags"`
	Messages       []summary `json:"messages"`
}

func (b *Box) header(m *message) header {
	none := []address{}
	return header{
		ID: m.id, MessageID: m.id + "@sluice", From: address{b.cfg.SenderName, b.cfg.From}, To: []address{{"", m.To}},
		Cc: none, Bcc: none, ReplyTo: none, Subject: m.Subject, Tags: []string{}, Size: m.size(),
	}
}

// snippet is the beginning of a text.
func snippet(text string) string {
	const most = 250
	text = strings.Join(strings.Fields(text), " ")
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}

func everything(*message) bool { return true }

func (b *Box) listMessages(w http.ResponseWriter, r *http.Request) {
	b.list(w, r, everything)
}

func (b *Box) searchMessages(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query().Get("query")
	if query == "" {
		http.Error(w, "no search query", http.StatusBadRequest)
		return
	}
	b.list(w, r, parseQuery(query, b.sender()))
}

func (b *Box) sender() string { return b.cfg.SenderName + " " + b.cfg.From }

// list answers a page of the messages that match.
func (b *Box) list(w http.ResponseWriter, r *http.Request, match func(*message) bool) {
	start, limit := number(r, "start", 0), number(r, "limit", 50)
	all, found := b.find(everything), b.find(match)
	unread := func(list []message) (n int) {
		for i := range list {
			if !list[i].read {
				n++
			}
		}
		return n
	}
	out := listing{
		Total: len(all), Unread: unread(all), MessagesCount: len(found), MessagesUnread: unread(found),
		Start: start, Tags: []string{}, Messages: []summary{},
	}
	for i := min(start, len(found)); i < len(found) && len(out.Messages) < limit; i++ {
		m := &found[i]
		out.Messages = append(out.Messages, summary{header: b.header(m), Read: m.read, Created: m.created, Snippet: snippet(m.text)})
	}
	out.Count = len(out.Messages)
	writeJSON(w, out)
}

// number reads a parameter that is not negative; anything else is the default.
func number(r *http.Request, name string, standard int) int {
	n, err := strconv.Atoi(r.URL.Query().Get(name))
	if err != nil || n < 0 {
		return standard
	}
	return n
}

func (b *Box) getMessage(w http.ResponseWriter, r *http.Request) {
	m, found := b.open(r.PathValue("id"))
	if !found {
		http.Error(w, "message not found", http.StatusNotFound)
		return
	}
	writeJSON(w, struct {
		header
		ReturnPath  string
		Date        time.Time
		Text, HTML  string
		Inline      []string
		Attachments []string
	}{b.header(&m), b.cfg.From, m.created, m.text, m.HTML, []string{}, []string{}})
}

// deleteMessages deletes those of the body's IDs, or all without any.
func (b *Box) deleteMessages(w http.ResponseWriter, r *http.Request) {
	var body struct{ IDs []string }
	if err := json.NewDecoder(r.Body).Decode(&body); err != nil && r.ContentLength != 0 {
		http.Error(w, `the body is {"IDs":[…]} or empty`, http.StatusBadRequest)
		return
	}
	if len(body.IDs) == 0 {
		b.remove(everything)
		ok(w, r)
		return
	}
	ids := make(map[string]bool, len(body.IDs))
	for _, id := range body.IDs {
		ids[id] = true
	}
	b.remove(func(m *message) bool { return ids[m.id] })
	ok(w, r)
}

func (b *Box) deleteSearch(w http.ResponseWriter, r *http.Request) {
	query := r.URL.Query().Get("query")
	if query == "" {
		http.Error(w, "no search query", http.StatusBadRequest)
		return
	}
	b.remove(parseQuery(query, b.sender()))
	ok(w, r)
}

func (b *Box) info(w http.ResponseWriter, _ *http.Request) {
	all := b.find(everything)
	size := 0
	for i := range all {
		size += all[i].size()
	}
	writeJSON(w, struct {
		Version      string
		Messages     int
		DatabaseSize int
	}{b.cfg.Version, len(all), size})
}

// view answers a message as HTML (ID.html) or text (ID.txt). The HTML is what
// somebody else wrote: it runs nothing and loads nothing.
func (b *Box) view(w http.ResponseWriter, r *http.Request) {
	id, isHTML := strings.CutSuffix(r.PathValue("file"), ".html")
	id, isText := strings.CutSuffix(id, ".txt")
	m, found := b.open(id)
	if !found || isHTML == isText {
		http.NotFound(w, r)
		return
	}
	h := w.Header()
	if isText {
		h.Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write([]byte(m.text)) // the browser may have gone
		return
	}
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'; sandbox allow-popups allow-popups-to-escape-sandbox")
	_, _ = w.Write([]byte(`<!doctype html><meta name="viewport" content="width=device-width"><base target="_blank">` + m.HTML))
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(v) // our own types; the client may have gone
}
