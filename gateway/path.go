package gateway

import (
	"net/url"
	"strings"

	"github.com/sluice-dev/sluice"
)

// canonical returns the one form of an escaped path by which it is routed, judged
// and served: escapes of letters, digits and -._~ are taken off and dot segments
// resolved, as Kong and Envoy do (RFC 3986, 6.2.2). Any other escape stays, a
// slash's too. Dot segments between escaped slashes or backslashes are refused:
// what lies behind might read them.
func canonical(escaped string) (string, *sluice.Refusal) {
	if !strings.Contains(escaped, "%") && !strings.Contains(escaped, "/.") {
		return escaped, nil
	}
	segments := strings.Split(unescapeUnreserved(escaped), "/")
	kept := segments[:0]
	for i, seg := range segments {
		last := i == len(segments)-1
		switch {
		case seg == ".":
		case seg == "..":
			if len(kept) > 1 { // the first is what stands before the first slash
				kept = kept[:len(kept)-1]
			}
		case hidesDots(seg):
			return "", sluice.Refuse(sluice.CodeBadRequest).
				WithText("The path has dot segments between escaped slashes").
				WithRemedy("Send a path without . and .. between slashes.")
		default:
			kept = append(kept, seg)
			continue
		}
		if last { // "/a/.." is "/", not ""
			kept = append(kept, "")
		}
	}
	return strings.Join(kept, "/"), nil
}

// hidesDots reports whether a segment falls apart into dot segments for who takes
// its escaped slashes for slashes.
func hidesDots(seg string) bool {
	if !strings.Contains(seg, "%") {
		return false
	}
	plain, err := url.PathUnescape(seg)
	if err != nil {
		return false // net/http lets none through
	}
	for part := range strings.FieldsFuncSeq(plain, func(c rune) bool { return c == '/' || c == '\\' }) {
		if part == "." || part == ".." {
			return true
		}
	}
	return false
}

// unescapeUnreserved takes off the escapes that mean the same as their character
// anywhere in a URL.
func unescapeUnreserved(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var b strings.Builder
	b.Grow(len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			if c, ok := unhex(s[i+1], s[i+2]); ok && unreserved(c) {
				b.WriteByte(c)
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}

func unreserved(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0
}

func unhex(hi, lo byte) (byte, bool) {
	const digits = "0123456789abcdef"
	h, l := strings.IndexByte(digits, hi|0x20), strings.IndexByte(digits, lo|0x20)
	return byte(h<<4 | l), h >= 0 && l >= 0
}
