package auth

import (
	"encoding/json"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/jackc/pgx/v5"

	"github.com/sluice-dev/sluice/pg"
)

// auditEntry is a row of auth.audit_log_entries.
type auditEntry struct {
	ID        uuid.UUID       `json:"id"`
	Payload   json.RawMessage `json:"payload"`
	CreatedAt time.Time       `json:"created_at"`
	IP        string          `json:"ip_address"`
}

// adminAudit answers GET /admin/audit: what was done, newest first, a page at a
// time.
func (s *Server) adminAudit(w http.ResponseWriter, r *http.Request) error {
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
	column, pattern, err := auditQuery(q.Get("query"))
	if err != nil {
		return err
	}
	var total int64
	var b pgx.Batch
	b.Queue(sql("audit_count"), column, pattern)
	b.Queue(sql("audit_list"), column, pattern, size, (page-1)*size)
	res := s.cfg.Pool.SendBatch(r.Context(), &b)
	err = res.QueryRow().Scan(&total)
	entries := []auditEntry{}
	if err == nil {
		rows, _ := res.Query() // its error is also the rows'
		entries, err = pgx.AppendRows(entries, rows, func(row pgx.CollectableRow) (auditEntry, error) {
			var e auditEntry
			err := row.Scan(&e.ID, &e.Payload, &e.CreatedAt, &e.IP)
			e.CreatedAt = e.CreatedAt.UTC()
			return e, err
		})
	}
	if cerr := res.Close(); err == nil {
		err = cerr
	}
	if err != nil {
		return pg.Wrap(err, "list audit log")
	}
	h := w.Header()
	h.Set("X-Total-Count", strconv.FormatInt(total, 10))
	h.Set("Link", pageLinks("/admin/audit", q, page, size, total))
	writeJSON(w, http.StatusOK, entries)
	return nil
}

// auditColumns are the words before the colon of parameter query.
var auditColumns = map[string]bool{"author": true, "action": true, "type": true}

// auditQuery reads "column:text"; nothing is everything.
func auditQuery(query string) (column, pattern string, err error) {
	if query == "" {
		return "", "", nil
	}
	column, text, found := strings.Cut(query, ":")
	if !found || !auditColumns[column] {
		return "", "", errAuditQuery.with(query)
	}
	if pattern, err = patternOf(text); pattern == "" && err == nil {
		column = ""
	}
	return column, pattern, err
}
