package realtime

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"time"

	"github.com/sluice-dev/sluice"
	"github.com/sluice-dev/sluice/pg"
)

// Verifier checks access tokens; *token.Keyring does.
type Verifier interface {
	// Verify returns the token's claims. The error is a *sluice.Refusal.
	Verify(token string) (sluice.Claims, error)
}

// Bus carries messages to every node, this one included.
type Bus interface {
	// PublishBroadcast hands b to Server.Deliver of every node. On this node it
	// has done so when it returns: a sender's own copy precedes its ack, and
	// messages of one caller arrive everywhere in the order of the calls. It
	// must not keep b's memory.
	PublishBroadcast(ctx context.Context, b *sluice.Broadcast) error
}

// Stream tells whether rows of realtime.messages are being read; *wal.Reader
// does.
type Stream interface {
	// Live returns nil once what is committed from now on will be delivered, at
	// once also when ctx has ended; else it waits for that until ctx ends.
	Live(ctx context.Context) error
}

// TokenExpiry says what happens to a channel whose access token expires.
type TokenExpiry string

const (
	// ExpiryMute stops delivery and writes, presence included, until a fresh
	// token arrives, and says so in a system message.
	ExpiryMute TokenExpiry = "mute"
	// ExpiryClose closes the channel, as the original does. Stock clients do
	// not join again by themselves after that.
	ExpiryClose TokenExpiry = "close"
)

// Config describes a Server.
type Config struct {
	// Logger is required.
	Logger *slog.Logger
	// Tokens verifies the tokens of joins and refreshes. Required.
	Tokens Verifier
	// Bus carries broadcasts between nodes. Required.
	Bus Bus
	// Feed delivers Postgres Changes. Without it, joins that ask for them are
	// answered UnableToConnectToProject.
	Feed sluice.ChangeFeed
	// Users asks the policies of private channels as the users: a pool of its
	// own on the login authenticator, which runs as many checks at once as it
	// has connections. Without it, joins of private channels are answered
	// UnableToConnectToProject.
	Users *pg.Pool
	// Admin is the system's pool: it reads replays, and makes the partition of
	// realtime.messages for today when a check finds none. Without it, joins that
	// ask for a replay are refused, and such a check answers MissingPartition.
	Admin *pg.Pool
	// PrivateOnly refuses public channels. HTTP broadcasts are not concerned.
	PrivateOnly bool
	// MetricsPage is served at /metrics to who holds a secret key. Without it
	// nobody gets one.
	MetricsPage http.Handler
	// Stream is asked for channels that want to be told when Broadcast from
	// Database is up (replication_ready). Without it, it never is.
	Stream Stream
	// Explain adds the remedy to every reason, and tells a channel about
	// subscriptions that can never receive anything.
	Explain bool
	// TokenExpiry is ExpiryMute by default.
	TokenExpiry TokenExpiry

	// MaxConns bounds the sockets of this node. Default 16384.
	MaxConns int
	// MaxChannels bounds the channels of one socket. Default 100.
	MaxChannels int
	// MaxChanges bounds the postgres_changes entries of one channel. Default 100.
	MaxChanges int
	// MaxFrame bounds a message after reassembly, in bytes. Default 5,000,000.
	MaxFrame int
	// MaxJoin bounds a join's payload, in bytes. Default 262,144.
	MaxJoin int
	// MaxPayloadKB bounds a broadcast's or tracked payload: kb × 1000 + 500
	// bytes. Default 3000.
	MaxPayloadKB int
	// MaxHTTPBody bounds the body of an HTTP broadcast, in bytes. Default
	// 8,000,000.
	MaxHTTPBody int64
	// MaxPresenceCalls bounds the presence pushes of one channel within
	// PresenceWindow. Default 5 within 30 s.
	MaxPresenceCalls Limit
	PresenceWindow   time.Duration
	// MaxPolicyChecks bounds the checks that wait for a connection of Users; who
	// comes then is told so. Default 16384.
	MaxPolicyChecks int
	// PolicyTimeout bounds the evaluation of policies for one check. Default 3 s.
	PolicyTimeout time.Duration

	// MaxUsers bounds the sockets with at least one joined channel. Beyond it
	// handshakes and first joins are refused. Default 200.
	MaxUsers Limit
	// MaxJoinsPerSecond bounds the average of all joins. Beyond it handshakes
	// are refused and a join closes its socket. Default 100.
	MaxJoinsPerSecond Limit
	// MaxEventsPerSecond bounds, each for itself, the averages of broadcasts
	// (sent and delivered), of changes delivered, and of HTTP requests. Beyond
	// it a delivered broadcast shuts its channel down, changes are dropped and
	// requests are answered 429. Default 100.
	MaxEventsPerSecond Limit
	// MaxPresencePerSecond bounds the average of presence states, tracks and
	// diffs delivered. Beyond it a track shuts its channel down. Default 1000.
	MaxPresencePerSecond Limit
	// Compression accepts permessage-deflate from clients that offer it, without
	// context takeover, as the original does not. What many receive alike is
	// compressed once for all of them; replies are not. Off by default: it costs
	// CPU time, and secrets beside a stranger's text in one message can be guessed
	// from its size.
	Compression bool
	// PresenceEnabled sends every channel the presence of its topic, whether
	// its join asks for it or not.
	PresenceEnabled bool

	// QueueBytes and QueueFrames bound what waits for a slow reader. A single
	// frame always fits. Default 8 MiB and 8192.
	QueueBytes  int
	QueueFrames int
	// HeldBytes and HeldFrames bound what waits for a channel whose join or
	// refresh is under way. Default 1 MiB and 512.
	HeldBytes  int
	HeldFrames int

	// IdleTimeout closes a socket that sends nothing. Default 60 s.
	IdleTimeout time.Duration
	// NoChannelTimeout closes a socket whose channels have all gone, or whose
	// joins have all failed, for so long. Default 10 min.
	NoChannelTimeout time.Duration
	// WriteTimeout closes a socket that takes nothing. Default 15 s.
	WriteTimeout time.Duration
	// JoinTimeout bounds the slow part of a join; stock clients give up after
	// 10 s. Default 8 s.
	JoinTimeout time.Duration
	// ReplayTimeout bounds the reading of one replay. Default 5 s.
	ReplayTimeout time.Duration
	// ReadyTimeout is how long a channel waits for replication_ready before it
	// is closed. Default 60 s.
	ReadyTimeout time.Duration
	// CloseTimeout bounds the goodbye: writing the close frame, and again
	// waiting for the peer. Default 2 s.
	CloseTimeout time.Duration
}

func setDefault[T int | int64 | time.Duration](v *T, d T) {
	if *v == 0 {
		*v = d
	}
}

// withDefaults checks cfg and returns it with its defaults filled in. All
// mistakes are reported at once.
func (cfg Config) withDefaults() (Config, error) {
	var errs []error
	if cfg.Logger == nil {
		errs = append(errs, errors.New("no Logger"))
	}
	if cfg.Tokens == nil {
		errs = append(errs, errors.New("no Tokens"))
	}
	if cfg.Bus == nil {
		errs = append(errs, errors.New("no Bus"))
	}
	switch cfg.TokenExpiry {
	case "":
		cfg.TokenExpiry = ExpiryMute
	case ExpiryMute, ExpiryClose:
	default:
		errs = append(errs, fmt.Errorf("TokenExpiry is %q, not mute or close", cfg.TokenExpiry))
	}
	setDefault(&cfg.MaxConns, 16384)
	setDefault(&cfg.MaxChannels, 100)
	setDefault(&cfg.MaxChanges, 100)
	setDefault(&cfg.MaxFrame, 5_000_000)
	setDefault(&cfg.MaxJoin, 256<<10)
	setDefault(&cfg.MaxPayloadKB, 3000)
	setDefault(&cfg.MaxHTTPBody, 8_000_000)
	setDefault(&cfg.PresenceWindow, 30*time.Second)
	setDefault(&cfg.MaxPolicyChecks, 16384)
	setDefault(&cfg.PolicyTimeout, 3*time.Second)
	setDefault(&cfg.QueueBytes, 8<<20)
	setDefault(&cfg.QueueFrames, 8192)
	setDefault(&cfg.HeldBytes, 1<<20)
	setDefault(&cfg.HeldFrames, 512)
	setDefault(&cfg.IdleTimeout, 60*time.Second)
	setDefault(&cfg.WriteTimeout, 15*time.Second)
	setDefault(&cfg.JoinTimeout, 8*time.Second)
	setDefault(&cfg.NoChannelTimeout, 10*time.Minute)
	setDefault(&cfg.ReplayTimeout, 5*time.Second)
	setDefault(&cfg.ReadyTimeout, time.Minute)
	setDefault(&cfg.CloseTimeout, 2*time.Second)
	for name, n := range map[string]int64{
		"MaxConns": int64(cfg.MaxConns), "MaxChannels": int64(cfg.MaxChannels), "MaxChanges": int64(cfg.MaxChanges),
		"MaxFrame": int64(cfg.MaxFrame), "MaxJoin": int64(cfg.MaxJoin), "MaxPayloadKB": int64(cfg.MaxPayloadKB),
		"MaxHTTPBody": cfg.MaxHTTPBody, "PresenceWindow": int64(cfg.PresenceWindow), "QueueBytes": int64(cfg.QueueBytes), "QueueFrames": int64(cfg.QueueFrames),
		"MaxPolicyChecks": int64(cfg.MaxPolicyChecks), "PolicyTimeout": int64(cfg.PolicyTimeout),
		"HeldBytes": int64(cfg.HeldBytes), "HeldFrames": int64(cfg.HeldFrames), "IdleTimeout": int64(cfg.IdleTimeout),
		"WriteTimeout": int64(cfg.WriteTimeout), "JoinTimeout": int64(cfg.JoinTimeout), "NoChannelTimeout": int64(cfg.NoChannelTimeout), "CloseTimeout": int64(cfg.CloseTimeout),
		"ReplayTimeout": int64(cfg.ReplayTimeout), "ReadyTimeout": int64(cfg.ReadyTimeout),
	} {
		if n < 0 {
			errs = append(errs, fmt.Errorf("%s is negative", name))
		}
	}
	for name, l := range map[string]Limit{
		"MaxUsers": cfg.MaxUsers, "MaxJoinsPerSecond": cfg.MaxJoinsPerSecond, "MaxEventsPerSecond": cfg.MaxEventsPerSecond,
		"MaxPresencePerSecond": cfg.MaxPresencePerSecond, "MaxPresenceCalls": cfg.MaxPresenceCalls,
	} {
		if l < Nothing {
			errs = append(errs, fmt.Errorf("%s is negative; Unlimited switches it off", name))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return cfg, fmt.Errorf("realtime configuration: %w", err)
	}
	return cfg, nil
}

// maxPayload is the size limit of a broadcast's or tracked payload in bytes.
func (cfg *Config) maxPayload() int { return cfg.MaxPayloadKB*1000 + 500 }
