package doctor_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/doctor"
	"github.com/sluice-dev/sluice/internal/standin"
)

// onJoin answers every join in its own way.
func onJoin(answer func(c *standin.Conn, m standin.Message) bool) func(*standin.Stack) {
	return func(w *standin.Stack) {
		w.Receive = func(c *standin.Conn, m standin.Message) bool { return m.Event == "phx_join" && answer(c, m) }
	}
}

// spec: doctor:2
func TestBroadcastNeedsBearer(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *standin.Stack) {
		w.Routes["/realtime/v1/api/broadcast"] = func(rw http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ey") {
				w.HTTPBroadcast(rw, r)
				return
			}
			rw.WriteHeader(500)
		}
	})
	r := visit(t, doctor.Config{URL: w.URL})
	wantFinding(t, at(t, r, doctor.HopHTTPSend), doctor.CodeBroadcastKey, 2, "500", "with Authorization: Bearer and a JWT → 202", "Upgrade the Supabase CLI")
}

// spec: doctor:26
func TestBroadcastRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *standin.Stack) {
		w.Routes["/realtime/v1/api/broadcast"] = standin.Always(401, `{"message":"Invalid API key"}`)
	})
	r := visit(t, doctor.Config{URL: w.URL})
	wantFinding(t, at(t, r, doctor.HopHTTPSend), doctor.CodeBroadcastRefused, 26, "Invalid API key", "with Authorization: Bearer and a JWT → 401", "Send both headers", "2.97")
	w = newWorld(t, func(w *standin.Stack) { // accepted, and swallowed
		w.Routes["/realtime/v1/api/broadcast"] = standin.Always(202, "")
	})
	wantFinding(t, at(t, visit(t, doctor.Config{URL: w.URL, Timeout: impatient}), doctor.HopHTTPSend), doctor.CodeBroadcastLost, 0, "202")
}

// spec: doctor:9
func TestPrivateChannel(t *testing.T) {
	t.Parallel()
	w := newWorld(t, onJoin(func(c *standin.Conn, m standin.Message) bool {
		if !strings.Contains(string(m.Payload), `"private":true`) {
			return false
		}
		c.Reply(m, "error", `{"reason":"Unauthorized: You do not have permissions to read from this Channel topic: room's"}`)
		return true
	}))
	r := visit(t, doctor.Config{URL: w.URL, PrivateTopic: "room's"})
	wantFirst(t, r, doctor.HopPrivate, sluice.CodeUnauthorized, 9, "create policy", "realtime.topic() = 'room''s'", "setAuth()")
}

// A server in explain mode, such as Sluice, puts its own remedy behind the
// reason.
func TestExplainedReason(t *testing.T) {
	t.Parallel()
	w := newWorld(t, onJoin(func(c *standin.Conn, m standin.Message) bool {
		c.Reply(m, "error", `{"reason":"InvalidAPIKey: The API key is not a key of this project | Compare the key with sluice status."}`)
		return true
	}))
	wantFirst(t, visit(t, doctor.Config{URL: w.URL}), doctor.HopJoin, sluice.CodeInvalidAPIKey, 0, "Compare the key with sluice status.")
	w = newWorld(t, onJoin(func(c *standin.Conn, m standin.Message) bool {
		c.Reply(m, "error", `{"reason":"PrivateOnly: This project only allows private channels"}`)
		return true
	}))
	wantFirst(t, visit(t, doctor.Config{URL: w.URL}), doctor.HopJoin, sluice.CodePrivateOnly, 0, "Allow public access")
}

// spec: doctor:11
func TestBindings(t *testing.T) {
	t.Parallel()
	for _, echo := range []string{
		`[]`, `[{"id":1,"event":"*","schema":"public","table":"Messages"}]`, `[{"event":"*","schema":"public","table":"messages"}]`,
		`[{"id":0,"event":"*","schema":"public","table":"messages"}]`,
	} {
		w := newWorld(t, onJoin(func(c *standin.Conn, m standin.Message) bool {
			if len(standin.Bindings(m)) == 0 {
				return false
			}
			c.Reply(m, "ok", `{"postgres_changes":`+echo+`}`)
			return true
		}))
		r := visit(t, doctor.Config{URL: w.URL, Tables: []string{"messages"}})
		wantFirst(t, r, doctor.HopSubscribe, doctor.CodeBindings, 11, "mismatch between server and client bindings", "case-sensitive")
	}
}

// spec: doctor:17
func TestExpiredToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r := visit(t, doctor.Config{URL: w.URL, Token: sluice.Secret(userToken(t, -time.Hour))})
	wantFirst(t, r, doctor.HopToken, sluice.CodeInvalidJWTToken, 17, "expired 1h0m", "autoRefreshToken")
	// By the server's clock alone.
	w = newWorld(t, onJoin(func(c *standin.Conn, m standin.Message) bool {
		if strings.Contains(string(m.Payload), publishable) {
			return false
		}
		c.Reply(m, "error", `{"reason":"InvalidJWTToken: Token has expired 7 seconds ago"}`)
		return true
	}))
	r = visit(t, doctor.Config{URL: w.URL, Token: sluice.Secret(userToken(t, time.Hour))})
	wantFirst(t, r, doctor.HopUserJoin, sluice.CodeInvalidJWTToken, 17, "7 seconds", "Refresh the session")
}

// spec: doctor:18
func TestSecondJoinClosesTheFirst(t *testing.T) {
	t.Parallel()
	w := newWorld(t, onJoin(func(c *standin.Conn, m standin.Message) bool {
		_, again := c.Topics[m.Topic]
		c.Topics[m.Topic] = m.Ref
		c.Reply(m, "ok", `{"postgres_changes":[]}`)
		if again { // the close names the new channel
			c.Send(m.Ref, m.Ref, m.Topic, "phx_close", "{}")
		}
		return true
	}))
	wantFirst(t, visit(t, doctor.Config{URL: w.URL}), doctor.HopRejoin, doctor.CodeRejoin, 18, "flaps between SUBSCRIBED and CLOSED", "removeChannel", "StrictMode")
}

func TestChangeFeedStaysAway(t *testing.T) {
	t.Parallel()
	w := newWorld(t, onJoin(func(c *standin.Conn, m standin.Message) bool {
		if len(standin.Bindings(m)) == 0 {
			return false
		}
		body, _ := json.Marshal(map[string]any{"postgres_changes": standin.Bindings(m)})
		c.Reply(m, "ok", string(body)) // and no system message: the slot is busy
		return true
	}))
	r := visit(t, doctor.Config{URL: w.URL, Tables: []string{"messages"}, Timeout: impatient})
	wantFirst(t, r, doctor.HopSubscribe, doctor.CodeNoReply, 20, "SUBSCRIBED comes, the change feed stays away", "Realtime's log")
}

// spec: doctor:23
func TestServicesDisagreeAboutKeys(t *testing.T) {
	t.Parallel()
	tok := sluice.Secret(forged(`{"alg":"ES256","kid":"new-key"}`, `{"role":"authenticated","exp":4102444800}`))
	jwks := func(kid string) func(*standin.Stack) {
		return func(w *standin.Stack) {
			w.Routes["/auth/v1/.well-known/jwks.json"] = standin.Always(200, `{"keys":[{"kty":"EC","kid":"`+kid+`"}]}`)
		}
	}
	w := newWorld(t, jwks("old-key"))
	wantFirst(t, visit(t, doctor.Config{URL: w.URL, Token: tok}), doctor.HopToken, sluice.CodeJwtSignerError, 23, `kid "new-key"`, "Sign in again")

	w = newWorld(t, jwks("new-key"), func(w *standin.Stack) {
		w.Routes["/rest/v1/sluice_doctor_probe"] = func(rw http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.Header.Get("Authorization"), "Bearer sb_") {
				standin.WriteJSON(rw, 404, `{"code":"PGRST205","message":"no table"}`)
				return
			}
			standin.WriteJSON(rw, 401, `{"code":"PGRST301","message":"No suitable key or wrong key type"}`)
		}
	})
	wantFirst(t, visit(t, doctor.Config{URL: w.URL, Token: tok}), doctor.HopToken, sluice.CodeJwtSignerError, 23, "alg ES256", "which Auth publishes", "same JWKS")

	w = newWorld(t, jwks("new-key"), onJoin(func(c *standin.Conn, m standin.Message) bool {
		if strings.Contains(string(m.Payload), publishable) {
			return false
		}
		c.Reply(m, "error", `{"reason":"JwtSignatureError: Failed to validate JWT signature"}`)
		return true
	}))
	wantFirst(t, visit(t, doctor.Config{URL: w.URL, Token: tok}), doctor.HopUserJoin, sluice.CodeJwtSignatureError, 23, "do not share one set of keys", "2.71.2")
}

// spec: doctor:32
func TestReplyWithAnotherRef(t *testing.T) {
	t.Parallel()
	w := newWorld(t, onJoin(func(c *standin.Conn, m standin.Message) bool {
		m.Ref = 1 // a number where a string was sent
		c.Reply(m, "ok", `{"postgres_changes":[]}`)
		return true
	}))
	r := visit(t, doctor.Config{URL: w.URL, Timeout: impatient})
	wantFirst(t, r, doctor.HopJoin, doctor.CodeReplyMismatch, 32, `sent ref "1", the reply has ref 1`, "TIMED_OUT", "echo ref and join_ref exactly")
}

func TestTokenAfterJoinCloses(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *standin.Stack) {
		w.Receive = func(c *standin.Conn, m standin.Message) bool {
			if m.Event != "access_token" {
				return false
			}
			c.Send(m.JoinRef, nil, m.Topic, "system", `{"extension":"system","status":"error","message":"The token provided is not a valid JWT"}`)
			c.Send(m.JoinRef, m.JoinRef, m.Topic, "phx_close", "{}")
			return true
		}
	})
	r := visit(t, doctor.Config{URL: w.URL})
	wantFirst(t, r, doctor.HopRefresh, doctor.CodeTokenDropped, 0, "the API key", "not a valid JWT", "June 2025")
	if f := at(t, r, doctor.HopBroadcast); f.Status != doctor.Skip {
		t.Errorf("broadcast on a closed channel: %+v", f)
	}
}

func TestSignIn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, func(w *standin.Stack) {
		w.Routes["/auth/v1/token"] = standin.Always(400, `{"code":400,"error_code":"invalid_credentials","msg":"Invalid login credentials"}`)
	})
	r := visit(t, doctor.Config{URL: w.URL, Email: "alice@example.com", Password: "wrong-password"})
	wantFirst(t, r, doctor.HopSignIn, doctor.CodeSignIn, 0, "Invalid login credentials", "Address or password is wrong")
	w = newWorld(t, func(w *standin.Stack) { // one that repeats what it got
		w.Routes["/auth/v1/token"] = standin.Always(400, `{"msg":"no user alice@example.com with wrong-password"}`)
	})
	r = visit(t, doctor.Config{URL: w.URL, Email: "alice@example.com", Password: "wrong-password"})
	wantFirst(t, r, doctor.HopSignIn, doctor.CodeSignIn, 0, "with ****")

	tok := userToken(t, time.Hour)
	w = newWorld(t, func(w *standin.Stack) {
		w.Routes["/auth/v1/token"] = standin.Always(200, `{"access_token":"`+tok+`"}`)
	})
	r = visit(t, doctor.Config{URL: w.URL, Email: "alice@example.com", Password: "right-password"})
	if f := at(t, r, doctor.HopUserJoin); f.Status != doctor.OK || strings.Contains(show(r), tok) {
		t.Errorf("signed in:\n%s", show(r))
	}
}

func TestSubscriptionRefused(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		code sluice.Code
		rule int
		fix  string
	}{
		"Unable to subscribe to changes with given parameters. Please check Realtime is enabled for the given connect parameters: [event: *, schema: public, table: messages]": {
			sluice.CodeTableNotPublished, 12, `alter publication supabase_realtime add table "public"."messages";`,
		},
		"NoPolicyForRole: Row level security is on and no SELECT policy applies to this role | Send the user's access_token before the join.": {
			sluice.CodeNoPolicyForRole, 10, "Send the user's access_token before the join.",
		},
		`{:error, "Too many database timeouts"}`: {doctor.CodeSubscription, 0, "Compare schema, table and filter"},
	} {
		w := newWorld(t, onJoin(func(c *standin.Conn, m standin.Message) bool {
			b := standin.Bindings(m)
			if len(b) == 0 {
				return false
			}
			body, _ := json.Marshal(map[string]any{"postgres_changes": b})
			c.Reply(m, "ok", string(body))
			c.System(m, "error", text)
			return true
		}))
		r := visit(t, doctor.Config{URL: w.URL, Tables: []string{"messages"}})
		wantFirst(t, r, doctor.HopSubscribe, want.code, want.rule, want.fix)
	}
}
