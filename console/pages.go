package console

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/doctor"
	"github.com/sluice-dev/sluice/inspect"
)

func (c *Console) overview(_ *http.Request, p *page) (any, error) {
	channels, recent := 0, 0
	for _, s := range p.View.Sockets {
		channels += len(s.Channels)
	}
	for _, r := range p.View.Refusals {
		if time.Since(r.At) < 10*time.Minute {
			recent++
		}
	}
	values := slices.Clone(c.cfg.Values)
	for i := range values {
		if values[i].Secret {
			values[i].Value = "" // asked for by its name
		}
	}
	return struct {
		Values           []Value
		APIURL, Key      string
		Channels, Recent int
	}{values, c.cfg.APIURL, c.cfg.PublishableKey, channels, recent}, nil
}

func (c *Console) connections(*http.Request, *page) (any, error) { return nil, nil }

func (c *Console) tables(r *http.Request, _ *page) (any, error) {
	return doctor.Tables(r.Context(), c.cfg.Database)
}

func (c *Console) refusals(*http.Request, *page) (any, error) { return nil, nil }

// logLines bounds what is shown of the log.
const logLines = 200

func (c *Console) changes(*http.Request, *page) (any, error) {
	text, err := c.cfg.Log()
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	lines := bytes.Split(bytes.TrimRight(text, "\n"), []byte("\n"))
	lines = lines[max(0, len(lines)-logLines):]
	slices.Reverse(lines)
	return struct{ Lines []string }{texts(lines)}, nil
}

func texts(lines [][]byte) []string {
	out := make([]string, len(lines))
	for i, l := range lines {
		out[i] = string(l)
	}
	return out
}

func (c *Console) inspector(r *http.Request, _ *page) (any, error) {
	tables, err := doctor.Tables(r.Context(), c.cfg.Database)
	return struct {
		APIURL, Key string
		Tables      []doctor.TableReport
	}{c.cfg.APIURL, c.cfg.PublishableKey, tables}, err
}

// whyPage is the form as it was sent, and its answer.
type whyPage struct {
	Table, User, ID string
	Answer          *inspect.Why
	Err             string
}

func (c *Console) why(r *http.Request, _ *page) (any, error) {
	q := r.URL.Query()
	w := &whyPage{Table: q.Get("table"), User: q.Get("user"), ID: q.Get("id")}
	node := c.cfg.Node()
	if w.Table == "" || node == nil {
		return w, nil
	}
	ask := inspect.WhyRequest{Table: w.Table, User: w.User}
	if w.ID != "" {
		ask.Key = map[string]string{"": w.ID}
	}
	var err error
	if w.Answer, err = node.Why(r.Context(), ask); err != nil {
		w.Err = err.Error()
	}
	return w, nil
}

// keptMails bounds the list of mails.
const keptMails = 100

func (c *Console) mails(*http.Request, *page) (any, error) {
	var list []Mail
	if c.cfg.Mails != nil {
		list = c.cfg.Mails()
	}
	return struct {
		Caught bool
		URL    string
		Mails  []Mail
	}{c.cfg.Mails != nil, c.cfg.MailURL, list[:min(len(list), keptMails)]}, nil
}

// mend runs a statement that the table's findings propose, and no other.
func (c *Console) mend(w http.ResponseWriter, r *http.Request) {
	name, sql := r.PostFormValue("table"), r.PostFormValue("sql")
	ctx, cancel := context.WithTimeout(r.Context(), time.Minute)
	defer cancel()
	tables, err := doctor.Tables(ctx, c.cfg.Database)
	if err != nil {
		c.fail(w, err)
		return
	}
	proposed := slices.ContainsFunc(tables, func(t doctor.TableReport) bool {
		return t.String() == name && slices.ContainsFunc(t.Findings, func(f doctor.Finding) bool { return f.Fix != "" && f.Fix == sql })
	})
	if !proposed {
		c.fail(w, fmt.Errorf("this is not what the table needs any more; load the page again: %w", sluice.ErrInvalid))
		return
	}
	if err := doctor.Mend(ctx, c.cfg.Database, []string{sql}); err != nil {
		c.fail(w, err)
		return
	}
	c.cfg.Logger.Info("mended in the console", "sql", sql)
	http.Redirect(w, r, "/tables?done="+url.QueryEscape(sql), http.StatusSeeOther)
}

// tokenLife is how long the inspector is somebody.
const tokenLife = 15 * time.Minute

// token makes a token for the inspector: of a user, or of a role.
func (c *Console) token(w http.ResponseWriter, r *http.Request) {
	node := c.cfg.Node()
	if node == nil {
		http.Error(w, "the services are beginning anew", http.StatusServiceUnavailable)
		return
	}
	claims := map[string]any{}
	switch as := r.PostFormValue("as"); as {
	case "anon", "authenticated", "service_role":
		claims["role"] = as
	case "user":
		who := strings.TrimSpace(r.PostFormValue("user"))
		if who == "" {
			c.fail(w, fmt.Errorf("name a user, by id or mail address: %w", sluice.ErrInvalid))
			return
		}
		found, err := node.Claims(r.Context(), who)
		if err != nil {
			c.fail(w, err)
			return
		}
		if err := json.Unmarshal(found.JSON, &claims); err != nil {
			c.fail(w, err)
			return
		}
	default:
		c.fail(w, fmt.Errorf("%q is nobody that the inspector can be: %w", as, sluice.ErrInvalid))
		return
	}
	now := time.Now()
	claims["iat"], claims["exp"], claims["iss"] = now.Unix(), now.Add(tokenLife).Unix(), "sluice-console"
	tok, err := c.cfg.Sign(claims)
	if err != nil {
		c.fail(w, err)
		return
	}
	answer(w, map[string]any{"token": tok, "claims": claims})
}

// secret answers one value that pages leave out.
func (c *Console) secret(w http.ResponseWriter, r *http.Request) {
	for _, v := range c.cfg.Values {
		if v.Secret && v.Name == r.PostFormValue("name") {
			answer(w, map[string]string{"value": v.Value})
			return
		}
	}
	http.NotFound(w, r)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // our own types; the browser may have gone
}
