package auth_test

import (
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/sluice-dev/sluice/auth"
)

// spec: auth:100 auth-sec:26 auth-sec:27
func TestRedirectTargets(t *testing.T) {
	t.Parallel()
	const site = "http://localhost:3000"
	for _, c := range []struct {
		entry, target string
		want          bool
	}{
		{"http://localhost:3000/cb", "http://example.com/cb", false},
		{"https://a.example/cb", "https://a.example/cb", true},
		{"https://a.example/cb", "https://a.example/cb2", false},
		{"https://a.example/cb", "https://a.example/cb/", false},
		{"https://a.example/cb", "https://a.example/cb?x=1", false},
		{"https://a.example/cb", "https://a.example/cb#x", true},
		{"https://a.example/cb", "https://A.example/cb", false},
		{"https://example.com/*", "https://example.com/a", true},
		{"https://example.com/*", "https://example.com/a#frag", true},
		{"https://example.com/*", "https://example.com/a/b", false},
		{"https://example.com/*", "https://example.com/a.b", false},
		{"https://example.com/*", "https://example.com/a?next=/b", false},
		{"https://h.example:3000/**", "https://h.example:3000/a/b.c?x=1", true},
		{"https://h.example:3000/**", "https://h.example:3000", false},
		{"https://*-team.vercel.app/**", "https://my-app-team.vercel.app/x/y", true},
		{"https://*.example.com/**", "https://a.example.com/x", true},
		{"https://*.example.com/**", "https://a.b.example.com/x", false},
		{"https://*.example.com/**", "https://example.com/x", false},
		{"https://*.*.example.com/**", "https://evil.com?.example.com/x", false},
		{"https://*-team.vercel.app/**", "https://evil:8443?-team.vercel.app/x", false},
		{"com.example.app://login", "com.example.app://login", true},
		{"com.example.app://login", "com.example.app://login/x", false},
		{"https://**.example.com", "https://evil.com/.example.com", true},
		{"https://{a,b}.example/[xy]?", "https://b.example/y1", true},
		{"https://{a,b}.example/[xy]?", "https://c.example/y1", false},
		{"https://{a,b}.example/[!xy]?", "https://a.example/y1", false},
		{`https://a.example/\*`, "https://a.example/*", true},
		{`https://a.example/\*`, "https://a.example/b", false},

		// The site itself: any path and query; any port on the developer's machine.
		{"", "http://localhost:3000/any/path?x=1#y", true},
		{"", "http://localhost:4000/", true},
		{"", "http://LOCALHOST:3000/", true},
		{"", "https://localhost:3000/", false},
		{"", "http://127.0.0.1:9/", true},
		{"", "http://[::1]:9/", true},
		{"", "http://localhost.evil.com:3000/", false},

		// Refused whatever the list says.
		{"**", "//example.com/a", false},
		{"**", "/a", false},
		{"**", "javascript:alert(1)", false},
		{"**", "JavaScript:alert(1)", false},
		{"**", "data:text/html,x", false},
		{"**", "vbscript:x", false},
		{"**", "file:///etc/passwd", false},
		{"**", "https://exa%mple.com", false},
		{"**", "https://exa%2emple.com", false},
		{"**", "https://user@example.com/a", false},
		{"**", "https://localhost:3000@example.com/a", false},
		{"**", "http://2130706433/", false},
		{"**", "http://0x7f000001/", false},
		{"**", "http://127.1/", false},
		{"**", "http://10.0.0.1/", false},
		{"**", "http://169.254.169.254/", false},
		{"**", "http://[fe80::1]/", false},
		{"**", `https://example.com\@evil.com`, false},
		{"**", "https://example.com/a b", false},
		{"**", "https://example.com/\n", false},
		{"**", "https://exämple.com/", false},
		{"**", "https:///path", false},
		{"**", "https://example.com/" + strings.Repeat("a", 5000), false},
		{"**", "https://example.com/a", true},
	} {
		got, err := auth.Allows(site, []string{c.entry}, c.target)
		if err != nil || got != c.want {
			t.Errorf("%s for %s: %v, want %v (%v)", c.entry, c.target, got, c.want, err)
		}
	}
	for _, bad := range []string{"https://[a", "https://{a", "https://a}", "https://[]", "https://[!]"} {
		if _, err := auth.Allows(site, []string{bad}, site); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}

	// A site elsewhere: host and port alike.
	for target, want := range map[string]bool{
		"https://app.example.com/x": true, "https://app.example.com:444/x": false, "https://x.app.example.com/": false,
		"http://app.example.com/x": false, "http://localhost:3000/": false, "http://127.0.0.1:3000/": true,
		"com.example://127.0.0.1/": false,
	} {
		if got, _ := auth.Allows("https://app.example.com", nil, target); got != want {
			t.Errorf("%s: %v, want %v", target, got, want)
		}
	}
}

// spec: auth:101
func TestRedirectInLinks(t *testing.T) {
	t.Parallel()
	s := start(t, nil)
	s.signUp("a@example.com")
	for _, c := range []struct {
		to, inLink string
		options    []option
	}{
		{"https://app.example.com/a", "https://app.example.com/a", nil},
		{"https://app.example.com/a?b=1", "https%3A%2F%2Fapp.example.com%2Fa%3Fb%3D1", nil},
		{"https://app.example.com/a?b", "https://app.example.com/a?b", nil},
		{"https://app.example.com/a?b&c", "https%3A%2F%2Fapp.example.com%2Fa%3Fb%26c", nil},
		{"https://app.example.com/a#b", "https%3A%2F%2Fapp.example.com%2Fa%23b", nil},
		{"https://evil.example/", "http://127.0.0.1:3000", nil},
		{"https://evil.example/", "https://app.example.com/from-referer", []option{with("Referer", "https://app.example.com/from-referer")}},
		{"https://app.example.com/a", "https://app.example.com/from-header", []option{with("redirect_to", "https://app.example.com/from-header")}},
	} {
		s.clock.pass(2 * time.Second)
		s.do("POST", "/otp?redirect_to="+url.QueryEscape(c.to), object{"email": "a@example.com"}, c.options...).ok(200)
		l := s.letter("a@example.com")
		same(t, c.to, l.link, issuer+"/verify?token="+l.hash(t)+"&type=magiclink&redirect_to="+c.inLink)
	}
	// The target is judged again when the link is followed.
	s.clock.pass(2 * time.Second)
	s.do("POST", "/otp?redirect_to=https://app.example.com/a", object{"email": "a@example.com"}).ok(200)
	l := s.letter("a@example.com")
	at := s.follow(strings.Replace(l.link, "app.example.com", "evil.example", 1))
	same(t, "target", at.at, "http://127.0.0.1:3000")
}

// spec: auth-sec:28
func TestOpenHosts(t *testing.T) {
	t.Parallel()
	for entry, want := range map[string]bool{
		"https://**.example.com": true, "https://example.*": true, "https://*": true, "https://*.com/x": true, "http://*/**": true,
		"https://*-team.vercel.app/**": false, "https://*.example.com/**": false, "http://localhost:*/**": false, "app://**": false,
		"https://example.com/**": false,
	} {
		if got := auth.OpenHost(entry); got != want {
			t.Errorf("%s: %v", entry, got)
		}
	}
	s := start(t, func(c *auth.Config) { c.RedirectURLs = []string{"https://**.example.com"} })
	if !strings.Contains(s.log.String(), "leaves the end of its host open") {
		t.Error("nobody is warned")
	}
}

func FuzzRedirect(f *testing.F) {
	f.Add("https://*.example.com/**", "https://a.example.com/x?y=1#z")
	f.Add("https://{a,b}[!c-d]?\\*", "https://user@a.example/")
	f.Add("**", "//x")
	f.Fuzz(func(t *testing.T, entry, target string) {
		if len(entry) > 500 {
			return
		}
		ok, err := auth.Allows("http://localhost:3000", []string{entry}, target)
		if err != nil || !ok {
			return
		}
		u, err := url.Parse(target)
		if err != nil || u.Scheme == "" || u.User != nil || strings.ContainsAny(target, "\\\r\n\t ") {
			t.Fatalf("%q is let pass", target)
		}
		switch u.Scheme {
		case "javascript", "data", "vbscript", "file":
			t.Fatalf("%q is let pass", target)
		}
		// What is added does not change where it leads.
		to, err := url.Parse(auth.Landing(target, url.Values{"code": {"1"}}, url.Values{"sb": {""}}))
		if err != nil || to.Host != u.Host || to.Scheme != u.Scheme || to.Fragment != "sb=" {
			t.Fatalf("%q lands at %v, %v", target, to, err)
		}
	})
}

func FuzzGlob(f *testing.F) {
	for _, seed := range []string{"*", "**", "?", "[a-z]", "[!a]", "{a,b{c,d}}", `\*`, "[", "}", "a.b/c", "[^]", "é*"} {
		f.Add(seed, "a.b/c")
	}
	f.Fuzz(func(t *testing.T, glob, text string) {
		if len(glob) > 500 {
			return
		}
		ok, err := auth.MatchGlob(glob, text)
		if err != nil {
			return
		}
		if !strings.ContainsAny(glob, `*?[{\}`) && ok != (glob == text) && strings.ToValidUTF8(glob, "") == glob {
			t.Fatalf("%q against %q: %v", glob, text, ok)
		}
		if glob == "*" && ok == strings.ContainsAny(text, "./") {
			t.Fatalf("* against %q: %v", text, ok)
		}
	})
}
