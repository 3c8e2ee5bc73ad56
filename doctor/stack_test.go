package doctor_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/auth"
	"github.com/sluice-dev/sluice/changes"
	"github.com/sluice-dev/sluice/cluster"
	"github.com/sluice-dev/sluice/doctor"
	"github.com/sluice-dev/sluice/gateway"
	"github.com/sluice-dev/sluice/inspect"
	"github.com/sluice-dev/sluice/internal/pgtest"
	"github.com/sluice-dev/sluice/internal/standin"
	"github.com/sluice-dev/sluice/realtime"
	"github.com/sluice-dev/sluice/rest"
	"github.com/sluice-dev/sluice/schema"
	"github.com/sluice-dev/sluice/token"
	"github.com/sluice-dev/sluice/wal"
)

// startSluice runs all services on a database, as cmd/sluice does, and returns
// the project's URL.
func startSluice(t *testing.T, db *pgtest.DB, explain bool) string {
	t.Helper()
	refusals := inspect.NewRefusals()
	log := slog.New(refusals.Handler())
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	keys, err := token.New(token.Config{
		Secret: token.DevJWTSecret, SigningKeys: token.DevSigningKeys,
		PublishableKeys: []sluice.Secret{token.DevPublishableKey}, SecretKeys: []sluice.Secret{token.DevSecretKey},
	})
	must(err)
	admin := db.Pool("supabase_admin")
	var feed *changes.Service
	var rt *realtime.Server
	bus := cluster.NewLocal(cluster.Handlers{
		Broadcast: func(b *sluice.Broadcast) { rt.Deliver(b) },
		Changes:   func(ctx context.Context, b sluice.ChangeBatch) error { return feed.Handle(ctx, b) },
	})
	reader, err := wal.New(wal.Config{URL: db.URL("supabase_admin"), Slot: "sluice_" + db.Name, Handle: bus.PublishChanges, Logger: log})
	must(err)
	feed, err = changes.New(changes.Config{Admin: admin, User: db.Pool("authenticator"), Stream: reader, Logger: log})
	must(err)
	rt, err = realtime.New(realtime.Config{Logger: log, Tokens: keys, Bus: bus, Feed: feed, Explain: explain})
	must(err)
	cache, err := schema.New(schema.Config{Admin: admin, Schemas: []string{"public"}, Logger: log})
	must(err)
	must(cache.Reload(t.Context(), 0))
	rst, err := rest.New(rest.Config{Pool: db.Pool("authenticator"), Schema: cache, Schemas: []string{"public"}, Logger: log})
	must(err)
	ath, err := auth.New(auth.Config{
		Pool: db.Pool("supabase_auth_admin"), Keys: keys, Logger: log, ExternalURL: "http://127.0.0.1:54321/auth/v1",
		EnableSignup: true, EnableEmail: true, EmailAutoconfirm: true, RequestTimeout: time.Minute,
	})
	must(err)
	node, err := inspect.New(inspect.Config{
		Sockets: rt.View, Tracer: feed, Stream: func() inspect.Stream { return inspect.Stream{Streaming: reader.State().Streaming, Slot: reader.Slot()} },
		Refusals: refusals, Admin: admin, Logger: log,
	})
	must(err)
	gw, err := gateway.New(gateway.Config{Logger: log, Keys: keys, Explain: explain, Auth: ath, REST: rst, Realtime: rt, Inspect: node})
	must(err)
	server := httptest.NewServer(gw)
	ctx, cancel := context.WithCancel(context.Background())
	var ended sync.WaitGroup
	for _, run := range []func(context.Context) error{reader.Run, feed.Run, rt.Run} {
		ended.Add(1)
		go func() {
			defer ended.Done()
			if err := run(ctx); err != nil {
				t.Errorf("Run: %v", err)
			}
		}()
	}
	t.Cleanup(func() { cancel(); ended.Wait(); server.Close() })
	live, cancelLive := context.WithTimeout(t.Context(), patient)
	defer cancelLive()
	if err := reader.Live(live); err != nil {
		t.Fatalf("Live: %v (%v)", err, reader.State().Err)
	}
	return server.URL
}

// signUp makes a user.
func signUp(t *testing.T, url, email, password string) {
	t.Helper()
	req, _ := http.NewRequest(http.MethodPost, url+"/auth/v1/signup", strings.NewReader(`{"email":"`+email+`","password":"`+password+`"}`))
	req.Header.Set("Apikey", publishable)
	req.Header.Set("Content-Type", "application/json")
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if body, _ := io.ReadAll(res.Body); res.StatusCode != 200 {
		t.Fatalf("sign up: %d %s", res.StatusCode, body)
	}
}

// TestSluice visits the real services: a healthy stack with everything asked
// for, then faults on it.
func TestSluice(t *testing.T) {
	t.Parallel()
	db := pgtest.New(t)
	db.ExecAs("postgres", `
		create table public.messages (id uuid primary key default gen_random_uuid(), user_id uuid not null default auth.uid(), body text not null,
			created_at timestamptz not null default now(), note text, n numeric default 1.50);
		alter table public.messages enable row level security;
		create policy "own" on public.messages for all to authenticated using (user_id = (select auth.uid()));
		create table public.hidden (id bigint primary key);
		alter publication supabase_realtime add table public.messages;`)
	url := startSluice(t, db, true)
	signUp(t, url, "alice@example.com", "a long password")
	whole := doctor.Config{
		URL: url, Email: "alice@example.com", Password: "a long password", DatabaseURL: db.URL("postgres"),
		Tables: []string{"messages"}, WriteProbe: json.RawMessage(`{"body":"hello from the doctor"}`),
	}
	start := time.Now()
	r := visit(t, whole)
	t.Logf("whole visit: %s", time.Since(start))
	for _, f := range r.Findings {
		// Other tests of this process have slots in the same server.
		if f.Hop != doctor.HopSlots && (f.Status == doctor.Warn || f.Status == doctor.Fail) {
			t.Errorf("healthy stack: %s %s: %s (%s)", f.Status, f.Hop, f.Text, f.Evidence)
		}
	}
	if f := at(t, r, doctor.HopChange); f.Status != doctor.OK {
		t.Errorf("the probe's change: %+v", f)
	}
	var left int
	if err := db.Admin().QueryRow(t.Context(), "select count(*) from public.messages").Scan(&left); err != nil || left != 0 {
		t.Errorf("%d rows of the probe stay, %v", left, err)
	}

	wantOK(t, r, doctor.HopServer, "takes the key as publishable, and the requests for role authenticated, user ", "needs the secret key")

	anon := doctor.Config{URL: url, Tables: []string{"messages"}}
	wantFirst(t, visit(t, anon), doctor.HopSubscribe, sluice.CodeNoPolicyForRole, 10, "as the API key (no user)", "setAuth()")
	hidden := doctor.Config{URL: url, Tables: []string{"hidden"}}
	wantFirst(t, visit(t, hidden), doctor.HopSubscribe, sluice.CodeTableNotPublished, 12, `alter publication supabase_realtime add table "public"."hidden";`)
	whole.SecretKey, whole.WriteProbe = token.DevSecretKey, nil
	wantOK(t, visit(t, whole), doctor.HopServer, "the change stream is up (slot sluice_", "NoPolicyForRole",
		"public.messages: the server publishes INSERT, UPDATE, DELETE, and decides for role authenticated by policies of tier 1")
	hidden.SecretKey = token.DevSecretKey
	wantFirst(t, visit(t, hidden), doctor.HopServer, sluice.CodeTableNotPublished, 12, "alter publication supabase_realtime add table public.hidden;")
	hidden.SecretKey = "sb_secret_AAAAAAAAAAAAAAAAAAAAAA_BBBBBBBB"
	wantFinding(t, at(t, visit(t, hidden), doctor.HopServer), sluice.CodeInvalidAPIKey, 0, "does not show itself")
	wrong := doctor.Config{URL: url, Key: "sb_publishable_AAAAAAAAAAAAAAAAAAAAAA_BBBBBBBB"}
	wantFirst(t, visit(t, wrong), doctor.HopREST, sluice.CodeInvalidAPIKey, 0, "Sluice's gateway", "sluice status")
	wantFinding(t, at(t, visit(t, wrong), doctor.HopJoin), sluice.CodeInvalidAPIKey, 0, "sluice status")
	wantFirst(t, visit(t, doctor.Config{URL: url, VSN: "3.0.0"}), doctor.HopSocket, sluice.CodeUnsupportedVersion, 28, "vsn=1.0.0 → 101")
}

// Without explain mode the reason comes with the handshake.
func TestSluiceStrictSocket(t *testing.T) {
	t.Parallel()
	url := startSluice(t, pgtest.New(t), false)
	r := visit(t, doctor.Config{URL: url, Key: sluice.Secret(otherAnon)})
	wantFinding(t, at(t, r, doctor.HopSocket), sluice.CodeJwtSignatureError, 3, "401", "Sluice's gateway")
	if r := visit(t, doctor.Config{URL: url, Key: sluice.Secret(legacyAnon)}); r.First() != nil {
		t.Errorf("legacy key:\n%s", show(r))
	}
}

// wantOK looks for findings of a hop, none of which is bad.
func wantOK(t *testing.T, r *doctor.Report, hop doctor.Hop, says ...string) {
	t.Helper()
	var texts []string
	for _, f := range r.Findings {
		if f.Hop != hop {
			continue
		}
		texts = append(texts, f.Text)
		if f.Status == doctor.Fail || f.Status == doctor.Warn {
			t.Errorf("%s: %s %s", hop, f.Status, f.Text)
		}
	}
	for _, s := range says {
		if !strings.Contains(strings.Join(texts, "\n"), s) {
			t.Errorf("%s does not say %q:\n%s", hop, s, strings.Join(texts, "\n"))
		}
	}
}

// A server that reads no changes says so, and its refusals are summed up without
// those of the visit.
func TestServersOwnView(t *testing.T) {
	t.Parallel()
	at := func(ago time.Duration) string { return time.Now().Add(-ago).UTC().Format(time.RFC3339Nano) }
	w := newWorld(t, func(w *standin.Stack) {
		w.Routes["/sluice/v1/me"] = func(w http.ResponseWriter, _ *http.Request) {
			io.WriteString(w, `{"key":"publishable","role":"anon"}`)
		}
		w.Routes["/sluice/v1/view"] = func(rw http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Apikey") != "sb_secret_of_this_server" || r.Header.Get("Authorization") != "" {
				t.Errorf("the view was asked with %v", r.Header)
			}
			io.WriteString(rw, `{"stream":{"streaming":false,"error":"slot is in use"},"refusals":[
				{"at":"`+at(-time.Minute)+`","code":"InvalidAPIKey"},
				{"at":"`+at(time.Hour)+`","code":"SlowReader"},
				{"at":"`+at(time.Minute)+`","code":"MissingAPIKey","remedy":"Send it."},
				{"at":"`+at(time.Minute)+`","code":"MissingAPIKey","remedy":"Send it."}]}`)
		}
	})
	r := visit(t, doctor.Config{URL: w.URL, SecretKey: "sb_secret_of_this_server"})
	wantFirst(t, r, doctor.HopServer, doctor.CodeSlot, 20, "slot is in use", "sluice slot status")
	text := show(r)
	if !strings.Contains(text, "MissingAPIKey (2)") || strings.Contains(text, "InvalidAPIKey") || strings.Contains(text, "SlowReader") || strings.Contains(text, "sb_secret_of") {
		t.Error(text)
	}
	w = newWorld(t, func(w *standin.Stack) {
		w.Routes["/sluice/v1/me"] = func(w http.ResponseWriter, r *http.Request) {
			io.WriteString(w, `{"key":"publishable","role":"anon","token_refused":{"code":"JwtSignatureError","text":"Failed to validate","remedy":"sign in again"}}`)
		}
	})
	r = visit(t, doctor.Config{URL: w.URL, Token: sluice.Secret(userToken(t, time.Hour))})
	wantFirst(t, r, doctor.HopServer, sluice.CodeJwtSignatureError, 3, "refuses the user's token", "sign in again")
}
