package mailbox

import (
	"html"
	"strings"
)

// plainText returns the words of an HTML mail, with the address of a link in
// parentheses behind its text. It is for reading and searching; it need not
// understand every HTML, only never fail.
func plainText(in string) string {
	var out strings.Builder
	var link string
	for in != "" {
		text, rest, found := strings.Cut(in, "<")
		words(&out, text)
		if !found {
			break
		}
		if after, comment := strings.CutPrefix(rest, "!--"); comment {
			_, in, _ = strings.Cut(after, "-->")
			continue
		}
		if rest == "" || !isTag(rest[0]) {
			out.WriteByte('<')
			in = rest
			continue
		}
		var tag string
		tag, in = cutTag(rest)
		name := strings.ToLower(strings.TrimRight(tag, "/"))
		if i := strings.IndexAny(name, " \t\r\n"); i >= 0 {
			name = name[:i]
		}
		switch name {
		case "style", "script", "head", "title":
			if i := strings.Index(strings.ToLower(in), "</"+name); i >= 0 {
				in = in[i:]
			} else {
				in = ""
			}
		case "a":
			link = attribute(tag, "href")
		case "/a":
			if link != "" {
				out.WriteString(" ( " + link + " )")
			}
			link = ""
		case "br", "/p", "/div", "/tr", "/li", "/h1", "/h2", "/h3", "/h4", "/h5", "/h6", "/table":
			newLine(&out)
		}
	}
	return strings.TrimSpace(out.String())
}

// isTag reports whether a < before c begins a tag.
func isTag(c byte) bool { return c == '/' || c == '!' || c == '?' || c|0x20 >= 'a' && c|0x20 <= 'z' }

// cutTag splits behind the end of a tag; a quoted > does not end it.
func cutTag(s string) (tag, rest string) {
	quote := byte(0)
	for i := range len(s) {
		switch c := s[i]; {
		case quote != 0:
			if c == quote {
				quote = 0
			}
		case c == '"' || c == '\'':
			quote = c
		case c == '>':
			return s[:i], s[i+1:]
		}
	}
	return s, ""
}

// attribute returns the value of a tag's attribute.
func attribute(tag, name string) string {
	lower := strings.ToLower(tag)
	i := strings.Index(lower, name+"=")
	if i < 0 || len(lower) != len(tag) {
		return ""
	}
	v := tag[i+len(name)+1:]
	switch {
	case v == "":
		return ""
	case v[0] == '"' || v[0] == '\'':
		v, _, _ = strings.Cut(v[1:], v[:1])
	default:
		v, _, _ = strings.Cut(v, " ")
	}
	return html.UnescapeString(v)
}

// words adds text with its spaces and line breaks made single spaces.
func words(out *strings.Builder, text string) {
	text = html.UnescapeString(text)
	fields := strings.Fields(text)
	if len(fields) == 0 {
		if text != "" {
			space(out)
		}
		return
	}
	if strings.IndexFunc(text, func(r rune) bool { return !isSpace(r) }) > 0 {
		space(out)
	}
	out.WriteString(strings.Join(fields, " "))
	if isSpace(rune(text[len(text)-1])) {
		space(out)
	}
}

func isSpace(r rune) bool { return r == ' ' || r == '\n' || r == '\r' || r == '\t' }

func space(out *strings.Builder) {
	if s := out.String(); s != "" && !isSpace(rune(s[len(s)-1])) {
		out.WriteByte(' ')
	}
}

func newLine(out *strings.Builder) {
	if out.Len() > 0 {
		out.WriteByte('\n')
	}
}
