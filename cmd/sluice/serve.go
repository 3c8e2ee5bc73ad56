package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/sync/errgroup"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/auth"
	"github.com/sluice-dev/sluice/changes"
	"github.com/sluice-dev/sluice/cluster"
	"github.com/sluice-dev/sluice/gateway"
	"github.com/sluice-dev/sluice/inspect"
	"github.com/sluice-dev/sluice/pg"
	"github.com/sluice-dev/sluice/project"
	"github.com/sluice-dev/sluice/realtime"
	"github.com/sluice-dev/sluice/rest"
	"github.com/sluice-dev/sluice/schema"
	"github.com/sluice-dev/sluice/token"
	"github.com/sluice-dev/sluice/wal"
)

// serveConfig is what the services of one node need from outside.
type serveConfig struct {
	log     *slog.Logger
	project project.Config
	keys    *token.Keyring
	// Login URLs: the system's, the users' (authenticator), and Auth's.
	adminURL, userURL, authURL sluice.Secret
	api                        net.Listener
	explain                    bool
	// mailer delivers what Auth mails; nil is none. templates are its own mails.
	mailer    auth.Mailer
	templates map[string]auth.Template
	// positions is the file that keeps clients' positions over a restart; empty
	// keeps them in memory alone.
	positions string
	// refusals remembers those of log.
	refusals *inspect.Refusals
	// node is given what looks into the services, and nil when they end; nil is nobody.
	node func(*inspect.Server)
	// texter delivers messages to phones; nil is none.
	texter auth.Texter
}

// serve brings the services up in the order in which they depend on one another
// and runs them until ctx ends, or until the database was put back to an earlier
// state (*wal.WentBackError): then what they know is void, and they have to begin
// anew. ready is called once clients are about to be answered. What
// was opened first closes last: pools after the services that use them.
func serve(ctx context.Context, cfg serveConfig, ready func() error) error {
	admin, err := pg.Open(ctx, pg.Config{URL: cfg.adminURL, Name: "sluice", Own: true, MaxConns: 8, Logger: cfg.log})
	if err != nil {
		return err
	}
	defer admin.Close()
	users, err := pg.Open(ctx, pg.Config{URL: cfg.userURL, Name: "sluice rest", MaxConns: 16, Logger: cfg.log})
	if err != nil {
		return err
	}
	defer users.Close()
	deciders, err := pg.Open(ctx, pg.Config{URL: cfg.userURL, Name: "sluice decisions", MaxConns: 6, Logger: cfg.log})
	if err != nil {
		return err
	}
	defer deciders.Close()
	channels, err := pg.Open(ctx, pg.Config{URL: cfg.userURL, Name: "sluice channels", MaxConns: 4, Logger: cfg.log})
	if err != nil {
		return err
	}
	defer channels.Close()
	authPool, err := pg.Open(ctx, pg.Config{URL: cfg.authURL, Name: "sluice auth", Own: true, MaxConns: 8, Logger: cfg.log})
	if err != nil {
		return err
	}
	defer authPool.Close()

	// A change goes slot → wal → cluster → changes → realtime → socket. Each
	// step is given the next one; what closes the circle (a message that realtime
	// publishes comes back to it from the bus) is called through a closure.
	resume, err := resumeConfig(os.LookupEnv, cfg.positions)
	if err != nil {
		return err
	}
	journal, err := openJournal(ctx, admin, resume.journal)
	if err != nil {
		return err
	}
	if journal != nil {
		defer journal.Close()
	}
	var feed *changes.Service
	var rt *realtime.Server
	bus := cluster.NewLocal(cluster.Handlers{
		Broadcast: func(b *sluice.Broadcast) { rt.Deliver(b) },
		Messages:  func(b sluice.ChangeBatch) { rt.DeliverRows(b) },
		Changes:   func(ctx context.Context, b sluice.ChangeBatch) error { return feed.Handle(ctx, b) },
	})
	walConfig := wal.Config{
		URL: cfg.adminURL, Handle: bus.PublishChanges, Messages: bus.PublishMessages, Logger: cfg.log,
		Started: func(from sluice.LSN, gap bool) { feed.Started(from, gap) }, Floor: func() sluice.LSN { return feed.Floor() },
		Away: func() bool { return feed.Away() }, MaxHeld: resume.wal, Failover: resume.failover,
	}
	if journal != nil {
		walConfig.MessagesFrom = journal.Mark
	}
	reader, err := wal.New(walConfig)
	if err != nil {
		return err
	}
	verify, err := verifyShare(os.LookupEnv)
	if err != nil {
		return err
	}
	if feed, err = changes.New(changes.Config{
		Admin: admin, User: deciders, Stream: reader, Verify: verify, Logger: cfg.log, Grace: resume.grace, RingBytes: resume.memory, Journal: journal,
	}); err != nil {
		return err
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	rtConfig := realtime.Config{
		Logger: cfg.log, Tokens: cfg.keys, Bus: bus, Feed: feed, Stream: reader, Users: channels, Admin: admin, Explain: cfg.explain,
		MetricsPage: promhttp.HandlerFor(registry, promhttp.HandlerOpts{}),
	}
	if err := setLimits(&rtConfig, os.LookupEnv); err != nil {
		return err
	}
	if rt, err = realtime.New(rtConfig); err != nil {
		return err
	}
	registry.MustRegister(rt.Metrics(), feed.Metrics(), keptCollector{feed, reader})
	node, err := newInspect(cfg, admin, rt, feed, reader)
	if err != nil {
		return err
	}
	if cfg.node != nil {
		cfg.node(node)
		defer cfg.node(nil)
	}
	origins, err := allowedOrigins(os.LookupEnv)
	if err != nil {
		return err
	}
	gatewayConfig := gateway.Config{Logger: cfg.log, Keys: cfg.keys, Explain: cfg.explain, Inspect: node, Origins: origins, Listeners: []net.Listener{cfg.api}}
	g, ctx := errgroup.WithContext(ctx)
	if cfg.project.Auth.Enabled {
		ac := authConfig(cfg, authPool)
		if ac.RefuseBreached, err = refuseBreached(os.LookupEnv); err != nil {
			return err
		}
		if ac.AnonymousLife, err = anonymousLife(os.LookupEnv); err != nil {
			return err
		}
		authServer, err := auth.New(ac)
		if err != nil {
			return err
		}
		gatewayConfig.Auth = authServer
		g.Go(func() error { return authServer.Run(ctx) })
	}
	if cfg.project.Realtime.Enabled {
		gatewayConfig.Realtime = rt
	}
	var cache *schema.Cache
	if cfg.project.API.Enabled {
		if cache, err = schema.New(schema.Config{Admin: admin, Schemas: cfg.project.API.Schemas, Logger: cfg.log}); err != nil {
			return err
		}
		bodies, err := bodyMemory(os.LookupEnv)
		if err != nil {
			return err
		}
		gatewayConfig.REST, err = rest.New(rest.Config{
			Pool: users, Schema: cache, Schemas: cfg.project.API.Schemas, ExtraSearchPath: cfg.project.API.ExtraSearchPath,
			MaxRows: cfg.project.API.MaxRows, BodyMemory: bodies, Logger: cfg.log,
		})
		if err != nil {
			return err
		}
	}
	gw, err := gateway.New(gatewayConfig)
	if err != nil {
		return err
	}
	if cache != nil {
		g.Go(func() error { return cache.Run(ctx) })
	}
	g.Go(func() error { return reader.Run(ctx) })
	g.Go(func() error { return feed.Run(ctx) })
	g.Go(func() error { return rt.Run(ctx) })
	g.Go(func() error { return keepPartitions(ctx, admin, cfg.log) })
	// Requests wait in the listener's queue until they can be answered.
	g.Go(func() error {
		live, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		err := reader.Live(live)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return fmt.Errorf("wait for the change stream: %w", reader.State().Err)
		}
		if cache != nil {
			if err := cache.Reload(ctx, 0); err != nil {
				return err
			}
		}
		if err := ready(); err != nil {
			return err
		}
		return gw.Run(ctx)
	})
	err = g.Wait()
	if back := new(wal.WentBackError); errors.As(err, &back) {
		feed.Lose(back.To)
	}
	return err
}

// authConfig takes the settings of section [auth] over.
func authConfig(cfg serveConfig, pool *pg.Pool) auth.Config {
	a := cfg.project.Auth
	return auth.Config{
		Pool: pool, Keys: cfg.keys, Logger: cfg.log, Version: buildVersion(),
		ExternalURL: a.ExternalURL, Issuer: a.JWTIssuer, SiteURL: a.SiteURL,
		JWTExpiry:    time.Duration(a.JWTExpiry) * time.Second,
		EnableSignup: a.EnableSignup, EnableAnonymous: a.EnableAnonymousSignIns,
		EnableEmail: a.Email.EnableSignup, EmailAutoconfirm: !a.Email.EnableConfirmations,
		MinPasswordLength: a.MinimumPasswordLength, PasswordRequirements: a.PasswordRequirements,
		SecurePasswordChange: a.Email.SecurePasswordChange,
		RefreshTokenRotation: a.EnableRefreshTokenRotation,
		ReuseInterval:        time.Duration(a.RefreshTokenReuseInterval) * time.Second,
		SessionTimebox:       time.Duration(a.Sessions.Timebox), SessionInactivity: time.Duration(a.Sessions.InactivityTimeout),
		Mailer: cfg.mailer, Templates: cfg.templates, RedirectURLs: a.AdditionalRedirectURLs,
		MailInterval: time.Duration(a.Email.MaxFrequency), DoubleConfirmChanges: a.Email.DoubleConfirmChanges,
		CodeLength: a.Email.OTPLength, CodeExpiry: time.Duration(a.Email.OTPExpiry) * time.Second,
		RateLimits: auth.RateLimits{Email: mailLimit(a), SMS: textLimit(a)},
		Captcha:    authCaptcha(a),
		Hooks:      authHooks(a),
		Providers:  authProviders(a, cfg.log), EnableManualLinking: a.EnableManualLinking,
		EnablePhone: a.SMS.EnableSignup, PhoneAutoconfirm: !a.SMS.EnableConfirmations,
		SMS: auth.SMS{
			Texter: cfg.texter, Provider: textProvider(a), WhatsApp: a.SMS.Twilio.Enabled, Template: a.SMS.Template,
			Interval: time.Duration(a.SMS.MaxFrequency), CodeExpiry: localTextExpiry, TestCodes: a.SMS.TestOTP,
		},
		EnablePhoneEnroll: a.MFA.Phone.EnrollEnabled, EnablePhoneVerify: a.MFA.Phone.VerifyEnabled,
		PhoneFactor: auth.SMS{
			Template: a.MFA.Phone.Template, Interval: time.Duration(a.MFA.Phone.MaxFrequency), CodeLength: a.MFA.Phone.OTPLength,
		},
		EnableTOTPEnroll: a.MFA.TOTP.EnrollEnabled, EnableTOTPVerify: a.MFA.TOTP.VerifyEnabled, MaxFactors: a.MFA.MaxEnrolledFactors,
	}
}

// authProviders are the providers that are on. One that Auth does not serve stops
// nobody: requests for it are answered as for a disabled one.
func authProviders(a project.Auth, log *slog.Logger) map[string]auth.Provider {
	out := map[string]auth.Provider{}
	for name, p := range a.External {
		switch {
		case !p.Enabled:
		case !auth.Serves(name):
			log.Warn("a provider of [auth.external] is not served; requests for it are answered as for a disabled one", "provider", name)
		default:
			out[name] = auth.Provider{
				ClientID: p.ClientID, Secret: sluice.Secret(p.Secret), RedirectURI: p.RedirectURI, URL: p.URL,
				SkipNonceCheck: p.SkipNonceCheck, EmailOptional: p.EmailOptional,
			}
		}
	}
	return out
}

// authHooks are the hooks that are on.
func authHooks(a project.Auth) map[string]auth.Hook {
	out := map[string]auth.Hook{}
	for point, h := range a.Hook {
		if h.Enabled {
			out[point] = auth.Hook{URI: h.URI, Secrets: sluice.Secret(h.Secrets)}
		}
	}
	return out
}

// authCaptcha is the captcha that is on.
func authCaptcha(a project.Auth) auth.Captcha {
	if !a.Captcha.Enabled {
		return auth.Captcha{}
	}
	return auth.Captcha{Provider: a.Captcha.Provider, Secret: sluice.Secret(a.Captcha.Secret)}
}

// localTextExpiry is how long the code of a message lives, as in the Supabase CLI's
// stack, which has no key for it.
const localTextExpiry = 6000 * time.Second

// textProvider is the name of the service that sends messages.
func textProvider(a project.Auth) string {
	if a.SMS.Twilio.Enabled {
		return "twilio"
	}
	return ""
}

// textLimit is how many messages an hour Auth sends to phones: without anybody who
// delivers them a project has no limit.
func textLimit(a project.Auth) int {
	if a.SMS.Twilio.Enabled || a.Hook["send_sms"].Enabled {
		return a.RateLimit.SMSSent
	}
	return 0
}

// mailLimit is how many mails an hour Auth sends: without a mail server of its own
// a project has no limit.
func mailLimit(a project.Auth) int {
	if a.Email.SMTP.On() {
		return a.RateLimit.EmailSent
	}
	return 0
}

// How often the daily partitions of realtime.messages are made ahead of need and
// dropped after it: the first time before anybody can connect, and again soon
// when that failed (a lock that a user's transaction holds).
const (
	partitionsEvery = time.Hour
	partitionsAgain = time.Minute
)

func keepPartitions(ctx context.Context, admin *pg.Pool, log *slog.Logger) error {
	for {
		wait := partitionsEvery
		if err := pg.Maintain(ctx, admin); err != nil && ctx.Err() == nil {
			log.Warn("keep partitions of realtime.messages", sluice.LogError, err)
			wait = partitionsAgain
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// serveHTTP serves a page of its own until ctx ends.
func serveHTTP(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	if err := srv.Serve(l); ctx.Err() == nil {
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return nil
}
