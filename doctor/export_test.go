package doctor

import (
	"net/http"
	"net/url"
)

// JudgePage judges a page at an address under a policy.
func JudgePage(page, project, header string) []Finding {
	p, _ := url.Parse(page)
	u, _ := url.Parse(project)
	a := &answer{header: http.Header{"Content-Security-Policy": {header}}}
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
