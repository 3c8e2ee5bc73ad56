package auth

import (
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice/pg"
)

const (
	pageSize    = 50
	maxPageSize = 1000
	maxPage     = 1 << 40 // its rows can still be counted
)

// adminList answers GET /admin/users, a page at a time.
func (s *Server) adminList(w http.ResponseWriter, r *http.Request) error {
	q := r.URL.Query()
	page, err := pageNumber(q, "page", 1, maxPage)
	if err != nil {
		return err
	}
	size, err := pageNumber(q, "per_page", pageSize, 1<<40)
	if err != nil {
		return err
	}
	size = min(size, maxPageSize)
	ascending, err := sortOf(q.Get("sort"))
	if err != nil {
		return err
	}
	pattern, err := patternOf(q.Get("filter"))
	if err != nil {
		return err
	}
	aud, ctx := s.audience(r), r.Context()
	var total int64
	var b pgx.Batch
	b.Queue(sql("user_count"), aud, pattern)
	b.Queue(sql("user_list"), aud, pattern, ascending, size, (page-1)*size)
	res := s.cfg.Pool.SendBatch(ctx, &b)
	err = res.QueryRow().Scan(&total)
	users := []*user{}
	if err == nil {
		rows, _ := res.Query() // its error is also the rows'
		users, err = pgx.AppendRows(users, rows, scanUser)
	}
	if cerr := res.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return pg.Wrap(err, "list users")
	}
	h := w.Header()
	h.Set("X-Total-Count", strconv.FormatInt(total, 10))
	h.Set("Link", pageLinks("/admin/users", q, page, size, total))
	writeJSON(w, http.StatusOK, struct {
		Users []*user `json:"users"`
		Aud   string  `json:"aud"`
	}{users, aud})
	return nil
}

// pageNumber reads a positive number; an empty or absent one is the default.
func pageNumber(q url.Values, name string, standard, most int64) (int64, error) {
	text := q.Get(name)
	if text == "" {
		return standard, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 || n > most {
		return 0, errPage.with(fmt.Sprintf("%s %q is not a positive number", name, text))
	}
	return n, nil
}

// sortOf reads "created_at asc|desc", the only order there is.
func sortOf(text string) (ascending bool, err error) {
	if strings.TrimSpace(text) == "" {
		return false, nil
	}
	words := strings.Fields(text)
	if words[0] != "created_at" {
		return false, errSort.with(fmt.Sprintf("bad field for sort '%s'", words[0]))
	}
	switch {
	case len(words) == 1, len(words) == 2 && words[1] == "desc":
		return false, nil
	case len(words) == 2 && words[1] == "asc":
		return true, nil
	}
	return false, errSort.with(fmt.Sprintf("bad direction for sort '%s', only 'asc' and 'desc' allowed", strings.Join(words[1:], " ")))
}

// patternOf turns a filter into a LIKE pattern that means the text itself.
func patternOf(filter string) (string, error) {
	if filter == "" {
		return "", nil
	}
	if len(filter) > 1024 || strings.ToValidUTF8(filter, "") != filter || strings.ContainsRune(filter, 0) {
		return "", errPage.with("the filter is not a short text")
	}
	return "%" + strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(filter) + "%", nil
}

// pageLinks is the header Link. Clients read the page from the text behind the
// first equals sign, so page is the first parameter.
func pageLinks(path string, q url.Values, page, size, total int64) string {
	last := (total + size - 1) / size
	rest := "&per_page=" + strconv.FormatInt(size, 10)
	for _, name := range []string{"filter", "sort", "query"} {
		if v := q.Get(name); v != "" {
			rest += "&" + name + "=" + url.QueryEscape(v)
		}
	}
	link := func(n int64, rel string) string {
		return "<" + path + "?page=" + strconv.FormatInt(n, 10) + rest + `>; rel="` + rel + `"`
	}
	if page < last {
		return link(page+1, "next") + ", " + link(last, "last")
	}
	return link(last, "last")
}
