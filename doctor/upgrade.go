package doctor

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime/phoenix"
	"github.com/sluice-dev/sluice/token"
)

// handshake is one attempt to open the socket.
type handshake struct {
	key    sluice.Secret
	vsn    string
	cookie string
}

// socketPath is where clients look for the socket.
const socketPath = "/realtime/v1/websocket"

func (h handshake) path() string {
	q := url.Values{}
	if h.key != "" {
		q.Set("apikey", string(h.key))
	}
	q.Set("vsn", h.vsn)
	return socketPath + "?" + q.Encode()
}

// upgrade writes a browser's handshake and reads status, headers and body,
// which a browser does not show. The socket is nil unless the status is 101.
func (v *visit) upgrade(ctx context.Context, h handshake) (*socket, *answer, error) {
	ctx, cancel := v.within(ctx)
	defer cancel()
	name := "upgrade " + h.path()
	conn, err := v.dial(ctx)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	r := bufio.NewReader(conn)
	res, err := v.shakeHands(conn, r, h)
	if err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, nil, fmt.Errorf("%s: %w", name, err)
	}
	a := &answer{request: name, status: res.StatusCode, header: res.Header, hide: v.hide}
	if a.status == http.StatusSwitchingProtocols {
		vsn, err := phoenix.ParseVersion(h.vsn)
		if err != nil {
			vsn = phoenix.V2 // the server took it; only the handshake is looked at
		}
		return &socket{conn: conn, r: r, vsn: vsn, hide: v.hide}, a, nil
	}
	// A body that never ends must not hold the visit; what came of it counts.
	a.body, _ = io.ReadAll(io.LimitReader(res.Body, maxBody))
	_ = res.Body.Close()
	_ = conn.Close()
	return nil, a, nil
}

func (v *visit) shakeHands(conn net.Conn, r *bufio.Reader, h handshake) (*http.Response, error) {
	nonce := make([]byte, 16)
	_, _ = rand.Read(nonce) // it never fails
	req, err := http.NewRequest(http.MethodGet, v.base.String()+h.path(), nil)
	if err != nil {
		return nil, err
	}
	req.Header = http.Header{
		"Connection": {"Upgrade"}, "Upgrade": {"websocket"}, "Sec-Websocket-Version": {"13"},
		"Sec-Websocket-Key": {base64.StdEncoding.EncodeToString(nonce)},
		"Origin":            {v.origin()}, "User-Agent": {"sluice-doctor"},
	}
	if h.cookie != "" {
		req.Header.Set("Cookie", h.cookie)
	}
	if err := req.Write(conn); err != nil {
		return nil, err
	}
	return http.ReadResponse(r, req)
}

// try opens the socket and closes it again; nil is a failure below HTTP.
func (v *visit) try(ctx context.Context, h handshake) *answer {
	s, a, err := v.upgrade(ctx, h)
	if err != nil {
		return nil
	}
	if s != nil {
		s.close()
	}
	return a
}

func opened(a *answer) bool { return a != nil && a.status == http.StatusSwitchingProtocols }

// checkSocket makes the client's handshake. When it is refused, others tell why.
func (v *visit) checkSocket(ctx context.Context) []Finding {
	h := handshake{key: v.cfg.Key, vsn: v.cfg.VSN}
	s, a, err := v.upgrade(ctx, h)
	switch {
	case err != nil:
		return []Finding{v.noAnswer(err)}
	case s != nil:
		s.close()
		v.socketOK = true
		return []Finding{ok("the handshake is accepted").evidence("%s", a)}
	}
	return []Finding{v.judgeHandshake(ctx, h, a)}
}

// judgeHandshake reads the answer as section B.4.1 of the gateway's
// specification does.
func (v *visit) judgeHandshake(ctx context.Context, h handshake, a *answer) Finding {
	if code := sluice.Code(a.header.Get(sluice.HeaderCode)); code == sluice.CodeUnsupportedVersion {
		return v.badVersion(ctx, h, a)
	}
	code := a.refusal()
	switch {
	case code == sluice.CodeUpgradeRequired: // Sluice says so
		return v.upgradeDropped(a).sure(Certain)
	case code == sluice.CodeJwtSignatureError && !v.blocked[HopREST]:
		return v.wrongSignature(ctx, h, a)
	case a.header.Get(sluice.HeaderCode) != "":
		return v.judgeRefusal(a, "the socket")
	case a.status == http.StatusForbidden && len(a.body) == 0:
		return v.emptyRefusal(ctx, h, a)
	case code == sluice.CodeMalformedJWT && strings.HasPrefix(string(h.key), "sb_"):
		return v.notTranslated(ctx, h, a)
	case a.status >= 300 && a.status < 400:
		return v.redirected(a)
	case a.status == http.StatusRequestHeaderFieldsTooLarge, a.status == 494, code == CodeCookiesTooLarge:
		return tooLarge(fail(CodeCookiesTooLarge, "The handshake's headers are too large for the server").evidence("%s", a))
	case a.status == http.StatusNotFound && a.isHTML():
		return fail(CodeWrongPort, "Another program answers where the socket should be").evidence("%s", a).
			remedy("Route /realtime/v1/ to the gateway, or use the API's address as project URL: `sluice status` or `supabase status` prints it as API_URL.")
	case code == "" && (a.status == http.StatusOK || a.status == http.StatusBadRequest || a.status == http.StatusUpgradeRequired):
		return v.upgradeDropped(a)
	}
	return v.judgeRefusal(a, "the socket")
}

// upgradeDropped: the request arrived without its Upgrade and Connection
// headers, or through something that cannot pass them.
func (v *visit) upgradeDropped(a *answer) Finding {
	f := fail(sluice.CodeUpgradeRequired, "The handshake is answered as if it asked for no upgrade: a proxy on the way drops the Upgrade and Connection headers").evidence("%s", a)
	if a.status == http.StatusUpgradeRequired {
		f.Text = "The handshake is answered with 426: a proxy on the way passes no WebSockets on"
	}
	return f.remedy("Let the proxy speak HTTP/1.1 to the gateway and pass both headers on; for nginx: proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection \"upgrade\"; proxy_read_timeout 75s;")
}

// emptyRefusal tells the reasons for a 403 without a body, the one answer that
// Realtime gave to everything before July 2026, by trying again with one thing
// changed.
func (v *visit) emptyRefusal(ctx context.Context, h handshake, a *answer) Finding {
	if h.vsn != "1.0.0" && opened(v.try(ctx, handshake{key: h.key, vsn: "1.0.0"})) {
		return v.badVersion(ctx, h, a)
	}
	if strings.HasPrefix(string(h.key), "sb_") {
		return v.notTranslated(ctx, h, a)
	}
	if f, is := v.anotherAnonKey(ctx, h, a); is {
		return f
	}
	ping := v.ping(ctx)
	switch {
	case ping != nil && ping.status >= 400:
		return v.tenant(fail(CodeTenantNotFound, "Realtime refuses the socket and its own health probe: it does not know its tenant").sure(Likely).evidence("%s; %s", a, ping))
	case ping != nil && !v.blocked[HopREST]:
		return oldSecret().sure(Likely).evidence("%s; REST accepts the key; GET %s → %d", a, pingPath, ping.status)
	}
	return fail(sluice.CodeJwtSignatureError, "Realtime refuses the key and does not say why: it was signed with another secret than Realtime's, or has expired").sure(Possible).
		evidence("%s; GET %s → %s", a, pingPath, statusOf(ping)).
		remedy("Give the doctor the stack's secret with --jwt-secret to check the signature. If it does not fit, make the anon key again from that secret. Realtime's log says MalformedJWT, signature_error or TenantNotFound.")
}

// anotherAnonKey tells a key that is refused while the project's anon JWT is not.
func (v *visit) anotherAnonKey(ctx context.Context, h handshake, a *answer) (f Finding, is bool) {
	if v.cfg.LegacyKey == "" || v.cfg.LegacyKey == h.key || !opened(v.try(ctx, handshake{key: v.cfg.LegacyKey, vsn: "2.0.0"})) {
		return f, false
	}
	return fail(sluice.CodeJwtSignatureError, "The socket refuses this key and accepts another anon key: this one was signed with another secret, or belongs to another project").
		evidence("%s; with the stack's anon key → 101", a).
		remedy("Copy the key from `sluice status` or `supabase status` again, put it into the app's .env file and restart its dev server; if the JWT secret was changed, make the anon and service_role keys again from it and restart the stack."), true
}

// wrongSignature: Realtime says that a signature is wrong. REST has accepted the
// same key, or the gateway made the JWT of an opaque one itself.
func (v *visit) wrongSignature(ctx context.Context, h handshake, a *answer) Finding {
	if token.IsOpaque(string(h.key)) {
		return oldSecret().evidence("%s; the gateway made this JWT of the key", a)
	}
	if f, is := v.anotherAnonKey(ctx, h, a); is {
		return f
	}
	return oldSecret().sure(Likely).evidence("%s; REST accepts the key", a)
}

// oldSecret: Realtime keeps a copy of the JWT secret, which a change of the
// secret does not reach by itself.
func oldSecret() Finding {
	return fail(sluice.CodeJwtSignatureError, "Realtime verifies with another secret than the stack's keys are signed with: its tenant row holds an older secret").
		remedy("Restart Realtime with API_JWT_SECRET set to the project's secret and SEED_SELF_HOST=true, which writes its tenant row again; in the Supabase CLI's stack `supabase stop --no-backup` and start (data is lost). If the stack has a JWT secret of its own, give the doctor its anon JWT with --legacy-key to be sure.")
}

// pingPath is Realtime's health probe, which fails without a tenant.
const pingPath = "/realtime/v1/api/ping"

// ping asks for it; nil is a failure below HTTP.
func (v *visit) ping(ctx context.Context) *answer {
	a, err := v.send(ctx, http.MethodGet, pingPath, v.keyed(), nil)
	if err != nil {
		return nil
	}
	return a
}

// notTranslated is the fault of the gateways that exchange an opaque key for a
// JWT on REST and not on the socket.
func (v *visit) notTranslated(ctx context.Context, h handshake, a *answer) Finding {
	f := fail(CodeKeyNotTranslated, "The gateway does not exchange the opaque key for a JWT on the socket's route, so Realtime refuses it; REST works with the same key").
		remedy("Upgrade the Supabase CLI to 2.53.11 or newer and restart the stack (self-hosted: take the current kong.yml or envoy configuration); or give createClient the legacy anon JWT, which `supabase status -o env` prints as ANON_KEY; or run Sluice. A user's token, policies and setAuth have no part in it.")
	if v.cfg.LegacyKey == "" && isLoopback(v.base.Hostname()) && opened(v.try(ctx, handshake{key: token.DevPublishableKey, vsn: h.vsn})) {
		// The development stack's key is public, so that it may be tried.
		return fail(sluice.CodeInvalidAPIKey, "The gateway exchanges the development stack's key for a JWT and not this one, which is of another stack, or of an earlier one").
			evidence("%s; with the development stack's publishable key → 101", a).remedy("%s", copyKey)
	}
	if v.cfg.LegacyKey == "" {
		return f.sure(Likely).evidence("%s; no legacy anon JWT was given to compare with (--legacy-key)", a)
	}
	if legacy := v.try(ctx, handshake{key: v.cfg.LegacyKey, vsn: h.vsn}); !opened(legacy) {
		// A key that is simply wrong looks the same where the gateway lets it
		// through; then the anon JWT would have opened the socket.
		if ping := v.ping(ctx); ping != nil && ping.status < 400 {
			return oldSecret().sure(Likely).evidence("%s; with the anon JWT → %s; GET %s → %d", a, statusOf(legacy), pingPath, ping.status)
		}
		return v.tenant(fail(CodeSocketRefused, "The socket refuses the opaque key and the anon JWT alike: Realtime does not know its tenant, or has another JWT secret").
			evidence("%s; with the anon JWT → %s", a, statusOf(legacy)).byRule(4, causes[CodeTenantNotFound].link))
	}
	evidence := a.String() + "; with the legacy anon JWT → 101"
	if rest, err := v.send(ctx, http.MethodGet, probeTable, map[string]string{"Apikey": "sb_publishable_doctor_wrong"}, nil); err == nil && rest.reachedREST() {
		evidence += "; REST accepts a wrong key too, so that it works proves nothing about the key"
	}
	return f.evidence("%s", evidence)
}

func (v *visit) badVersion(ctx context.Context, h handshake, a *answer) Finding {
	f := fail(sluice.CodeUnsupportedVersion, "The protocol version vsn=%s is not served", h.vsn).evidence("%s", a)
	if h.vsn != "1.0.0" && opened(v.try(ctx, handshake{key: h.key, vsn: "1.0.0"})) {
		f = f.evidence("%s; with vsn=1.0.0 → 101", a)
	}
	return f.remedy("Use vsn=1.0.0 or vsn=2.0.0 (realtime: { params: { vsn } } or the vsn option of createClient), or leave it out.")
}

// checkVersions opens the socket under both protocol versions and sends a
// heartbeat on each.
func (v *visit) checkVersions(ctx context.Context) []Finding {
	var good []string
	for _, vsn := range []string{"1.0.0", "2.0.0"} {
		s, a, err := v.upgrade(ctx, handshake{key: v.cfg.Key, vsn: vsn})
		if err != nil {
			return []Finding{v.noAnswer(err)}
		}
		if s == nil {
			return []Finding{warn(sluice.CodeUnsupportedVersion, "vsn=%s is refused: supabase-js up to 2.90 uses 1.0.0, newer ones 2.0.0", vsn).evidence("%s", a)}
		}
		_, err = v.push(ctx, s, "", phoenix.TopicHeartbeat, phoenix.EventHeartbeat, []byte("{}"))
		s.close()
		if err != nil {
			return []Finding{v.noReply(err, "the heartbeat of vsn="+vsn)}
		}
		good = append(good, vsn)
	}
	return []Finding{ok("heartbeats are answered in %s", strings.Join(good, " and "))}
}

// cookieSize is what an OAuth session with provider tokens takes in cookies,
// which a browser sends to every port of localhost.
const cookieSize = 6 << 10

func (v *visit) checkCookies(ctx context.Context) []Finding {
	value := strings.Repeat("x", cookieSize/2)
	a := v.try(ctx, handshake{key: v.cfg.Key, vsn: v.cfg.VSN, cookie: "sb-doctor-auth-token.0=" + value + "; sb-doctor-auth-token.1=" + value})
	if opened(a) {
		return []Finding{ok("6 kB of cookies do not hinder the handshake")}
	}
	f := warn(CodeCookiesTooLarge, "The handshake fails with 6 kB of cookies, which a session can reach: browsers send the cookies of localhost to every port").sure(Possible)
	if a != nil {
		f = f.evidence("%s", a)
	} else {
		f = f.evidence("the connection ended without an answer")
	}
	return []Finding{tooLarge(f)}
}

func tooLarge(f Finding) Finding {
	return f.remedy("Raise [realtime] max_header_length in supabase/config.toml (default 4096), use 127.0.0.1 in the project URL where the page is on localhost, or delete old sb-…-auth-token cookies.")
}
