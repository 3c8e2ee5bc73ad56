package rest

import (
	"fmt"
	"net/http"
	"strings"
)

// Explain returns the statement that a request becomes, and its parameters, or
// why it becomes none. Nothing is run.
func (s *Server) Explain(h *http.Request) string {
	r, p, err := s.prepare(h)
	switch {
	case err != nil:
		return "none: " + asError(err, true).Code
	case p == nil || p.empty != nil || r.method == http.MethodOptions:
		return "none\n"
	}
	var b strings.Builder
	for _, st := range p.statements() {
		b.WriteString(st.SQL + "\n")
		for i, a := range st.Args {
			fmt.Fprintf(&b, "$%d = %s\n", i+1, a)
		}
	}
	return b.String()
}
