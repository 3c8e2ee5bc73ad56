package doctor

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"net/url"

	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// sink takes what a socket writes.
type sink struct{ net.Conn }

func (sink) Write(b []byte) (int, error) { return io.Discard.Write(b) }

// ReadMessages reads a server's bytes to their end.
func ReadMessages(data []byte) {
	s := &socket{conn: sink{}, r: bufio.NewReader(bytes.NewReader(data)), vsn: phoenix.V2, hide: &redactor{}}
	for {
		if _, err := s.read(); err != nil {
			return
		}
	}
}

// JudgePage judges a page at an address under a policy.
func JudgePage(page, project, header string) []Finding {
	p, _ := url.Parse(page)
	u, _ := url.Parse(project)
	a := &answer{hide: &redactor{}, header: http.Header{"Content-Security-Policy": {header}}}
	return newDocument(p, a).judge(u)
}

// Allows evaluates connect-src; empty sources are no policy at all.
func Allows(sources, page, target, name string) bool {
	p := policy{}
	if sources != "" {
		p = parsePolicies("connect-src " + sources)[0]
	}
	from, _ := url.Parse(page)
	to, _ := url.Parse(target)
	return p.allows(from, to, map[string]engine{"modern": modern, "webkit": webKit, "old safari": oldSafari}[name])
}

// ReadEnv returns names and values.
func ReadEnv(text string) [][2]string {
	var out [][2]string
	for _, s := range readEnv(".env", text) {
		out = append(out, [2]string{s.name, s.value})
	}
	return out
}
