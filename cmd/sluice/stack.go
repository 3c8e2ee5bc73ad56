package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/url"
	"os"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/devpg"
	"github.com/sluice-dev/sluice/examples/chat"
	"github.com/sluice-dev/sluice/inspect"
	"github.com/sluice-dev/sluice/project"
	"github.com/sluice-dev/sluice/token"
	"github.com/sluice-dev/sluice/wal"
)

// runStack is `sluice start`: the project's own PostgreSQL, its schema, and the
// services, until ctx ends.
func runStack(ctx context.Context, f *folder, o startOptions, say *progress) error {
	logFile, err := os.OpenFile(f.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer logFile.Close()
	refusals := inspect.NewRefusals()
	log := newLogger(logFile, o, refusals)

	p, warnings, err := project.Load(f.workdir, os.Environ())
	for _, w := range warnings {
		say.say("WARN: %s", w)
	}
	if err != nil {
		return err
	}
	keys, named, err := projectKeys(p)
	if err != nil {
		return err
	}
	if err := checkPorts(f, p.Config); err != nil {
		return err
	}
	api, err := listen(p.Config.API.Port, "port in [api]")
	if err != nil {
		return err
	}
	defer api.release()
	box, mailListener, err := catchMail(p.Config)
	if err != nil {
		return err
	}
	if box != nil {
		defer mailListener.Close() // once more than its server
	}
	mailer, err := mailerOf(p.Config, box)
	if err != nil {
		return err
	}

	texter, err := texterOf(p.Config)
	if err != nil {
		return err
	}

	server, err := devpg.New(devpg.Config{
		DataDir: f.data(), Port: p.Config.DB.Port, Settings: p.Config.PostgresSettings(),
		Progress: func(line string) { say.say("%s", line) }, Logger: log,
		StartTimeout: time.Duration(p.Config.DB.HealthTimeout),
	})
	if err != nil {
		return err
	}
	db := &database{folder: f, project: p, server: server, log: log, say: say}
	if err := db.start(ctx); err != nil {
		return err
	}
	defer db.stop()
	if err := db.prepare(ctx); err != nil {
		return err
	}

	control, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for other commands: %w", err)
	}
	defer control.Close() // once more than its server
	g, ctx := errgroup.WithContext(ctx)
	st := &stack{
		db: db, options: o, api: api, resets: make(chan *resetRequest),
		state: state{
			PID: os.Getpid(), Ready: true, Started: time.Now().UTC(), Version: buildVersion(), Vars: statusVars(p, named),
			Control: controlAddress{URL: "http://" + control.Addr().String(), Token: rand.Text()},
		},
		services: serveConfig{
			log: log, refusals: refusals, project: p.Config, keys: keys, api: api, explain: true,
			adminURL: sluice.Secret(server.URL("supabase_admin", "postgres")),
			userURL:  sluice.Secret(server.URL("authenticator", "postgres")),
			authURL:  sluice.Secret(server.URL("supabase_auth_admin", "postgres")),
			mailer:   mailer, templates: mailTemplates(p), texter: texter, positions: f.positions(),
		},
	}
	page, pageListener, err := openConsole(f, p, named, st.state.Vars, &st.services, box)
	if err != nil {
		return err
	}
	if page != nil {
		defer pageListener.Close() // once more than its server
		g.Go(func() error { return serveHTTP(ctx, pageListener, page) })
	}
	if o.chat {
		l, address, err := chatListener(p.Config.Auth.SiteURL)
		if err != nil {
			return err
		}
		page, err := chat.New(chat.Config{APIURL: p.Config.API.ExternalURL, PublishableKey: named.publishable, DemoUsers: true})
		if err != nil {
			l.Close()
			return err
		}
		st.state.Chat = address
		g.Go(func() error { return serveHTTP(ctx, l, page) })
	}
	if box != nil {
		g.Go(func() error { return serveHTTP(ctx, mailListener, box) })
	}
	g.Go(func() error { return serveHTTP(ctx, control, st.controlHandler()) })
	g.Go(func() error { return st.run(ctx) })
	return g.Wait()
}

// stack is a running local stack: services on a database of their own.
type stack struct {
	// fixed after runStack
	db       *database
	options  startOptions
	services serveConfig
	api      *heldListener
	state    state
	resets   chan *resetRequest

	// owned by run
	announced bool
}

// run keeps services and PostgreSQL up until ctx ends. For a reset of the
// database the services end and begin anew: nothing that they know of the old
// database survives, and stock clients join again by themselves.
func (st *stack) run(ctx context.Context) error {
	var answered *resetRequest // waits for the services to be ready again
	for {
		next, err := st.runServices(ctx, answered)
		answered.answer(cmp.Or(err, errStopped)) // no effect when they were ready
		switch {
		case next != nil:
		case errors.As(err, new(*wal.WentBackError)): // what they know is void, and the database is there
			if err := st.api.reopen(); err != nil {
				return fmt.Errorf("serve again: %w", err)
			}
			answered = nil
			continue
		default:
			return err
		}
		answered = next
		st.db.say.follow(next.say)
		err = st.db.recreate(ctx, next)
		if err == nil {
			// What fails here is a person's script: the services come back, on
			// what came before it.
			next.failure = st.db.prepare(ctx)
		}
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			next.answer(err)
			return err
		}
		if err := st.api.reopen(); err != nil {
			return fmt.Errorf("serve again: %w", err)
		}
	}
}

var (
	// errReset ends the services for a reset.
	errReset   = errors.New("the database is being reset once more")
	errStopped = errors.New("the stack was stopped before its services were ready again")
)

// runServices runs the services until ctx ends, one of them fails, or a reset is
// asked for, which it returns. answered is the reset that is over once they are
// ready.
func (st *stack) runServices(ctx context.Context, answered *resetRequest) (*resetRequest, error) {
	var next *resetRequest
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		return serve(ctx, st.services, func() error {
			defer st.db.say.follow(nil)
			defer answered.finish()
			return st.ready()
		})
	})
	g.Go(func() error { return st.db.keep(ctx) })
	g.Go(func() error {
		select {
		case next = <-st.resets:
			return errReset
		case <-ctx.Done():
			return nil
		}
	})
	st.db.say.say("Starting services...")
	if err := g.Wait(); next == nil {
		return nil, err
	}
	return next, nil
}

// ready tells whoever waits for the stack, once.
func (st *stack) ready() error {
	if st.announced {
		return nil
	}
	st.announced = true
	if err := st.db.folder.writeState(st.state); err != nil {
		return err
	}
	st.db.folder.note()
	st.db.say.say("Started Sluice local development setup.")
	st.db.say.ready()
	if st.options.readyFD != 0 {
		return nil // whoever started this process prints the boxes
	}
	return printStarted(st.options.stdout, &st.state)
}

// namedKeys are the keys that status prints.
type namedKeys struct{ publishable, secret, anon, service, jwtSecret string }

// projectKeys builds the keyring from section [auth], with the CLI's public
// defaults for what is not set: this stack listens to this machine alone.
func projectKeys(p *project.Project) (*token.Keyring, namedKeys, error) {
	a := p.Config.Auth
	or := func(v, d string) string {
		if v == "" {
			return d
		}
		return v
	}
	n := namedKeys{
		publishable: or(a.PublishableKey, token.DevPublishableKey), secret: or(a.SecretKey, token.DevSecretKey),
		jwtSecret: or(a.JWTSecret, token.DevJWTSecret),
	}
	n.anon = or(a.AnonKey, token.LegacyKey(sluice.Secret(n.jwtSecret), "anon"))
	n.service = or(a.ServiceRoleKey, token.LegacyKey(sluice.Secret(n.jwtSecret), "service_role"))
	signing := sluice.Secret(token.DevSigningKeys)
	if a.SigningKeysPath != "" {
		text, err := os.ReadFile(p.Path(a.SigningKeysPath))
		if err != nil {
			return nil, n, fmt.Errorf("auth.signing_keys_path: %w", err)
		}
		signing = sluice.Secret(text)
	}
	k, err := token.New(token.Config{
		Secret: sluice.Secret(n.jwtSecret), SigningKeys: signing,
		PublishableKeys: []sluice.Secret{sluice.Secret(n.publishable)}, SecretKeys: []sluice.Secret{sluice.Secret(n.secret)},
	})
	if err != nil && a.SigningKeysPath != "" {
		err = fmt.Errorf("auth.signing_keys_path: %w", err)
	}
	return k, n, err
}

// statusVars are the values of `status` (spec gateway C.2.1) for what is served.
func statusVars(p *project.Project, n namedKeys) []envVar {
	c, api := p.Config, p.Config.API.ExternalURL
	db := url.URL{Scheme: "postgresql", User: url.UserPassword("postgres", "postgres"), Host: net.JoinHostPort(p.Hostname, strconv.Itoa(c.DB.Port)), Path: "/postgres"}
	const tools, apis, database, keys = "Development Tools", "APIs", "Database", "Authentication Keys"
	var out []envVar
	if c.Studio.Enabled {
		out = append(out, envVar{"studio.url", "STUDIO_URL", "http://" + net.JoinHostPort(p.Hostname, strconv.Itoa(c.Studio.Port)), tools, "Console"})
	}
	if c.Inbucket.Enabled {
		mail := "http://" + net.JoinHostPort(p.Hostname, strconv.Itoa(c.Inbucket.Port))
		out = append(out,
			envVar{"mailpit.url", "MAILPIT_URL", mail, tools, "Mailpit"},
			envVar{"inbucket.url", "INBUCKET_URL", mail, "", ""},
		)
	}
	out = append(out, envVar{"api.url", "API_URL", api, apis, "Project URL"})
	if c.API.Enabled {
		out = append(out, envVar{"api.rest_url", "REST_URL", api + "/rest/v1", apis, "REST"})
	}
	out = append(out, envVar{"db.url", "DB_URL", db.String(), database, "URL"})
	if c.Auth.Enabled {
		out = append(out,
			envVar{"auth.publishable_key", "PUBLISHABLE_KEY", n.publishable, keys, "Publishable"},
			envVar{"auth.secret_key", "SECRET_KEY", n.secret, keys, "Secret"},
			envVar{"auth.jwt_secret", "JWT_SECRET", n.jwtSecret, "", ""},
			envVar{"auth.anon_key", "ANON_KEY", n.anon, "", ""},
			envVar{"auth.service_role_key", "SERVICE_ROLE_KEY", n.service, "", ""},
		)
	}
	return out
}

// chatListener listens where the site is expected, or on a free port.
func chatListener(siteURL string) (net.Listener, string, error) {
	u, err := url.Parse(siteURL)
	if err != nil {
		return nil, "", fmt.Errorf("auth.site_url: %w", err)
	}
	l, err := net.Listen("tcp", net.JoinHostPort("127.0.0.1", u.Port()))
	if err != nil || u.Port() == "" {
		if l, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			return nil, "", fmt.Errorf("listen for the chat page: %w", err)
		}
	}
	return l, "http://" + l.Addr().String(), nil
}

// newLogger writes everything to the log file, and warnings to the terminal,
// where a person who starts the stack sees refusals as they happen.
func newLogger(file io.Writer, o startOptions, refusals *inspect.Refusals) *slog.Logger {
	level := slog.LevelInfo
	if o.debug {
		level = slog.LevelDebug
	}
	handlers := []slog.Handler{slog.NewTextHandler(file, &slog.HandlerOptions{Level: level}), refusals.Handler()}
	if o.readyFD == 0 {
		terminal := slog.LevelWarn
		if o.debug {
			terminal = slog.LevelDebug
		}
		handlers = append(handlers, slog.NewTextHandler(o.stderr, &slog.HandlerOptions{Level: terminal}))
	}
	return slog.New(byService{slog.NewMultiHandler(handlers...)})
}
