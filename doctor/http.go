package doctor

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-dev/sluice"
)

// maxBody bounds what is read of an answer.
const maxBody = 1 << 20

// answer is an HTTP response and the request it belongs to.
type answer struct {
	request string // method and path, for evidence
	status  int
	header  http.Header
	body    []byte
	hide    *redactor
}

// send makes one request to the project. Redirects are not followed: the key
// would go along, and a WebSocket does not follow them either.
func (v *visit) send(ctx context.Context, method, path string, header map[string]string, body []byte) (*answer, error) {
	ctx, cancel := v.within(ctx)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, v.base.String()+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", "sluice-doctor")
	for k, val := range header {
		req.Header.Set(k, val)
	}
	client := http.Client{
		Transport:     transport(v.tlsConfig()),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return v.do(&client, req, method+" "+path)
}

func (v *visit) do(client *http.Client, req *http.Request, name string) (*answer, error) {
	res, err := client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, unwrapURL(err))
	}
	defer res.Body.Close()
	text, err := io.ReadAll(io.LimitReader(res.Body, maxBody))
	if err != nil {
		return nil, fmt.Errorf("%s: read the body: %w", name, err)
	}
	return &answer{request: name, status: res.StatusCode, header: res.Header, body: text, hide: v.hide}, nil
}

// unwrapURL takes the URL out of a client's error: it stands in the evidence
// already.
func unwrapURL(err error) error {
	var ue interface{ Unwrap() error }
	if errors.As(err, &ue) && ue.Unwrap() != nil {
		return ue.Unwrap()
	}
	return err
}

// keyed are the headers of a client without a session.
func (v *visit) keyed() map[string]string {
	return map[string]string{"Apikey": string(v.cfg.Key), "Authorization": "Bearer " + string(v.cfg.Key)}
}

// String is the evidence of an answer: request, status, text, and who said it.
func (a *answer) String() string {
	text := a.message()
	switch {
	case len(a.body) == 0:
		text = "empty body"
	case text == "" && a.isHTML():
		text = "an HTML page"
		if t := a.title(); t != "" {
			text += fmt.Sprintf(" titled %q", t)
		}
	case text == "":
		text = fmt.Sprintf("%q", a.hide.cut(string(a.body), 120))
	}
	s := fmt.Sprintf("%s → %d, %s", a.request, a.status, text)
	if to := a.header.Get("Location"); to != "" {
		s += ", Location: " + to
	}
	if who := a.sender(); who != "" {
		s += " (from " + who + ")"
	}
	return s
}

func shorten(s string, n int) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "") + "…"
}

// message is the text of a JSON body, under the names that the services use.
func (a *answer) message() string {
	var fields map[string]any
	if json.Unmarshal(a.body, &fields) != nil {
		return ""
	}
	for _, name := range []string{"message", "msg", "error_description", "error"} {
		if s, _ := fields[name].(string); s != "" {
			return a.hide.cut(s, 300)
		}
	}
	return ""
}

// code is the machine-readable code of a JSON body, such as PGRST301.
func (a *answer) code() string {
	var fields struct {
		Code      any    `json:"code"`
		ErrorCode string `json:"error_code"`
	}
	if json.Unmarshal(a.body, &fields) != nil {
		return ""
	}
	if s, isText := fields.Code.(string); isText {
		return s
	}
	return fields.ErrorCode
}

func (a *answer) isHTML() bool {
	return strings.Contains(a.header.Get("Content-Type"), "text/html") || bytes.HasPrefix(bytes.ToLower(bytes.TrimSpace(a.body)), []byte("<!doctype html"))
}

var titleForm = regexp.MustCompile(`(?is)<title[^>]*>\s*([^<]+)`)

func (a *answer) title() string {
	if m := titleForm.FindSubmatch(a.body); m != nil {
		return a.hide.cut(strings.TrimSpace(string(m[1])), 80)
	}
	return ""
}

// sender tells who made the answer. Kong marks what it relays with Via and its
// own answers with Server.
func (a *answer) sender() string {
	h := a.header
	via, server := h.Get("Via"), h.Get("Server")
	switch {
	case h.Get(sluice.HeaderRefusedBy) != "":
		return "Sluice's " + h.Get(sluice.HeaderRefusedBy)
	case strings.Contains(server, "kong"):
		return server + " itself"
	case strings.Contains(via, "kong"), h.Get("X-Kong-Upstream-Latency") != "":
		return strings.TrimSpace("a service behind " + strings.TrimPrefix(via, "1.1 "))
	case h.Get("Sb-Gateway-Version") != "" || h.Get("Sb-Project-Ref") != "":
		return "the hosted platform"
	case server != "":
		return server
	}
	return ""
}

// noAnswer makes a finding of a request that failed below HTTP.
func (v *visit) noAnswer(err error) Finding {
	text := err.Error()
	switch {
	case timedOut(err):
		return fail(CodeTimeout, "The server accepts the connection and gives no answer within %s", v.cfg.Timeout).evidence("%s", text).
			remedy("Something that is not the gateway holds this port, or the gateway hangs: look at its log and restart the stack; compare host and port with the project's URL.")
	case strings.Contains(text, "malformed HTTP"):
		return fail(CodeWrongPort, "What answers on port %s does not speak HTTP", v.port()).evidence("%s", text).
			remedy("%s", apiPort)
	case strings.Contains(text, "HTTP response to HTTPS"):
		return fail(CodeTLS, "The port speaks plain HTTP, and the URL says https").evidence("%s", text).remedy("Use http://%s.", v.base.Host)
	}
	return fail(CodeServiceDown, "The connection ends without an answer").evidence("%s", text).
		remedy("The gateway or a proxy before it closes the connection: look at its log, and compare host and port with the project's URL.")
}

// apiPort mends a port that is the database's.
const apiPort = "Use the API's port (54321 in a development stack), not the database's (54322): `sluice status` or `supabase status` prints it as API_URL."

// isPostgres asks in PostgreSQL's protocol for TLS, which a server answers with S
// or N; to HTTP it says nothing and hangs up.
func (v *visit) isPostgres(ctx context.Context) bool {
	ctx, cancel := v.within(ctx)
	defer cancel()
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", net.JoinHostPort(v.base.Hostname(), v.port()))
	if err != nil {
		return false
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	request := binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(nil, 8), 80877103) // SSLRequest
	var said [1]byte
	if _, err := conn.Write(request); err != nil {
		return false
	}
	_, err = io.ReadFull(conn, said[:])
	return err == nil && (said[0] == 'S' || said[0] == 'N')
}

// checkGateway asks for Auth's health, which every stack serves, and finds out
// who answers on this port.
func (v *visit) checkGateway(ctx context.Context) []Finding {
	a, err := v.send(ctx, http.MethodGet, "/auth/v1/health", v.keyed(), nil)
	if err != nil {
		f := v.noAnswer(err)
		if f.Code == CodeServiceDown && v.isPostgres(ctx) {
			f = fail(CodeWrongPort, "PostgreSQL listens on port %s", v.port()).evidence("%v; PostgreSQL's SSLRequest is answered as PostgreSQL does", err).remedy("%s", apiPort)
		}
		return []Finding{f}
	}
	findings := []Finding{v.judgeGateway(a)}
	if findings[0].Code == CodeWrongPort && opened(v.try(ctx, handshake{key: v.cfg.Key, vsn: v.cfg.VSN})) {
		findings[0] = warn(CodeServiceDown, "Realtime answers here and Auth does not").evidence("%s; the socket's handshake → 101", a).
			remedy("Route /auth/v1/ to Auth on the same address, or give createClient the gateway's address: clients look for all services in one place.")
	}
	if f := v.judgeClock(a); f != nil {
		findings = append(findings, *f)
	}
	return findings
}

func (v *visit) judgeGateway(a *answer) Finding {
	wrongScheme := a.status == http.StatusBadRequest && strings.Contains(string(a.body), "HTTPS")
	switch {
	case wrongScheme && v.base.Scheme == "http":
		return fail(CodeTLS, "The port speaks TLS, and the URL says http").evidence("%s", a).remedy("Use https://%s.", v.base.Host)
	case a.status >= 300 && a.status < 400:
		return v.redirected(a)
	case a.isHTML():
		return fail(CodeWrongPort, "Another program answers at %s: an HTML page came where Auth's health was asked for", v.base.Host).evidence("%s", a).
			remedy("Use the API's address: `sluice status` or `supabase status` prints it as API_URL (http://127.0.0.1:54321 in a development stack). An app's dev server (3000, 5173) and Studio (54323) have other ports.")
	case a.status >= 500:
		return warn(CodeServiceDown, "The gateway answers, Auth behind it does not").evidence("%s", a).
			remedy("Look at Auth's log (`docker logs supabase_auth_PROJECT`) and restart the stack.")
	case a.status == http.StatusOK && strings.Contains(string(a.body), "GoTrue"):
		return ok("Auth answers").evidence("%s", a)
	case a.message() == "" && a.status != http.StatusUnauthorized:
		return fail(CodeWrongPort, "Something that is not a Supabase gateway answers at %s", v.base.Host).sure(Likely).evidence("%s", a).
			remedy("Use the API's address: `sluice status` or `supabase status` prints it as API_URL.")
	}
	return ok("a gateway answers").evidence("%s", a)
}

func (v *visit) redirected(a *answer) Finding {
	f := fail(CodeRedirect, "The gateway's address redirects; a WebSocket does not follow redirects").evidence("%s; not followed, because the key would go along", a)
	to := a.header.Get("Location")
	if v.base.Scheme == "http" && strings.HasPrefix(to, "https://"+v.base.Hostname()) {
		return f.remedy("Use https://%s as the project URL.", v.base.Hostname())
	}
	return f.remedy("Use the address that it redirects to, if that is the project's API; else compare host and port with the project's URL.")
}

// maxSkew is a difference of clocks that begins to break tokens: PostgREST
// allows 30 s, Realtime nothing.
const maxSkew = 30 * time.Second

func (v *visit) judgeClock(a *answer) *Finding {
	at, err := http.ParseTime(a.header.Get("Date"))
	if err != nil {
		return nil
	}
	skew := v.cfg.Now().Sub(at)
	if skew.Abs() <= maxSkew {
		return nil
	}
	f := warn(CodeClockSkew, "This machine's clock and the server's differ by %s, so tokens look expired or not yet valid", skew.Abs().Round(time.Second)).
		evidence("the server's Date is %s", a.header.Get("Date")).
		remedy("Let both machines take their time from the network (for a container's virtual machine: restart it).")
	return &f
}

// checkCORS sends the preflight of a browser's request.
func (v *visit) checkCORS(ctx context.Context) []Finding {
	a, err := v.send(ctx, http.MethodOptions, "/rest/v1/", map[string]string{
		"Origin": v.origin(), "Access-Control-Request-Method": "GET",
		"Access-Control-Request-Headers": "accept-profile,apikey,authorization,x-client-info",
	}, nil)
	if err != nil {
		return []Finding{v.noAnswer(err)}
	}
	allowed := a.header.Get("Access-Control-Allow-Origin")
	headers := strings.ToLower(a.header.Get("Access-Control-Allow-Headers"))
	if a.status/100 == 2 && (allowed == "*" || allowed == v.origin()) && (headers == "*" || strings.Contains(headers, "apikey")) {
		return []Finding{ok("a page on %s may call the API", v.origin())}
	}
	return []Finding{warn(CodeCORS, "A page on %s may not call the API: the preflight is not answered as browsers need it; the socket is not concerned", v.origin()).
		evidence("%s, Access-Control-Allow-Origin %q, Access-Control-Allow-Headers %q", a, allowed, headers).
		remedy("Let the gateway answer OPTIONS with Access-Control-Allow-Origin, and echo the requested headers; a proxy in front must pass OPTIONS on.")}
}

func (v *visit) origin() string {
	if o := originOf(v.cfg.Page); o != "" {
		return o
	}
	return "http://localhost:3000"
}

// probeTable does not exist: PostgREST says so, to whoever may ask.
const probeTable = "/rest/v1/sluice_doctor_probe?limit=0"

// checkREST asks REST for a table that does not exist, with the key.
func (v *visit) checkREST(ctx context.Context) []Finding {
	a, err := v.send(ctx, http.MethodGet, probeTable, v.keyed(), nil)
	if err != nil {
		return []Finding{v.noAnswer(err)}
	}
	if a.reachedREST() {
		return []Finding{ok("REST accepts the key").evidence("%s", a)}
	}
	return []Finding{v.judgeRefusal(a, "REST")}
}

// reachedREST reports whether the request got past the key: PostgREST found
// fault with the request (PGRST1..), the table (PGRST2.., 42P01) or nothing.
func (a *answer) reachedREST() bool {
	c := a.code()
	return a.status == http.StatusOK || strings.HasPrefix(c, "PGRST1") || strings.HasPrefix(c, "PGRST2") || strings.HasPrefix(c, "42")
}

// knownTexts are the words in which gateways, PostgREST and Realtime refuse.
var knownTexts = []struct {
	part string
	code sluice.Code
}{
	{"No API key found in request", sluice.CodeMissingAPIKey},
	{"API key is missing", sluice.CodeMissingAPIKey},
	{"Invalid authentication credentials", sluice.CodeInvalidAPIKey},
	{"Invalid API key", sluice.CodeInvalidAPIKey},
	{"Duplicate API key found", sluice.CodeDuplicateAPIKey},
	{"You cannot consume this service", CodeKeyNotAllowed},
	{"has expired", sluice.CodeInvalidJWTToken},
	{"JWT expired", sluice.CodeInvalidJWTToken},
	{"Fields `role` and `exp`", sluice.CodeInvalidJWTToken},
	{"not a valid JWT", sluice.CodeMalformedJWT},
	{"Failed to validate JWT signature", sluice.CodeJwtSignatureError},
	{"JWSInvalidSignature", sluice.CodeJwtSignatureError},
	{"signature_error", sluice.CodeJwtSignatureError},
	{"Failed to generate JWT signer", sluice.CodeJwtSignerError},
	{"No suitable key", sluice.CodeJwtSignerError},
	{"error_generating_signer", sluice.CodeJwtSignerError},
	{"enant not found", CodeTenantNotFound},
	{"TenantNotFound", CodeTenantNotFound},
	{"Too many channels", sluice.CodeTooManyChannels},
	{"Too many connected users", sluice.CodeTooManyConns},
	{"Too many joins", sluice.CodeTooManyConns},
	{"Too many messages", sluice.CodeTooManyConns},
	{"Too many requests", sluice.CodeTooManyConns},
	{"do not have permissions to read", sluice.CodeUnauthorized},
	{"no Route matched", sluice.CodeRouteNotFound},
	{"name resolution failed", CodeUpstreamName},
	{"messages partition", CodeNoPartition},
	{"is active for PID", CodeSlot},
	{slotsInUse, CodeSlot},
	{"unable to connect to the project database", sluice.CodeUnableToConnect},
	{"Connecting to the project database", sluice.CodeInitializing},
	{"too large", CodeCookiesTooLarge},
}

// slotsInUse is what PostgreSQL says when there is no room for another slot.
const slotsInUse = "slots are in use"

// codeOf finds the code of a text, or "". Only the form "Code: text" is a code's:
// a word alone is anybody's, such as Envoy's "Unauthorized".
func codeOf(text string) sluice.Code {
	word, _, isPrefix := strings.Cut(text, ":")
	if r := sluice.Refuse(sluice.Code(word)); isPrefix && string(r.Code) == word {
		return r.Code
	}
	for _, k := range knownTexts {
		if strings.Contains(text, k.part) {
			return k.code
		}
	}
	return ""
}

// refusal is the code of an answer: Sluice names it, others by their words.
func (a *answer) refusal() sluice.Code {
	code := sluice.Code(a.header.Get(sluice.HeaderCode))
	switch {
	case code != "" && sluice.Refuse(code).Code == code:
		return code
	case a.isHTML():
		return ""
	}
	return cmp.Or(codeOf(a.message()), codeOf(string(a.body)))
}

// judgeRefusal makes a finding of an HTTP answer that is not what was hoped for,
// on any route. service is who was asked.
func (v *visit) judgeRefusal(a *answer, service string) Finding {
	code := a.refusal()
	f := fail(code, "%s refuses: %s", service, a.message()).evidence("%s", a)
	if a.message() == "" {
		f.Text = fmt.Sprintf("%s answers with status %d", service, a.status)
	}
	switch {
	case code == sluice.CodeRouteNotFound:
		return f.remedy("The gateway has no such route: the project URL must have no path (clients add /realtime/v1/websocket, /rest/v1), and the stack must run the service ([realtime] enabled = true).")
	case code == sluice.CodeInvalidAPIKey:
		return f.remedy("%s", copyKey)
	case code == CodeKeyNotAllowed:
		return f.remedy("The gateway knows the key and its consumer is not in a group that may use this route: add the group (anon, admin) to the consumer in kong.yml.")
	case code == CodeTenantNotFound:
		return v.tenant(f)
	case isLimit(code):
		return limited(f)
	case code == sluice.CodeUnableToConnect, code == sluice.CodeInitializing:
		return f.remedy("Realtime cannot reach PostgreSQL: look whether it runs, at [realtime] ip_version and DB_HOST, and at Realtime's log.")
	case code == CodeUpstreamName:
		return f.remedy("The gateway cannot resolve %s's name inside of the stack's network: its container is not running, or the name resolves in the other address family ([realtime] ip_version). Restart the stack and look at `docker ps`.", service)
	case a.status == 502, a.status == 503, a.status == 504:
		f = f.remedy("The gateway reaches no running %s: `docker ps` and `docker logs` of its container tell why it ends; after an upgrade, `supabase stop --no-backup` and start make its database again (data is lost).", service)
		f.Code, f.Rule, f.Link, f.Confidence = CodeServiceDown, causes[CodeServiceDown].rule, causes[CodeServiceDown].link, doubts[CodeServiceDown]
	case code == "" && a.status == http.StatusUnauthorized:
		f.Code, f.Confidence = sluice.CodeInvalidAPIKey, Likely
		f = f.remedy("Compare the key with `sluice status` or `supabase status` (hosted: Project Settings, API Keys).")
	case code == "":
		f.Code, f.Confidence = CodeSocketRefused, doubts[CodeSocketRefused]
		f = f.remedy("Look at the log of %s at this moment; the status and body above are all that it tells from outside.", service)
	}
	return f
}

// tenant tells the two ways in which Realtime finds no tenant: none in its
// table, or another one than the gateway's name for it.
func (v *visit) tenant(f Finding) Finding {
	v.noTenant = true
	return f.remedy("Realtime has no tenant of this name. Either its table is empty (select external_id from _realtime.tenants; then `supabase stop --no-backup` and start, data is lost), or the gateway reaches it by a host name whose first part is not the tenant's id (realtime-dev.supabase-realtime for the tenant realtime-dev).")
}

// isLimit tells the codes of limits: all of them have these words.
func isLimit(code sluice.Code) bool { return strings.Contains(string(code), "RateLimit") }

func limited(f Finding) Finding {
	f.Rule, f.Link = 27, causes[sluice.CodeTooManyConns].link
	return f.remedy("A limit is reached (by default 100 channels a client, 100 joins a second, 200 users): leave channels with supabase.removeChannel() when a component unmounts, or raise the limits of the tenant.")
}

// copyKey mends a key that is not the project's.
const copyKey = "The key is not one of this project, or is of another project or an earlier stack: compare it with `sluice status` or `supabase status` (hosted: Project Settings, API Keys), put it into the app's .env file and restart the app's dev server."

// statusOf makes an answer's status readable where there may be none.
func statusOf(a *answer) string {
	if a == nil {
		return "no answer"
	}
	return strconv.Itoa(a.status)
}
