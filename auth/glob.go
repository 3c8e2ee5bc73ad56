package auth

import (
	"errors"
	"regexp"
	"slices"
	"strings"
)

var errGlob = errors.New("brackets do not match")

// compileGlob turns an entry of the allow list into an expression that matches
// whole URLs. Separators are "." and "/": * is any run without them, ** any run,
// ? one character that is none; [ab], [!ab], {a,b} and \ mean what they do in
// shells. Matching takes linear time whatever the entry.
func compileGlob(glob string) (*regexp.Regexp, error) {
	var out strings.Builder
	out.WriteString(`(?s)\A(?:`)
	depth := 0
	in := []rune(glob)
	for i := 0; i < len(in); i++ {
		switch c := in[i]; {
		case c == '*' && i+1 < len(in) && in[i+1] == '*':
			for ; i+1 < len(in) && in[i+1] == '*'; i++ {
			}
			out.WriteString(`.*`)
		case c == '*':
			out.WriteString(`[^./]*`)
		case c == '?':
			out.WriteString(`[^./]`)
		case c == '[':
			n := slices.Index(in[i+1:], ']')
			set, err := globClass(in[i+1:], n)
			if err != nil {
				return nil, err
			}
			out.WriteString(set)
			i += n + 1
		case c == '{':
			depth++
			out.WriteString(`(?:`)
		case c == ',' && depth > 0:
			out.WriteString(`|`)
		case c == '}':
			if depth--; depth < 0 {
				return nil, errGlob
			}
			out.WriteString(`)`)
		default:
			if c == '\\' && i+1 < len(in) {
				i++
			}
			out.WriteString(regexp.QuoteMeta(string(in[i])))
		}
	}
	if depth != 0 {
		return nil, errGlob
	}
	out.WriteString(`)\z`)
	return regexp.Compile(out.String())
}

// globClass translates the first n runes of in, which stand between brackets: a
// list of characters or one range.
func globClass(in []rune, n int) (string, error) {
	if n < 1 {
		return "", errGlob
	}
	set, not := in[:n], ""
	if set[0] == '!' {
		set, not = set[1:], "^"
	}
	switch {
	case len(set) == 0:
		return "", errGlob
	case len(set) == 3 && set[1] == '-':
		return "[" + not + quoteInClass(set[0]) + "-" + quoteInClass(set[2]) + "]", nil
	}
	var out strings.Builder
	for _, c := range set {
		out.WriteString(quoteInClass(c))
	}
	return "[" + not + out.String() + "]", nil
}

func quoteInClass(c rune) string {
	if strings.ContainsRune(`\]^-[&~`, c) {
		return `\` + string(c)
	}
	return string(c)
}
