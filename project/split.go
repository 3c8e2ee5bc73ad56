package project

import "strings"

// splitStatements divides an SQL script at its semicolons, as the Supabase CLI
// does: not inside '…', "…", $tag$…$tag$, comments (nested ones too),
// parentheses or BEGIN ATOMIC … END. Comments stay with the statement that
// follows; parts that hold nothing else are dropped, as are trailing semicolons
// and blanks. An unclosed quote runs to the end of the script and PostgreSQL
// reports it.
func splitStatements(script string) []string {
	var out []string
	s := scanner{text: strings.TrimPrefix(script, "\ufeff")}
	start := 0
	for {
		end, more := s.statement()
		if s.content {
			out = append(out, strings.TrimSpace(s.text[start:end]))
		}
		if !more {
			return out
		}
		start = s.pos
	}
}

type scanner struct {
	text    string
	pos     int
	content bool // the statement holds more than blanks and comments
}

// statement moves behind the next semicolon on the top level and returns where
// the statement ended, and whether text is left.
func (s *scanner) statement() (end int, more bool) {
	s.content = false
	parens, blocks := 0, 0 // blocks: open BEGIN ATOMIC and, inside it, CASE
	word := ""             // the previous word, for BEGIN ATOMIC
	for s.pos < len(s.text) {
		at, c := s.pos, s.text[s.pos]
		if c == ';' && parens == 0 && blocks == 0 {
			s.pos++
			return at, true
		}
		switch {
		case c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\f' || c == '\v':
			s.pos++
			continue
		case s.has("--"):
			s.skipTo("\n")
			continue
		case s.has("/*"):
			s.comment()
			continue
		case c == '\'':
			s.quoted('\'', at > 0 && (s.text[at-1] == 'e' || s.text[at-1] == 'E') && (at < 2 || !isWord(s.text[at-2])))
		case c == '"':
			s.quoted('"', false)
		case c == '$' && (at == 0 || !isWord(s.text[at-1])):
			s.dollar()
		case isWord(c):
			for s.pos < len(s.text) && (isWord(s.text[s.pos]) || s.text[s.pos] == '$') {
				s.pos++
			}
			// E'…': the quote belongs to the next step, which looks back.
			w := strings.ToUpper(s.text[at:s.pos])
			switch {
			case w == "ATOMIC" && word == "BEGIN":
				blocks++
			case blocks > 0 && w == "CASE":
				blocks++
			case blocks > 0 && w == "END":
				blocks--
			}
			word, s.content = w, true
			continue
		case c == '(':
			parens++
			s.pos++
		case c == ')':
			parens = max(0, parens-1)
			s.pos++
		default:
			s.pos++
		}
		word, s.content = "", true
	}
	return len(s.text), false
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= 0x80
}

func (s *scanner) has(prefix string) bool { return strings.HasPrefix(s.text[s.pos:], prefix) }

// skipTo moves behind the next occurrence of mark, or to the end.
func (s *scanner) skipTo(mark string) {
	if i := strings.Index(s.text[s.pos:], mark); i >= 0 {
		s.pos += i + len(mark)
		return
	}
	s.pos = len(s.text)
}

func (s *scanner) comment() {
	depth := 0
	for s.pos < len(s.text) {
		switch {
		case s.has("/*"):
			depth++
			s.pos += 2
		case s.has("*/"):
			depth--
			s.pos += 2
			if depth == 0 {
				return
			}
		default:
			s.pos++
		}
	}
}

// quoted moves behind the closing quote; a doubled quote does not close.
func (s *scanner) quoted(quote byte, backslash bool) {
	s.pos++
	for s.pos < len(s.text) {
		c := s.text[s.pos]
		s.pos++
		switch {
		case c == '\\' && backslash && s.pos < len(s.text):
			s.pos++
		case c == quote && s.pos < len(s.text) && s.text[s.pos] == quote:
			s.pos++
		case c == quote:
			return
		}
	}
}

// dollar moves behind $tag$…$tag$, or behind a lone dollar sign.
func (s *scanner) dollar() {
	i := s.pos + 1
	for i < len(s.text) && isWord(s.text[i]) {
		i++
	}
	if i >= len(s.text) || s.text[i] != '$' || i > s.pos+1 && s.text[s.pos+1] >= '0' && s.text[s.pos+1] <= '9' {
		s.pos++
		return
	}
	tag := s.text[s.pos : i+1]
	s.pos = i + 1
	s.skipTo(tag)
}
