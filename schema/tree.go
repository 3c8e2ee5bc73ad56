package schema

import "strconv"

// origin is a column of a table, by numbers of the catalog.
type origin struct {
	relation uint32
	column   int16
}

// viewOrigins reads from a view's analysed query (pg_rewrite.ev_action) where its
// columns come from unchanged: column number of the view to column of what it
// reads. A view over a view leads to that view. A set operation leads nowhere.
func viewOrigins(tree string) map[int16]origin {
	s := scanner{text: tree}
	out := map[int16]origin{}
	// The tree is ({QUERY … :targetList ({TARGETENTRY …} …) …}).
	var entry struct {
		number   int64
		relation uint64
		column   int64
	}
	inTargets := false
	for s.next() {
		switch {
		case s.depth == 2 && s.token == ":targetList":
			inTargets = true
		case s.depth == 2 && s.token == ":setOperations":
			if s.next(); s.token != "<>" {
				return nil
			}
		case s.depth == 2 && s.token[0] == ':':
			inTargets = false
		case !inTargets || s.depth != 4:
		case s.token == ":resno":
			s.next()
			entry.number, _ = strconv.ParseInt(s.token, 10, 16)
		case s.token == ":resorigtbl":
			s.next()
			entry.relation, _ = strconv.ParseUint(s.token, 10, 32)
		case s.token == ":resorigcol":
			s.next()
			entry.column, _ = strconv.ParseInt(s.token, 10, 16)
			if entry.relation != 0 && entry.column > 0 {
				out[int16(entry.number)] = origin{uint32(entry.relation), int16(entry.column)}
			}
		}
	}
	return out
}

// scanner reads the words of PostgreSQL's node trees. A backslash escapes what
// would end a word.
type scanner struct {
	text  string
	pos   int
	depth int
	token string
}

// next reads the next word, and counts the brackets on the way to it.
func (s *scanner) next() bool {
	for ; s.pos < len(s.text); s.pos++ {
		switch s.text[s.pos] {
		case '(', '{':
			s.depth++
		case ')', '}':
			s.depth--
		case ' ', '\n', '\t':
		default:
			start := s.pos
			for s.pos < len(s.text) && !isBreak(s.text[s.pos]) {
				if s.text[s.pos] == '\\' {
					s.pos++
				}
				s.pos++
			}
			s.pos = min(s.pos, len(s.text))
			s.token = s.text[start:s.pos]
			return true
		}
	}
	s.token = ""
	return false
}

func isBreak(c byte) bool {
	return c == ' ' || c == '\n' || c == '\t' || c == '(' || c == ')' || c == '{' || c == '}'
}
