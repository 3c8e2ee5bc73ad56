package rest

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Explain returns the statements that a request becomes, and their parameters,
// or why it becomes none. Nothing is run.
func (s *Server) Explain(h *http.Request) string {
	sh := &share{s: s, ctx: h.Context()}
	defer sh.release()
	_, p, err := s.prepare(h, sh)
	switch {
	case err != nil:
		return "none: " + asError(err, true).Code + "\n"
	case p.query == nil: // nothing, or the description
		return "none\n"
	}
	var b strings.Builder
	for _, st := range p.statements() {
		if st.SQL == string(lateControls) {
			b.WriteString("(controls)\n")
			continue
		}
		b.WriteString(st.SQL + "\n")
		for i, a := range st.Args {
			fmt.Fprintf(&b, "$%d = %s\n", i+1, a)
		}
	}
	return b.String()
}

// Statements returns the text of the statements alone.
func (s *Server) Statements(h *http.Request) []string {
	sh := &share{s: s, ctx: h.Context()}
	defer sh.release()
	_, p, err := s.prepare(h, sh)
	if err != nil || p.query == nil {
		return nil
	}
	var out []string
	for _, st := range p.statements() {
		out = append(out, st.SQL)
	}
	return out
}

// Parse reads everything of a request but its body.
func (s *Server) Parse(h *http.Request) error {
	_, err := s.parse(h)
	return err
}

// ParsePayload reads a body.
func ParsePayload(text []byte) (keys []string, rows int, same bool, err error) {
	p, err := readPayload(text, true)
	return p.keys, p.rows, p.same, err
}

// Members are the names of a valid JSON object and their last values.
func Members(object []byte) map[string]string {
	out := map[string]string{}
	for name, value := range members(object) {
		out[string(name)] = string(value)
	}
	return out
}

// Status returns the status that an error is answered with.
func Status(err error) int { return asError(err, true).Status }

// ParseCSV reads a body of CSV as JSON.
func ParseCSV(text string) ([]byte, error) {
	return csvToJSON(text, 1<<20, func(int64) error { return nil })
}

// Hold reads a body as a request does, and returns how to let it go.
func (s *Server) Hold(ctx context.Context, body io.Reader, length int64) (release func(), err error) {
	sh := &share{s: s, ctx: ctx}
	if _, err := sh.read(io.NopCloser(body), length); err != nil {
		sh.release()
		return nil, err
	}
	return sh.release, nil
}
