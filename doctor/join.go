package doctor

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

// channel is a joined topic on a socket of its own.
type channel struct {
	*socket
	topic   string // with prefix
	joinRef phoenix.Ref
	echo    []json.RawMessage // response.postgres_changes
}

// joinConfig is the config of a join.
type joinConfig struct {
	Broadcast struct {
		Ack  bool `json:"ack"`
		Self bool `json:"self"`
	} `json:"broadcast"`
	Presence struct {
		Key     string `json:"key"`
		Enabled bool   `json:"enabled"`
	} `json:"presence"`
	Changes []json.RawMessage `json:"postgres_changes"`
	Private bool              `json:"private"`
}

// errRefused is a join that was answered with an error.
type errRefused struct{ reason string }

func (e *errRefused) Error() string { return e.reason }

// join opens a socket and joins a topic on it, as a client does: the token is
// the user's, or the key where there is no session.
func (v *visit) join(ctx context.Context, topic string, tok sluice.Secret, cfg joinConfig) (*channel, error) {
	s, a, err := v.upgrade(ctx, handshake{key: v.cfg.Key, vsn: v.cfg.VSN})
	if err != nil {
		return nil, err
	}
	if s == nil {
		return nil, &errRefused{a.String()}
	}
	ch := &channel{socket: s, topic: phoenix.TopicPrefix + topic}
	if err := v.rejoin(ctx, ch, tok, cfg); err != nil {
		s.close()
		return nil, err
	}
	return ch, nil
}

// rejoin joins on the socket that is there.
func (v *visit) rejoin(ctx context.Context, ch *channel, tok sluice.Secret, cfg joinConfig) error {
	if cfg.Changes == nil {
		cfg.Changes = []json.RawMessage{}
	}
	payload, err := json.Marshal(map[string]any{"config": cfg, "access_token": string(tok)})
	if err != nil {
		return fmt.Errorf("encode join: %w", err)
	}
	r, err := v.push(ctx, ch.socket, "", ch.topic, phoenix.EventJoin, payload)
	if err != nil {
		return err
	}
	if r.Status != phoenix.StatusOK {
		return &errRefused{r.reason()}
	}
	// The last reference is the join's: push has sent nothing else.
	ch.joinRef = phoenix.Ref(fmt.Sprintf("%q", fmt.Sprint(ch.ref)))
	var response struct {
		Changes []json.RawMessage `json:"postgres_changes"`
	}
	if json.Unmarshal(r.Response, &response) == nil {
		ch.echo = response.Changes
	}
	return nil
}

func probeTopic() string { return "sluice-doctor-" + strings.ToLower(rand.Text()[:10]) }

// loud is a channel that hears itself and gets acknowledgements.
func loud() joinConfig {
	var c joinConfig
	c.Broadcast.Ack, c.Broadcast.Self = true, true
	return c
}

// checkJoin joins a public topic with the key alone, as an app without a session
// does.
func (v *visit) checkJoin(ctx context.Context) []Finding {
	ch, err := v.join(ctx, probeTopic(), v.cfg.Key, loud())
	if err != nil {
		return []Finding{v.noJoin(err, "a public topic with the API key")}
	}
	v.joined = ch
	return []Finding{ok("a public topic can be joined with the API key")}
}

func (v *visit) checkUserJoin(ctx context.Context) []Finding {
	if v.userToken == "" {
		return []Finding{skip("no user")}
	}
	ch, err := v.join(ctx, probeTopic(), v.userToken, loud())
	if err != nil {
		f := v.noJoin(err, "a public topic as the user")
		if f.Code == sluice.CodeJwtSignatureError || f.Code == sluice.CodeJwtSignerError {
			j, _ := readJWT(v.userToken)
			f = v.disagreement(f, j, nil)
		}
		return []Finding{f}
	}
	ch.close()
	return []Finding{ok("a public topic can be joined as role %s", v.userRole)}
}

// noJoin makes a finding of a join that did not succeed.
func (v *visit) noJoin(err error, what string) Finding {
	var refused *errRefused
	if !errors.As(err, &refused) {
		return v.noReply(err, "joining "+what)
	}
	code := codeOf(refused.reason)
	// In explain mode the remedy follows the reason.
	reason, remedy, _ := strings.Cut(refused.reason, " | ")
	if code == "" {
		code = CodeJoinRefused
	}
	f := fail(code, "Joining %s is refused: %s", what, reason).evidence("phx_join → error %q", reason)
	switch {
	case remedy != "":
		return f.remedy("%s", remedy)
	case code == CodeTenantNotFound:
		return v.tenant(f)
	case isLimit(code):
		return limited(f)
	case code == sluice.CodePrivateOnly:
		return f.remedy("This project allows private channels alone: switch \"Allow public access\" on in Realtime's settings, or join with private: true and policies on realtime.messages.")
	case code == CodeNoPartition, code == sluice.CodeMissingPartition:
		return f.remedy("Today's partition of realtime.messages is missing: restart Realtime, which makes it when the first socket connects.")
	case code == sluice.CodeUnableToConnect, code == sluice.CodeInitializing:
		return f.remedy("Realtime cannot reach PostgreSQL: look whether it runs, at [realtime] ip_version and DB_HOST, and at Realtime's log.")
	case code == CodeJoinRefused:
		return f.remedy("Realtime's log has a line for this moment; the reason above is all that it sends.")
	}
	return f
}

// noReply makes a finding of a push that was not answered.
func (v *visit) noReply(err error, what string) Finding {
	var mismatch *wrongRef
	var end *closed
	switch {
	case errors.As(err, &mismatch):
		return fail(CodeReplyMismatch, "The server answers %s with another reference than was sent, so the client waits in vain and reports TIMED_OUT", what).evidence("%s", err).
			remedy("Upgrade Realtime, or take out what rewrites messages on the way; a server must echo ref and join_ref exactly as strings.")
	case timedOut(err):
		return fail(CodeNoReply, "The server does not answer %s; the client reports TIMED_OUT", what).evidence("%v", err).
			remedy("Look at Realtime's log: its connection to PostgreSQL hangs or starts; a proxy that buffers WebSocket frames looks the same.")
	case errors.As(err, &end):
		return fail(CodeNoReply, "The server closes the socket instead of answering %s", what).evidence("%s", err).
			remedy("Look at Realtime's log at this moment. Code 1001 follows a limit on joins, 1012 a restart, 1006 a crash or a proxy.")
	}
	return fail(CodeNoReply, "The socket breaks before %s is answered", what).evidence("%v", err).
		remedy("A proxy that cuts idle or upgraded connections, or a crash of Realtime: look at both logs.")
}

// soon bounds the waits for what an open channel answers at once. A client waits
// as long as for a join, and nothing comes of it.
const soon = 3 * time.Second

// fence sends a broadcast with an acknowledgement: when it is answered, the
// channel has taken everything that was sent before. see gets every message of
// the channel until then, and true ends the wait.
func (v *visit) fence(ctx context.Context, ch *channel, see func(message) bool) error {
	ref, err := ch.send(ch.joinRef, ch.topic, phoenix.EventBroadcast, []byte(`{"type":"broadcast","event":"fence","payload":{}}`))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	return v.await(ctx, ch.socket, func(m message) bool {
		return m.Topic == ch.topic && (see(m) || m.Event == phoenix.EventReply && m.Ref == ref)
	})
}

// checkRefresh sends a token on a joined channel: clients do so when a session
// begins, is refreshed or ends.
func (v *visit) checkRefresh(ctx context.Context) []Finding {
	tok, name := v.userToken, "the user's token"
	if tok == "" || v.blocked[HopToken] || v.blocked[HopUserJoin] { // one that is refused proves nothing here
		tok, name = v.cfg.Key, "the API key"
	}
	payload, err := json.Marshal(map[string]string{"access_token": string(tok)})
	if err != nil {
		return []Finding{skip("the token cannot be sent: %v", err)}
	}
	if _, err := v.joined.send(v.joined.joinRef, v.joined.topic, phoenix.EventAccessToken, payload); err != nil {
		return []Finding{v.noReply(err, "access_token")}
	}
	var said system // why the channel is muted or closed
	end := ""
	err = v.fence(ctx, v.joined, func(m message) bool {
		switch m.Event {
		case phoenix.EventSystem:
			if json.Unmarshal(m.Payload, &said) == nil && said.Status == phoenix.StatusError {
				end = said.Message // Sluice mutes a channel whose token has expired, and does not close it
			}
		case phoenix.EventClose, phoenix.EventError:
			end = strings.TrimLeft(said.Message+"; "+m.Event, "; ")
		}
		return end != ""
	})
	if err != nil {
		return []Finding{v.noReply(err, "a message after access_token")}
	}
	if end == "" {
		return []Finding{ok("%s can be sent after the join", name)}
	}
	f := fail(CodeTokenDropped, "The server closes or mutes the channel when %s is sent after the join", name).evidence("access_token → %s", end)
	switch {
	case codeOf(end) == sluice.CodeInvalidJWTToken:
		return []Finding{fail(sluice.CodeInvalidJWTToken, "%s has expired by the server's clock: a channel goes silent or closes when its token does", name).evidence("%s", f.Evidence)}
	case tok == v.cfg.Key:
		return []Finding{f.remedy("Upgrade Realtime to a release of June 2025 or newer, which takes an opaque key in place of a token for \"no session\"; clients send it after sign-out.")}
	}
	j, _ := readJWT(tok)
	return []Finding{v.disagreement(f, j, nil)}
}

// checkRejoin joins a topic that is joined already, as a component that is
// mounted twice does. The close of the old channel must carry its reference, or
// clients take it for the new one's.
func (v *visit) checkRejoin(ctx context.Context) []Finding {
	ch := v.joined
	old := ch.joinRef
	if err := v.rejoin(ctx, ch, v.cfg.Key, loud()); err != nil {
		return []Finding{v.noJoin(err, "a topic for the second time")}
	}
	wrong := ""
	err := v.fence(ctx, ch, func(m message) bool {
		if (m.Event == phoenix.EventClose || m.Event == phoenix.EventError) && m.Ref != old {
			wrong = fmt.Sprintf("%s with ref %s after a second join with ref %s (the first had %s)", m.Event, m.Ref, ch.joinRef, old)
		}
		return wrong != ""
	})
	switch {
	case wrong != "":
		return []Finding{fail(CodeRejoin, "A second join of one topic closes the channel: a component that subscribes twice flaps between SUBSCRIBED and CLOSED").
			evidence("%s", wrong).
			remedy("Return () => supabase.removeChannel(channel) from the effect that subscribes, keep one client for the page (React's StrictMode mounts twice), and upgrade Realtime.")}
	case err != nil:
		return []Finding{v.noReply(err, "a message after a second join")}
	}
	return []Finding{ok("a second join replaces the first")}
}

// checkBroadcast sends a broadcast on the channel and waits for its own copy.
func (v *visit) checkBroadcast(ctx context.Context) []Finding {
	nonce := rand.Text()
	payload := []byte(`{"type":"broadcast","event":"doctor","payload":{"nonce":"` + nonce + `"}}`)
	if _, err := v.joined.send(v.joined.joinRef, v.joined.topic, phoenix.EventBroadcast, payload); err != nil {
		return []Finding{v.noReply(err, "a broadcast")}
	}
	if err := v.hear(ctx, nonce); err != nil {
		f := v.noReply(err, "a broadcast")
		if timedOut(err) {
			f = fail(CodeBroadcastLost, "A broadcast does not come back to a channel with self: true").evidence("%v", err).
				remedy("Look at Realtime's log for limits (messages a second, payload size) and for errors of its message bus.")
		}
		return []Finding{f}
	}
	return []Finding{ok("a broadcast over the socket arrives")}
}

// hear waits for the broadcast that holds a nonce, in any form.
func (v *visit) hear(ctx context.Context, nonce string) error {
	ctx, cancel := context.WithTimeout(ctx, soon)
	defer cancel()
	return v.await(ctx, v.joined.socket, func(m message) bool {
		return m.Event == phoenix.EventBroadcast && bytes.Contains(m.Payload, []byte(nonce)) || bytes.Contains(m.binary, []byte(nonce))
	})
}

// checkHTTPBroadcast sends a broadcast by HTTP, with the key alone as clients
// without a session do, and waits for it on the channel.
func (v *visit) checkHTTPBroadcast(ctx context.Context) []Finding {
	nonce := rand.Text()
	body, err := json.Marshal(map[string]any{"messages": []any{map[string]any{
		"topic": strings.TrimPrefix(v.joined.topic, phoenix.TopicPrefix), "event": "doctor", "payload": map[string]string{"nonce": nonce}, "private": false,
	}}})
	if err != nil { // strings
		return []Finding{skip("the broadcast cannot be sent: %v", err)}
	}
	header := map[string]string{"Apikey": string(v.cfg.Key), "Content-Type": "application/json"}
	a, err := v.send(ctx, http.MethodPost, "/realtime/v1/api/broadcast", header, body)
	if err != nil {
		return []Finding{v.noAnswer(err)}
	}
	if a.status != http.StatusAccepted {
		return []Finding{v.judgeHTTPBroadcast(ctx, a, body)}
	}
	if err := v.hear(ctx, nonce); err != nil {
		return []Finding{fail(CodeBroadcastLost, "A broadcast by HTTP is accepted and does not arrive on the channel").evidence("%s; %v", a, err).
			remedy("Look at Realtime's log; with several nodes, at the connection between them.")}
	}
	return []Finding{ok("a broadcast by HTTP arrives").evidence("%s", a)}
}

// judgeHTTPBroadcast repeats a refused broadcast with a bearer token.
func (v *visit) judgeHTTPBroadcast(ctx context.Context, a *answer, body []byte) Finding {
	tok := v.userToken
	if tok == "" {
		tok = v.cfg.LegacyKey
	}
	header := map[string]string{"Apikey": string(v.cfg.Key), "Content-Type": "application/json", "Authorization": "Bearer " + string(tok)}
	evidence := a.String()
	if tok != "" {
		if b, err := v.send(ctx, http.MethodPost, "/realtime/v1/api/broadcast", header, body); err == nil {
			evidence += fmt.Sprintf("; with Authorization: Bearer and a JWT → %d", b.status)
			if b.status == http.StatusAccepted {
				f := warn(CodeBroadcastKey, "A broadcast by HTTP works only with a JWT as bearer, not with the API key alone: the gateway makes no Authorization header of the key").
					evidence("%s", evidence).
					remedy("Upgrade the Supabase CLI and Realtime (the fault of 2.45 to 2.53); until then send both headers, apikey and Authorization: Bearer with a JWT, or send broadcasts over a joined channel.")
				if a.status < 500 {
					f.Code, f.Rule, f.Link = CodeBroadcastRefused, causes[CodeBroadcastRefused].rule, causes[CodeBroadcastRefused].link
				}
				return f
			}
		}
	}
	f := warn(CodeBroadcastRefused, "A broadcast by HTTP is refused with status %d: %s", a.status, a.message()).evidence("%s", evidence)
	if a.status == http.StatusTooManyRequests {
		return limited(f)
	}
	return f.remedy("Send both headers, apikey and Authorization: Bearer with the user's token; channel.httpSend() needs Realtime 2.97 or newer. Broadcasts over a joined channel are not concerned.")
}

// checkPrivate joins the app's private channel, and the same topic as a public
// one to tell a policy from a fault.
func (v *visit) checkPrivate(ctx context.Context) []Finding {
	if v.cfg.PrivateTopic == "" {
		return []Finding{skip("no private channel was named (--private-topic)")}
	}
	tok, who := v.identity()
	cfg := loud()
	cfg.Private = true
	ch, err := v.join(ctx, v.cfg.PrivateTopic, tok, cfg)
	if err == nil {
		ch.close()
		return []Finding{ok("%s can be joined as %s", v.cfg.PrivateTopic, who)}
	}
	f := v.noJoin(err, "the private channel "+v.cfg.PrivateTopic+" as "+who)
	if f.Code != sluice.CodeUnauthorized || f.Remedy != sluice.Refuse(f.Code).Remedy {
		return []Finding{f} // another fault, or the server's own remedy
	}
	return []Finding{f.remedy("Create a policy, for example: create policy \"read\" on realtime.messages for select to authenticated using (realtime.topic() = '%s'); and one for insert to send. The user's token must be there before the join: await supabase.realtime.setAuth().",
		strings.ReplaceAll(v.cfg.PrivateTopic, "'", "''"))}
}

// identity is the best one that there is, and its name.
func (v *visit) identity() (tok sluice.Secret, who string) {
	if v.userToken != "" {
		return v.userToken, "role " + v.userRole
	}
	return v.cfg.Key, "the API key (no user)"
}
