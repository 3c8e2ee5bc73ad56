package main

import (
	"context"
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
	"github.com/sluice-dev/sluice/internal/backoff"
	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/project"
	"github.com/sluice-dev/sluice/token"
)

// runStack is `sluice start`: the project's own PostgreSQL, its schema, and the
// services, until ctx ends.
func runStack(ctx context.Context, f *folder, o startOptions) error {
	say := newProgress(o)
	logFile, err := os.OpenFile(f.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	defer logFile.Close()
	log := newLogger(logFile, o)

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
	api, err := listen(p.Config.API.Port, "port in [api]")
	if err != nil {
		return err
	}
	defer api.Close() // the gateway's once it runs; closing twice is harmless
	box, mailListener, err := catchMail(p.Config)
	if err != nil {
		return err
	}
	if box != nil {
		defer mailListener.Close()
	}
	mailer, err := mailerOf(p.Config, box)
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
	say.say("Starting database...")
	if _, err := server.Start(ctx); err != nil {
		return err
	}
	defer func() {
		say.say("Stopping database...")
		if err := within(stopDeadline/2, server.Stop); err != nil {
			say.say("WARN: %v", err)
		}
	}()
	if err := prepareDatabase(ctx, f, p, server, log, say); err != nil {
		return err
	}

	s := state{PID: os.Getpid(), Started: time.Now().UTC(), Version: buildVersion(), Vars: statusVars(p.Config, named)}
	g, ctx := errgroup.WithContext(ctx)
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
		s.Chat = address
		g.Go(func() error { return serveHTTP(ctx, l, page) })
	}
	if box != nil {
		g.Go(func() error { return serveHTTP(ctx, mailListener, box) })
	}
	say.say("Starting services...")
	cfg := serveConfig{
		log: log, project: p.Config, keys: keys, api: api, explain: true,
		adminURL: sluice.Secret(server.URL("supabase_admin", "postgres")),
		userURL:  sluice.Secret(server.URL("authenticator", "postgres")),
		authURL:  sluice.Secret(server.URL("supabase_auth_admin", "postgres")),
		mailer:   mailer, templates: mailTemplates(p),
	}
	g.Go(func() error {
		return serve(ctx, cfg, func() error {
			if err := f.writeState(s); err != nil {
				return err
			}
			say.say("Started Sluice local development setup.")
			say.ready()
			if o.readyFD != 0 {
				return nil // whoever started this process prints the boxes
			}
			return printStarted(o.stdout, &s)
		})
	})
	g.Go(func() error { return keepPostgres(ctx, server, log, say) })
	return g.Wait()
}

// keepPostgres starts PostgreSQL again whenever it ends by itself. Meanwhile the
// services answer that the database is away, and keep their sockets.
func keepPostgres(ctx context.Context, server *devpg.Server, log *slog.Logger, say *progress) error {
	retry := backoff.Backoff{Max: 15 * time.Second}
	for running := time.Now(); ; running = time.Now() {
		select {
		case <-ctx.Done():
			return nil
		case <-server.Done():
		}
		log.Error("PostgreSQL ended by itself; starting it again", "log", ".sluice/postgres.log")
		say.say("PostgreSQL ended by itself (its log is .sluice/postgres.log). Starting it again...")
		if time.Since(running) > time.Minute {
			retry.Reset()
		}
		if retry.Wait(ctx) != nil {
			return nil
		}
		_, err := server.Start(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			log.Error("PostgreSQL does not start", sluice.LogError, err)
			say.say("WARN: PostgreSQL does not start: %v", err)
		default:
			log.Info("PostgreSQL is back")
			say.say("PostgreSQL is back.")
		}
	}
}

// prepareDatabase brings the cluster to the state that the services and the
// project's migrations expect. User migrations run on a fresh database alone, as
// in the Supabase CLI; a first start that failed half way is taken up again.
func prepareDatabase(ctx context.Context, f *folder, p *project.Project, server *devpg.Server, log *slog.Logger, say *progress) error {
	_, err := os.Stat(f.readyMarker())
	fresh := errors.Is(err, os.ErrNotExist)
	if fresh {
		say.say("Initialising schema...")
	}
	admin := sluice.Secret(server.URL("supabase_admin", "postgres"))
	secret := p.Config.Auth.JWTSecret
	if secret == "" {
		secret = token.DevJWTSecret
	}
	err = pg.Bootstrap(ctx, admin, pg.BootstrapOptions{
		JWTSecret: sluice.Secret(secret), JWTExp: p.Config.Auth.JWTExpiry,
		AutoExposeNewTables: p.Config.API.AutoExposeNewTables, Logger: log,
	})
	if err != nil {
		return err
	}
	if err := pg.Migrate(ctx, admin, log); err != nil {
		return err
	}
	if !fresh {
		return nil
	}
	if err := p.Apply(ctx, sluice.Secret(server.URL("postgres", "postgres")), func(line string) { say.say("%s", line) }); err != nil {
		return err
	}
	return os.WriteFile(f.readyMarker(), nil, 0o644)
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
	return k, n, err
}

// statusVars are the values of `status` (spec gateway C.2.1) for what is served.
func statusVars(c project.Config, n namedKeys) []envVar {
	api := c.API.ExternalURL
	db := url.URL{Scheme: "postgresql", User: url.UserPassword("postgres", "postgres"), Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(c.DB.Port)), Path: "/postgres"}
	const tools, apis, database, keys = "Development Tools", "APIs", "Database", "Authentication Keys"
	var out []envVar
	if c.Inbucket.Enabled {
		mail := "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(c.Inbucket.Port))
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
func newLogger(file io.Writer, o startOptions) *slog.Logger {
	level := slog.LevelInfo
	if o.debug {
		level = slog.LevelDebug
	}
	handlers := []slog.Handler{slog.NewTextHandler(file, &slog.HandlerOptions{Level: level})}
	if o.readyFD == 0 {
		terminal := slog.LevelWarn
		if o.debug {
			terminal = slog.LevelDebug
		}
		handlers = append(handlers, slog.NewTextHandler(o.stderr, &slog.HandlerOptions{Level: terminal}))
	}
	return slog.New(slog.NewMultiHandler(handlers...))
}
