package e2e_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/sluice-dev/sluice/examples/goclient"
)

// TestGoClient is a client of another language than the stock ones: version
// 2.0.0 with binary frames, against the built binary.
func TestGoClient(t *testing.T) {
	s := newStack(t)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	events := make(chan goclient.Event, 100)
	dial := func(handle func(goclient.Event)) *goclient.Client {
		c, err := goclient.Dial(ctx, s.vars["API_URL"], s.vars["PUBLISHABLE_KEY"], handle)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	alice, bob := dial(func(e goclient.Event) { events <- e }), dial(func(goclient.Event) {})
	next := func(name string) goclient.Event {
		t.Helper()
		for {
			select {
			case e := <-events:
				if e.Name == name {
					return e
				}
			case <-ctx.Done():
				t.Fatalf("no %s arrived", name)
			}
		}
	}

	config := map[string]any{"postgres_changes": []map[string]string{{"event": "INSERT", "schema": "public", "table": "messages"}}}
	if err := alice.Join(ctx, "room", config, signIn(t, s, "alice@example.com")); err != nil {
		t.Fatal(err)
	}
	if err := bob.Join(ctx, "room", map[string]any{}, ""); err != nil {
		t.Fatal(err)
	}

	raw := []byte{0, 1, 2, 255}
	if err := bob.SendBinary("room", "bytes", raw); err != nil {
		t.Fatal(err)
	}
	if e := next("broadcast"); e.Broadcast != "bytes" || !e.Binary || !bytes.Equal(e.Payload, raw) || e.Topic != "room" {
		t.Errorf("binary broadcast arrived as %+v", e)
	}
	if err := bob.Send("room", "json", map[string]int{"a": 1}); err != nil {
		t.Fatal(err)
	}
	if e := next("broadcast"); e.Broadcast != "json" || e.Binary || string(e.Payload) != `{"a":1}` {
		t.Errorf("JSON broadcast arrived as %+v", e)
	}

	if _, err := s.query(ctx, "insert into public.messages (room_id, user_id, body) select r.id, p.id, 'for Go' from public.rooms r, public.profiles p where r.name = 'Lobby' and p.name = 'Bob'"); err != nil {
		t.Fatal(err)
	}
	var change struct {
		Data struct{ Record struct{ Body string } }
	}
	if e := next("postgres_changes"); json.Unmarshal(e.Payload, &change) != nil || change.Data.Record.Body != "for Go" {
		t.Errorf("change arrived as %s", e.Payload)
	}

	if err := bob.Leave(ctx, "room"); err != nil {
		t.Error(err)
	}
	var refused *goclient.ReplyError
	if err := bob.Join(ctx, "room", map[string]any{}, "no.jwt"); !errors.As(err, &refused) || !strings.HasPrefix(refused.Reason, "MalformedJWT: ") {
		t.Errorf("join with a malformed token: %v", err)
	}
}

// signIn returns an access token of one of the chat's users.
func signIn(t *testing.T, s *stack, email string) string {
	t.Helper()
	body := fmt.Sprintf(`{"email":%q,"password":"sluice-chat"}`, email)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.vars["API_URL"]+"/auth/v1/token?grant_type=password", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("apikey", s.vars["PUBLISHABLE_KEY"])
	req.Header.Set("Content-Type", "application/json")
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var session struct {
		Token string `json:"access_token"`
	}
	if err := json.NewDecoder(res.Body).Decode(&session); err != nil || session.Token == "" {
		t.Fatalf("sign in as %s: %d, %v", email, res.StatusCode, err)
	}
	return session.Token
}
