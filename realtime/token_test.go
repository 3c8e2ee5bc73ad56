package realtime_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/realtime"
	"github.com/sluice-dev/sluice/realtime/phoenix"
)

func closing(cfg *realtime.Config) { cfg.TokenExpiry = realtime.ExpiryClose }

func withToken(field, tok string) string { return fmt.Sprintf(`{"config":{},%q:%q}`, field, tok) }

func tokenPush(tok string) string { return fmt.Sprintf(`{"access_token":%q}`, tok) }

// changesJoin asks for changes, so that the feed shows the channel's claims.
func changesJoin(tokens string) string {
	return `{"config":{"postgres_changes":[{"event":"*","schema":"public","table":"t"}]}` + tokens + `}`
}

// spec: realtime:58
func TestTokenOfJoin(t *testing.T) {
	feed := &fakeFeed{}
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		a, b := user("a", time.Hour), user("b", time.Hour)
		for i, tt := range []struct{ tokens, role, sub string }{
			{``, "anon", ""},
			{`,"access_token":"` + a + `"`, "authenticated", "a"},
			{`,"user_token":"` + a + `"`, "authenticated", "a"},
			{`,"user_token":"` + b + `","access_token":"` + a + `"`, "authenticated", "b"},
			{`,"access_token":"sb_publishable_x"`, "anon", ""},
			{`,"user_token":"sb_publishable_x"`, "anon", ""},
			{`,"access_token":"sb_x","user_token":"` + a + `"`, "anon", ""},
			{`,"access_token":null,"user_token":"` + a + `"`, "authenticated", "a"},
			{`,"access_token":null`, "anon", ""},
			{`,"access_token":{}`, "anon", ""},
		} {
			feed.subs = nil
			c.joined(fmt.Sprint("realtime:", i), changesJoin(tt.tokens))
			if got := feed.subs[0].sub.Claims; got.Role != tt.role || got.Subject != tt.sub {
				t.Errorf("join with %s acts as %s %q", tt.tokens, got.Role, got.Subject)
			}
		}
	}, func(cfg *realtime.Config) { cfg.Feed = feed })
}

// spec: realtime:59
func TestJoinWithBadToken(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		const required = "InvalidJWTToken: Fields `role` and `exp` are required in JWT"
		for _, tt := range []struct{ token, reason string }{
			{user("a", -5*time.Second), "InvalidJWTToken: Token has expired 5 seconds ago"},
			{jwt(map[string]any{"exp": time.Now().Add(time.Hour).Unix()}), required},
			{jwt(map[string]any{"role": "anon"}), required},
			{"garbage", "MalformedJWT: The token provided is not a valid JWT"},
			{"", "MalformedJWT: The token provided is not a valid JWT"},
			{user("a", time.Hour) + "x", "JwtSignatureError: Failed to validate JWT signature"},
		} {
			c.join("realtime:a", withToken("access_token", tt.token))
			want(t, c.got(), refusedReply(tt.reason))
		}
	})
}

// spec: realtime:60
func TestRejoinWithBadToken(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		first, _ := c.joined("realtime:a", emptyJoin)
		second := c.join("realtime:a", withToken("access_token", "garbage"))
		got := c.got()
		want(t, got, refusedReply("MalformedJWT: The token provided is not a valid JWT"), `phx_close {}`)
		if got[0].Ref != second || got[1].Ref != first {
			t.Errorf("refs: %v", got)
		}
		if w.srv.Topics() != 0 {
			t.Error("the old channel is still there")
		}
	})
}

// spec: realtime:61 realtime:67
func TestRefresh(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		join, _ := c.joined("realtime:a", withToken("access_token", user("a", 10*time.Second)))
		time.Sleep(5 * time.Second)
		c.push(join, "realtime:a", "access_token", tokenPush(user("a", 20*time.Second)))
		want(t, c.got()) // no message at all on a public channel
		time.Sleep(10 * time.Second)
		want(t, c.got()) // the first token would have expired
		time.Sleep(12 * time.Second)
		got := c.got()
		if len(got) != 2 || got[0].Event != "system" || got[1].Event != "phx_close" {
			t.Errorf("after the second token expired: %v", got)
		}
	}, closing)
}

// spec: realtime:62
func TestBadRefreshClosesChannel(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		const required = "Fields `role` and `exp` are required in JWT"
		for _, tt := range []struct{ token, text string }{
			{user("a", -3*time.Second), "Token has expired 3 seconds ago"},
			{jwt(map[string]any{"exp": time.Now().Add(time.Hour).Unix()}), required},
			{jwt(map[string]any{"role": "anon"}), required},
			{"garbage", "The token provided is not a valid JWT"},
			{"", "The token provided is not a valid JWT"},
			{user("a", time.Hour) + "x", ":signature_error"},
		} {
			join, _ := c.joined("realtime:a", emptyJoin)
			c.push(join, "realtime:a", "access_token", tokenPush(tt.token))
			got := c.got()
			want(t, got, system("system", "error", tt.text, "a"), `phx_close {}`)
			if got[1].Ref != join || v == phoenix.V2 && (got[0].JoinRef != join || got[0].Ref != nil) {
				t.Errorf("refs: %v", got)
			}
		}
	}, closing)
}

// Values of access_token that change nothing, and are never answered.
func TestIgnoredRefresh(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		tok := user("a", time.Hour)
		join, _ := c.joined("realtime:a", withToken("access_token", tok))
		for _, payload := range []string{tokenPush("sb_publishable_x"), tokenPush(tok), `{"access_token":null}`, `{"access_token":5}`, `{}`, `[]`} {
			c.push(join, "realtime:a", "access_token", payload)
		}
		want(t, c.got())
		c.push(join, "realtime:a", "broadcast", `{}`)
		if w.srv.Topics() != 1 {
			t.Error("the channel is gone")
		}
	}, closing)
}

// spec: realtime:63
func TestAPIKeyDoesNotExtendToken(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		join, _ := c.joined("realtime:a", withToken("access_token", user("a", 10*time.Second)))
		c.push(join, "realtime:a", "access_token", tokenPush("sb_publishable_x"))
		time.Sleep(12 * time.Second)
		got := c.got()
		if len(got) != 2 || got[1].Event != "phx_close" {
			t.Errorf("got %v", got)
		}
	}, closing)
}

// spec: realtime:64
func TestExpiryCloses(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		c.joined("realtime:a", withToken("access_token", user("a", 5*time.Second)))
		c.joined("realtime:b", emptyJoin)
		time.Sleep(4 * time.Second)
		want(t, c.got())
		time.Sleep(2500 * time.Millisecond)
		got := c.got()
		if len(got) != 2 {
			t.Fatalf("got %v", got)
		}
		if p := string(got[0].Payload); p != `{"extension":"system","status":"error","message":"Token has expired 0 seconds ago","channel":"a"}` &&
			p != `{"extension":"system","status":"error","message":"Token has expired 1 seconds ago","channel":"a"}` {
			t.Errorf("system message is %s", p)
		}
		if got[1].Event != "phx_close" {
			t.Errorf("then %v", got[1])
		}
		if w.srv.Topics() != 1 {
			t.Error("the other channel is gone too")
		}
		if code, _ := c.closed(); code != 0 {
			t.Error("the socket is closed")
		}
	}, closing)
}

// The handshake's identity expires like a token.
func TestHandshakeIdentityExpires(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		id := anon
		id.KeyClaims.ExpiresAt = time.Now().Add(5 * time.Second)
		c := w.connect(v, id)
		c.joined("realtime:a", emptyJoin)
		time.Sleep(7 * time.Second)
		if got := c.got(); len(got) != 2 || got[1].Event != "phx_close" {
			t.Errorf("got %v", got)
		}
		c.join("realtime:a", emptyJoin)
		want(t, c.got(), refusedReply("InvalidJWTToken: Token has expired 2 seconds ago"))
	}, closing)
}

// Muted: nothing is delivered and nothing taken until a fresh token comes.
func TestExpiryMutes(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		a, b := w.connect(v), w.connect(v)
		join, _ := a.joined("realtime:r", `{"config":{"presence":{"key":"ka","enabled":true},"broadcast":{"ack":true}},"access_token":"`+user("a", 5*time.Second)+`"}`)
		other, _ := b.joined("realtime:r", `{"config":{"broadcast":{"ack":true}}}`)
		a.push(join, "realtime:r", "presence", `{"event":"track","payload":{"n":1}}`)
		a.got()
		b.got()

		time.Sleep(7 * time.Second)
		got := a.got()
		if len(got) != 1 || got[0].Event != "system" {
			t.Fatalf("expired: %v", got)
		}
		if got := b.got(); len(got) != 1 || got[0].Event != "presence_diff" {
			t.Errorf("others see %v", got)
		}
		b.push(other, "realtime:r", "broadcast", `{"event":"x"}`)
		b.push(other, "realtime:r", "presence", `{"event":"track","payload":{}}`)
		a.push(join, "realtime:r", "broadcast", `{"event":"y"}`)
		want(t, a.got())
		b.got()
		a.push(join, "realtime:r", "presence", `{"event":"track","payload":{"n":2}}`)
		want(t, a.got(), `phx_reply {"status":"error","response":{}}`)
		a.push(join, "realtime:r", "access_token", tokenPush(user("a", -time.Second)))
		want(t, a.got())
		want(t, b.got())

		a.push(join, "realtime:r", "access_token", tokenPush(user("a", time.Hour)))
		got = a.got()
		if len(got) != 3 || got[0].Event != "system" || got[1].Event != "presence_state" || got[2].Event != "presence_diff" {
			t.Fatalf("resumed: %v", got)
		}
		if got := b.got(); len(got) != 1 || got[0].Event != "presence_diff" {
			t.Errorf("others see %v", got)
		}
		b.push(other, "realtime:r", "broadcast", `{"event":"z"}`)
		want(t, a.got(), `broadcast {"event":"z"}`)
		a.push(join, "realtime:r", "broadcast", `{"event":"z"}`)
		want(t, a.got(), okReply)
	})
}

// A refresh with an expired token mutes, any other failure closes, and so does
// another user's token.
func TestRefreshWhileMuting(t *testing.T) {
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		c := w.connect(v)
		join, _ := c.joined("realtime:a", withToken("access_token", user("a", time.Hour)))
		c.push(join, "realtime:a", "access_token", tokenPush(user("a", -2*time.Second)))
		want(t, c.got(), system("system", "error", "Token has expired 2 seconds ago", "a"))
		c.push(join, "realtime:a", "access_token", tokenPush("garbage"))
		want(t, c.got(), system("system", "error", "The token provided is not a valid JWT", "a"), `phx_close {}`)

		join, _ = c.joined("realtime:a", withToken("access_token", user("a", time.Hour)))
		c.push(join, "realtime:a", "access_token", tokenPush(user("b", time.Hour)))
		got := c.got()
		if len(got) != 2 || got[0].Event != "system" || got[1].Event != "phx_close" {
			t.Errorf("another user: %v", got)
		}

		join, _ = c.joined("realtime:a", emptyJoin) // signing in is not another user
		c.push(join, "realtime:a", "access_token", tokenPush(user("b", time.Hour)))
		want(t, c.got())
	})
}

// The claims of a refresh reach the change feed before the next message does.
func TestRefreshReachesFeed(t *testing.T) {
	feed := &fakeFeed{}
	both(t, func(t *testing.T, w *world, v phoenix.Version) {
		feed.subs = nil
		c := w.connect(v)
		join, rest := c.joined("realtime:a", changesJoin(""))
		want(t, rest, system("postgres_changes", "ok", "Subscribed to PostgreSQL", "a"))
		c.push(join, "realtime:a", "access_token", tokenPush(user("a", 10*time.Second)))
		want(t, c.got(), system("postgres_changes", "ok", "Subscribed to PostgreSQL", "a"))
		if sub := feed.subs[0]; len(sub.claims) != 2 || sub.claims[1].Subject != "a" {
			t.Errorf("claims are %v", sub.claims)
		}

		time.Sleep(12 * time.Second) // muted: the subscription ends
		c.got()
		if !feed.subs[0].isClosed() {
			t.Error("an expired identity stays subscribed")
		}
		c.push(join, "realtime:a", "access_token", tokenPush(user("a", time.Hour)))
		got := c.got()
		if len(got) != 2 || got[0].Event != "system" || got[1].Event != "system" {
			t.Errorf("resumed: %v", got)
		}
		if len(feed.subs) != 2 || feed.subs[1].sub.Claims.Subject != "a" {
			t.Error("not subscribed again")
		}

		feed.setErr = sluice.Refuse(sluice.CodeUnableToConnect)
		c.push(join, "realtime:a", "access_token", tokenPush(user("a", 2*time.Hour)))
		got = c.got()
		if len(got) != 1 || got[0].Event != "phx_error" {
			t.Errorf("claims that could not be set: %v", got)
		}
		if !feed.subs[1].isClosed() {
			t.Error("the old claims are still subscribed")
		}
		feed.setErr = nil
	}, func(cfg *realtime.Config) { cfg.Feed = feed })
}

// Whose token was refused stands in the log.
//
// spec: realtime:24
func TestRefusedTokensAreLogged(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		c := w.connect(phoenix.V2)
		for _, tt := range []struct {
			claims map[string]any
			log    string
		}{
			{map[string]any{"role": "authenticated", "sub": "u1", "iss": "here", "exp": 12345}, "sub=u1 iss=here exp=12345"},
			{map[string]any{"sub": "u2", "iss": "there", "exp": time.Now().Add(time.Hour).Unix()}, "sub=u2 iss=there exp="},
			{map[string]any{"role": "authenticated", "sub": "u3"}, `sub=u3 iss=""`},
		} {
			c.join("realtime:a", withToken("access_token", jwt(tt.claims)))
			c.got()
			if n := w.logs.count(tt.log); n != 1 || w.logs.count("level=WARN msg=\"token refused\"") == 0 {
				t.Errorf("%q stands %d times in %s", tt.log, n, w.logs.buf.String())
			}
		}
	})
}
