package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
)

var (
	quotedLine   = regexp.MustCompile("(?m)^ +[\"`](.*)[\"`],$")
	headerLine   = regexp.MustCompile(`(?:add_header|header) Content-Security-Policy "([^"]*)"`)
	plainLine    = regexp.MustCompile(`(?m)^Content-Security-Policy: (.*)$`)
	policyInMeta = regexp.MustCompile(`<meta http-equiv="Content-Security-Policy" content="([^"]*)">`)
)

// policyOf reads the policy that a snippet sets.
func policyOf(t *testing.T, framework, text string) string {
	t.Helper()
	form := map[string]*regexp.Regexp{"nginx": headerLine, "caddy": headerLine, "header": plainLine, "meta": policyInMeta}[framework]
	if form == nil {
		form = quotedLine
	}
	var parts []string
	for _, m := range form.FindAllStringSubmatch(text, -1) {
		parts = append(parts, m[1])
	}
	if len(parts) == 0 {
		t.Fatalf("%s: no policy in\n%s", framework, text)
	}
	return strings.Join(parts, "; ")
}

// TestPoliciesForFrameworks: what is printed is a policy under which --check
// lets a page reach the project, and no other host, nor any with a wild card.
func TestPoliciesForFrameworks(t *testing.T) {
	t.Parallel()
	for _, framework := range cspFrameworks {
		for _, project := range []string{"http://127.0.0.1:54321", "https://abc.supabase.co"} {
			u, _ := url.Parse(project)
			var out strings.Builder
			if err := writeCSP(&out, framework, u, false); err != nil {
				t.Fatal(err)
			}
			policy := policyOf(t, framework, out.String())
			page := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				if framework == "meta" {
					io.WriteString(w, "<!doctype html><html><head>"+out.String()+"</head></html>")
					return
				}
				w.Header().Set("Content-Security-Policy", policy)
			}))
			var said strings.Builder
			if err := checkCSP(t.Context(), u, page.URL, &said, false); err != nil || !strings.Contains(said.String(), "may connect to the project and its socket") {
				t.Errorf("--for %s, %s: %v\n%s", framework, project, err, said.String())
			}
			other, _ := url.Parse("https://other.supabase.co")
			if err := checkCSP(t.Context(), other, page.URL, io.Discard, false); err == nil {
				t.Errorf("--for %s, %s: another project is let through", framework, project)
			}
			page.Close()
			for _, directive := range strings.Split(policy, "; ") {
				if strings.Contains(directive, "*") || strings.HasSuffix(directive, ":") && !strings.HasSuffix(directive, "data:") && !strings.HasSuffix(directive, "blob:") {
					t.Errorf("--for %s: %s", framework, directive)
				}
			}
			production := strings.HasPrefix(project, "https:")
			if production && framework != "next" && strings.Contains(policy, "unsafe-eval") {
				t.Errorf("--for %s in production: %s", framework, policy)
			}
			if framework == "meta" && strings.Contains(policy, "frame-ancestors") {
				t.Errorf("frame-ancestors in a tag: %s", policy)
			}
		}
	}
}
