package project

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
)

// endsTransaction tells statements that may commit what came before them, or
// run outside of a transaction. It rather finds one too many.
var endsTransaction = regexp.MustCompile(`(?i)\b(commit|end|concurrently|vacuum|alter\s+system|database|tablespace)\b`)

// ScriptError is a statement of a script that PostgreSQL refused.
type ScriptError struct {
	File      string
	Index     int // 0-based
	Statement string
	// Kept tells that a part of the script may have stayed: statements before
	// this one may have committed by themselves.
	Kept bool
	err  error
}

// Unwrap returns PostgreSQL's error.
func (e *ScriptError) Unwrap() error { return e.err }

// scriptHints say what PostgreSQL does not know of scripts, by SQLSTATE.
var scriptHints = map[string]string{
	"42704": "If the type comes from an extension, write it with its schema: extensions.TYPE",
	"25001": "A script is one transaction: give this statement a file of its own.",
}

// Error has the CLI's form: message, detail, number of the statement, and the
// statement with a caret at the place.
func (e *ScriptError) Error() string {
	var b strings.Builder
	var pe *pgconn.PgError
	if errors.As(e.err, &pe) {
		fmt.Fprintf(&b, "%s: %s: %s (SQLSTATE %s)", e.File, pe.Severity, pe.Message, pe.Code)
	} else {
		pe = &pgconn.PgError{}
		fmt.Fprintf(&b, "%s: %v", e.File, e.err)
	}
	for _, more := range []string{pe.Detail, pe.Hint, scriptHints[pe.Code]} {
		if more != "" {
			b.WriteString("\n" + more)
		}
	}
	fmt.Fprintf(&b, "\nAt statement: %d\n%s", e.Index, caret(e.Statement, int(pe.Position)))
	if !e.Kept {
		b.WriteString("\nNothing of this file was applied.")
	}
	return b.String()
}

// caret returns the statement up to the line that position (1-based, in
// characters) points at, with a caret below, and at most some lines before it.
func caret(statement string, position int) string {
	const context = 12
	lines := strings.Split(statement, "\n")
	if position <= 0 {
		if len(lines) > context {
			lines = append(lines[:context], "...")
		}
		return strings.Join(lines, "\n")
	}
	for i, line := range lines {
		n := len([]rune(line))
		if position <= n+1 {
			from := max(0, i-context)
			return strings.Join(lines[from:i+1], "\n") + "\n" + strings.Repeat(" ", position-1) + "^"
		}
		position -= n + 1
	}
	return statement
}
