package rest

import (
	"fmt"
	"net/http"
	"strings"
)

// Explain returns the statements that a request becomes, and their parameters,
// or why it becomes none. Nothing is run.
func (s *Server) Explain(h *http.Request) string {
	_, p, err := s.prepare(h)
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
	_, p, err := s.prepare(h)
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
func ParsePayload(text []byte, ragged bool) (keys []string, rows int, err error) {
	p, err := readPayload(text, ragged)
	return p.keys, p.rows, err
}

// Status returns the status that an error is answered with.
func Status(err error) int { return asError(err, true).Status }

// ParseCSV reads a body of CSV as JSON.
func ParseCSV(text string) ([]byte, error) { return csvToJSON(text, 1<<20) }
