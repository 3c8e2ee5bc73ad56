package doctor

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/token"
)

// maxFile bounds a file of the app: lock files of large projects have 10 MB.
const maxFile = 32 << 20

// readFile returns a file's text, or false when it is not there or not ours to
// read.
func (v *visit) readFile(name string) (string, bool, error) {
	f, err := os.Open(filepath.Join(v.cfg.Project, name))
	if errors.Is(err, fs.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxFile))
	return string(text), err == nil, err
}

// setting is a variable of an .env file, as the app gets it.
type setting struct{ file, name, value string }

// envLine is a variable on one line. What else a file may hold (values over
// several lines) is no URL and no key; the line is passed over.
var envLine = regexp.MustCompile(`^(?:export\s+)?([A-Za-z_][A-Za-z0-9_.]*)\s*=\s*(?:"([^"]*)"|'([^']*)'|([^\s#'"]*))\s*(?:#.*)?$`)

// readEnv returns the variables whose name speaks of Supabase.
func readEnv(file, text string) []setting {
	var out []setting
	lines := bufio.NewScanner(strings.NewReader(text))
	lines.Buffer(nil, maxFile)
	for lines.Scan() {
		line := strings.TrimSpace(strings.TrimPrefix(lines.Text(), "\ufeff"))
		m := envLine.FindStringSubmatch(line)
		if m == nil || !strings.Contains(strings.ToUpper(m[1]), "SUPABASE") {
			continue
		}
		if value := m[2] + m[3] + m[4]; value != "" {
			out = append(out, setting{file, m[1], value})
		}
	}
	return out
}

// envFiles are the files that dev servers read, the first that has a variable
// wins (Next.js, Vite and others agree on these names).
func (v *visit) envFiles() []string {
	mode := "production"
	if isLoopback(v.base.Hostname()) {
		mode = "development"
	}
	return []string{".env." + mode + ".local", ".env.local", ".env." + mode, ".env"}
}

// checkEnv compares the app's environment files with the address and key that
// were visited.
func (v *visit) checkEnv(context.Context) []Finding {
	if v.cfg.Project == "" {
		return []Finding{skip("no project folder was given (--project)")}
	}
	var findings []Finding
	seen := map[string]bool{}
	files := 0
	for _, file := range v.envFiles() {
		text, there, err := v.readFile(file)
		if err != nil {
			findings = append(findings, warn(CodeEnvDiffers, "%s cannot be read", file).evidence("%v", err).remedy("Look at the file's permissions."))
		}
		if there {
			files++
		}
		for _, s := range readEnv(file, text) {
			if seen[s.name] {
				continue
			}
			seen[s.name] = true
			if f := v.judgeSetting(s); f != nil {
				findings = append(findings, *f)
			}
		}
	}
	switch {
	case len(findings) > 0:
		return findings
	case len(seen) == 0:
		return []Finding{skip("no variable of Supabase in %d .env files", files)}
	}
	return []Finding{ok("%d variables agree with the URL and the key", len(seen))}
}

// published are the prefixes by which a bundler puts a variable into the page.
var published = []string{"NEXT_PUBLIC_", "VITE_", "PUBLIC_", "EXPO_PUBLIC_", "REACT_APP_", "NUXT_PUBLIC_", "GATSBY_"}

var (
	// isKeyName tells the variables of API keys from those of storage's, of sign-in
	// with others, of signing.
	isKeyName = regexp.MustCompile(`(^|_)SUPABASE_((ANON|PUBLISHABLE|PUBLISHABLE_DEFAULT|SERVICE|SERVICE_ROLE|SECRET)_)?KEY$`)
	// isReference is a value that another variable or a program fills in.
	isReference = regexp.MustCompile(`^(\$|env\(|encrypted:)`)
)

func (v *visit) judgeSetting(s setting) *Finding {
	if u, err := url.Parse(s.value); err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" {
		return v.judgeEnvURL(s, u)
	}
	v.hide.add(sluice.Secret(s.value))
	var f Finding
	switch {
	case isSecretKey(s.value) && slices.ContainsFunc(published, func(p string) bool { return strings.HasPrefix(s.name, p) }):
		f = fail(CodeSecretInBrowser, "%s in %s holds a secret key, and its name puts it into every page", s.name, s.file).evidence("%s has %s; bundlers publish variables of this prefix", s.file, sluice.RedactKey(s.value)).
			remedy("Put the publishable key there, and make a new secret key: this one is public by now.")
	case isKeyName.MatchString(strings.ToUpper(s.name)) && kindOf(s.value) == "other" && !isReference.MatchString(s.value):
		f = notAKey(sluice.Secret(s.value))
		f.Text = fmt.Sprintf("%s in %s is no API key: %s", s.name, s.file, f.Text)
		f = f.evidence("%d characters", len(s.value)).remedy("%s Restart the app's dev server then: it reads %s once.", f.Remedy, s.file)
	case !strings.Contains(strings.ToUpper(s.name), "KEY"):
		return nil
	case !v.isOther(s.value):
		return nil
	case v.socketOK:
		f = fail(CodeEnvDiffers, "%s in %s is another key than the one that works", s.name, s.file).
			evidence("%s has %s, the key that works is %s", s.file, sluice.RedactKey(s.value), sluice.RedactKey(string(v.cfg.Key))).
			remedy("Put the key that works into %s, and restart the app's dev server: it reads the file once.", s.file)
	default:
		f = warn(CodeEnvDiffers, "%s in %s is another key than the one that was visited with", s.name, s.file).sure(Possible).
			evidence("%s has %s, visited with %s", s.file, sluice.RedactKey(s.value), sluice.RedactKey(string(v.cfg.Key))).
			remedy("Visit with the app's own key, or put the project's key into %s.", s.file)
	}
	return &f
}

// isOther reports whether a key differs from the project's key of its kind. A
// key of a kind that is not known here may be right.
func (v *visit) isOther(key string) bool {
	for _, known := range []sluice.Secret{v.cfg.Key, v.cfg.LegacyKey} {
		if known != "" && kindOf(key) == kindOf(string(known)) {
			return key != string(known)
		}
	}
	return false
}

func (v *visit) judgeEnvURL(s setting, u *url.URL) *Finding {
	if !strings.Contains(strings.ToUpper(s.name), "URL") {
		return nil
	}
	same := u.Scheme == v.base.Scheme && portOf(u) == portOf(v.base)
	switch {
	case same && strings.EqualFold(u.Hostname(), v.base.Hostname()):
		return nil
	case same && loopbackAlias(u.Hostname()) == v.base.Hostname():
		f := warn(CodeEnvDiffers, "%s in %s says %s, the doctor visited %s: one machine, but two hosts for cookies and for a Content-Security-Policy", s.name, s.file, u.Host, v.base.Host).evidence("%s has %s, visited %s", s.file, withoutSecrets(u), v.base).
			remedy("Write the same name everywhere: in %s, in connect-src and in the page's address.", s.file)
		return &f
	}
	f := fail(CodeEnvDiffers, "%s in %s is %s, not the address that was visited", s.name, s.file, withoutSecrets(u)).
		evidence("visited %s", v.base).byRule(24, causes[CodeWrongPort].link).sure(Likely).
		remedy("If %s is the right address, put it into %s and restart the app's dev server; else visit the other one.", v.base, s.file)
	return &f
}

func isSecretKey(value string) bool {
	j, isJWT := readJWT(sluice.Secret(value))
	return strings.HasPrefix(value, "sb_secret_") || isJWT && j.Role == "service_role"
}

// kindOf tells keys apart that stand for different things.
func kindOf(value string) string {
	if token.IsOpaque(value) {
		kind, _, _ := strings.Cut(strings.TrimPrefix(value, "sb_"), "_")
		return kind
	}
	j, isJWT := readJWT(sluice.Secret(value))
	if !isJWT {
		return "other"
	}
	return "jwt " + j.Role
}

// checkClient reads the versions of what the app runs with.
func (v *visit) checkClient(context.Context) []Finding {
	if v.cfg.Project == "" {
		return []Finding{skip("no project folder was given (--project)")}
	}
	var findings []Finding
	found := ""
	for _, l := range lockFiles {
		text, there, err := v.readFile(l.name)
		if err != nil || !there {
			continue
		}
		if found = l.version(text); found != "" {
			findings = judgeClient(found, l.name)
			break
		}
	}
	for _, name := range []string{".nvmrc", ".node-version", "package.json"} {
		text, _, err := v.readFile(name)
		if err != nil {
			continue
		}
		if f := judgeNode(name, text); f != nil {
			findings = append(findings, *f)
			break
		}
	}
	switch {
	case len(findings) > 0:
		return findings
	case found == "":
		return []Finding{skip("no lock file names @supabase/supabase-js")}
	}
	return []Finding{ok("supabase-js %s", found)}
}

// lockFile is a file that names the installed version of supabase-js.
type lockFile struct {
	name string
	form *regexp.Regexp
}

var lockFiles = []lockFile{
	{"package-lock.json", regexp.MustCompile(`"node_modules/@supabase/supabase-js":\s*\{\s*"version":\s*"(\d+\.\d+\.\d+)`)},
	{"pnpm-lock.yaml", regexp.MustCompile(`@supabase/supabase-js@(\d+\.\d+\.\d+)`)},
	{"yarn.lock", regexp.MustCompile(`@supabase/supabase-js@[^\n]*\n\s+version:? "?(\d+\.\d+\.\d+)`)},
	{"bun.lock", regexp.MustCompile(`@supabase/supabase-js@(\d+\.\d+\.\d+)`)},
}

func (l lockFile) version(text string) string {
	if m := l.form.FindStringSubmatch(text); m != nil {
		return m[1]
	}
	return ""
}

// faults of supabase-js that the server cannot mend.
var faults = []struct {
	from, before string
	rule         int
	link         string
	text         string
	remedy       string
}{
	{"2.50.0", "2.51.0", 15, github + "supabase-js/issues/1473", "it sends the WebSocket protocol \"undefined\" in some runtimes, which servers refuse", "Upgrade: npm install @supabase/supabase-js@latest"},
	{"2.0.0", "2.87.1", 29, github + "realtime-js/issues/278", "a token given with setAuth() is overwritten by the API key a moment later, and the channel goes on as anon", "Upgrade to 2.87.1 or newer, or give createClient the accessToken option."},
	{"2.0.0", "2.110.7", 10, github + "supabase-js/issues/1304", "a channel that subscribes right after the client was made joins without the user's token: SUBSCRIBED, and no rows", "Upgrade to 2.110.7 or newer, or await supabase.auth.getSession() and await supabase.realtime.setAuth() before subscribe()."},
}

func judgeClient(version, file string) []Finding {
	var findings []Finding
	for _, f := range faults {
		if !older(version, f.from) && older(version, f.before) {
			findings = append(findings, warn(CodeOldClient, "supabase-js %s: %s", version, f.text).byRule(f.rule, f.link).
				evidence("%s has %s; mended in %s", file, version, f.before).remedy("%s", f.remedy))
		}
	}
	return findings
}

// older compares versions of three numbers.
func older(a, b string) bool {
	x, y := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(x), len(y)) {
		m, _ := strconv.Atoi(x[i]) // digits, by the form of the lock file
		n, _ := strconv.Atoi(y[i])
		if m != n {
			return m < n
		}
	}
	return false
}

var firstNumber = regexp.MustCompile(`\d+`)

// firstNode is the first version of Node with a WebSocket of its own.
const firstNode = 22

// judgeNode reads the oldest version of Node that the app allows.
func judgeNode(file, text string) *Finding {
	if file == "package.json" {
		var p struct {
			Engines struct {
				Node string `json:"node"`
			} `json:"engines"`
		}
		if json.Unmarshal([]byte(text), &p) != nil {
			return nil
		}
		text = p.Engines.Node
	}
	major, err := strconv.Atoi(firstNumber.FindString(text))
	if err != nil || major >= firstNode {
		return nil
	}
	f := warn(CodeNoWebSocket, "The app may run on Node %d, which has no WebSocket of its own: on the server, channels time out or throw", major).
		evidence("%s says %s", file, shorten(strings.TrimSpace(text), 60)).
		remedy("Use Node 22 or newer, or give createClient a transport: realtime: { transport: ws } with the package ws.")
	return &f
}
